"""Reading the matrices of a linear network off a torch module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from skgeo.autodiff.modelcheck import warn_train_mode
from skgeo.autodiff.replica import replica
from skgeo.exceptions import SkgeoError
from skgeo.geometry.fiber.chain import as_chain, precision
from skgeo.geometry.fiber.network import LinearNetwork

__all__ = ["linear_network_of"]

_PASSIVE = (nn.Identity, nn.Flatten, nn.Dropout)


def linear_network_of(
    module: nn.Module, *, forward: Callable[[nn.Module, Any], Tensor] | None = None
) -> LinearNetwork:
    """The linear network that a module is.

    Parameters
    ----------
    module : torch.nn.Module
        An ``nn.Linear``, or an ``nn.Sequential`` of them, nested or not, with ``nn.Identity``,
        ``nn.Flatten`` and ``nn.Dropout`` (which does nothing in eval mode) anywhere. Only the first
        layer may have a bias.
    forward : callable, optional
        How the module is called. It must come to the product of the matrices, which is checked on
        a few random inputs, as it is where the module has hooks.

    Returns
    -------
    LinearNetwork

    Raises
    ------
    SkgeoError
        If another module stands in the chain (it is named), a bias comes after the first layer,
        weights are shared or computed from other parameters, the shapes do not fit together, a
        matrix is empty or not finite, or the outputs are not those of the product.

    Warns
    -----
    GeometryWarning
        If the module is in train mode and holds dropout.

    Examples
    --------
    >>> network = linear_network_of(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4, bias=False)))
    >>> network.widths, network.shapes
    ((4, 2, 4), ((2, 3), (2,), (4, 2)))
    """
    leaves = list(_leaves(module, ""))
    linear = [(name, leaf) for name, leaf in leaves if isinstance(leaf, nn.Linear)]
    _check_biases(linear)
    _check_parameters(module, linear)
    weights = [leaf.weight.detach() for _, leaf in linear]
    chain = as_chain(weights)
    bias = linear[0][1].bias
    if bias is not None:
        weights[0] = torch.cat([weights[0], bias.detach()[:, None]], dim=1)
        chain = as_chain(weights)
    first = next(k for k, (_, leaf) in enumerate(leaves) if isinstance(leaf, nn.Linear))
    flattens = any(isinstance(leaf, nn.Flatten) for _, leaf in leaves[:first])
    network = LinearNetwork(tuple(weights), bias is not None, flattens)
    if forward is not None or any(
        child._forward_hooks or child._forward_pre_hooks for child in module.modules()
    ):
        _check_outputs(network, chain, module, forward)
    warn_train_mode(module)
    return network


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Modules of the chain in the order of the computation, with their dotted names."""
    kind = next(
        (kind for kind in (nn.Sequential, nn.Linear, *_PASSIVE) if isinstance(module, kind)), None
    )
    where = f"The module at {name!r}" if name else "The model"
    chains = (
        "A linear network is read from an nn.Sequential, nested or not, of nn.Linear, nn.Identity, "
        "nn.Flatten and nn.Dropout. Matrices that come from elsewhere make one with "
        "skgeo.datasets.linear_network([W_1, ..., W_L])."
    )
    if kind is None or type(module).forward is not kind.forward:
        raise SkgeoError(
            f"{where} is {type(module).__name__}, which is not known to be linear. {chains}"
        )
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
        raise SkgeoError(
            f"{where} is {module}, and only nn.Flatten() keeps one row of numbers a sample. "
            f"{chains}"
        )
    if isinstance(module, nn.Sequential):
        for key, child in zip(module._modules, module, strict=True):
            yield from _leaves(child, f"{name}.{key}" if name else key)
        return
    if isinstance(module, nn.Linear) and (
        is_parametrized(module) or not isinstance(module._parameters.get("weight"), nn.Parameter)
    ):
        raise SkgeoError(
            f"{where} computes its weight from other parameters, so the space of parameters is not "
            "that of the matrices. Remove the parametrization first."
        )
    yield name, module


def _check_biases(linear: Sequence[tuple[str, nn.Module]]) -> None:
    late = [name for name, leaf in linear[1:] if leaf.bias is not None]
    if late:
        shown = ", ".join(repr(name) for name in late)
        raise SkgeoError(
            f"Of the layers {shown} each has a bias, and only the first layer of the chain may: "
            "its bias is a column of W_1 that multiplies a constant input. To reach a later layer "
            "the constant would have to pass through entries of W_1 that are fixed at 0 and 1, "
            "while the theory of the fiber moves all entries freely. Build those layers with "
            "bias=False."
        )


def _check_parameters(module: nn.Module, linear: Sequence[tuple[str, nn.Module]]) -> None:
    expected = [parameter for _, leaf in linear for parameter in leaf.parameters()]
    seen: dict[int, str] = {}
    for name, leaf in linear:
        for parameter in leaf.parameters():
            if id(parameter) in seen:
                raise SkgeoError(
                    f"The layers {seen[id(parameter)]!r} and {name!r} share a weight. The fiber of "
                    "a network with tied weights is another one; give each layer its own."
                )
            seen[id(parameter)] = name
    found = list(module.parameters())
    if [id(p) for p in found] != [id(p) for p in expected]:
        other = [name for name, p in module.named_parameters() if id(p) not in seen]
        raise SkgeoError(
            f"The module has {len(found)} parameters and its linear layers have {len(expected)}, "
            f"or they come in another order (not in the chain: {other}). Pass the chain alone."
        )


def _check_outputs(
    network: LinearNetwork,
    chain: Sequence[np.ndarray],
    module: nn.Module,
    forward: Callable[[nn.Module, Any], Tensor] | None,
) -> None:
    columns = network.widths[0] - network.has_bias
    probe = torch.from_numpy(np.random.default_rng(0).normal(size=(5, columns)))
    probe = probe.to(network.weights[0])
    outputs = replica(module, forward=forward)(probe).detach().to("cpu", torch.float64).numpy()
    expected = network.inputs(probe).T
    size = np.abs(expected)
    for weight in chain:
        expected, size = weight @ expected, np.abs(weight) @ size
    # Rounding of a sum of products, term by term, in the dtype of the module.
    slack = 4 * precision(network.weights) * sum(network.widths) * size.T
    if outputs.shape != expected.T.shape or not (np.abs(outputs - expected.T) <= slack).all():
        raise SkgeoError(
            "The model's outputs are not those of the product of its matrices: a forward function "
            "or a hook changes them. Pass the nn.Sequential of linear layers by itself."
        )
