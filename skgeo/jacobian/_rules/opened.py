"""Layers that multiply by several weights in one function, opened on a replica.

Their forward pass is replaced, while a pass is recorded, by the same formula with a linear layer
over each weight. Whether it is the same is checked by the caller, on outputs and their derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from skgeo.jacobian._rules.attention import ProjectedAttention, is_plain_attention
from skgeo.jacobian._rules.recurrent import StepByStep, is_plain_recurrent
from skgeo.network._replica import Replica


@contextmanager
def opened(replica: Replica) -> Iterator[dict[str, nn.Module]]:
    """Run attention and recurrent layers by linear layers, which are given by name.

    Only those with a selected parameter.
    """
    chosen = {id(replica.parameters[name]) for name in replica.selected}
    layers: dict[str, nn.Module] = {}
    changed: list[nn.Module] = []
    try:
        for name, module in replica.module.named_modules():
            if not any(id(parameter) in chosen for parameter in module.parameters()):
                continue
            found = _open(module)
            if found is not None:
                prefix = f"{name}." if name else ""
                layers.update({f"{prefix}{key}": each for key, each in found.layers.items()})
                module.forward = found
                changed.append(module)
        yield layers
    finally:
        for module in changed:
            del module.forward


def _open(module: nn.Module) -> ProjectedAttention | StepByStep | None:
    if is_parametrized(module):
        return None
    if is_plain_attention(module):
        return ProjectedAttention(cast(nn.MultiheadAttention, module))
    if is_plain_recurrent(module):
        return StepByStep(cast(nn.RNNBase, module))
    return None
