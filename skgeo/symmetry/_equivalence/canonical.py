"""Canonical parameters of networks under their known symmetries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.models import ResolvedModel, bare_model
from skgeo.network._activation import TANH
from skgeo.network._batch import take
from skgeo.network._stack import Stack, read_stack
from skgeo.symmetry._equivalence.correspondence import match_forms
from skgeo.symmetry._equivalence.hinge_equivalence import compare_hinges
from skgeo.symmetry._equivalence.hinges import HingeForm, hinge_form
from skgeo.symmetry._equivalence.layerwise import LayerForm, canonical_layers, random_keys
from skgeo.symmetry._equivalence.witness import find_witness, probe_inputs, probe_outputs
from skgeo.symmetry._hidden_layer import HiddenLayer, one_hidden_of
from skgeo.symmetry._tolerance import resolve_tolerance

# Random inputs of each size at which the canonical network is compared with the one given.
_SAMPLES = 8


@dataclass(frozen=True, eq=False, repr=False)
class CanonicalForm(Result):
    """A network up to the symmetries of its architecture.

    Attributes
    ----------
    kind : {"linear", "hinges", "tanh", "layers"}
        "hinges": one hidden layer of ReLU or leaky ReLU; "tanh": one hidden layer of tanh;
        "linear": no activation; "layers": everything else.
    complete : bool
        Whether networks of this kind compute the same function if and only if their forms agree.
        False for "layers", where agreement is sufficient, but necessary for general networks only.
    tol : float
        Relative tolerance up to which units were treated as equal.
    hinges : HingeForm or None
        For the kinds "hinges" and "linear": one term per boundary.
    layers : LayerForm or None
        For the other kinds: weights, biases, and the units they came from.

    See Also
    --------
    skgeo.symmetry.canonical_form : Makes it.
    """

    kind: str
    complete: bool
    tol: float
    hinges: HingeForm | None
    layers: LayerForm | None
    network: HiddenLayer | None = field(repr=False)
    stack: Stack = field(repr=False)

    def _line(self) -> str:
        widths = " ".join(map(str, self.widths)) or "none"
        known = "complete" if self.complete else "not complete"
        return f"{self.kind}, hidden units {widths}, {known}, tol {self.tol:.1e}"

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each hidden layer that is left; for "hinges" the number of boundaries."""
        if self.hinges is not None:
            return (self.hinges.n_live,) if self.kind == "hinges" else ()
        assert self.layers is not None
        return self.layers.widths

    def distance(self, other: CanonicalForm) -> float:
        """Largest relative difference of two forms.

        Parameters
        ----------
        other : CanonicalForm
            Form of a network with the same inputs and outputs.

        Returns
        -------
        float
            inf if kinds, layers or units have no partner. For the kind "hinges", boundaries
            without a partner up to the larger `tol` count with their whole jump.

        Raises
        ------
        SkgeoError
            If the networks differ in their inputs or outputs.
        """
        check_interface(self.stack, other.stack)
        if self.network is not None and other.network is not None:
            tol = max(self.tol, other.tol)
            return compare_hinges(self.network, other.network, tol=tol).residual
        if self.layers is None or other.layers is None:
            return float("inf")
        if self.stack.settings != other.stack.settings:
            return float("inf")
        return match_forms(self.layers, other.layers, tol=float("inf")).residual

    def matches(self, other: CanonicalForm) -> bool:
        """Whether two forms agree up to the larger of their tolerances.

        Parameters
        ----------
        other : CanonicalForm
            Form of a network with the same inputs and outputs.

        Returns
        -------
        bool
            ``distance(other) <= max(tol, other.tol)``.

        Raises
        ------
        SkgeoError
            If the networks differ in their inputs or outputs.
        """
        return self.distance(other) <= max(self.tol, other.tol)

    def module(self) -> nn.Module:
        """The canonical network, which computes the same function.

        Returns
        -------
        torch.nn.Module
            Of the same classes as the original network, with other widths. For the kind "hinges"
            it has one unit per boundary, oriented by a random projection, and two units per
            dimension of the remaining linear part. It is usually wider than the original network;
            for a narrow one use :func:`~skgeo.symmetry.compress`. Of layers without an activation
            between them, all but the last have orthonormal rows. A hidden layer without units gets
            one unit of zeros, since torch has no layers of width 0.
        """
        if self.hinges is not None:
            weights, biases = _hinge_layers(self.hinges, self.stack)
            kept = [i for i, each in enumerate(self.stack.activations) if not each.is_identity]
        else:
            assert self.layers is not None
            weights, biases = list(self.layers.weights), list(self.layers.biases)
            kept = list(self.layers.layers)
        _fill_empty(weights, biases)
        return self.stack.rebuild(*_spread_out(self.stack, weights, biases, kept))


def canonical_form(model: Any, *, tol: Any = "auto") -> CanonicalForm:
    r"""Canonical form that all networks related by known symmetries share.

    - One hidden layer of ReLU or leaky ReLU (complete): :math:`f(x) = A x + c_0 +
      \sum_H J_H\,\mathrm{relu}(\langle u_H, x\rangle + t_H)` with one term per activation
      boundary.
    - One hidden layer of tanh (complete): signs are fixed, units without effect dropped, constant
      units added to the bias, and equal units merged. The remaining units are unique up to order
      [1]_.
    - No activation (complete): the product of the matrices.
    - Other chains: rows (w, b) have norm 1 (ReLU, leaky ReLU) or a fixed sign (tanh) and are sorted
      by a random key, from the first layer to the last; convolutions by channel. Networks with
      equal forms compute the same function. The converse holds for general networks of
      non-increasing widths [2]_ and fails for others.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        A chain of linear layers and convolutions with activations between them; only read.
    tol : "auto" or float, default="auto"
        Relative tolerance up to which units are treated as equal. "auto" is 1e-10 for float64
        weights and 2e-6 for float32.

    Returns
    -------
    CanonicalForm
        Kind, completeness, and the weights in canonical form.

    Raises
    ------
    SkgeoError
        If the network is not a chain (the message names the module that prevents it), the
        symmetries of an activation are not known, the weights are complex or not finite, or the
        canonical network has other outputs at random inputs.

    Warns
    -----
    GeometryWarning
        If `tol` is below the precision of the weights.

    See Also
    --------
    skgeo.symmetry.equivalent : Comparison of two networks, with evidence.
    skgeo.symmetry.hinge_form : The form of one hidden layer of ReLU.

    Notes
    -----
    Units are sorted by keys. Two keys that agree up to rounding may come in either order, which
    :meth:`CanonicalForm.matches` allows for. The cost is a few passes over the weights and
    :math:`O(d \log d)` per layer of d units.

    References
    ----------
    .. [1] H. J. Sussmann, "Uniqueness of the weights for minimal feedforward nets with a given
       input-output map", Neural Networks 5(4), 1992.
    .. [2] M. Phuong and C. H. Lampert, "Functional vs. parametric equivalence of ReLU networks",
       ICLR 2020.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.symmetry import apply_symmetry
    >>> from skgeo.symmetry import canonical_form
    >>> net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    >>> copy = apply_symmetry(net, permutation=[3, 1, 0, 2], flips=[1, -1, -1, 1])
    >>> form = canonical_form(net)
    >>> form.kind, form.complete, form.matches(canonical_form(copy))
    ('tanh', True, True)
    """
    resolved = bare_model(model)
    stack = read_stack(resolved, convolutions=True)
    form = _form_of(stack, tol)
    _check_same(resolved, form)
    return form


def _form_of(stack: Stack, tol: Any) -> CanonicalForm:
    network = one_hidden_of(stack)
    if network is not None:
        kind = "hinges" if network.n_units else "linear"
        hinges = hinge_form(network, tol=tol)
        return CanonicalForm(kind, True, hinges.tol, hinges, None, network, stack)
    tol = resolve_tolerance(tol, torch.finfo(stack.dtype).eps)
    form = stack_form(stack, tol)
    dense = all(kind == "linear" for kind in stack.kinds)
    # One hidden layer of tanh is unique up to order and signs: Sussmann (1992).
    kind = "tanh" if dense and form.activations == (TANH,) else "layers"
    return CanonicalForm(kind, kind == "tanh", tol, None, form, None, stack)


def _check_same(model: ResolvedModel, form: CanonicalForm) -> None:
    """Raise SkgeoError if the canonical network has other outputs at random inputs."""
    groups = [
        take(group, slice(0, _SAMPLES)) for group in probe_inputs(model, [form.stack], near=False)
    ]
    both = [
        probe_outputs(each, groups, level=form.tol, chain=True)
        for each in (model, replace(model, module=form.module()))
    ]
    witness = find_witness(groups, both[0], both[1])
    if witness is not None:
        apart = float((witness.outputs[0] - witness.outputs[1]).abs().max())
        raise SkgeoError(
            f"The canonical network differs from the one given by {apart:.2g} at a random input, "
            f"{witness.excess:.2g} times what rounding explains, so the form went wrong. Pass a "
            "smaller tol, and report this network."
        )


def check_interface(a: Stack, b: Stack) -> None:
    """Raise SkgeoError for networks with different inputs or outputs."""
    facts = [(net.kinds[0], net.widths[0], net.kinds[-1], net.widths[-1]) for net in (a, b)]
    if facts[0] != facts[1]:
        shown = [
            f"{n} inputs to a {first} layer and {k} outputs of a {last} layer"
            for first, n, last, k in facts
        ]
        raise SkgeoError(
            f"The networks have different interfaces: {shown[0]}, and {shown[1]}. Only networks "
            "with the same inputs and outputs can be compared."
        )


def stack_form(stack: Stack, tol: float, *, drop_off: bool = True) -> LayerForm:
    """Normal form of a chain, layer by layer.

    drop_off: whether to drop ReLU units that can never be active.
    Raises SkgeoError if the symmetries of an activation are not known.
    """
    return canonical_layers(
        stack.weights,
        stack.biases,
        stack.activations,
        tol=tol,
        foldable=[kind == "linear" for kind in stack.kinds[1:]],
        drop_off=drop_off,
    )


def _hinge_layers(form: HingeForm, stack: Stack) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases with one unit per boundary and two per dimension of the linear part."""
    live = form.live
    rows, offsets, outputs = form.directions[live], form.offsets[live], form.jumps[live].T
    linear, constant = form.linear, form.constant
    slopes = [each.slope for each in stack.activations if not each.is_identity]
    if not slopes:
        return [linear], [constant]
    slope = slopes[0]
    # relu(z) = (leaky(z) - s z) / (1 - s)
    outputs = outputs / (1 - slope)
    linear = linear - slope * outputs @ rows
    constant = constant - slope * outputs @ offsets
    gross = (form.jumps.abs().sum(), torch.linalg.matrix_norm(linear))
    left, sizes, right = torch.linalg.svd(linear, full_matrices=False)
    kept = sizes > form.tol * max(gross)
    left, right = left[:, kept] * sizes[kept], right[kept]
    sign = torch.where(random_keys(right, 0) < 0, -1.0, 1.0).double()
    left, right = left * sign / (1 + slope), right * sign[:, None]
    # leaky(z) - leaky(-z) = (1 + s) z
    return (
        [torch.cat([rows, right, -right]), torch.cat([outputs, left, -left], dim=1)],
        [torch.cat([offsets, offsets.new_zeros(2 * len(right))]), constant],
    )


def _fill_empty(weights: list[Tensor], biases: list[Tensor]) -> None:
    """Give layers without units one unit of zeros, since torch has no layers of width 0."""
    for index, bias in enumerate(biases[:-1]):
        if len(bias) == 0:
            after, before = weights[index + 1], weights[index]
            weights[index] = before.new_zeros((1, *before.shape[1:]))
            biases[index] = bias.new_zeros(1)
            weights[index + 1] = after.new_zeros((after.shape[0], 1, *after.shape[2:]))


def _spread_out(
    stack: Stack, weights: Sequence[Tensor], biases: Sequence[Tensor], kept: Sequence[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """Factor products of layers into the original number of layers."""
    spread: list[Tensor] = []
    shifts: list[Tensor] = []
    starts = [0, *(layer + 1 for layer in kept)]
    stops = [*(layer + 1 for layer in kept), len(stack.weights)]
    for weight, bias, start, stop in zip(weights, biases, starts, stops, strict=True):
        if stop - start > 1:
            factors = _factors(weight.flatten(1), stack.widths[start + 1 : stop])
            spread += factors
            shifts += [bias.new_zeros(len(factor)) for factor in factors[:-1]]
        elif stack.kinds[start] == "conv":
            spread.append(weight.reshape(*weight.shape[:2], *stack.weights[start].shape[2:]))
        else:
            spread.append(weight.flatten(1))
        shifts.append(bias)
    return spread, shifts


def _factors(matrix: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Matrices of the given widths and product; all but the last have orthonormal rows."""
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    rank = min(len(sizes), *widths)
    left, right = left[:, :rank] * sizes[:rank], right[:rank]
    sign = torch.where(random_keys(right, 0) < 0, -1.0, 1.0).double()
    between = [torch.eye(rank, dtype=torch.float64) for _ in widths[1:]]
    return [right * sign[:, None], *between, left * sign]
