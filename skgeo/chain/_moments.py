r"""Moments and volumes of links :math:`J_n = \mathrm{diag}(d_n) W` for all samples at once.

All samples share :math:`K = W W^T`, so what follows from
:math:`J_n J_n^T = \mathrm{diag}(d_n) K \mathrm{diag}(d_n)` costs a few products with vectors
instead of a decomposition per sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skgeo.linalg._products import factor_tolerance

# Up to this condition number of W, volumes from a Cholesky factor of K have eight digits.
_SQUARED_CONDITION = 1e4
# Below this deviation, the difference of the two moments is dominated by rounding.
_CANCELLED = 1e-3
_CHUNK_BYTES = 2**26


class ElementwiseGram:
    r"""Quantities that all Jacobians :math:`\mathrm{diag}(d) W` of one weight share.

    Parameters
    ----------
    weight : Tensor of shape (m, n)
    tol : float, optional
        Squared singular values of at most `tol` times the largest count as zero; by default the
        tolerance that the dtype of the weight resolves.

    Notes
    -----
    It takes ``m^2 n`` operations and ``m^2`` numbers once, and ``m^2`` operations per sample,
    or ``m^3/3`` for a sample with zero slopes.

    Examples
    --------
    >>> W = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]]).double()
    >>> found = ElementwiseGram(W).quantities(torch.tensor([[1.0, 0.5], [2.0, 0.0]]).double())
    >>> found["rank"].tolist(), found["square_sum"].tolist()
    ([2.0, 1.0], [10.0, 36.0])
    >>> [round(value, 12) for value in found["log_volume"].exp().tolist()]
    [3.0, 6.0]
    """

    def __init__(self, weight: Tensor, tol: float | None = None) -> None:
        rows, columns = weight.shape
        tol = factor_tolerance(rows, columns, weight.dtype) if tol is None else tol
        self.weight = weight.double()
        self._floor = tol**0.5
        self.gram = self.weight @ self.weight.mT
        self._squares = self.gram.square()
        self._least, self._most = 0.0, float(torch.linalg.matrix_norm(self.weight))
        self._log_volume = float("nan")
        if rows <= columns:
            r = torch.linalg.qr(self.weight.mT, mode="r").R
            eye = torch.eye(rows).to(r)
            inverse = torch.linalg.solve_triangular(r, eye, upper=True)
            least = 1.0 / float(torch.linalg.matrix_norm(inverse))
            self._least = least if least == least else 0.0  # NaN where a pivot is zero
            self._log_volume = float(r.diagonal().abs().log().sum())

    def quantities(self, slopes: Tensor) -> dict[str, Tensor]:
        r"""Moments, ranks and volumes for many samples.

        Parameters
        ----------
        slopes : Tensor of shape (b, m)
            The slopes d, one row per sample.

        Returns
        -------
        dict of str to Tensor of shape (b,)
            ``square_sum``, :math:`\|J\|_F^2`; ``isometry_deviation``; ``rank`` and
            ``log_volume``. The last two are NaN where bounds on the singular values and zero slopes
            do not determine the rank, so a decomposition is needed: where W has more rows than
            columns, or is nearly singular, or slopes differ by too much.
        """
        d = slopes.double()
        squares = d.square()
        n_columns = self.weight.shape[1]
        total = squares @ self.gram.diagonal()
        fourth = torch.einsum("bi,bi->b", squares @ self._squares, squares)
        relative = (n_columns * fourth / total.square() - 1.0).clamp_min(0.0)
        deviation = relative.sqrt()
        for sample in (deviation < _CANCELLED).nonzero().flatten().tolist():
            deviation[sample] = self._near_isometry(d[sample], float(total[sample]))
        rank, volume = self._volumes(d)
        return {
            "square_sum": total,
            "isometry_deviation": torch.where(total > 0, deviation, torch.nan),
            "rank": rank,
            "log_volume": volume,
        }

    def _near_isometry(self, d: Tensor, total: float) -> float:
        rows, n_columns = self.weight.shape
        if rows > n_columns:
            scaled = (self.weight.mT * d.square()) @ self.weight * (n_columns / total)
        else:
            scaled = self.gram * torch.outer(d, d) * (n_columns / total)
        scaled.diagonal().sub_(1.0)
        # J^T J has `n_columns - rows` more zero eigenvalues than J J^T.
        square = float(scaled.square().sum()) + max(n_columns - rows, 0)
        return float((square / n_columns) ** 0.5)

    def _volumes(self, d: Tensor) -> tuple[Tensor, Tensor]:
        rank = torch.full_like(d[:, 0], float("nan"))
        volume = rank.clone()
        size = d.abs()
        active = size > 0
        least = torch.where(active, size, torch.inf).amin(1)
        # s_min(D W) >= min|d| s_min(W) and s_max(D W) <= max|d| s_max(W). The same bounds apply
        # to the submatrix without the zero rows.
        sure = least * self._least > self._floor * size.amax(1) * self._most
        whole = sure & active.all(1)
        volume[whole] = size[whole].log().sum(1) + self._log_volume
        rank[whole] = float(d.shape[1])
        dead = ~active.any(1) & (self._least > 0)
        rank[dead], volume[dead] = 0.0, 0.0
        if self._most <= _SQUARED_CONDITION * self._least:
            part = (sure & ~active.all(1)).nonzero().flatten()
            step = max(1, _CHUNK_BYTES // (8 * d.shape[1] ** 2))
            for some in torch.split(part, step):
                rank[some] = active[some].sum(1).double()
                volume[some] = self._masked(size[some], active[some])
        return rank, volume

    def _masked(self, size: Tensor, active: Tensor) -> Tensor:
        both = active.unsqueeze(2) & active.unsqueeze(1)
        gram = torch.where(both, self.gram, 0.0)
        gram.diagonal(dim1=1, dim2=2).add_((~active).double())
        factor: Tensor = torch.linalg.cholesky(gram)
        logs = factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return logs + torch.where(active, size, 1.0).log().sum(1)
