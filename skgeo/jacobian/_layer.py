"""Places of a network."""

from __future__ import annotations

import dataclasses

import torch


@dataclasses.dataclass(frozen=True)
class Layer:
    """A place of a network: its input, one call of one of its layers, or its output.

    Attributes
    ----------
    name : str
        ``"relu"`` for the first call of a layer, ``"relu#1"`` for the next; ``"input"`` and
        ``"output"`` for the ends of the network.
    module : str
        Name of the layer's module; empty for the ends.
    number : int
        Number of the call among those of its module, from 0.
    shape : tuple of int
        Shape of the representation of one sample.
    axis : int
        Axis of the samples in what the layer returns.
    is_cut : bool
        Whether the output depends on the root through this layer only.
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
