"""Links of a chain that are a linear layer, an elementwise activation, or one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skgeo.autodiff.layer import Layer
from skgeo.autodiff.layer_names import leaves

__all__ = ["ElementwiseLink", "ElementwiseModules", "elementwise_modules", "slopes"]

# Exact types: a subclass may compute anything.
_ACTIVATIONS = {
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
}
# They hand on what they are given when nothing is trained.
_NOTHING = {nn.Identity, nn.Dropout, nn.AlphaDropout}

ElementwiseModules = tuple[nn.Linear | None, nn.Module | None]


@dataclasses.dataclass(frozen=True)
class ElementwiseLink:
    r"""A link with the Jacobian :math:`J_n = \mathrm{diag}(d_n) W` at sample n.

    Attributes
    ----------
    weight : Tensor of shape (m, n) or None
        W, the same for all samples; None for the identity.
    slopes : Tensor of shape (b, m) or None
        d, the activation's derivatives; None for ones.
    size : int
        Samples b.
    """

    weight: Tensor | None
    slopes: Tensor | None
    size: int

    def jacobian(self) -> Tensor:
        """The Jacobians, formed: (b, m, n)."""
        if self.weight is None:
            assert self.slopes is not None
            return torch.diag_embed(self.slopes)
        if self.slopes is None:
            return self.weight.expand(self.size, -1, -1)
        return self.slopes.unsqueeze(2) * self.weight

    def push_columns(self, matrix: Tensor) -> Tensor:
        """``J A`` for each sample: (b, n, c) to (b, m, c)."""
        if self.weight is None:
            assert self.slopes is not None
            return self.slopes.unsqueeze(2) * matrix
        moved = matrix.new_empty((len(matrix), len(self.weight), matrix.shape[2]))
        for index, into in enumerate(moved):  # scaled while the product is in the cache
            torch.mm(self.weight, matrix[index], out=into)
            if self.slopes is not None:
                into.mul_(self.slopes[index].unsqueeze(1))
        return moved

    def pull(self, cotangents: Tensor) -> Tensor:
        """``J^T u`` for each sample: (b, m) to (b, n)."""
        scaled = cotangents if self.slopes is None else self.slopes * cotangents
        return scaled if self.weight is None else scaled @ self.weight


def elementwise_modules(
    module: nn.Module, ran: Sequence[str], pairs: Sequence[tuple[Layer, Layer]]
) -> dict[str, ElementwiseModules]:
    """Find the links between which only a linear layer and an activation run as modules.

    Functions that are not modules are not seen: what is found is a guess, to be checked against
    derivatives of the network.

    Parameters
    ----------
    module : torch.nn.Module
    ran : sequence of str
        The leaves and layers that ran, in the order in which they returned.
    pairs : sequence of (Layer, Layer)
        Source and target.

    Returns
    -------
    dict of str to (Linear or None, Module or None)
        By the name of the target; absent where anything else runs.
    """
    own = leaves(module)
    found = {}
    for source, target in pairs:
        start = _place(ran, source) + 1 if source.module else 0
        stop = _place(ran, target) + 1
        between = [own[name] for name in ran[start:stop] if name in own]
        modules = [module for module in between if type(module) not in _NOTHING]
        if modules and len(modules) <= 2:
            linear = modules[0] if type(modules[0]) is nn.Linear else None
            rest = modules[1:] if linear is not None else modules
            if len(rest) <= 1 and all(type(module) in _ACTIVATIONS for module in rest):
                found[target.name] = (linear, rest[0] if rest else None)
    return found


def _place(ran: Sequence[str], layer: Layer) -> int:
    places = [place for place, name in enumerate(ran) if name == layer.module]
    return places[layer.number]


def slopes(modules: ElementwiseModules, h: Tensor) -> Tensor | None:
    """Derivatives (b, m) of the activation at h of shape (b, ...) at the source, or None."""
    linear, activation = modules
    if activation is None:
        return None
    with torch.enable_grad():
        z = (h if linear is None else linear(h)).detach().requires_grad_(True)
        (found,) = torch.autograd.grad(activation(z * 1).sum(), z)
    return found.flatten(1)
