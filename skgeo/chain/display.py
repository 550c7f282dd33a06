"""Plot of volumes, lengths and directions under a chain of layers, against depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from skgeo._axes import axes_for, check_drawn

__all__ = ["ProfileDisplay"]

# Number of bins of a density, and its width next to the layer.
_BINS = 24
_WIDTH = 0.42


class ProfileDisplay:
    """Quantities of a chain against depth, and the density of singular values at each layer.

    Left, the log-volume; middle, the largest and smallest singular values with the density of all
    of them at each layer, over samples, on a logarithmic axis; right, the isometry deviation. Bands
    are two standard errors of the mean on either side. Create it with :meth:`from_estimator`. To
    compare networks, draw several displays on the same axes, each with a ``label``.

    Parameters
    ----------
    profile : DataFrame
        As ``JacobianChainProfiler.profile_``: one row per layer, with the columns ``layer``,
        ``log_volume``, ``sigma_max``, ``sigma_min`` and ``isometry_deviation``, each quantity with
        its ``_se``.
    singular_values : dict of str to ndarray of shape (n_samples, k), default=None
        As ``JacobianChainProfiler.singular_values_``; without it no densities are drawn.

    Attributes
    ----------
    axes_ : tuple of three matplotlib Axes
        Log-volume, singular values, isometry deviation.
    figure_ : matplotlib Figure
    lines_ : dict of str to matplotlib Line2D
        Keyed by column. A column that is zero or NaN everywhere has none on a logarithmic axis.
    densities_ : dict of str to matplotlib artist
        Keyed by layer.

    See Also
    --------
    skgeo.JacobianChainProfiler : Estimator whose results are drawn.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.chain import ProfileDisplay
    >>> from skgeo.chain import JacobianChainProfiler
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    >>> profiler = JacobianChainProfiler(net).fit(torch.randn(30, 4))
    >>> display = ProfileDisplay.from_estimator(profiler)
    >>> [text.get_text() for text in display.axes_[0].get_xticklabels()]
    ['0', '1', '2']
    """

    axes_: tuple[Any, Any, Any]
    figure_: Any
    lines_: dict[str, Any]
    densities_: dict[str, Any]

    def __init__(
        self, *, profile: pd.DataFrame, singular_values: Mapping[str, np.ndarray] | None = None
    ) -> None:
        quantities = ("log_volume", "sigma_max", "sigma_min", "isometry_deviation")
        columns = ["layer", *(name + end for name in quantities for end in ("", "_se"))]
        missing = [name for name in columns if name not in profile]
        if missing or not len(profile):
            raise ValueError(
                f"profile has columns {list(profile)} and {len(profile)} rows; expected one row "
                f"per layer and the columns {', '.join(columns)}."
            )
        self.profile = profile
        self.singular_values = {} if singular_values is None else dict(singular_values)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        ax: Sequence[Any] | None = None,
        label: str | None = None,
        **kwargs: Any,
    ) -> ProfileDisplay:
        """Draw a fitted estimator.

        Parameters
        ----------
        estimator : JacobianChainProfiler
            Fitted, bound to a model.
        ax : sequence of three matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.
        label : str, default=None
            Name in the legend.
        **kwargs
            Passed to the lines, such as ``color``.

        Returns
        -------
        ProfileDisplay
            The display, drawn.
        """
        check_drawn(cls.__name__, estimator, "JacobianChainProfiler")
        display = cls(profile=estimator.profile_, singular_values=estimator.singular_values_)
        return display.plot(ax=ax, label=label, **kwargs)

    def plot(
        self, *, ax: Sequence[Any] | None = None, label: str | None = None, **kwargs: Any
    ) -> ProfileDisplay:
        """Draw on three axes.

        Parameters
        ----------
        ax : sequence of three matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.
        label : str, default=None
            Name in the legend.
        **kwargs
            Passed to the lines, such as ``color``.

        Returns
        -------
        self : ProfileDisplay
            The display.
        """
        volume, stretch, deviation = axes_for("ProfileDisplay", ax, (12.0, 3.6), 3)
        self.lines_ = {}
        self.densities_ = {}
        prefix = f"{label}: " if label else ""
        line = self._line(volume, "log_volume", {"marker": "o", "label": label, **kwargs}, False)
        style = dict(kwargs) | {"color": line.get_color()}
        self._line(
            stretch, "sigma_max", {"marker": "o", **style, "label": f"{prefix}largest"}, True
        )
        self._line(
            stretch,
            "sigma_min",
            {"marker": "s", "ls": "--", **style, "label": f"{prefix}smallest"},
            True,
        )
        for place, layer in enumerate(self.profile["layer"]):
            self._density(stretch, place, layer, line.get_color())
        positive = self.profile["isometry_deviation"]
        positive = positive[positive > 0]
        wide = len(positive) > 0 and positive.max() > 50 * positive.min()
        self._line(deviation, "isometry_deviation", {"marker": "o", **style, "label": label}, wide)
        volume.set(ylabel="log-volume (nats)", title="Volume")
        stretch.set(ylabel="singular value", title="Stretches")
        deviation.set(ylabel="isometry deviation", title="Distance from an isometry")
        names = list(self.profile["layer"])
        crowded = max(map(len, names)) > 3 or len(names) > 12
        turned = {"rotation": 45, "ha": "right"} if crowded else {}
        for axis in (volume, stretch, deviation):
            axis.set_xticks(np.arange(len(names)), names, **turned)
            axis.set_xlabel("layer")
            if axis.get_legend_handles_labels()[1]:
                axis.legend(fontsize="small")
        self.axes_ = (volume, stretch, deviation)
        self.figure_ = volume.figure
        return self

    def _line(self, axis: Any, name: str, style: dict[str, Any], logarithmic: bool) -> Any:
        """Draw one quantity with its band; None if nothing can be drawn on a logarithmic axis."""
        values = self.profile[name].to_numpy(dtype=np.float64)
        error = np.nan_to_num(self.profile[f"{name}_se"].to_numpy(dtype=np.float64))
        low, high = values - 2 * error, values + 2 * error
        if logarithmic:
            values = np.where(values > 0, values, np.nan)
            # The lower edge may be below zero: the band then ends at a tenth of the mean.
            low = np.maximum(low, values / 10)
            if np.isfinite(values).any():
                axis.set_yscale("log")
        if not np.isfinite(values).any() and logarithmic:
            return None
        depth = np.arange(len(values))
        (line,) = axis.plot(depth, values, **style)
        axis.fill_between(depth, low, high, color=line.get_color(), alpha=0.2, lw=0)
        self.lines_[name] = line
        return line

    def _density(self, axis: Any, place: int, layer: str, color: Any) -> None:
        """Draw the density of the logarithms of a layer's singular values, to its right."""
        values = np.asarray(self.singular_values.get(layer, ()), dtype=np.float64).ravel()
        values = values[np.isfinite(values) & (values > 0)]
        if len(values) < 2:
            return
        logs = np.log10(values)
        low, high = logs.min(), logs.max()
        if high - low < 1e-3:  # a single repeated value is drawn as wide as a line
            low, high = low - 5e-4, high + 5e-4
        counts, edges = np.histogram(logs, bins=_BINS, range=(low, high))
        outline = 10.0 ** np.repeat(edges, 2)
        widths = np.concatenate([[0], np.repeat(counts / counts.max(), 2), [0]])
        self.densities_[layer] = axis.fill_betweenx(
            outline, place, place + _WIDTH * widths, color=color, alpha=0.35, lw=0
        )
