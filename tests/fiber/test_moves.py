import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.fiber_oracles import barcodes, planted, product_of
from skgeo import fiber
from skgeo.exceptions import SkgeoError
from skgeo.fiber import Barcode, Move, apply_move, flow_bases, move_up, up_moves


@settings(max_examples=40, deadline=None)
@given(barcodes(max_depth=5, max_bars=5), st.integers(0, 2**32 - 1))
def test_moves_keep_the_product_and_land_where_predicted(code, seed):
    rng = np.random.default_rng(seed)
    flow = flow_bases(planted(code, rng))
    product = product_of(flow.weights)
    for move in up_moves(code):
        layer = int(rng.choice(move.layers))
        t = float(rng.choice([-2.0, 0.1, 3.0]))
        copies = tuple(
            int(rng.integers(code.multiplicities[bar])) for bar in (move.first, move.second)
        )
        moved = move_up(flow, move, t, layer=layer, copies=copies)
        assert fiber.staircase(moved).barcode == apply_move(code, move)
        changed = [k + 1 for k in range(code.depth) if (moved[k] != flow.weights[k]).any()]
        assert changed == [layer]
        scale = max(1.0, *(np.abs(w).max() for w in moved)) ** code.depth
        assert np.abs(product_of(moved) - product).max() < 1e-9 * scale


def climb(weights, target, t):
    """Small moves, each to a stratum still below the target, until it is reached."""
    flow = flow_bases(weights)
    while flow.barcode != target:
        move = next(
            move
            for move in up_moves(flow.barcode)
            if fiber.in_closure(apply_move(flow.barcode, move), target)
        )
        size = max(
            np.abs(a - b).max() for a, b in zip(move_up(flow, move), flow.weights, strict=True)
        )
        flow = flow_bases(move_up(flow, move, t / size))
    return flow.weights


@pytest.mark.parametrize(("widths", "rank"), [((2, 2, 2, 2), 0), ((3, 2, 3), 1), ((2, 3, 1, 2), 0)])
def test_frontier(widths, rank):
    """Every point of a stratum is a limit of points of each stratum above it, in one fiber."""
    rng = np.random.default_rng(0)
    strata = fiber.strata(widths, rank)
    for lower in strata:
        weights = planted(lower, rng)
        for upper in strata:
            if not fiber.in_closure(lower, upper):
                continue
            for t in (1e-3, 1e-4):
                near = climb(weights, upper, t)
                gap = max(np.abs(a - b).max() for a, b in zip(near, weights, strict=True))
                assert gap < 10 * t
                assert np.abs(product_of(near) - product_of(weights)).max() < 1e-10


def test_moves_are_checked():
    flow = flow_bases([np.zeros((2, 2)), np.zeros((2, 2))])
    move = Move((0, 0), (1, 1))
    with pytest.raises(SkgeoError, match=r"l in \[1\]; got layer=2"):
        move_up(flow, move, layer=2)
    for t in (0.0, float("nan")):
        with pytest.raises(SkgeoError, match="finite step"):
            move_up(flow, move, t)
    with pytest.raises(SkgeoError, match="has 2 copies"):
        move_up(flow, move, copies=(0, 2))
    with pytest.raises(SkgeoError, match=r"needs a bar \[0, 1\]"):
        move_up(flow, Move((0, 1), (2, 2)))
    whole = flow_bases([np.eye(2), np.diag([1.0, 0.0])])
    assert whole.barcode == Barcode(2, [(0, 1, 1), (0, 2, 1), (2, 2, 1)])
    with pytest.raises(SkgeoError, match="leave the fiber"):
        move_up(whole, Move((0, 1), (2, 2)))


def test_given_weights_are_not_touched():
    weights = [np.zeros((2, 2)), np.zeros((2, 2))]
    flow = flow_bases(weights)
    move_up(flow, Move((0, 0), (1, 1)))
    assert not any(w.any() for w in weights)
    assert not any(w.any() for w in flow.weights)
