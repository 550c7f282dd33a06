r"""Whether two one-hidden-layer ReLU networks compute the same function on :math:`\mathbb{R}^n`.

The difference of two such networks is a network of the same kind. It is zero if and only if its
canonical form (:mod:`skgeo.symmetry._equivalence.hinges`) has no live boundary, no linear part and
no constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.symmetry._equivalence.hinges import HingeForm, hinge_form, relative
from skgeo.symmetry._equivalence.report import EquivalenceReport
from skgeo.symmetry._hidden_layer import HiddenLayer, as_hidden_layer
from skgeo.symmetry._tolerance import resolve_tolerance

# Divisors of the tolerance for crowded boundaries.
_FINER = (1, 2, 4, 16, 256)
# Points that are tried next to a boundary.
_POINTS = 16


@dataclass(frozen=True, eq=False)
class UnitMap:
    """Permutation, scales and flips that map the units of a to those of b.

    Attributes
    ----------
    permutation, scales, flips : Tensor of shape (d,)
        As in :class:`~skgeo.symmetry.EquivalenceReport`.
    bias_shift : Tensor of shape (k,)
    residual : float
        Largest difference between b and the transformed a, relative.
    """

    permutation: Tensor
    scales: Tensor
    flips: Tensor
    bias_shift: Tensor
    residual: float


def difference_network(a: HiddenLayer, b: HiddenLayer) -> HiddenLayer:
    """The network a - b: the units of a, then those of b with their outputs negated.

    Raises SkgeoError if the networks differ in their inputs, outputs or activations.

    >>> from skgeo.symmetry import one_hidden
    >>> net = one_hidden([[1.0]], [0.0], [[1.0]])
    >>> difference_network(net, net)(torch.tensor([[5.0]], dtype=torch.float64))
    tensor([[0.]], dtype=torch.float64)
    """
    if (a.n_inputs, a.n_outputs) != (b.n_inputs, b.n_outputs):
        raise SkgeoError(
            f"Got networks of {a.n_inputs} inputs and {a.n_outputs} outputs, and of {b.n_inputs} "
            f"and {b.n_outputs}; expected the same inputs and outputs."
        )
    if a.activation != b.activation:
        raise SkgeoError(
            f"Got networks with the activations {a.activation} and {b.activation}; expected the "
            "same activation."
        )
    skip = None
    if a.skip is not None or b.skip is not None:
        zero = a.weights.new_zeros((a.n_outputs, a.n_inputs))
        skip = (zero if a.skip is None else a.skip) - (zero if b.skip is None else b.skip)
    return HiddenLayer(
        torch.cat([a.weights, b.weights]),
        torch.cat([a.biases, b.biases]),
        torch.cat([a.outputs, -b.outputs], dim=1),
        a.shift - b.shift,
        skip,
        a.activation,
        max(a.precision, b.precision),
    )


def compare_hinges(a: Any, b: Any, *, tol: Any = "auto") -> EquivalenceReport:
    """Whether two one-hidden-layer ReLU networks compute the same function, with evidence.

    Parameters
    ----------
    a, b : Module, WrappedModel, Checkpoint, scikit-learn model or HiddenLayer
        Networks with the same inputs and outputs, of any widths.
    tol : "auto" or float, default="auto"
        Relative tolerance, as in :func:`~skgeo.symmetry.hinge_form`.

    Returns
    -------
    EquivalenceReport
        The verdict is "different" only if there is an input at which the outputs differ by more
        than rounding of the weights explains. If the difference exceeds `tol` and no such input
        was found, it is "undecided".

    Raises
    ------
    SkgeoError
        If the networks differ in their inputs, outputs or activations.

    See Also
    --------
    skgeo.symmetry.equivalent : The same for networks of any architecture.

    Notes
    -----
    Complete: every pair of equal functions is recognised, whatever the units. The cost is that of
    :func:`~skgeo.symmetry.hinge_form` for both networks together.

    References
    ----------
    .. [1] M. Phuong and C. H. Lampert, "Functional vs. parametric equivalence of ReLU networks",
       ICLR 2020.

    Examples
    --------
    >>> from skgeo.symmetry import one_hidden
    >>> a = one_hidden([[1.0], [-1.0]], [-1.0, -1.0], [[1.0, 1.0]], [2.0])
    >>> b = one_hidden([[-1.0], [1.0]], [1.0, 1.0], [[1.0, 1.0]])
    >>> report = compare_hinges(a, b)
    >>> report.verdict, report.flips[0].tolist(), report.bias_shift.tolist()
    ('equivalent', [-1, -1], [-2.0])
    """
    a, b = as_hidden_layer(a), as_hidden_layer(b)
    difference = difference_network(a, b)
    tol = resolve_tolerance(tol, difference.precision)
    form, residual = _difference_form(a, b, difference, tol)
    if residual <= tol:
        found = unit_map(a, b, form)
        if found is not None and found.residual <= tol:
            return EquivalenceReport(
                "equivalent",
                "permutation, scales and flips map the units of one network to those of the other",
                found.residual,
                tol,
                "units",
                (found.permutation,),
                (found.scales,),
                (found.flips,),
                found.bias_shift,
            )
        return EquivalenceReport(
            "equivalent",
            "equal jumps on all activation boundaries, linear parts and constants; no one-to-one "
            "map of the units was found",
            residual,
            tol,
            "boundaries",
            bias_shift=b.shift - a.shift,
        )
    part = _largest_part(form)
    candidates = _candidates(difference, form)
    outputs, others = a(candidates), b(candidates)
    excess = (outputs - others).abs() / (a.rounding(candidates) + b.rounding(candidates)).clamp(
        min=1e-300
    )
    best = int(excess.amax(1).argmax())
    measured = (outputs[best], others[best])
    if float(excess[best].amax()) > 1:
        return EquivalenceReport(
            "different", part, residual, tol, witness=candidates[best], outputs=measured
        )
    return EquivalenceReport(
        "undecided",
        f"{part} by more than tol, but no input was found where the outputs differ by more than "
        "rounding explains",
        residual,
        tol,
        witness=candidates[best],
        outputs=measured,
    )


def _difference_form(
    a: HiddenLayer, b: HiddenLayer, difference: HiddenLayer, tol: float
) -> tuple[HingeForm, float]:
    """Canonical form of the difference, and its size.

    Joining chains of near boundaries keeps a unit and its copy together, whatever is next to them.
    Where boundaries are so crowded that chains grow long, a finer tolerance cuts them.
    """
    skips = [torch.linalg.vector_norm(net.skip, dim=1) for net in (a, b) if net.skip is not None]
    summed = (sum(skips, start=torch.zeros_like(a.shift)), a.shift.abs() + b.shift.abs())
    best = None
    for finer in _FINER:
        near = max(tol / finer, min(tol, 4 * difference.precision))
        form = hinge_form(difference, tol=near, summed=summed, chains=True)
        jumps = float(form.jump_size.amax()) if len(form.jump_size) else 0.0
        # Units with jumps within tol may have boundaries that are `spread` apart.
        size = max(jumps, form.linear_size, form.constant_size, form.spread)
        if best is None or size < best[1]:
            best = (form, size)
        if best[1] <= tol or form.spread <= tol or near > tol / finer:
            break
    assert best is not None
    return best


def _largest_part(form: HingeForm) -> str:
    if form.n_live:
        return f"the jumps of slope on {form.n_live} activation boundaries differ"
    if form.linear_size >= max(form.constant_size, form.tol):
        return "the linear parts differ"
    return "the constants differ"


def unit_map(a: HiddenLayer, b: HiddenLayer, form: HingeForm) -> UnitMap | None:
    """Match units boundary by boundary and measure the distance of the transformed a from b.

    form: canonical form of the difference a - b.
    Returns None where boundaries do not have equal numbers of units. Units without outgoing or
        without incoming weights need not agree: they are paired in order, and their constants
        count in the bias shift.
    """
    d = a.n_units
    if d != b.n_units:
        return None
    inert_a, inert_b = _inert(a, form.norms[:d]), _inert(b, form.norms[d:])
    if int(inert_a.sum()) != int(inert_b.sum()):
        return None
    best = None
    for by_side in (True, False):
        order_a = _matching_order(a, form, slice(0, d), inert_a, by_side)
        order_b = _matching_order(b, form, slice(d, 2 * d), inert_b, by_side)
        here, there = form.boundary[:d][order_a], form.boundary[d:][order_b]
        if not torch.equal(here[: d - int(inert_a.sum())], there[: d - int(inert_b.sum())]):
            return None
        permutation = torch.empty(d, dtype=torch.int64)
        permutation[order_b] = order_a
        found = _measured(a, b, form, permutation, inert_b)
        if best is None or found.residual < best.residual:
            best = found
        if best.residual <= form.tol:
            break
    return best


def _inert(network: HiddenLayer, norms: Tensor) -> Tensor:
    """Whether units are constant or have no outgoing weights."""
    return (norms == 0) | (network.outputs == 0).all(0)


def _matching_order(
    network: HiddenLayer, form: HingeForm, units: slice, inert: Tensor, by_side: bool
) -> Tensor:
    """Units sorted by boundary, then by side if `by_side`, then by a projection of their jumps."""
    generator = torch.Generator().manual_seed(7)
    probe = torch.randn(network.n_outputs, generator=generator, dtype=torch.float64)
    order = ((probe @ network.outputs) * form.norms[units]).argsort(stable=True)
    if by_side:
        order = order[form.side[units][order].argsort(stable=True)]
    order = order[form.boundary[units][order].argsort(stable=True)]
    return order[inert[order].to(torch.int8).argsort(stable=True)]


def _measured(
    a: HiddenLayer, b: HiddenLayer, form: HingeForm, permutation: Tensor, inert_b: Tensor
) -> UnitMap:
    """The map of units, and the largest difference between the transformed a and b."""
    d = a.n_units
    norms_a, norms_b = form.norms[:d][permutation], form.norms[d:]
    side = form.side[:d][permutation] * form.side[d:]
    live = ~inert_b
    flips = torch.where(live & (side < 0), -1, 1)
    paired = live & (norms_a > 0) & (norms_b > 0)
    scales = torch.where(paired, norms_b / torch.where(paired, norms_a, 1.0), 1.0)
    factor = scales * flips
    weights = a.weights[permutation] * factor[:, None] - b.weights
    biases = a.biases[permutation] * factor - b.biases
    outputs = a.outputs[:, permutation] / scales - b.outputs
    size = torch.hypot(norms_b, b.biases).clamp(min=1e-300)
    errors = [
        (torch.linalg.vector_norm(weights, dim=1) / norms_b.clamp(min=1e-300))[live],
        (biases.abs() / size)[live],
    ]
    # The linear part that flips add must vanish; the constant is added to the output bias.
    flipped = a.outputs * _scattered(flips < 0, permutation)
    annihilated = flipped @ a.weights
    if b.skip is not None:
        annihilated = annihilated - b.skip
    if a.skip is not None:
        annihilated = annihilated + a.skip
    shift = flipped @ a.biases + _constants(a, form.norms[:d]) - _constants(b, form.norms[d:])
    masses = b.outputs.abs() * norms_b
    mean = masses.mean(1, keepdim=True)
    own = torch.where(masses > form.tol * mean, masses, mean)
    errors.append(relative(outputs.abs() * norms_b, own)[:, live].flatten())
    skips = [t for t in (a.skip, b.skip) if t is not None]
    spans = torch.linalg.vector_norm(torch.cat([masses, *skips], dim=1), dim=1)
    errors.append(relative(torch.linalg.vector_norm(annihilated, dim=1), spans))
    constants = [masses, b.outputs * b.biases, a.shift[:, None], b.shift[:, None]]
    spans = torch.linalg.vector_norm(torch.cat(constants, dim=1), dim=1)
    errors.append(relative((a.shift + shift - b.shift).abs(), spans))
    joined = torch.cat(errors)
    residual = float(joined.amax()) if len(joined) else 0.0
    return UnitMap(permutation, scales, flips, shift, residual)


def _scattered(mask: Tensor, permutation: Tensor) -> Tensor:
    """A mask over units of b as a mask over units of a."""
    result = torch.zeros_like(mask)
    result[permutation] = mask
    return result


def _constants(network: HiddenLayer, norms: Tensor) -> Tensor:
    """Constants that units without incoming weights add to the outputs."""
    return network.outputs @ torch.where(norms == 0, network.biases.clamp(min=0), 0.0)


def _candidates(network: HiddenLayer, form: HingeForm) -> Tensor:
    """Inputs where a nonzero network of hinges is likely to be far from zero.

    Next to the boundary with the largest jump J: at three equidistant points across a boundary
    with no other between them, the second difference of the outputs is J times the step, so one of
    the three outputs is at least a quarter of that. For affine parts: zero, and points along the
    largest singular direction in both senses, at several distances.
    """
    n = network.n_inputs
    generator = torch.Generator().manual_seed(11)
    found = [network.weights.new_zeros((1, n))]
    if n and len(form.directions):
        order = form.jump_size.argsort(descending=True, stable=True)
        for boundary in order[:2].tolist():
            found.append(_next_to(form, boundary, generator))
    if n:
        direction = torch.linalg.svd(form.linear, full_matrices=False).Vh[:1]
        far = 1 + (float(form.offsets.abs().median()) if len(form.offsets) else 0.0)
        steps = torch.tensor([1e-2, 1.0, 1e2, 1e4], dtype=torch.float64) * far
        line = torch.cat([steps, -steps])[:, None] * direction
        found.append(line)
    return torch.cat(found)


def _next_to(form: HingeForm, boundary: int, generator: torch.Generator) -> Tensor:
    """Triples of points across one boundary, with steps that reach no other if possible."""
    u, t = form.directions[boundary], form.offsets[boundary]
    scale = 1 + t.abs()
    cloud = torch.randn((_POINTS, len(u)), generator=generator, dtype=torch.float64) * scale
    foot = cloud - ((cloud @ u) + t)[:, None] * u
    clearance = (foot @ form.directions.T + form.offsets).abs()
    cosines = (form.directions @ u).abs().clamp(min=1e-12)
    reach = clearance / cosines
    reach[:, boundary] = torch.inf
    step = 0.9 * reach.amin(1).clamp(max=float(scale))
    across = step[:, None] * u
    return torch.cat([foot - across, foot, foot + across, foot - scale * u, foot + scale * u])
