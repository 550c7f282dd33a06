r"""Singular values of long products of matrices, without the product.

An explicit product of many matrices only retains its largest singular values: the others are lost
in rounding, and entries may overflow or underflow. Here the product is represented by triangular
factors, which are swept forward and back until they are sorted, and the logarithms of its singular
values are computed from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.linalg._graded import SPAN, graded_log_singular_values

# Up to this condition number the triangles of one sweep give all values to about 1e-11.
_TRIANGULAR = 1e5
# A rank is tested by a perturbation of the factors of this many units of rounding.
_TRIAL = 100.0
# A value that changes by a factor of two, log 2 = 0.69, is rounding.
_MOVED = 0.69


def _trial_size(dtype: torch.dtype) -> float:
    """Relative size of the perturbation that tests a rank.

    A hundred units of rounding, but in half precision, where they are as large as the numbers
    themselves, a quarter of the root of one unit.
    """
    eps = float(torch.finfo(dtype).eps)
    return min(_TRIAL * eps, math.sqrt(eps) / 4)


def factor_tolerance(n_rows: int, n_columns: int, dtype: torch.dtype = torch.float64) -> float:
    """Relative size below which a squared singular value of one factor is rounding.

    ``16 d eps(dtype)^2`` with d the larger side: four times the uncertainty ``sqrt(d) eps`` of a
    singular value, squared, since tolerances are relative to eigenvalues.

    dtype: in which the factor was computed.
    """
    return 16.0 * max(n_rows, n_columns) * float(torch.finfo(dtype).eps) ** 2


class LongProduct:
    r"""A batch of products :math:`A_l = J_l J_{l-1} \cdots J_1` that grows on the left.

    tol: a direction is lost where a factor, restricted to the range of all before it, has a
        singular value whose square is at most `tol` times the largest one squared. By default
        :func:`factor_tolerance`. Not relative to the product, which may shrink without losing rank.
    dtype: in which the factors were computed; products are always formed in float64.

    Each factor is multiplied with an orthonormal basis of the range before it and triangularised,
    :math:`J_l Q_{l-1} = Q_l R_l`; if R is numerically singular, a singular value decomposition is
    used instead, and lost directions are set to zero. The product of the triangles is kept as a
    diagonal, in logarithms, times a triangle of moderate size, and its singular values are computed
    by one-sided Jacobi. If that triangle is ill-conditioned, or the diagonal spans more than the
    floating-point range, the factors are swept back once more, which sorts them.

    If a factor has a null space and the range before it is not the whole space, rounding in the
    weak directions of that range looks like a small singular value. Then all factors are perturbed
    by a hundred units of rounding, entry by entry, and values that change by a factor of two are
    lost too.

    Costs one QR factorisation per factor, and one decomposition of the narrowest width per request;
    one more QR factorisation per factor if they have to be swept back.

    The relative error of every singular value, including the smallest, is about eps times the
    largest condition number of a factor.

    Source: D. E. Stewart, "A new algorithm for the SVD of a long product of matrices and the
    stability of products", Electron. Trans. Numer. Anal. 5 (1997). J. Demmel and K. Veselic,
    "Jacobi's method is more accurate than QR", SIAM J. Matrix Anal. Appl. 13 (1992), Theorem 4.1:
    the relative accuracy of one-sided Jacobi.

    A thousand factors whose product is beyond the floating-point range:

    >>> import math, torch
    >>> product = LongProduct()
    >>> for _ in range(1000):
    ...     product.multiply(torch.diag(torch.tensor([10.0, 0.1])).double().unsqueeze(0))
    >>> [round(value / math.log(10)) for value in product.log_singular_values()[0].tolist()]
    [1000, -1000]
    """

    def __init__(self, tol: float | None = None, dtype: torch.dtype = torch.float64) -> None:
        self._tol, self._dtype = tol, dtype
        # Samples whose rank depends on the accuracy of the range, and the perturbed product that
        # decides it; until it is needed, the factors it starts from.
        self._doubtful: Tensor | None = None
        self._trial: LongProduct | None = None
        self._given: list[Tensor] = []
        self._factors: list[Tensor] = []
        self._basis: Tensor | None = None
        self._alive: Tensor | None = None
        self._side = 0
        # Samples whose factors are all triangles, and the product of the triangles.
        self._straight: Tensor | None = None
        self._triangles: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._factors)

    def multiply(self, factor: Tensor) -> None:
        """Multiply by the next factor.

        Raises SkgeoError if it does not fit the one before, or is NaN or infinite.
        """
        # factor (b, n_l, n_{l-1})
        factor = factor.double()
        given = factor
        basis, alive, before = self._basis, self._alive, self._triangles
        if alive is not None:
            width = self._side if basis is None else basis.shape[1]
            if factor.shape[0] != len(alive) or factor.shape[2] != width:
                raise SkgeoError(
                    f"A factor of shape {tuple(factor.shape)} does not follow one that maps to "
                    f"{width} coordinates in a batch of {len(alive)}."
                )
        if not bool(torch.isfinite(factor).all()):
            raise SkgeoError("A factor holds NaN or infinity: the product is not defined.")
        whole = factor if basis is None else factor @ basis
        if alive is not None and not bool(alive.all()):
            whole = whole * alive.unsqueeze(1)
        size, rows, columns = whole.shape
        tol = self._tol
        if tol is None:
            tol = factor_tolerance(factor.shape[1], factor.shape[2], self._dtype)
        if rows >= columns:
            q, kept = _triangularise(whole)
            sound = _well_conditioned(kept, tol)
        else:
            q, kept = None, whole
            lower = torch.linalg.qr(whole.mT, mode="r").R
            sound = _well_conditioned(lower, tol)
            if not self._factors:
                # Orthonormal rows on the right do not change singular values and are left out.
                q, kept = _triangularise(lower.mT)
        if alive is not None:
            sound = sound & alive.all(1)
        straight = sound if kept.shape[1] == kept.shape[2] else torch.zeros_like(sound)
        after = whole.new_ones((size, min(rows, columns)), dtype=torch.bool)
        bad = (~sound).nonzero().flatten()
        if len(bad):
            p, values, vh = torch.linalg.svd(whole[bad], full_matrices=False)
            after[bad] = values > tol**0.5 * values[:, :1]
            scaled = (values * after[bad]).unsqueeze(2)
            kept = kept.clone()
            kept[bad] = (
                scaled * vh if kept.shape[2] == columns else torch.diag_embed(scaled[..., 0])
            )
            if q is None:
                q = torch.eye(rows).to(whole).repeat(size, 1, 1)
            q[bad] = p
        if q is not None:
            # Where the range has no part, rounding would leave one, and a factor that takes
            # nothing else, such as a maximum of units that are cut off, would measure it.
            q = torch.where((whole != 0.0).any(2, keepdim=True), q, 0.0)
        if self._tol is None:
            self._doubt(given, whole.shape[2], sound, tol)
        self._factors.append(kept)
        self._basis, self._alive, self._side = q, after, rows
        self._straight = straight if self._straight is None else self._straight & straight
        self._triangles = None
        if bool(self._straight.any()):
            self._triangles = _accumulate(before, kept)

    def _doubt(self, factor: Tensor, width: int, sound: Tensor, tol: float) -> None:
        """Mark samples whose rank is uncertain, and multiply the perturbed product for them.

        Weak directions of the range have larger relative errors. That matters if the range is not
        the whole space and may intersect the null space of the factor.
        """
        if self._doubtful is None:
            self._doubtful = torch.zeros_like(sound)
        elif factor.shape[1] < factor.shape[2] or not bool(sound.all()):
            proper = torch.ones_like(sound)
            if width == factor.shape[2] and self._alive is not None:
                proper = ~self._alive.all(1)
            if factor.shape[1] >= factor.shape[2] and bool(proper.any()):
                singular = ~_well_conditioned(torch.linalg.qr(factor, mode="r").R, tol)
                proper = proper & singular
            self._doubtful = self._doubtful | proper
        elif width < factor.shape[2]:
            singular = ~_well_conditioned(torch.linalg.qr(factor, mode="r").R, tol)
            self._doubtful = self._doubtful | singular
        self._given.append(factor)
        if bool(self._doubtful.any()):
            if self._trial is None:
                units = _trial_size(self._dtype) / float(torch.finfo(self._dtype).eps)
                self._trial = LongProduct(units**2 * tol, self._dtype)
            for one in self._given:
                generator = torch.Generator().manual_seed(len(self._trial))
                noise = torch.randn(one.shape[1:], generator=generator, dtype=torch.float64)
                size = _trial_size(self._dtype)
                self._trial.multiply(one * (1.0 + size * noise.to(one)))
            self._given = []

    def log_singular_values(self) -> Tensor:
        """Logarithms of the singular values of the product so far.

        Returns (b, k), descending, k the narrowest width so far; ``-inf`` beyond the rank. Further
        singular values are exactly zero.
        """
        alive, straight = self._alive, self._straight
        if alive is None or straight is None:
            raise SkgeoError("A product of no factors has no singular values.")
        found = torch.full_like(alive, float("-inf"), dtype=torch.float64)
        settled = torch.zeros_like(straight)
        if self._triangles is not None:
            logs, unit = self._triangles
            # Blocks can be separated only after a sweep back, which sorts the upper triangle too.
            narrow = logs.amax(1) - logs.amin(1) <= SPAN
            settled = straight & narrow & (_triangle_condition(unit) <= _TRIANGULAR)
            found[settled] = graded_log_singular_values(logs[settled], unit[settled])
        ranks = alive.sum(1)
        for rank in sorted(set(ranks.tolist())):
            for sweeps, alike in ((1, straight), (3, ~straight)):
                which = ((ranks == rank) & alike & ~settled).nonzero().flatten()
                if rank and len(which):
                    factors = [factor[which] for factor in self._factors]
                    # Nonzero values come first, since the decomposition sorts.
                    factors[-1] = factors[-1][:, :rank]
                    found[which, :rank] = graded_log_singular_values(
                        *_product(_sorted_factors(factors, sweeps))
                    )
        if self._trial is not None and self._doubtful is not None:
            moved = (found - self._trial.log_singular_values()).abs()
            # The difference of two infinities is NaN, and no change: the value is lost already.
            noise = self._doubtful.unsqueeze(1) & (moved > _MOVED)
            found = torch.where(noise, -torch.inf, found).sort(dim=1, descending=True).values
        return found


def product_log_singular_values(factors: Iterable[Tensor], tol: float | None = None) -> Tensor:
    r"""Logarithms of the singular values of :math:`J_L \cdots J_1`.

    factors: (b, n_l, n_{l-1}), in order of application, :math:`J_1` first.
    Returns (b, k): descending, k the narrowest width; ``-inf`` beyond the rank.
    Raises SkgeoError if there are no factors, or they do not fit each other.

    >>> A = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]).double()
    >>> product_log_singular_values([A, 2 * A])
    tensor([[0.6931,   -inf]], dtype=torch.float64)
    """
    product = LongProduct(tol)
    for factor in factors:
        product.multiply(factor)
    return product.log_singular_values()


def _triangularise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """QR factors with a non-negative diagonal."""
    q, r = torch.linalg.qr(matrix)
    signs = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(r)
    return q * signs.unsqueeze(-2), r * signs.unsqueeze(-1)


def _well_conditioned(r: Tensor, tol: float) -> Tensor:
    """Whether all singular values of a triangle are certainly above the tolerance."""
    eye = torch.eye(r.shape[-1], dtype=r.dtype, device=r.device).expand_as(r)
    inverse = torch.linalg.solve_triangular(r, eye, upper=True)
    bound: Tensor = 1.0 / torch.linalg.matrix_norm(inverse)  # at most the smallest; NaN if singular
    return torch.gt(bound, tol**0.5 * torch.linalg.matrix_norm(r))


def _sorted_factors(factors: list[Tensor], sweeps: int) -> list[Tensor]:
    """Triangular factors of the product or its transpose, in order of application."""
    for _ in range(sweeps):
        q: Tensor | None = None
        swept = []
        for factor in reversed(factors):
            q, r = _triangularise(factor.mT if q is None else factor.mT @ q)
            swept.append(r)
        factors = swept
    return factors


def _accumulate(before: tuple[Tensor, Tensor] | None, r: Tensor) -> tuple[Tensor, Tensor]:
    """Multiply by a triangle; the product is ``diag(exp(logs)) unit``, unit with unit diagonal."""
    diagonal = r.diagonal(dim1=1, dim2=2).abs().log()
    if before is None:
        return diagonal, torch.triu(r * torch.exp(-diagonal).unsqueeze(2))
    logs, unit = before
    after = logs + diagonal
    scaled = torch.triu(r * torch.exp(logs.unsqueeze(1) - after.unsqueeze(2)))
    return after, scaled @ unit


def _product(factors: list[Tensor]) -> tuple[Tensor, Tensor]:
    found = None
    for r in factors:
        found = _accumulate(found, r)
    assert found is not None
    return found


def _triangle_condition(unit: Tensor) -> Tensor:
    eye = torch.eye(unit.shape[-1]).to(unit).expand_as(unit)
    inverse = torch.linalg.solve_triangular(unit, eye, upper=True)
    found = torch.linalg.matrix_norm(unit) * torch.linalg.matrix_norm(inverse)
    return torch.where(torch.isfinite(found), found, torch.inf)
