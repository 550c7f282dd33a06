"""Calls that share parameters: one layer called twice, or layers with one weight.

Where the parameter is the weight of linear layers, or a table of embeddings, the calls together are
one call with more positions, or one of a :class:`SharedTable`. Others are not combined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skgeo.jacobian._rules.embedding import EmbeddingRule
from skgeo.jacobian._rules.linear import LinearRule
from skgeo.jacobian._rules.rule import LayerGradients, StructureRule
from skgeo.jacobian._rules.shared_table import MOST_TOKENS, packed


def can_share(rules: Sequence[StructureRule], modules: Sequence[nn.Module]) -> bool:
    """Whether calls of layers with these rules, which share a parameter, can be combined."""
    kinds = {type(rule) for rule in rules}
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
