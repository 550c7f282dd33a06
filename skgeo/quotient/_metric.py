"""Mean Fisher metric of one layer, from the smaller of two Gram matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from skgeo.linalg._spectra import RowFactor, eigenvalues_descending, eigenvectors_descending
from skgeo.linalg._subspaces import orient_rows, orthonormalise_rows


class MeanMetric:
    r"""Spectrum of :math:`\frac1N \sum_n S_n S_n^T` from rows that arrive in batches.

    n_rows: rows per sample.
    dim: dimension n of the representation.
    dtype: that of the rows, where they are kept.
    squared: whether products may be formed; otherwise the rows themselves are factorised.

    With m = ``n_samples * n_rows`` it holds n^2 numbers where n <= m, and the m rows themselves
    otherwise, whose Gram matrix has the same non-zero eigenvalues.
    """

    def __init__(
        self,
        n_samples: int,
        n_rows: int,
        dim: int,
        dtype: torch.dtype,
        device: torch.device,
        squared: bool = True,
    ) -> None:
        self.n_samples, self.dim, self.squared = n_samples, dim, squared
        self.n_total = n_samples * n_rows
        self.on_rows = dim > self.n_total
        self._rows: Tensor | None = None
        self._product: Tensor | None = None
        self._factor: RowFactor | None = None
        self._filled = 0
        if self.on_rows:
            self._rows = torch.empty((self.n_total, dim), dtype=dtype, device=device)
        elif squared:
            self._product = torch.zeros((dim, dim), dtype=torch.float64, device=device)
        else:
            self._factor = RowFactor(dim, device)

    @staticmethod
    def held_bytes(n_samples: int, n_rows: int, dim: int, dtype: torch.dtype) -> int:
        """Memory that an instance holds between batches."""
        total = n_samples * n_rows
        return total * dim * dtype.itemsize if dim > total else 2 * 8 * dim**2

    @staticmethod
    def solver_bytes(n_samples: int, n_rows: int, dim: int) -> int:
        """Additional memory that the eigenproblem takes."""
        total = n_samples * n_rows
        return 8 * (3 * min(total, dim) ** 2 + (total * dim if dim > total else 0))

    def update(self, rows: Tensor) -> None:
        """Add the rows of a batch."""
        # rows (b, n_rows, dim)
        flat = rows.flatten(0, 1)
        if self._rows is not None:
            self._rows[self._filled : self._filled + len(flat)] = flat
            self._filled += len(flat)
            return
        flat = flat.double()
        if self._product is not None:
            self._product.addmm_(flat.T, flat)
        else:
            assert self._factor is not None
            self._factor.update(flat)

    def _matrix(self) -> Tensor:
        if self._product is not None:
            return self._product / self.n_samples
        assert self._rows is not None
        rows = self._rows.double()
        return rows @ rows.T / self.n_samples

    def diagonal(self) -> Tensor:
        """Diagonal of the matrix that is decomposed, which shows an overflow."""
        if self._product is not None:
            return self._product.diagonal() / self.n_samples
        if self._factor is not None:
            return self._factor.factor.square().sum(0) / self.n_samples
        assert self._rows is not None
        return self._rows.double().square().sum(1) / self.n_samples

    def eigenvalues(self) -> Tensor:
        """Eigenvalues, descending, ``min(m, n)`` of them, in float64."""
        count = min(self.n_total, self.dim)
        if self.squared:
            return eigenvalues_descending(self._matrix())[:count]
        if self._factor is not None:
            values = self._factor.singular_values()
        else:
            assert self._rows is not None
            values = torch.linalg.svdvals(self._rows.double())
        return values.square()[:count] / self.n_samples

    def directions(self, count: int) -> Tensor:
        """Leading eigenvectors as oriented orthonormal rows, in float64."""
        # -> (count, dim)
        if not self.squared:
            if self._factor is not None:
                return orient_rows(self._factor.right_vectors(count))
            assert self._rows is not None
            vectors = torch.linalg.svd(self._rows.double(), full_matrices=False).Vh
            return orient_rows(vectors[:count])
        vectors = eigenvectors_descending(self._matrix(), count)
        if self._rows is None:
            return orient_rows(vectors.contiguous())
        directions = vectors @ self._rows.double()
        scale = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
        return orient_rows(orthonormalise_rows(directions / scale))
