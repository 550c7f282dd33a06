"""Leading eigenpairs of the Fisher information matrix, from products with vectors only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.fisher._diagonal import exact_trace
from skgeo.fisher._plan import FisherPlan
from skgeo.fisher._rows import FisherRows, Weighted
from skgeo.linalg._block_lanczos import block_lanczos

# Vectors per product: a GPU multiplies several in the time of one.
_BLOCK = {"cuda": 4}


def leading_eigenpairs(
    fisher: FisherRows, plan: FisherPlan, n_components: int | None
) -> tuple[Tensor, Tensor, float]:
    r"""Leading eigenvalues and eigenvectors of G by block Lanczos, and its trace.

    :math:`G v = \frac1N \sum_n A_n^T A_n v`, without forming G. If layer structure covers all
    parameters and its factors fit in memory, they are computed once. A product then multiplies
    vectors with the inputs and output gradients of the layers, at half the cost of the two passes
    of automatic differentiation that it takes otherwise. The trace follows from the same factors.

    plan: with side "lanczos".
    n_components: number of pairs, fewer than P.
    Returns descending eigenvalues, eigenvectors as orthonormal rows, and the trace. Each residual
        ``|G v - lambda v|`` is at most ``eps(dtype)^0.6 lambda`` (relative, 7e-5 in float32 and
        4e-10 in float64) or the rounding of products, ``16 eps(dtype)`` times the largest
        eigenvalue. The error of an eigenvalue is of the order of the square of its residual.
    Raises SkgeoError without a number of components, or if the iteration does not converge.
    """
    # -> (k,), (k, P), float
    p = fisher.n_parameters
    if n_components is None or not 0 < n_components < p:
        raise SkgeoError(
            f"Got n_components={n_components!r}; solver='lanczos' needs the number of eigenpairs, "
            f"from 1 to {p - 1} (fewer than the {p} parameters)."
        )
    held = _factors(fisher) if plan.n_blocks == 1 else None
    if held is None:
        trace = exact_trace(fisher)
        product = _by_passes(fisher)
    else:
        trace = (
            float(torch.stack([squared_scale * part.trace() for part, squared_scale in held]).sum())
            / fisher.network.n_samples
        )
        product = _by_factors(fisher, held)
    width = min(_BLOCK.get(fisher.network.device.type, 1), p - n_components)
    generator = torch.Generator().manual_seed(0)  # any start converges to the same pairs
    start = torch.randn(width, p, generator=generator, dtype=torch.float64).to(
        fisher.network.device
    )
    eps = float(torch.finfo(fisher.network.replica.dtype).eps)
    values, vectors = block_lanczos(product, start, n_components, tol=eps**0.6, noise=16 * eps)
    return values.clamp_min(0.0).cpu(), vectors.cpu(), trace


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


def _by_passes(fisher: FisherRows) -> Callable[[Tensor], Tensor]:
    operators = list(fisher.operators())

    def product(vectors: Tensor) -> Tensor:
        total = torch.zeros_like(vectors)
        for into, vector in zip(total, vectors, strict=True):
            for operator, outputs in operators:
                moved = operator.push(vector).double().view_as(outputs)
                weighted = fisher.network.likelihood.apply_fisher(outputs, moved)
                into += operator.pull(weighted.view_as(operator.outputs))
        return total / fisher.network.n_samples

    return product
