"""The rest of a network as a function of the representation at one layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from skgeo.autodiff.batch import Inputs
from skgeo.autodiff.layers import named
from skgeo.autodiff.operators import LayerMaps
from skgeo.autodiff.outputs import first_tensor, with_first_tensor
from skgeo.autodiff.recording import Layer
from skgeo.autodiff.switches import math_attention
from skgeo.exceptions import SkgeoError

__all__ = ["Tail"]


class Tail:
    r"""The map :math:`h_l \mapsto z` of one batch: put a representation in place and run the rest.

    Parameters
    ----------
    maps : LayerMaps
    inputs : Tensor, dict of str to Tensor, or tuple of Tensor
        The batch that everything but the representation is taken from: masks, and, where the
        layer is not a cut, whatever goes around it.
    name : str
        A layer of `maps`.

    Notes
    -----
    A call runs the whole network; what comes before the layer is computed and thrown away.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.autodiff.operators import LayerMaps, layer_replica
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> X = torch.ones(1, 3)
    >>> tail = Tail(LayerMaps(layer_replica(net), X), X, "1")
    >>> bool((tail(torch.zeros(1, 4)) == net[2].bias).all())
    True
    """

    def __init__(self, maps: LayerMaps, inputs: Inputs, name: str) -> None:
        self.layer: Layer = maps[name]
        self._replica = maps.replica
        self._module = named(maps.replica.module)[self.layer.module]
        self._inputs = inputs

    def __call__(self, representation: Tensor) -> Tensor:
        r"""Outputs of the network with this representation in place.

        Parameters
        ----------
        representation : Tensor of shape (b, n_l)
            In any floating dtype; cast to that of the layer.

        Returns
        -------
        Tensor of shape (b, \*out_shape)
            On a graph from the representation if that requires a gradient.
        """
        put_in = False
        calls = 0

        def replace(_: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
            nonlocal put_in, calls
            kept = first_tensor(result)
            if kept is None:
                return result
            calls += 1
            if calls != self.layer.number + 1:
                return result
            put_in = True
            size = kept.shape[self.layer.axis]
            expected = (size, self.layer.dim)
            if tuple(representation.shape) != expected:
                raise SkgeoError(
                    f"the representation has shape {tuple(representation.shape)}; layer "
                    f"{self.layer.name!r} takes {expected} for this batch."
                )
            new = representation.reshape(size, *self.layer.shape).movedim(0, self.layer.axis)
            # A copy: what follows may write to it in place.
            return with_first_tensor(result, new.to(kept.dtype) * 1)

        handle = self._module.register_forward_hook(replace)
        try:
            with torch.inference_mode(False), math_attention():
                output = self._replica(self._inputs)
        finally:
            handle.remove()
        if not put_in:
            raise SkgeoError(f"layer call {self.layer.name!r} did not happen in this batch.")
        return output

    def jvp(self, representation: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        r"""Outputs, and how they change along a direction.

        Parameters
        ----------
        representation, direction : Tensor of shape (b, n_l)

        Returns
        -------
        z, dz : Tensor of shape (b, \*out_shape)

        Notes
        -----
        Two backward passes, the second through the first: every operation with a second
        derivative has this product, while many kernels have no forward-mode rule.
        """
        h = representation.detach()
        direction = direction.to(h)
        with torch.enable_grad():
            h = h.clone().requires_grad_(True)
            z = self(h)
            dummy = torch.zeros_like(z, requires_grad=True)
            (pulled,) = torch.autograd.grad(z, h, dummy, create_graph=True)
            (dz,) = torch.autograd.grad(pulled, dummy, direction)
        return z.detach(), dz.detach()
