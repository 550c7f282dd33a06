"""Recurrent layers of torch, step by step, so that the rules of linear layers apply.

``nn.RNN``, ``nn.GRU`` and ``nn.LSTM`` run all their steps in one function, in which no call of a
layer can be recorded. On a replica the same formula runs instead: one linear layer over the weights
of the inputs, called once for all steps, and one over those of the state, called at each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

# step(what comes of the input, what comes of the state, state) -> next state
_Step = Callable[[Tensor, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


def is_plain_recurrent(module: nn.Module) -> bool:
    """Whether :class:`StepByStep` knows the formula of a layer."""
    return (
        type(module) in (nn.RNN, nn.GRU, nn.LSTM)
        and "forward" not in vars(module)
        and not getattr(module, "proj_size", 0)
    )


class StepByStep:
    """The forward pass of one recurrent layer by linear layers over its weights.

    layers: these linear layers, by the ends of the names of their weights.
    """

    def __init__(self, module: nn.RNNBase) -> None:
        self._module = module
        self.layers = dict(_linear_layers(module))

    def __call__(self, x: Any, hx: Any = None) -> Any:
        module = self._module
        if not isinstance(x, Tensor) or x.dim() != 3:  # packed sequences, and single ones
            return type(module).forward(module, x, hx)
        first = x.transpose(0, 1) if not module.batch_first else x  # (b, T, i)
        ways = 2 if module.bidirectional else 1
        shape = (module.num_layers * ways, len(first), module.hidden_size)
        given = hx if isinstance(hx, tuple) else (hx,)
        n_states = 2 if isinstance(module, nn.LSTM) else 1
        start = [first.new_zeros(shape) if hx is None else given[i] for i in range(n_states)]
        step, ends = _step(module), []
        for layer in range(module.num_layers):
            found = []
            for way in range(ways):
                state = tuple(each[layer * ways + way] for each in start)
                outputs, end = self._run(first, layer, way, state, step)
                found.append(outputs)
                ends.append(end)
            first = torch.cat(found, 2)
        last = tuple(torch.stack(each) for each in zip(*ends, strict=True))
        result = first if module.batch_first else first.transpose(0, 1)
        return result, last if n_states == 2 else last[0]

    def _run(
        self, x: Tensor, layer: int, way: int, state: tuple[Tensor, ...], step: _Step
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All steps in one direction: states (b, T, h), and the last."""
        suffix = f"l{layer}" + ("_reverse" if way else "")
        moved, across = self.layers[f"ih_{suffix}"](x), self.layers[f"hh_{suffix}"]
        length, states = x.shape[1], []
        for t in reversed(range(length)) if way else range(length):
            state = step(moved[:, t], across(state[0]), state)
            states.append(state[0])
        return torch.stack(states[::-1] if way else states, 1), state


def _linear_layers(module: nn.RNNBase) -> Iterator[tuple[str, nn.Linear]]:
    for name, weight in module._parameters.items():
        if name.startswith("weight_") and weight is not None:
            end = name.removeprefix("weight_")
            bias = module._parameters.get(f"bias_{end}")
            n_outputs, n_inputs = weight.shape
            linear = nn.Linear(n_inputs, n_outputs, bias=bias is not None, device="meta")
            linear._parameters["weight"] = weight
            linear._parameters["bias"] = bias
            yield end, linear


def _step(module: nn.RNNBase) -> _Step:
    """One step of a layer, as in torch's documentation of it."""
    if isinstance(module, nn.LSTM):
        return _lstm
    if isinstance(module, nn.GRU):
        return _gru
    bend = torch.tanh if getattr(module, "nonlinearity", "tanh") == "tanh" else torch.relu
    return lambda moved, across, state: (bend(moved + across),)


def _lstm(moved: Tensor, across: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    i, f, g, o = (moved + across).chunk(4, 1)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _gru(moved: Tensor, across: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (r, z, n), (r_state, z_state, n_state) = moved.chunk(3, 1), across.chunk(3, 1)
    reset, kept = (r + r_state).sigmoid(), (z + z_state).sigmoid()
    new = (n + reset * n_state).tanh()
    return (new + kept * (state[0] - new),)
