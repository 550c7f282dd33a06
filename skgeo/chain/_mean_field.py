"""Mean-field theory of a network of linear layers and one activation, and its measured values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skgeo._results import Result
from skgeo.chain._gaussian_integrals import GaussianMoments
from skgeo.chain._mean_field_theory import MeanFieldTheory, mean_field_theory
from skgeo.chain._scalar_function import ScalarFunction, scalar_function
from skgeo.exceptions import SkgeoError
from skgeo.linalg._threads import single_blas_thread
from skgeo.network import Activation
from skgeo.network._bound import BoundNetwork, bind
from skgeo.network._stack import Stack, stack_of


@dataclass(frozen=True, repr=False)
class MeanField(Result):
    r"""Mean-field theory of a network, with measured values.

    Attributes
    ----------
    theory : MeanFieldTheory
        Theory at the variances of the parameters of all hidden layers together.
    layers : tuple of str
        Names of the linear layers that an activation follows.
    sigma_w, sigma_b : ndarray of shape (n_layers,)
        :math:`\sqrt{n_{in} \operatorname{var} W}` and the standard deviation of the biases.
    q_predicted, q_measured : ndarray of shape (n_layers,)
        Mean square of the preactivations: predicted layer by layer from the mean square of the
        inputs with each layer's own variances, and averaged over samples and units. NaN without X.
    chi_predicted, chi_measured : ndarray of shape (n_layers,)
        Mean square of the singular values of the link from one layer's preactivations to the
        next: :math:`\sigma_w^2 E \phi'^2` at `q_predicted`, and
        :math:`\|W \operatorname{diag} \phi'\|_F^2 / n_{out}` averaged over samples. NaN without X,
        and for the first layer, which no activation precedes.
    """

    theory: MeanFieldTheory
    layers: tuple[str, ...]
    sigma_w: np.ndarray
    sigma_b: np.ndarray
    q_predicted: np.ndarray
    q_measured: np.ndarray
    chi_predicted: np.ndarray
    chi_measured: np.ndarray

    def _line(self) -> str:
        theory = self.theory
        return (
            f"{len(self.layers)} layers, {theory.activation}, sigma_w {theory.sigma_w:.3g}, "
            f"sigma_b {theory.sigma_b:.3g}, chi_1 {theory.chi_1:.3g}"
        )


def mean_field(model: Any, X: Any = None, *, device: str | torch.device | None = None) -> MeanField:
    r"""Mean-field theory at a network's own variances, with measured values next to it.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        A chain of linear layers with one elementwise activation between them. Dropout,
        identities and a flattening of the input are allowed anywhere. Not modified.
    X : array or Tensor, optional
        Inputs on which to measure; without them only the theory is given.
    device : str or torch.device, optional
        Where to compute; by default where the module is.

    Returns
    -------
    MeanField
        Theory at the variances of the weights and biases, with values layer by layer.

    Raises
    ------
    SkgeoError
        If the theory does not apply to the network; the message names the module.

    See Also
    --------
    skgeo.chain.mean_field_theory : The theory at given variances, without a network.

    Notes
    -----
    It takes one forward pass in float64, and the square of each weight matrix. The theory is for
    random weights: for a trained network it describes the effect of the variances alone.

    Examples
    --------
    For weights of variance 2/n, a rectifier keeps lengths:

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.chain import mean_field
    >>> generator = torch.Generator().manual_seed(0)
    >>> net = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(500, 500), nn.ReLU())])
    >>> for layer in net[::2]:
    ...     _ = nn.init.normal_(layer.weight, std=(2 / 500) ** 0.5, generator=generator)
    ...     _ = nn.init.zeros_(layer.bias)
    >>> found = mean_field(net, torch.randn(50, 500, generator=generator))
    >>> bool(abs(found.theory.chi_1 - 1) < 0.01)
    True
    >>> bool((abs(found.chi_measured[1:] - 1) < 0.1).all())
    True
    """
    with single_blas_thread():
        network = bind(model, X, parameters=None, device=device)
        stack = _stack(network)
        activation = _one_activation(stack)
        layers = [stack.names[i] for i in _hidden(stack)]
        weights = [stack.weights[i] for i in _hidden(stack)]
        sigma_w = np.array([_deviation(w) * w.shape[1] ** 0.5 for w in weights])
        sigma_b = np.array([_deviation(stack.biases[i]) for i in _hidden(stack)])
        # Layers are weighted by their number of parameters.
        many = np.array([w.numel() for w in weights], dtype=float)
        wide = np.array([len(w) for w in weights], dtype=float)
        empty = np.full(len(layers), np.nan)
        predicted, measured, slopes, stretches = empty, empty, empty, empty
        first = 1.0
        if X is not None:
            entry, measured, stretches = _measure(network, stack, len(layers))
            predicted, slopes = _predict(scalar_function(activation), entry, sigma_w, sigma_b)
            first = float(predicted[0])
    theory = mean_field_theory(
        activation,
        float(np.sqrt(np.average(sigma_w**2, weights=many))),
        float(np.sqrt(np.average(sigma_b**2, weights=wide))),
        q0=first if first > 0 else 1.0,
    )
    return MeanField(
        theory=theory,
        layers=tuple(layers),
        sigma_w=sigma_w,
        sigma_b=sigma_b,
        q_predicted=predicted,
        q_measured=measured,
        chi_predicted=slopes,
        chi_measured=stretches,
    )


def _stack(network: BoundNetwork) -> Stack:
    """The network as a chain of linear layers.

    Raises SkgeoError if it is not one.
    """
    try:
        return stack_of(network.graph, network.model.module, final=True)
    except SkgeoError as error:
        raise SkgeoError(
            "Mean-field theory needs a chain of Linear layers and one elementwise activation. "
            f"{error}"
        ) from error


def _hidden(stack: Stack) -> range:
    """The linear layers that an activation follows."""
    return range(stack.depth if not stack.final.is_identity else stack.depth - 1)


def _one_activation(stack: Stack) -> Activation:
    """The activation after every hidden layer.

    Raises SkgeoError if there is none or more than one.
    """
    if not _hidden(stack):
        raise SkgeoError(
            "Mean-field theory needs linear layers and one activation; this network has no "
            "activation."
        )
    found = [*stack.activations, stack.final]
    for i in _hidden(stack):
        if found[i].is_identity:
            raise SkgeoError(
                f"{stack.names[i]!r} and {stack.names[i + 1]!r} are two linear layers in a row; "
                "mean-field theory needs an activation between them."
            )
        if found[i] != found[0]:
            raise SkgeoError(
                "Mean-field theory needs linear layers and one activation; here "
                f"{stack.names[0]!r} is followed by {found[0]} and {stack.names[i]!r} by "
                f"{found[i]}."
            )
    return found[0]


def _deviation(tensor: Tensor | None) -> float:
    return 0.0 if tensor is None else float(tensor.var(unbiased=False)) ** 0.5


@torch.no_grad()
def _measure(
    network: BoundNetwork, stack: Stack, count: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean squares of inputs and preactivations, and of the singular values of each link."""
    activation = stack.activations[0] if stack.activations else stack.final
    weights = [w.to(network.device) for w in stack.weights[:count]]
    biases = [None if b is None else b.to(network.device) for b in stack.biases[:count]]
    columns = [w.square().sum(0) / len(w) for w in weights]
    entry, q, chi = 0.0, np.zeros(count), np.zeros(count)
    _ = network.first_run  # raises if the model cannot be run on the data
    for batch in network.batches(8 * 4 * max(stack.widths)):
        inputs = network.inputs(batch)
        if not isinstance(inputs, Tensor):
            raise SkgeoError("X holds several inputs; a chain of linear layers takes one array.")
        share = len(batch) / network.n_samples
        h = inputs.double().reshape(-1, stack.widths[0])
        entry += share * float(h.square().mean())
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            if i:
                slope = activation.derivative(h)
                h = activation(h)
                chi[i] += share * float((slope.square() @ columns[i]).mean())
            h = torch.nn.functional.linear(h, weight, bias)
            q[i] += share * float(h.square().mean())
    chi[0] = np.nan
    return entry, q, chi


def _predict(
    activation: ScalarFunction, entry: float, sigma_w: np.ndarray, sigma_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of q and chi for each layer, from the mean square of the inputs."""
    predicted, slopes = np.empty(len(sigma_w)), np.full(len(sigma_w), np.nan)
    predicted[0] = sigma_w[0] ** 2 * entry + sigma_b[0] ** 2
    for i in range(1, len(sigma_w)):
        at = GaussianMoments(activation, float(predicted[i - 1]))
        predicted[i] = sigma_w[i] ** 2 * at.square + sigma_b[i] ** 2
        slopes[i] = sigma_w[i] ** 2 * at.slope_square
    return predicted, slopes
