r"""The rows whose squares make the Fisher metric: ``A_n = R(z_n)^T J_n``, block by block.

``J_n`` is the Jacobian of sample n's outputs with respect to the parameters and ``F = R R^T`` the
Fisher metric of the output distribution, so that the metric pulled back to the parameters is
``G = (1/N) sum_n A_n^T A_n``. A dense A may be far larger than memory; this is the one place that
knows how much of it exists at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.autodiff.jacobian import output_jacobian
from skgeo.autodiff.replica import Replica, replica
from skgeo.data import Inputs, as_samples, cast_inputs
from skgeo.exceptions import SkgeoError
from skgeo.geometry.likelihood import Likelihood, resolve_likelihood
from skgeo.linalg.memory import USABLE_SHARE, available_memory, require_memory

__all__ = ["Pullback"]

# One batch of Jacobians by default: large enough for full speed of the matrix products.
_BATCH_BYTES = 2**28


class Pullback:
    """A network on data, as rows of its output Jacobian weighted by its likelihood.

    Parameters
    ----------
    module : nn.Module
        Never touched: all work is done on a replica.
    X : array, Tensor, dict, Dataset, DataLoader or Samples
    forward : callable, optional
        ``forward(module, inputs) -> outputs``; default ``module(inputs)``.
    likelihood : str or Likelihood, default="gaussian"
        "auto" is decided by :func:`~skgeo.geometry.likelihood.resolve_likelihood`.
    said, targets
        What "auto" reads: the model's own word, and y.
    parameters : "trainable", "all" or list of str, default="trainable"
    keep_integers : bool, default=False
        Leave integer inputs as they are, as for token ids.
    batch_size : int, optional
        Samples a forward pass; by default as many as 256 MiB of Jacobian hold.
    device : str or torch.device, optional

    Attributes
    ----------
    n_samples, n_positions, n_outputs : int
        N, positions a sample (1 for plain vectors of outputs), outputs a position K.
    n_parameters : int
        P.
    n_rows : int
        Rows of A: ``N * n_positions * rank(F)``.
    likelihood : Likelihood
    dtype : torch.dtype
        In which the Jacobian is computed; rows are float64.
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
        parameters: str | Sequence[str] = "trainable",
        keep_integers: bool = False,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self._replica = replica(module, forward=forward, parameters=parameters, device=device)
        samples = as_samples(X, targets)
        self._samples = samples.to(
            dtype=_input_dtype(self._replica),
            keep_integers=keep_integers or self._replica.takes_integers,
        )
        self.dtype, self.device = self._replica.dtype, self._replica.device
        self.n_samples = len(samples)
        self.n_parameters = self._replica.n_parameters
        self.parameter_names = self._replica.selected
        shape = self._first_output().shape
        self.n_outputs = shape[-1] if len(shape) > 1 else 1
        self.n_positions = shape.numel() // self.n_outputs
        self.likelihood = resolve_likelihood(
            likelihood, said=said, targets=samples.targets, n_outputs=self.n_outputs
        )
        self.n_tangent_rows = self.n_samples * self.n_positions * self.n_outputs
        self.n_rows = self.n_samples * self.n_positions * self.likelihood.rank(self.n_outputs)
        self.batch_size = self._check_batch_size(batch_size)
        self._kept: tuple[range, Tensor, Tensor] | None = None
        self.likelihood.check(self.outputs())

    def _batch(self, start: int, stop: int) -> Inputs:
        return cast_inputs(self._samples.take(start, stop), device=self.device)

    def _first_output(self) -> Tensor:
        """Run one sample, so that a model and data that do not fit are told apart early."""
        inputs = self._batch(0, 1)
        try:
            with torch.no_grad():
                return self._replica(inputs)
        except SkgeoError:
            raise
        except Exception as error:
            raise SkgeoError(
                f"the model cannot be run on this data. One sample is {_describe(inputs)}; the "
                f"forward pass says: {type(error).__name__}: {error}"
            ) from error

    def _check_batch_size(self, batch_size: int | None) -> int:
        sample = self.n_positions * self.n_outputs * self.n_parameters * 16
        require_memory(
            sample,
            f"the Jacobian of one sample ({self.n_positions * self.n_outputs} outputs x "
            f"{self.n_parameters} parameters)",
            "name fewer parameters with parameters=[...], or wrap the model so that it gives "
            "fewer outputs.",
            self.device,
        )
        if batch_size is None:
            return max(1, min(self.n_samples, _BATCH_BYTES // sample))
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise SkgeoError(f"batch_size={batch_size!r}: expected a positive integer or None.")
        return batch_size

    def outputs(self) -> Tensor:
        """Natural outputs of all samples, of shape (N, n_positions, K), in the model's dtype."""
        with torch.no_grad():
            parts = [self._replica(self._batch(b.start, b.stop)) for b in self.batches()]
        outputs = torch.cat(parts).reshape(self.n_samples, self.n_positions, self.n_outputs)
        if not bool(torch.isfinite(outputs).all()):
            bad = int((~torch.isfinite(outputs)).flatten(1).any(1).nonzero()[0])
            raise SkgeoError(
                f"the model's outputs for sample {bad} hold NaN or infinity: no metric is defined "
                "there. Look for exploding weights or inputs outside the model's range."
            )
        return outputs

    def jacobian(self, samples: range) -> tuple[Tensor, Tensor]:
        """Outputs and Jacobians of some samples, computed a batch at a time.

        Parameters
        ----------
        samples : range
            Of step 1.

        Returns
        -------
        outputs : Tensor of shape (b, n_positions, K), float64
        jacobian : Tensor of shape (b, n_positions, K, P), float64
        """
        if self._kept is not None and self._kept[0] == samples:
            return self._kept[1:]
        size = (len(samples), self.n_positions, self.n_outputs)
        outputs = torch.empty(size, dtype=torch.float64, device=self.device)
        jacobian = torch.empty((*size, self.n_parameters), dtype=torch.float64, device=self.device)
        for start in range(samples.start, samples.stop, self.batch_size):
            stop = min(start + self.batch_size, samples.stop)
            z, rows = output_jacobian(self._replica, self._batch(start, stop))
            at = slice(start - samples.start, stop - samples.start)
            outputs[at] = z.reshape(outputs[at].shape)
            jacobian[at] = rows.reshape(jacobian[at].shape)
        return outputs, jacobian

    def rows(self, samples: range) -> Tensor:
        """Rows ``R^T J`` of some samples, of shape (b * n_positions * rank(F), P), float64."""
        outputs, jacobian = self.jacobian(samples)
        return self.weigh(outputs, jacobian).flatten(0, -2)

    def weigh(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """``R^T`` on the output axis: (..., K, width) to (..., rank(F), width)."""
        return self.likelihood.pull_rows(outputs, rows)

    def batches(self) -> list[range]:
        """The samples in batches of ``batch_size``, or in one while all of them are held."""
        if self._kept is not None and len(self._kept[0]) == self.n_samples:
            return [self._kept[0]]
        size = self.batch_size
        return [
            range(start, min(start + size, self.n_samples))
            for start in range(0, self.n_samples, size)
        ]

    def blocks(self, reserved: float) -> list[range]:
        """The samples in blocks of which two fit in memory at once, as dense Jacobians.

        Parameters
        ----------
        reserved : float
            Bytes that the caller needs besides.
        """
        room = max(USABLE_SHARE * available_memory(self.device) - reserved, 0)
        sample = self.n_positions * self.n_outputs * self.n_parameters * 8
        if self.n_samples * sample <= room / 2:
            return [range(self.n_samples)]
        size = max(1, int(room / 4 // sample))
        return [
            range(start, min(start + size, self.n_samples))
            for start in range(0, self.n_samples, size)
        ]

    def keep(self, samples: range) -> None:
        """Hold a block's Jacobian until :meth:`release`, for work that reads it twice."""
        self._kept = (samples, *self.jacobian(samples))

    def release(self) -> None:
        """Let go of what :meth:`keep` holds."""
        self._kept = None


def _input_dtype(of: Replica) -> torch.dtype:
    """What inputs are cast to: the dtype of the module's first floating parameter."""
    return next((p.dtype for p in of.parameters.values() if p.is_floating_point()), of.dtype)


def _describe(inputs: Inputs) -> str:
    if isinstance(inputs, Tensor):
        return f"{tuple(inputs.shape)} of {inputs.dtype}"
    items = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
    return ", ".join(f"{name}: {tuple(t.shape)} of {t.dtype}" for name, t in items)
