"""Plots of a Fisher spectrum, and of the rank against the tolerance and the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from skgeo._axes import axes_for, check_drawn
from skgeo.exceptions import SkgeoError
from skgeo.fisher._rank_curve import RankCurve, rank_curve

__all__ = ["RankCurveDisplay", "SpectrumDisplay"]


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
        ``lambda_r / lambda_{r+1}``; NaN if the samples limit the rank.
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
        if not len(estimator.eigenvalues_):
            raise SkgeoError(
                "There is nothing to draw: solver='stochastic' computes no eigenvalues. Fit with "
                "solver='lanczos' for the leading ones."
            )
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
        if np.isnan(self.threshold):
            return self._draw_leading(spectrum, path, label, **kwargs)
        above = self.eigenvalues > self.threshold
        # Rounding errors are shown, but not where they would take up most of the axis.
        below = (self.eigenvalues > 1e-6 * self.threshold) & ~above
        marker = "." if len(index) <= 60 else None
        summary = f"rank {self.rank} of {len(index)}, {_evidence(self.gap)}"
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

    def _draw_leading(
        self, spectrum: Any, path: Any, label: str | None, **kwargs: Any
    ) -> SpectrumDisplay:
        """Draw leading eigenvalues, from which no rank is known."""
        count = len(self.eigenvalues)
        said = f"{count} leading eigenvalues"
        (line,) = spectrum.plot(
            np.arange(1, count + 1),
            self.eigenvalues,
            marker="." if count <= 60 else None,
            label=f"{label}: {said}" if label else said,
            **kwargs,
        )
        spectrum.set(yscale="log", xlabel="index", ylabel="eigenvalue", title="Fisher spectrum")
        spectrum.legend(fontsize="small")
        path.text(0.5, 0.5, "the rank is not known", ha="center", transform=path.transAxes)
        path.set_axis_off()
        self.axes_ = (spectrum, path)
        self.figure_ = spectrum.figure
        self.lines_ = [line]
        return self


class RankCurveDisplay:
    """Plot of the Fisher rank against the number of samples.

    The rank of N samples is at most the number of their rows, a dashed line, and at most the number
    of parameters P, a dotted one. It is that of the network where the curve is level below both.
    Create it with :meth:`from_curve` or :meth:`from_estimator`. To compare networks, draw several
    displays on the same axes, each with a ``label``.

    Parameters
    ----------
    curve : RankCurve
        The curve to draw.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curve.
    figure_ : matplotlib Figure
        Figure that contains them.
    lines_ : list of matplotlib artists
        The curve, the number of rows, and the number of parameters.

    See Also
    --------
    skgeo.fisher.rank_curve : The curve that it draws.
    skgeo.fisher.SpectrumDisplay : Plot of the spectrum and of the rank against the tolerance.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import torch
    >>> from skgeo.fisher import RankCurveDisplay, rank_curve
    >>> X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    >>> curve = rank_curve(torch.nn.Linear(4, 3), X, likelihood="categorical")
    >>> display = RankCurveDisplay.from_curve(curve)
    >>> display.ax_.get_xlabel()
    'number of samples'
    """

    ax_: Any
    figure_: Any
    lines_: list[Any]

    def __init__(self, *, curve: RankCurve) -> None:
        if not isinstance(curve, RankCurve):
            raise SkgeoError(
                f"Got a {type(curve).__name__}; expected the RankCurve that "
                "skgeo.fisher.rank_curve(model, X) returns."
            )
        self.curve = curve

    @classmethod
    def from_curve(
        cls, curve: RankCurve, *, ax: Any = None, label: str | None = None, **kwargs: Any
    ) -> RankCurveDisplay:
        """Draw a curve.

        Parameters
        ----------
        curve : RankCurve
            As :func:`~skgeo.fisher.rank_curve` returns it.
        ax : matplotlib Axes, default=None
            Axes to draw on; None for a new figure.
        label : str, default=None
            Name in the legend.
        **kwargs
            Passed to the line, such as ``color``.

        Returns
        -------
        RankCurveDisplay
        """
        return cls(curve=curve).plot(ax=ax, label=label, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        sizes: Sequence[int] | None = None,
        random_state: int = 0,
        ax: Any = None,
        label: str | None = None,
        **kwargs: Any,
    ) -> RankCurveDisplay:
        """Measure and draw the curve of the model of a fitted estimator.

        Parameters
        ----------
        estimator : FisherRankEstimator
            Fitted and bound to a model. Its likelihood, parameters, solver and tolerance are used.
        X : array, Tensor, DataFrame, dict, Dataset or DataLoader
            Samples, as ``fit`` takes them.
        sizes, random_state
            As in :func:`~skgeo.fisher.rank_curve`.
        ax : matplotlib Axes, default=None
            Axes to draw on; None for a new figure.
        label : str, default=None
            Name in the legend.
        **kwargs
            Passed to the line, such as ``color``.

        Returns
        -------
        RankCurveDisplay
        """
        estimator._check_measured()
        names = ("parameters", "solver", "tol", "batch_size", "device", "memory_budget")
        curve = rank_curve(
            estimator.model_,
            X,
            sizes=sizes,
            random_state=random_state,
            likelihood=estimator._likelihood,
            **{name: getattr(estimator, name) for name in names},
        )
        return cls.from_curve(curve, ax=ax, label=label, **kwargs)

    def plot(self, *, ax: Any = None, label: str | None = None, **kwargs: Any) -> RankCurveDisplay:
        """Draw on axes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None for a new figure.
        label : str, default=None
            Name in the legend.
        **kwargs
            Passed to the line, such as ``color``.

        Returns
        -------
        self
        """
        ax = axes_for("RankCurveDisplay", ax, (5.4, 3.8))
        curve, p = self.curve, self.curve.n_parameters
        found = f"rank {curve.ranks[-1]} of {p}, {'' if curve.levelled else 'not '}levelled"
        style = {"marker": "o", "markersize": 4, **kwargs}
        (line,) = ax.plot(
            curve.n_samples, curve.ranks, label=f"{label}: {found}" if label else found, **style
        )
        color = line.get_color()
        each = curve.n_rows[0] / curve.n_samples[0]
        corner = min(curve.n_samples[-1], p / each)  # where the rows are as many as the parameters
        (rows,) = ax.plot(
            [0, corner],
            [0, each * corner],
            color=color,
            linestyle="--",
            linewidth=0.9,
            alpha=0.6,
            label=None if label else "number of rows",
        )
        parameters = ax.axhline(
            p,
            color=color,
            linestyle=":",
            linewidth=0.9,
            label=None if label else "number of parameters",
        )
        ax.set(
            xlabel="number of samples",
            ylabel="Fisher rank",
            title="Fisher rank against number of samples",
        )
        ax.legend(fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        self.lines_ = [line, rows, parameters]
        return self


def _evidence(gap: float) -> str:
    if np.isnan(gap):
        return "limited by the samples"
    return "gap ∞" if np.isinf(gap) else f"gap {gap:.2g}"
