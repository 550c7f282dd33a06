r"""Coordinates of a layer's quotient: the part of a representation on which the outputs depend.

.. math:: q(h) = V (h - \bar h) , \qquad \tilde h = \bar h + V^T V (h - \bar h) ,

with the rows of V the leading eigenvectors of the mean Fisher metric at the layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.linalg._memory import require_memory
from skgeo.quotient._rows import LayerRows
from skgeo.quotient._spectra import Tolerance, pointwise_thresholds


def collapse(representations: Tensor, center: Tensor, directions: Tensor) -> Tensor:
    """Representations with all but the given directions replaced by their mean.

    Examples
    --------
    >>> h = torch.tensor([[1.0, 2.0]])
    >>> collapse(h, torch.zeros(2), torch.tensor([[1.0, 0.0]]))
    tensor([[1., 0.]])
    """
    return center + ((representations - center) @ directions.T) @ directions


def quotient_fidelity(rows: LayerRows, name: str, center: Tensor, directions: Tensor) -> float:
    r"""Mean Kullback-Leibler divergence from the outputs to those of collapsed representations.

    .. math:: \frac1N \sum_n \mathrm{KL}\bigl(p(\cdot \mid z(h_n)) \,\|\,
              p(\cdot \mid z(\tilde h_n))\bigr)

    Parameters
    ----------
    rows : LayerRows
    name : str
        The layer.
    center : Tensor of shape (n,)
        Mean representation.
    directions : Tensor of shape (k, n)
        Orthonormal rows.

    Returns
    -------
    float
        In nats. Zero, up to rounding, where the rest of the network is linear and all directions of
        the common row space are kept. Otherwise it measures the effect of a finite change, which
        the metric describes to first order only.
    """
    network, layer = rows.network, rows.layers[name]
    center, directions = center.to(network.device), directions.to(network.device)
    total = 0.0
    for batch in rows.batches([name]):
        inputs = network.inputs(batch)
        with torch.no_grad():
            seen = rows.layers.record(inputs, [name], start=batch.start)
            kept = collapse(seen.representation(layer).double(), center, directions)
            outputs = rows.tail(inputs, name)(kept)
        z, w = network.sized(seen.output.detach()), network.sized(outputs)
        total += float(network.likelihood.kl(z, w).sum())
    return max(0.0, total / network.n_samples)  # a sum of zeros may round to below zero


def null_projection(
    rows: LayerRows, name: str, vectors: Tensor | None = None, *, tol: Tolerance = "auto"
) -> Tensor:
    """Orthogonal projection onto the null space of the metric at each sample.

    Parameters
    ----------
    rows : LayerRows
    name : str
        The layer.
    vectors : Tensor of shape (N, n) or (n,), optional
        Vectors to project, one per sample or one for all. None for the projectors themselves.
    tol : float or "auto", default="auto"
        As for pointwise ranks.

    Returns
    -------
    Tensor of shape (N, n), or (N, n, n) without vectors
        float64, on the CPU.

    Raises
    ------
    SkgeoError
        If the projectors do not fit in memory, or the vectors have another shape.

    Notes
    -----
    Computed from a thin SVD of the rows of each sample, never from an n x n matrix.
    """
    network, dim = rows.network, rows.layers[name].dim
    if vectors is None:
        require_memory(
            2 * 8 * network.n_samples * dim**2,
            f"{network.n_samples} projectors of {dim} x {dim} numbers",
            "give the vectors to project, which never forms them, or fewer samples.",
            budget=network.budget,
        )
    else:
        vectors = torch.as_tensor(vectors, dtype=torch.float64)
        if vectors.shape not in ((dim,), (network.n_samples, dim)):
            raise SkgeoError(
                f"The vectors have shape {tuple(vectors.shape)}; expected ({dim},) or "
                f"({network.n_samples}, {dim}), one entry per coordinate of layer {name!r}."
            )
        vectors = vectors.expand(network.n_samples, dim)
    parts = []
    for batch in rows.batches([name]):
        found = rows.rows(network.inputs(batch), [name], start=batch.start)[name].double()
        _, values, basis = torch.linalg.svd(found, full_matrices=False)
        # Rows beyond the rank are set to zero, so samples of different rank share one product.
        squares = values.square()
        kept = squares > pointwise_thresholds(squares, tol, rows, name)
        basis = (basis * kept.unsqueeze(-1)).cpu()
        if vectors is None:
            parts.append(torch.eye(dim, dtype=torch.float64) - basis.mT @ basis)
            continue
        v = vectors[batch.start : batch.stop].unsqueeze(-1)
        for _ in range(2):  # the second pass removes the rounding of the first
            v = v - basis.mT @ (basis @ v)
        parts.append(v.squeeze(-1))
    return torch.cat(parts)
