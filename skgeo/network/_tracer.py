"""Recording what a forward pass does with its input, without a change to anything global."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from skgeo.network._switches import no_fast_path


class PlaceholderTracer(fx.Tracer):
    """Records what is done with a placeholder.

    ``Tracer.trace`` would swap methods of ``nn.Module`` for the whole process while it runs, which
    other threads would see. Here the leaves of a private copy have a forward pass of their own
    instead, and nothing global is changed.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.root = root
        self.graph = fx.Graph(tracer_cls=type(self))
        self.tensor_attrs: dict[Any, str] = {}
        self.leaves: dict[str, Callable[..., Any]] = {}

    def enter(self, name: str) -> Any:
        """The placeholder that stands for an input."""
        return self.create_proxy("placeholder", name, (), {})


class ExampleTracer(PlaceholderTracer):
    """Records what is done with an example, of which shapes and types are known on the way.

    Lengths that are asked for are those of the example. Its values are not looked at: a forward
    pass that decides by them raises, as it does for a placeholder.

    example: a few samples.
    """

    def __init__(self, root: nn.Module, example: Any) -> None:
        super().__init__(root)
        self._example = example

    def enter(self, name: str) -> Any:
        """The stand-in for the example."""
        proxy: Any = self.create_proxy("placeholder", name, (), {})
        proxy.value = self._example
        return proxy

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Make a stand-in that can hold a value."""
        return _Known(node, self)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **options: Any
    ) -> Any:
        """Record a step, and take it."""
        proxy: Any = super().create_proxy(kind, target, args, kwargs, *rest, **options)
        if kind == "placeholder":
            return proxy
        args, kwargs = _values(args), _values(kwargs)
        with torch.no_grad(), no_fast_path():
            if kind == "call_module":
                proxy.value = self.leaves[target](*args, **kwargs)
            elif kind == "call_method":
                proxy.value = getattr(args[0], target)(*args[1:], **kwargs)
            elif kind == "call_function":
                proxy.value = target(*args, **kwargs)
        if isinstance(proxy.value, Tensor):
            proxy.node.meta["shape"] = tuple(proxy.value.shape)
        return proxy


class _Known(fx.Proxy):
    """A stand-in for a value that was computed from the example."""

    value: Any = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.value, name)
        if callable(found):
            return super().__getattr__(name)
        if isinstance(found, Tensor):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return found

    def size(self, *args: Any) -> Any:
        """Lengths of the axes."""
        return self.value.size(*args)

    def dim(self) -> int:
        """Number of axes."""
        return int(self.value.dim())

    def numel(self) -> int:
        """Number of entries."""
        return int(self.value.numel())

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return iter([operator.getitem(self, index) for index in range(len(self.value))])


def _values(arguments: Any) -> Any:
    """Arguments of a call with values in place of what stands for them."""
    if isinstance(arguments, _Known):
        return arguments.value
    if isinstance(arguments, (list, tuple)):
        items = [_values(item) for item in arguments]
        return items if isinstance(arguments, list) else tuple(items)
    if isinstance(arguments, dict):
        return {key: _values(item) for key, item in arguments.items()}
    if isinstance(arguments, slice):
        return slice(_values(arguments.start), _values(arguments.stop), _values(arguments.step))
    return arguments
