r"""Classes of hidden units: which symmetry or degeneracy each takes part in.

One layer at a time: a hidden layer is read as a function :math:`c + \sum_i q_i\,\phi(w_i^T h +
b_i)` of the layer before it, with values in what the next layer computes from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.network._activation import Activation, as_activation
from skgeo.symmetry._compression.annihilating import AnnihilatingSets, annihilating_sets
from skgeo.symmetry._grouping import group_rows

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
    """A class for each unit of one hidden layer.

    Attributes
    ----------
    labels : tuple of str
        Members of ``UNIT_CLASSES``.
    group : Tensor of shape (d,)
        int64. Units of one group share their activation boundary (duplicate, antiparallel), or are
        the set of this index in `reversible.minimal`. -1 elsewhere.
    partner : Tensor of shape (d,)
        int64. For duplicate and antiparallel units the first other unit on the same, or the
        opposite, side of the boundary; -1 elsewhere.
    scale : Tensor of shape (d,)
        (w, b) of the unit is `scale` times (w, b) of the partner: negative for antiparallel units.
        NaN without partner.
    residual : Tensor of shape (d,)
        By how much the class fails to hold exactly, relative; NaN for generic units.
    reversible : AnnihilatingSets
        Sets of units that may be reversed together; none but for rectifiers.
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
    r"""Say of each hidden unit which symmetry or degeneracy it takes part in.

    A unit gets the first class of this list that it belongs to:

    1. ``q_degenerate``: nothing reads it, :math:`q_i = 0`.
    2. ``w_degenerate``: it reads nothing, :math:`w_i = 0`, and is a constant.
    3. ``dead``, ``always_on`` (rectifiers, where `interval` says so): its pre-activation is never
       positive on the domain, or never negative. A leaky unit that is never positive is affine too,
       and counts as always on.
    4. ``duplicate``: another unit has its activation boundary and side; for other activations
       than rectifiers, its very (w, b).
    5. ``antiparallel``: another unit has its boundary and the other side; for odd activations such
       as tanh, -(w, b).
    6. ``reversible`` (rectifiers): it is in a set of units with :math:`\sum q_i w_i^T = 0`.
    7. ``generic``.

    Units of classes 1 to 3 are no partners for others.

    Parameters
    ----------
    weights : Tensor of shape (d, n)
    biases : Tensor of shape (d,)
    outputs : Tensor of shape (k, d)
        Outgoing weights.
    activation : Activation or str, default="relu"
        Of a layer whose units have a slope each only classes 1 and 2 are known.
    interval : tuple of two Tensors of shape (d,), optional
        Bounds of the pre-activations on a domain: :func:`box_interval`, :func:`data_interval`.
    tol : float, default=1e-10
        Relative.
    max_size : int, default=4
        Of reversible sets, where not all can be found.

    Returns
    -------
    UnitClasses

    Notes
    -----
    Costs :math:`O(d (n + k) + d \log d)` and the search for reversible sets.

    Examples
    --------
    >>> w = torch.tensor([[1.0], [2.0], [-1.5], [0.0], [5.0]], dtype=torch.float64)
    >>> b = torch.tensor([1.0, 2.0, 3.0, 1.0, 1.0], dtype=torch.float64)
    >>> q = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    >>> classify_units(w, b, q).labels
    ('duplicate', 'duplicate', 'generic', 'w_degenerate', 'q_degenerate')
    """
    d = len(weights)
    if biases.shape != (d,) or outputs.dim() != 2 or outputs.shape[1] != d:
        raise SkgeoError(
            f"Got weights of shape {tuple(weights.shape)}, biases of shape {tuple(biases.shape)} "
            f"and outputs of shape {tuple(outputs.shape)}; expected (d, n), (d,) and (k, d)."
        )
    weights, biases, outputs = (t.double() for t in (weights, biases, outputs))
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
    """How much what reads each unit has of it, relative to the mean of all units: (d,).

    The largest share over the outputs: each has a scale of its own, which what follows may make up
    for. A unit weighs with the size of (w, b) where its values grow with it.
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
    """Group units that are one up to a symmetry of their activation.

    weights: (d, n), no row zero.
    activation: rectifiers: up to a factor of either sign; odd ones: up to a sign; others: equal (w,
        b).
    Returns label (d,): int64; side (d,): +1 or -1; units of one label are equal, up to a positive
        factor, where their sides are; apart (d,): distance from the unit that stands for the label.
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
    """For each unit the first other one of its label on its side (sign +1) or not (-1), or -1."""
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
        own[order[starts[counts > 0]]] = True  # the first of a place looks at the second
        at = at + own.long()
    found = torch.full((d,), -1, dtype=torch.int64)
    found[has] = order[at[has]]
    return found


def box_interval(weights: Tensor, biases: Tensor, low: Tensor, high: Tensor) -> Interval:
    """Bounds of pre-activations for inputs in a box, which may be unbounded.

    Returns (d,): attained by single units: exact for the first layer of a network, and bounds for
        later ones.

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
    """Least and largest pre-activation of each unit over samples.

    >>> w = torch.tensor([[2.0]], dtype=torch.float64)
    >>> data_interval(w, torch.zeros(1, dtype=torch.float64), torch.tensor([[1.0], [3.0]]).double())
    (tensor([2.], dtype=torch.float64), tensor([6.], dtype=torch.float64))
    """
    # weights (d, n); biases (d,); inputs (N, n) -> (d,)
    values = inputs @ weights.T + biases
    return values.amin(0), values.amax(0)
