"""Any kind of model as a module, its forward function and its preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from skgeo.data import Samples, as_samples
from skgeo.exceptions import SkgeoError
from skgeo.likelihood import Likelihood
from skgeo.models._checkpoint import Checkpoint
from skgeo.models._huggingface import HuggingFaceCall
from skgeo.models._kinds import (
    check_model,
    check_parameters,
    has_embedding,
    is_estimator,
    last_step,
    unwrap,
)
from skgeo.models._sklearn_models import sklearn_module
from skgeo.models._skorch_models import is_skorch, skorch_module
from skgeo.models._wrapped import WrappedModel

Forward = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True, eq=False)
class ResolvedModel:
    """A module ready to be measured.

    module: the user's own module if there is one.
    forward: ``forward(module, inputs)`` returns the natural outputs; None for ``module(inputs)``.
    preprocess: maps X to the inputs of the module: the first steps of a Pipeline.
    likelihood: likelihood that the model declares.
    estimator: fitted scikit-learn or skorch estimator that holds the module.
    keep_integers: whether integer inputs are indices and stay integers.
    class_axis: axis of the outputs that holds the classes, if the model says.
    mask: ``mask(inputs)`` returns which positions count; None for all.
    """

    module: nn.Module
    forward: Forward | None = None
    preprocess: Callable[[Any], Any] | None = None
    likelihood: str | Likelihood | None = None
    estimator: Any = None
    keep_integers: bool = False
    class_axis: int | None = None
    mask: Callable[[Any], Tensor] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the first floating parameter or else buffer; float32 if there is none."""
        for tensors in (self.module.parameters(), self.module.buffers()):
            for tensor in tensors:
                if tensor.is_floating_point():
                    return tensor.dtype
        return torch.float32

    def samples(self, X: Any, y: Any = None) -> Samples:
        """Preprocessed data in memory, in the dtype of the module, on the device of the data."""
        return self.read(X, y).to(dtype=self.dtype, keep_integers=self.keep_integers)

    def read(self, X: Any, y: Any = None) -> Samples:
        """Preprocessed data in memory, in their own dtype."""
        if self.preprocess is not None:
            X, y = _in_memory(X, y)
            X = self.preprocess(X)
        samples = as_samples(X, y)
        if isinstance(self.forward, HuggingFaceCall):
            return self.forward.prepared(samples)
        return samples


def resolve_model(model: Any, X: Any = None, y: Any = None, *, refit: bool) -> ResolvedModel:
    """Read any kind of model.

    model: a torch module, WrappedModel, Checkpoint, scikit-learn MLP or linear model, skorch net,
        or a Pipeline or FrozenEstimator around one of the last two.
    X, y: data on which a scikit-learn or skorch model is fitted.
    refit: whether to fit a clone of a fitted model on X and y as well; a FrozenEstimator is never
        fitted. If false, a fitted model is used as it is.
    Raises NotAModelError if `model` is not a model, SkgeoError if it must be fitted and X or y is
    missing, or if its parameters have no values.

    `model` itself is never fitted or changed. Modules are shared, not copied.

    >>> import numpy as np
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skgeo.models import resolve_model
    >>> X, y = np.arange(8.0).reshape(4, 2), np.arange(4.0)
    >>> resolved = resolve_model(make_pipeline(StandardScaler(), Ridge()), X, y, refit=True)
    >>> resolved.likelihood, resolved.module(resolved.samples(X).inputs).shape
    ('gaussian', torch.Size([4, 1]))
    """
    if isinstance(model, ResolvedModel):
        return model
    check_model(model)
    if isinstance(model, WrappedModel):
        plain = _plain(unwrap(model.module), model.forward)
        resolved = replace(
            plain,
            likelihood=model.likelihood,
            class_axis=model.class_axis,
            mask=model.mask,
        )
    elif isinstance(model, Checkpoint):
        resolved = replace(_plain(model.load(), model.forward), class_axis=model.class_axis)
    elif isinstance(model, nn.Module):
        resolved = _plain(unwrap(model), None)
    else:
        resolved = _from_fitted(_fitted(model, X, y, refit=refit))
        _check_width(resolved.estimator, X)
    check_parameters(resolved.module)
    return resolved


def bare_model(model: Any) -> ResolvedModel:
    """A model without preprocessing.

    Raises SkgeoError for a Pipeline of several steps.
    """
    if needs_fit(model) and not _is_fitted(model):
        raise SkgeoError(
            f"{type(model).__name__} is not fitted, and there are no data here to fit it on. Fit "
            "it first."
        )
    resolved = resolve_model(model, refit=False)
    if resolved.preprocess is not None:
        raise SkgeoError(
            "The model is a Pipeline; its first steps would be ignored here. Pass its last step, "
            "pipeline[-1], with data transformed by pipeline[:-1]."
        )
    return resolved


def needs_fit(model: Any) -> bool:
    """Whether the bound reading fits a clone of `model`.

    True for scikit-learn models, skorch nets and Pipelines; false for modules, WrappedModel,
    Checkpoint, FrozenEstimator and None.
    """
    return is_estimator(model) and not isinstance(model, FrozenEstimator)


def needs_y(model: Any) -> bool:
    """Whether fitting a clone of `model` requires targets.

    By scikit-learn's tag ``target_tags.required`` of all steps; false if nothing is fitted.
    """
    if not needs_fit(model):
        return False
    if isinstance(model, Pipeline):
        return any(needs_y(step) for _, step in model.steps)
    return bool(get_tags(model).target_tags.required)


def share_or_clone(model: Any) -> Any:
    """The model that a clone of an estimator has.

    Modules, WrappedModel, Checkpoint and FrozenEstimator are shared. Other scikit-learn models and
    skorch nets are cloned, without their fitted attributes.
    """
    if isinstance(model, nn.Module):
        return model
    return clone(model, safe=False)


def _plain(module: nn.Module, forward: Forward | None) -> ResolvedModel:
    # A user's forward function decides what integers mean.
    keep = forward is not None or has_embedding(module)
    return ResolvedModel(module, forward, keep_integers=keep)


def _fitted(model: Any, X: Any, y: Any, *, refit: bool) -> Any:
    name = type(model).__name__
    if isinstance(model, FrozenEstimator):
        if not _is_fitted(model):
            inner = type(last_step(model)).__name__
            raise SkgeoError(
                f"FrozenEstimator holds {inner} that is not fitted: fit it before freezing it, "
                f"or pass it without FrozenEstimator to have it fitted on X, y."
            )
        return model
    if not refit and _is_fitted(model):
        return model
    if X is None:
        raise SkgeoError(f"{name} is fitted on the data, and X is None: pass X, or a fitted model.")
    X, y = _in_memory(X, y)
    if y is None and needs_y(model):
        advice = (
            "pass fit(X, y), or a FrozenEstimator around a fitted model."
            if refit
            else "it is not fitted: fit it first, or pass y as well, as in (model, X, y)."
        )
        raise SkgeoError(f"{name} requires y to be passed, but the target y is None: {advice}")
    if not is_skorch(model):
        X, y = _as_array(X), _as_array(y)
    return clone(model).fit(X, y)


def _is_fitted(model: Any) -> bool:
    if isinstance(model, FrozenEstimator):
        return _is_fitted(model.estimator)
    if isinstance(model, Pipeline):
        # scikit-learn checks the last step only, and that step may be frozen.
        return all(_is_fitted(step) for _, step in model.steps if is_estimator(step))
    try:
        check_is_fitted(model)
    except NotFittedError:
        return False
    return True


def _from_fitted(estimator: Any) -> ResolvedModel:
    steps: list[Pipeline] = []
    core = estimator
    while isinstance(core, Pipeline | FrozenEstimator):
        if isinstance(core, FrozenEstimator):
            core = core.estimator
            continue
        if len(core.steps) > 1:
            steps.append(core[:-1])
        core = core.steps[-1][1]
    preprocess = _Preprocess(tuple(steps)) if steps else None
    if not is_skorch(core):
        module, likelihood = sklearn_module(core)
        return ResolvedModel(module, None, preprocess, likelihood, estimator)
    inner, forward, family = skorch_module(core)
    inner = unwrap(inner)
    keep, axis = has_embedding(inner), 1 if family == "categorical" else None
    return ResolvedModel(inner, forward, preprocess, family, estimator, keep, axis)


@dataclass(frozen=True)
class _Preprocess:
    """The transformers before a model, outermost first."""

    pipelines: tuple[Pipeline, ...]

    def __call__(self, X: Any) -> Any:
        X = _as_array(_in_memory(X, None)[0])
        for pipeline in self.pipelines:
            X = pipeline.transform(X)
        return X.toarray() if sparse.issparse(X) else X


def _in_memory(X: Any, y: Any) -> tuple[Any, Any]:
    """Datasets and loaders in memory; all other data unchanged."""
    if not isinstance(X, Samples | Dataset | DataLoader):
        return X, y
    samples = as_samples(X, y)
    return samples.inputs, samples.targets


def _as_array(values: Any) -> Any:
    """Tensors as numpy arrays, for scikit-learn's transformers and models."""
    if isinstance(values, dict | tuple) and any(isinstance(v, Tensor) for v in _parts(values)):
        raise SkgeoError(
            "A scikit-learn model takes one array, and X is a "
            f"{type(values).__name__} of tensors. Pass a torch.nn.Module or a skorch net."
        )
    if not isinstance(values, Tensor):
        return values
    values = values.detach().cpu()
    return values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy()


def _parts(values: Any) -> Any:
    return values.values() if isinstance(values, dict) else values


def _check_width(estimator: Any, X: Any) -> None:
    expected = getattr(estimator, "n_features_in_", None)
    shape: tuple[int, ...] = tuple(getattr(X, "shape", ()))
    if expected is not None and len(shape) == 2 and shape[1] != expected:
        raise SkgeoError(
            f"X has {shape[1]} features, but {type(estimator).__name__} is expecting {expected} "
            f"features as input."
        )
