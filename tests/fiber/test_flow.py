import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.fiber_oracles import barcodes, exact_rank_list, planted, product_of
from skgeo.exceptions import SkgeoError
from skgeo.fiber import Barcode, closed_stratum, flow_bases, representative

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=100, deadline=None)
@given(barcodes(max_bars=6), seeds)
def test_the_network_is_a_sum_of_bars(code, seed):
    weights = planted(code, np.random.default_rng(seed))
    flow = flow_bases(weights)
    assert flow.barcode == code
    for layer, matrix in enumerate(representative(code)):
        assert np.abs(flow.weights[layer] - weights[layer]).max() < 1e-12 * _size(weights[layer])
        ahead = weights[layer] @ flow.bases[layer] - flow.bases[layer + 1] @ matrix
        back = weights[layer].T @ flow.dual_bases[layer + 1] - flow.dual_bases[layer] @ matrix.T
        assert np.abs(ahead).max() < 1e-10 * _size(*flow.bases)
        assert np.abs(back).max() < 1e-10 * _size(*flow.dual_bases)
    for basis, dual in zip(flow.bases, flow.dual_bases, strict=True):
        assert np.abs(dual.T @ basis - np.eye(len(basis))).max() < 1e-10


def _size(*matrices):
    return max(1.0, *(np.abs(matrix).max() for matrix in matrices))


def test_layers_split_into_subspaces():
    code = Barcode(2, [(0, 2, 1), (0, 1, 2), (1, 1, 1), (2, 2, 1)])
    weights = planted(code, np.random.default_rng(0))
    flow = flow_bases(weights)
    parts = flow.subspaces(1)
    assert {bar: columns.shape for bar, (columns, _) in parts.items()} == {
        (0, 1): (4, 2),
        (0, 2): (4, 1),
        (1, 1): (4, 1),
    }
    whole = sum(columns @ dual.T for columns, dual in parts.values())
    assert np.abs(whole - np.eye(4)).max() < 1e-12
    # what dies after layer 1 is what W_2 forgets
    for bar in ((0, 1), (1, 1)):
        assert np.abs(weights[1] @ parts[bar][0]).max() < 1e-12
    with pytest.raises(SkgeoError, match=r"Layer 1 has no bar \[2, 2\]"):
        flow.slice(1, (2, 2))
    assert flow.columns[1] == ((0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0))


def test_scale_of_a_bar_is_shared_between_its_layers():
    flow = flow_bases([np.diag([1e-3, 1e3]), np.diag([1e-3, 1e3])])
    for k in range(2):
        norms = [np.linalg.norm(basis[:, k]) for basis in flow.bases]
        assert np.prod(norms) == pytest.approx(1.0, rel=1e-12)


def test_small_parts_are_taken_off_the_weights():
    rng = np.random.default_rng(0)
    code = closed_stratum([5, 4, 6, 4], 2)
    weights = [w + 1e-4 * rng.normal(size=w.shape) for w in planted(code, rng)]
    flow = flow_bases(weights, tol=0.05)
    assert flow.barcode == code
    for given_, exact, dropped in zip(weights, flow.weights, flow.dropped_norms, strict=True):
        assert np.linalg.norm(given_ - exact) == pytest.approx(dropped, rel=1e-8)
        assert 0 < dropped < 1e-2
    again = flow_bases(flow.weights)
    assert again.barcode == code
    assert max(again.dropped_norms) < 1e-13
    assert np.linalg.matrix_rank(product_of(flow.weights), tol=1e-10) == 2


@given(barcodes())
def test_representative_has_the_bars(code):
    matrices = representative(code)
    assert all(set(np.unique(matrix)) <= {0, 1} for matrix in matrices)
    assert (exact_rank_list(matrices) == code.rank_list()).all()
