import itertools

import numpy as np
import pytest

from helpers.fiber_oracles import planted
from skgeo.exceptions import SkgeoError
from skgeo.fiber import Barcode, closed_stratum, staircase, tolerance_path


@pytest.fixture
def near_a_stratum():
    rng = np.random.default_rng(0)
    weights = planted(closed_stratum([5, 4, 6, 4], 2), rng)
    return [weight + 1e-4 * rng.normal(size=weight.shape) for weight in weights]


def test_path_is_that_of_single_staircases(near_a_stratum):
    tols = np.geomspace(0.3, 1e-9, 30)
    path = tolerance_path(near_a_stratum, tols=tols[::-1])
    for tol in tols:
        (step,) = [s for s in path if s.largest_dropped <= tol < s.smallest_kept]
        assert step.barcode == staircase(near_a_stratum, tol=tol).barcode


def test_path_goes_from_the_stratum_nearby_to_the_own_one(near_a_stratum):
    path = tolerance_path(near_a_stratum)
    codes = [step.barcode for step in path]
    assert closed_stratum([5, 4, 6, 4], 2) in codes
    assert codes[-1] == Barcode(3, [(0, 0, 1), (0, 3, 4), (2, 2, 2)])
    assert all(a.smallest_kept > b.smallest_kept for a, b in itertools.pairwise(path))
    norms = [sum(step.dropped_norms) for step in path]
    assert norms == sorted(norms, reverse=True)


def test_tolerances_are_checked():
    with pytest.raises(SkgeoError, match="between 0 and 1"):
        tolerance_path([np.eye(2)], tols=[0.1, 2.0])
