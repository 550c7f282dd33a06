import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.fiber_oracles import barcodes, partial_product, planted
from skgeo.fiber import Barcode, flow_bases, rank_drops


def change_one_matrix(weights, ranks, drop):
    """Lower the rank of a product by the least change of W_layer alone (Eckart-Young)."""
    start, stop, layer = drop.start, drop.stop, drop.layer
    reached = np.linalg.svd(partial_product(weights, layer - 1, start))[0]
    reached = reached[:, : ranks[layer - 1, start]]
    read = np.linalg.svd(partial_product(weights, stop, layer))[2][: ranks[stop, layer]].T
    left, values, right = np.linalg.svd(read.T @ weights[layer - 1] @ reached)
    k = drop.rank - 1
    changed = [weight.copy() for weight in weights]
    changed[layer - 1] -= values[k] * np.outer(read @ left[:, k], reached @ right[k])
    return changed


@settings(max_examples=40, deadline=None)
@given(barcodes(max_depth=5, max_bars=5), st.integers(0, 2**32 - 1))
def test_the_one_layer_change_attains_the_upper_bound(code, seed):
    flow = flow_bases(planted(code, np.random.default_rng(seed)))
    drops = rank_drops(flow)
    ranks = code.rank_list()
    scale = max(np.linalg.norm(w, 2) for w in flow.weights) ** code.depth
    present = {(d.start, d.stop) for d in drops}
    assert present == {
        (i, j) for i in range(code.depth) for j in range(i + 1, code.depth + 1) if ranks[j, i]
    }
    for drop in drops:
        assert 0 < drop.lower <= drop.upper * (1 + 1e-12)
        changed = change_one_matrix(list(flow.weights), ranks, drop)
        sizes = [np.linalg.norm(a - b) for a, b in zip(changed, flow.weights, strict=True)]
        assert sizes[drop.layer - 1] == pytest.approx(drop.upper, rel=1e-10)
        assert np.count_nonzero(sizes) == 1
        before, after = (
            np.linalg.svd(partial_product(list(w), drop.stop, drop.start), compute_uv=False)
            for w in (flow.weights, changed)
        )
        # absolute, as the change may leave of its matrix nothing but rounding
        assert before[drop.rank - 1] > 1e-8 * scale
        assert after[drop.rank - 1] < 1e-13 * scale
        assert after[drop.rank - 2] > 1e-10 * scale or drop.rank == 1


def test_one_matrix_has_its_eckart_young_distance():
    weights = [np.diag([5.0, 3.0, 0.5])[:, [1, 2, 0]]]
    (drop,) = rank_drops(flow_bases(weights))
    assert drop.rank == 3
    assert [drop.lower, drop.estimate, drop.upper] == pytest.approx([0.5] * 3, rel=1e-9)


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_bounds_hold_where_the_distance_is_known(width, seed):
    """Two vectors: the nearest pair with product 0 lies on a cone.

    With p, q = (a + b, a - b) / sqrt(2) the product a.b is (|p|^2 - |q|^2) / 2, so the distance
    from it being 0 is ||p| - |q|| / sqrt(2).
    """
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, width))
    flow = flow_bases([a[:, None], b[None, :]])
    (drop,) = [d for d in rank_drops(flow) if (d.start, d.stop) == (0, 2)]
    distance = abs(np.linalg.norm(a + b) - np.linalg.norm(a - b)) / 2
    assert drop.lower <= distance * (1 + 1e-9)
    assert distance <= drop.upper * (1 + 1e-9)
    gradient = np.hypot(np.linalg.norm(a), np.linalg.norm(b))
    assert drop.estimate == pytest.approx(abs(a @ b) / gradient, rel=1e-9)
    if abs(a @ b) < 1e-2 * gradient:
        assert drop.estimate == pytest.approx(distance, rel=1e-2)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_bounds_hold_for_invertible_matrices(depth, width, seed):
    """Their product is singular where one of them is: the nearest singular matrix of any layer."""
    weights = planted(Barcode(depth, [(0, depth, width)]), np.random.default_rng(seed), 5.0)
    for drop in rank_drops(flow_bases(weights)):
        chain = weights[drop.start : drop.stop]
        distance = min(np.linalg.svd(w, compute_uv=False)[-1] for w in chain)
        assert drop.lower <= distance * (1 + 1e-9)
        assert drop.upper == pytest.approx(distance, rel=1e-8)


def test_first_order_estimate_is_right_close_to_the_lower_stratum():
    """One small singular value in the product of two well conditioned matrices."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    small = 1e-5
    flow = flow_bases([left, np.diag([1.0, 1.0, small]) @ right])
    (drop,) = [d for d in rank_drops(flow) if (d.start, d.stop) == (0, 2)]
    # lowering the small number itself, and nothing else, is best to first order
    assert drop.estimate == pytest.approx(small, rel=1e-4)
    assert drop.lower == pytest.approx(small / 2, rel=1e-4)
    assert drop.upper == pytest.approx(small, rel=1e-9)


def test_scales_do_not_overflow():
    flow = flow_bases([1e90 * np.eye(2), 1e90 * np.eye(2), 1e-100 * np.eye(2)])
    (drop,) = [d for d in rank_drops(flow) if (d.start, d.stop) == (0, 3)]
    assert drop.upper == pytest.approx(1e-100)
    assert 0 < drop.lower <= drop.estimate == pytest.approx(1e-100)


def test_transposed_network_is_as_far():
    code = Barcode(3, [(0, 3, 1), (0, 1, 1), (1, 2, 1), (2, 3, 1)])
    weights = planted(code, np.random.default_rng(0))
    here = rank_drops(flow_bases(weights))
    there = {(d.start, d.stop): d for d in rank_drops(flow_bases([w.T for w in weights[::-1]]))}
    for drop in here:
        turned = there[3 - drop.stop, 3 - drop.start]
        assert [turned.lower, turned.estimate, turned.upper] == pytest.approx(
            [drop.lower, drop.estimate, drop.upper], rel=1e-9
        )
