"""Eigenvectors of the Fisher information in parameter space, and samples seen along them."""

from __future__ import annotations

import torch
from torch import Tensor

from skgeo.fisher._rows import FisherRows
from skgeo.linalg._memory import require_memory
from skgeo.linalg._spectra import RowFactor, eigenvectors_descending
from skgeo.linalg._subspaces import orient_rows, orthonormalise_rows


def row_space(
    fisher: FisherRows, metric: Tensor | None, values: Tensor, count: int, side: str
) -> Tensor:
    """Leading eigenvectors as oriented orthonormal rows.

    Parameters
    ----------
    fisher : FisherRows
    metric : Tensor or None
        The side that was formed; None where the rank was decided without squaring.
    values : Tensor
        Its eigenvalues, descending.
    count : int
        Vectors wanted, at most the rank.
    side : {"gram", "parameter"}

    Returns
    -------
    Tensor of shape (count, P), float64
    """
    if metric is None:
        return orient_rows(torch.linalg.svd(_dense_rows(fisher), full_matrices=False).Vh[:count])
    vectors = eigenvectors_descending(metric, count)
    if side == "parameter":
        return orient_rows(vectors.contiguous())
    # v_i = A^T u_i / sqrt(N lambda_i): short of orthonormal by eps sqrt(lambda_1 / lambda_i).
    directions = torch.zeros(
        count, fisher.n_parameters, dtype=torch.float64, device=fisher.network.device
    )
    each = fisher.n_rows // fisher.network.n_samples
    for samples in fisher.batches(fisher.row_bytes):
        columns = slice(samples.start * each, samples.stop * each)
        directions.addmm_(vectors[:, columns], fisher.rows(samples))
    directions /= (fisher.network.n_samples * values[:count]).sqrt().unsqueeze(1)
    return orient_rows(orthonormalise_rows(directions))


def unsquared_eigenvalues(fisher: FisherRows, side: str) -> Tensor:
    """Eigenvalues from the singular values of A, which was never multiplied by itself.

    Parameters
    ----------
    fisher : FisherRows
    side : {"gram", "parameter"}
        Which of the two sides the triangular factor has.

    Returns
    -------
    Tensor of shape (min(n_rows, P),), float64
        Descending.
    """
    if side == "gram":
        factor = RowFactor(fisher.n_rows, fisher.network.device)
        for columns in _dense_rows(fisher).split(fisher.n_rows, dim=1):
            factor.update(columns.T)
    else:
        factor = RowFactor(fisher.n_parameters, fisher.network.device)
        for samples in fisher.batches(fisher.row_bytes):
            factor.update(fisher.rows(samples))
    return factor.singular_values().square() / fisher.network.n_samples


def _dense_rows(fisher: FisherRows) -> Tensor:
    n, p = fisher.n_rows, fisher.n_parameters
    require_memory(
        3 * 8 * n * p,
        f"an unsquared factorisation of the {n} x {p} rows",
        "raise tol to the resolution of the squared matrix (tol='auto'), or measure fewer samples.",
        fisher.network.device,
        fisher.network.budget,
    )
    return torch.cat([fisher.rows(s) for s in fisher.batches(fisher.row_bytes)])


def direction_leverage(fisher: FisherRows, directions: Tensor, eigenvalues: Tensor) -> Tensor:
    r"""How much of each direction's information each sample carries.

    .. math:: \ell_{xi} = \| R_x^T J_x u_i \|^2 / \lambda_i

    Over the N samples that defined the metric, each column averages to 1. Summed over all
    directions it is the linearised Laplace variance of the sample, and averages to the rank.

    Parameters
    ----------
    fisher : FisherRows
        The network on the samples to measure.
    directions : Tensor of shape (k, P)
        Eigenvectors as rows.
    eigenvalues : Tensor of shape (k,)
        Their eigenvalues, positive.

    Returns
    -------
    Tensor of shape (n_samples, k)
        float64, on the CPU.
    """
    directions, eigenvalues = (
        directions.to(fisher.network.device),
        eigenvalues.to(fisher.network.device),
    )
    parts = []
    for samples in fisher.batches(fisher.row_bytes):
        moved = (fisher.rows(samples) @ directions.T).unflatten(0, (len(samples), -1))
        parts.append(moved.square().sum(1) / eigenvalues)
    return torch.cat(parts).cpu()
