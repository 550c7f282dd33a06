"""Functions of a model and data among the estimators of a tracked run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import joblib
import pandas as pd
from torch import Tensor

from skgeo._arguments import described
from skgeo.exceptions import SkgeoError, warn
from skgeo.models import ResolvedModel, WrappedModel, is_model
from skgeo.models._digest import read_content, read_function
from skgeo.pairs import Pair, PairRow
from skgeo.training._kept import kept_row


@dataclass(frozen=True)
class FunctionRow:
    """Measures a pair by a function; all its numbers are named row by row."""

    name: str
    function: Callable[[Any, Any, Any], Any]
    memory: joblib.Memory | None

    def _summary_names(self) -> list[str]:
        return []

    def _pair_row(self, pair: Pair) -> PairRow:
        def compute() -> PairRow:
            found = self.function(_given(pair.model), pair.X, pair.y)
            return PairRow([], {}, layer_numbers=tuple(self._numbers(found).items()))

        def uncached(lost: list[str]) -> None:
            warn(
                f"The numbers of {self.name!r} are not cached: its code or the model's uses "
                f"{', '.join(lost)}, which cannot be followed, so a change there would not be seen."
            )

        return kept_row(
            self.memory,
            ("function",),
            lambda: [read_function(self.function), read_content(pair.model)],
            pair.model,
            pair.X,
            pair.y,
            compute,
            uncached,
        )

    def _numbers(self, found: Any) -> dict[str, float]:
        """What the function returned, as numbers by name."""
        layers = getattr(found, "_layer_numbers", dict)
        summary = getattr(found, "summary", None)
        named = summary() if callable(summary) else found
        if isinstance(named, pd.Series):
            named = named.to_dict()
        if not isinstance(named, Mapping) or not all(isinstance(key, str) for key in named):
            raise SkgeoError(
                f"The function {self.name!r} returned {described(found)}; expected a dict of names "
                "to numbers, or a result with such a summary()."
            )
        numbers = {}
        for key, value in (dict(named) | layers()).items():
            try:
                if isinstance(value, str | bytes):
                    raise TypeError
                numbers[key] = float(value.detach() if isinstance(value, Tensor) else value)
            except (TypeError, ValueError, RuntimeError):
                raise SkgeoError(
                    f"The function {self.name!r} returned {described(value)} as {key!r}; expected "
                    "a number."
                ) from None
        return numbers


def is_function(value: Any) -> bool:
    """Whether a value can be called on a pair: neither a class nor a model."""
    return callable(value) and not isinstance(value, type) and not is_model(value)


def name_of(value: Any) -> str:
    """Name of a function, or of the class of anything else in lower case."""
    while isinstance(value, functools.partial):
        value = value.func
    return str(getattr(value, "__name__", type(value).__name__.lower()))


def _given(model: ResolvedModel) -> Any:
    """A model as its user knows it."""
    if model.estimator is not None:
        return model.estimator
    options = (model.forward, model.likelihood, model.class_axis, model.mask)
    if all(option is None for option in options):
        return model.module
    return WrappedModel(model.module, *options)
