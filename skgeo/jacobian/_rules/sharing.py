"""Calls that share parameters: one layer called twice, or layers with one weight.

Where the parameter is the weight of linear layers, or a table of embeddings, the calls together are
one call with more positions, or one of a :class:`SharedTable`. Others are not combined.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from skgeo.jacobian._calls import Call
from skgeo.jacobian._rules.embedding import EmbeddingRule
from skgeo.jacobian._rules.linear import LinearRule
from skgeo.jacobian._rules.rule import LayerGradients
from skgeo.jacobian._rules.rule_table import structure_rule
from skgeo.jacobian._rules.shared_table import MOST_TOKENS, packed


@dataclasses.dataclass(frozen=True, eq=False)
class Use:
    """Parameters and all calls that use them; mostly those of one layer, called once.

    names: local and full names of the parameters.
    """

    calls: tuple[Call, ...]
    names: Mapping[str, str]

    @property
    def name(self) -> str:
        """Names of the calls and, of several, of their parameters."""
        return " + ".join(call.name for call in self.calls)

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the calls and parameters, the same for every batch."""
        return (self.name, *self.names.values())


def uses(calls: Sequence[Call], selected: Mapping[int, str], counts: Counter[int]) -> list[Use]:
    """Parameters that the graph uses in these calls only, where rules cover them.

    selected: names of the selected parameters, by ``id``.
    counts: how often the graph uses each of them.
    """
    callers: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    for index, call in enumerate(calls):
        rule, own = structure_rule(call.module), call.module._parameters
        for local in rule.names if rule else ():
            if id(own.get(local)) in selected:
                callers[id(own[local])].append((index, local))
    found: defaultdict[tuple[int, ...], dict[str, str]] = defaultdict(dict)
    for parameter, by in callers.items():
        numbers, names = tuple(index for index, _ in by), {local for _, local in by}
        if counts[parameter] != len(by) or len(names) > 1:
            continue
        if len(by) == 1 or can_share([calls[index].module for index in numbers]):
            found[numbers][names.pop()] = selected[parameter]
    return [Use(tuple(calls[i] for i in found_in), names) for found_in, names in found.items()]


def can_share(modules: Sequence[nn.Module]) -> bool:
    """Whether calls of layers that share a parameter can be combined."""
    kinds = {type(structure_rule(module)) for module in modules}
    if any(not issubclass(kind, LinearRule | EmbeddingRule) for kind in kinds):
        return False
    tables = [module for module in modules if isinstance(module, nn.Embedding)]
    if len({table.padding_idx for table in tables}) > 1:
        return False
    if not tables:
        return len(kinds) == 1
    return kinds <= {LinearRule, EmbeddingRule} and tables[0].num_embeddings <= MOST_TOKENS


def combined(calls: Sequence[LayerGradients]) -> LayerGradients:
    """One call whose gradients are the sums of those of several calls of the same parameters."""
    tables = [call for call in calls if isinstance(call.module, nn.Embedding)]
    linear = [call for call in calls if not isinstance(call.module, nn.Embedding)]
    if not tables:
        return _one_after_another(linear, 1)
    table = _one_after_another(tables, 0)
    return packed(table, _one_after_another(linear, 1)) if linear else table


def _one_after_another(calls: Sequence[LayerGradients], features: int) -> LayerGradients:
    """All positions of several calls, whose inputs have so many axes behind the positions."""
    if len(calls) == 1:
        return calls[0]
    inputs: list[Tensor] = []
    for call in calls:
        own = call.inputs.shape[call.inputs.dim() - features :]
        inputs.append(call.inputs.reshape(call.n_samples, -1, *own))
    gradients = [
        call.gradients.reshape(*call.gradients.shape[:2], -1, call.gradients.shape[-1])
        for call in calls
    ]
    return dataclasses.replace(
        calls[0], inputs=torch.cat(inputs, 1), gradients=torch.cat(gradients, 2)
    )
