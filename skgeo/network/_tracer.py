"""Tracing of forward passes without global side effects."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from skgeo.network._switches import no_fast_path


class PlaceholderTracer(fx.Tracer):
    """Records the operations on a placeholder.

    ``Tracer.trace`` replaces methods of ``nn.Module`` while it runs, which affects other threads.
    Here only the leaves of a private copy are changed.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.root = root
        self.graph = fx.Graph(tracer_cls=type(self))
        self.tensor_attrs: dict[Any, str] = {}
        self.leaves: dict[str, Callable[..., Any]] = {}

    def enter(self, name: str) -> Any:
        """Placeholder of an input."""
        return self.create_proxy("placeholder", name, (), {})


class ExampleTracer(PlaceholderTracer):
    """Records the operations on an example of a few samples, with known shapes and dtypes.

    Its values are not used: a forward pass whose control flow depends on them raises, as for a
    placeholder.
    """

    def __init__(self, root: nn.Module, example: Any) -> None:
        super().__init__(root)
        self._example = example

    def enter(self, name: str) -> Any:
        """Proxy of the example."""
        proxy: Any = self.create_proxy("placeholder", name, (), {})
        proxy.value = self._example
        return proxy

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Make a proxy that can hold a value."""
        return _Known(node, self)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **options: Any
    ) -> Any:
        """Record a step and compute its value."""
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
    """Proxy of a value that was computed from the example."""

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
    """Arguments of a call with values in place of proxies."""
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
