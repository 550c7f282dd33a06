"""Leading eigenpairs of the Fisher information matrix, from products with vectors only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.fisher._operator import FisherOperator
from skgeo.fisher._plan import FisherPlan
from skgeo.fisher._rows import FisherRows, Weighted
from skgeo.linalg._block_lanczos import block_lanczos
from skgeo.linalg._estimate import Estimate
from skgeo.linalg._memory import NotEnoughMemory

# Vectors per product: a GPU multiplies several in the time of one.
_BLOCK = {"cuda": 4}
# Random probes of the trace where the exact one would take more passes.
_PROBES = 32


def leading_eigenpairs(
    fisher: FisherRows, plan: FisherPlan, n_components: int | None
) -> tuple[Tensor, Tensor, Estimate[float]]:
    r"""Leading eigenvalues and eigenvectors of G by block Lanczos, and its trace.

    :math:`G v = \frac1N \sum_n A_n^T A_n v`, without forming G. If layer structure covers all
    parameters and its factors fit in memory, they are computed once. A product then multiplies
    vectors with the inputs and output gradients of the layers, at half the cost of the two passes
    of automatic differentiation that it takes otherwise. The trace follows from the same factors,
    and is estimated from random probes otherwise.

    plan: with side "lanczos".
    n_components: number of pairs, fewer than P.
    Returns descending eigenvalues, eigenvectors as orthonormal rows, and the trace. Each residual
        ``|G v - lambda v|`` is at most ``eps(dtype)^0.6 lambda`` (relative, 7e-5 in float32 and
        4e-10 in float64) or the rounding of products, ``16 eps(dtype)`` times the largest
        eigenvalue. The error of an eigenvalue is of the order of the square of its residual.
    Raises SkgeoError without a number of components, or if the iteration does not converge.
    """
    # -> (k,), (k, P)
    p = fisher.n_parameters
    if n_components is None or not 0 < n_components < p:
        raise SkgeoError(
            f"Got n_components={n_components!r}; solver='lanczos' needs the number of eigenpairs, "
            f"from 1 to {p - 1} (fewer than the {p} parameters)."
        )
    held = _factors(fisher) if plan.n_blocks == 1 and fisher.n_covered == p else None
    if held is None:
        trace = _trace(fisher)
        product = _by_passes(FisherOperator.of(fisher, keep=plan.n_blocks == 1))
    else:
        parts = torch.stack([squared_scale * part.trace() for part, squared_scale in held])
        trace = Estimate(float(parts.sum()) / fisher.network.n_samples, 0.0)
        product = _by_factors(fisher, held)
    width = min(_BLOCK.get(fisher.network.device.type, 1), p - n_components)
    generator = torch.Generator().manual_seed(0)  # any start converges to the same pairs
    start = torch.randn(width, p, generator=generator, dtype=torch.float64).to(
        fisher.network.device
    )
    eps = float(torch.finfo(fisher.network.replica.dtype).eps)
    values, vectors = block_lanczos(product, start, n_components, tol=eps**0.6, noise=16 * eps)
    return values.clamp_min(0.0).cpu(), vectors.cpu(), trace


def _trace(fisher: FisherRows) -> Estimate[float]:
    """The exact trace if that takes no more backward passes than probes do, and fits."""
    operator = FisherOperator.of(fisher)
    if fisher.n_directions <= _PROBES:
        try:
            return operator.trace(None)
        except NotEnoughMemory:
            pass
    return operator.trace(_PROBES)


def _factors(fisher: FisherRows) -> list[Weighted] | None:
    """The rows of all samples as factors; None if products with them would not be quick."""
    if fisher.n_covered < fisher.n_parameters:
        return None
    held = []
    for samples in fisher.batches():
        held.append(fisher.weighted_gradients(samples))
        if not held[-1].part.has_quick_products:
            return None
    return held


def _by_factors(fisher: FisherRows, held: list[Weighted]) -> Callable[[Tensor], Tensor]:
    def product(vectors: Tensor) -> Tensor:
        total = torch.zeros_like(vectors)
        for part, squared_scale in held:
            total += squared_scale * part.pull(part.push(vectors))
        return total / fisher.network.n_samples

    return product


def _by_passes(operator: FisherOperator) -> Callable[[Tensor], Tensor]:
    def product(vectors: Tensor) -> Tensor:
        return (operator @ vectors.T).T.to(vectors)

    return product
