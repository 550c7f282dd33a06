"""Plain chains of affine layers and activations: reading and rebuilding them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.exceptions import SkgeoError
from skgeo.models import bare_model
from skgeo.models._kinds import unwrap
from skgeo.network._activation import IDENTITY, Activation
from skgeo.network._copytree import TreeCopy
from skgeo.network._flow import Flow, FlowNode, read_flow
from skgeo.network._modelcheck import check_finite, check_real


@dataclass(frozen=True, eq=False)
class Stack:
    """Affine layers with pointwise activations between them.

    Attributes
    ----------
    weights : tuple of Tensor
        Weights of the layers, detached, float64, on the CPU: (out, in), or (out, in, *kernel) for
        a convolution.
    biases : tuple of Tensor or None
        Biases (out,) of the layers; None for a layer without one.
    activations : tuple of Activation
        After each layer but the last; the identity between two successive layers.
    names : tuple of str
        Dotted names of the modules of the layers.
    kinds : tuple of str
        ``"linear"`` or ``"conv"``.
    settings : tuple of tuple
        Size, stride, padding, padding mode and dilation of each kernel; empty for linear layers.
    spreads : tuple of int
        For each layer but the last, the number of adjacent input columns of the next layer that
        belong to one unit: 1 except for a convolution that is flattened before a linear layer.
    dtype : torch.dtype
        Dtype of the module's parameters.
    final : Activation
        After the last layer; the identity unless the chain may end in an activation.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    activations: tuple[Activation, ...]
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    settings: tuple[tuple[Any, ...], ...]
    spreads: tuple[int, ...]
    dtype: torch.dtype
    module: nn.Module = field(repr=False)
    final: Activation = IDENTITY

    @property
    def depth(self) -> int:
        """Number of affine layers."""
        return len(self.weights)

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs of the first layer, units of each hidden one, outputs of the last."""
        return (self.weights[0].shape[1], *(weight.shape[0] for weight in self.weights))

    def arguments(
        self,
        x: Tensor,
        weights: Sequence[Tensor] | None = None,
        biases: Sequence[Tensor | None] | None = None,
    ) -> Iterator[Tensor]:
        """Yield the input of each activation, then the outputs, of a chain of linear layers.

        x: (N, n), float64.
        weights, biases: by default those of the chain.
        """
        weights = self.weights if weights is None else weights
        biases = self.biases if biases is None else biases
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            z = nn.functional.linear(x, weight, bias)
            yield z
            if index < len(self.activations):
                x = self.activations[index](z)

    def outputs(
        self,
        x: Tensor,
        weights: Sequence[Tensor] | None = None,
        biases: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """Outputs of a chain of linear layers; see :meth:`arguments`."""
        *_, last = self.arguments(x, weights, biases)
        return last

    def rebuild(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> nn.Module:
        """Make a module of the same classes with other weights.

        It shares no tensor with the original module, and has its dtype, device, modes and
        ``requires_grad``.

        weights: hidden widths may differ from those of the module.
        biases: may be None for layers that have one, and the reverse.
        Raises SkgeoError if the shapes do not fit together.
        """
        self._check(weights, biases)
        for index, each in enumerate(self.activations):
            if each.per_unit and len(weights[index]) != len(self.weights[index]):
                raise SkgeoError(
                    f"Hidden layer {index} has {each}, with one slope per unit, so "
                    f"its width of {len(self.weights[index])} cannot change."
                )
        copy = TreeCopy(self.module)
        modes = {name: m.training for name, m in unwrap(self.module).named_modules()}
        for name, part in copy.root.named_modules():
            part.training = modes[name]
            for key, parameter in part._parameters.items():
                if parameter is not None:
                    source = copy.sources[id(parameter)]
                    fresh = nn.Parameter(parameter.detach().clone(), source.requires_grad)
                    part._parameters[key] = fresh
        for name, kind, weight, bias in zip(self.names, self.kinds, weights, biases, strict=True):
            layer: Any = copy.root.get_submodule(name) if name else copy.root
            old = layer.weight
            layer.weight = _parameter(weight, old, old.requires_grad)
            trained = old.requires_grad if layer.bias is None else layer.bias.requires_grad
            layer.bias = None if bias is None else _parameter(bias, old, trained)
            widths = ("in_features", "out_features")
            if kind == "conv":
                widths = ("in_channels", "out_channels")
            setattr(layer, widths[0], weight.shape[1])
            setattr(layer, widths[1], weight.shape[0])
        return copy.root

    def _check(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        shapes = [tuple(weight.shape) for weight in weights]
        if len(weights) != self.depth or len(biases) != self.depth:
            raise SkgeoError(
                f"Got {len(weights)} weights and {len(biases)} biases for a chain of {self.depth} "
                "layers; expected one of each per layer (None for no bias)."
            )
        fits = (weights[0].shape[1], weights[-1].shape[0]) == (self.widths[0], self.widths[-1])
        for before, after, spread in zip(weights, weights[1:], self.spreads, strict=False):
            fits = fits and after.shape[1] == before.shape[0] * spread
        for weight, bias, old in zip(weights, biases, self.weights, strict=True):
            fits = fits and weight.shape[2:] == old.shape[2:]
            fits = fits and (bias is None or bias.shape == weight.shape[:1])
        if not fits:
            raise SkgeoError(
                f"Weights of shapes {shapes} do not fit together or with their biases, or change "
                f"the number of inputs or outputs; the chain has "
                f"{[tuple(weight.shape) for weight in self.weights]}."
            )


def read_stack(
    model: Any,
    *,
    convolutions: bool = False,
) -> Stack:
    """Read a model that is a plain chain of affine layers and pointwise activations.

    model: read by its data flow. Flattening, identities and dropout (in eval mode) are skipped.
    convolutions: whether layers may be convolutions (without groups).

    >>> from torch import nn
    >>> stack = read_stack(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    >>> stack.widths, str(stack.activations[0]), stack.names
    ((2, 3, 1), 'relu', ('0', '2'))
    """
    found = bare_model(model)
    check_real(found.module)
    check_finite(found.module)
    flow = read_flow(found.module, forward=found.forward)
    return stack_of(flow, found.module, convolutions=convolutions)


def stack_of(
    flow: Flow, module: nn.Module, *, convolutions: bool = False, final: bool = False
) -> Stack:
    """Plain chain of a data flow.

    module: the user's module, from which the chain is rebuilt.
    final: whether the chain may end in an activation.
    """
    allowed = ("linear", "conv") if convolutions else ("linear",)
    layers: list[FlowNode] = []
    activations: list[Activation] = []
    flattened: list[bool] = []
    for node in _chain(flow):
        if node.kind in allowed:
            if layers and len(activations) < len(layers):
                activations.append(IDENTITY)
            layers.append(node)
            flattened.append(False)
        elif node.activation is not None and layers and len(activations) < len(layers):
            activations.append(node.activation)
        elif node.kind == "flatten" and flattened:
            flattened[-1] = True
        elif node.kind not in ("identity", "flatten"):
            raise _no_chain(flow, node)
    if not layers:
        raise SkgeoError(f"{type(flow.root).__name__} has no affine layer, so it is not a chain.")
    last = IDENTITY
    if final and len(activations) == len(layers):
        last = activations.pop()
    if len(activations) == len(layers):
        raise SkgeoError(
            f"{type(flow.root).__name__} ends in an activation, {activations[-1]}; expected a "
            "chain that ends in an affine layer. Leave the activation to the likelihood."
        )
    return replace(_as_stack(flow, module, layers, activations, flattened), final=last)


def _chain(flow: Flow) -> list[FlowNode]:
    """Steps from the input to the output, each read by the next one only."""
    node = flow.nodes[0]
    found: list[FlowNode] = []
    while True:
        users = flow.users(node)
        if len(users) != 1:
            raise _no_chain(flow, users[1] if len(users) > 1 else node)
        node = users[0]
        if node.kind == "output":
            if node.parents != ((found[-1] if found else flow.nodes[0]).name,):
                raise _no_chain(flow, node)
            return found
        if len(node.parents) != 1:
            raise _no_chain(flow, node)
        found.append(node)


def _no_chain(flow: Flow, node: FlowNode) -> SkgeoError:
    what = f"the module at {node.module!r}" if node.module else "a step"
    reasons = f" ({'; '.join(flow.unread)})" if flow.unread else ""
    return SkgeoError(
        f"{type(flow.root).__name__} is not a plain chain of linear layers and pointwise "
        f"activations: {what}, {node.what}, is no part of one{reasons}. Pass the part of the "
        "network that is such a chain."
    )


def _as_stack(
    flow: Flow,
    module: nn.Module,
    nodes: Sequence[FlowNode],
    activations: Sequence[Activation],
    flattened: Sequence[bool],
) -> Stack:
    layers: list[Any] = [flow.layer(node) for node in nodes]
    owners: dict[int, str] = {}
    for node, layer in zip(nodes, layers, strict=True):
        for parameter in layer.parameters():
            first = owners.setdefault(id(parameter), str(node.module))
            if flow.calls(str(node.module)) > 1 or first != node.module:
                raise SkgeoError(
                    f"The layers {first!r} and {node.module!r} of {type(flow.root).__name__} "
                    "share a weight, or one layer is called twice: its units cannot be changed "
                    "one at a time. Give each layer its own weights."
                )
        if node.kind == "conv" and layer.groups > 1:
            raise _no_chain(flow, node)
    weights = tuple(layer.weight.detach().to("cpu", torch.float64) for layer in layers)
    biases = tuple(
        None if layer.bias is None else layer.bias.detach().to("cpu", torch.float64)
        for layer in layers
    )
    spreads = []
    for before, after, flat in zip(weights, weights[1:], flattened, strict=False):
        if before.dim() != after.dim() and not (flat and after.dim() == 2):
            raise SkgeoError(
                "A linear layer acts on the last axis and a convolution reads channels from axis "
                "1: where one follows the other without flattening, its units are not the other's."
            )
        if before.shape[0] == after.shape[1] == 0:  # a layer without units
            spreads.append(1)
            continue
        spread, rest = divmod(after.shape[1], max(before.shape[0], 1))
        spatial = before.dim() > 2 and after.dim() == 2
        if rest or spread == 0 or (spread > 1 and not (flat and spatial)):
            raise SkgeoError(
                f"A layer of {before.shape[0]} units is followed by one that reads "
                f"{after.shape[1]}: it is not known how positions and units are mixed."
            )
        spreads.append(spread)
    given = unwrap(module)  # a replica may be in float64
    theirs: Any = given.get_submodule(str(nodes[0].module))
    return Stack(
        weights,
        biases,
        tuple(activations),
        tuple(str(node.module) for node in nodes),
        tuple(node.kind for node in nodes),
        tuple(
            _settings(layer) if node.kind == "conv" else ()
            for node, layer in zip(nodes, layers, strict=True)
        ),
        tuple(spreads),
        theirs.weight.dtype,
        given,
    )


def _settings(layer: Any) -> tuple[Any, ...]:
    """Size, stride, padding at both ends of each axis, padding mode and dilation of a kernel."""
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        padding = tuple((total // 2, total - total // 2) for total in totals)
    elif layer.padding == "valid":
        padding = tuple((0, 0) for _ in layer.kernel_size)
    else:
        padding = tuple((each, each) for each in layer.padding)
    mode = layer.padding_mode if any(map(any, padding)) else "zeros"
    pairs = zip(layer.dilation, layer.kernel_size, strict=True)
    dilation = tuple(d if k > 1 else 1 for d, k in pairs)
    return tuple(layer.kernel_size), tuple(layer.stride), padding, mode, dilation


def _parameter(values: Tensor, like: Tensor, requires_grad: bool) -> nn.Parameter:
    data = values.detach().to(like.device, like.dtype, copy=True)
    return nn.Parameter(data.contiguous(), requires_grad)
