import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.fiber_oracles import barcodes, differential, orbit_tangents, planted
from skgeo import fiber
from skgeo.exceptions import SkgeoError
from skgeo.fiber import Barcode, factored_normals, flow_bases, normal_basis, tangent_basis

seeds = st.integers(0, 2**32 - 1)
SPACES = ("stratum", "orbit", "kernel")


def span(rows):
    """Orthonormal basis, in columns, of the span of independent rows."""
    return np.linalg.qr(rows.T)[0]


def dimensions(code):
    kernel = code.n_parameters - fiber.differential_rank(code)
    return dict(zip(SPACES, (code.dimension, code.orbit_dimension, kernel), strict=True))


@settings(max_examples=40, deadline=None)
@given(barcodes(max_depth=5, max_bars=5), seeds)
def test_bases_are_orthogonal_and_span(code, seed):
    flow = flow_bases(planted(code, np.random.default_rng(seed)))
    for space, dimension in dimensions(code).items():
        tangent, normal = tangent_basis(flow, space), normal_basis(flow, space)
        assert tangent.shape == (dimension, code.n_parameters)
        assert normal.shape == (code.n_parameters - dimension, code.n_parameters)
        assert np.abs(tangent @ normal.T).max(initial=0.0) < 1e-10
        together = np.vstack([tangent, normal])
        assert np.allclose(np.linalg.norm(together, axis=1), 1.0)
        singular = np.linalg.svd(together, compute_uv=False)
        assert singular[-1] > 1e-7 * singular[0]


@settings(max_examples=40, deadline=None)
@given(barcodes(max_depth=4, max_bars=4), seeds)
def test_spaces_are_those_of_the_definitions(code, seed):
    """The row space of the dense differential, and the span of all base changes."""
    flow = flow_bases(planted(code, np.random.default_rng(seed)))
    rows, moves = differential(flow.weights), orbit_tangents(flow.weights)
    # by the size of the factors, not of the products: those may be rounding alone
    size = max(np.abs(w).max() for w in flow.weights)
    rows, moves = rows / max(1.0, size) ** (code.depth - 1), moves / max(1.0, size)
    assert np.abs(tangent_basis(flow, "kernel") @ rows.T).max(initial=0.0) < 1e-10
    assert np.abs(normal_basis(flow, "orbit") @ moves.T).max(initial=0.0) < 1e-10
    # with the dimensions right, annihilating is spanning; and the stratum is the intersection
    stratum = tangent_basis(flow, "stratum")
    assert np.abs(stratum @ rows.T).max(initial=0.0) < 1e-10
    assert np.abs(stratum @ normal_basis(flow, "orbit").T).max(initial=0.0) < 1e-10


@settings(max_examples=30, deadline=None)
@given(barcodes(max_depth=5, max_bars=5), seeds)
def test_normals_have_rank_one_in_every_layer(code, seed):
    flow = flow_bases(planted(code, np.random.default_rng(seed)))
    for space in SPACES:
        dense = normal_basis(flow, space)
        factors = factored_normals(flow, space)
        assert (factors.dense() == dense).all()
        for matrices in fiber.from_parameters(dense, code.widths):
            if len(matrices):
                singular = np.linalg.svd(matrices, compute_uv=False)
                assert singular[:, 1:].max(initial=0.0) < 1e-14


def test_gradients_of_losses_are_normal_to_the_hidden_base_changes():
    code = Barcode(3, [(0, 3, 1), (0, 1, 1), (1, 2, 1), (2, 3, 1), (3, 3, 1)])
    rng = np.random.default_rng(0)
    flow = flow_bases(planted(code, rng))
    slope = rng.normal(size=(code.widths[-1], code.widths[0]))
    gradient = slope.ravel() @ differential(flow.weights)
    assert np.abs(tangent_basis(flow, "kernel") @ gradient).max() < 1e-12
    normals = fiber.from_parameters(gradient, code.widths)
    for layer in range(1, code.depth):
        after = flow.weights[layer].T @ normals[layer]
        before = normals[layer - 1] @ flow.weights[layer - 1].T
        assert np.abs(after - before).max() < 1e-12


def test_transposed_network_has_transposed_spaces():
    code = Barcode(3, [(0, 3, 1), (0, 1, 1), (1, 2, 1), (2, 3, 1), (0, 0, 1)])
    weights = planted(code, np.random.default_rng(0))
    here = span(tangent_basis(flow_bases(weights)))
    turned = tangent_basis(flow_bases([w.T for w in weights[::-1]]))
    matrices = fiber.from_parameters(turned, code.transpose().widths)
    back = fiber.as_parameters([m.swapaxes(1, 2) for m in matrices[::-1]])
    assert np.abs(back - (back @ here) @ here.T).max() < 1e-12


def test_large_bases_are_refused_with_their_size():
    flow = flow_bases([np.eye(80), np.eye(80)])
    with pytest.raises(SkgeoError, match=r"6400 vectors in R\^12800.*625.0 MiB.*project_tangent"):
        tangent_basis(flow)
    with pytest.raises(SkgeoError, match=r"A normal basis of 6400 vectors.*project_normal"):
        normal_basis(flow)
    # the factors of the same normals are small
    assert factored_normals(flow).left[0].shape == (6400, 80)
    wide = flow_bases([np.eye(256)] * 2)
    with pytest.raises(SkgeoError, match="factors of 65536 normals"):
        factored_normals(wide)


def test_unknown_space():
    flow = flow_bases([np.eye(2)])
    for function in (tangent_basis, normal_basis, factored_normals):
        with pytest.raises(SkgeoError, match="'fiber'"):
            function(flow, "fiber")
