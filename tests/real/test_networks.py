"""Layer quotients of the kinds of network that people use, against dense derivatives."""

import numpy as np
import pytest
import torch

from helpers.architectures import NETWORKS, build
from helpers.layer_oracles import dense_layer_metric, dense_tail_jacobian
from helpers.oracles import assert_untouched, spectrum
from skgeo.jacobian import Layers
from skgeo.network import replica
from skgeo.quotient import LayerQuotientEstimator

no_gap = pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")
LAYERS = {
    "resnet": ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "avgpool", "fc"],
    "transformer": ["blocks.0", "blocks.1", "blocks.2"],
    "lstm": ["embedding", "lstm", "norm", "head"],
    "mlp": ["first", "second", "head"],
}
# Inside branches, behind functions of several inputs, at repeated calls.
INNER = {
    "resnet": ["layer1.1.bn2", "layer1.0.relu", "layer1.0.relu#1", "layer2.0.downsample"],
    "transformer": ["blocks.1.attention", "blocks.2.mlp.1", "blocks.0.norm1", "head"],
    "lstm": ["norm"],
    "mlp": ["second"],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_default_layers_are_the_links_of_the_chain(name):
    module, inputs = build(name)
    found = Layers(replica(module, parameters=None), inputs)
    assert [layer.name for layer in found.layers] == LAYERS[name]
    assert all(layer.is_cut for layer in found.layers)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("layers", [LAYERS, INNER], ids=["default", "inner"])
@pytest.mark.parametrize("name", NETWORKS)
def test_jacobians_match_dense_ones(name, layers, dtype):
    module, inputs = build(name, n=3, dtype=dtype)
    with assert_untouched(module):
        found = Layers(replica(module, parameters=None), inputs, layers[name]).record(inputs)
        found = found.output_jacobians()
    assert set(found) == set(layers[name])
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    wide = inputs.double() if inputs.is_floating_point() else inputs
    for layer in layers[name]:
        expected = torch.from_numpy(dense_tail_jacobian(module, wide, layer))
        error = (found[layer].double() - expected).abs().max()
        assert error <= tolerance * expected.abs().max()


@no_gap
@pytest.mark.parametrize("name", NETWORKS)
def test_spectra_and_ranks_match_dense_ones(name):
    module, inputs = build(name)
    with assert_untouched(module):
        fitted = LayerQuotientEstimator(module, likelihood="categorical").fit(inputs)
    for layer in LAYERS[name]:
        metrics = dense_layer_metric(module, inputs, layer, "categorical")
        expected = np.stack([spectrum(metric) for metric in metrics])
        found = fitted.eigenvalues_[layer]
        np.testing.assert_allclose(found, expected[:, :3], rtol=1e-8, atol=1e-14)
        mean = fitted.mean_eigenvalues_[layer]
        np.testing.assert_allclose(
            mean, spectrum(metrics.mean(0))[: len(mean)], rtol=1e-8, atol=1e-15
        )
    table = fitted.layers_
    # Four logits see three directions of every layer, and none of these networks is narrower.
    assert (table[["rank_min", "rank_max"]] == 3).all().all()
    assert table["common_rank"].is_monotonic_decreasing


@no_gap
@pytest.mark.parametrize("name", NETWORKS)
def test_a_linear_head_loses_nothing_to_the_quotient(name):
    module, inputs = build(name, n=12)
    last = {"resnet": "avgpool", "transformer": "blocks.2", "lstm": "norm", "mlp": "second"}[name]
    fitted = LayerQuotientEstimator(module, likelihood="categorical", layer=last).fit(inputs)
    assert fitted.quotient_fidelity_ < (1e-10 if name != "mlp" else 1e-2)
    assert fitted.transform(inputs).shape == (12, len(fitted.components_))


@no_gap
@pytest.mark.parametrize("name", ["resnet", "mlp"])
def test_jumps_lie_on_the_segment(name):
    module, inputs = build(name)
    fitted = LayerQuotientEstimator(module, likelihood="categorical").fit(inputs)
    found = fitted.rank_jumps(inputs[0], torch.lerp(inputs[0], inputs[1], 0.1))
    assert found["t"].is_monotonic_increasing
    assert (len(found) > 0) == (name == "resnet")
    assert set(found["layer"]) <= {"relu", "maxpool"} | {
        f"layer{stage}.{block}.relu{call}"
        for stage, block in ((1, 0), (1, 1), (2, 0))
        for call in ("", "#1")
    }
