r"""Canonical form of a one-hidden-layer ReLU network: one term per activation boundary.

.. math:: f(x) = A x + c_0 + \sum_H J_H\, \mathrm{relu}(\langle u_H, x\rangle + t_H) ,
          \qquad |u_H| = 1 .

Two networks compute the same function on :math:`\mathbb{R}^n` if and only if their forms are
equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skgeo._arguments import check_integer
from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.symmetry._grouping import group_rows
from skgeo.symmetry._hidden_layer import as_hidden_layer
from skgeo.symmetry._tolerance import FINE, is_coarse, resolve_tolerance, warn_merged

# Distance from zero, in tolerances, at which the sign of a projection is settled by pairs, and the
# largest number of directions that are compared in pairs.
_MARGIN = 8.0
_EDGE = 1024


@dataclass(frozen=True, eq=False, repr=False)
class HingeForm(Result):
    """A one-hidden-layer ReLU network with one hinge per activation boundary.

    Boundaries are in the order of a fixed random projection, which does not depend on the order
    of the units.

    Attributes
    ----------
    directions : Tensor of shape (n_boundaries, n)
        Unit normals u_H; their signs are fixed by a random projection.
    offsets : Tensor of shape (n_boundaries,)
        Offsets t_H of the boundaries, ``u_H @ x + t_H = 0``.
    jumps : Tensor of shape (n_boundaries, k)
        Change of slope J_H across each boundary.
    live : Tensor of shape (n_boundaries,)
        Whether the jump is larger than rounding, ``jump_size > tol``. Other boundaries belong to
        units that have no effect or cancel.
    jump_size : Tensor of shape (n_boundaries,)
        Largest entry of the jump, relative to the sum of the absolute values of its terms; or to
        the mean of these sums over all boundaries where the sum is less than `tol` times the mean.
    linear : Tensor of shape (k, n)
        Linear part A.
    constant : Tensor of shape (k,)
        Constant part c_0.
    linear_size, constant_size : float
        Largest row of `linear` and entry of `constant`, relative to the root of the sum over
        boundaries of the squares of its terms. Independent relative errors of the weights have
        this size.
    tol : float
        Relative tolerance that was used.
    boundary : Tensor of shape (d,)
        Boundary of each unit, -1 for a unit without incoming weights.
    side : Tensor of shape (d,)
        1 where the unit is active on the side that `directions` points to, -1 where it is active
        on the other side, 0 without boundary.
    norms : Tensor of shape (d,)
        Norms of the incoming weights.
    spread : float
        Largest distance of a unit's boundary from the representative of its group.

    See Also
    --------
    skgeo.symmetry.hinge_form : Makes it.
    """

    directions: Tensor
    offsets: Tensor
    jumps: Tensor
    live: Tensor
    jump_size: Tensor
    linear: Tensor
    constant: Tensor
    linear_size: float
    constant_size: float
    tol: float
    boundary: Tensor
    side: Tensor
    norms: Tensor
    spread: float

    def _line(self) -> str:
        linear = "a linear part" if self.linear_size > self.tol else "no linear part"
        units, boundaries = len(self.boundary), len(self.live)
        return f"{self.n_live} live of {boundaries} boundaries, {units} units, {linear}"

    @property
    def n_live(self) -> int:
        """Number of boundaries across which the slope changes."""
        return int(self.live.sum())

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs of shape (N, k) for inputs of shape (N, n)."""
        hinges = torch.relu(inputs @ self.directions.T + self.offsets)
        return inputs @ self.linear.T + self.constant + hinges @ self.jumps


def hinge_form(
    model: Any,
    *,
    tol: Any = "auto",
    seed: int = 0,
    summed: tuple[Tensor, Tensor] | None = None,
    chains: bool = False,
) -> HingeForm:
    r"""One-hidden-layer ReLU network as a sum over its distinct activation boundaries.

    .. math:: f(x) = A x + c_0 + \sum_H J_H\, \mathrm{relu}(\langle u_H, x\rangle + t_H) ,
              \qquad |u_H| = 1 .

    The units of one boundary are summed, whatever their sides, using
    :math:`\mathrm{relu}(-s) = \mathrm{relu}(s) - s`. The linear remainder is added to A and
    :math:`c_0`, and units without incoming weights to :math:`c_0`.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn model or HiddenLayer
        Network of d hidden units, n inputs and k outputs. Leaky ReLU counts as ReLU and a linear
        part.
    tol : "auto" or float, default="auto"
        Relative tolerance. Boundaries :math:`(u, t)` closer than this, with :math:`t` measured
        relative to :math:`\sqrt{1 + t^2}`, are treated as equal. A boundary is not live if its jump
        is below `tol` times the sum of the absolute values of its terms, or below `tol` times the
        mean of these sums. "auto" is 1e-10 for float64 weights and 2e-6 for float32.
    seed : int, default=0
        Seed of the projection that fixes signs. Forms with different seeds cannot be compared.
    summed : tuple of two Tensors of shape (k,), default=None
        Sizes of the terms that were summed to each row of `skip` and each entry of `shift`; by
        default the sizes of `skip` and `shift`.
    chains : bool, default=False
        Whether to join boundaries that are linked by a chain of near boundaries. `spread` is then
        the length of the longest chain.

    Returns
    -------
    HingeForm
        Boundaries, jumps, and the affine part.

    Raises
    ------
    SkgeoError
        If the activation is neither ReLU nor leaky ReLU, or products of weights overflow.

    See Also
    --------
    skgeo.symmetry.compare_hinges : Whether two such networks compute the same function.
    skgeo.symmetry.minimal_width : Least number of units for the same function.

    Notes
    -----
    The cost is :math:`O(d (n + k) + d \log d)`, and :math:`O(d n k)` for A.

    Examples
    --------
    Orientation reversal: ``relu(x-1) + relu(-x-1) + 2 = relu(-x+1) + relu(x+1)``.

    >>> from skgeo.symmetry import one_hidden
    >>> a = hinge_form(one_hidden([[1.0], [-1.0]], [-1.0, -1.0], [[1.0, 1.0]], [2.0]))
    >>> b = hinge_form(one_hidden([[-1.0], [1.0]], [1.0, 1.0], [[1.0, 1.0]]))
    >>> bool(torch.equal(a.jumps, b.jumps) and torch.equal(a.offsets, b.offsets))
    True
    >>> bool(torch.equal(a.linear, b.linear) and torch.equal(a.constant, b.constant))
    True
    """
    network = as_hidden_layer(model)
    asked, tol = tol, resolve_tolerance(tol, network.precision)
    w, b, q = network.weights, network.biases, network.outputs
    d, n = w.shape
    norms = torch.linalg.vector_norm(w, dim=1)
    if not bool(torch.isfinite((norms + b.abs()) @ q.abs().amax(0))):
        raise SkgeoError("The products of the weights overflow in float64. Scale the weights down.")
    bent = norms > 0
    safe = torch.where(bent, norms, 1.0)
    generator = torch.Generator().manual_seed(check_integer("seed", seed, least=0))
    probe = torch.randn(n, generator=generator, dtype=torch.float64)
    cosines = w @ probe / safe
    sign = torch.where(cosines >= 0, 1.0, -1.0).double()
    edge = _MARGIN * tol * float(torch.linalg.vector_norm(probe))
    _settle_signs(w, norms, sign, (bent & (cosines.abs() <= edge)).nonzero()[:, 0], tol)
    factor = sign / safe
    points = torch.empty((d, n + 1), dtype=torch.float64)
    torch.mul(w, factor[:, None], out=points[:, :n])
    offsets = b * factor
    # The inverse hyperbolic sine makes the distances of large offsets relative.
    points[:, n] = torch.asinh(offsets)
    units = bent.nonzero()[:, 0]
    if len(units) < d:
        points = points[units]
    labels, first = group_rows(points, tol, chains=chains)
    boundary = torch.full((d,), -1, dtype=torch.int64)
    boundary[units] = labels
    spread = 0.0
    if len(first) < len(units):
        apart = torch.linalg.vector_norm(points - points[first][labels], dim=1)
        spread = float(apart.amax())
        if is_coarse(asked, tol):
            near = torch.isin(labels, labels[apart > FINE])  # with those they were joined to
            warn_merged(units[near].tolist(), tol)

    def by_boundary(values: Tensor) -> Tensor:
        """Sums over the units of each boundary of a (k, d) tensor, as (n_boundaries, k)."""
        total = values.new_zeros((len(first), len(values)))
        return total.index_add_(0, labels, values[:, units].T)

    jumps = by_boundary(q * norms)
    gross = by_boundary(q.abs() * norms)
    mean = gross.sum(0) / max(len(first), 1)
    # A sum is compared with its own terms, unless these are negligible next to those of others.
    jump_size = relative(jumps.abs(), torch.where(gross > tol * mean, gross, mean)).amax(1)

    reflected = q * ((sign < 0) & bent)  # relu(-s) = relu(s) - s
    linear = reflected @ w
    constants = torch.where(bent, 0.0, b.clamp(min=0))
    constant = network.shift + reflected @ b + q @ constants
    if network.skip is not None:
        linear = linear + network.skip
    if summed is None:
        skip = torch.zeros_like(constant) if network.skip is None else _norms(network.skip)
        summed = (skip, network.shift.abs())
    spans = torch.hypot(_norms(gross.T), summed[0])
    gross_constant = by_boundary(q.abs() * b.abs())
    spans_constant = _norms(torch.cat([gross_constant.T, (q * constants).abs()], dim=1))
    spans_constant = torch.hypot(spans_constant, summed[1])
    return HingeForm(
        directions=points[first, :n],
        offsets=offsets[units][first],
        jumps=jumps,
        live=jump_size > tol,
        jump_size=jump_size,
        linear=linear,
        constant=constant,
        linear_size=float(relative(_norms(linear), spans).amax()),
        constant_size=float(relative(constant.abs(), spans_constant).amax()),
        tol=tol,
        boundary=boundary,
        side=torch.where(bent, sign, 0.0).to(torch.int64),
        norms=norms,
        spread=spread,
    )


def _settle_signs(w: Tensor, norms: Tensor, sign: Tensor, edge: Tensor, tol: float) -> None:
    """Give parallel directions the same sign where rounding decides that of their projection."""
    if not 1 < len(edge) <= _EDGE:
        return
    u = w[edge] / norms[edge, None]
    cosines = u @ u.T
    facing = torch.where(cosines >= 0, 1.0, -1.0).double()
    near = cosines.abs() > 1 - 1e-9 - 16 * tol**2
    i, j = near.nonzero().T
    near[i, j] = torch.linalg.vector_norm(u[i] - facing[i, j, None] * u[j], dim=1) <= 4 * tol
    first = near.to(torch.int8).argmax(1)  # every unit is near itself
    sign[edge] = sign[edge[first]] * facing[torch.arange(len(edge)), first]


def relative(values: Tensor, scale: Tensor) -> Tensor:
    """Quotients, zero where `values` is zero."""
    quotients: Tensor = torch.where(values > 0, values / scale.clamp(min=1e-300), 0.0)
    return quotients


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms
