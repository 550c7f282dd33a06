r"""Coordinates of a layer's quotient: what of a representation the rest of the network sees.

.. math:: q(h) = V (h - \bar h) , \qquad \tilde h = \bar h + V^T V (h - \bar h) ,

with the rows of V the leading eigenvectors of the mean Fisher metric at the layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.geometry.quotient.pullback import LayerPullback
from skgeo.geometry.quotient.spectra import Tolerance, pointwise_tolerance
from skgeo.linalg.memory import require_memory

__all__ = ["collapse", "null_projection", "quotient_fidelity"]


def collapse(representations: Tensor, center: Tensor, directions: Tensor) -> Tensor:
    """Representations with everything but some directions at its mean.

    Parameters
    ----------
    representations : Tensor of shape (b, n)
    center : Tensor of shape (n,)
    directions : Tensor of shape (k, n)
        Orthonormal rows.

    Returns
    -------
    Tensor of shape (b, n)

    Examples
    --------
    >>> h = torch.tensor([[1.0, 2.0]])
    >>> collapse(h, torch.zeros(2), torch.tensor([[1.0, 0.0]]))
    tensor([[1., 0.]])
    """
    return center + ((representations - center) @ directions.T) @ directions


def quotient_fidelity(
    pullback: LayerPullback, name: str, center: Tensor, directions: Tensor
) -> float:
    r"""Mean divergence between the outputs and those of the collapsed representations.

    .. math:: \frac1N \sum_n \mathrm{KL}\bigl(p(\cdot \mid z(h_n)) \,\|\,
              p(\cdot \mid z(\tilde h_n))\bigr)

    Parameters
    ----------
    pullback : LayerPullback
    name : str
        The layer.
    center : Tensor of shape (n,)
    directions : Tensor of shape (k, n)
        Orthonormal rows.

    Returns
    -------
    float
        In nats. Zero, up to rounding, where the rest of the network is linear and all directions of
        the common row space are kept. Elsewhere the metric speaks of small moves only, and this
        says what the finite one costs.
    """
    center, directions = center.to(pullback.device), directions.to(pullback.device)
    total = 0.0
    for batch in pullback.batches([name]):
        inputs = pullback.inputs(batch)
        with torch.no_grad():
            seen = pullback.maps.record(inputs, [name])
            h = seen.representation(pullback.maps[name]).double()
            kept = collapse(h, center, directions)
            outputs = pullback.tail(inputs, name)(kept)
        z, w = pullback.sized(seen.output.detach()), pullback.sized(outputs)
        total += float(pullback.likelihood.kl(z, w).sum())
    return max(0.0, total / pullback.n_samples)  # rounding may leave a sum of zeros below zero


def null_projection(
    pullback: LayerPullback, name: str, vectors: Tensor | None = None, *, tol: Tolerance = "auto"
) -> Tensor:
    """Orthogonal projection onto the null space of the metric at each sample.

    Parameters
    ----------
    pullback : LayerPullback
    name : str
        The layer.
    vectors : Tensor of shape (N, n) or (n,), optional
        What to project, one vector a sample or one for all. None for the projectors themselves.
    tol : float or "auto", default="auto"
        As for pointwise ranks.

    Returns
    -------
    Tensor of shape (N, n), or (N, n, n) without vectors
        float64, on the CPU.

    Raises
    ------
    SkgeoError
        When the projectors would not fit in memory, with their size.

    Notes
    -----
    From a thin SVD of the rows of each sample, never of an n x n matrix.
    """
    dim = pullback.maps[name].dim
    if vectors is None:
        require_memory(
            2 * 8 * pullback.n_samples * dim**2,
            f"{pullback.n_samples} projectors of {dim} x {dim} numbers",
            "give the vectors to project, which never forms them, or fewer samples.",
        )
    else:
        vectors = torch.as_tensor(vectors, dtype=torch.float64)
        if vectors.shape not in ((dim,), (pullback.n_samples, dim)):
            raise SkgeoError(
                f"vectors have shape {tuple(vectors.shape)}; expected ({dim},) or "
                f"({pullback.n_samples}, {dim}), one entry a coordinate of layer {name!r}."
            )
        vectors = vectors.expand(pullback.n_samples, dim)
    relative = pointwise_tolerance(tol, pullback, name)
    parts = []
    for batch in pullback.batches([name]):
        rows = pullback.rows(pullback.inputs(batch), [name])[name].double()
        _, values, basis = torch.linalg.svd(rows, full_matrices=False)
        # A masked row takes nothing away: samples of different rank share one product.
        kept = values.square() > relative * values[:, :1].square()
        basis = (basis * kept.unsqueeze(-1)).cpu()
        if vectors is None:
            parts.append(torch.eye(dim, dtype=torch.float64) - basis.mT @ basis)
            continue
        v = vectors[batch.start : batch.stop].unsqueeze(-1)
        for _ in range(2):  # a second pass removes what the first leaves of a large component
            v = v - basis.mT @ (basis @ v)
        parts.append(v.squeeze(-1))
    return torch.cat(parts)
