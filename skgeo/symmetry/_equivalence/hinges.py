r"""The canonical form of a one-hidden-layer ReLU network: one term for each activation boundary.

.. math:: f(x) = A x + c_0 + \sum_H J_H\, \mathrm{relu}(\langle u_H, x\rangle + t_H) ,
          \qquad |u_H| = 1 .

Two networks compute one function on :math:`\mathbb{R}^n` if and only if their forms are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.network._activation import RELU
from skgeo.symmetry._grouping import group_rows
from skgeo.symmetry._hidden_layer import HiddenLayer
from skgeo.symmetry._tolerance import resolve_tolerance

# Directions within so many tolerances of having no sign, and how many are compared in pairs.
_MARGIN = 8.0
_EDGE = 1024


@dataclass(frozen=True, eq=False)
class HingeForm:
    """A one-hidden-layer ReLU network written with one hinge a boundary.

    Boundaries are in the order of a fixed random projection, which does not depend on the order
    of the units.

    Attributes
    ----------
    directions : Tensor of shape (n_boundaries, n)
        Unit normals; their signs are those of a fixed random projection.
    offsets : Tensor of shape (n_boundaries,)
    jumps : Tensor of shape (n_boundaries, k)
        Change of slope across each boundary.
    live : Tensor of shape (n_boundaries,)
        Whether the jump is more than rounding. The others belong to units without effect or that
        cancel.
    jump_size : Tensor of shape (n_boundaries,)
        Largest entry of the jump relative to what was summed in it, or to the mean of that over
        boundaries where it is less than `tol` of the mean. `live` is ``jump_size > tol``.
    linear : Tensor of shape (k, n)
        A.
    constant : Tensor of shape (k,)
        c_0.
    linear_size, constant_size : float
        Largest row of each, relative to the root of the sum of squares, over boundaries, of what
        was summed in it: the size that independent relative errors of the weights would have.
    tol : float
    boundary : Tensor of shape (d,)
        Boundary of each unit, -1 for a unit without incoming weights.
    side : Tensor of shape (d,)
        +1 where the unit is active on the side that `directions` points to, -1 on the other, 0
        without boundary.
    norms : Tensor of shape (d,)
        Norms of the incoming weights.
    spread : float
        Largest distance of a unit's boundary from the one that stands for it.
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

    @property
    def n_live(self) -> int:
        """Number of boundaries across which the slope changes."""
        return int(self.live.sum())

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs of shape (N, k) for inputs of shape (N, n)."""
        hinges = torch.relu(inputs @ self.directions.T + self.offsets)
        return inputs @ self.linear.T + self.constant + hinges @ self.jumps


def hinge_form(
    network: HiddenLayer,
    *,
    tol: Any = "auto",
    seed: int = 0,
    summed: tuple[Tensor, Tensor] | None = None,
    chains: bool = False,
) -> HingeForm:
    r"""Write a one-hidden-layer ReLU network as a sum over its distinct activation boundaries.

    Units of one boundary are summed, whatever their sides, by
    :math:`\mathrm{relu}(-s) = \mathrm{relu}(s) - s`, which moves the linear rest to A and
    :math:`c_0`; units without incoming weights go to :math:`c_0`.

    Parameters
    ----------
    network : HiddenLayer
    tol : "auto" or float, default="auto"
        Boundaries :math:`(u, t)` closer than this, :math:`t` relative to
        :math:`\sqrt{1 + t^2}`, are one. A jump is dropped when it is below `tol` times what was
        summed in it, or when that is below `tol` times its mean over all boundaries.
    seed : int, default=0
        Of the projection that fixes signs. Forms are comparable for equal seeds.
    summed : tuple of two Tensors of shape (k,), optional
        Sizes of what was summed in each row of `skip` and entry of `shift`; by default their own.
    chains : bool, default=False
        Let chains of near boundaries be one, however long: `spread` says how long.

    Returns
    -------
    HingeForm

    Raises
    ------
    SkgeoError
        If the activation is not ReLU, or products of weights overflow.

    Notes
    -----
    Costs :math:`O(d (n + k) + d \log d)`, and :math:`O(d n k)` for A. No loop over units.

    Examples
    --------
    Orientation reversal: ``relu(x-1) + relu(-x-1) + 2 = relu(-x+1) + relu(x+1)``.

    >>> from skgeo.symmetry._hidden_layer import one_hidden
    >>> a = hinge_form(one_hidden([[1.0], [-1.0]], [-1.0, -1.0], [[1.0, 1.0]], [2.0]))
    >>> b = hinge_form(one_hidden([[-1.0], [1.0]], [1.0, 1.0], [[1.0, 1.0]]))
    >>> bool(torch.equal(a.jumps, b.jumps) and torch.equal(a.offsets, b.offsets))
    True
    >>> bool(torch.equal(a.linear, b.linear) and torch.equal(a.constant, b.constant))
    True
    """
    if network.activation != RELU:
        raise SkgeoError(f"The activation is {network.activation}; hinge forms are those of ReLU.")
    tol = resolve_tolerance(tol, network.precision)
    w, b, q = network.weights, network.biases, network.outputs
    d, n = w.shape
    norms = torch.linalg.vector_norm(w, dim=1)
    if not bool(torch.isfinite((norms + b.abs()) @ q.abs().amax(0))):
        raise SkgeoError("weights so large that their products overflow in float64: scale them.")
    bent = norms > 0
    safe = torch.where(bent, norms, 1.0)
    generator = torch.Generator().manual_seed(seed)
    probe = torch.randn(n, generator=generator, dtype=torch.float64)
    cosines = w @ probe / safe
    sign = torch.where(cosines >= 0, 1.0, -1.0).double()
    edge = _MARGIN * tol * float(torch.linalg.vector_norm(probe))
    _settle_signs(w, norms, sign, (bent & (cosines.abs() <= edge)).nonzero()[:, 0], tol)
    factor = sign / safe
    points = torch.empty((d, n + 1), dtype=torch.float64)
    torch.mul(w, factor[:, None], out=points[:, :n])
    offsets = b * factor
    # The inverse hyperbolic sine makes distances of large offsets relative ones.
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

    def by_boundary(values: Tensor) -> Tensor:
        """Sums over the units of each boundary of a (k, d) tensor, as (n_boundaries, k)."""
        total = values.new_zeros((len(first), len(values)))
        return total.index_add_(0, labels, values[:, units].T)

    jumps = by_boundary(q * norms)
    gross = by_boundary(q.abs() * norms)
    mean = gross.sum(0) / max(len(first), 1)
    # A sum is held against its own terms, unless these are nothing beside those of the others.
    jump_size = relative(jumps.abs(), torch.where(gross > tol * mean, gross, mean)).amax(1)

    turned = q * ((sign < 0) & bent)  # units that stand on the other side
    linear = turned @ w
    constants = torch.where(bent, 0.0, b.clamp(min=0))
    constant = network.shift + turned @ b + q @ constants
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
    """Give one sign to parallel directions that are perpendicular to the probe, up to rounding."""
    if not 1 < len(edge) <= _EDGE:
        return
    u = w[edge] / norms[edge, None]
    cosines = u @ u.T
    facing = torch.where(cosines >= 0, 1.0, -1.0).double()
    near = cosines.abs() > 1 - 1e-9 - 16 * tol**2
    i, j = near.nonzero().T
    near[i, j] = torch.linalg.vector_norm(u[i] - facing[i, j, None] * u[j], dim=1) <= 4 * tol
    first = near.to(torch.int8).argmax(1)  # a unit is near itself, and no later one comes first
    sign[edge] = sign[edge[first]] * facing[torch.arange(len(edge)), first]


def relative(values: Tensor, scale: Tensor) -> Tensor:
    """Quotients, zero where `values` is."""
    return torch.where(values > 0, values / scale.clamp(min=1e-300), 0.0)


def _norms(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1)
