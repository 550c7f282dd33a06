import copy

import pytest
import torch
from torch import nn

from helpers.architectures import build
from helpers.networks import normal
from helpers.oracles import assert_untouched
from skgeo.models import bare_model
from skgeo.network._flow import read_flow
from skgeo.symmetry import equivalent
from skgeo.symmetry._equivalence.parts import compare_parts, inner_chains

TOL = 1e-10


def compare(a, b):
    return compare_parts(bare_model(a), bare_model(b), TOL)


def rescaled_channels(layer, batchnorm, following, order, scale):
    """Permute and scale the channels between two convolutions, in place."""
    with torch.no_grad():
        layer.weight.copy_(layer.weight[order])
        for name in ("weight", "bias"):
            getattr(batchnorm, name).copy_(getattr(batchnorm, name)[order] * scale)
        for name in ("running_mean", "running_var"):
            getattr(batchnorm, name).copy_(getattr(batchnorm, name)[order])
        following.weight.copy_(following.weight[:, order] / scale[:, None, None])


def transformer(bias=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, batch_first=True, bias=bias)
        net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double().eval()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def disguise_attention(layer, bias):
    """Other bases of queries and keys, and of values, in each head, and heads swapped, in place."""
    size = layer.head_dim
    with torch.no_grad():
        query, key, value = layer.in_proj_weight.split(8)
        for head in range(2):
            rows = slice(head * size, (head + 1) * size)
            left, right = normal(size, size, seed=head), normal(size, size, seed=head + 5)
            query[rows] = left.T @ query[rows]
            key[rows] = torch.linalg.inv(left) @ key[rows]
            value[rows] = right @ value[rows]
            out = layer.out_proj.weight
            out[:, rows] = out[:, rows] @ torch.linalg.inv(right)
            if bias:
                parts = layer.in_proj_bias.split(8)
                parts[0][rows] = left.T @ parts[0][rows]
                parts[1][rows] += 1.3  # the bias of the keys does nothing
                parts[2][rows] = right @ parts[2][rows]
        swapped = torch.arange(8).roll(size)
        order = torch.cat([swapped, swapped + 8, swapped + 16])
        layer.in_proj_weight.copy_(layer.in_proj_weight[order])
        layer.out_proj.weight.copy_(layer.out_proj.weight[:, swapped])
        if bias:
            layer.in_proj_bias.copy_(layer.in_proj_bias[order])
            # A shift of the values comes out as a shift of the result.
            shift = normal(8, seed=9)
            layer.in_proj_bias[16:] += shift
            layer.out_proj.bias -= layer.out_proj.weight @ shift


def disguised_transformer(net, bias):
    other = copy.deepcopy(net)
    for layer in other.layers:
        disguise_attention(layer.self_attn, bias)
        order, scale = torch.arange(12).roll(5), torch.linspace(0.1, 3, 12, dtype=torch.float64)
        with torch.no_grad():
            layer.linear1.weight.copy_(layer.linear1.weight[order] * scale[:, None])
            layer.linear2.weight.copy_(layer.linear2.weight[:, order] / scale)
            if bias:
                layer.linear1.bias.copy_(layer.linear1.bias[order] * scale)
    return other


def test_chains_inside_a_residual_network():
    net, _ = build("resnet")
    chains = inner_chains(read_flow(net))
    found = [[(h.source, h.name, h.consumers[0].node.module) for h in chain] for chain in chains]
    assert found == [
        [("layer1.0.conv1", "layer1.0.bn1", "layer1.0.conv2")],
        [("layer1.1.conv1", "layer1.1.bn1", "layer1.1.conv2")],
        [("layer2.0.conv1", "layer2.0.bn1", "layer2.0.conv2")],
    ]


def test_channels_of_a_residual_block():
    net, inputs = build("resnet")
    other = copy.deepcopy(net)
    block = other.layer2[0]
    order, scale = torch.arange(8).flip(0), torch.linspace(0.01, 5, 8, dtype=torch.float64)
    rescaled_channels(block.conv1, block.bn1, block.conv2, order, scale)
    torch.testing.assert_close(net(inputs), other(inputs))
    with assert_untouched(net, other):
        assert equivalent(net, other, inputs).verdict == "equivalent"
    with torch.no_grad():
        block.conv2.weight[0, 0, 0, 0] += 1e-6
    report = equivalent(net, other)
    assert report.verdict == "undecided"
    assert "layer2.0.conv1, layer2.0.conv2" in report.reason
    assert equivalent(net, other, inputs).verdict == "different"


@pytest.mark.parametrize("bias", [True, False])
def test_heads_and_feed_forward_units_of_a_transformer(bias):
    net = transformer(bias)
    other = disguised_transformer(net, bias)
    inputs = normal(5, 3, 8)
    torch.testing.assert_close(net(inputs), other(inputs))
    report = equivalent(net, other)
    assert report.verdict == "equivalent"
    assert report.residual < 1e-12
    assert equivalent(net, other, inputs).verdict == "equivalent"
    with torch.no_grad():
        other.layers[1].self_attn.in_proj_weight[3, 2] += 1e-6
    report = equivalent(net, other)
    assert report.verdict == "undecided"
    assert "'layers.1.self_attn'" in report.reason
    assert equivalent(net, other, inputs).verdict == "different"


def test_a_convolutional_chain_with_pooling():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()),
            *(nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 2)),
        )
        net = net.double().eval()
    other = copy.deepcopy(net)
    order, scale = torch.tensor([2, 0, 3, 1]), torch.tensor([0.1, 1, 20, 3], dtype=torch.float64)
    rescaled_channels(other[0], other[1], other[4], order, scale)
    with torch.no_grad():
        other[0].bias.copy_(other[0].bias[order])
        turned = torch.tensor([1.0, -1, -1, 1, 1], dtype=torch.float64)
        other[8].weight *= turned[:, None]
        other[8].bias *= turned
        other[10].weight *= turned
    inputs = normal(6, 1, 8, 8)
    torch.testing.assert_close(net(inputs), other(inputs))
    (chain,) = inner_chains(read_flow(net))
    assert [hidden.source for hidden in chain] == ["0", "4", "8"]
    assert equivalent(net, other, inputs).verdict == "equivalent"


def test_signs_do_not_pass_the_largest_of_several_values():
    layers = [nn.Conv1d(1, 3, 3), nn.Tanh(), nn.MaxPool1d(2), nn.Conv1d(3, 2, 1)]
    net = nn.Sequential(*layers).double()
    assert inner_chains(read_flow(net)) == []
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[0].weight *= -1
        other[0].bias *= -1
        other[3].weight *= -1
    assert compare(net, other).verdict == "undecided"
    assert compare(net, copy.deepcopy(net)).verdict == "equivalent"


class Shared(nn.Module):
    """One layer called twice, and a hidden layer that something else reads too."""

    def __init__(self):
        super().__init__()
        self.inside, self.head = nn.Linear(3, 3), nn.Linear(3, 2)
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 3)
        self.probe = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.inside(torch.relu(self.inside(x))))
        h = torch.relu(self.first(x))
        return self.head(self.second(h) + self.probe(h))


def test_units_that_others_read_are_left_alone():
    net = Shared().double()
    assert inner_chains(read_flow(net)) == []
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.first.weight[0] *= 2
        other.first.bias[0] *= 2
        other.second.weight[:, 0] /= 2
    report = compare(net, other)
    assert report.verdict == "undecided"
    assert "'first.weight' differs" in report.reason


def test_settings_and_hooks_are_part_of_the_code():
    block = nn.TransformerEncoderLayer(8, 2, batch_first=True)
    for other in (
        nn.TransformerEncoderLayer(8, 4, batch_first=True),
        nn.TransformerEncoderLayer(8, 2, batch_first=True, norm_first=True),
        nn.TransformerEncoderLayer(8, 2, batch_first=True, activation="gelu"),
    ):
        other.load_state_dict(block.state_dict())
        report = compare(block, other)
        assert report.verdict == "undecided"
        assert "settings" in report.reason
    hooked = copy.deepcopy(block)
    hooked.linear1.register_forward_hook(lambda module, args, output: -output)
    assert compare(block, hooked).verdict == "undecided"


def test_weights_shared_in_one_network_only():
    net = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)]).double()

    class Summed(nn.Module):
        def __init__(self, tied):
            super().__init__()
            self.body = copy.deepcopy(net)
            if tied:
                self.body[1].weight = self.body[0].weight

        def forward(self, x):
            return x.sum(1, True) + self.body[2](self.body[1](self.body[0](x).relu()).relu())

    report = compare(Summed(tied=False), Summed(tied=True))
    assert report.verdict == "undecided"
    assert "weights are shared" in report.reason
