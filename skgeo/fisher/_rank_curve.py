"""The Fisher rank against the number of samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from skgeo._arguments import check_integer, check_option
from skgeo._results import Result
from skgeo.data import Samples
from skgeo.exceptions import SkgeoError, collect_warnings, warn
from skgeo.fisher._plan import FisherPlan, plan_fisher
from skgeo.fisher._rows import FisherRows
from skgeo.fisher._sides import fisher_metric
from skgeo.jacobian._rules.symmetric import mirror
from skgeo.likelihood import Likelihood
from skgeo.linalg._rank import NumericalRank, decide_rank
from skgeo.linalg._spectra import eigenvalues_descending
from skgeo.linalg._threads import single_blas_thread
from skgeo.models import resolve_model
from skgeo.network._batch import pick
from skgeo.network._bound import BoundNetwork
from skgeo.network._finite import check_metric


@dataclass(frozen=True, eq=False, repr=False)
class RankCurve(Result):
    """The Fisher rank of nested sets of samples.

    Attributes
    ----------
    n_samples : ndarray of int of shape (n_sizes,)
        Numbers of samples, ascending. Each set is contained in the next.
    ranks : ndarray of int of shape (n_sizes,)
        Fisher ranks, which do not decrease.
    n_rows : ndarray of int of shape (n_sizes,)
        Numbers of rows, ``rank(F)`` for each sample and position, which bound the ranks.
    n_parameters : int
        Number of parameters P.
    decision : NumericalRank
        Rank of the largest set, with its tolerance, gap and path.

    See Also
    --------
    skgeo.fisher.rank_curve : Makes it.
    skgeo.fisher.RankCurveDisplay : Plots it.
    """

    n_samples: np.ndarray
    ranks: np.ndarray
    n_rows: np.ndarray
    n_parameters: int
    decision: NumericalRank

    def _line(self) -> str:
        return (
            f"rank {self.ranks[-1]} of {self.n_parameters} at {self.n_samples[-1]} samples, "
            f"{'levelled' if self.levelled else 'not levelled'}"
        )

    @property
    def levelled(self) -> bool:
        """Whether the last doubling of the samples added no rank, or the rank is full.

        False also if no set has at most half as many samples as the largest, since nothing then
        tells.
        """
        half = self.ranks[2 * self.n_samples <= self.n_samples[-1] + 1]
        full = self.ranks[-1] == self.n_parameters
        return bool(full or (len(half) > 0 and half[-1] == self.ranks[-1]))


def rank_curve(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    sizes: Sequence[int] | None = None,
    likelihood: str | Likelihood = "auto",
    parameters: str | Sequence[str] = "trainable",
    solver: Literal["auto", "gram", "parameter"] = "auto",
    tol: float | Literal["auto"] = "auto",
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    memory_budget: int | str | None = None,
    random_state: int = 0,
) -> RankCurve:
    r"""Fisher rank against the number of samples.

    The rank of a Fisher matrix on N samples is that of the network only if more samples do not
    increase it. Here it is measured on nested sets, the first m samples of a random order. With
    :math:`S_m = \sum_{n \le m} A_n^T A_n`, more samples add a positive semi-definite matrix, so by
    Weyl's inequality no eigenvalue of :math:`S_m` decreases with m, and neither does the number of
    those above a fixed threshold.

    Parameters
    ----------
    model, X, y
        As in :func:`~skgeo.fisher.fisher_rank`.
    sizes : sequence of int, default=None
        Numbers of samples. None for N and its halves, rounded up, down to 1.
    likelihood, parameters, solver, tol, batch_size, device, memory_budget
        As in :func:`~skgeo.fisher.fisher_rank`. One threshold holds for all sizes: ``tol`` times
        the largest eigenvalue of the sum over the samples of the largest.
    random_state : int, default=0
        Seed of the order of the samples.

    Returns
    -------
    RankCurve
        ``n_samples``, ``ranks`` and ``n_rows``, and whether the curve has ``levelled``.

    Raises
    ------
    SkgeoError
        If a size is not between 1 and N, and as in :func:`~skgeo.fisher.fisher_spectrum`.

    Warns
    -----
    NoGapWarning
        If the rank of all samples has no clear gap.

    See Also
    --------
    skgeo.fisher.RankCurveDisplay : Plot of the curve.
    skgeo.fisher.fisher_rank : The rank on all samples.

    Notes
    -----
    All rows are computed once. On the Gram side the sets are leading blocks of one matrix; on the
    parameter side one matrix is summed up, and its spectrum taken at each size. If the sizes
    double, the spectra together take at most 8/7 of the last one on the Gram side, and their number
    times one on the parameter side. X is copied, in another order.

    A curve that has levelled is evidence, not proof: a direction that only rare samples show stays
    unseen until there are some.

    Examples
    --------
    Softmax regression with 4 inputs and 3 classes has 2 rows per sample and rank 2 (4 + 1) = 10:

    >>> import torch
    >>> from skgeo.fisher import rank_curve
    >>> X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    >>> curve = rank_curve(torch.nn.Linear(4, 3), X, likelihood="categorical")
    >>> curve
    RankCurve(rank 10 of 15 at 40 samples, levelled)
    >>> curve.n_samples.tolist(), curve.ranks.tolist()
    ([1, 2, 3, 5, 10, 20, 40], [2, 4, 6, 10, 10, 10, 10])
    """
    check_option("solver", solver, ("auto", "gram", "parameter"))
    check_integer("random_state", random_state, least=0)
    with single_blas_thread():
        found = resolve_model(model, X, y, refit=False)
        samples = found.read(X, y)
        counts = _sizes(sizes, len(samples))
        network = BoundNetwork(
            found,
            _first(samples, counts[-1], random_state),
            likelihood=likelihood,
            parameters=parameters,
            batch_size=batch_size,
            device=device,
            memory_budget=memory_budget,
        )
        fisher = FisherRows(network)
        n, p = fisher.n_rows, fisher.n_parameters
        plan = plan_fisher(fisher, solver=solver, tangent=False)
        sums = _leading_blocks if plan.side == "gram" else _partial_sums
        spectra = [eigenvalues_descending(part).cpu() for part in sums(fisher, plan, counts)]
        with collect_warnings() as notes:
            decision = decide_rank(
                spectra[-1],
                tol=tol,
                resolution=network.resolution(n, p),
                error=fisher.error,
                shape=(fisher.network.counted_rows(), p),
                name="Fisher rank",
            )
        if not decision.sample_limited:  # which the curve itself shows
            for category, message in notes:
                warn(message, category)
    ranks = [int((values > decision.threshold).sum()) for values in spectra]
    rows = np.array([network.counted_rows(count) for count in counts])
    return RankCurve(np.array(counts), np.array(ranks), rows, p, decision)


def _sizes(sizes: Sequence[int] | None, n_samples: int) -> list[int]:
    if sizes is None:
        found = [n_samples]
        while found[-1] > 1:
            found.append(-(-found[-1] // 2))
        return found[::-1]
    asked = sorted({check_integer("sizes", size) for size in np.atleast_1d(np.asarray(sizes))})
    if not asked or asked[-1] > n_samples:
        raise SkgeoError(
            f"Got sizes={sizes!r} for {n_samples} samples; expected numbers of samples from 1 "
            f"to {n_samples}. Pass more samples, or smaller sizes."
        )
    return asked


def _first(samples: Samples, count: int, random_state: int) -> Samples:
    """The first samples of a random order."""
    make = torch.Generator().manual_seed(random_state)
    rows = torch.randperm(len(samples), generator=make)[:count]
    targets = samples.targets
    if targets is not None:
        targets = targets[rows.numpy()] if isinstance(targets, np.ndarray) else targets[rows]
    return Samples(pick(samples.inputs, rows), targets)


def _leading_blocks(fisher: FisherRows, plan: FisherPlan, sizes: list[int]) -> Iterator[Tensor]:
    """Gram matrices of the rows of the first samples, as sums."""
    # -> (m each, m each)
    metric, _ = fisher_metric(fisher, plan)
    metric *= fisher.network.n_samples
    each = fisher.n_rows // fisher.network.n_samples
    for size in sizes:
        yield metric[: size * each, : size * each]


def _partial_sums(fisher: FisherRows, plan: FisherPlan, sizes: list[int]) -> Iterator[Tensor]:
    """Sums ``A^T A`` over the first samples."""
    # -> (P, P)
    total = torch.zeros(
        fisher.n_parameters, fisher.n_parameters, dtype=torch.float64, device=fisher.network.device
    )
    for start, stop in zip([0, *sizes], sizes, strict=False):
        for first in range(start, stop, fisher.batch_size):
            part = fisher.gradients(range(first, min(first + fisher.batch_size, stop)))
            part.weighted(fisher.weights(part.outputs)).add_metric(total)
        check_metric(total.diagonal(), fisher.network.likelihood.name)
        yield mirror(total.clone())
