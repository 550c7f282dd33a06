"""Plots of the bars of a linear network, and of the strata of its fiber."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skgeo._axes import axes_for, check_drawn
from skgeo.fiber._enumeration import HasseDiagram

__all__ = ["BarcodeDisplay", "HasseDisplay"]

# The four kinds of bars with respect to the product W, and their colors.
_KINDS = (
    ("input to output (rank of W)", "C0"),
    ("from the input, lost on the way", "C1"),
    ("from inside to the output", "C2"),
    ("inside only", "C7"),
)


class BarcodeDisplay:
    """Plot of the bars of a linear network, each from its birth to its death across the layers.

    Create it with :meth:`from_estimator`. Equal bars are one line, labelled with their number.

    Parameters
    ----------
    bars : sequence of (birth, death, multiplicity)
        As in :attr:`skgeo.fiber.Barcode.bars`.
    widths : sequence of int
        d_0, ..., d_L.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib artists
        One per bar, from bottom to top.

    See Also
    --------
    skgeo.fiber.LinearFiberStratifier : The estimator whose bars are drawn.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from skgeo.datasets.linear import linear_network
    >>> from skgeo.fiber import BarcodeDisplay
    >>> from skgeo.fiber import LinearFiberStratifier
    >>> network = linear_network([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0]]])
    >>> display = BarcodeDisplay.from_estimator(LinearFiberStratifier(network).fit())
    >>> [line.get_xdata().tolist() for line in display.lines_]
    [[0, 2], [0, 1]]
    """

    ax_: Any
    figure_: Any
    lines_: list[Any]

    def __init__(self, *, bars: Sequence[tuple[int, int, int]], widths: Sequence[int]) -> None:
        self.bars = bars
        self.widths = widths

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **kwargs: Any) -> BarcodeDisplay:
        """Draw a fitted estimator.

        Parameters
        ----------
        estimator : LinearFiberStratifier
            Fitted and bound to a model.
        ax : matplotlib Axes, default=None
            Axes to draw on; None for a new figure.
        **kwargs
            Passed to the lines, such as ``linewidth``.

        Returns
        -------
        BarcodeDisplay
        """
        check_drawn(cls.__name__, estimator, "LinearFiberStratifier")
        display = cls(bars=estimator.barcode_.bars, widths=estimator.widths_)
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any) -> BarcodeDisplay:
        """Draw on axes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None for a new figure.
        **kwargs
            Passed to the lines.

        Returns
        -------
        self
        """
        depth = len(self.widths) - 1
        # Bars of the product first and long ones before short ones, from the bottom.
        bars = sorted(self.bars, key=lambda bar: (_kind(bar, depth), bar[0] - bar[1], bar[0]))
        ax = axes_for("BarcodeDisplay", ax, (1.6 + 0.9 * (depth + 1), 1.4 + 0.3 * len(bars)))
        style = {"linewidth": 5.0, "solid_capstyle": "round", **kwargs}
        self.lines_ = []
        for height, bar in enumerate(bars):
            birth, death, count = bar
            color = {"color": _KINDS[_kind(bar, depth)][1]}
            marker = {"marker": "o", "markersize": style["linewidth"] + 1} if birth == death else {}
            (line,) = ax.plot([birth, death], [height, height], **(color | marker | style))
            self.lines_.append(line)
            if count > 1:
                ax.annotate(
                    rf"$\times${count}",
                    (death, height),
                    xytext=(8, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize="small",
                )
        ax.set(
            xlim=(-0.4, depth + 0.6),
            ylim=(-0.8, len(bars) - 0.2),
            yticks=[],
            xlabel="layer, and its width",
            title=f"Bars of a linear network, rank {_rank(bars, depth)}",
        )
        ax.set_xticks(range(depth + 1), [f"{k}\n({width})" for k, width in enumerate(self.widths)])
        ax.grid(axis="x", linewidth=0.6, alpha=0.5)
        self._legend(ax, sorted({_kind(bar, depth) for bar in bars}), style["linewidth"])
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _legend(self, ax: Any, kinds: Sequence[int], linewidth: float) -> None:
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=_KINDS[k][1], linewidth=linewidth) for k in kinds]
        ax.legend(
            handles,
            [_KINDS[k][0] for k in kinds],
            fontsize="small",
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
        )


def _kind(bar: tuple[int, int, int], depth: int) -> int:
    birth, death, _ = bar
    return (0 if death == depth else 1) if birth == 0 else (2 if death == depth else 3)


def _rank(bars: Sequence[tuple[int, int, int]], depth: int) -> int:
    return sum(count for birth, death, count in bars if (birth, death) == (0, depth))


class HasseDisplay:
    """Plot of the strata of a fiber by dimension, with lines for the covers.

    Create it with :meth:`from_estimator`. Filled points are strata near which the fiber is a
    manifold, squares are strata that are open in the fiber, and a ring marks that of the network.

    Parameters
    ----------
    diagram : HasseDiagram
        The strata and their covers.
    own : int, default=None
        Index of the stratum to mark.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    positions_ : ndarray of shape (n_strata, 2)
        Position of each stratum; the second coordinate is its dimension.
    own_ : matplotlib artist or None
        The ring, if a stratum is marked.

    See Also
    --------
    skgeo.fiber.LinearFiberStratifier : The estimator whose ``hasse()`` is drawn.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from skgeo.datasets.linear import linear_network
    >>> from skgeo.fiber import HasseDisplay
    >>> from skgeo.fiber import LinearFiberStratifier
    >>> network = linear_network([[[0.0]], [[0.0]]])
    >>> display = HasseDisplay.from_estimator(LinearFiberStratifier(network).fit())
    >>> display.positions_[:, 1].tolist()
    [0.0, 1.0, 1.0]
    """

    ax_: Any
    figure_: Any
    positions_: np.ndarray
    own_: Any

    def __init__(self, *, diagram: HasseDiagram, own: int | None = None) -> None:
        self.diagram = diagram
        self.own = own

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Any = None, max_strata: int = 1000, **kwargs: Any
    ) -> HasseDisplay:
        """Draw the fiber of a fitted estimator.

        Parameters
        ----------
        estimator : LinearFiberStratifier
            Fitted and bound to a model.
        ax : matplotlib Axes, default=None
            Axes to draw on; None for a new figure.
        max_strata : int, default=1000
            Refuse a fiber with more strata, whose plot could not be read.
        **kwargs
            Passed to the lines of the covers, such as ``alpha``.

        Returns
        -------
        HasseDisplay
        """
        check_drawn(cls.__name__, estimator, "LinearFiberStratifier")
        diagram = estimator.hasse(max_strata=max_strata)
        display = cls(diagram=diagram, own=diagram.index(estimator.barcode_))
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any) -> HasseDisplay:
        """Draw on axes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None for a new figure.
        **kwargs
            Passed to the lines of the covers.

        Returns
        -------
        self
        """
        ax = axes_for("HasseDisplay", ax, (6.8, 5.2))
        from matplotlib.collections import LineCollection

        places = _layout(self.diagram)
        style = {"colors": "0.6", "linewidths": 0.6, "zorder": 1, **kwargs}
        edges = np.array(self.diagram.edges, dtype=int).reshape(-1, 2)
        ax.add_collection(LineCollection(places[edges], **style), autolim=False)
        smooth = np.array([node.is_smooth for node in self.diagram.nodes])
        open_ = np.isin(np.arange(len(places)), self.diagram.maximal)
        size = 36.0 if len(places) <= 150 else 12.0
        for chosen, marker, face, label in (
            (open_, "s", "C0", "open in the fiber"),
            (smooth & ~open_, "o", "C0", "smooth points"),
            (~smooth, "o", "white", "singular points"),
        ):
            if chosen.any():
                ax.scatter(
                    *places[chosen].T,
                    s=size,
                    marker=marker,
                    facecolor=face,
                    edgecolor="C0",
                    zorder=2,
                    label=label,
                )
        self.own_ = None
        if self.own is not None:
            self.own_ = ax.scatter(
                *places[[self.own]].T,
                s=5 * size,
                facecolor="none",
                edgecolor="C3",
                linewidth=1.8,
                zorder=3,
                label="the network's",
            )
        first = self.diagram.nodes[0]
        widths = "-".join(map(str, first.widths))
        ax.set(
            xticks=[],
            ylabel="dimension of the stratum",
            title=f"{len(places)} strata of the fiber of {widths}, rank {first.rank}",
        )
        ax.margins(0.08)
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        self.ax_, self.figure_, self.positions_ = ax, ax.figure, places
        return self


def _layout(diagram: HasseDiagram, sweeps: int = 8) -> np.ndarray:
    """Heights are dimensions; means over neighbours order each level, which untangles covers."""
    dimensions = np.array(diagram.dimensions, dtype=float)
    levels = [np.flatnonzero(dimensions == value) for value in np.unique(dimensions)]
    x = np.zeros(len(dimensions))
    for level in levels:
        x[level] = _spread(len(level))
    neighbours: list[list[int]] = [[] for _ in dimensions]
    for low, high in diagram.edges:
        neighbours[low].append(high)
        neighbours[high].append(low)
    for sweep in range(sweeps):
        for level in levels[:: 1 if sweep % 2 == 0 else -1]:
            means = [x[neighbours[node]].mean() if neighbours[node] else x[node] for node in level]
            x[level[np.argsort(means, kind="stable")]] = _spread(len(level))
    # Different small shifts of the levels: otherwise covers would run through other strata.
    for index, level in enumerate(levels):
        x[level] += 0.4 * ((index * index * 0.618034) % 1.0)
    return np.column_stack([x, dimensions])


def _spread(count: int) -> np.ndarray:
    return np.arange(count) - (count - 1) / 2
