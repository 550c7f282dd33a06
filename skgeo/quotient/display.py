"""Plot of ranks, nullities and effective ranks over the layers of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from skgeo._axes import axes_for, check_drawn

__all__ = ["RankProfileDisplay"]

_COLUMNS = (
    "layer",
    "dim",
    "rank_min",
    "rank_median",
    "rank_max",
    "common_rank",
    "effective_rank",
)


class RankProfileDisplay:
    """Ranks of the Fisher metric at each layer, and the share of directions in its null space.

    Left, the pointwise ranks as a band from the smallest to the largest with their median, the
    common rank and the effective rank of the mean metric. Right, the nullities as shares of the
    layer's dimension: pointwise as a band, common as a line. Create it with
    :meth:`from_estimator`. To compare networks, draw several displays on the same pair of axes,
    each with a ``label``.

    Parameters
    ----------
    layers : DataFrame
        As ``LayerQuotientEstimator.layers_``: one row per layer, with the columns ``layer``,
        ``dim``, ``rank_min``, ``rank_median``, ``rank_max``, ``common_rank`` and
        ``effective_rank``.

    Attributes
    ----------
    axes_ : tuple of two matplotlib Axes
        Ranks and nullities.
    figure_ : matplotlib Figure
    lines_ : list of matplotlib artists
        Band, median, common rank and effective rank on the left; band, median and common
        nullity on the right.

    See Also
    --------
    skgeo.LayerQuotientEstimator : Estimator whose results are drawn.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.quotient import RankProfileDisplay
    >>> from skgeo.quotient import LayerQuotientEstimator
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    >>> quotient = LayerQuotientEstimator(net, likelihood="categorical").fit(torch.randn(30, 4))
    >>> display = RankProfileDisplay.from_estimator(quotient)
    >>> [text.get_text() for text in display.axes_[0].get_xticklabels()]
    ['0', '1', '2']
    """

    axes_: tuple[Any, Any]
    figure_: Any
    lines_: list[Any]

    def __init__(self, *, layers: pd.DataFrame) -> None:
        missing = [name for name in _COLUMNS if name not in layers]
        if missing or not len(layers):
            raise ValueError(
                f"layers has columns {list(layers)} and {len(layers)} rows; expected one row "
                f"per layer and the columns {', '.join(_COLUMNS)}."
            )
        self.layers = layers

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        ax: Sequence[Any] | None = None,
        label: str | None = None,
        **kwargs: Any,
    ) -> RankProfileDisplay:
        """Draw a fitted estimator.

        Parameters
        ----------
        estimator : LayerQuotientEstimator
            Fitted, bound to a model.
        ax : pair of matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.
        label : str, default=None
            Name in the legend.
        **kwargs
            Passed to the lines, such as ``color``.

        Returns
        -------
        RankProfileDisplay
            The display, drawn.
        """
        check_drawn(cls.__name__, estimator, "LayerQuotientEstimator")
        return cls(layers=estimator.layers_).plot(ax=ax, label=label, **kwargs)

    def plot(
        self, *, ax: Sequence[Any] | None = None, label: str | None = None, **kwargs: Any
    ) -> RankProfileDisplay:
        """Draw on a pair of axes.

        Parameters
        ----------
        ax : pair of matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.
        label : str, default=None
            Name in the legend.
        **kwargs
            Passed to the lines, such as ``color``.

        Returns
        -------
        self : RankProfileDisplay
            The display.
        """
        ranks, nullities = axes_for("RankProfileDisplay", ax, (9.0, 3.6), 2)
        table = self.layers
        depth = np.arange(len(table))
        dim = table["dim"].to_numpy(dtype=np.float64)
        prefix = f"{label}: " if label else ""
        low, median, high, common = (
            table[name].to_numpy(dtype=np.float64)
            for name in ("rank_min", "rank_median", "rank_max", "common_rank")
        )
        (middle,) = ranks.plot(depth, median, marker="o", label=f"{prefix}pointwise", **kwargs)
        style = dict(kwargs) | {"color": middle.get_color()}
        band = ranks.fill_between(depth, low, high, color=middle.get_color(), alpha=0.2, lw=0)
        (whole,) = ranks.plot(
            depth, common, **{"marker": "s", "ls": "--", **style}, label=f"{prefix}common"
        )
        (effective,) = ranks.plot(
            depth,
            table["effective_rank"],
            **{"marker": "x", "ls": ":", **style},
            label=f"{prefix}effective",
        )
        ranks.set(ylabel="rank", yscale="log", title="Ranks of the Fisher metric")

        (unseen,) = nullities.plot(
            depth, 1 - median / dim, marker="o", label=f"{prefix}pointwise", **style
        )
        shade = nullities.fill_between(
            depth, 1 - high / dim, 1 - low / dim, color=middle.get_color(), alpha=0.2, lw=0
        )
        (never,) = nullities.plot(
            depth, 1 - common / dim, **{"marker": "s", "ls": "--", **style}, label=f"{prefix}common"
        )
        nullities.set(ylabel="nullity / dimension", ylim=(-0.05, 1.05), title="Not seen")
        turned = {"rotation": 45, "ha": "right"} if max(map(len, table["layer"])) > 3 else {}
        for axis in (ranks, nullities):
            axis.set_xticks(depth, table["layer"], **turned)
            axis.set_xlabel("layer")
            axis.legend(fontsize="small")
        self.axes_ = (ranks, nullities)
        self.figure_ = ranks.figure
        self.lines_ = [band, middle, whole, effective, shade, unseen, never]
        return self
