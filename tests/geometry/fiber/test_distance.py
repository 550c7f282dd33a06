import numpy as np
import pytest
from geometry.fiber.oracles import barcodes, partial_product, planted
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from skgeo.exceptions import SkgeoError
from skgeo.geometry.fiber import Barcode, drop_rank, flow_bases, rank_drops, staircase


@settings(max_examples=40, deadline=None)
@given(barcodes(max_depth=5, max_bars=5), st.integers(0, 2**32 - 1))
def test_the_one_layer_change_attains_the_upper_bound(code, seed):
    flow = flow_bases(planted(code, np.random.default_rng(seed)))
    drops = rank_drops(flow)
    ranks = code.rank_list()
    present = {(d.start, d.stop) for d in drops}
    assert present == {
        (i, j) for i in range(code.depth) for j in range(i + 1, code.depth + 1) if ranks[j, i]
    }
    for drop in drops:
        assert 0 < drop.lower <= drop.upper * (1 + 1e-12)
        # u^T W_l' v of the one-layer change bounds the slope from below
        changed = drop_rank(flow, drop)
        sizes = [np.linalg.norm(a - b) for a, b in zip(changed, flow.weights, strict=True)]
        assert sizes[drop.layer - 1] == pytest.approx(drop.upper, rel=1e-10)
        assert np.count_nonzero(sizes) == 1
        found = staircase(changed).barcode.rank_list()
        assert found[drop.stop, drop.start] == drop.rank - 1
        assert (found <= ranks).all()


def test_one_matrix_has_its_eckart_young_distance():
    weights = [np.diag([5.0, 3.0, 0.5])[:, [1, 2, 0]]]
    (drop,) = rank_drops(flow_bases(weights))
    assert drop.rank == 3
    assert [drop.lower, drop.estimate, drop.upper] == pytest.approx([0.5] * 3, rel=1e-9)


def true_distance(flow, drop, starts=6):
    """Nearest network whose partial product kills a vector: minimised over many starts."""
    chain = flow.weights[drop.start : drop.stop]
    kept = drop.rank - 1
    rng = np.random.default_rng(0)
    shapes = [w.shape for w in chain]
    theta = np.concatenate([w.ravel() for w in chain])

    def product(x):
        parts = np.split(x, np.cumsum([a * b for a, b in shapes])[:-1])
        return partial_product(
            [p.reshape(s) for p, s in zip(parts, shapes, strict=True)], len(shapes), 0
        )

    def tail(x):
        return np.linalg.svd(product(x), compute_uv=False)[kept]

    best = drop.upper
    for _ in range(starts):
        x0 = theta + 0.3 * drop.upper * rng.normal(size=theta.size)
        result = minimize(
            lambda x: float(np.sum((x - theta) ** 2)),
            x0,
            constraints={"type": "eq", "fun": tail},
            method="SLSQP",
            options={"maxiter": 300, "ftol": 1e-12},
        )
        if abs(tail(result.x)) < 1e-7:
            best = min(best, float(np.linalg.norm(result.x - theta)))
    return best


@pytest.mark.parametrize(
    "bars",
    [[(0, 2, 1)], [(0, 2, 1), (0, 0, 1), (1, 1, 1)], [(0, 3, 1), (1, 2, 1)], [(0, 2, 2)]],
)
def test_true_distance_is_between_the_bounds(bars):
    depth = max(death for _, death, _ in bars)
    code = Barcode(depth, bars)
    flow = flow_bases(planted(code, np.random.default_rng(3), condition=4.0))
    for drop in rank_drops(flow):
        distance = true_distance(flow, drop)
        assert drop.lower <= distance * (1 + 1e-5)
        assert distance <= drop.upper * (1 + 1e-9)
        if drop.stop - drop.start > 1 and distance < 0.99 * drop.upper:
            break
    else:
        # with one-dimensional bars through several layers changing all of them is shorter
        assert depth == 1


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
    flow = flow_bases([1e200 * np.eye(2), 1e200 * np.eye(2), 1e-250 * np.eye(2)])
    (drop,) = [d for d in rank_drops(flow) if (d.start, d.stop) == (0, 3)]
    assert drop.upper == pytest.approx(1e-250)
    assert 0 < drop.lower <= drop.estimate == pytest.approx(1e-250)


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


def test_a_drop_belongs_to_its_network():
    drop = rank_drops(flow_bases([np.eye(2)]))[0]
    with pytest.raises(SkgeoError, match="does not belong"):
        drop_rank(flow_bases([np.diag([1.0, 0.0])]), drop)
