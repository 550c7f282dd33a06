import math

import numpy as np
import pytest

from skgeo._depth import depth_statistics


def test_the_slope_is_that_of_a_least_squares_line():
    profile = np.random.default_rng(0).normal(size=7)
    first, last, mean, slope = depth_statistics(profile)
    assert (first, last) == (profile[0], profile[-1])
    assert mean == pytest.approx(profile.mean(), rel=1e-15)
    line = np.polyfit(np.linspace(0, 1, 7), profile, 1)
    assert slope == pytest.approx(line[0], rel=1e-12)


def test_what_has_no_number_is_nan():
    assert all(map(math.isnan, depth_statistics(np.array([]))))
    first, last, mean, slope = depth_statistics(np.array([2.0]))
    assert (first, last, mean) == (2.0, 2.0, 2.0)
    assert math.isnan(slope)
    first, last, mean, slope = depth_statistics(np.array([1.0, np.nan, 3.0]))
    assert (first, last) == (1.0, 3.0)
    assert math.isnan(mean)
    assert math.isnan(slope)
