"""Fitted scikit-learn models as modules that compute natural outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn import linear_model as linear
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import Tensor, nn

from skgeo.exceptions import NotAModelError

SUPPORTED = (
    "MLPRegressor, MLPClassifier, the linear models fitted by squared error (LinearRegression, "
    "Ridge, Lasso, ElasticNet, Lars, BayesianRidge, RidgeClassifier and their relatives), "
    "LogisticRegression, LinearDiscriminantAnalysis, PoissonRegressor, SGDRegressor with squared "
    "error and binary SGDClassifier with log loss"
)

_MULTILAYER = (MLPRegressor, MLPClassifier)
# Their outputs are decision values or means, fitted by least squares.
_SQUARED_ERROR = (
    linear.ARDRegression,
    linear.BayesianRidge,
    linear.ElasticNet,
    linear.ElasticNetCV,
    linear.Lars,
    linear.LassoCV,
    linear.LinearRegression,
    linear.MultiTaskElasticNetCV,
    linear.MultiTaskLassoCV,
    linear.OrthogonalMatchingPursuit,
    linear.OrthogonalMatchingPursuitCV,
    linear.Ridge,
    linear.RidgeClassifier,
    linear.RidgeClassifierCV,
    linear.RidgeCV,
)
_LOGISTIC = (linear.LogisticRegression, LinearDiscriminantAnalysis)
_POISSON = (linear.PoissonRegressor,)
_ACTIVATIONS: dict[str, type[nn.Module] | None] = {
    "identity": None,
    "logistic": nn.Sigmoid,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
}
_OUTPUTS = {
    "exp": "poisson",
    "identity": "gaussian",
    "logistic": "bernoulli",
    "softmax": "categorical",
}


def check_supported(estimator: Any) -> None:
    """Raise NotAModelError if an estimator or its loss is not supported.

    estimator: fitted or not; not a Pipeline or FrozenEstimator.
    """
    name = type(estimator).__name__
    if isinstance(estimator, linear.SGDClassifier):
        if estimator.loss != "log_loss":
            raise _wrong_loss(f"{name}(loss={estimator.loss!r})", "loss='log_loss'")
    elif isinstance(estimator, linear.SGDRegressor):
        if estimator.loss != "squared_error":
            raise _wrong_loss(f"{name}(loss={estimator.loss!r})", "loss='squared_error'")
    elif isinstance(estimator, linear.TweedieRegressor):
        if _tweedie(estimator) is None:
            raise _wrong_loss(
                f"{name}(power={estimator.power!r}, link={estimator.link!r})",
                "power=0 with the identity link or power=1 with the log link",
            )
    elif not isinstance(estimator, _SQUARED_ERROR + _LOGISTIC + _MULTILAYER + _POISSON):
        hint = ""
        if hasattr(estimator, "best_estimator_") or hasattr(estimator, "param_grid"):
            hint = " It is a search: fit it, and pass search.best_estimator_."
        raise NotAModelError(
            f"{name} has no parameters with a likelihood that skgeo knows.{hint} Supported "
            f"scikit-learn models are {SUPPORTED}, alone or as the last step of a "
            f"Pipeline. Build other models as a torch.nn.Module."
        )


def sklearn_module(estimator: Any) -> tuple[nn.Module, str]:
    """The module that computes a fitted model's natural outputs, and their likelihood.

    The module consists of linear layers and activations, in the dtype of the coefficients, in eval
    mode. Its outputs (n_samples, n_outputs) are logits, means or log-rates; two classes have one
    logit. There is no bias if the model has no intercept.

    Raises NotAModelError as :func:`check_supported`, and for one-vs-rest classifiers with more than
    two classes.

    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skgeo.models._sklearn_models import sklearn_module
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), ["no", "no", "yes", "yes"]
    >>> sklearn_module(LogisticRegression().fit(X, y))
    (Sequential(
      (0): Linear(in_features=1, out_features=1, bias=True)
    ), 'bernoulli')
    """
    check_supported(estimator)
    if isinstance(estimator, _MULTILAYER):
        return _multilayer(estimator), _OUTPUTS[estimator.out_activation_]
    likelihood = "gaussian"
    if isinstance(estimator, _LOGISTIC):
        likelihood = "bernoulli" if len(estimator.classes_) == 2 else "categorical"
    elif isinstance(estimator, linear.SGDClassifier):
        if len(estimator.classes_) > 2:
            raise NotAModelError(
                f"{type(estimator).__name__} fits {len(estimator.classes_)} classes one against "
                f"the rest, which is not a distribution over classes. Use LogisticRegression, "
                f"whose outputs are logits."
            )
        likelihood = "bernoulli"
    elif isinstance(estimator, _POISSON):
        likelihood = "poisson"
    elif isinstance(estimator, linear.TweedieRegressor):
        likelihood = _tweedie(estimator) or likelihood
    bias = estimator.intercept_ if getattr(estimator, "fit_intercept", True) else None
    return nn.Sequential(_linear(_tensor(estimator.coef_), bias)).eval(), likelihood


def _wrong_loss(given: str, expected: str) -> NotAModelError:
    return NotAModelError(
        f"{given} is fitted with a loss that belongs to no likelihood that skgeo knows; expected "
        f"{expected}. Supported scikit-learn models are {SUPPORTED}."
    )


def _tweedie(estimator: Any) -> str | None:
    """Likelihood of a Tweedie model, if its outputs are natural parameters."""
    if estimator.power == 0 and estimator.link in ("auto", "identity"):
        return "gaussian"
    if estimator.power == 1 and estimator.link in ("auto", "log"):
        return "poisson"
    return None


def _multilayer(estimator: Any) -> nn.Module:
    if estimator.activation not in _ACTIVATIONS:
        raise NotAModelError(
            f"{type(estimator).__name__} has activation={estimator.activation!r}; expected one "
            f"of {', '.join(_ACTIVATIONS)}."
        )
    activation = _ACTIVATIONS[estimator.activation]
    layers: list[nn.Module] = []
    for coef, intercept in zip(estimator.coefs_, estimator.intercepts_, strict=True):
        if layers and activation is not None:
            layers.append(activation())
        layers.append(_linear(_tensor(coef).T, intercept))
    return nn.Sequential(*layers).eval()


def _linear(weight: Tensor, bias: Any) -> nn.Linear:
    weight = weight.reshape(1, -1) if weight.ndim == 1 else weight
    n_outputs, n_inputs = weight.shape
    # On the meta device the layer draws no random numbers from the global generator.
    layer = nn.Linear(n_inputs, n_outputs, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.contiguous().clone())
    if bias is not None:
        values = _tensor(bias).to(weight.dtype).reshape(-1).expand(n_outputs)
        layer.bias = nn.Parameter(values.clone())
    return layer


def _tensor(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    dense = values.toarray() if hasattr(values, "toarray") else values
    tensor = torch.tensor(np.asarray(dense))
    return tensor if tensor.is_floating_point() else tensor.double()
