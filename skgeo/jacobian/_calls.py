"""Hooks that record the calls of layers during a forward pass."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from skgeo.network._batch import Inputs, map_inputs
from skgeo.network._outputs import first_tensor, with_first_tensor

# action(number, arguments, result, its first floating tensor) -> result to pass on
Action = Callable[[int, tuple[Any, ...], Any, Tensor], Any]


def after_each_call(
    module: nn.Module, action: Action, stack: ExitStack, without: Callable[[], None] | None = None
) -> None:
    """Run an action after each call of a module until `stack` closes.

    Calls are numbered from 0. Those that return no floating tensor are not counted, and run
    `without` instead.
    """
    numbers = itertools.count()

    def after(_: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        tensor = first_tensor(result)
        if tensor is not None:
            return action(next(numbers), args, result, tensor)
        if without is not None:
            without()
        return result

    stack.callback(module.register_forward_hook(after).remove)


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of one layer in a recorded forward pass.

    Attributes
    ----------
    layer : str
        Name of the layer's module.
    number : int
        Number of the call among those of its layer, from 0.
    module : torch.nn.Module
        The layer itself, of the replica.
    inputs : tuple of Tensor
        Copies of the tensors that the layer was called with, without a graph. Empty unless inputs
        are kept.
    output : Tensor
        The first floating tensor the layer returned, on the graph from root to output.
    """

    layer: str
    number: int
    module: nn.Module
    inputs: tuple[Tensor, ...]
    output: Tensor

    @property
    def name(self) -> str:
        """``relu`` for the first call of a layer, ``relu#1`` for the next."""
        return self.layer if self.number == 0 else f"{self.layer}#{self.number}"


class CallRecorder:
    """Hooks that keep the results of layers and pass on copies of them.

    keep_inputs: whether to keep the inputs of layers as well.
    n_samples: number of samples, for each of which embeddings that are called without samples, as
        with positions ``arange(T)``, pass on a result. By default results are as they are.

    Attributes
    ----------
    root : Tensor or None
        Start of the graph; None before the first floating tensor.
    root_call : Call or None
        The call that returned it; None if it is the input.
    calls : list of Call
        Calls of the kept layers, in the order in which they returned.
    ran : list of str
        Names of all watched layers, kept or not, in the order in which they returned.
    without_tensor : set of str
        Kept layers that returned no floating tensor.
    repeated : bool
        Whether a result was repeated for each sample.
    """

    def __init__(self, *, keep_inputs: bool = False, n_samples: int | None = None) -> None:
        self.root: Tensor | None = None
        self.root_call: Call | None = None
        self.calls: list[Call] = []
        self.ran: list[str] = []
        self.without_tensor: set[str] = set()
        self.repeated = False
        self._keep_inputs = keep_inputs
        self._n_samples = n_samples
        self._pending: dict[str, list[tuple[Tensor, ...]]] = {}

    @property
    def root_name(self) -> str:
        """Name of the call that returned the root, or ``"input"``."""
        return "input" if self.root_call is None else self.root_call.name

    def root_at(self, inputs: Inputs) -> Inputs:
        """Start the graph at the first floating tensor of the inputs; returns the new inputs."""

        def fed(tensor: Tensor) -> Tensor:
            if self.root is None and tensor.is_floating_point():
                self.root = tensor.detach().clone().requires_grad_(True)
                return self.root * 1
            return tensor

        return map_inputs(fed, inputs)

    def watch(self, name: str, module: nn.Module, stack: ExitStack, *, keep: bool = True) -> None:
        """Record the calls of one layer until `stack` closes; without `keep`, in `ran` only."""

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            # Cloned, since an in-place operation may overwrite the inputs.
            copies = tuple(tensor.detach().clone() for tensor in given)
            self._pending.setdefault(name, []).append(copies)

        def after(number: int, args: tuple[Any, ...], result: Any, tensor: Tensor) -> Any:
            self.ran.append(name)
            return self._keep(name, number, module, args, result, tensor) if keep else result

        def without() -> None:
            if keep:
                self.without_tensor.add(name)
                self._taken(name)

        if keep and self._keep_inputs:
            handle = module.register_forward_pre_hook(before, with_kwargs=True)
            stack.callback(handle.remove)
        after_each_call(module, after, stack, without)

    def _taken(self, layer: str) -> tuple[Tensor, ...]:
        """Inputs of the call that ends now; calls of one layer may be nested."""
        return self._pending[layer].pop() if self._keep_inputs else ()

    def _keep(
        self,
        layer: str,
        number: int,
        module: nn.Module,
        args: tuple[Any, ...],
        result: Any,
        tensor: Tensor,
    ) -> Any:
        if not tensor.requires_grad:
            tensor = tensor.detach().clone().requires_grad_(True)
        elif _aliases(tensor, args):
            # A layer may return its input, or a view of it, which its caller may still write to.
            tensor = tensor.clone()
        inputs = self._taken(layer)
        if self._n_samples is not None and _without_samples(module, inputs, self._n_samples):
            inputs = tuple(_repeated(each, each.dim(), self._n_samples) for each in inputs)
            tensor = _repeated(tensor, tensor.dim() - 1, self._n_samples)
            self.repeated = True
        call = Call(layer, number, module, inputs, tensor)
        if self.root is None:
            self.root, self.root_call = tensor, call
        self.calls.append(call)
        # The backward pass of a copy returns the gradient itself; that of a product with one would
        # copy it for every direction.
        return with_first_tensor(result, tensor.clone())


def _aliases(tensor: Tensor, args: tuple[Any, ...]) -> bool:
    memory = tensor.untyped_storage().data_ptr()
    return any(isinstance(a, Tensor) and a.untyped_storage().data_ptr() == memory for a in args)


def _without_samples(module: nn.Module, inputs: tuple[Tensor, ...], n_samples: int) -> bool:
    """Whether an embedding was called with the indices of one sample, or of positions alone."""
    if not isinstance(module, nn.Embedding) or len(inputs) != 1 or inputs[0].dim() == 0:
        return False
    length = inputs[0].shape[0]
    # Indices of all samples may have been joined in one axis.
    return n_samples > 1 and (length == 1 if inputs[0].dim() > 1 else length % n_samples > 0)


def _repeated(tensor: Tensor, axes: int, n_samples: int) -> Tensor:
    """A tensor once for each sample, without a copy.

    axes: how many of its axes are those of the indices; the first of several has length one.
    """
    one = tensor[0] if axes > 1 else tensor
    return one.expand(n_samples, *one.shape)
