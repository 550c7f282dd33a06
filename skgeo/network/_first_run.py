"""One sample run through a network, and what that shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skgeo._random_state import random_state_kept
from skgeo.exceptions import SkgeoError
from skgeo.network._batch import Inputs, tensors_of
from skgeo.network._outputs import first_tensor
from skgeo.network._replica import Replica
from skgeo.network._watch import Reads, Watch, WritesTo

# Names of the inputs among the tensors that a forward pass may write to; no parameter's.
_INPUT = "input of the model: "


@dataclass(frozen=True, eq=False)
class FirstRun:
    """One sample run through the network.

    Attributes
    ----------
    outputs : Tensor of shape (1, ..., K)
    calls : Counter of int
        Number of calls of each leaf module, by the ``id`` of the replica's module.
    n_activations : int
        Number of entries that leaf modules returned.
    arithmetic : torch.dtype
        The coarsest floating dtype in which anything was computed.
    """

    outputs: Tensor
    calls: Counter[int]
    n_activations: int
    arithmetic: torch.dtype


def run_once(replica: Replica, inputs: Inputs) -> FirstRun:
    """Forward pass of one sample, which tells the replica its arithmetic.

    Tensors that the forward pass writes to get copies, so nothing of the user's changes.
    Raises SkgeoError if it uses what was computed from the parameters and kept.
    """
    sizes: list[int] = []
    calls: Counter[int] = Counter()

    def count(module: nn.Module, _: Any, output: Any) -> None:
        calls[id(module)] += 1
        found = first_tensor(output)
        sizes.append(0 if found is None else found.numel())

    given = {f"{_INPUT}{i}": tensor for i, tensor in enumerate(tensors_of(inputs))}
    modules = list(replica.module.modules())
    handles = [m.register_forward_hook(count) for m in modules if not list(m.children())]
    try:
        with torch.no_grad(), random_state_kept(replica.device):
            while True:
                sizes.clear()
                calls.clear()
                watch = Watch({**given, **replica.shared}, replica.derived)
                try:
                    with watch:
                        outputs = replica(inputs)
                    break
                except WritesTo as stopped:
                    _give_copies(replica, stopped.names)
                except Reads as stopped:
                    raise SkgeoError(
                        f"The forward pass uses {stopped.name!r}, which was computed from the "
                        "parameters once and kept: a copy of the module has no derivative "
                        "through it. Compute it in forward, or keep the parameter itself."
                    ) from None
    finally:
        for handle in handles:
            handle.remove()
    replica.arithmetic = watch.coarsest or replica.dtype
    return FirstRun(outputs, calls, sum(sizes), replica.arithmetic)


def _give_copies(replica: Replica, names: Sequence[str]) -> None:
    if any(name.startswith(_INPUT) for name in names):
        replica.writes_inputs = True
    replica.own({name for name in names if not name.startswith(_INPUT)})
