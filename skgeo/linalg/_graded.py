"""Singular values of matrices whose rows differ in scale beyond the floating-point range."""

from __future__ import annotations

import torch
from scipy.linalg.lapack import dgejsv
from torch import Tensor

# Within this ratio plain singular values have 12 digits; beyond it, one-sided Jacobi keeps them.
_BENIGN = 1e-4
# Numbers up to exp(+-300) and their squares are within the floating-point range.
SPAN = 600.0
# Values that differ by exp(40) do not mix: exp(-80) is far below rounding.
_APART = 40.0


def graded_log_singular_values(logs: Tensor, unit: Tensor) -> Tensor:
    r"""Logarithms of the singular values of :math:`\mathrm{diag}(e^{l}) U`.

    logs: (b, r), l, of any magnitude.
    unit: (b, r, r), U, upper triangular with ones on the diagonal. Where `logs` span more than
        :data:`SPAN`, entries between rows that lie far apart must be negligible, as those of sorted
        factors are.
    Returns (b, r): descending. Each is as accurate as U is well-conditioned, however small it is.

    Source: J. Demmel and K. Veselic, "Jacobi's method is more accurate than QR", SIAM J. Matrix
    Anal. Appl. 13 (1992), Theorem 4.1.

    >>> logs = torch.tensor([[1000.0, -1000.0]]).double()
    >>> graded_log_singular_values(logs, torch.eye(2).double().unsqueeze(0)).tolist()
    [[1000.0, -1000.0]]
    """
    size = len(logs)
    found = torch.empty_like(logs)
    spans = logs.amax(1) - logs.amin(1)
    benign = (spans < -torch.log(torch.tensor(_BENIGN))).nonzero().flatten()
    rest = torch.ones(size, dtype=torch.bool, device=logs.device)
    if len(benign):
        middle = _middle(logs[benign])
        values = torch.linalg.svdvals(torch.exp(logs[benign] - middle).unsqueeze(2) * unit[benign])
        good = values[:, -1] > _BENIGN * values[:, 0]
        found[benign[good]] = (values.log() + middle)[good]
        rest[benign[good]] = False
    for sample in rest.nonzero().flatten().tolist():
        one = _graded(logs[sample].cpu(), unit[sample].cpu())
        found[sample] = one.to(found)
    return found.sort(dim=1, descending=True).values


def _graded(logs: Tensor, unit: Tensor) -> Tensor:
    """Logarithms of the singular values of ``diag(exp(logs)) unit`` for one sample.

    Diagonal blocks that differ enough in scale are decomposed separately. If a span beyond the
    floating-point range has no gap to split at, overlapping windows are decomposed, and the values
    near the ends of each window are discarded.
    """
    count = len(logs)
    above = torch.cummin(logs, 0).values
    below = torch.cummax(logs.flip(0), 0).values.flip(0)
    found = torch.empty_like(logs)
    whole = _span(logs) <= SPAN  # one block, whatever is above the diagonal
    start = 0
    while start < count:
        stop = start + 1
        widest = SPAN if whole else SPAN - 2 * _APART
        while stop < count and _span(logs[start : stop + 1]) <= widest:
            stop += 1
        if stop < count:  # at a gap, nothing is discarded
            gaps = [cut for cut in range(stop, start, -1) if above[cut - 1] - below[cut] > _APART]
            stop = gaps[0] if gaps else stop
        high, low = logs[start:stop].max(), logs[start:stop].min()
        first, last = start, stop
        while first > 0 and not above[first - 1] - high > _APART:
            first -= 1
        while last < count and not low - below[last] > _APART:
            last += 1
        window = logs[first:last]
        middle = _middle(window)
        scaled = torch.exp(window - middle).unsqueeze(1) * unit[first:last, first:last]
        values = _jacobi(scaled).log() + middle  # Demmel and Veselic, Theorem 4.1
        found[start:stop] = values[start - first : stop - first]
        start = stop
    return found


def _span(logs: Tensor) -> float:
    return float(logs.max() - logs.min())


def _middle(logs: Tensor) -> Tensor:
    return (logs.amax(-1, keepdim=True) + logs.amin(-1, keepdim=True)) / 2


def _jacobi(rows: Tensor) -> Tensor:
    """Singular values, descending, of a matrix whose rows differ in scale, by one-sided Jacobi."""
    if len(rows) == 1:
        return rows.abs().flatten()
    values, _, _, work, _, info = dgejsv(rows.T.numpy(), joba=0, jobu=3, jobv=3, jobr=0)
    if info != 0:  # no convergence within LAPACK's limit of sweeps; not observed so far
        plain: Tensor = torch.linalg.svdvals(rows)
        return plain
    return torch.from_numpy(values * (work[0] / work[1])).sort(descending=True).values
