"""Checks of layer rules: their factors must reproduce the derivative."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from skgeo.jacobian._calls import Call
from skgeo.jacobian._rules.rule import LayerGradients, StructureRule
from skgeo.jacobian._rules.rule_table import structure_rule
from skgeo.jacobian._rules.sharing import Use, combined
from skgeo.network._agreement import agree, seeded_normal
from skgeo.network._replica import Replica

Arrange = Callable[[Tensor], Tensor]
# Arrangements of several calls that are tried.
_MOST = 27


@dataclasses.dataclass(frozen=True)
class _Shown:
    """Arrangements, parameters and shapes of calls that passed the check."""

    arrangement: tuple[str, ...]
    names: tuple[str, ...]
    shapes: tuple[torch.Size, torch.Size]

    @staticmethod
    def of(arrangement: tuple[str, ...], found: LayerGradients) -> _Shown:
        shapes = (found.inputs.shape[1:], found.gradients.shape[2:])
        return _Shown(arrangement, tuple(found.names.values()), shapes)


class Certificate:
    """Results of a check on some samples, to be used for batches of others.

    A call of another batch is not checked again if it passed with the same parameters, the same
    arrangement of the samples and the same shapes per sample. A batch with a call that was not
    checked, or that differs in one of these, is checked itself.
    """

    def __init__(self) -> None:
        self._shown: dict[tuple[str, ...], _Shown | None] = {}

    def __bool__(self) -> bool:
        """Whether anything has been checked."""
        return bool(self._shown)

    def note(self, use: Use, arrangement: tuple[str, ...], found: LayerGradients | None) -> None:
        """Keep the result for the calls that use some parameters."""
        self._shown[use.key] = None if found is None else _Shown.of(arrangement, found)

    def read(
        self, use: Use, gradients: Sequence[Tensor | None], size: int
    ) -> tuple[bool, LayerGradients | None]:
        """Whether the result for calls is known, and one call for them if they passed."""
        # gradients (m, *output_shape) of each call
        if use.key not in self._shown:
            return False, None
        shown = self._shown[use.key]
        if shown is None:
            return True, None
        for arrangement, found in _arranged(use, gradients, size, shown.arrangement):
            # A finite sum has finite terms; if it is not finite, the full check decides.
            finite = bool(torch.isfinite(found.gradients.sum()))
            if finite and _Shown.of(arrangement, found) == shown:
                return True, found
        return False, None


def watched(replica: Replica) -> dict[str, nn.Module]:
    """Name the layers that may be covered by a rule.

    Returns those with a rule and a selected parameter, without hooks and parametrisations, which
        may change the inputs or the result of the layer.
    """
    chosen = {id(replica.parameters[name]) for name in replica.selected}
    return {
        name or type(module).__name__: module
        for name, module in replica.module.named_modules()
        if any(id(parameter) in chosen for parameter in module._parameters.values())
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not is_parametrized(module)
        and structure_rule(module) is not None
    }


def edges(outputs: Tensor) -> Counter[int]:
    """Number of uses of each leaf of a graph, by the ``id`` of the leaf."""
    uses: Counter[int] = Counter()
    seen = set()
    stack = [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for parent, _ in node.next_functions:
            if parent is None:
                continue
            if hasattr(parent, "variable"):
                uses[id(parent.variable)] += 1
            else:
                stack.append(parent)
    return uses


class RuleCheck:
    """Check of the layer rules for calls.

    A parameter is admitted if the graph uses it once for each of its calls and, for a random
    cotangent v, the rule's :math:`J^T v` agrees with a plain backward pass. The first condition
    detects a further use of any size; the second detects weights that are read outside the calls of
    their layers, samples on another axis than assumed, samples that influence each other, and wrong
    rules.

    outputs: (b, ...), with their graph.
    directions: (b, m, ...), cotangents of the directions; None for single outputs.
    names: names of the parameters to check.
    """

    def __init__(
        self,
        replica: Replica,
        outputs: Tensor,
        directions: Tensor | None,
        names: Sequence[str],
    ) -> None:
        self._size, self._dtype = len(outputs), replica.arithmetic
        m = outputs[0].numel() if directions is None else directions.shape[1]
        self._weights = seeded_normal(self._size, 1, m, like=outputs)
        cotangent = self._weights[:, 0]
        if directions is not None:
            cotangent = torch.bmm(self._weights, directions.reshape(self._size, m, -1))
        self._expected: dict[str, Tensor | None] = {}
        if names:
            found = torch.autograd.grad(
                outputs,
                [replica.parameters[name] for name in names],
                cotangent.reshape(outputs.shape),
                retain_graph=True,
                allow_unused=True,
            )
            self._expected = dict(zip(names, found, strict=True))

    def admit(
        self, use: Use, gradients: Sequence[Tensor | None]
    ) -> tuple[tuple[str, ...], LayerGradients | None]:
        """Check the calls that use some parameters.

        Returns the arrangement of the samples in each, and one call for all with samples first, or
        None if no arrangement passes the check.
        """
        # gradients (m, *output_shape) of each call
        for arrangement, found in _arranged(use, gradients, self._size):
            rule = structure_rule(found.module)
            assert rule is not None
            if self._agrees(rule, found):
                return arrangement, found
        return (), None

    def _agrees(self, rule: StructureRule, call: LayerGradients) -> bool:
        mixed = call.weighted(self._weights)
        scale = float(rule.trace(mixed)) ** 0.5
        for local, found in rule.total(mixed).items():
            expected = self._expected[call.names[local]]
            if expected is None or not agree(found, expected, self._dtype, scale, floor=False):
                return False
        return True


def _arranged(
    use: Use,
    gradients: Sequence[Tensor | None],
    size: int,
    chosen: tuple[str, ...] | None = None,
) -> Iterator[tuple[tuple[str, ...], LayerGradients]]:
    """Ways to put the samples first in all calls, or the chosen one, and one call for them."""
    given = [gradient for gradient in gradients if gradient is not None]
    if len(given) < len(gradients):
        return
    every = itertools.product(*(_arrangements(call, size) for call in use.calls))
    for ways in itertools.islice(every, _MOST):
        names = tuple(name for name, _ in ways)
        if chosen is not None and names != chosen:
            continue
        parts = []
        for call, gradient, (_, arrange) in zip(use.calls, given, ways, strict=True):
            # A view: only operations that need another order in memory copy it.
            arranged = arrange(gradient.movedim(0, -1)).movedim(-1, 1)
            parts.append(LayerGradients(call.module, arrange(call.inputs[0]), arranged, use.names))
        yield names, combined(parts)


def _arrangements(call: Call, size: int) -> Iterator[tuple[str, Arrange]]:
    """Ways to put the samples first; the check selects one of them."""
    rule = structure_rule(call.module)
    assert rule is not None
    shape, features = call.inputs[0].shape, rule.features(call.module)
    if features is None:
        if shape[:1] == call.output.shape[:1] == (size,):
            yield "as it is", _as_it_is
        return
    before = len(shape) - features
    if before < 1:
        return
    if shape[0] == size:
        yield "as it is", _as_it_is
    elif shape[0] % size == 0:
        yield "folded", lambda tensor: torch.unflatten(tensor, 0, (size, -1))
    if before > 1 and shape[1] == size:
        yield "second axis", lambda tensor: tensor.transpose(0, 1)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
