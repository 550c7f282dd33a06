"""Which layers a rule may speak for: those whose factors reproduce the derivative."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from skgeo.autodiff.recorder import LayerCall
from skgeo.autodiff.replica import Replica
from skgeo.autodiff.structure.rule import LayerGradients, StructureRule
from skgeo.autodiff.structure.table import structure_rule

__all__ = ["Admission", "edges", "watched"]

Arrange = Callable[[Tensor], Tensor]


def watched(replica: Replica) -> dict[str, nn.Module]:
    """Name the layers that may be covered by a rule.

    Parameters
    ----------
    replica : Replica

    Returns
    -------
    dict of str to torch.nn.Module
        Those with a rule and a selected parameter, without hooks or parametrisations: either may
        change what the layer is given or gives.
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
    """Count how often each leaf of a graph is used.

    Parameters
    ----------
    outputs : Tensor

    Returns
    -------
    Counter
        By ``id`` of the leaf.
    """
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


class Admission:
    """The conditions under which a rule's word is taken for a layer call.

    A parameter is admitted if the graph uses it once and, for a random cotangent v, the rule's
    :math:`J^T v` is that of a plain backward pass. The first catches a second use however slight;
    the second everything else: weights that are read past the call of their layer, samples that
    are not where they are taken to be, samples that influence each other, rules that are wrong.

    Parameters
    ----------
    replica : Replica
    outputs : Tensor of shape (b, ...)
        With their graph.
    directions : Tensor of shape (b, m, ...) or None
        Cotangents of the directions; None for single outputs.
    uses : dict of str to int
        How often the graph uses each selected parameter.
    """

    def __init__(
        self,
        replica: Replica,
        outputs: Tensor,
        directions: Tensor | None,
        uses: Mapping[str, int],
    ) -> None:
        self._size = len(outputs)
        self._names = {
            id(replica.parameters[name]): name for name in replica.selected if uses[name] == 1
        }
        m = outputs[0].numel() if directions is None else directions.shape[1]
        generator = torch.Generator(outputs.device).manual_seed(0)
        self._weights = torch.randn(
            (self._size, 1, m), generator=generator, dtype=outputs.dtype, device=outputs.device
        )
        cotangent = self._weights[:, 0]
        if directions is not None:
            cotangent = torch.bmm(self._weights, directions.reshape(self._size, m, -1))
        names = list(self._names.values())
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

    def candidate(self, call: LayerCall) -> bool:
        """Whether gradients by this call's result are worth computing."""
        return len(call.inputs) == 1 and bool(self._own_names(call.module))

    def admit(self, call: LayerCall, gradients: Tensor | None) -> LayerGradients | None:
        """Check a call.

        Parameters
        ----------
        call : LayerCall
        gradients : Tensor of shape (m, \\*output_shape) or None

        Returns
        -------
        LayerGradients or None
            With samples first; None if no arrangement of the samples passes the check.
        """
        if gradients is None:
            return None
        rule, names = structure_rule(call.module), self._own_names(call.module)
        assert rule is not None
        (inputs,) = call.inputs
        for arrange in self._arrangements(rule, call):
            arranged = arrange(gradients.movedim(0, -1)).movedim(-1, 1).contiguous()
            found = LayerGradients(call.module, arrange(inputs), arranged, names)
            if self._agrees(rule, found):
                return found
        return None

    def _own_names(self, module: nn.Module) -> dict[str, str]:
        rule = structure_rule(module)
        own = module._parameters
        return {
            local: self._names[id(own[local])]
            for local in (rule.names if rule else ())
            if id(own.get(local)) in self._names
        }

    def _arrangements(self, rule: StructureRule, call: LayerCall) -> Iterator[Arrange]:
        """Ways to bring the samples first; the check decides between them."""
        shape, size = call.inputs[0].shape, self._size
        features = rule.features(call.module)
        if features is None:
            if shape[:1] == call.output.shape[:1] == (size,):
                yield _as_it_is
            return
        before = len(shape) - features
        if before < 1:
            return
        if shape[0] == size:
            yield _as_it_is
        elif shape[0] % size == 0:
            yield lambda tensor: tensor.unflatten(0, (size, -1))
        if before > 1 and shape[1] == size:
            yield lambda tensor: tensor.transpose(0, 1)

    def _agrees(self, rule: StructureRule, call: LayerGradients) -> bool:
        mixed = call.weighted(self._weights)
        scale = float(rule.trace(mixed)) ** 0.5
        tolerance = 4 * torch.finfo(call.gradients.dtype).eps ** 0.5 * scale
        for local, found in rule.total(mixed).items():
            expected = self._expected[call.names[local]]
            if expected is None:
                return False
            # Written so that NaN fails.
            if not float(torch.linalg.vector_norm(found - expected)) <= tolerance:
                return False
        return True


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
