"""Checks of layer rules: their factors must reproduce the derivative."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from skgeo.jacobian._calls import Call
from skgeo.jacobian._rules.rule import LayerGradients, StructureRule
from skgeo.jacobian._rules.rule_table import structure_rule
from skgeo.network._agreement import agree, seeded_normal
from skgeo.network._replica import Replica

Arrange = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class _Shown:
    """Arrangement, parameters and shapes of a call that passed the check."""

    arrangement: str
    names: tuple[str, ...]
    shapes: tuple[torch.Size, torch.Size]

    @staticmethod
    def of(arrangement: str, found: LayerGradients) -> _Shown:
        shapes = (found.inputs.shape[1:], found.gradients.shape[2:])
        return _Shown(arrangement, tuple(found.names.values()), shapes)


class Certificate:
    """Results of a check on some samples, to be used for batches of others.

    A call of another batch is not checked again if it passed with the same parameters, the same
    arrangement of the samples and the same shapes per sample. A batch with a call that was not
    checked, or that differs in one of these, is checked itself.
    """

    def __init__(self) -> None:
        self._shown: dict[str, _Shown | None] = {}

    def __bool__(self) -> bool:
        """Whether anything has been checked."""
        return bool(self._shown)

    def note(self, call: Call, arrangement: str, found: LayerGradients | None) -> None:
        """Keep the result for a call."""
        self._shown[call.name] = None if found is None else _Shown.of(arrangement, found)

    def read(
        self, call: Call, gradients: Tensor | None, names: Mapping[str, str], size: int
    ) -> tuple[bool, LayerGradients | None]:
        """Whether the result for a call is known, and the call if it passed.

        names: the call's parameters that are used once.
        """
        # gradients (m, *output_shape)
        if call.name not in self._shown:
            return False, None
        shown = self._shown[call.name]
        if shown is None:
            return True, None
        if gradients is None:
            return False, None
        for arrangement, arrange in _arrangements(call, size):
            if arrangement != shown.arrangement:
                continue
            found = _arranged(call, gradients, arrange, names)
            # A finite sum has finite terms; if it is not finite, the full check decides.
            if _Shown.of(arrangement, found) == shown and bool(torch.isfinite(gradients.sum())):
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

    A parameter is admitted if the graph uses it once and, for a random cotangent v, the rule's
    :math:`J^T v` agrees with a plain backward pass. The first condition detects a second use of any
    size; the second detects weights that are read outside the call of their layer, samples on
    another axis than assumed, samples that influence each other, and wrong rules.

    outputs: (b, ...), with their graph.
    directions: (b, m, ...), cotangents of the directions; None for single outputs.
    names: names of the selected parameters that the graph uses once, by ``id``.
    """

    def __init__(
        self,
        replica: Replica,
        outputs: Tensor,
        directions: Tensor | None,
        names: Mapping[int, str],
    ) -> None:
        self._size = len(outputs)
        self._names, self._dtype = names, replica.arithmetic
        m = outputs[0].numel() if directions is None else directions.shape[1]
        self._weights = seeded_normal(self._size, 1, m, like=outputs)
        cotangent = self._weights[:, 0]
        if directions is not None:
            cotangent = torch.bmm(self._weights, directions.reshape(self._size, m, -1))
        self._expected: dict[str, Tensor | None] = {}
        if names:
            found = torch.autograd.grad(
                outputs,
                [replica.parameters[name] for name in names.values()],
                cotangent.reshape(outputs.shape),
                retain_graph=True,
                allow_unused=True,
            )
            self._expected = dict(zip(names.values(), found, strict=True))

    def admit(self, call: Call, gradients: Tensor | None) -> tuple[str, LayerGradients | None]:
        """Check a call.

        Returns the arrangement of the samples, and the call with samples first, or None if no
        arrangement passes the check.
        """
        # gradients (m, *output_shape)
        if gradients is not None:
            rule = structure_rule(call.module)
            assert rule is not None
            names = own_names(call.module, self._names)
            for arrangement, arrange in _arrangements(call, self._size):
                found = _arranged(call, gradients, arrange, names)
                if self._agrees(rule, found):
                    return arrangement, found
        return "none", None

    def _agrees(self, rule: StructureRule, call: LayerGradients) -> bool:
        mixed = call.weighted(self._weights)
        scale = float(rule.trace(mixed)) ** 0.5
        for local, found in rule.total(mixed).items():
            expected = self._expected[call.names[local]]
            if expected is None or not agree(found, expected, self._dtype, scale, floor=False):
                return False
        return True


def own_names(module: nn.Module, known: Mapping[int, str]) -> dict[str, str]:
    """Local and full names of the parameters that a layer's rule may cover.

    known: names of the parameters that the graph uses once, by ``id``.
    """
    rule, own = structure_rule(module), module._parameters
    return {
        local: known[id(own[local])]
        for local in (rule.names if rule else ())
        if id(own.get(local)) in known
    }


def _arranged(
    call: Call, gradients: Tensor, arrange: Arrange, names: Mapping[str, str]
) -> LayerGradients:
    (inputs,) = call.inputs
    # A view: only operations that need another order in memory copy it.
    arranged = arrange(gradients.movedim(0, -1)).movedim(-1, 1)
    return LayerGradients(call.module, arrange(inputs), arranged, names)


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
