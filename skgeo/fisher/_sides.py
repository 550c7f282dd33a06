"""The two products of the rows: Gram side ``A A^T / N`` and parameter side ``A^T A / N``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from skgeo.fisher._plan import FisherPlan
from skgeo.fisher._rows import FisherRows
from skgeo.fisher._unit_diagonal import UnitDiagonal
from skgeo.jacobian._rules.factored import FactoredJacobian
from skgeo.jacobian._rules.symmetric import mirror
from skgeo.likelihood import Categorical, Gaussian
from skgeo.network._finite import check_metric

Progress = Callable[[Sequence[Any]], Iterable[Any]]

# Ratio of the traces without and with cancellation above which digits count as lost.
_CANCELLED = 100.0


def fisher_metric(
    fisher: FisherRows, plan: FisherPlan, *, tangent: bool = False, progress: Progress = iter
) -> tuple[Tensor, Tensor | None]:
    """Form the planned side.

    plan: with side "gram" or "parameter".
    tangent: whether to form the product of the unweighted Jacobian as well.
    progress: wraps the sequence of steps.
    Returns the metric and the kernel, the product of the unweighted Jacobian. The kernel is None if
        it was not requested, or under a Gaussian, where it is the metric up to a factor.
    """
    # -> (n_rows, n_rows) and (n_tangent_rows, n_tangent_rows), or (P, P) twice
    two = tangent and not isinstance(fisher.network.likelihood, Gaussian)
    kernel: Tensor | None = None
    if plan.side == "parameter":
        metric, kernel = _parameter_side(fisher, two, progress)
        if isinstance(fisher, UnitDiagonal):
            metric, kernel = fisher.scaled(metric, kernel)
    elif isinstance(fisher, UnitDiagonal):
        metric = fisher.gram(weighted=True)
        kernel = fisher.gram(weighted=False) if two else None
    elif not two:
        metric, _ = _gram(fisher, plan, progress, weighted=True)
    else:
        kernel, outputs = _gram(fisher, plan, progress, weighted=False)
        metric = _weigh_gram(fisher, kernel, outputs)
        if _cancelled(fisher, kernel, outputs, metric):
            metric, _ = _gram(fisher, plan, progress, weighted=True)
    check_metric(metric.diagonal(), fisher.network.likelihood.name)
    trace = float(metric.diagonal().sum())
    if fisher.is_rounding(fisher.raw_trace if isinstance(fisher, UnitDiagonal) else trace):
        metric.zero_()
    return metric, kernel


def _gram(
    fisher: FisherRows, plan: FisherPlan, progress: Progress, *, weighted: bool
) -> tuple[Tensor, Tensor]:
    """Inner products of all rows, weighted or not, and the outputs."""
    n = fisher.n_rows if weighted else fisher.n_tangent_rows
    each = n // fisher.network.n_samples
    total = torch.zeros(n, n, dtype=torch.float64, device=fisher.network.device)
    size = (fisher.network.n_samples, fisher.network.n_positions, fisher.network.n_outputs)
    outputs = torch.empty(size, dtype=torch.float64, device=fisher.network.device)
    batches = fisher.batches()
    length = -(-len(batches) // plan.n_blocks)
    blocks = [batches[start : start + length] for start in range(0, len(batches), length)]
    held: list[tuple[range, FactoredJacobian]] = []

    def gather(block: list[range]) -> list[tuple[range, FactoredJacobian]]:
        found = []
        for samples in block:
            part = fisher.gradients(samples)
            z = part.outputs.reshape(len(samples), *size[1:]).double()
            outputs[samples.start : samples.stop] = z
            found.append((samples, part.weighted(fisher.weights(z)) if weighted else part))
        return found

    steps = [(row, column) for row in range(len(blocks)) for column in range(row + 1)]
    for i, j in progress(steps):
        if j == 0:
            held = gather(blocks[i])
        others = held if i == j else gather(blocks[j])
        for samples, left in held:
            for others_samples, right in others:
                if others_samples.start > samples.start:
                    continue
                rows = slice(samples.start * each, samples.stop * each)
                columns = slice(others_samples.start * each, others_samples.stop * each)
                left.gram(None if right is left else right, out=total[rows, columns])
    return mirror(total.div_(fisher.network.n_samples)), outputs


def _cancelled(fisher: FisherRows, kernel: Tensor, outputs: Tensor, metric: Tensor) -> bool:
    """Whether weighting the kernel lost digits: a part that all outputs share is large.

    A softmax does not see that part. Its square in the kernel cancels in the metric, and what is
    left has its rounding; rows that are weighted first lose only its first power.
    """
    if not isinstance(fisher.network.likelihood, Categorical):
        return False
    sizes = kernel.diagonal().clamp(min=0).sqrt().view(outputs.shape)
    roots = fisher.network.likelihood.transposed_root(outputs).abs()
    gross = float((roots @ sizes.unsqueeze(-1)).square().sum())
    return gross > _CANCELLED * float(metric.diagonal().sum())


def _weigh_gram(fisher: FisherRows, kernel: Tensor, outputs: Tensor) -> Tensor:
    """``R^T (J J^T) R``, block by block."""
    half = fisher.weigh(outputs, kernel.view(*outputs.shape, -1)).flatten(0, -2)
    return fisher.weigh(outputs, half.T.reshape(*outputs.shape, -1)).flatten(0, -2)


def _parameter_side(
    fisher: FisherRows, two: bool, progress: Progress
) -> tuple[Tensor, Tensor | None]:
    p = fisher.n_parameters
    metric = torch.zeros(p, p, dtype=torch.float64, device=fisher.network.device)
    kernel = torch.zeros_like(metric) if two else None
    for samples in progress(fisher.batches()):
        part = fisher.gradients(samples)
        if kernel is not None:
            part.add_metric(kernel)
        part.weighted(fisher.weights(part.outputs)).add_metric(metric)
    for matrix in (metric, kernel):
        if matrix is not None:
            mirror(matrix.div_(fisher.network.n_samples))
    return metric, kernel
