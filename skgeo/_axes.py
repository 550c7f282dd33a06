"""New matplotlib axes; matplotlib is imported only when they are made."""

from __future__ import annotations

from typing import Any

from skgeo._arguments import described
from skgeo.exceptions import SkgeoError


def check_drawn(name: str, estimator: Any, kind: str) -> None:
    """Raise an error unless an estimator is of the kind that a Display draws, and fitted."""
    if kind not in [each.__name__ for each in type(estimator).__mro__]:
        raise SkgeoError(
            f"The {name} draws a fitted {kind}; got {described(estimator)}. Use the Display of "
            "that estimator."
        )
    estimator._check_measured()


def axes_for(name: str, ax: Any, size: tuple[float, float], columns: int = 1) -> Any:
    """The given Axes, one or `columns` of them, or those of a new figure.

    Raises SkgeoError if another number of Axes, or something else, was given.
    """
    if ax is None:
        return new_axes(name, size, columns)
    given = list(ax.flat) if hasattr(ax, "flat") else ax
    given = list(given) if isinstance(given, (list, tuple)) else [given]
    if len(given) != columns or not all(
        hasattr(each, "get_legend_handles_labels") for each in given
    ):
        wanted = "one matplotlib Axes" if columns == 1 else f"{columns} matplotlib Axes"
        raise SkgeoError(
            f"{name} got ax={type(ax).__name__} with {len(given)} item(s); expected {wanted}, such "
            f"as plt.subplots(1, {columns})[1]."
        )
    return given[0] if columns == 1 else given


def new_axes(name: str, size: tuple[float, float], columns: int = 1) -> Any:
    """Axes of a new figure, several in a row if `columns` > 1; `name` is that of the Display."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{name} needs matplotlib; install it: python -m pip install 'skgeo[plot]'."
        ) from error
    _, axes = plt.subplots(1, columns, figsize=size, layout="constrained")
    return axes
