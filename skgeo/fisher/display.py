"""Plot of a Fisher spectrum and of the rank at each tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from skgeo._axes import axes_for, check_drawn
from skgeo.exceptions import SkgeoError

__all__ = ["SpectrumDisplay"]


class SpectrumDisplay:
    """Plot of the eigenvalues of a Fisher information matrix, next to rank against tolerance.

    Create it with :meth:`from_estimator`. To compare networks, draw several displays on the same
    pair of axes, each with a ``label``.

    Parameters
    ----------
    eigenvalues : ndarray of shape (n,)
        Eigenvalues, descending.
    rank : int
        Number of eigenvalues above the threshold.
    threshold : float
        Absolute threshold of the rank.
    gap : float
        ``lambda_r / lambda_{r+1}``.
    rank_path : DataFrame with columns ``tol`` and ``rank``
        Rank against relative tolerance.

    Attributes
    ----------
    axes_ : tuple of two matplotlib Axes
        Axes of the spectrum and of the rank against tolerance.
    figure_ : matplotlib Figure
    lines_ : list of matplotlib artists
        All lines and markers drawn.

    See Also
    --------
    skgeo.fisher.FisherRankEstimator : The estimator whose spectrum is drawn.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import torch
    >>> from skgeo import FisherRankEstimator
    >>> from skgeo.fisher import SpectrumDisplay
    >>> X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    >>> fisher = FisherRankEstimator(torch.nn.Linear(4, 3), likelihood="categorical").fit(X)
    >>> display = SpectrumDisplay.from_estimator(fisher)
    >>> display.axes_[0].get_yscale()
    'log'
    """

    axes_: tuple[Any, Any]
    figure_: Any
    lines_: list[Any]

    def __init__(
        self,
        *,
        eigenvalues: np.ndarray,
        rank: int,
        threshold: float,
        gap: float,
        rank_path: pd.DataFrame,
    ) -> None:
        self.eigenvalues = eigenvalues
        self.rank = rank
        self.threshold = threshold
        self.gap = gap
        self.rank_path = rank_path

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        ax: Sequence[Any] | None = None,
        label: str | None = None,
        **kwargs: Any,
    ) -> SpectrumDisplay:
        """Draw a fitted estimator.

        Parameters
        ----------
        estimator : FisherRankEstimator
            Fitted and bound to a model.
        ax : pair of matplotlib Axes, default=None
            Axes to draw on; None for a new figure.
        label : str, default=None
            Name in the legend.
        **kwargs
            Passed to the lines, such as ``color``.

        Returns
        -------
        SpectrumDisplay
        """
        check_drawn(cls.__name__, estimator, "FisherRankEstimator")
        display = cls(
            eigenvalues=estimator.eigenvalues_,
            rank=estimator.fisher_rank_,
            threshold=estimator.rank_threshold_,
            gap=estimator.spectral_gap_,
            rank_path=estimator.rank_path_,
        )
        return display.plot(ax=ax, label=label, **kwargs)

    def plot(
        self, *, ax: Sequence[Any] | None = None, label: str | None = None, **kwargs: Any
    ) -> SpectrumDisplay:
        """Draw on a pair of axes.

        Parameters
        ----------
        ax : pair of matplotlib Axes, default=None
            Axes to draw on; None for a new figure.
        label : str, default=None
            Name in the legend.
        **kwargs
            Passed to the lines, such as ``color``.

        Returns
        -------
        self
        """
        spectrum, path = axes_for("SpectrumDisplay", ax, (9.0, 3.6), 2)
        if not self.eigenvalues[0] > 0:
            raise SkgeoError("The Fisher metric is identically zero: there is nothing to draw.")
        index = np.arange(1, len(self.eigenvalues) + 1)
        above = self.eigenvalues > self.threshold
        # Rounding errors are shown, but not where they would take up most of the axis.
        below = (self.eigenvalues > 1e-6 * self.threshold) & ~above
        marker = "." if len(index) <= 60 else None
        gap = "∞" if np.isinf(self.gap) else f"{self.gap:.2g}"
        summary = f"rank {self.rank} of {len(index)}, gap {gap}"
        (line,) = spectrum.plot(
            index[above],
            self.eigenvalues[above],
            marker=marker,
            label=f"{label}: {summary}" if label else summary,
            **kwargs,
        )
        color = line.get_color()
        (rest,) = spectrum.plot(
            index[below], self.eigenvalues[below], marker=marker, color=color, alpha=0.3
        )
        tolerance = spectrum.axhline(
            self.threshold,
            color=color,
            linestyle="--",
            linewidth=0.9,
            label=None if label else "tolerance",
        )
        mark = spectrum.axvline(self.rank + 0.5, color=color, linestyle=":", linewidth=0.9)
        spectrum.set(yscale="log", xlabel="index", ylabel="eigenvalue", title="Fisher spectrum")
        spectrum.legend(fontsize="small")
        (steps,) = path.step(
            self.rank_path["tol"], self.rank_path["rank"], where="post", color=color, label=label
        )
        chosen = path.axvline(
            self.threshold / self.eigenvalues[0], color=color, linestyle="--", linewidth=0.9
        )
        path.set(
            xscale="log",
            xlabel="tolerance relative to the largest eigenvalue",
            ylabel="rank",
            title="Rank against tolerance",
        )
        self.axes_ = (spectrum, path)
        self.figure_ = spectrum.figure
        self.lines_ = [line, rest, tolerance, mark, steps, chosen]
        return self
