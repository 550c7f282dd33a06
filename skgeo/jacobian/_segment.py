"""The map from the input or a layer to a layer or the outputs."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.jacobian._calls import after_each_call
from skgeo.jacobian._cotangents import pull_back, unit_cotangents
from skgeo.jacobian._layer import Layer
from skgeo.jacobian._layer_names import named
from skgeo.network._batch import Inputs, batch_size, map_inputs, plain, tensors_of
from skgeo.network._outputs import with_first_tensor
from skgeo.network._replica import Replica
from skgeo.network._switches import math_attention


class _Reached(Exception):
    """Ends a forward pass after the layer has returned."""


class Segment:
    r"""The map :math:`h_m \mapsto h_l` from one representation of a batch to another.

    replica: with ``parameters=None``; otherwise its parameters are on the graphs as well.
    inputs: the batch; its first floating tensor is replaced.
    layer: end of the map; None for the outputs.
    source: start of the map instead of the first floating input. If it is not a cut, everything
        that does not pass through it is computed from the batch.
    Raises SkgeoError if the inputs include indices and there is no `source`.

    Attributes
    ----------
    module : torch.nn.Module
        Module of the replica.
    shape : tuple of int
        Shape of one sample at the start.

    A call runs the network up to the layer; what precedes the source is computed and discarded.
    The map can be differentiated as often as the layers can.

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.jacobian import Layers, Segment
    >>> from skgeo.network import replica
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> X = torch.ones(5, 3)
    >>> layers = Layers(replica(net, parameters=None), X)
    >>> segment = Segment(layers.replica, X, layers["0"])
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
        given = [t for t in tensors_of(inputs) if t.dtype != torch.bool]  # booleans are masks
        floating = [t for t in given if t.is_floating_point()]
        mixed = replica.takes_integers and len(floating) < len(given)
        if source is None and (mixed or not floating):
            raise SkgeoError(
                "The inputs are indices, with respect to which there are no derivatives. Start at "
                "a layer after the embedding: source='...'."
            )
        self.shape = tuple(floating[0].shape[1:]) if source is None else source.shape

    @property
    def dim(self) -> int:
        """Number of coordinates of one sample at the start."""
        return torch.Size(self.shape).numel()

    def take(self, where: Tensor | slice) -> Segment:
        """The same map for some samples, possibly repeated."""
        chosen = map_inputs(lambda tensor: tensor[where], self._inputs)
        return Segment(self._replica, chosen, self._layer, self._source)

    def start(self) -> Tensor:
        """Representation of the batch at the start: (b, n_0), without a graph."""
        if self._source is None:
            x = next(t for t in tensors_of(self._inputs) if t.is_floating_point())
            return x.detach().reshape(len(x), -1)
        return self._run(None, self._source).detach()

    def __call__(self, x: Tensor) -> Tensor:
        """Representations (b, n_l) for x of shape (b, n_0) at the start, on its graph."""
        size = batch_size(self._inputs)
        if tuple(x.shape) != (size, self.dim):
            raise SkgeoError(f"Got x of shape {tuple(x.shape)}; expected {(size, self.dim)}.")
        return self._run(x, self._layer)

    def jacobian(self, x: Tensor) -> Tensor:
        """Jacobian of each sample at x of shape (b, n_0): (b, n_l, n_0), without a graph.

        Costs one backward pass per row, several rows at a time.
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
        source = None if x is None else self._source
        put_in = source is None

        def replace(number: int, args: Any, result: Any, tensor: Tensor) -> Any:
            nonlocal put_in
            assert source is not None
            assert x is not None
            if number != source.number:
                return result
            put_in = True
            new = x.reshape(len(x), *source.shape).movedim(0, source.axis)
            return with_first_tensor(result, new.to(tensor.dtype) * 1)

        def keep(number: int, args: Any, result: Any, tensor: Tensor) -> Any:
            assert layer is not None
            if number == layer.number:
                found.append(tensor.movedim(layer.axis, 0) * 1)
                raise _Reached
            return result

        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(math_attention())
            if source is not None:
                after_each_call(self._modules[source.module], replace, stack)
            if layer is not None:
                after_each_call(self._modules[layer.module], keep, stack)
            try:
                output = self._replica(self._fed(x))
            except _Reached:
                pass
            else:
                if layer is None:
                    found.append(output)
        if not found or not put_in:
            missing = layer if not found else source
            name = "output" if missing is None else missing.name
            raise SkgeoError(
                f"Layer call {name!r} did not happen. It must happen in every batch, and "
                "the source must come before the layer."
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
