r"""Classes of hidden units by symmetry or degeneracy.

Layers are classified one at a time. A hidden layer is a function :math:`c + \sum_i
q_i\,\phi(w_i^T h + b_i)` of the layer before it, with values in the arguments of the next layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from skgeo._arguments import check_number, check_option, described
from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.network._activation import Activation, as_activation
from skgeo.symmetry._compression.annihilating import AnnihilatingSets, annihilating_sets
from skgeo.symmetry._grouping import group_rows
from skgeo.symmetry._hidden_layer import unit_arrays

UNIT_CLASSES = (
    "generic",
    "q_degenerate",
    "w_degenerate",
    "dead",
    "always_on",
    "duplicate",
    "antiparallel",
    "reversible",
)
Interval = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class UnitClasses(Result):
    """Classes of the units of one hidden layer.

    Attributes
    ----------
    labels : tuple of str
        Members of ``UNIT_CLASSES``.
    group : Tensor of shape (d,)
        int64. Units of the same group share their activation boundary (duplicate, antiparallel), or
        belong to the set of this index in `reversible.minimal`. -1 for other classes.
    partner : Tensor of shape (d,)
        int64. For a duplicate unit the first other unit with the same boundary and side, for an
        antiparallel unit the first with the same boundary and the opposite side; -1 for others.
    scale : Tensor of shape (d,)
        (w, b) of the unit is `scale` times (w, b) of the partner, so it is negative for
        antiparallel units. NaN without partner.
    residual : Tensor of shape (d,)
        Relative error up to which the unit belongs to its class; NaN for generic units.
    reversible : AnnihilatingSets
        Sets of units that can be sign-flipped together; empty except for rectifiers.

    See Also
    --------
    skgeo.symmetry.classify_units : Makes it.
    """

    labels: tuple[str, ...]
    group: Tensor
    partner: Tensor
    scale: Tensor
    residual: Tensor
    reversible: AnnihilatingSets

    def _line(self) -> str:
        counts = [
            f"{self.labels.count(name)} {name}" for name in UNIT_CLASSES if name in self.labels
        ]
        return f"{len(self.labels)} units: {', '.join(counts)}" if counts else "no units"


def classify_units(
    weights: Tensor,
    biases: Tensor,
    outputs: Tensor,
    *,
    activation: Activation | str = "relu",
    interval: Interval | None = None,
    tol: float = 1e-10,
    max_size: int = 4,
) -> UnitClasses:
    r"""Symmetry class of each unit of one hidden layer.

    The class of a unit is the first of this list that it belongs to:

    1. ``q_degenerate``: it has no outgoing weights, :math:`q_i = 0`.
    2. ``w_degenerate``: it has no incoming weights, :math:`w_i = 0`, so it is constant.
    3. ``dead`` or ``always_on`` (rectifiers, if `interval` is given): its pre-activation is never
       positive, or never negative, on the domain. A leaky unit that is never positive is affine
       too, so it is ``always_on``.
    4. ``duplicate``: another unit has the same activation boundary and side; for activations other
       than rectifiers, the same (w, b).
    5. ``antiparallel``: another unit has the same boundary and the opposite side; for odd
       activations such as tanh, -(w, b).
    6. ``reversible`` (rectifiers): it belongs to a set of units with
       :math:`\sum q_i w_i^T = 0`, which can be sign-flipped together.
    7. ``generic``: none of these.

    Units of classes 1 to 3 are not partners of other units.

    Parameters
    ----------
    weights : Tensor of shape (d, n)
        Incoming weights w_i.
    biases : Tensor of shape (d,)
        Biases b_i.
    outputs : Tensor of shape (k, d)
        Outgoing weights q_i.
    activation : Activation or str, default="relu"
        Activation of the layer. If it has a slope of its own for each unit, only classes 1 and 2
        are recognised.
    interval : tuple of two Tensors of shape (d,), default=None
        Lower and upper bounds of the pre-activations on a domain.
    tol : float, default=1e-10
        Relative tolerance up to which weights are treated as equal or zero.
    max_size : {2, 3, 4}, default=4
        Largest size of the reversible sets that are searched where not all can be found.

    Returns
    -------
    UnitClasses
        Labels, groups, partners and reversible sets.

    Raises
    ------
    SkgeoError
        If the shapes do not fit.

    See Also
    --------
    skgeo.symmetry.annihilating_sets : Reversible sets.
    skgeo.symmetry.SymmetryClassifier : Classes of all hidden units of a network.

    Notes
    -----
    The cost is :math:`O(d (n + k) + d \log d)` and the search for reversible sets.

    Examples
    --------
    >>> w = torch.tensor([[1.0], [2.0], [-1.5], [0.0], [5.0]], dtype=torch.float64)
    >>> b = torch.tensor([1.0, 2.0, 3.0, 1.0, 1.0], dtype=torch.float64)
    >>> q = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    >>> classify_units(w, b, q).labels
    ('duplicate', 'duplicate', 'generic', 'w_degenerate', 'q_degenerate')
    """
    weights, biases, outputs = unit_arrays(weights=weights, biases=biases, outputs=outputs)
    check_number("tol", tol, least=0, below=1)
    check_option("max_size", max_size, (2, 3, 4))
    if interval is not None and (not isinstance(interval, (tuple, list)) or len(interval) != 2):
        raise SkgeoError(f"Got interval={described(interval)}; expected a pair of tensors.")
    d = len(weights) if weights.ndim == 2 else -1
    if biases.shape != (d,) or outputs.dim() != 2 or outputs.shape[1] != d:
        raise SkgeoError(
            f"Got weights of shape {tuple(weights.shape)}, biases of shape {tuple(biases.shape)} "
            f"and outputs of shape {tuple(outputs.shape)}; expected (d, n), (d,) and (k, d)."
        )
    activation = as_activation(activation)
    rectifier = activation.scales == "positive"
    code = torch.zeros(d, dtype=torch.int64)
    residual = torch.full((d,), torch.nan, dtype=torch.float64)
    group = torch.full((d,), -1, dtype=torch.int64)
    partner = group.clone()
    scale = residual.clone()

    def give(name: str, which: Tensor, rest: Tensor) -> None:
        fresh = which & (code == 0)
        code[fresh] = UNIT_CLASSES.index(name)
        residual[fresh] = rest[fresh]

    norms = torch.linalg.vector_norm(weights, dim=1)
    size = torch.hypot(norms, biases)
    share = reading_shares(size, outputs, activation)
    give("q_degenerate", share <= tol, share)
    tilt = torch.where(norms > 0, norms / size.clamp(min=1e-300), 0.0)
    give("w_degenerate", tilt <= tol, tilt)
    if rectifier and interval is not None:
        low, high = interval
        none = torch.zeros_like(norms)
        below, above = activation.slopes or (0.0, 1.0)
        give("dead" if below == 0.0 else "always_on", high <= 0, none)
        give("dead" if above == 0.0 else "always_on", low >= 0, none)
    live = (code == 0).nonzero()[:, 0]
    if activation.per_unit:  # equal (w, b) do not make equal units
        live = live[:0]
    label, side, apart = unit_boundaries(weights[live], biases[live], activation, tol)
    for sign, name in ((1, "duplicate"), (-1, "antiparallel")):
        other = _first_other(label, side, sign)
        paired = other >= 0
        units, others = live[paired], live[other[paired]]
        free = code[units] == 0
        units, others, rest = units[free], others[free], apart[paired][free]
        code[units] = UNIT_CLASSES.index(name)
        residual[units] = rest
        group[units] = label[paired][free]
        partner[units] = others
        ratio = norms[units] / norms[others] if rectifier else torch.ones_like(rest)
        scale[units] = sign * ratio
    sets = AnnihilatingSets((), d, True)
    if rectifier:
        found = annihilating_sets(weights[live], outputs[:, live], tol=tol, max_size=max_size)
        named = tuple(tuple(int(live[i]) for i in s) for s in found.minimal)
        sets = AnnihilatingSets(named, found.size, found.complete)
        for index, members in enumerate(sets.minimal):
            some = torch.tensor(members)
            some = some[code[some] == 0]
            code[some] = UNIT_CLASSES.index("reversible")
            group[some] = index
            whole = list(members)
            left_over = torch.linalg.matrix_norm(outputs[:, whole] @ weights[whole])
            residual[some] = (
                left_over
                / (torch.linalg.vector_norm(outputs[:, whole], dim=0) * norms[whole]).sum()
            )
    labels = tuple(UNIT_CLASSES[i] for i in code.tolist())
    return UnitClasses(labels, group, partner, scale, residual, sets)


def reading_shares(sizes: Tensor, outputs: Tensor, activation: Activation) -> Tensor:
    """Contribution of each unit to the outputs, relative to the mean over units: (d,).

    This is the largest share over the outputs, since the scale of each output is arbitrary. A unit
    is weighted with the size of (w, b) if its values are proportional to it.
    """
    low, high = activation.range
    if activation.scales == "positive":
        weight = sizes
    elif math.isfinite(low) and math.isfinite(high):
        weight = torch.ones_like(sizes)
    else:
        weight = sizes.clamp(min=1.0)
    masses = outputs.abs() * weight
    means = masses.mean(1, keepdim=True) if masses.shape[1] else masses
    shares = torch.where(masses > 0, masses / means.clamp(min=1e-300), 0.0)
    return shares.amax(0) if len(shares) else torch.zeros_like(sizes)


def unit_boundaries(
    weights: Tensor, biases: Tensor, activation: Activation, tol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Group units that are equal up to a symmetry of their activation.

    The rows (w, b) of a group are equal up to a nonzero factor for rectifiers, up to a sign for odd
    activations, and equal for others.

    weights: (d, n), without zero rows.
    Returns label (d,): int64; side (d,): 1 or -1, where units with the same label and side are
        equal up to a positive factor; apart (d,): distance from the first unit of the group.
    """
    # biases (d,)
    d, n = weights.shape
    norms = torch.linalg.vector_norm(weights, dim=1)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(n, generator=generator, dtype=torch.float64)
    signs = torch.where(weights @ probe >= 0, 1.0, -1.0).double()
    rows = torch.empty((d, n + 2), dtype=torch.float64)
    if activation.scales == "positive":
        factor = signs / norms
        last = torch.zeros_like(norms)
        rows[:, n] = torch.asinh(biases * factor)
    else:
        size = torch.hypot(norms, biases)
        if activation.scales != "sign":
            signs = torch.ones_like(signs)
        factor = signs / size
        last = size.log()
        rows[:, n] = biases * factor
    rows[:, :n] = weights * factor[:, None]
    rows[:, n + 1] = last
    label, first = group_rows(rows, tol)
    apart = torch.linalg.vector_norm(rows - rows[first][label], dim=1)
    return label, signs.to(torch.int64), apart


def _first_other(label: Tensor, side: Tensor, sign: int) -> Tensor:
    """For each unit the first other one of its label on its side (sign 1) or the other (-1).

    -1 if there is none.
    """
    d = len(label)
    place = 2 * label + (side > 0).long()
    order = place.argsort(stable=True)
    n_places = 2 * (int(label.max()) + 1) if d else 0
    counts = torch.bincount(place, minlength=n_places)
    starts = counts.cumsum(0) - counts
    if sign < 0:
        target = place ^ 1
        has = counts[target] > 0
        at = starts[target]
    else:
        has = counts[place] > 1
        at = starts[place]
        own = torch.zeros(d, dtype=torch.bool)
        own[order[starts[counts > 0]]] = True  # the first unit of a place takes the second
        at = at + own.long()
    found = torch.full((d,), -1, dtype=torch.int64)
    found[has] = order[at[has]]
    return found


def box_interval(weights: Tensor, biases: Tensor, low: Tensor, high: Tensor) -> Interval:
    """Bounds (d,) of pre-activations for inputs in a box, which may be unbounded.

    They are attained for the first layer of a network.

    >>> w = torch.tensor([[-1.0]], dtype=torch.float64)
    >>> b = torch.tensor([-3.0], dtype=torch.float64)
    >>> box_interval(w, b, *torch.tensor([[-2.0], [2.0]], dtype=torch.float64))
    (tensor([-5.], dtype=torch.float64), tensor([-1.], dtype=torch.float64))
    """
    # weights (d, n); biases (d,); low, high (n,)
    up, down = weights.clamp(min=0), weights.clamp(max=0)
    least, most = (
        _products(up, low) + _products(down, high),
        _products(up, high) + _products(down, low),
    )
    return least.sum(1) + biases, most.sum(1) + biases


def _products(weights: Tensor, bounds: Tensor) -> Tensor:
    return torch.where(weights == 0, 0.0, weights * bounds)


def data_interval(weights: Tensor, biases: Tensor, inputs: Tensor) -> Interval:
    """Smallest and largest pre-activation of each unit over samples.

    >>> w = torch.tensor([[2.0]], dtype=torch.float64)
    >>> data_interval(w, torch.zeros(1, dtype=torch.float64), torch.tensor([[1.0], [3.0]]).double())
    (tensor([2.], dtype=torch.float64), tensor([6.], dtype=torch.float64))
    """
    # weights (d, n); biases (d,); inputs (N, n) -> (d,)
    values = inputs @ weights.T + biases
    return values.amin(0), values.amax(0)
