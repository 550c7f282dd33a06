import pytest
from hypothesis import given

from helpers.fiber_oracles import (
    all_widths,
    barcodes,
    brute_force_order,
    brute_force_strata,
    some_widths,
    transitive_reduction,
)
from skgeo.exceptions import SkgeoError
from skgeo.fiber import (
    Barcode,
    Move,
    apply_move,
    in_closure,
    is_cover,
    up_covers,
    up_moves,
)


def check_order(widths, rank):
    """Moves generate the order of rank lists, and the criterion picks its covers."""
    strata = brute_force_strata(widths, rank)
    position = {code: k for k, code in enumerate(strata)}
    below = brute_force_order(strata)
    covers = set()
    for k, code in enumerate(strata):
        moves = up_moves(code)
        assert bool(moves) is not code.is_maximal
        for move in moves:
            upper = position[apply_move(code, move)]
            assert below[k, upper]
            if is_cover(code, move):
                covers.add((k, upper))
    # an order is the closure of its covers, so this says both things at once
    assert covers == transitive_reduction(below), (widths, rank)


@pytest.mark.parametrize(("depth", "most"), [(1, 4), (2, 4), (3, 3), (4, 2)])
def test_moves_generate_the_order_of_rank_lists(depth, most):
    for widths in all_widths(depth, most):
        for rank in range(min(widths) + 1):
            check_order(widths, rank)


def test_moves_generate_the_order_of_a_wide_fiber():
    check_order((5, 4, 6, 4), 0)


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "most", "count"), [(3, 4, 140), (4, 4, 80)])
def test_moves_generate_the_order_of_rank_lists_in_larger_fibers(depth, most, count):
    for widths in some_widths(depth, most, count):
        for rank in range(min(widths) + 1):
            check_order(widths, rank)


@given(barcodes())
def test_order_of_the_transposed_network(code):
    turned = code.transpose()
    assert {upper.transpose() for upper in up_covers(code)} == set(up_covers(turned))
    assert len(up_moves(code)) == len(up_moves(turned))


def test_kinds_and_layers_of_moves():
    connecting = Move((0, 1), (2, 3))
    assert (connecting.kind, list(connecting.layers)) == ("connecting", [2])
    swapping = Move((0, 2), (1, 4))
    assert (swapping.kind, list(swapping.layers)) == ("swapping", [1, 2, 3])
    code = Barcode(4, [(0, 2, 1), (1, 3, 1), (4, 4, 1)])
    assert apply_move(code, Move((0, 2), (1, 3))).bars == ((0, 3, 1), (1, 2, 1), (4, 4, 1))


def test_moves_that_are_none():
    with pytest.raises(SkgeoError, match="do not make a move"):
        Move((0, 2), (0, 3))
    code = Barcode(2, [(0, 1, 1), (2, 2, 1)])
    with pytest.raises(SkgeoError, match=r"needs a bar \[0, 0\]"):
        apply_move(code, Move((0, 0), (1, 1)))
    with pytest.raises(SkgeoError, match="leave the fiber"):
        apply_move(code, Move((0, 1), (2, 2)))


def test_only_strata_of_one_fiber_are_compared():
    with pytest.raises(SkgeoError, match="one fiber"):
        in_closure(Barcode(1, [(0, 1, 1)]), Barcode(1, [(0, 0, 1), (1, 1, 1)]))
