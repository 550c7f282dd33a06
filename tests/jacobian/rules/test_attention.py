"""Self-attention of torch, whose projections are called as layers on the replica."""

import pytest
import torch
from torch import nn

from helpers.networks import linear, normal
from helpers.rule_oracles import assert_matches_dense
from skgeo.jacobian._rules.opened import opened
from skgeo.network import replica

B, T, D = 3, 5, 4
CAUSAL = torch.ones(T, T, dtype=torch.bool).triu(1)
PADDED = torch.arange(T) >= torch.tensor([[5], [3], [4]])


class Attends(nn.Module):
    def __init__(self, call, **options):
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(D, 2, **options)
        self.out = linear(D, 3)
        self.call = call
        for parameter in self.attention.parameters():
            nn.init.normal_(parameter, std=0.7)

    def forward(self, x):
        return self.out(torch.tanh(self.call(self.attention, x)))


def made(call, batch_first=True, **options):
    return Attends(call, batch_first=batch_first, **options).double().eval()


def of_each(mask, x):
    """A mask of all samples, for some of them: the first coordinate is the number of a sample."""
    return mask[x[:, 0, 0].round().long()]


def numbered():
    x = normal(B, T, D)
    x[:, 0, 0] = torch.arange(B)
    return x


CALLS = {
    "plain": lambda attend, x: attend(x, x, x, need_weights=False)[0].mean(1),
    "named": lambda attend, x: attend(query=x, key=x, value=x)[0].mean(1),
    "causal": lambda attend, x: attend(x, x, x, attn_mask=CAUSAL, is_causal=True)[0].mean(1),
    "added": lambda attend, x: attend(x, x, x, attn_mask=0.5 * CAUSAL.double())[0].mean(1),
    "of heads": lambda attend, x: attend(
        x, x, x, attn_mask=torch.stack([CAUSAL, CAUSAL.T] * len(x))
    )[0].mean(1),
    "padded": lambda attend, x: attend(x, x, x, key_padding_mask=of_each(PADDED, x))[0].mean(1),
    "both": lambda attend, x: attend(
        x, x, x, key_padding_mask=of_each(PADDED, x), attn_mask=CAUSAL, need_weights=False
    )[0].mean(1),
    "weights": lambda attend, x: torch.cat(attend(x, x, x), 2)[..., 2 : 2 + D].mean(1),
    "weights of heads": lambda attend, x: attend(x, x, x, average_attn_weights=False)[1][
        :, 1, :, :D
    ].mean(1),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name):
    module = made(CALLS[name])
    found = assert_matches_dense(module, numbered())
    assert "forward" not in vars(module.attention)
    names = {n for call in found.calls for n in call.names.values()}
    assert {"attention.in_proj_weight", "attention.in_proj_bias"} <= names


@pytest.mark.parametrize("bias", [True, False])
def test_positions_first(bias):
    def call(attend, x):
        return attend(*[x.transpose(0, 1)] * 3)[0].mean(0)

    assert_matches_dense(made(call, batch_first=False, bias=bias), normal(B, T, D))


def test_some_parameters():
    module = made(CALLS["plain"])
    for names in (["attention.in_proj_weight"], ["attention.out_proj.bias"]):
        copied = replica(module, parameters=names)
        with opened(copied) as layers:
            assert list(layers) == ["attention.in_proj"]
        assert all("forward" not in vars(each) for each in copied.module.modules())
    with opened(replica(module, parameters=["out.bias"])) as layers:
        assert not layers


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": D}])
def test_options(options):
    module = made(CALLS["plain"], **options)
    prefix = "attention." if "kdim" not in options else "no"
    rest = [name for name, _ in module.named_parameters() if name.startswith(prefix)]
    assert_matches_dense(module, normal(B, T, D), rest=rest)


def test_attention_between_two_sequences_is_measured_by_dense_rows():
    def call(attend, x):
        return attend(x, x.flip(1), x.flip(1))[0].mean(1)

    module = made(call)
    rest = [name for name, _ in module.named_parameters() if name.startswith("attention.")]
    assert_matches_dense(module, normal(B, T, D), rest=rest)


def test_one_layer_called_twice():
    def call(attend, x):
        x = attend(x, x, x)[0]
        return attend(x, x, x)[0].mean(1)

    assert_matches_dense(made(call), normal(B, T, D))


def test_a_subclass_with_its_own_forward():
    class Doubled(nn.MultiheadAttention):
        def forward(self, *args, **options):
            result, weights = super().forward(*args, **options)
            return 2 * result, weights

    module = made(CALLS["plain"])
    own = Doubled(D, 2, batch_first=True).double()
    module.attention = own
    rest = [name for name, _ in module.named_parameters() if name.startswith("attention.")]
    assert_matches_dense(module, normal(B, T, D), rest=rest)


def test_encoder_and_decoder_of_torch():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(D, 2, 6, 0.0, batch_first=True)
    net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double().eval()
    x = numbered()

    def causal(module, x):
        padding = of_each(PADDED, x)
        mixed = module(x, mask=CAUSAL, src_key_padding_mask=padding, is_causal=True)
        return mixed.masked_fill(padding.unsqueeze(2), 0.0).sum(1)

    assert_matches_dense(net, x, causal)

    decoder = nn.TransformerDecoderLayer(D, 2, 6, 0.0, batch_first=True).double().eval()
    rest = [n for n, _ in decoder.named_parameters() if n.startswith("multihead_attn.")]
    assert_matches_dense(decoder, x, lambda module, x: module(x, x.cos()).sum(1), rest=rest)
