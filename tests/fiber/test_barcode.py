from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given

from helpers.fiber_oracles import barcodes, exact_rank_list
from skgeo.exceptions import SkgeoError
from skgeo.fiber import Barcode, barcode_from_rank_list, representative


@given(barcodes())
def test_rank_list_and_bars_determine_each_other(code):
    assert barcode_from_rank_list(code.rank_list()) == code
    assert code.rank == code.rank_list()[code.depth, 0]
    assert code.widths == tuple(np.diag(code.rank_list()))


@given(barcodes(max_depth=4, max_bars=5))
def test_rank_list_is_that_of_the_network(code):
    assert (exact_rank_list(representative(code)) == code.rank_list()).all()


def test_bars_of_random_integer_networks_count_dimensions():
    rng = np.random.default_rng(0)
    for _ in range(40):
        widths = rng.integers(1, 5, size=rng.integers(2, 6))
        weights = [rng.integers(-1, 2, size=(b, a)) for a, b in pairwise(widths)]
        ranks = exact_rank_list(weights)
        code = barcode_from_rank_list(ranks)
        assert code.widths == tuple(widths)
        # what enters at layer 0 and dies after it is the kernel of W_1
        assert sum(n for b, e, n in code.bars if (b, e) == (0, 0)) == widths[0] - ranks[1, 0]


@given(barcodes())
def test_a_barcode_prints_as_the_call_that_makes_it(code):
    assert eval(repr(code)) == code


@given(barcodes())
def test_transposing_reverses_the_bars(code):
    turned = code.transpose()
    assert turned.transpose() == code
    assert (turned.rank_list() == np.flip(code.rank_list()).T).all()


def test_bars_are_normalised():
    code = Barcode(2, [(2, 2, 1), (0, 1, 1), (0, 2, 0), (0, 1, 2)])
    assert code.bars == ((0, 1, 3), (2, 2, 1))
    assert code == Barcode(2, [(0, 1, 3), (2, 2, 1)])
    assert hash(code) == hash(Barcode(2, [(0, 1, 3), (2, 2, 1)]))
    assert code.copies() == ((0, 1, 0), (0, 1, 1), (0, 1, 2), (2, 2, 0))
    assert code.n_parameters == 12


@pytest.mark.parametrize(
    ("depth", "bars", "message"),
    [
        (0, [(0, 0, 1)], "depth of at least 1"),
        (2, [(0, 3, 1)], r"bar \[0, 3\]"),
        (2, [(1, 0, 1)], r"bar \[1, 0\]"),
        (2, [(0, 2, -1)], "multiplicity -1"),
        (2, [(0, 0, 1), (2, 2, 1)], "No bar contains layer 1"),
    ],
)
def test_impossible_bars(depth, bars, message):
    with pytest.raises(SkgeoError, match=message):
        Barcode(depth, bars)


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([[1, 0], [2, 1]], r"omega\[0, 0\].*= -1"),
        # W_1 and W_2 both of rank 2 in the plane have a product of rank 2, not 1
        ([[2, 0, 0], [2, 2, 0], [1, 2, 2]], r"omega\[1, 1\].*= -1"),
        ([[1, 0, 0], [0, 1, 0]], "square"),
        ([[1]], "square"),
        ([[1.0, 0.0], [1.0, 1.0]], "integers"),
    ],
)
def test_rank_lists_that_cannot_occur(ranks, message):
    with pytest.raises(SkgeoError, match=message):
        barcode_from_rank_list(ranks)
