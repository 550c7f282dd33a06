"""Base class of all estimators, with its two readings.

A subclass implements the *bound* reading only, the measurement of one model on one data set. The
*unbound* reading of a table of (model, data) pairs repeats this measurement for each pair, so both
readings agree:

    E(**p).fit_transform([(m, D)])[0] == list(E(model=m, **p).fit(D).summary().values())
"""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Self

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, check_memory, validate_data

from skgeo._progress import shown
from skgeo._sklearn import CallbackSupportMixin, FitProgress, with_callbacks
from skgeo._version import __version__
from skgeo.data._arrays import check_unmasked, is_frame
from skgeo.exceptions import SkgeoError, collect_warnings, said, warn
from skgeo.likelihood import Likelihood, as_likelihood
from skgeo.linalg._threads import single_blas_thread
from skgeo.models import ResolvedModel, fingerprint, needs_y, resolve_model, share_or_clone
from skgeo.models._digest import read_content
from skgeo.network._bound import BoundNetwork
from skgeo.network._running import check_device
from skgeo.pairs import Pair, PairRow, as_pairs, run_pairs

__all__ = ["GeometryEstimator"]

# Parameters that affect how a measurement is computed and reported, but not its result.
_CONDUCT = (
    "model",
    "memory_budget",
    "batch_size",
    "device",
    "memory",
    "on_error",
    "n_jobs",
    "verbose",
)


class _NotNumbers(SkgeoError, TypeError):
    """Error for data whose type cannot be read, which scikit-learn expects as a TypeError."""


class GeometryEstimator(
    # scikit-learn ships no types.
    CallbackSupportMixin,  # type: ignore[misc, unused-ignore]
    TransformerMixin,  # type: ignore[misc, unused-ignore]
    BaseEstimator,  # type: ignore[misc, unused-ignore]
    ABC,
):
    """Base class of all estimators.

    A subclass has ``model`` as its first parameter and implements :meth:`_measure`,
    :meth:`_features`, :meth:`_feature_names`, :meth:`_summary_names` and :meth:`summary`.
    """

    _needs_data: ClassVar[bool] = True
    # Network parameters with respect to which derivatives are taken, unless the estimator has a
    # parameter for it.
    _parameters: ClassVar[str | None] = "trainable"
    # Parameters that do not affect a pair's features, with the values that cost least.
    _pair_parameters: ClassVar[Mapping[str, Any]] = {}

    model: Any
    model_: ResolvedModel
    _weights: str

    @abstractmethod
    def _measure(self, network: BoundNetwork) -> None:
        """Measure the network on its data and set the fitted attributes."""

    @abstractmethod
    def _features(self, network: BoundNetwork) -> np.ndarray:
        """Features of new samples under the fitted geometry: (n_samples, n_features)."""

    @abstractmethod
    def _feature_names(self) -> list[str]:
        """Names of the columns of ``transform`` in the bound reading."""

    @abstractmethod
    def _summary_names(self) -> list[str]:
        """Keys of :meth:`summary`, which depend on the class and its parameters only."""

    @abstractmethod
    def summary(self) -> dict[str, float]:
        """Scalar summary of the fitted geometry, as in the unbound reading.

        Returns
        -------
        dict of str to float
            The features that the unbound reading computes per pair, by name.
        """

    def _check_measured(self) -> None:
        """Raise NotFittedError if fit was not called."""
        if self.model is None:
            raise SkgeoError(
                f"This {type(self).__name__} has no model of its own: without model=, transform "
                "reads a table of pairs. For the geometry of one network, bind the model: "
                "Estimator(model=net).fit(X)."
            )
        check_is_fitted(self)

    def _facts(self) -> dict[str, str]:
        """How model and data were read; tables of pairs warn where this differs between rows."""
        return {}

    def _layer_numbers(self) -> dict[str, float]:
        """Numbers of single layers by name, which a tracked training run shows beside summary."""
        return {}

    @with_callbacks
    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Measure the geometry of the bound model on X.

        Parameters
        ----------
        X : array, Tensor, DataFrame, dict, Dataset or DataLoader; or a table of pairs
            Samples in the bound reading. Without a model, a table of pairs, which is checked but
            not used.
        y : array-like of shape (n_samples, ...), default=None
            Targets. In the bound reading, a clone of a scikit-learn or skorch model is first
            fitted on them. Ignored without a model.

        Returns
        -------
        self : GeometryEstimator
            The fitted estimator.
        """
        progress = FitProgress(self, X, y)
        if self.model is None:
            as_pairs(X)
        else:
            with single_blas_thread(), _gradients():
                X, y = self._validate(X, y, reset=True)
                self.model_ = resolve_model(self.model, X, y, refit=True)
                passes = self._shown(progress)
                self._measure(self._bind(self.model_, X, y, progress=passes))
                self._weights = fingerprint(self.model_.module)
        progress.end()
        return self

    def _shown(self, progress: FitProgress) -> Callable[[Sequence[Any]], Iterable[Any]]:
        """Wraps the passes of one fit: callbacks, and a bar if ``verbose`` is positive."""
        if not getattr(self, "verbose", 0):
            return progress
        return lambda passes: shown(progress(passes), len(passes), type(self).__name__)

    def transform(self, X: Any) -> np.ndarray:
        """Features of samples, or of pairs.

        Parameters
        ----------
        X : array, Tensor, DataFrame, dict, Dataset or DataLoader; or a table of pairs
            Samples in the bound reading; a table of pairs without a model.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Features in float64, one row per sample or per pair.
        """
        if self.model is None:
            return self._transform_pairs(as_pairs(X))
        with single_blas_thread(), _gradients():
            return self._features(self._fitted_network(X))

    def _fitted_network(self, X: Any) -> BoundNetwork:
        """The fitted model, checked to be unchanged since fit, on new samples."""
        self._check_measured()
        if fingerprint(self.model_.module) != self._weights:
            raise SkgeoError(
                "The model's parameters, buffers or structure have changed since fit, so the "
                "fitted geometry is not that of this model. Fit again, or fit on a copy of the "
                "module if training continues."
            )
        X, _ = self._validate(X, None, reset=False)
        return self._bind(self.model_, X, None, likelihood=getattr(self, "_likelihood", None))

    def _transform_pairs(self, pairs: list[Pair]) -> np.ndarray:
        parameters = self.get_params(deep=False)
        check_device(parameters.get("device"))
        on_gpu = torch.device(parameters.get("device") or "cpu").type == "cuda"
        with single_blas_thread():  # also here, so that workers inherit it
            return run_pairs(
                self._pair_row,
                pairs,
                width=len(self._summary_names()),
                n_jobs=1 if on_gpu else parameters.get("n_jobs"),
                verbose=parameters.get("verbose", 0),
                on_error=parameters.get("on_error", "raise"),
            )

    def _pair_row(self, pair: Pair) -> PairRow:
        """Features of one pair, cached if ``memory`` is set."""
        with single_blas_thread(), _gradients():
            model = resolve_model(pair.model, pair.X, pair.y, refit=False)
            network = self._bind(model, pair.X, pair.y)
            memory = _memory(getattr(self, "memory", None))
            if memory.location is None:
                return self._measure_pair(network)
            kept = {k: v for k, v in self.get_params(deep=False).items() if k not in _CONDUCT}
            data = network.samples.fingerprint() if network.has_samples else None
            content, lost = read_content(model)
            family = kept.get("likelihood")
            if isinstance(family, Likelihood):
                kept["likelihood"], more = read_content(family)  # its code counts
                lost += more
            if lost:
                warn(
                    f"The features are not cached: the model's code uses {', '.join(lost)}, which "
                    "cannot be followed, so a change there would not be seen."
                )
                return self._measure_pair(network)
            key = (__version__, type(self).__qualname__, joblib.hash(kept), content, data)
            return cached_row(memory, key, lambda: self._measure_pair(network))

    def _measure_pair(self, network: BoundNetwork) -> PairRow:
        # A new object, not a clone: callbacks and output settings belong to the estimator of the
        # table, not to its rows.
        parameters = self.get_params(deep=False) | dict(self._pair_parameters)
        alone = type(self)(**parameters | {"model": network.model.module})
        alone.model_ = network.model
        alone._measure(network)
        values = [float(value) for value in alone.summary().values()]
        return PairRow(values, alone._facts(), layer_numbers=tuple(alone._layer_numbers().items()))

    def _validate(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        """Validate samples as scikit-learn does if they are arrays."""
        if isinstance(X, list) and X and all(isinstance(row, tuple) for row in X):
            raise SkgeoError(
                "Got a list of tuples, but this estimator is bound to a model. Pass X and y "
                "separately: fit(X, y). A list of (model, X) or (model, X, y) pairs is read by an "
                "estimator without model=."
            )
        if X is None and not self._needs_data:
            return X, y
        if not (isinstance(X, (np.ndarray, list)) or is_frame(X)) and not any(
            hasattr(X, name) for name in ("__array_interface__", "toarray")
        ):
            return X, y
        check_unmasked(X, "X")
        try:
            if hasattr(self.model, "steps"):  # the first step of a pipeline checks its input
                validate_data(self, X, reset=reset, skip_check_array=True)
                return X, y
            return validate_data(self, X, reset=reset, allow_nd=True, ensure_min_samples=1), y
        except (ValueError, TypeError) as error:
            kind = _NotNumbers if isinstance(error, TypeError) else SkgeoError
            raise kind(f"X cannot be used: {said(error)}") from error

    def _bind(
        self,
        model: ResolvedModel,
        X: Any,
        y: Any,
        *,
        likelihood: str | Likelihood | None = None,
        progress: Callable[..., Any] = iter,
    ) -> BoundNetwork:
        """The model on data, with the options that this estimator has as parameters."""
        samples = None if X is None and not self._needs_data else model.read(X, y)
        own = self.get_params(deep=False)
        if "likelihood" in own and own["likelihood"] is None:
            family: Any = own["likelihood"]
            as_likelihood(family)  # refuses it; without the parameter, None is right
        return BoundNetwork(
            model,
            samples,
            likelihood=likelihood or own.get("likelihood"),
            parameters=own.get("parameters", self._parameters),
            batch_size=own.get("batch_size"),
            device=own.get("device"),
            memory_budget=own.get("memory_budget"),
            progress=progress,
        )

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the features that ``transform`` returns.

        Parameters
        ----------
        input_features : object, default=None
            Ignored; present for compatibility with scikit-learn.

        Returns
        -------
        ndarray of str of shape (n_features,)
            Names of the columns.
        """
        if self.model is None:
            return np.asarray(self._summary_names(), dtype=object)
        self._check_measured()
        return np.asarray(self._feature_names(), dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return self.model is None or hasattr(self, "model_")

    def __sklearn_clone__(self) -> Any:
        # Modules are shared, not copied: the clone measures the same model.
        bare = copy.copy(self)
        bare.model = None
        new = BaseEstimator.__sklearn_clone__(bare)
        new.model = share_or_clone(self.model)
        return new

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        bound = self.model is not None
        tags.requires_fit = bound
        tags.target_tags.required = bound and needs_y(self.model)
        tags.input_tags.two_d_array = bound
        tags.transformer_tags.preserves_dtype = []
        return tags


@contextmanager
def _gradients() -> Iterator[None]:
    """Derivatives are taken, whatever the mode of the caller."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _memory(memory: Any) -> Any:
    """The cache at a path, or a joblib.Memory as it is."""
    try:
        return check_memory(os.fspath(memory) if isinstance(memory, os.PathLike) else memory)
    except ValueError as error:
        raise SkgeoError(
            f"Got memory={memory!r}; expected None, a path or a joblib.Memory."
        ) from error


def cached_row(
    memory: joblib.Memory, key: tuple[Any, ...], compute: Callable[[], PairRow]
) -> PairRow:
    """The row that is kept under a key of its content, computed if there is none.

    Its warnings are kept with it, and given each time.
    """
    cached: Callable[..., PairRow] = memory.cache(_computed, ignore=["compute"])
    row = cached(key, compute)
    for category, message in row.notes:
        warn(message, category)
    return row


def _computed(key: tuple[Any, ...], compute: Callable[[], PairRow]) -> PairRow:
    """Function that joblib caches: features of a pair, and its warnings, by its content."""
    with collect_warnings() as notes:
        row = compute()
    return replace(row, notes=tuple(notes))
