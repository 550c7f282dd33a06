"""Tiny random models of transformers: positions, labels and layer rules."""

import pytest
import torch
from torch.nn import functional as F

from skgeo import WrappedModel, fisher_trace
from skgeo.jacobian import check_structure, structure_rule
from skgeo.jacobian._dense_rows import output_jacobian
from skgeo.jacobian._rules.gradients import structured_gradients
from skgeo.models import resolve_model
from skgeo.network import replica

pytestmark = pytest.mark.integration
transformers = pytest.importorskip("transformers")

N, T, V = 3, 5, 11
SMALL = {"vocab_size": V, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
BERT = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 8,
}


def gpt2():
    config = transformers.GPT2Config(n_positions=8, n_embd=8, n_layer=2, n_head=2, **SMALL)
    return transformers.GPT2LMHeadModel(config)


def llama():
    config = transformers.LlamaConfig(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        **SMALL,
    )
    return transformers.LlamaForCausalLM(config)


def bart():
    config = transformers.BartConfig(
        d_model=8,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=12,
        max_position_embeddings=8,
        is_decoder=True,
        **SMALL,
    )
    return transformers.BartForCausalLM(config)


def masked():
    return transformers.BertForMaskedLM(transformers.BertConfig(**BERT, **SMALL))


def tagger():
    config = transformers.BertConfig(**BERT, **SMALL, num_labels=4)
    return transformers.BertForTokenClassification(config)


def made(build):
    torch.manual_seed(0)
    module = build().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def batch():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, V, (N, T), generator=generator)
    lengths = torch.tensor([T, T - 2, T - 1])
    mask = (torch.arange(T) < lengths.unsqueeze(1)).long()
    return {"input_ids": tokens, "attention_mask": mask}


@pytest.mark.parametrize("build", [gpt2, llama, bart, masked, tagger], ids=lambda f: f.__name__)
def test_the_score_is_the_gradient_of_the_models_own_loss(build):
    module, X = made(build), batch()
    classes = module.config.num_labels if build is tagger else V
    labels = (X["input_ids"] % classes).masked_fill(X["attention_mask"] == 0, -100)
    resolved = resolve_model(WrappedModel.from_hf(module), refit=False)
    samples = resolved.read({**X, "labels": labels})
    y, mask = torch.as_tensor(samples.targets), resolved.mask(samples.inputs)
    counted = mask & (y != -100)
    logits = resolved.forward(module, samples.inputs)
    hot = F.one_hot(y.clamp(min=0), classes)
    score = (logits.softmax(-1) - hot).detach() * counted.unsqueeze(-1)
    parameters = [p for p in module.parameters() if p.requires_grad]
    found = torch.autograd.grad(logits, parameters, score, allow_unused=True)
    loss = module(**X, labels=labels).loss * counted.sum()
    expected = torch.autograd.grad(loss, parameters, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            # transformers computes its loss in float32.
            scale = max(float(other.abs().max()), 1e-6)
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("build", [gpt2, llama, masked], ids=lambda f: f.__name__)
def test_positions_left_out_are_dropped(build):
    module, X = made(build), batch()
    model = WrappedModel.from_hf(module, likelihood="categorical")
    found = fisher_trace(model, X)
    total = 0.0
    shift = model.forward.shift
    for n in range(N):
        length = int(X["attention_mask"][n].sum())
        alone = {key: value[n : n + 1, :length] for key, value in X.items()}

        def kept(module, inputs, stop=length - shift):
            return module(**inputs).logits[:, :stop]

        total += fisher_trace(WrappedModel(module, kept, "categorical"), alone)
    assert found == pytest.approx(total / N, rel=1e-8)


def test_one_output_for_a_sample():
    config = transformers.BertConfig(**BERT, **SMALL, num_labels=3)
    module = made(lambda: transformers.BertForSequenceClassification(config))
    X, labels = batch(), torch.tensor([0, 2, 1])
    model = WrappedModel.from_hf(module)
    by_hand = WrappedModel(module, lambda m, x: m(**x).logits, "categorical")
    found = fisher_trace(model, {**X, "labels": labels})
    assert found == pytest.approx(fisher_trace(by_hand, X), rel=1e-10)


def test_hidden_states_of_a_body():
    module = made(lambda: transformers.BertModel(transformers.BertConfig(**BERT, **SMALL)))
    X = batch()
    found = fisher_trace(WrappedModel.from_hf(module, likelihood="gaussian"), X)

    def masked_out(module, inputs):
        return module(**inputs).last_hidden_state * inputs["attention_mask"].unsqueeze(2)

    expected = fisher_trace(WrappedModel(module, masked_out, likelihood="gaussian"), X)
    assert found == pytest.approx(expected, rel=1e-10)


def test_layers_with_inputs_first():
    from transformers.pytorch_utils import Conv1D

    layer = Conv1D(5, 3)
    check_structure(structure_rule(layer), layer, torch.randn(4, 6, 3))


@pytest.mark.parametrize("build", [gpt2, llama, masked, tagger], ids=lambda f: f.__name__)
def test_every_layer_has_a_rule(build):
    # In float32: parts of these models compute in it whatever their dtype.
    copied = replica(made(build).float(), forward=lambda m, x: m(**x).logits)
    found = structured_gradients(copied, batch())
    assert found.rest == ()
    rows = output_jacobian(copied, batch())[1].double()
    long = rows.flatten(0, 1)
    for product, expected in [
        (found.rows().double(), rows),
        (found.trace(), rows.square().sum()),
        (found.gram(), long @ long.T),
    ]:
        assert float((product - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
