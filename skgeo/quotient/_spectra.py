r"""Fisher metrics on representations: spectra and ranks at every layer.

.. math:: G_l(h) = B_l^T F(z) B_l = S_l S_l^T , \qquad S_l = B_l^T R(z) .

The spectrum comes from the smaller of :math:`S_l^T S_l` (rows x rows) and :math:`S_l S_l^T`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from skgeo._arguments import check_tolerance
from skgeo._results import Result
from skgeo.exceptions import NoGapWarning, collect_warnings, warn
from skgeo.jacobian._layer import Layer
from skgeo.likelihood import Likelihood
from skgeo.linalg._memory import format_bytes, require_memory
from skgeo.linalg._rank import (
    AMBIGUOUS_GAP,
    REACH,
    NumericalRank,
    amplified,
    decide_rank,
    resolution,
)
from skgeo.linalg._spectra import effective_rank
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind
from skgeo.network._finite import check_metric
from skgeo.quotient._metric import MeanMetric
from skgeo.quotient._rows import LayerRows

_COLUMNS = 2048

Tolerance = float | Literal["auto"]


@dataclass(frozen=True, repr=False)
class LayerSpectrum(Result):
    """The Fisher metric at one layer, at each sample and on average.

    Attributes
    ----------
    layer : Layer
        Name, dimension, and whether it is a cut.
    eigenvalues : Tensor of shape (N, min(n_rows, dim))
        Eigenvalues of the metric at each sample, descending, float64.
    ranks : Tensor of shape (N,)
        Pointwise ranks, each relative to the sample's own largest eigenvalue.
    thresholds : Tensor of shape (N,)
        Absolute thresholds of the pointwise ranks.
    mean_eigenvalues : Tensor of shape (min(N n_rows, dim),)
        Eigenvalues of the mean metric, descending, float64.
    common : NumericalRank
        Rank of the mean metric, with tolerance, gap and path. Its null space is the intersection
        of the null spaces of all samples. ``common.sample_limited`` says whether it is the number
        of rows of all samples, below the dimension.
    directions : Tensor of shape (k, dim) or None
        Leading eigenvectors of the mean metric as orthonormal rows, if they were asked for.
    """

    layer: Layer
    eigenvalues: Tensor
    ranks: Tensor
    thresholds: Tensor
    mean_eigenvalues: Tensor
    common: NumericalRank
    directions: Tensor | None = None

    def _line(self) -> str:
        return (
            f"{self.layer.name!r}, common rank {self.common.rank} of {self.layer.dim}, "
            f"median pointwise rank {self.rank_median:.4g}, {len(self.ranks)} samples"
        )

    @property
    def rank_median(self) -> float:
        """Median of the pointwise ranks."""
        return float(self.ranks.double().quantile(0.5))

    @property
    def pointwise_gap(self) -> float:
        """Smallest gap of a pointwise rank; infinite if no eigenvalue follows any of them."""
        values, ranks = self.eigenvalues, self.ranks
        inside = (ranks > 0) & (ranks < values.shape[1])
        last = values.gather(1, (ranks - 1).clamp_min(0).unsqueeze(1)).squeeze(1)
        next_ = values.gather(1, ranks.clamp_max(values.shape[1] - 1).unsqueeze(1)).squeeze(1)
        gaps = last[inside] / next_[inside]
        return float(gaps.min()) if len(gaps) else float("inf")

    @property
    def nullity(self) -> float:
        """Dimension minus the median pointwise rank."""
        return self.layer.dim - self.rank_median

    @property
    def effective_rank(self) -> float:
        """Exponential entropy of the mean metric's eigenvalues; NaN where all are zero."""
        return effective_rank(self.mean_eigenvalues)


def layer_spectra(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    likelihood: str | Likelihood = "auto",
    layers: Sequence[str] | None = None,
    tol: Tolerance = "auto",
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> tuple[LayerSpectrum, ...]:
    r"""Fisher metrics on the representations of a network, layer by layer.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Not modified: a replica in eval mode is measured.
    X : array, Tensor, dict, Dataset or DataLoader
        N samples.
    y : array-like, optional
        Targets, which ``likelihood="auto"`` reads, and on which a scikit-learn or skorch model is
        fitted if it is not fitted yet.
    likelihood : str or Likelihood, default="auto"
        Distribution that the outputs parametrise: "categorical", "bernoulli", "gaussian",
        "gaussian_scale" or "poisson". "auto" asks the model, then the dtype of y; without either it
        assumes "gaussian" of unit variance and warns.
    layers : list of str, optional
        Names of layers or of single calls (``"relu#1"``). By default the children of a
        ``Sequential``, or the members of the longest ``ModuleList`` or the children that are cuts.
    tol : float or "auto", default="auto"
        Tolerance of ranks, relative to the largest eigenvalue. "auto" is what the arithmetic
        resolves, ``d * max(eps(float64), eps(dtype)^2)`` with d the larger side, or more where the
        network amplifies rounding, measured on at most 32 samples. With a smaller
        value, ranks are decided from singular values of the rows instead of their products.
    batch_size : int, optional
        Samples per forward pass. The answer does not depend on it.
    device : str or torch.device, optional
        Where to compute; results come back to the CPU.

    Returns
    -------
    tuple of LayerSpectrum
        One per layer, in the order in which the layers run, without those that do not fit in
        memory, which a warning names.

    Raises
    ------
    SkgeoError
        If anything is NaN or infinite, a layer is unknown, samples are coupled, outputs do not fit
        the likelihood, or no layer's matrices fit in memory.

    Notes
    -----
    With r = rank(F) rows per sample, it takes r backward passes for all layers together; per
    sample and layer ``r^2 n`` operations for the product and ``4/3 r^3`` for its spectrum; and for
    the mean metric of a layer ``min(n, N r)`` squared times the other side, and 4/3 of its cube.

    Examples
    --------
    Before a linear layer of three units, the outputs depend on at most three directions:

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.quotient import layer_spectra
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3), nn.Linear(3, 5)).double()
    >>> X = torch.randn(20, 6)
    >>> found = layer_spectra(net, X, layers=["0", "1", "2"], likelihood="gaussian")
    >>> [(s.layer.name, s.layer.dim, s.rank_median, s.common.rank) for s in found]
    [('0', 8, 3.0, 8), ('1', 8, 3.0, 3), ('2', 3, 3.0, 3)]
    """
    with single_blas_thread():
        network = bind(
            model,
            X,
            y,
            likelihood=likelihood,
            parameters=None,
            batch_size=batch_size,
            device=device,
        )
        return measure_layers(LayerRows(network, layers), tol=tol)


def measure_layers(
    rows: LayerRows,
    *,
    tol: Tolerance = "auto",
    names: Sequence[str] | None = None,
    layer: str | None = None,
    n_directions: int | None = 0,
) -> tuple[LayerSpectrum, ...]:
    """Spectra and ranks at every layer.

    names: layers that fit in memory; found, with a warning for the others, if None.

    layer: the layer whose leading eigenvectors are computed.
    n_directions: their number; None for the common rank.
    """
    check_tolerance(tol)
    network = rows.network
    names = affordable_layers(rows) if names is None else names
    metrics: dict[str, MeanMetric] = {}
    pointwise: dict[str, list[Tensor]] = {name: [] for name in names}
    measured: dict[str, LayerSpectrum] = {}
    with collect_warnings() as notes:
        passes = [(group, batch) for group in _groups(rows, names) for batch in rows.batches(group)]
        for group, batch in network.progress(passes):
            found = rows.rows(network.inputs(batch), group, start=batch.start)
            for name in group:
                if name not in metrics:
                    metrics[name] = _metric(rows, name, tol)
                block = found.pop(name)
                metrics[name].update(block)
                squared = metrics[name].squared
                pointwise[name].append(pointwise_eigenvalues(block, squared=squared).cpu())
            if batch.stop == network.n_samples:
                for name in group:
                    wanted = n_directions if name == layer else 0
                    measured[name] = _measured(
                        rows, name, torch.cat(pointwise[name]), metrics.pop(name), tol, wanted
                    )
    spectra = tuple(measured[name] for name in names)
    _warn_partial([place for place in rows.layers.layers if not place.is_cut])
    _warn_ambiguous(spectra, notes)
    return spectra


def _metric(rows: LayerRows, name: str, tol: Tolerance) -> MeanMetric:
    network, dim = rows.network, rows.layers[name].dim
    return MeanMetric(
        network.n_samples,
        rows.n_rows,
        dim,
        network.dtype,
        network.device,
        squared=tol == "auto" or tol >= resolution(network.n_samples * rows.n_rows, dim),
    )


def _measured(
    rows: LayerRows,
    name: str,
    values: Tensor,
    metric: MeanMetric,
    tol: Tolerance,
    n_directions: int | None,
) -> LayerSpectrum:
    found = rows.layers[name]
    resolved = rows.network.resolution(metric.n_total, found.dim, squared=metric.squared)
    check_metric(values, rows.network.likelihood.name)
    check_metric(metric.diagonal(), rows.network.likelihood.name)
    mean_values = metric.eigenvalues()
    common = decide_rank(
        mean_values,
        tol=tol,
        resolution=resolved,
        error=partial(rows.error, name),
        shape=(rows.network.counted_rows(), found.dim),
        name=f"common rank at layer {name!r}:",
    )
    count = common.rank if n_directions is None else min(n_directions, common.rank)
    thresholds = pointwise_thresholds(values, tol, rows, name)
    return LayerSpectrum(
        layer=found,
        eigenvalues=values,
        ranks=(values > thresholds).sum(1),
        thresholds=thresholds.squeeze(1),
        mean_eigenvalues=mean_values.cpu(),
        common=common,
        directions=metric.directions(count).cpu() if n_directions != 0 else None,
    )


def pointwise_eigenvalues(rows: Tensor, *, squared: bool = True) -> Tensor:
    """Eigenvalues of the metric at each sample, descending, in float64.

    squared: from products of the rows; otherwise from their singular values.
    """
    # rows (b, r, n) -> (b, min(r, n))
    if not squared:
        singular_values: Tensor = torch.linalg.svdvals(rows.double())
        return singular_values.square()
    if rows.shape[1] > rows.shape[2]:
        rows = rows.mT
    # By column blocks, so rows in float32 are never copied to float64 as a whole.
    product = rows.new_zeros((len(rows), rows.shape[1], rows.shape[1]), dtype=torch.float64)
    for block in torch.split(rows, _COLUMNS, dim=2):
        block = block.double()
        product += block @ block.mT
    eigenvalues: Tensor = torch.linalg.eigvalsh(product)
    return eigenvalues.flip(-1).clamp_min(0.0)


def pointwise_ranks(eigenvalues: Tensor, tol: Tolerance, rows: LayerRows, name: str) -> Tensor:
    """Rank at each sample, relative to its own largest eigenvalue."""
    # eigenvalues (b, k), descending -> (b,)
    return (eigenvalues > pointwise_thresholds(eigenvalues, tol, rows, name)).sum(1)


def pointwise_thresholds(eigenvalues: Tensor, tol: Tolerance, rows: LayerRows, name: str) -> Tensor:
    """Thresholds of pointwise ranks at a layer."""
    # eigenvalues (b, k), descending -> (b, 1)
    largest = eigenvalues[:, :1]
    least = pointwise_tolerance(tol, rows, name) * largest
    if tol != "auto" or not bool(((eigenvalues > least) & (eigenvalues < REACH * largest)).any()):
        return least
    measured = amplified(rows.error(name), 1.0) * eigenvalues.sum(1, keepdim=True)
    return torch.maximum(least, torch.minimum(measured, REACH * largest))


def pointwise_tolerance(tol: Tolerance, rows: LayerRows, name: str) -> float:
    """Tolerance of pointwise ranks at a layer."""
    if tol != "auto":
        return float(tol)
    return rows.network.resolution(rows.n_rows, rows.layers[name].dim)


def affordable_layers(rows: LayerRows, needed: str | None = None) -> tuple[str, ...]:
    """The layers whose mean metrics fit in memory; one warning names the others.

    needed: a layer that must fit.
    Raises SkgeoError if it does not, or if no layer does.
    """
    budget = rows.network.budget
    sizes = {
        name: max(_held(rows, name) + _solver(rows, name), rows.size([name])) for name in rows.names
    }
    fit = tuple(name for name, size in sizes.items() if size <= budget)
    if not fit or (needed is not None and needed in sizes and needed not in fit):
        name = needed if fit and needed is not None else min(sizes, key=lambda name: sizes[name])
        rows.sample_bytes([name])
        require_memory(
            sizes[name],
            f"the mean metric at layer {name!r} (sides {rows.layers[name].dim} and "
            f"{rows.network.n_samples * rows.n_rows}) and its eigenproblem",
            "measure fewer samples, or name smaller layers with layers=[...].",
            rows.network.device,
            budget,
        )
    if len(fit) < len(sizes):
        shown = ", ".join(
            f"{name!r} (dimension {rows.layers[name].dim}, {format_bytes(size)})"
            for name, size in sizes.items()
            if name not in fit
        )
        warn(
            f"Layers too large for the {format_bytes(budget)} of memory that can be used are not "
            f"measured (NaN): {shown}. Measure fewer samples, or raise memory_budget."
        )
    return fit


def _held(rows: LayerRows, name: str) -> int:
    network = rows.network
    return MeanMetric.held_bytes(
        network.n_samples, rows.n_rows, rows.layers[name].dim, network.dtype
    )


def _solver(rows: LayerRows, name: str) -> int:
    return MeanMetric.solver_bytes(rows.network.n_samples, rows.n_rows, rows.layers[name].dim)


def _groups(rows: LayerRows, names: Sequence[str]) -> list[list[str]]:
    """Groups of layers that fit in memory together; each takes one pass."""
    budget = rows.network.budget
    groups: list[list[str]] = []
    held = 0
    for name in names:
        own, solver = _held(rows, name), _solver(rows, name)
        together = [*groups[-1], name] if groups else [name]
        if groups and max(held + own + solver, rows.size(together)) <= budget:
            groups[-1].append(name)
            held += own
        else:
            groups.append([name])
            held = own
    return groups


def _warn_partial(layers: list[Layer]) -> None:
    if layers:
        warn(
            f"Not all of the computation passes through {_listed([x.name for x in layers])}: the "
            "quotient there is a partial one, that of the contribution of this branch while the "
            "others are held fixed."
        )


def _warn_ambiguous(
    spectra: tuple[LayerSpectrum, ...], notes: list[tuple[type[Warning], str]]
) -> None:
    """Warn once of each kind for all layers and samples."""
    zero = [s.layer.name for s in spectra if not bool((s.mean_eigenvalues > 0.0).any())]
    if zero:
        warn(
            f"The Fisher metric at {_listed(zero)} is zero, or within rounding of zero: no "
            "direction there changes the output distribution. The rank is 0; the effective rank is "
            "undefined (NaN)."
        )
    kinds: dict[tuple[type[Warning], str], list[str]] = {}
    for category, message in notes:
        kind = re.sub(r"'[^']*'|[-+]?\d[\d.e+-]*", "#", message)  # names and numbers differ
        kinds.setdefault((category, kind), []).append(message)
    for (category, _), found in kinds.items():
        more = f" The same holds at {len(found)} of {len(spectra)} layers."
        warn(found[0] + more * (len(found) > 1), category)
    unclear = [s.layer.name for s in spectra if s.pointwise_gap < AMBIGUOUS_GAP]
    if unclear and not any(category is NoGapWarning for category, _ in notes):
        warn(
            f"Pointwise ranks at {_listed(unclear)} have no clear gap for some samples: the "
            "eigenvalues on either side of the tolerance differ by less than a factor of "
            f"{AMBIGUOUS_GAP:.0f}. Look at the eigenvalues as well. This is said once per process; "
            "the gaps stand beside the ranks.",
            NoGapWarning,
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:6])
    return f"layer{'s' * (len(names) > 1)} {shown}" + (", ..." if len(names) > 6 else "")
