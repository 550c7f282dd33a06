"""The published MiniLM sentence encoder, 22 million parameters, taken apart layer by layer."""

import numpy as np
import pytest
import torch

from helpers.layer_oracles import dense_tail_jacobian
from helpers.oracles import assert_untouched, spectrum
from skgeo import WrappedModel
from skgeo.jacobian import Layers
from skgeo.network import replica
from skgeo.quotient import LayerQuotientEstimator

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning"),
]

LAYERS = [f"encoder.layer.{i}" for i in range(6)]


def test_the_chain_is_that_of_the_blocks(minilm, pooled):
    module, inputs = minilm
    found = Layers(replica(module, forward=pooled, parameters=None), inputs)
    assert [layer.name for layer in found.layers] == LAYERS
    assert all(layer.is_cut for layer in found.layers)
    width = inputs["input_ids"].shape[1] * 384
    assert {layer.dim for layer in found.layers} == {width}
    inner = Layers(found.replica, inputs, ["encoder.layer.2.attention.self", "embeddings"])
    assert [layer.is_cut for layer in inner.layers] == [True, False]


def test_jacobians_match_dense_ones(minilm, pooled):
    module, inputs = minilm
    with assert_untouched(module):
        layers = Layers(
            replica(module, forward=pooled, parameters=None), inputs, ["encoder.layer.3"]
        )
        found = layers.record(inputs).output_jacobians()
    first = {key: value[:1] for key, value in inputs.items()}
    expected = dense_tail_jacobian(module, first, "encoder.layer.3", pooled, dtype=torch.float32)[0]
    error = np.abs(found["encoder.layer.3"][0].numpy() - expected).max()
    assert error <= 1e-5 * np.abs(expected).max()


def test_the_last_block_is_seen_through_its_mean_only(minilm, pooled):
    module, inputs = minilm
    model = WrappedModel(module, pooled, likelihood="gaussian")
    layers = ["encoder.layer.4", "encoder.layer.5"]
    fitted = LayerQuotientEstimator(model, layers=layers).fit(inputs)
    table = fitted.layers_.set_index("layer")
    assert (table["rank_max"] <= 384).all()
    assert table.loc["encoder.layer.5", ["rank_min", "rank_max"]].tolist() == [384, 384]
    # Averaging n tokens has singular values n^{-1/2}, 384 times each.
    n_tokens = inputs["attention_mask"].sum(1).numpy()
    np.testing.assert_allclose(
        fitted.eigenvalues_["encoder.layer.5"],
        np.repeat(1.0 / n_tokens[:, None], 384, 1),
        rtol=1e-5,
    )
    assert fitted.quotient_fidelity_ < 1e-8
    # Before the last block: against a dense metric, for one sentence.
    first = {key: value[:1] for key, value in inputs.items()}
    jacobian = dense_tail_jacobian(module, first, layers[0], pooled, dtype=torch.float32)[0]
    expected = spectrum(jacobian.astype(np.float64) @ jacobian.T.astype(np.float64))
    np.testing.assert_allclose(
        fitted.eigenvalues_[layers[0]][0], expected, rtol=1e-3, atol=1e-6 * expected[0]
    )
