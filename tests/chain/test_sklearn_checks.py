"""scikit-learn's own checks, in full, around three kinds of model."""

import pytest
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from skgeo.chain import JacobianChainProfiler


# The networks are kept small and short: what is checked is the contract, not their fit.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")
@parametrize_with_checks(
    [
        JacobianChainProfiler(Ridge()),
        JacobianChainProfiler(MLPRegressor(hidden_layer_sizes=(3,), max_iter=20, random_state=0)),
        JacobianChainProfiler(MLPClassifier(hidden_layer_sizes=(3,), max_iter=20, random_state=0)),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
