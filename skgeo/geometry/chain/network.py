"""A network on data, as a chain of links that is measured batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from skgeo.autodiff.layers import Layers
from skgeo.autodiff.recording import Recording
from skgeo.autodiff.replica import replica
from skgeo.data import Inputs, Samples, as_samples, cast_inputs
from skgeo.network.running import batch_ranges, check_batch_size, parameter_dtype, running

__all__ = ["ChainNetwork"]

# Jacobians and factors held at a time.
_BATCH_BYTES = 2**27


class ChainNetwork:
    """The root, layers and output of a network, and its samples.

    Parameters
    ----------
    module : nn.Module
        Never touched: all work is done on a replica.
    X : array, Tensor, dict, Dataset, DataLoader or Samples
    forward : callable, optional
        ``forward(module, inputs) -> outputs``; default ``module(inputs)``.
    layers : list of str, optional
        Names of layers or of single calls (``"relu#1"``).
    keep_integers : bool, default=False
        Leave integer inputs as they are, as for token ids.
    batch_size : int, optional
        Samples a forward pass; by default what 128 MiB hold.
    device : str or torch.device, optional

    Attributes
    ----------
    chain : Layers
    n_samples : int
    dtype : torch.dtype
        In which links are computed.
    device : torch.device
    """

    def __init__(
        self,
        module: nn.Module,
        X: Any,
        *,
        forward: Callable[..., Any] | None = None,
        layers: Sequence[str] | None = None,
        keep_integers: bool = False,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        check_batch_size(batch_size)
        self.batch_size = batch_size
        self._replica = replica(module, forward=forward, device=device, parameters=None)
        self.dtype, self.device = parameter_dtype(self._replica), self._replica.device
        self.samples: Samples = as_samples(X).to(
            dtype=self.dtype, keep_integers=keep_integers or self._replica.takes_integers
        )
        self.n_samples = len(self.samples)
        first = self.inputs(range(1))
        with torch.no_grad(), running(first):
            self._replica(first)
        self.chain = Layers(self._replica, self.inputs(range(min(self.n_samples, 8))), layers)

    def inputs(self, samples: range) -> Inputs:
        """Inputs of some samples, on the device."""
        return cast_inputs(self.samples.take(samples.start, samples.stop), device=self.device)

    def record(self, samples: range) -> Recording:
        """One forward pass of some samples."""
        return self.chain.record(self.inputs(samples), root=True)

    def batches(self, sample_bytes: int) -> list[range]:
        """The samples in batches that the budget holds.

        Parameters
        ----------
        sample_bytes : int
            What one sample takes.

        Returns
        -------
        list of range
        """
        size = self.batch_size or max(1, min(self.n_samples, _BATCH_BYTES // max(sample_bytes, 1)))
        return batch_ranges(self.n_samples, size)
