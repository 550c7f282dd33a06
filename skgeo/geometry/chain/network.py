"""A network on data, as a chain of links that is measured batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.autodiff.links import ChainMaps, ChainRecording
from skgeo.autodiff.operators import layer_replica
from skgeo.data import Inputs, Samples, as_samples, cast_inputs
from skgeo.exceptions import SkgeoError

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
    chain : ChainMaps
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
        if batch_size is not None and (
            isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1
        ):
            raise SkgeoError(f"batch_size={batch_size!r}: expected a positive integer or None.")
        self.batch_size = batch_size
        self._replica = layer_replica(module, forward=forward, device=device)
        floating = (p.dtype for p in self._replica.parameters.values() if p.is_floating_point())
        self.dtype, self.device = next(floating, self._replica.dtype), self._replica.device
        self.samples: Samples = as_samples(X).to(
            dtype=self.dtype, keep_integers=keep_integers or self._replica.takes_integers
        )
        self.n_samples = len(self.samples)
        self._check_forward()
        self.chain = ChainMaps(self._replica, self.inputs(range(min(self.n_samples, 8))), layers)

    def _check_forward(self) -> None:
        inputs = self.inputs(range(1))
        try:
            with torch.no_grad():
                self._replica(inputs)
        except SkgeoError:
            raise
        except Exception as error:
            tensors = [inputs] if isinstance(inputs, Tensor) else list(_values(inputs))
            shapes = ", ".join(f"{tuple(t.shape)} of {t.dtype}" for t in tensors)
            raise SkgeoError(
                f"the model cannot be run on this data. One sample is {shapes}; the forward pass "
                f"says: {type(error).__name__}: {error}"
            ) from error

    def inputs(self, samples: range) -> Inputs:
        """Inputs of some samples, on the device."""
        return cast_inputs(self.samples.take(samples.start, samples.stop), device=self.device)

    def record(self, samples: range) -> ChainRecording:
        """One forward pass of some samples."""
        return self.chain.record(self.inputs(samples))

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
        return [
            range(start, min(start + size, self.n_samples))
            for start in range(0, self.n_samples, size)
        ]


def _values(inputs: Any) -> Any:
    return inputs.values() if isinstance(inputs, dict) else inputs
