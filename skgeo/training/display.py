"""Plot of features of a network against the step of its training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from skgeo._axes import axes_for
from skgeo.exceptions import SkgeoError

__all__ = ["TrajectoryDisplay"]

_LAYERS = "quotient_common_nullity"
_DEFAULT = (("fisher_effective_rank", "tangent_effective_rank"), (_LAYERS,))
_TITLES = {
    _DEFAULT[0]: "Effective ranks",
    _DEFAULT[1]: "Null dimensions of each layer",
}


_NAMES = {
    "kl": "KL divergence of the jump",
    "fisher_rao_length": "Fisher-Rao length of the jump",
}


class TrajectoryDisplay:
    """Features of a network against the step of its training.

    One panel for each feature, or group of features, with the steps on an axis that is linear up
    to the first positive step and logarithmic after it. Over several seeds, the median is a line
    and the range a band. Create it with :meth:`from_track`.

    Parameters
    ----------
    tables : list of DataFrame
        As :func:`skgeo.track` returns them, one per seed, with the same steps and columns.
    panels : list of tuple of str
        Columns of each panel.
    titles : list of str
        Title of each panel.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        One per panel.
    figure_ : matplotlib Figure
    lines_ : dict of str to matplotlib Line2D
        The line of each column.

    See Also
    --------
    skgeo.track : Makes the table.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import pandas as pd
    >>> from skgeo.training import TrajectoryDisplay
    >>> steps = pd.Index([0, 1, 10], name="step")
    >>> table = pd.DataFrame({"fisher__fisher_rank": [4.0, 6.0, 9.0]}, index=steps)
    >>> display = TrajectoryDisplay.from_track(table, features=["fisher_rank"])
    >>> display.axes_[0].get_xscale()
    'symlog'
    """

    axes_: list[Any]
    figure_: Any
    lines_: dict[str, Any]

    def __init__(
        self,
        *,
        tables: Sequence[pd.DataFrame],
        panels: Sequence[tuple[str, ...]],
        titles: Sequence[str],
    ) -> None:
        self.tables = list(tables)
        self.panels = list(panels)
        self.titles = list(titles)

    @classmethod
    def from_track(
        cls,
        table: Any,
        features: Sequence[str | Sequence[str]] | None = None,
        *,
        ax: Any = None,
        **kwargs: Any,
    ) -> TrajectoryDisplay:
        """Draw a table of a tracked run, or tables of several seeds.

        Parameters
        ----------
        table : DataFrame or list of DataFrame
            As :func:`skgeo.track` returns it; one per seed, or one whose index has a level beside
            ``step``, as of ``pandas.concat({0: first, 1: second}, names=["seed"])``.
        features : sequence of str or of sequence of str, default=None
            A panel for each item: a column, by its name or the part after ``__``, or several. The
            name without brackets means every layer. By default the effective ranks of the Fisher
            metric and of the tangent kernel, side by side, and the null dimensions of each layer,
            as far as they were measured.
        ax : Axes or sequence of Axes, default=None
            One per panel; by default those of a new figure.
        **kwargs
            Passed to the lines, such as ``lw``.

        Returns
        -------
        TrajectoryDisplay
            The display, drawn.

        Raises
        ------
        SkgeoError
            If the table has no such column, or the tables differ in their steps or columns.
        """
        tables = _tables(table)
        columns = list(tables[0].columns)
        groups = [
            (feature,) if isinstance(feature, str) else tuple(feature)
            for feature in (_DEFAULT if features is None else features)
        ]
        panels, titles = [], []
        for group in groups:
            found = [_matching(name, columns) for name in group]
            if features is not None and not all(found):
                name = group[found.index([])]
                raise SkgeoError(f"The table has no column {name!r}; it has {columns}.")
            chosen = tuple(dict.fromkeys(column for each in found for column in each))
            if chosen:
                panels.append(chosen)
                titles.append(_TITLES.get(group, _words(group[0]) if len(group) == 1 else ""))
        if not panels:
            raise SkgeoError(
                "The table has neither effective ranks nor null dimensions of layers, which are "
                f"drawn by default. Say features=; its columns are {columns}."
            )
        return cls(tables=tables, panels=panels, titles=titles).plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any) -> TrajectoryDisplay:
        """Draw on one Axes per panel.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            By default those of a new figure.
        **kwargs
            Passed to the lines, such as ``lw``.

        Returns
        -------
        self : TrajectoryDisplay
            The display.
        """
        count = len(self.panels)
        axes = axes_for("TrajectoryDisplay", ax, (4.6 * count, 3.6), count)
        self.axes_ = [axes] if count == 1 else list(axes)
        self.figure_ = self.axes_[0].figure
        self.lines_ = {}
        for axis, columns, title in zip(self.axes_, self.panels, self.titles, strict=True):
            self._panel(axis, columns, kwargs)
            axis.set(title=title, xlabel="step")
        return self

    def _panel(self, axis: Any, columns: tuple[str, ...], kwargs: dict[str, Any]) -> None:
        from matplotlib import colormaps
        from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

        steps = self.tables[0].index.get_level_values("step").to_numpy(dtype=np.float64)
        layers = sum("[" in column for column in columns)
        shades = colormaps["viridis"](np.linspace(0.0, 0.9, max(layers, 1)))
        labels = _labels(columns)
        whole = True
        drawn = 0
        for column, label in zip(columns, labels, strict=True):
            # values (n_seeds, n_steps)
            values = np.stack([table[column].to_numpy(dtype=np.float64) for table in self.tables])
            style: dict[str, Any] = {"marker": "o", "ms": 3.5, "label": label}
            if "[" in column:
                style["color"] = shades[drawn]
                drawn += 1
            # A median of integers may be half of one: the lower one is a value that occurred.
            middle = np.sort(values, axis=0)[(len(values) - 1) // 2]
            (line,) = axis.plot(steps, middle, **style | kwargs)
            if len(values) > 1:
                low, high = values.min(0), values.max(0)
                axis.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, lw=0)
            self.lines_[column] = line
            finite = values[np.isfinite(values)]
            whole = whole and bool((finite == np.round(finite)).all())
        positive = steps[steps > 0]
        if len(positive) and steps.max() >= 10 * positive.min():
            axis.set_xscale("symlog", linthresh=positive.min())
            axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if whole:
            axis.yaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
        if len(columns) > 1:
            beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False}
            axis.legend(fontsize="small", **(beside if len(columns) > 3 else {}))


def _tables(table: Any) -> list[pd.DataFrame]:
    """One table per seed, with equal steps and columns."""
    if isinstance(table, pd.DataFrame) and table.index.nlevels > 1:
        if "step" not in table.index.names:
            raise SkgeoError(f"The index has levels {list(table.index.names)}, and none is 'step'.")
        others = [name for name in table.index.names if name != "step"]
        table = [part.droplevel(others) for _, part in table.groupby(level=others, sort=False)]
    tables = [table] if isinstance(table, pd.DataFrame) else list(table)
    if not tables or not all(isinstance(t, pd.DataFrame) and len(t) for t in tables):
        raise SkgeoError("Expected a table of skgeo.track, or a list of them, with a row or more.")
    first = tables[0]
    for other in tables:
        if other.index.name != "step":
            raise SkgeoError(f"The index is {other.index.name!r}; expected 'step'.")
        if not other.index.equals(first.index) or list(other.columns) != list(first.columns):
            raise SkgeoError(
                "The tables differ in their steps or columns; a band needs those of one training "
                "with several seeds."
            )
    return tables


def _matching(name: str, columns: list[str]) -> list[str]:
    """Columns that a name means: itself, a feature of any estimator, or of every layer."""
    if name in columns:
        return [name]
    features = {column: _feature(column) for column in columns}
    return [c for c, feature in features.items() if name in (feature, feature.partition("[")[0])]


def _labels(columns: tuple[str, ...]) -> list[str]:
    """Short names of columns, with that of the estimator where two have one feature."""
    features = [_feature(column) for column in columns]
    stems = {feature.partition("[")[0] for feature in features}
    short = [
        f"layer {feature.partition('[')[2][:-1]}"
        if "[" in feature and len(stems) == 1
        else _words(feature)
        for feature in features
    ]
    if len(set(short)) == len(short):
        return short
    return [f"{c.partition('__')[0]}: {s}" for c, s in zip(columns, short, strict=True)]


def _feature(column: str) -> str:
    """Name of a column without that of the estimator; layers may have two underscores."""
    return column.partition("__")[2] or column


def _words(feature: str) -> str:
    name = _feature(feature)
    text = name.replace("_", " ").strip()
    return _NAMES.get(name) or text[:1].upper() + text[1:]
