"""Output error by width: a greedy bound for every width."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.network._stack import Stack

_WIDTHS = 48
_RIDGE = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class WidthError(Result):
    """One point of the curve of output error by width.

    Attributes
    ----------
    layer : str
        Name of the hidden layer; all other layers are complete.
    width : int
        Number of units that are kept.
    rms_error, max_error : float
        Root mean square and largest error of the network's outputs on the data.
    units : Tensor of shape (width,)
        int64, the units that are kept; their outgoing weights are refitted.
    """

    layer: str
    width: int
    rms_error: float
    max_error: float
    units: Tensor

    def _line(self) -> str:
        return (
            f"layer {self.layer!r} of width {self.width}: rms error {self.rms_error:.3g}, "
            f"max error {self.max_error:.3g}"
        )


def width_curve(stack: Stack, samples: Tensor) -> tuple[WidthError, ...]:
    r"""Upper bounds on the least error at each width, by greedy removal of units.

    Each step removes the unit of least cost. The cost is the mean squared change of the arguments
    of the next layer after refitting the outgoing weights and bias of the remaining units by least
    squares: :math:`|q_i|^2 / (G^{-1})_{ii}`, where G is the covariance of the activations.

    Returns at most 48 widths per layer, in descending order.
    Raises SkgeoError if there are no samples.
    """
    # samples (N, n)
    if not len(samples):
        raise SkgeoError("X has no samples; the width-error curve needs at least one.")
    *arguments, whole = stack.arguments(samples)
    found = []
    for i, activation in enumerate(stack.activations):
        d = len(stack.weights[i])
        if d == 0:
            continue
        hidden = activation(arguments[i])
        wanted = torch.logspace(0, torch.tensor(float(d)).log10(), _WIDTHS).round().int().tolist()
        widths = sorted({0, *wanted, d}, reverse=True)
        for units, outputs, shift in _eliminate(stack, i, hidden, widths):
            weights, biases = list(stack.weights), list(stack.biases)
            bias = biases[i]
            weights[i] = weights[i][units]
            biases[i] = None if bias is None else bias[units]
            weights[i + 1], biases[i + 1] = outputs, shift
            error = stack.outputs(samples, weights, biases) - whole
            found.append(
                WidthError(
                    stack.names[i],
                    len(units),
                    float(error.square().mean().sqrt()),
                    float(error.abs().max()),
                    units,
                )
            )
    return tuple(found)


def _eliminate(
    stack: Stack, i: int, hidden: Tensor, widths: list[int]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Units, outgoing weights and bias at each of some descending widths."""
    outputs = stack.weights[i + 1].clone()
    bias = stack.biases[i + 1]
    mean = hidden.mean(0)
    level = outputs @ mean + (0.0 if bias is None else bias)  # mean input of the next layer
    centred = hidden - mean
    gram = centred.T @ centred / len(hidden)
    gram.diagonal().add_(_RIDGE * float(gram.diagonal().sum()) + 1e-300)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    units = torch.arange(hidden.shape[1])
    results = []
    for width in widths:
        while len(units) > width:
            diagonal = inverse.diagonal()
            worst = int((outputs.square().sum(0) / diagonal).argmin())
            keep = torch.arange(len(units)) != worst
            row = inverse[worst] / diagonal[worst]
            outputs = (outputs - outputs[:, worst : worst + 1] * row)[:, keep]
            inverse = (inverse - inverse[:, worst : worst + 1] * row)[keep][:, keep]
            units = units[keep]
        results.append((units, outputs.clone(), level - outputs @ mean[units]))
    return results
