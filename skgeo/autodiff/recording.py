"""One forward pass cut open at chosen layers, and products with its Jacobians."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from skgeo.autodiff.cotangents import pull_back

__all__ = ["Layer", "LayerOperator", "Recording"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One call of one layer, as a place where the network can be cut open.

    Attributes
    ----------
    name : str
        ``"relu"`` for the first call of a layer, ``"relu#1"`` for the next.
    module : str
        Name of the layer's module.
    number : int
        Which of its calls, from 0.
    shape : tuple of int
        Of one sample's representation.
    axis : int
        Where the samples are in what the layer returns.
    is_cut : bool
        Whether all that the output takes from the input passes through it.
    is_output : bool
        Whether it returns the network's output.
    """

    name: str
    module: str
    number: int
    shape: tuple[int, ...]
    axis: int
    is_cut: bool
    is_output: bool

    @property
    def dim(self) -> int:
        """Number of coordinates of one sample's representation."""
        return torch.Size(self.shape).numel()


class Recording:
    """One forward pass with the representations at chosen layers, on one graph.

    Attributes
    ----------
    output : Tensor of shape (b, ...)
        With its graph.
    layers : tuple of Layer
    tensors : list of Tensor
        What the layers returned, on the graph.
    batched : bool
        Whether several cotangents may go through one backward pass.
    root : Tensor or None
        Where the graph starts, if it was asked for.
    """

    def __init__(
        self,
        output: Tensor,
        layers: tuple[Layer, ...],
        tensors: list[Tensor],
        batched: bool,
        root: Tensor | None = None,
    ) -> None:
        self.output = output
        self.layers = layers
        self.tensors = tensors
        self.batched = batched
        self.root = root

    def representations(self) -> dict[str, Tensor]:
        """What each layer returned, flattened: name to (b, n_l), without a graph."""
        size = len(self.output)
        return {
            layer.name: tensor.detach().movedim(layer.axis, 0).reshape(size, -1)
            for layer, tensor in zip(self.layers, self.tensors, strict=True)
        }

    def pull_back(
        self, cotangents: Callable[[slice], Tensor], count: int, max_bytes: int | None = None
    ) -> dict[str, Tensor]:
        """Pull cotangents of the outputs back to every layer.

        Parameters
        ----------
        cotangents, count, max_bytes
            As in :func:`~skgeo.autodiff.cotangents.pull_back`.

        Returns
        -------
        dict of str to Tensor of shape (b, count, n_l)
        """
        options = {} if max_bytes is None else {"max_bytes": max_bytes}
        rows = pull_back(
            self.output,
            self.tensors,
            cotangents,
            count,
            axes=[layer.axis for layer in self.layers],
            batched=self.batched,
            **options,
        )
        return {layer.name: block for layer, block in zip(self.layers, rows, strict=True)}

    def operator(self, name: str) -> LayerOperator:
        """Products with the Jacobian from one layer, without forming it.

        Parameters
        ----------
        name : str

        Returns
        -------
        LayerOperator
        """
        index = [layer.name for layer in self.layers].index(name)
        return LayerOperator(self.output, self.tensors[index], self.layers[index])


class LayerOperator:
    r"""Products with :math:`B = \partial z / \partial h` of one batch at one layer.

    Made by :meth:`Recording.operator`. A product costs about one backward pass.

    Parameters
    ----------
    output : Tensor of shape (b, \*out_shape)
        With its graph.
    tensor : Tensor
        What the layer returned.
    layer : Layer
    """

    def __init__(self, output: Tensor, tensor: Tensor, layer: Layer) -> None:
        self._output, self._tensor, self._layer = output, tensor, layer
        self._dummy = torch.zeros_like(output, requires_grad=True)
        # Linear in the cotangent, so that its derivative by the cotangent is J v: every operation
        # with a second derivative has it, while many kernels have no forward-mode rule.
        (self._pulled,) = torch.autograd.grad(output, tensor, self._dummy, create_graph=True)

    def push(self, vectors: Tensor) -> Tensor:
        """``B v`` for each sample: (b, n_l) to the shape of the outputs."""
        moved = vectors.to(self._tensor.dtype).reshape(len(vectors), *self._layer.shape)
        return torch.autograd.grad(
            self._pulled,
            self._dummy,
            moved.movedim(0, self._layer.axis),
            retain_graph=True,
            materialize_grads=True,
            allow_unused=True,
        )[0]

    def push_many(self, vectors: Tensor) -> Tensor:
        """Several ``B v`` in one pass: (c, b, n_l) to (c, the shape of the outputs)."""
        moved = vectors.to(self._tensor.dtype).reshape(*vectors.shape[:2], *self._layer.shape)
        (found,) = torch.autograd.grad(
            self._pulled,
            self._dummy,
            moved.movedim(1, self._layer.axis + 1),
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
        return (
            found if found is not None else self._output.new_zeros(len(vectors), *self._dummy.shape)
        )

    def pull(self, cotangents: Tensor) -> Tensor:
        """``B^T u`` for each sample: from the shape of the outputs to (b, n_l)."""
        (found,) = torch.autograd.grad(
            self._output, self._tensor, cotangents.to(self._output.dtype), retain_graph=True
        )
        return found.movedim(self._layer.axis, 0).reshape(len(cotangents), -1)
