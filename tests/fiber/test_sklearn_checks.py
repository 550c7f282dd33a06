"""scikit-learn's own checks, in full, around a linear model."""

import pytest
from sklearn.linear_model import Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from skgeo.fiber import LinearFiberStratifier


@pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")
@parametrize_with_checks([LinearFiberStratifier(Ridge(fit_intercept=False))])
def test_scikit_learn_checks(estimator, check):
    check(estimator)
