"""Eigenvalues of symmetric matrices, and quantities derived from them."""

from __future__ import annotations

import torch
from torch import Tensor


def eigenvalues_descending(matrix: Tensor) -> Tensor:
    """Eigenvalues of a positive semi-definite matrix, descending, negative rounding set to zero.

    matrix: (n, n), symmetric; only its lower triangle is read.

    Costs 4/3 m^3 operations and m^2 numbers of workspace for m nonzero rows. A positive
    semi-definite matrix with a zero on the diagonal has a zero row, which contributes an eigenvalue
    zero and is left out.

    >>> eigenvalues_descending(torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 2.0]]))
    tensor([3., 1., 0.], dtype=torch.float64)
    """
    # -> (n,)
    matrix = matrix.double()
    alive = matrix.diagonal() != 0
    count = int(alive.sum())
    if count < len(matrix):
        kept = matrix[alive][:, alive]
        return torch.nn.functional.pad(eigenvalues_descending(kept), (0, len(matrix) - count))
    values: Tensor = torch.linalg.eigvalsh(matrix)
    return values.flip(0).clamp_min(0.0)


def eigenvectors_descending(matrix: Tensor, n_vectors: int) -> Tensor:
    """Leading eigenvectors of a symmetric matrix, as rows.

    Returns (n_vectors, n): orthonormal rows, by descending eigenvalue.
    """
    # matrix (n, n)
    vectors: Tensor = torch.linalg.eigh(matrix.double()).eigenvectors
    return vectors.flip(1)[:, :n_vectors].T


class RowFactor:
    """Triangular factor of a matrix from blocks of its rows, by repeated QR.

    In ``A = Q R``, Q is not kept. The singular values of R are those of A. Since A is not squared,
    they keep all digits of its entries: a float64 spectrum of ``A^T A`` resolves
    relative eigenvalues down to about 1e-30 instead of 1e-15.

    >>> factor = RowFactor(2)
    >>> factor.update(torch.tensor([[3.0, 0.0], [0.0, 1e-12]]).double())
    >>> [f"{s:.0e}" for s in factor.singular_values().tolist()]
    ['3e+00', '1e-12']
    """

    def __init__(self, n_columns: int, device: torch.device | str = "cpu") -> None:
        self.factor = torch.zeros(0, n_columns, dtype=torch.float64, device=device)

    def update(self, rows: Tensor) -> None:
        """Add a block of rows, of shape (n_block, n_columns)."""
        stacked = torch.cat([self.factor, rows.to(self.factor)])
        if len(stacked) <= stacked.shape[1]:
            self.factor = stacked  # nothing to compress yet
        else:
            self.factor = torch.linalg.qr(stacked, mode="r").R

    def singular_values(self) -> Tensor:
        """Singular values of all rows so far, descending; ``min(n_rows, n_columns)`` of them."""
        values: Tensor = torch.linalg.svdvals(self.factor)
        return values

    def right_vectors(self, n_vectors: int) -> Tensor:
        """Leading right singular vectors as rows, of shape (n_vectors, n_columns)."""
        vectors: Tensor = torch.linalg.svd(self.factor, full_matrices=False).Vh
        return vectors[:n_vectors]


def effective_rank(weights: Tensor) -> float:
    """Exponential of the entropy of a normalised spectrum.

    ``exp(-sum p_i log p_i)`` with ``p_i = weights_i / sum(weights)``.

    weights: (n,), non-negative: singular values for Roy and Vetterli, eigenvalues for the Fisher
        estimators.
    Returns a number between 1 and n, or NaN if all weights are zero.

    Source: O. Roy and M. Vetterli, "The effective rank: a measure of effective dimensionality",
    EUSIPCO 2007, Definition 1.

    >>> round(effective_rank(torch.tensor([1.0, 1.0, 1.0, 0.0])), 12)
    3.0
    """
    weights = weights.double()
    total = weights.sum()
    if not total > 0:
        return float("nan")
    shares = weights / total
    return float(torch.special.entr(shares).sum().exp())  # Definition 1


def participation_ratio(weights: Tensor) -> float:
    """Participation ratio ``(sum w)^2 / sum w^2`` of a spectrum.

    Returns a number between 1 and n, or NaN if all weights are zero.

    >>> participation_ratio(torch.tensor([2.0, 2.0, 0.0]))
    2.0
    """
    # weights (n,)
    weights = weights.double()
    largest = weights.max() if len(weights) else torch.tensor(0.0)
    if not largest > 0:
        return float("nan")
    scaled = weights / largest  # squares of tiny spectra would underflow
    return float(scaled.sum() ** 2 / scaled.square().sum())
