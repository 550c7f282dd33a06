import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.fiber_oracles import barcodes, exact_rank, planted
from skgeo.exceptions import SkgeoError
from skgeo.fiber import input_ranks, representative


@settings(max_examples=60, deadline=None)
@given(barcodes(max_depth=5, max_bars=5), st.integers(0, 2**32 - 1))
def test_ranks_of_what_the_inputs_reach(code, seed):
    rng = np.random.default_rng(seed)
    weights = representative(code)
    inputs = rng.integers(-2, 3, size=(rng.integers(1, 7), code.widths[0]))
    expected, image = [exact_rank(inputs)], inputs.T
    for weight in weights:
        image = weight @ image
        expected.append(exact_rank(image))
    assert input_ranks(weights, inputs.astype(float)) == tuple(expected)


@given(barcodes(max_bars=4), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_inputs_that_span_their_space_reach_everything(code, seed):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(code.widths[0] + 3, code.widths[0]))
    assert input_ranks(planted(code, rng), inputs) == tuple(code.rank_list()[:, 0])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.ones((2, 3)), r"\(2, 3\).*2 columns"),
        (np.ones((0, 2)), r"\(0, 2\)"),
        (np.ones(2), r"\(2,\)"),
        (np.array([[1.0, np.nan]]), "NaN"),
    ],
)
def test_inputs_are_checked(inputs, message):
    with pytest.raises(SkgeoError, match=message):
        input_ranks([np.eye(2)], inputs)
