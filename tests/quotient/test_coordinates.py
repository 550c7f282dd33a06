import numpy as np
import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME
from helpers.layer_oracles import dense_layer_metric
from helpers.networks import normal
from skgeo import SkgeoError
from skgeo.network import bind
from skgeo.quotient._coordinates import collapse, null_projection, quotient_fidelity
from skgeo.quotient._rows import LayerRows
from skgeo.quotient._spectra import measure_layers, pointwise_eigenvalues


def rows_of(module, X, **options):
    return LayerRows(bind(module, X, parameters=None, **options))


@pytest.fixture
def linear_tail():
    """Curved at first, linear from layer 1 on."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 9), nn.Linear(9, 3), nn.Linear(3, 6)
    ).double()


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_collapse_is_exact_where_the_rest_is_linear(linear_tail, likelihood):
    rows = rows_of(linear_tail, 3 * normal(40, 4), likelihood=likelihood)
    for name in ("1", "2", "3"):
        found = measure_layers(rows, layer=name, n_directions=None)
        directions = next(s.directions for s in found if s.layer.name == name)
        assert len(directions) == 3
        center = rows.representations(name).mean(0)
        divergence = quotient_fidelity(rows, name, center, directions)
        assert 0.0 <= divergence < 1e-10
        # Everything is needed: without the last direction the outputs move.
        assert quotient_fidelity(rows, name, center, directions[:-1]) > 1e-6


def test_fidelity_is_the_divergence_of_finite_moves(linear_tail):
    X = normal(15, 4)
    rows = rows_of(linear_tail, X, likelihood="categorical", batch_size=4)
    center, directions = torch.zeros(12, dtype=torch.float64), torch.eye(12).double()[:2]
    h = linear_tail[:2](X).detach()
    kept = torch.zeros_like(h)
    kept[:, :2] = h[:, :2]
    assert torch.equal(collapse(h, center, directions), kept)
    p, q = (linear_tail[2:](some).log_softmax(1).detach() for some in (h, kept))
    expected = float((p.exp() * (p - q)).sum(1).mean())
    found = quotient_fidelity(rows, "1", center, directions)
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", ["mlp", "residual", "transformer", "lstm"])
def test_projectors_project_onto_the_null_space_of_each_sample(name):
    case = BY_NAME[name]
    module, inputs = case.module(), case.inputs()
    rows = rows_of(module, inputs, likelihood="categorical")
    for layer in rows.layers.layers:
        found = null_projection(rows, layer.name).numpy()
        metrics = dense_layer_metric(module, inputs, layer.name, "categorical")
        for projector, metric in zip(found, metrics, strict=True):
            np.testing.assert_allclose(projector @ projector, projector, atol=1e-12)
            np.testing.assert_allclose(projector, projector.T, atol=1e-14)
            assert np.abs(metric @ projector).max() <= 1e-12 * np.abs(metric).max()
        block = rows.rows(inputs, [layer.name])[layer.name]
        ranks = (pointwise_eigenvalues(block) > 1e-12 * block.square().sum()).sum(1)
        traces = np.trace(found, axis1=1, axis2=2)
        np.testing.assert_allclose(traces, layer.dim - ranks.numpy(), atol=1e-10)
        vectors = normal(len(found), layer.dim)
        np.testing.assert_allclose(
            null_projection(rows, layer.name, vectors),
            np.einsum("nij,nj->ni", found, vectors.numpy()),
            atol=1e-12,
        )


def test_null_moves_change_the_outputs_in_second_order_only():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 3))
    net, X = net.double(), normal(6, 4)
    rows = rows_of(net, X, likelihood="categorical")
    h = rows.representations("1")
    step = null_projection(rows, "1", normal(6, 20, seed=3))
    tail = rows.tail(X, "1")
    moved = [
        float(rows.network.likelihood.distance(tail(h), tail(h + e * step)).max())
        for e in (1e-3, 2e-3)
    ]
    assert moved[1] / moved[0] == pytest.approx(4.0, rel=0.05)


def test_one_vector_serves_all_samples_and_wrong_ones_are_named(linear_tail):
    rows = rows_of(linear_tail, normal(5, 4), likelihood="categorical")
    v = normal(12)
    found = null_projection(rows, "1", v)
    torch.testing.assert_close(found, null_projection(rows, "1", v.expand(5, 12)))
    with pytest.raises(SkgeoError, match=r"expected \(12,\) or \(5, 12\)"):
        null_projection(rows, "1", normal(4, 12))


def test_projectors_that_do_not_fit_are_refused(linear_tail, monkeypatch):
    rows = rows_of(linear_tail, normal(5, 4), likelihood="categorical")
    monkeypatch.setattr(rows.network, "budget", 11_000)
    with pytest.raises(SkgeoError, match=r"5 projectors of 12 x 12.*give the vectors"):
        null_projection(rows, "1")
    assert null_projection(rows, "1", torch.ones(12)).shape == (5, 12)


def test_the_default_layer_is_the_last_cut_before_the_output(linear_tail):
    assert rows_of(linear_tail, normal(5, 4)).default_layer() == "3"
    assert rows_of(nn.Linear(4, 2).double(), normal(5, 4)).default_layer() == "Linear"
    case = BY_NAME["residual"]
    assert rows_of(case.module(), case.inputs()).default_layer() == "pool"
