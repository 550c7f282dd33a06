"""Links of a chain that consist of a linear layer, an elementwise activation, or both in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skgeo.jacobian._layer import Layer
from skgeo.jacobian._layer_names import leaves
from skgeo.network._activation import Activation
from skgeo.network._activation_reading import read_activation

# The linear layer and the activation of a link; one of them may be None.
LinkParts = tuple[nn.Linear | None, Activation | None]


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

    @property
    def rows(self) -> int:
        """The number m of rows of the Jacobian."""
        if self.slopes is not None:
            return self.slopes.shape[1]
        assert self.weight is not None
        return len(self.weight)

    def jacobian(self) -> Tensor:
        """Dense Jacobians (b, m, n)."""
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


def link_parts(
    module: nn.Module, ran: Sequence[str], pairs: Sequence[tuple[Layer, Layer]]
) -> dict[str, LinkParts]:
    """Find the links in which only a linear layer and an activation run as modules.

    Functions that are not modules are not seen, so the result has to be checked against derivatives
    of the network.

    ran: the leaves and layers that ran, in the order in which they returned.
    pairs: source and target.
    Returns the parts by name of the target; links in which anything else runs are left out.
    """
    own = leaves(module)
    found = {}
    for source, target in pairs:
        start = _place(ran, source) + 1 if source.module else 0
        between = ran[start : _place(ran, target) + 1]
        parts = _parts([own[name] for name in between if name in own])
        if parts is not None:
            found[target.name] = parts
    return found


def _parts(modules: Sequence[nn.Module]) -> LinkParts | None:
    """A linear layer followed by an activation, or one of them; None for anything else."""
    linear: nn.Linear | None = None
    activation: Activation | None = None
    for module in modules:
        read = read_activation(module)
        if read is not None and read.is_identity:
            continue
        if read is not None and activation is None:
            activation = read
        elif type(module) is nn.Linear and linear is None and activation is None:
            linear = module
        else:
            return None
    return None if linear is None and activation is None else (linear, activation)


def _place(ran: Sequence[str], layer: Layer) -> int:
    places = [place for place, name in enumerate(ran) if name == layer.module]
    return places[layer.number]


def slopes(parts: LinkParts, h: Tensor) -> Tensor | None:
    """Derivatives (b, m) of the activation at h of shape (b, ...) at the source, or None."""
    linear, activation = parts
    if activation is None:
        return None
    with torch.no_grad():
        z = h if linear is None else linear(h)
    return activation.derivative(z).flatten(1)
