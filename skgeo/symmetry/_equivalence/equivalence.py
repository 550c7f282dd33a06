"""Whether two networks compute the same function, and which of many do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skgeo.data import as_samples
from skgeo.exceptions import SkgeoError, warn
from skgeo.models import ResolvedModel, bare_model
from skgeo.network._modelcheck import check_finite, check_real
from skgeo.network._stack import Stack, read_stack
from skgeo.symmetry._equivalence.canonical import check_interface
from skgeo.symmetry._equivalence.comparison import compare_stacks
from skgeo.symmetry._equivalence.parts import compare_parts, is_copy
from skgeo.symmetry._equivalence.report import EquivalenceReport
from skgeo.symmetry._equivalence.witness import (
    ROUNDING_FACTOR,
    Outputs,
    find_witness,
    first_inputs,
    probe_inputs,
    probe_outputs,
    sample_of,
)
from skgeo.symmetry._tolerance import resolve_tolerance


def equivalent(a: Any, b: Any, X: Any = None, *, tol: Any = "auto") -> EquivalenceReport:
    r"""Whether two networks compute the same function, with a certificate or a witness.

    The verdict "equivalent" comes with the symmetry that maps a to b, and is confirmed on inputs.
    The verdict "different" comes with an input at which the outputs differ by more than the
    rounding of the weights explains. If neither is found, the verdict is "undecided".

    Parameters
    ----------
    a, b : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Networks with the same inputs and outputs; only read.
    X : array, Tensor, dict, Dataset or DataLoader, default=None
        Inputs at which to look for a witness, in addition to random ones and points next to
        activation boundaries. Without X the shape of the inputs is taken from the first layers. A
        claim that depends on it, such as whether BatchNorm1d normalises units or positions, is
        then undecided, and so is one that no inputs can confirm.
    tol : "auto" or float, default="auto"
        Largest relative difference of weights in a certificate. "auto" is 1e-10 for float64
        weights and 2e-6 for float32.

    Returns
    -------
    EquivalenceReport
        Verdict, reason, and the certificate or witness.

    Raises
    ------
    NotAModelError
        If `a` or `b` is not a model.
    SkgeoError
        If the networks differ in their inputs or outputs, the weights are not finite, or a network
        cannot be run on X.

    Warns
    -----
    GeometryWarning
        If `tol` is below the precision of the weights.

    See Also
    --------
    skgeo.symmetry.canonical_form : The form that is compared.
    skgeo.symmetry.match_networks : Distance of two networks up to symmetry.
    skgeo.symmetry.apply_symmetry : Apply the symmetry that was found.

    Notes
    -----
    Outputs are compared before a certificate is given, and networks whose outputs differ are
    different whatever their weights say. Only networks of the same code with the same weights,
    such as a network and its deep copy, are equivalent without inputs to run them on. Code is
    compared with its settings: attributes, configuration objects, partial functions and closures
    by value, other functions and classes by identity.

    Networks are compared on all of :math:`\mathbb{R}^n`. Networks that agree on a bounded set
    only, for instance because some units are never active there, are different.

    With one hidden layer of ReLU, leaky ReLU (of slope other than -1) or tanh, and without
    activations, every pair of equal networks is recognised [1]_, [2]_. For deeper chains and
    convolutions, units are matched layer by layer. This recognises permutations, scales, signs,
    duplicates and units without effect, but neither orientation reversals nor symmetries between
    layers: such pairs are undecided. So are networks of two activations of which one is the other
    after affine maps, as sigmoid and tanh are. Two networks of any other architecture that run the
    same code are compared part by part: the chains inside them (also with BatchNorm in eval mode
    and pooling) up to these symmetries, attention heads by their products, and all other weights as
    they are. Other pairs are undecided unless a witness is found, and `reason` names the parts
    that could not be compared.

    References
    ----------
    .. [1] M. Phuong and C. H. Lampert, "Functional vs. parametric equivalence of ReLU networks",
       ICLR 2020.
    .. [2] H. J. Sussmann, "Uniqueness of the weights for minimal feedforward nets with a given
       input-output map", Neural Networks 5(4), 1992.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.symmetry import apply_symmetry
    >>> from skgeo.symmetry import equivalent
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> copy = apply_symmetry(net, permutation=[[2, 0, 1], None], scales=[None, [9.0, 1.0, 0.2]])
    >>> report = equivalent(net, copy)
    >>> report.verdict, report.permutation[0].tolist()
    ('equivalent', [2, 0, 1])
    """
    a, b = bare_model(a), bare_model(b)
    tol = resolve_tolerance(tol, max(_precision(a), _precision(b)))
    stacks, outside = _read(a, b)
    if outside:
        found = compare_parts(a, b, tol, None if X is None else as_samples(X).take(0, 2))
        if found.verdict == "undecided":
            found = replace(found, reason=f"{found.reason}. {outside}")
    else:
        check_interface(stacks[0], stacks[1])
        found = compare_stacks(stacks[0], stacks[1], tol)
    if found.verdict == "different":
        return found
    return _probed(a, b, stacks, X, found)


def _probed(
    a: ResolvedModel,
    b: ResolvedModel,
    stacks: Sequence[Stack],
    X: Any,
    found: EquivalenceReport,
) -> EquivalenceReport:
    """The verdict after a comparison of outputs.

    A certificate is never given on the strength of the weights alone, unless they are equal as they
    are.
    """
    certified = found.verdict == "equivalent"
    # Networks that are equal up to tol may differ by that much.
    level = found.tol if certified else 0.0
    groups = probe_inputs(a, stacks, X, near=not certified or not _is_exact(stacks))
    if certified and not groups:
        groups = first_inputs(a)
    try:
        run = partial(probe_outputs, groups=groups, level=level, chain=len(stacks) == 2)
        ours, theirs = _outputs(a, b, groups, run, likely_equal=certified)
    except SkgeoError:
        if X is not None:
            raise
        groups = []  # inputs that fit one network may not fit the other
    else:
        if len(stacks) == 2 or certified:
            shapes = _other_shapes(groups, ours, theirs, found.tol)
            if shapes is not None:
                return shapes
        witness = find_witness(groups, ours, theirs)
        if witness is not None:
            reason = f"outputs differ by {witness.excess:.1e} times what rounding explains"
            if not certified:
                reason = f"{reason}; {found.reason}"
            return EquivalenceReport(
                "different",
                reason,
                found.residual,
                found.tol,
                witness=witness.input,
                outputs=witness.outputs,
            )
        groups = groups if ours.is_finite and theirs.is_finite else []
    if not certified or groups or is_copy(a, b):
        return found
    reason = (
        f"{found.reason}, but no inputs are known on which finite outputs could confirm it: pass X"
    )
    return EquivalenceReport("undecided", reason, found.residual, found.tol)


def _outputs(
    a: ResolvedModel,
    b: ResolvedModel,
    groups: Sequence[Any],
    run: Callable[..., Outputs],
    *,
    likely_equal: bool,
) -> tuple[Outputs, Outputs]:
    """Outputs of both networks; of equal ones the noise is measured only if it is needed."""
    if likely_equal:
        ours, theirs = run(a, draws=0), run(b, draws=0)
        shapes = [[values.shape for values in each.values] for each in (ours, theirs)]
        if shapes[0] != shapes[1] or find_witness(groups, ours, theirs) is None:
            return ours, theirs
    return run(a), run(b)


def _other_shapes(
    groups: Sequence[Any], ours: Outputs, theirs: Outputs, tol: float
) -> EquivalenceReport | None:
    """A report if the outputs differ in shape, as for other strides or paddings."""
    for group, mine, other in zip(groups, ours.values, theirs.values, strict=True):
        if mine.shape != other.shape:
            reason = f"outputs have {mine.shape[1]} and {other.shape[1]} entries per sample"
            return EquivalenceReport(
                "different",
                reason,
                float("inf"),
                tol,
                witness=sample_of(group, 0),
                outputs=(mine[0], other[0]),
            )
    return None


def equivalence_classes(models: Sequence[Any], X: Any = None, *, tol: Any = "auto") -> np.ndarray:
    """Labels of networks by the function that they compute.

    Parameters
    ----------
    models : sequence of models
        Of any kind and architecture. Networks that differ in their inputs or outputs are never in
        the same class.
    X : array, Tensor, dict, Dataset or DataLoader, default=None
        As in :func:`equivalent`.
    tol : "auto" or float, default="auto"
        As in :func:`equivalent`.

    Returns
    -------
    ndarray of shape (n_models,)
        Labels, int64, counted from 0 in the order of first appearance.

    Raises
    ------
    NotAModelError, SkgeoError
        As :func:`equivalent`, with a note that names the network.

    Warns
    -----
    GeometryWarning
        If a pair is undecided. Its networks are put in different classes.

    See Also
    --------
    skgeo.symmetry.equivalent : Comparison of two networks, with evidence.

    Notes
    -----
    Each network is first run on a few inputs. It is then compared with one network of each class
    that agrees with it there, so n networks of n functions cost n forward passes.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.symmetry import apply_symmetry
    >>> from skgeo.symmetry import equivalence_classes
    >>> a, b = nn.Linear(2, 1), nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> equivalence_classes([b, a, apply_symmetry(b, permutation=[1, 2, 0])])
    array([0, 1, 0])
    """
    labels = np.zeros(len(models), dtype=np.int64)
    seen: list[_Seen] = []
    undecided: list[tuple[int, int]] = []
    for index, model in enumerate(models):
        try:
            net = bare_model(model)
            here = _Seen(index, net, X, tol)
            for label, other in enumerate(seen):
                if not here.may_equal(other):
                    continue
                verdict = equivalent(other.net, net, X, tol=tol).verdict
                if verdict == "equivalent":
                    labels[index] = label
                    break
                if verdict == "undecided":
                    undecided.append((other.index, index))
            else:
                labels[index] = len(seen)
                seen.append(here)
        except SkgeoError as error:
            error.add_note(f"in network {index}")
            raise
    if undecided:
        shown = ", ".join(f"{pair}" for pair in undecided[:5])
        more = f" and {len(undecided) - 5} more" if len(undecided) > 5 else ""
        warn(
            f"Whether the networks {shown}{more} compute the same function is undecided, so their "
            "labels differ. equivalent(a, b, X) says why."
        )
    return labels


class _Seen:
    """A network with its outputs on a few inputs, which tell it from most others."""

    def __init__(self, index: int, net: ResolvedModel, X: Any, tol: Any) -> None:
        tol = resolve_tolerance(tol, _precision(net))
        self.index, self.net = index, net
        stacks, _ = _read(net)
        # Points that do not depend on the network, so outputs can be compared.
        groups = probe_inputs(net, stacks, X)[: 1 if X is not None else 3]
        self.interface = tuple((*s.widths[:1], *s.widths[-1:], s.kinds[0]) for s in stacks)
        self.shapes = [g.shape for g in groups if isinstance(g, Tensor)]
        self.outputs = probe_outputs(net, groups, level=tol, chain=bool(stacks))

    def may_equal(self, other: _Seen) -> bool:
        if self.interface and other.interface and self.interface != other.interface:
            return False
        if self.shapes != other.shapes:
            return True  # not run on the same inputs
        pairs = list(zip(self.outputs.values, other.outputs.values, strict=False))
        if any(ours.shape != theirs.shape for ours, theirs in pairs):
            return False
        return not any(
            float((ours - theirs).abs().max()) > ROUNDING_FACTOR * (noise + more)
            for (ours, theirs), noise, more in zip(
                pairs, self.outputs.noise, other.outputs.noise, strict=False
            )
        )


def _precision(net: ResolvedModel) -> float:
    check_real(net.module)
    check_finite(net.module)
    kinds = {p.dtype for p in net.module.parameters() if p.is_floating_point()}
    return max((torch.finfo(kind).eps for kind in kinds), default=torch.finfo(torch.float64).eps)


def _read(*nets: ResolvedModel) -> tuple[list[Stack], str]:
    """The networks as chains; for those that are not chains, the reason."""
    stacks: list[Stack] = []
    outside: list[str] = []
    for net in nets:
        try:
            stack = read_stack(net, convolutions=True)
        except SkgeoError as error:
            outside.append(str(error))
            continue
        unknown = [str(each) for each in stack.activations if each.scales == "unknown"]
        if unknown:
            outside.append(
                f"The activation {unknown[0]} of {type(net.module).__name__} has a slope of its "
                "own for each unit, and no symmetries of such units are known."
            )
        else:
            stacks.append(stack)
    return stacks, " ".join(dict.fromkeys(outside))


def _is_exact(stacks: Sequence[Stack]) -> bool:
    """Whether the symmetries of all activations are known, so random inputs are enough."""
    return bool(stacks) and all(
        each.scales != "none" for stack in stacks for each in stack.activations
    )
