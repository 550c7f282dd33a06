r"""The rows whose squares make the Fisher metric of each layer: ``S_l^T = R(z)^T B_l``.

``B_l`` is the Jacobian of one sample's outputs by its representation at layer l, and ``F = R R^T``
the Fisher metric of the output distribution. Rows are never formed by multiplying with ``B_l``: the
columns of R are what is pulled back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.autodiff.batch import tensors_of
from skgeo.autodiff.finite import check_derivatives
from skgeo.autodiff.layers import Layers
from skgeo.autodiff.replica import replica
from skgeo.autodiff.segment import Segment
from skgeo.data import Inputs, Samples, as_samples, cast_inputs
from skgeo.exceptions import SkgeoError
from skgeo.linalg.memory import require_memory
from skgeo.network.likelihood import Likelihood, resolve_likelihood
from skgeo.network.running import batch_ranges, check_batch_size, parameter_dtype, running

__all__ = ["LayerPullback"]

# Rows of all layers held at a time.
_BATCH_BYTES = 2**26
# Inputs of one forward pass without a graph.
_FORWARD_BYTES = 2**24


class LayerPullback:
    """A network on data, as rows of Jacobians from its layers weighted by its likelihood.

    Parameters
    ----------
    module : nn.Module
        Never touched: all work is done on a replica.
    X : array, Tensor, dict, Dataset, DataLoader or Samples
    forward : callable, optional
        ``forward(module, inputs) -> outputs``; default ``module(inputs)``.
    likelihood : str or Likelihood, default="gaussian"
        "auto" is decided by :func:`~skgeo.network.likelihood.resolve_likelihood`.
    said, targets
        What "auto" reads: the model's own word, and y.
    layers : list of str, optional
        Names of layers or of single calls (``"relu#1"``).
    keep_integers : bool, default=False
        Leave integer inputs as they are, as for token ids.
    batch_size : int, optional
        Samples a forward pass; by default as many as 64 MiB of rows hold.
    device : str or torch.device, optional

    Attributes
    ----------
    maps : Layers
    names : tuple of str
        The layers, in the order in which they run.
    n_samples, n_positions, n_outputs : int
        N, positions a sample (1 for plain vectors of outputs), outputs a position K.
    n_rows : int
        Rows a sample: ``n_positions * rank(F)``.
    likelihood : Likelihood
    dtype : torch.dtype
        In which rows are computed.
    device : torch.device
    """

    def __init__(
        self,
        module: nn.Module,
        X: Any,
        *,
        forward: Callable[..., Any] | None = None,
        likelihood: str | Likelihood = "gaussian",
        said: str | Likelihood | None = None,
        targets: Any = None,
        layers: Sequence[str] | None = None,
        keep_integers: bool = False,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self._replica = replica(module, forward=forward, device=device, parameters=None)
        self.dtype, self.device = parameter_dtype(self._replica), self._replica.device
        self.samples: Samples = as_samples(X, targets).to(
            dtype=self.dtype, keep_integers=keep_integers or self._replica.takes_integers
        )
        self.n_samples = len(self.samples)
        shape = self._first_output().shape
        self.maps = Layers(self._replica, self.inputs(range(min(self.n_samples, 8))), layers)
        self.names = tuple(layer.name for layer in self.maps.layers)
        self.n_outputs = shape[-1] if len(shape) > 1 else 1
        self.n_positions = shape.numel() // self.n_outputs
        self.likelihood = resolve_likelihood(
            likelihood, declared=said, targets=self.samples.targets, n_outputs=self.n_outputs
        )
        self.n_rows = self.n_positions * self.likelihood.rank(self.n_outputs)
        check_batch_size(batch_size)
        self.batch_size = batch_size
        outputs = self.outputs()
        self.likelihood.check(outputs)
        self.likelihood.notice(outputs)

    def _first_output(self) -> Tensor:
        inputs = self.inputs(range(1))
        with torch.no_grad(), running(inputs):
            return self._replica(inputs)

    def inputs(self, samples: range) -> Inputs:
        """Inputs of some samples, on the device."""
        return cast_inputs(self.samples.take(samples.start, samples.stop), device=self.device)

    def batches(self, names: Sequence[str] | None = None) -> list[range]:
        """The samples in batches whose rows at some layers fit in the budget.

        Parameters
        ----------
        names : sequence of str, optional
            By default all layers.

        Returns
        -------
        list of range
        """
        size = self.affordable(self.names if names is None else names)
        return batch_ranges(self.n_samples, size)

    def affordable(self, names: Sequence[str]) -> int:
        """Number of samples in a batch: `batch_size`, or what the budget holds.

        Parameters
        ----------
        names : sequence of str
            Layers whose rows are held.

        Returns
        -------
        int

        Raises
        ------
        SkgeoError
            If the rows of one sample do not fit in memory, with their size.
        """
        width = sum(self.maps[name].dim for name in names)
        # The rows, and the roots of F that are pulled back to give them.
        sample = self.n_rows * (width * self.dtype.itemsize + 8 * self.n_outputs)
        require_memory(
            sample,
            f"the Jacobians of one sample ({self.n_rows} rows x {width} coordinates of "
            f"{len(names)} layers)",
            "name fewer layers with layers=[...], wrap the model so that it gives fewer outputs, "
            "or take the largest eigenvalues alone with "
            "skgeo.geometry.quotient.leading_eigenvalues.",
            self.device,
        )
        return self.batch_size or max(1, _BATCH_BYTES // max(sample, 1))

    def outputs(self) -> Tensor:
        """Natural outputs of all samples, of shape (N, n_positions, K), in the model's dtype."""
        with torch.no_grad():
            inputs = self.samples.inputs
            sample = sum(t[:1].numel() * t.element_size() for t in tensors_of(inputs))
            size = self.batch_size or max(1, min(256, _FORWARD_BYTES // max(sample, 1)))
            parts = [
                self._replica(self.inputs(range(start, min(start + size, self.n_samples))))
                for start in range(0, self.n_samples, size)
            ]
        outputs = torch.cat(parts).reshape(self.n_samples, self.n_positions, self.n_outputs)
        if not bool(torch.isfinite(outputs).all()):
            bad = int((~torch.isfinite(outputs)).flatten(1).any(1).nonzero()[0])
            raise SkgeoError(
                f"the model's outputs for sample {bad} hold NaN or infinity: no metric is defined "
                "there. Look for exploding weights or inputs outside the model's range."
            )
        return outputs

    def rows(self, inputs: Inputs, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Rows ``S_l^T`` of a batch at each layer.

        Parameters
        ----------
        inputs : Tensor, dict or tuple
            A batch, such as :meth:`inputs` gives.
        names : sequence of str, optional
            By default all layers.

        Returns
        -------
        dict of str to Tensor of shape (b, n_rows, n_l)
            In the dtype of the representations.

        Raises
        ------
        SkgeoError
            If derivatives are NaN or infinite.
        """
        seen = self.maps.record(inputs, names)
        found = seen.pull_back(self._roots(seen.output), self.n_rows)
        for name, block in found.items():
            check_derivatives(block, f"the outputs with respect to {name!r}")
        return found

    def _roots(self, output: Tensor) -> Callable[[slice], Tensor]:
        """Columns of R as cotangents: position by position, since positions are independent."""
        size = len(output)
        z = output.detach().reshape(size, self.n_positions, self.n_outputs)
        eye = torch.eye(self.n_outputs, dtype=torch.float64, device=z.device)
        # (b, positions, rank, K): row k of R^T is column k of R.
        roots = self.likelihood.pull_rows(z, eye.expand(*z.shape[:2], -1, -1))
        rank = roots.shape[2]

        def cotangents(which: slice) -> Tensor:
            block = z.new_zeros((which.stop - which.start, size, self.n_positions, self.n_outputs))
            for into, k in zip(block, range(which.start, which.stop), strict=True):
                into[:, k // rank] = roots[:, k // rank, k % rank].to(z.dtype)
            return block.reshape(-1, *output.shape)

        return cotangents

    def representations(self, name: str) -> Tensor:
        """Representations of all samples at one layer, of shape (N, n_l), float64."""
        parts = []
        for batch in self.batches([name]):
            with torch.no_grad():
                seen = self.maps.record(self.inputs(batch), [name])
            parts.append(seen.representation(self.maps[name]).double())
        return torch.cat(parts)

    def tail(self, inputs: Inputs, name: str) -> Segment:
        """The rest of the network behind a layer, on one batch."""
        return Segment(self.maps.replica, inputs, None, self.maps[name])

    def default_layer(self) -> str:
        """The last cut before the output; the output itself where there is no other."""
        inner = [layer for layer in self.maps.layers if layer.is_cut and not layer.is_output]
        cuts = inner or [layer for layer in self.maps.layers if layer.is_cut]
        return (cuts or list(self.maps.layers))[-1].name

    def sized(self, outputs: Tensor) -> Tensor:
        """Outputs of a batch as (b, n_positions, K)."""
        return outputs.reshape(len(outputs), self.n_positions, self.n_outputs)
