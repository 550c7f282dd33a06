"""Eigenvectors of the Fisher information in parameter space, and the leverage of samples."""

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

    metric: the side that was formed; None if the rank was decided without squaring.
    values: its eigenvalues, descending.
    count: number of vectors, at most the rank.
    """
    # -> (count, P)
    if metric is None:
        return orient_rows(torch.linalg.svd(_dense_rows(fisher), full_matrices=False).Vh[:count])
    vectors = eigenvectors_descending(metric, count)
    if side == "parameter":
        return orient_rows(vectors.contiguous())
    # v_i = A^T u_i / sqrt(N lambda_i), orthonormal up to eps sqrt(lambda_1 / lambda_i).
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
    """Eigenvalues from the singular values of A, without squaring A.

    side: "gram" for a triangular factor of side n_rows, otherwise one of side P.
    """
    # -> (min(n_rows, P),)
    if side == "gram":
        factor = RowFactor(fisher.n_rows, fisher.network.device)
        for columns in torch.split(_dense_rows(fisher), fisher.n_rows, dim=1):
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
    r"""Share of each sample in the information along each direction.

    .. math:: \ell_{xi} = \| R_x^T J_x u_i \|^2 / \lambda_i

    Over the N samples that defined the metric, each column averages to 1. The sum over all
    directions is the linearised Laplace variance of the sample, and averages to the rank.

    fisher: the network on the samples to measure.
    directions: eigenvectors as rows.
    eigenvalues: their eigenvalues, positive.
    """
    # directions (k, P), eigenvalues (k,) -> (n_samples, k), float64 on the CPU
    directions, eigenvalues = (
        directions.to(fisher.network.device),
        eigenvalues.to(fisher.network.device),
    )
    parts = []
    for samples in fisher.batches(fisher.row_bytes):
        moved = (fisher.rows(samples) @ directions.T).view(len(samples), -1, len(directions))
        parts.append(moved.square().sum(1) / eigenvalues)
    return torch.cat(parts).cpu()
