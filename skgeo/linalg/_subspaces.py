"""Bases of subspaces, as rows."""

from __future__ import annotations

import torch
from torch import Tensor


def orthonormalise_rows(rows: Tensor) -> Tensor:
    """Orthonormalise rows that are nearly orthonormal.

    ``V V^T = L L^T``, ``V <- L^{-1} V``: the first rows change least. This is faster than a QR
    factorisation of a wide matrix.

    rows: (k, n), orthonormal up to about 1e-3.
    """
    # -> (k, n)
    lower, failed = torch.linalg.cholesky_ex(rows @ rows.T)
    if int(failed):  # far from orthonormal: the general factorisation
        basis: Tensor
        basis, triangle = torch.linalg.qr(rows.T)
        signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0).to(basis)
        return (basis * signs).T
    solved: Tensor = torch.linalg.solve_triangular(lower, rows, upper=False)
    return solved


def orient_rows(rows: Tensor) -> Tensor:
    """Flip the sign of rows such that the entry of largest modulus is positive.

    >>> orient_rows(torch.tensor([[1.0, -3.0]]))
    tensor([[-1.,  3.]])
    """
    # rows (k, n) -> (k, n)
    if rows.numel() == 0:
        return rows
    at = rows.abs().argmax(dim=1, keepdim=True)
    return rows * torch.where(rows.gather(1, at) < 0, -1.0, 1.0).to(rows)


def complement(rows: Tensor) -> Tensor:
    """Orthonormal basis of the complement of a row space.

    Costs a complete QR factorisation: n^2 numbers, about 4/3 n^3 operations.
    """
    # rows (k, n) -> (n - k, n)
    count, size = rows.shape
    if count == 0:
        return torch.eye(size, dtype=rows.dtype, device=rows.device)
    basis: Tensor = torch.linalg.qr(rows.T, mode="complete").Q
    return basis[:, count:].T.contiguous()
