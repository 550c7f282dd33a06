"""Hooks on layers that record a forward pass without disturbing it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from skgeo.autodiff.batch import Inputs, map_inputs
from skgeo.autodiff.outputs import first_tensor, with_first_tensor

__all__ = ["LayerCall", "Recorder"]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of one layer.

    Attributes
    ----------
    name : str
        Name of the layer in the module; its later calls are numbered (``relu``, ``relu#1``).
    layer : str
        Name of the layer in the module.
    module : torch.nn.Module
        The layer itself, of the replica.
    inputs : tuple of Tensor
        Tensors the layer was called with, as they were before it ran, without a graph. Kept for
        ``layers="leaves"`` only; empty otherwise.
    output : Tensor
        The first floating tensor the layer returned, on the graph from root to output.
    reaches_output : bool
        Whether the output was computed from it.
    is_cut : bool or None
        Whether all that the output takes from the root passes through it; None where that was
        not tested (``layers="leaves"``).
    """

    name: str
    layer: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    output: Tensor
    reaches_output: bool = True
    is_cut: bool | None = None


class Recorder:
    """Hooks that keep what layers return and hand on a copy of it.

    Parameters
    ----------
    keep_inputs : bool
        Whether to keep what layers are called with as well.

    Attributes
    ----------
    root : Tensor or None
        Where the graph starts; None until there is a floating tensor.
    root_name : str
    calls : list of LayerCall
    without_tensor : set of str
        Layers that returned no floating tensor.
    """

    def __init__(self, keep_inputs: bool) -> None:
        self.root: Tensor | None = None
        self.root_name = "input"
        self.calls: list[LayerCall] = []
        self.without_tensor: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._keep_inputs = keep_inputs
        self._pending: dict[str, list[tuple[Tensor, ...]]] = {}

    def root_at(self, inputs: Inputs) -> Inputs:
        """Start the graph at the first floating tensor of the inputs.

        Parameters
        ----------
        inputs : Tensor, dict of str to Tensor, or tuple of Tensor

        Returns
        -------
        same form as `inputs`
            What to feed the network.
        """

        def fed(tensor: Tensor) -> Tensor:
            if self.root is None and tensor.is_floating_point():
                self.root = tensor.detach().clone().requires_grad_(True)
                return self.root * 1
            return tensor

        return map_inputs(fed, inputs)

    def watch(self, name: str, module: nn.Module, stack: ExitStack) -> None:
        """Put the hooks on one layer until `stack` closes.

        Parameters
        ----------
        name : str
        module : torch.nn.Module
        stack : contextlib.ExitStack
        """

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            # Cloned, since an in-place operation may overwrite what the layer was given.
            copies = tuple(tensor.detach().clone() for tensor in given)
            self._pending.setdefault(name, []).append(copies)

        def after(_: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
            return self._keep(name, module, args, result)

        if self._keep_inputs:
            handle = module.register_forward_pre_hook(before, with_kwargs=True)
            stack.callback(handle.remove)
        stack.callback(module.register_forward_hook(after).remove)

    def _keep(self, layer: str, module: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        inputs = self._pending[layer].pop() if self._keep_inputs else ()
        kept = first_tensor(result)
        if kept is None:
            self.without_tensor.add(layer)
            return result
        number = self._counts[layer]
        self._counts[layer] += 1
        name = layer if number == 0 else f"{layer}#{number}"
        if not kept.requires_grad:
            kept = kept.detach().clone().requires_grad_(True)
        elif _aliases(kept, args):
            # A layer may return its input, or a view of it, which its caller may still write to.
            kept = kept.clone()
        if self.root is None:
            self.root, self.root_name = kept, name
        self.calls.append(LayerCall(name, layer, module, inputs, kept))
        # A copy whose backward pass hands the gradient on as it is, where a product with one would
        # write it anew for every direction.
        return with_first_tensor(result, kept.clone())


def _aliases(tensor: Tensor, args: tuple[Any, ...]) -> bool:
    memory = tensor.untyped_storage().data_ptr()
    return any(isinstance(a, Tensor) and a.untyped_storage().data_ptr() == memory for a in args)
