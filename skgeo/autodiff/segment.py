"""One stretch of a network as a function: from the input or a layer, to a layer or the outputs."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.autodiff.batch import Inputs, batch_size, map_inputs, plain, tensors_of
from skgeo.autodiff.cotangents import pull_back, unit_cotangents
from skgeo.autodiff.layers import named
from skgeo.autodiff.outputs import first_tensor, with_first_tensor
from skgeo.autodiff.recording import Layer
from skgeo.autodiff.replica import Replica
from skgeo.autodiff.switches import math_attention
from skgeo.exceptions import SkgeoError

__all__ = ["Segment"]


class _Reached(Exception):
    """Ends a forward pass once the layer has returned."""


class Segment:
    r"""The map :math:`h_m \mapsto h_l` of one batch: put a representation in place and run on.

    Parameters
    ----------
    replica : Replica
        As :func:`~skgeo.autodiff.operators.layer_replica` makes it.
    inputs : Tensor, dict of str to Tensor, or tuple of Tensor
        The batch that everything but the first floating tensor is taken from.
    layer : Layer or None
        Where to end; None for the outputs.
    source : Layer, optional
        Where to start instead of the first floating input: at this layer's representation. Where
        it is not a cut, what goes around it is taken from the batch.

    Attributes
    ----------
    module : torch.nn.Module
        Of the replica.

    Raises
    ------
    SkgeoError
        If the inputs are indices, or hold some, and no `source` is given.

    Notes
    -----
    A call runs the network up to the layer and no further; what comes before the source is computed
    and thrown away. It may be differentiated as often as the layers can be.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.autodiff.operators import LayerMaps, layer_replica
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> X = torch.ones(5, 3)
    >>> maps = LayerMaps(layer_replica(net), X)
    >>> segment = Segment(maps.replica, X, maps["0"])
    >>> bool((segment(torch.zeros(5, 3)) == net[0].bias).all())
    True
    """

    def __init__(
        self,
        replica: Replica,
        inputs: Inputs,
        layer: Layer | None,
        source: Layer | None = None,
    ) -> None:
        self.module = replica.module
        self._replica = replica
        self._inputs = map_inputs(plain, inputs)
        self._layer, self._source = layer, source
        self._modules = named(replica.module)
        floating = [t for t in tensors_of(inputs) if t.is_floating_point()]
        mixed = replica.takes_integers and len(floating) < len(tensors_of(inputs))
        if source is None and (mixed or not floating):
            raise SkgeoError(
                "The inputs are indices, and there is no direction to move an index in. Start at "
                "a layer behind the embedding: source='...'."
            )
        self._shape = tuple(floating[0].shape[1:]) if source is None else source.shape

    @property
    def dim(self) -> int:
        """Number of coordinates that a sample has at the start."""
        return torch.Size(self._shape).numel()

    def take(self, where: Tensor | slice) -> Segment:
        """The same map for some samples, with repetitions if an index is repeated.

        Parameters
        ----------
        where : slice or Tensor of int

        Returns
        -------
        Segment
        """
        chosen = map_inputs(lambda tensor: tensor[where], self._inputs)
        return Segment(self._replica, chosen, self._layer, self._source)

    def start(self) -> Tensor:
        """Where the samples of the batch stand.

        Returns
        -------
        Tensor of shape (b, n_0)
            Without a graph.
        """
        if self._source is None:
            x = next(t for t in tensors_of(self._inputs) if t.is_floating_point())
            return x.detach().reshape(len(x), -1)
        return self._run(None, self._source).detach()

    def __call__(self, x: Tensor) -> Tensor:
        """Representations of the batch, started at other places.

        Parameters
        ----------
        x : Tensor of shape (b, n_0)

        Returns
        -------
        Tensor of shape (b, n_l)
            On a graph from `x` if that requires a gradient.
        """
        size = batch_size(self._inputs)
        if tuple(x.shape) != (size, self.dim):
            raise SkgeoError(
                f"x has shape {tuple(x.shape)}; this batch starts from {(size, self.dim)}."
            )
        return self._run(x, self._layer)

    def jacobian(self, x: Tensor) -> Tensor:
        """Jacobians by the place of the start, sample by sample.

        Parameters
        ----------
        x : Tensor of shape (b, n_0)

        Returns
        -------
        Tensor of shape (b, n_l, n_0)
            Without a graph.

        Notes
        -----
        One backward pass for each of the ``n_l`` rows, several of them together.
        """
        x = x.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            h = self(x)
        if not h.requires_grad:
            return h.new_zeros((*h.shape, self.dim))
        (rows,) = pull_back(h, [x], unit_cotangents(h), h.shape[1])
        return rows.detach()

    def _run(self, x: Tensor | None, layer: Layer | None) -> Tensor:
        found: list[Tensor] = []
        put_in = x is None or self._source is None
        calls = {"source": 0, "layer": 0}

        def replace(_: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
            nonlocal put_in
            kept = first_tensor(result)
            if kept is None or self._source is None or x is None:
                return result
            calls["source"] += 1
            if calls["source"] != self._source.number + 1:
                return result
            put_in = True
            new = x.reshape(len(x), *self._source.shape).movedim(0, self._source.axis)
            return with_first_tensor(result, new.to(kept.dtype) * 1)

        def keep(_: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
            kept = first_tensor(result)
            if kept is None or layer is None:
                return result
            calls["layer"] += 1
            if calls["layer"] != layer.number + 1:
                return result
            found.append(kept.movedim(layer.axis, 0) * 1)
            raise _Reached

        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(math_attention())
            if self._source is not None:
                module = self._modules[self._source.module]
                stack.callback(module.register_forward_hook(replace).remove)
            if layer is not None:
                module = self._modules[layer.module]
                stack.callback(module.register_forward_hook(keep).remove)
            try:
                output = self._replica(self._fed(x))
            except _Reached:
                pass
            else:
                if layer is None:
                    found.append(output)
        if not found or not put_in:
            where = layer if not found else self._source
            name = "output" if where is None else where.name
            raise SkgeoError(
                f"Layer call {name!r} did not happen on the way. It must come in every batch, and "
                "the source before the layer."
            )
        return found[0].reshape(len(found[0]), -1)

    def _fed(self, x: Tensor | None) -> Inputs:
        if self._source is not None or x is None:
            return self._inputs
        done = False

        def swap(tensor: Tensor) -> Tensor:
            nonlocal done
            if done or not tensor.is_floating_point():
                return tensor
            done = True
            # A copy: the network may write to its input in place.
            return x.reshape(tensor.shape).to(tensor.dtype) * 1

        return map_inputs(swap, self._inputs)
