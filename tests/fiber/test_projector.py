import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.fiber_oracles import barcodes, planted
from skgeo.exceptions import GeometryWarning, SkgeoError
from skgeo.fiber import (
    Barcode,
    as_parameters,
    flow_bases,
    from_parameters,
    project_normal,
    project_tangent,
    tangent_basis,
)

SPACES = ("stratum", "orbit", "kernel")


@settings(max_examples=40, deadline=None)
@given(barcodes(max_depth=5, max_bars=5), st.integers(0, 2**32 - 1))
def test_projector_is_the_dense_one(code, seed):
    rng = np.random.default_rng(seed)
    flow = flow_bases(planted(code, rng))
    vector = rng.normal(size=code.n_parameters)
    direction = from_parameters(vector, code.widths)
    for space in SPACES:
        basis, _ = np.linalg.qr(tangent_basis(flow, space).T)
        expected = basis @ (basis.T @ vector)
        tangent = as_parameters(project_tangent(flow, direction, space))
        normal = as_parameters(project_normal(flow, direction, space))
        assert np.abs(tangent - expected).max() < 1e-9 * np.abs(vector).max()
        assert np.abs(tangent + normal - vector).max() < 1e-14 * np.abs(vector).max()


def test_network_too_large_for_a_basis():
    """Badly scaled layers of width 60: P = 14,400."""
    rng = np.random.default_rng(0)
    code = Barcode(4, [(0, 4, 20), (0, 0, 20), (0, 2, 20), (1, 3, 20), (3, 4, 20), (4, 4, 20)])
    scales = [1e-3, 1.0, 1e2, 0.1]
    weights = [scale * w for scale, w in zip(scales, planted(code, rng), strict=True)]
    flow = flow_bases(weights)
    direction = [rng.normal(size=w.shape) for w in weights]
    once = project_tangent(flow, direction)
    twice = project_tangent(flow, once)
    assert max(np.abs(a - b).max() for a, b in zip(once, twice, strict=True)) < 1e-9
    # to first order neither the product nor the ranks change
    step = [w + 1e-6 * t for w, t in zip(flow.weights, once, strict=True)]
    before, after = np.linalg.multi_dot(flow.weights[::-1]), np.linalg.multi_dot(step[::-1])
    away = [w + 1e-6 * t for w, t in zip(flow.weights, direction, strict=True)]
    change = np.abs(np.linalg.multi_dot(away[::-1]) - before).max()
    assert np.abs(after - before).max() < 1e-2 * change


def test_unfinished_iteration_is_reported():
    rng = np.random.default_rng(0)
    flow = flow_bases(planted(Barcode(3, [(0, 3, 4), (0, 0, 2), (1, 3, 2)]), rng))
    direction = [rng.normal(size=w.shape) for w in flow.weights]
    with pytest.warns(GeometryWarning, match="not converged after 2 iterations"):
        project_tangent(flow, direction, max_iter=2)


def test_directions_are_checked():
    flow = flow_bases([np.ones((3, 2)), np.ones((1, 3))])
    with pytest.raises(SkgeoError, match=r"\(3, 2\).*got \[\(2, 3\), \(1, 3\)\]"):
        project_tangent(flow, [np.ones((2, 3)), np.ones((1, 3))])
    with pytest.raises(SkgeoError, match="W_2 has 3 entries"):
        project_normal(flow, [np.ones((3, 2)), np.full((1, 3), np.nan)])
    zero = project_tangent(flow, [np.zeros((3, 2)), np.zeros((1, 3))])
    assert not any(part.any() for part in zero)
