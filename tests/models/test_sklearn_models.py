"""The module of a fitted scikit-learn model predicts what the model predicts."""

import warnings

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn import linear_model as linear
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import LinearSVC
from torch import nn

from skgeo.exceptions import NotAModelError
from skgeo.models._sklearn_models import check_supported, sklearn_module

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
SCORE = X @ [1.0, -2.0, 0.5, 0.0] + 0.3 * RNG.normal(size=60)
MANY = np.stack([SCORE, X[:, 0] - X[:, 1]], axis=1)
COUNTS = RNG.poisson(np.exp(0.3 * SCORE))
TWO = np.where(SCORE > 0, "yes", "no")
THREE = np.digitize(SCORE, [-1, 1])
MULTILABEL = (MANY > 0).astype(int)


def outputs(module, X):
    dtype = next(module.parameters()).dtype
    with torch.no_grad():
        return module(torch.as_tensor(np.asarray(X), dtype=dtype)).numpy()


def sklearn_mlp(kind, **parameters):
    return kind(
        hidden_layer_sizes=(6, 5), max_iter=15, solver="lbfgs", random_state=0, **parameters
    )


def quiet_fit(estimator, X, y):
    """Few iterations are enough here, whatever the solver says of its convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, y)


SQUARED_ERROR = [
    linear.ARDRegression(),
    linear.BayesianRidge(),
    linear.ElasticNet(alpha=0.01),
    linear.ElasticNetCV(cv=3, alphas=5),
    linear.Lars(),
    linear.LarsCV(cv=3),
    linear.Lasso(alpha=0.01),
    linear.LassoCV(cv=3, alphas=5),
    linear.LassoLars(alpha=0.01),
    linear.LassoLarsCV(cv=3),
    linear.LassoLarsIC(),
    linear.LinearRegression(),
    linear.OrthogonalMatchingPursuit(n_nonzero_coefs=2),
    linear.OrthogonalMatchingPursuitCV(cv=3),
    linear.Ridge(),
    linear.RidgeCV(),
    linear.SGDRegressor(random_state=0),
    linear.TweedieRegressor(power=0),
    sklearn_mlp(MLPRegressor, activation="identity"),
    sklearn_mlp(MLPRegressor, activation="logistic"),
    sklearn_mlp(MLPRegressor, activation="relu"),
    sklearn_mlp(MLPRegressor, activation="tanh"),
]


@pytest.mark.parametrize("estimator", SQUARED_ERROR, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("intercept", [True, False])
def test_regression_by_squared_error(estimator, intercept):
    if "fit_intercept" in estimator.get_params():
        estimator.set_params(fit_intercept=intercept)
    module, likelihood = sklearn_module(quiet_fit(estimator, X, SCORE))
    assert likelihood == "gaussian"
    z = outputs(module, X)
    assert z.shape == (60, 1)
    np.testing.assert_allclose(z[:, 0], estimator.predict(X), rtol=1e-10, atol=1e-12)
    has_bias = isinstance(estimator, MLPRegressor) or intercept
    assert (module[0].bias is not None) == has_bias


@pytest.mark.parametrize(
    "estimator",
    [
        linear.LinearRegression(),
        linear.Ridge(fit_intercept=False),
        linear.RidgeCV(),
        linear.Lars(),
        linear.ElasticNet(alpha=0.01),
        linear.MultiTaskElasticNet(alpha=0.01),
        linear.MultiTaskElasticNetCV(cv=3, alphas=5),
        linear.MultiTaskLasso(alpha=0.01),
        linear.MultiTaskLassoCV(cv=3, alphas=5),
        linear.OrthogonalMatchingPursuit(n_nonzero_coefs=2),
        sklearn_mlp(MLPRegressor),
    ],
    ids=lambda e: type(e).__name__,
)
def test_several_outputs(estimator):
    module, likelihood = sklearn_module(quiet_fit(estimator, X, MANY))
    assert likelihood == "gaussian"
    np.testing.assert_allclose(outputs(module, X), estimator.predict(X), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "estimator",
    [
        linear.PoissonRegressor(),
        linear.PoissonRegressor(fit_intercept=False),
        linear.TweedieRegressor(power=1),
        sklearn_mlp(MLPRegressor, loss="poisson"),
    ],
    ids=str,
)
def test_outputs_of_counts_are_log_rates(estimator):
    module, likelihood = sklearn_module(quiet_fit(estimator, X, COUNTS))
    assert likelihood == "poisson"
    np.testing.assert_allclose(np.exp(outputs(module, X)[:, 0]), estimator.predict(X), rtol=1e-10)


CLASSIFIERS = [
    linear.LogisticRegression(),
    linear.LogisticRegression(fit_intercept=False),
    linear.LogisticRegressionCV(
        cv=3, Cs=2, l1_ratios=(0,), use_legacy_attributes=False, scoring="neg_log_loss"
    ),
    LinearDiscriminantAnalysis(),
    sklearn_mlp(MLPClassifier),
    sklearn_mlp(MLPClassifier, activation="tanh"),
]


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=str)
def test_several_classes_are_logits(estimator):
    module, likelihood = sklearn_module(quiet_fit(estimator, X, THREE))
    assert likelihood == "categorical"
    z = outputs(module, X)
    np.testing.assert_allclose(softmax(z, axis=1), estimator.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize(
    "estimator",
    [*CLASSIFIERS, linear.SGDClassifier(loss="log_loss", random_state=0)],
    ids=str,
)
@pytest.mark.parametrize("y", [TWO, TWO == "yes", np.where(TWO == "yes", 1, -1)])
def test_two_classes_are_one_logit(estimator, y):
    module, likelihood = sklearn_module(quiet_fit(estimator, X, y))
    assert likelihood == "bernoulli"
    z = outputs(module, X)
    assert z.shape == (60, 1)
    np.testing.assert_allclose(expit(z[:, 0]), estimator.predict_proba(X)[:, 1], atol=1e-12)


def test_multilabel_is_one_logit_a_label():
    estimator = quiet_fit(sklearn_mlp(MLPClassifier), X, MULTILABEL)
    module, likelihood = sklearn_module(estimator)
    assert likelihood == "bernoulli"
    np.testing.assert_allclose(expit(outputs(module, X)), estimator.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize("kind", [linear.RidgeClassifier, linear.RidgeClassifierCV])
@pytest.mark.parametrize("y", [TWO, THREE, MULTILABEL], ids=["two", "three", "multilabel"])
def test_ridge_classifiers_are_least_squares(kind, y):
    estimator = kind().fit(X, y)
    module, likelihood = sklearn_module(estimator)
    assert likelihood == "gaussian"
    decision = np.asarray(estimator.decision_function(X)).reshape(60, -1)
    np.testing.assert_allclose(outputs(module, X), decision, atol=1e-12)


@pytest.mark.parametrize("kind", [linear.Ridge, linear.LinearRegression, MLPRegressor])
def test_dtype_is_that_of_the_coefficients(kind):
    estimator = kind()
    if kind is MLPRegressor:
        estimator.set_params(max_iter=2)
    quiet_fit(estimator, X.astype(np.float32), SCORE.astype(np.float32))
    module, _ = sklearn_module(estimator)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    np.testing.assert_allclose(outputs(module, X)[:, 0], estimator.predict(X.astype("f4")), 1e-4)


def test_sparse_coefficients():
    estimator = linear.SGDClassifier(loss="log_loss", penalty="l1", random_state=0).fit(X, TWO)
    dense = outputs(sklearn_module(estimator)[0], X)
    np.testing.assert_array_equal(outputs(sklearn_module(estimator.sparsify())[0], X), dense)


def test_structure_and_independence():
    """Linear layers and activations; nothing of the user's, no random number drawn."""
    estimator = quiet_fit(sklearn_mlp(MLPClassifier, activation="logistic"), X, THREE)
    coefs = [coef.copy() for coef in estimator.coefs_]
    state = torch.get_rng_state()
    module, _ = sklearn_module(estimator)
    assert torch.get_rng_state().equal(state)
    kinds = [type(layer) for layer in module]
    assert kinds == [nn.Linear, nn.Sigmoid, nn.Linear, nn.Sigmoid, nn.Linear]
    assert all(p.requires_grad and p.is_leaf and p.is_contiguous() for p in module.parameters())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    for before, after in zip(coefs, estimator.coefs_, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LinearSVC(), "LinearSVC has no parameters with a likelihood.*LogisticRegression"),
        (linear.GammaRegressor(), "GammaRegressor has no"),
        (linear.HuberRegressor(), "HuberRegressor has no"),
        (linear.Perceptron(), "Perceptron has no"),
        (RandomForestClassifier(), "RandomForestClassifier has no.*torch.nn.Module"),
        (OneVsRestClassifier(linear.LogisticRegression()), "OneVsRestClassifier has no"),
        (GridSearchCV(linear.Ridge(), {"alpha": [1]}), "search.best_estimator_"),
        (linear.SGDClassifier(), r"loss='hinge'.*loss='log_loss'"),
        (linear.SGDRegressor(loss="huber"), r"loss='huber'.*loss='squared_error'"),
        (linear.TweedieRegressor(power=1.5), r"power=1\.5.*power=1 with the log link"),
        (linear.TweedieRegressor(power=0, link="log"), "link='log'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_others_are_refused_before_a_fit(estimator, message):
    with pytest.raises(NotAModelError, match=message):
        check_supported(estimator)


def test_one_against_the_rest_is_no_distribution():
    estimator = linear.SGDClassifier(loss="log_loss", random_state=0).fit(X, THREE)
    with pytest.raises(NotAModelError, match="3 classes one against the rest"):
        sklearn_module(estimator)
