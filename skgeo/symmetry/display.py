"""Displays of activation boundaries in the plane, and of an account of the Fisher null space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skgeo._axes import axes_for, check_drawn
from skgeo.exceptions import SkgeoError
from skgeo.network._stack import Stack, read_stack
from skgeo.symmetry._generators.table import SYMMETRIES
from skgeo.symmetry._units import UNIT_CLASSES

__all__ = ["BoundaryDisplay", "NullityDisplay"]

# Generic units, the most common, are grey.
_CLASS_COLORS = dict(
    zip(UNIT_CLASSES, ("0.35", "C4", "C5", "C7", "C8", "C0", "C3", "C1"), strict=False)
)
_LINE_STYLES = ("-", "--", ":", "-.")
_REST_COLORS = {"unexplained": "0.75", "lack of data": "0.92"}


class BoundaryDisplay:
    """Activation boundaries of a network of two inputs, coloured by class of unit.

    On its boundary a hidden unit's pre-activation is at a kink of its activation, or at zero for
    activations without a kink. Boundaries are lines for the first layer and piecewise curves for
    later ones. They cut the plane into regions, which are tinted; for piecewise linear activations
    the network is affine on each region. Use :meth:`from_estimator` for a fitted estimator.

    Parameters
    ----------
    model : torch.nn.Module
        A chain of linear layers and activations with two inputs.
    labels : sequence of str, default=None
        Class of each hidden unit with an activation, in the order of the layers; by default
        "generic" for all.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the boundaries.
    figure_ : matplotlib Figure
        Figure that contains them.
    lines_ : dict of int to matplotlib contour set
        Boundaries by number of the unit, counted over all layers. Units without a boundary in view
        are omitted.
    n_regions_ : int or None
        Number of activation patterns on the grid of points in view; None if some units have no
        kink.

    See Also
    --------
    skgeo.symmetry.classify_units : The classes of units.
    skgeo.symmetry.SymmetryClassifier : The estimator that it draws.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.symmetry import BoundaryDisplay
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = net[0].weight.data.copy_(torch.eye(2))
    >>> display = BoundaryDisplay(model=net).plot()
    >>> display.n_regions_
    4
    """

    ax_: Any
    figure_: Any
    lines_: dict[int, Any]
    n_regions_: int | None

    def __init__(self, *, model: Any, labels: Sequence[str] | None = None) -> None:
        stack = read_stack(model)
        hidden = [
            width
            for width, activation in zip(stack.widths[1:-1], stack.activations, strict=True)
            if not activation.is_identity
        ]
        if stack.widths[0] != 2:
            raise SkgeoError(
                f"The network has {stack.widths[0]} inputs; expected 2, since boundaries are drawn "
                "in the plane."
            )
        if labels is None:
            labels = ["generic"] * sum(hidden)
        if len(labels) != sum(hidden):
            raise SkgeoError(
                f"Got {len(labels)} labels for hidden layers of {hidden} units; expected one label "
                "per unit."
            )
        self.model = model
        self.labels = [str(label) for label in labels]
        self._stack = stack

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        ax: Any = None,
        extent: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> BoundaryDisplay:
        """Display of a fitted estimator.

        Parameters
        ----------
        estimator : SymmetryClassifier
            Fitted estimator, bound to a model of two inputs.
        X : array of shape (N, 2), default=None
            Points to draw.
        ax : matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.
        extent : (x_min, x_max, y_min, y_max), default=None
            Limits of the view; by default those of X, or of most boundaries of the first layer.
        **kwargs
            Options of the boundaries, such as ``linewidths``.

        Returns
        -------
        BoundaryDisplay
            The display, already drawn.
        """
        check_drawn(cls.__name__, estimator, "SymmetryClassifier")
        display = cls(model=estimator.model_, labels=estimator.labels_)
        return display.plot(X, ax=ax, extent=extent, **kwargs)

    def plot(
        self,
        X: Any = None,
        *,
        ax: Any = None,
        extent: Sequence[float] | None = None,
        resolution: int = 400,
        **kwargs: Any,
    ) -> BoundaryDisplay:
        """Draw the boundaries.

        Parameters
        ----------
        X : array of shape (N, 2), default=None
            Points to draw.
        ax : matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.
        extent : (x_min, x_max, y_min, y_max), default=None
            Limits of the view; by default those of X, or of most boundaries of the first layer.
        resolution : int, default=400
            Number of grid points along each axis. Boundaries are interpolated between them.
        **kwargs
            Options of the boundaries, such as ``linewidths``.

        Returns
        -------
        BoundaryDisplay
            The display itself.
        """
        ax = axes_for("BoundaryDisplay", ax, (5.4, 4.6))
        points = None if X is None else np.asarray(X, dtype=np.float64)
        view = _view(self._stack, points) if extent is None else tuple(map(float, extent))
        across = np.linspace(view[0], view[1], resolution)
        up = np.linspace(view[2], view[3], resolution)
        grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
        *layers, _ = self._stack.arguments(torch.from_numpy(grid))
        bent = all(act.kinks or act.is_identity for act in self._stack.activations)
        self.n_regions_ = self._regions(ax, layers, view, resolution) if bent else None
        self.lines_ = {}
        unit = 0
        for depth, values in enumerate(layers):
            if self._stack.activations[depth].is_identity:
                continue
            for z in values.T:
                self._boundary(ax, unit, depth, (across, up), z.numpy(), kwargs)
                unit += 1
        if points is not None:
            ax.scatter(points[:, 0], points[:, 1], s=6, color="0.2", alpha=0.5, lw=0, zorder=3)
        regions = "" if self.n_regions_ is None else f", {self.n_regions_} activation regions"
        ax.set(
            xlim=view[:2],
            ylim=view[2:],
            xlabel="$x_1$",
            ylabel="$x_2$",
            title=f"{len(self.lines_)} activation boundaries{regions}",
        )
        self._legend(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _boundary(
        self,
        ax: Any,
        unit: int,
        depth: int,
        axes: tuple[np.ndarray, np.ndarray],
        z: np.ndarray,
        kwargs: Mapping[str, Any],
    ) -> None:
        places = self._stack.activations[depth].kinks or (0.0,)
        levels = [place for place in places if z.min() < place < z.max()]
        if not levels:
            return  # no boundary in view
        label = self.labels[unit]
        style = {
            "colors": _CLASS_COLORS.get(label, "C9"),
            "linewidths": 1.0 if label == "generic" else 1.8,
            "linestyles": _LINE_STYLES[depth % len(_LINE_STYLES)],
            **kwargs,
        }
        field = z.reshape(len(axes[1]), len(axes[0]))
        self.lines_[unit] = ax.contour(*axes, field, levels=levels, **style)

    def _regions(
        self, ax: Any, layers: Sequence[Tensor], view: Sequence[float], resolution: int
    ) -> int:
        """Tint the regions of constant activation pattern, and count them."""
        bent = [
            values > kink
            for values, activation in zip(layers, self._stack.activations, strict=True)
            for kink in activation.kinks
        ]
        if not bent:
            return 1
        pattern = np.packbits(torch.cat(bent, dim=1).numpy(), axis=1)
        _, region = np.unique(pattern, axis=0, return_inverse=True)
        region = region.reshape(resolution, resolution)
        # Random tints, different for neighbouring regions with high probability.
        tints = np.random.default_rng(0).uniform(0.86, 1.0, size=(region.max() + 1, 3))
        ax.imshow(tints[region], extent=view, origin="lower", aspect="auto", zorder=0)
        return len(tints)

    def _legend(self, ax: Any) -> None:
        from matplotlib.lines import Line2D

        drawn = [self.labels[unit] for unit in self.lines_]
        names = [*UNIT_CLASSES, *dict.fromkeys(name for name in drawn if name not in UNIT_CLASSES)]
        entries = [
            (
                Line2D([], [], color=_CLASS_COLORS.get(name, "C9"), lw=1.8),
                f"{name} ({drawn.count(name)})",
            )
            for name in names
            if name in drawn
        ]
        depths = [i for i, act in enumerate(self._stack.activations) if not act.is_identity]
        if len(depths) > 1:
            entries += [
                (
                    Line2D([], [], color="0.35", ls=_LINE_STYLES[depth % len(_LINE_STYLES)]),
                    f"layer {self._stack.names[depth]}",
                )
                for depth in depths
            ]
        if entries:
            handles, texts = zip(*entries, strict=True)
            ax.legend(handles, texts, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))


class NullityDisplay:
    """Dimension of the Fisher null space as a bar, by symmetry, with the rest in grey.

    The rest is unexplained, or lighter where the samples limit the rank, so that more of them may
    see these directions.

    Use :meth:`from_estimator` for a fitted estimator. Several networks, each with a ``label``, can
    share the axes.

    Parameters
    ----------
    dimensions : mapping of str to int
        Dimension that each symmetry adds to the span of those before it.
    unexplained : float
        Number of unexplained flat directions; NaN if the Fisher rank was not computed.
    sample_limited : float, default=0
        Number of directions that may be flat only for lack of data.
    n_parameters : int, default=None
        Number of parameters, shown below the bar.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the bars.
    figure_ : matplotlib Figure
        Figure that contains them.
    bars_ : dict of str to matplotlib bar container
        Bars by symmetry; the grey ones are ``"unexplained"`` and ``"lack of data"``.

    See Also
    --------
    skgeo.symmetry.nullity_account : The numbers that it draws.
    skgeo.symmetry.SymmetryClassifier : The estimator that it draws.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from skgeo.symmetry import NullityDisplay
    >>> display = NullityDisplay(dimensions={"scaling": 4, "duplicate": 3}, unexplained=1).plot()
    >>> {name: int(bar[0].get_width()) for name, bar in display.bars_.items()}
    {'scaling': 4, 'duplicate': 3, 'unexplained': 1}
    """

    ax_: Any
    figure_: Any
    bars_: dict[str, Any]

    def __init__(
        self,
        *,
        dimensions: Mapping[str, int],
        unexplained: float,
        sample_limited: float = 0,
        n_parameters: int | None = None,
    ) -> None:
        self.dimensions = {name: count for name, count in dimensions.items() if count}
        self.unexplained = unexplained
        self.sample_limited = sample_limited
        self.n_parameters = n_parameters

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Any = None, label: str | None = None, **kwargs: Any
    ) -> NullityDisplay:
        """Display of a fitted estimator.

        Parameters
        ----------
        estimator : SymmetryClassifier
            Fitted estimator, bound to a model.
        ax : matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.
        label : str, default=None
            Name of the network, shown next to its bar.
        **kwargs
            Options of the bars, such as ``height``.

        Returns
        -------
        NullityDisplay
            The display, already drawn.
        """
        check_drawn(cls.__name__, estimator, "SymmetryClassifier")
        found = estimator.generators_
        if found is None:
            raise SkgeoError(
                "The estimator has no generators, since the network has too many parameters to "
                "check them. Fit a smaller network."
            )
        display = cls(
            dimensions=found.dimensions,
            unexplained=estimator.unexplained_nullity_,
            sample_limited=estimator.sample_limited_nullity_,
            n_parameters=found.n_parameters,
        )
        return display.plot(ax=ax, label=label, **kwargs)

    def plot(self, *, ax: Any = None, label: str | None = None, **kwargs: Any) -> NullityDisplay:
        """Draw the bar, below those that are already on the axes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.
        label : str, default=None
            Name of the network, shown next to its bar.
        **kwargs
            Options of the bars, such as ``height``.

        Returns
        -------
        NullityDisplay
            The display itself.
        """
        ax = axes_for("NullityDisplay", ax, (7.0, 2.0))
        row = sum(1 for _ in _rows(ax))
        style = {"height": 0.6, "edgecolor": "white", **kwargs}
        self.bars_ = {}
        start = 0.0
        rests = {"unexplained": self.unexplained, "lack of data": self.sample_limited}
        parts = [*self.dimensions.items(), *((k, v) for k, v in rests.items() if v > 0)]
        for name, count in parts:
            color = {"color": _REST_COLORS.get(name) or _symmetry_color(name)}
            bar = ax.barh([row], [count], left=start, label=name, **(color | style))
            ax.bar_label(bar, [f"{count:.0f}"], label_type="center", fontsize="small")
            self.bars_[name] = bar
            start += count
        explained = sum(self.dimensions.values())
        rest = "rank not taken" if np.isnan(self.unexplained) else f"{self.unexplained:.0f} not"
        if self.sample_limited > 0:
            rest += f", {self.sample_limited:.0f} for lack of data"
        of = "" if self.n_parameters is None else f" of {self.n_parameters} parameters"
        text = f"{explained} flat directions{of} explained, {rest}"
        # The next display on these axes finds its row by this id.
        ax.text(0, row + 0.42, text, fontsize="small", va="top", gid="skgeo-nullity")
        names = [*(tick.get_text() for tick in ax.get_yticklabels()), label or ""][-row - 1 :]
        ax.set_yticks(range(row + 1), names)
        ax.set(xlabel="dimension of the Fisher null space", ylim=(row + 0.9, -0.6))
        _unique_legend(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _rows(ax: Any) -> list[Any]:
    return [text for text in ax.texts if text.get_gid() == "skgeo-nullity"]


def _symmetry_color(name: str) -> Any:
    from matplotlib import colormaps

    # Saturated colours first, without grey, which is for the unexplained part.
    order = [i for i in (*range(0, 20, 2), *range(1, 20, 2)) if i not in (14, 15)]
    colors = [*(colormaps["tab20"](i) for i in order), *(colormaps["tab20b"](i) for i in (0, 8))]
    known = SYMMETRIES.index(name) if name in SYMMETRIES else -1
    return colors[known % len(colors)]


def _unique_legend(ax: Any) -> None:
    handles, names = ax.get_legend_handles_labels()
    entries = dict(zip(names, handles, strict=True))
    if entries:
        ax.legend(
            entries.values(),
            entries.keys(),
            fontsize="small",
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
        )


def _view(stack: Stack, points: np.ndarray | None) -> tuple[float, float, float, float]:
    """Limits that contain the points, or most boundaries of the first layer."""
    if points is not None:
        low, high = points.min(axis=0), points.max(axis=0)
        margin = 0.1 * np.maximum(high - low, 1e-9)
        low, high = low - margin, high + margin
        return float(low[0]), float(high[0]), float(low[1]), float(high[1])
    weight, bias = stack.weights[0], stack.biases[0]
    norm = weight.norm(dim=1)
    there = norm > 0
    if bias is None or not bool(there.any()):
        size = 2.0
    else:
        far = (bias.abs()[there] / norm[there]).quantile(0.8)
        size = 1.5 * float(far) + 1.0
    return -size, size, -size, size
