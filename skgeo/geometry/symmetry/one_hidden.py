r"""One hidden layer as arrays: :math:`f(x) = c + A x + \sum_i q_i\,\phi(w_i^T x + b_i)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError, warn

__all__ = ["OneHidden", "one_hidden", "resolve_tolerance"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
}
# A tolerance that joins units which are apart by design.
_COARSE = 1e-3
# Entries of the hidden layer evaluated at a time.
_BLOCK = 2**22


@dataclass(frozen=True, eq=False)
class OneHidden:
    """A network of one hidden layer. Made by :func:`one_hidden`, which checks it.

    Attributes
    ----------
    weights : Tensor of shape (d, n)
    biases : Tensor of shape (d,)
    outputs : Tensor of shape (k, d)
    shift : Tensor of shape (k,)
    skip : Tensor of shape (k, n) or None
        Linear part beside the hidden layer.
    activation : {"relu", "tanh"}
    precision : float
        Machine epsilon of the type that the weights came in; they are held in float64.
    """

    weights: Tensor
    biases: Tensor
    outputs: Tensor
    shift: Tensor
    skip: Tensor | None = None
    activation: str = "relu"
    precision: float = torch.finfo(torch.float64).eps

    @property
    def n_units(self) -> int:
        """Width d of the hidden layer."""
        return len(self.weights)

    @property
    def n_inputs(self) -> int:
        """Number n of inputs."""
        return self.weights.shape[1]

    @property
    def n_outputs(self) -> int:
        """Number k of outputs."""
        return len(self.outputs)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs of shape (N, k) for inputs of shape (N, n)."""
        phi = _ACTIVATIONS[self.activation]
        size = max(1, _BLOCK // max(self.n_units, 1))
        parts = [
            phi(x @ self.weights.T + self.biases) @ self.outputs.T + self.shift
            for x in inputs.split(size)
        ]
        result = torch.cat(parts) if parts else inputs.new_empty((0, self.n_outputs))
        return result if self.skip is None else result + inputs @ self.skip.T

    def rounding(self, inputs: Tensor) -> Tensor:
        """Size of what rounding the weights, and computing in float64, does to each output.

        Parameters
        ----------
        inputs : Tensor of shape (N, n)

        Returns
        -------
        Tensor of shape (N, k)
        """
        size = max(1, _BLOCK // max(self.n_units, 1))
        w, b, q = self.weights.abs(), self.biases.abs(), self.outputs.abs()
        parts = [(x.abs() @ w.T + b) @ q.T for x in inputs.split(size)]
        gross = torch.cat(parts) + self.shift.abs()
        if self.skip is not None:
            gross = gross + inputs.abs() @ self.skip.abs().T
        return 4 * self.precision * gross

    def take(self, units: Tensor) -> OneHidden:
        """The same network with some of its units only, in that order."""
        return replace(
            self,
            weights=self.weights[units],
            biases=self.biases[units],
            outputs=self.outputs[:, units],
        )


def one_hidden(
    weights: Any,
    biases: Any,
    outputs: Any,
    shift: Any = None,
    skip: Any = None,
    *,
    activation: str = "relu",
) -> OneHidden:
    """Arrays of a network of one hidden layer, checked and in float64.

    Parameters
    ----------
    weights : array or Tensor of shape (d, n)
        One row a unit.
    biases : array or Tensor of shape (d,) or None
    outputs : array or Tensor of shape (k, d)
    shift : array or Tensor of shape (k,), optional
        Output bias.
    skip : array or Tensor of shape (k, n), optional
        Linear part beside the hidden layer.
    activation : {"relu", "tanh"}, default="relu"

    Returns
    -------
    OneHidden

    Raises
    ------
    SkgeoError
        For shapes that do not fit, NaN or infinite weights, or another activation.

    Examples
    --------
    >>> net = one_hidden([[1.0], [-1.0]], [0.0, 0.0], [[1.0, 1.0]])  # |x|
    >>> net(torch.tensor([[-3.0]], dtype=torch.float64))
    tensor([[3.]], dtype=torch.float64)
    """
    if activation not in _ACTIVATIONS:
        raise SkgeoError(f"activation={activation!r}: expected one of {sorted(_ACTIVATIONS)}.")
    w, q = _tensor(weights), _tensor(outputs)
    if w.dim() != 2 or q.dim() != 2 or q.shape[1] != len(w):
        raise SkgeoError(
            f"weights of shape {tuple(w.shape)} and outputs of shape {tuple(q.shape)}: expected "
            "(d, n) and (k, d) for d hidden units."
        )
    (d, n), k = w.shape, len(q)
    b = torch.zeros(d, dtype=w.dtype) if biases is None else _tensor(biases)
    c = torch.zeros(k, dtype=q.dtype) if shift is None else _tensor(shift)
    a = None if skip is None else _tensor(skip)
    for name, tensor, shape in (("biases", b, (d,)), ("shift", c, (k,)), ("skip", a, (k, n))):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise SkgeoError(f"{name} of shape {tuple(tensor.shape)}: expected {shape}.")
    given = [t for t in (w, b, q, c, a) if t is not None]
    for tensor in given:
        if not bool(torch.isfinite(tensor).all()):
            raise SkgeoError("the weights hold NaN or infinity: there is no function to classify.")
    coarse = max(
        (torch.finfo(t.dtype).eps for t in given if t.is_floating_point()),
        default=torch.finfo(torch.float64).eps,
    )
    w, b, q, c = (t.to("cpu", torch.float64) for t in (w, b, q, c))
    a = None if a is None else a.to("cpu", torch.float64)
    return OneHidden(w, b, q, c, a, activation, coarse)


def _tensor(values: Any) -> Tensor:
    """Lists become float64, where torch would make float32 of them."""
    if isinstance(values, Tensor):
        return values.detach()
    return torch.from_numpy(np.asarray(values))


def resolve_tolerance(tol: Any, precision: float) -> float:
    """Relative tolerance for weights of a given machine epsilon.

    Parameters
    ----------
    tol : "auto" or float
    precision : float
        Machine epsilon of the type in which the weights were stored.

    Returns
    -------
    float
        ``"auto"`` is 1e-10 for float64 and 16 machine epsilons, 2e-6, for float32.

    Raises
    ------
    SkgeoError
        If `tol` is no positive number below 1.

    Warns
    -----
    GeometryWarning
        If `tol` is below the weights' own precision, or "auto" for weights of half precision.

    Examples
    --------
    >>> resolve_tolerance("auto", 2.220446049250313e-16)
    1e-10
    """
    if isinstance(tol, str) and tol == "auto":
        found = max(1e-10, 16 * precision)
        if found > _COARSE:
            warn(
                f"weights of half precision: units closer than {found:.1g} are taken for one. Set "
                "tol for another answer."
            )
        return found
    if (
        isinstance(tol, bool)
        or not isinstance(tol, (int, float, np.floating))
        or not 0 < float(tol) < 1
    ):
        raise SkgeoError(f"tol={tol!r}: expected 'auto' or a number between 0 and 1.")
    if tol < precision:
        warn(
            f"tol={tol:.1e} is below the precision of the weights, {precision:.1e}: copies that "
            "differ by rounding alone will not be recognised."
        )
    return float(tol)
