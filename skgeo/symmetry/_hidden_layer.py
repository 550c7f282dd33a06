r"""One hidden layer as arrays: :math:`f(x) = c + A x + \sum_i q_i\,\phi(w_i^T x + b_i)`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from skgeo._results import Result
from skgeo.data._arrays import as_tensor, check_finite
from skgeo.exceptions import SkgeoError
from skgeo.network._activation import RELU, Activation, as_activation
from skgeo.network._stack import Stack, read_stack

# Entries of the hidden layer that are evaluated at a time.
_BLOCK = 2**22


@dataclass(frozen=True, eq=False, repr=False)
class HiddenLayer(Result):
    """One hidden layer, as a function of the layer before it.

    :func:`one_hidden` makes one from arrays and checks it.

    Attributes
    ----------
    weights : Tensor of shape (d, n)
    biases : Tensor of shape (d,)
    outputs : Tensor of shape (k, d)
    shift : Tensor of shape (k,)
    skip : Tensor of shape (k, n) or None
        Linear part in parallel with the hidden layer.
    activation : Activation
    precision : float
        Machine epsilon of the original dtype of the weights, which are stored in float64.
    units : Tensor of shape (d_before,) or None
        int64; for each original unit the unit it became part of, -1 where it was removed or added
        to a bias. None if no unit has changed.
    """

    weights: Tensor
    biases: Tensor
    outputs: Tensor
    shift: Tensor
    skip: Tensor | None = None
    activation: Activation = RELU
    precision: float = torch.finfo(torch.float64).eps
    units: Tensor | None = None

    def _line(self) -> str:
        skip = "" if self.skip is None else ", with a linear part"
        return f"{self.n_inputs} -> {self.n_units} {self.activation} -> {self.n_outputs}{skip}"

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
        size = max(1, _BLOCK // max(self.n_units, 1))
        parts = [
            self.activation(x @ self.weights.T + self.biases) @ self.outputs.T + self.shift
            for x in torch.split(inputs, size)
        ]
        result = torch.cat(parts) if parts else inputs.new_empty((0, self.n_outputs))
        return result if self.skip is None else result + inputs @ self.skip.T

    def rounding(self, inputs: Tensor) -> Tensor:
        """Size of the rounding errors of each output, from the weights and from float64.

        Parameters
        ----------
        inputs : Tensor of shape (N, n)

        Returns
        -------
        Tensor of shape (N, k)
        """
        size = max(1, _BLOCK // max(self.n_units, 1))
        w, b, q = self.weights.abs(), self.biases.abs(), self.outputs.abs()
        parts = [(x.abs() @ w.T + b) @ q.T for x in torch.split(inputs, size)]
        gross = torch.cat(parts) + self.shift.abs()
        if self.skip is not None:
            gross = gross + inputs.abs() @ self.skip.abs().T
        return 4 * self.precision * gross

    def keep(self, which: Tensor) -> HiddenLayer:
        """The units of a mask, with `units` updated.

        Parameters
        ----------
        which : Tensor of shape (d,), bool

        Returns
        -------
        HiddenLayer
        """
        number = torch.full((self.n_units,), -1, dtype=torch.int64)
        number[which] = torch.arange(int(which.sum()))
        return replace(self.take(which), units=self.followed(number))

    def followed(self, then: Tensor) -> Tensor:
        """For each original unit its image under a map of the present units.

        Parameters
        ----------
        then : Tensor of shape (d,), int64

        Returns
        -------
        Tensor of shape (d_before,), int64
        """
        if self.units is None:
            return then
        return torch.cat([then, then.new_tensor([-1])])[self.units]  # -1 stays -1

    def take(self, units: Tensor) -> HiddenLayer:
        """The same network with some of its units, in the given order.

        Parameters
        ----------
        units : Tensor of int64 or bool

        Returns
        -------
        HiddenLayer
        """
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
    activation: Activation | str = "relu",
) -> HiddenLayer:
    """Network of one hidden layer from arrays, checked and in float64.

    Parameters
    ----------
    weights : array or Tensor of shape (d, n)
        One row per unit.
    biases : array or Tensor of shape (d,), or None
    outputs : array or Tensor of shape (k, d)
    shift : array or Tensor of shape (k,), optional
        Bias of the outputs.
    skip : array or Tensor of shape (k, n), optional
        Linear part in parallel with the hidden layer.
    activation : str, default="relu"

    Returns
    -------
    HiddenLayer

    Raises
    ------
    SkgeoError
        For wrong shapes, NaN or infinite weights, or an unknown activation.

    Examples
    --------
    The absolute value as two units:

    >>> net = one_hidden([[1.0], [-1.0]], [0.0, 0.0], [[1.0, 1.0]])  # |x|
    >>> net(torch.tensor([[-3.0]], dtype=torch.float64))
    tensor([[3.]], dtype=torch.float64)
    """
    w, q = _tensor(weights), _tensor(outputs)
    if w.dim() != 2 or q.dim() != 2 or q.shape[1] != len(w):
        raise SkgeoError(
            f"Got weights of shape {tuple(w.shape)} and outputs of shape {tuple(q.shape)}; "
            "expected (d, n) and (k, d) for d hidden units."
        )
    (d, n), k = w.shape, len(q)
    b = torch.zeros(d, dtype=w.dtype) if biases is None else _tensor(biases)
    c = torch.zeros(k, dtype=q.dtype) if shift is None else _tensor(shift)
    a = None if skip is None else _tensor(skip)
    for name, tensor, shape in (("biases", b, (d,)), ("shift", c, (k,)), ("skip", a, (k, n))):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise SkgeoError(f"Got {name} of shape {tuple(tensor.shape)}; expected {shape}.")
    given = [t for t in (w, b, q, c, a) if t is not None]
    for tensor in given:
        if not bool(torch.isfinite(tensor).all()):
            raise SkgeoError("The weights contain NaN or infinity; expected finite numbers.")
    coarse = max(
        (torch.finfo(t.dtype).eps for t in given if t.is_floating_point()),
        default=torch.finfo(torch.float64).eps,
    )
    w, b, q, c = (t.to("cpu", torch.float64) for t in (w, b, q, c))
    a = None if a is None else a.to("cpu", torch.float64)
    return HiddenLayer(w, b, q, c, a, as_activation(activation), coarse)


def _tensor(values: Any) -> Tensor:
    """A tensor of real numbers; lists become float64, where torch would use float32."""
    return as_tensor(values, "weights")


def unit_arrays(**arrays: Any) -> list[Tensor]:
    """Weights and outputs of units as finite tensors in float64, by the names of the arguments."""
    found = []
    for name, values in arrays.items():
        tensor = as_tensor(values, name).double()
        if tensor.ndim:
            check_finite(tensor, name)
        found.append(tensor)
    return found


def as_hidden_layer(model: Any) -> HiddenLayer:
    """A model with one hidden layer of rectifiers as a ReLU layer with a linear part."""
    return as_relu(rectifier_layer(model))


def rectifier_layer(model: Any) -> HiddenLayer:
    """A model with one hidden layer of rectifiers as arrays, with its own activation."""
    if isinstance(model, HiddenLayer):
        found: HiddenLayer | None = model
        shown = str(model.activation)
    else:
        stack = read_stack(model)
        found = _rectifiers_of(stack)
        shown = ", ".join(map(str, stack.activations))
    if found is None or not has_hinges(found.activation):
        raise SkgeoError(
            f"The network has the activations {shown}; expected one hidden layer of ReLU, or of "
            "leaky ReLU of another slope than -1, for which such a form is known. Other networks: "
            "see canonical_form and compress."
        )
    return found


def has_hinges(activation: Activation) -> bool:
    """Whether one unit with it and a linear part make a ReLU unit, and a pair of units any slope.

    A pair of absolute values, which are leaky ReLU of slope -1, has no slope.
    """
    return activation.is_rectifier and not activation.per_unit and activation.slope != -1.0


def as_relu(layer: HiddenLayer) -> HiddenLayer:
    """A layer of leaky ReLU of slope s, (1 - s) relu(z) + s z, as ReLU and a linear part."""
    slope = layer.activation.slope
    if slope == 0.0:
        return layer
    inner, bias, outer = layer.weights, layer.biases, layer.outputs
    linear = slope * (outer @ inner)
    return replace(
        layer,
        outputs=(1 - slope) * outer,
        shift=layer.shift + slope * (outer @ bias),
        skip=linear if layer.skip is None else layer.skip + linear,
        activation=RELU,
    )


def one_hidden_of(stack: Stack) -> HiddenLayer | None:
    """A chain with at most one hidden layer of rectifiers as a ReLU layer with a linear part.

    Returns None for other chains.
    """
    found = _rectifiers_of(stack)
    return None if found is None else as_relu(found)


def _rectifiers_of(stack: Stack) -> HiddenLayer | None:
    """A chain with at most one hidden layer, of rectifiers; None for other chains.

    Layers without an activation between them are multiplied together.
    """
    bent = [i for i, each in enumerate(stack.activations) if not each.is_identity]
    if any(kind != "linear" for kind in stack.kinds) or len(bent) > 1:
        return None
    if bent and not has_hinges(stack.activations[bent[0]]):
        return None
    precision = torch.finfo(stack.dtype).eps
    outer, shift = _product(stack, bent[0] + 1 if bent else 0, len(stack.weights))
    if not bent:
        n, k = stack.widths[0], stack.widths[-1]
        inner, bias = outer.new_zeros((0, n)), outer.new_zeros(0)
        return HiddenLayer(inner, bias, outer.new_zeros((k, 0)), shift, outer, precision=precision)
    inner, bias = _product(stack, 0, bent[0] + 1)
    kind = stack.activations[bent[0]]
    return HiddenLayer(inner, bias, outer, shift, activation=kind, precision=precision)


def _product(stack: Stack, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Matrix and bias of consecutive layers multiplied together."""
    matrix = stack.weights[start]
    first = stack.biases[start]
    bias = matrix.new_zeros(len(matrix)) if first is None else first
    for weight, added in zip(
        stack.weights[start + 1 : stop], stack.biases[start + 1 : stop], strict=True
    ):
        matrix, bias = weight @ matrix, weight @ bias
        bias = bias if added is None else bias + added
    return matrix, bias
