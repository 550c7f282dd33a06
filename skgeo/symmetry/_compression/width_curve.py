"""How much error fewer units cost: a greedy bound for every width."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.network._stack import Stack

_WIDTHS = 48
_RIDGE = 1e-12


@dataclass(frozen=True, eq=False)
class WidthError:
    """One point of the curve.

    Attributes
    ----------
    layer : str
        Module whose outputs are the hidden units; all other layers are left whole.
    width : int
    rms_error, max_error : float
        Of the network's outputs on the data.
    units : Tensor of shape (width,)
        int64, the units that are kept; what they are read with was fitted anew.
    """

    layer: str
    width: int
    rms_error: float
    max_error: float
    units: Tensor


def width_curve(stack: Stack, samples: Tensor) -> tuple[WidthError, ...]:
    r"""Take units away one at a time, each time the one that costs least.

    The cost of a unit is the mean square by which the inputs of the next layer change when the
    weights and biases that read the remaining units are fitted anew by least squares:
    :math:`|q_i|^2 / (G^{-1})_{ii}` with G the covariance of the activations.

    Returns: Layer by layer, widths descending; 48 widths at most a layer.
    Raises SkgeoError if there are no samples.

    An upper bound on the least error at each width, on these samples. Costs :math:`O(N d^2 + d^3)`
    a layer, and a forward pass a point.
    """
    # samples (N, n)
    if not len(samples):
        raise SkgeoError("the width-error curve needs samples.")
    *arguments, whole = stack.arguments(samples)
    found = []
    for i, activation in enumerate(stack.activations):
        d = len(stack.weights[i])
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
