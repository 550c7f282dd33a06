"""The matrices of a linear network, read from a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from skgeo.exceptions import SkgeoError
from skgeo.fiber._chain import as_chain
from skgeo.fiber._network import LinearNetwork
from skgeo.models._kinds import unwrap
from skgeo.network._bound import BoundNetwork, bind

_ADVICE = (
    "A linear network is a chain of linear layers, with nothing between them but identities, "
    "flattening and dropout. Matrices that come from elsewhere make one with "
    "skgeo.datasets.linear_network([W_1, ..., W_L])."
)


def linear_network_of(model: Any) -> LinearNetwork:
    """The linear network that a module is.

    model: a chain of linear layers. Identities, flattening and dropout (which does nothing in eval
        mode) may stand anywhere. Only the first layer may have a bias.

    >>> network = linear_network_of(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4, bias=False)))
    >>> network.widths, network.shapes
    ((4, 2, 4), ((2, 3), (2,), (4, 2)))
    """
    return read_linear_network(bind(model, None, parameters=None))


def read_linear_network(network: BoundNetwork) -> LinearNetwork:
    """The linear network that a model is, in the dtype of its weights."""
    root = unwrap(network.model.module)
    _ = network.replica  # raises if something is wrong with the module itself
    try:
        stack = network.stack
    except SkgeoError as error:
        raise SkgeoError(f"{error} {_ADVICE}") from error
    for node in network.graph:
        bent = node.activation is not None and not node.activation.is_identity
        if bent or node.kind == "conv":
            where = f"The module at {node.module!r}" if node.module else "A step of the network"
            raise SkgeoError(f"{where} is {node.what}, which is not a linear layer. {_ADVICE}")
    layers: list[Any] = [root.get_submodule(name) if name else root for name in stack.names]
    linear = list(zip(stack.names, layers, strict=True))
    _check_biases(linear)
    _check_parameters(root, linear)
    weights = [layer.weight.detach() for layer in layers]
    as_chain(weights)
    bias = layers[0].bias
    if bias is not None:
        weights[0] = torch.cat([weights[0], bias.detach()[:, None]], dim=1)
    kinds = [node.kind for node in network.graph]
    flattens = "flatten" in kinds[: kinds.index("linear")]
    return LinearNetwork(tuple(weights), bias is not None, flattens)


def _check_biases(linear: Sequence[tuple[str, nn.Module]]) -> None:
    late = [name for name, layer in linear[1:] if layer.bias is not None]
    if late:
        shown = ", ".join(repr(name) for name in late)
        raise SkgeoError(
            f"The layers {shown} have a bias, but only the first layer of the chain may have one: "
            "its bias is a column of W_1 that multiplies a constant input. To reach a later layer "
            "the constant would have to pass through entries of W_1 that are fixed at 0 and 1, "
            "while the theory of the fiber varies all entries freely. Build those layers with "
            "bias=False."
        )


def _check_parameters(module: nn.Module, linear: Sequence[tuple[str, nn.Module]]) -> None:
    expected = [parameter for _, layer in linear for parameter in layer.parameters()]
    found = list(module.parameters())
    if [id(p) for p in found] != [id(p) for p in expected]:
        known = {id(p) for p in expected}
        other = [name for name, p in module.named_parameters() if id(p) not in known]
        raise SkgeoError(
            f"The module has {len(found)} parameters and its linear layers have {len(expected)}, "
            f"or their order differs (not in the chain: {other}). Pass the chain alone."
        )
