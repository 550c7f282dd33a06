"""A network of linear layers and one activation, measured beside its mean-field theory."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skgeo.autodiff.replica import Replica, replica
from skgeo.data import as_samples, cast_inputs
from skgeo.exceptions import SkgeoError
from skgeo.geometry.chain.activations import Activation, as_activation
from skgeo.geometry.chain.gaussian_integrals import GaussianMoments
from skgeo.geometry.chain.mean_field_theory import MeanFieldTheory, mean_field_theory
from skgeo.linalg.threads import single_blas_thread

__all__ = ["MeanField", "mean_field"]

# What does nothing to a vector in eval mode.
_NEUTRAL = (nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class MeanField:
    r"""Mean-field theory of a network, and what the network does.

    Attributes
    ----------
    theory : MeanFieldTheory
        At the variances of all hidden layers together.
    layers : tuple of str
        The linear layers that an activation follows.
    sigma_w, sigma_b : ndarray of shape (n_layers,)
        :math:`\sqrt{n_{in} \operatorname{var} W}` and the standard deviation of the biases.
    q_predicted, q_measured : ndarray of shape (n_layers,)
        Mean square of the preactivations: the theory's, layer by layer from the mean square of the
        inputs with each layer's own variances, and the mean over samples and units. NaN without X.
    chi_predicted, chi_measured : ndarray of shape (n_layers,)
        Mean square of the singular values of the step to each layer's preactivations from those
        before: :math:`\sigma_w^2 E \phi'^2` at `q_predicted`, and
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


def mean_field(
    module: nn.Module, X: Any = None, *, device: str | torch.device | None = None
) -> MeanField:
    r"""Mean-field theory at a network's own variances, with measured values beside it.

    Parameters
    ----------
    module : nn.Module
        A ``Sequential`` of linear layers with one elementwise activation between them; dropout,
        identities and a flattening of the input may stand anywhere. Left as it is.
    X : array or Tensor, optional
        Inputs to measure on.
    device : str or torch.device, optional

    Returns
    -------
    MeanField

    Raises
    ------
    SkgeoError
        For networks outside the theory's reach, naming the module that is.

    See Also
    --------
    mean_field_theory : The same from numbers, without a network.

    Notes
    -----
    One forward pass, and the square of each weight matrix. The theory is that of random weights:
    of a trained network it says what the variances alone would do.

    Examples
    --------
    Weights of variance 2/n, for which a rectifier keeps lengths:

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.geometry.chain import mean_field
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
    with single_blas_thread(), torch.no_grad():
        copy = replica(module, device=device, parameters=None)
        steps = _steps(copy.module)
        activation = _one_activation(steps)
        layers = _hidden(steps)
        sigma_w = np.array(
            [_deviation(linear.weight) * linear.in_features**0.5 for _, linear in layers]
        )
        sigma_b = np.array([_deviation(linear.bias) for _, linear in layers])
        # Layers weigh by their number of parameters, as if drawn together.
        many = np.array([linear.weight.numel() for _, linear in layers], dtype=float)
        wide = np.array([linear.out_features for _, linear in layers], dtype=float)
        empty = np.full(len(layers), np.nan)
        predicted, measured, slopes, stretches = empty, empty, empty, empty
        first = 1.0
        if X is not None:
            predicted, measured, slopes, stretches = _measure(
                copy, X, steps, layers, activation, sigma_w, sigma_b
            )
            first = float(predicted[0])
    theory = mean_field_theory(
        activation,
        float(np.sqrt(np.average(sigma_w**2, weights=many))),
        float(np.sqrt(np.average(sigma_b**2, weights=wide))),
        q0=first if first > 0 else 1.0,
    )
    return MeanField(
        theory=theory,
        layers=tuple(name for name, _ in layers),
        sigma_w=sigma_w,
        sigma_b=sigma_b,
        q_predicted=predicted,
        q_measured=measured,
        chi_predicted=slopes,
        chi_measured=stretches,
    )


def _steps(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The modules of nested Sequentials in the order in which they run."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        found = []
        for name, child in module.named_children():
            found += _steps(child, f"{prefix}.{name}" if prefix else name)
        return found
    return [(prefix, module)]


def _one_activation(steps: list[tuple[str, nn.Module]]) -> Activation:
    """The activation, after checking that everything else is linear or neutral."""
    found: Activation | None = None
    where, chain = "", "a chain of Linear layers and one elementwise activation"
    for index, (name, module) in enumerate(steps):
        shown = f"{name!r} ({type(module).__name__})" if name else type(module).__name__
        if isinstance(module, (nn.Linear, *_NEUTRAL)):
            continue
        if isinstance(module, nn.Flatten):
            if any(isinstance(before, nn.Linear) for _, before in steps[:index]):
                raise SkgeoError(
                    f"{shown} comes after a linear layer; mean-field theory is of {chain}."
                )
            continue
        try:
            activation = as_activation(module)
            if list(module.children()):
                raise SkgeoError("it holds other modules.")
        except SkgeoError as error:
            raise SkgeoError(
                f"mean-field theory reaches {chain} in a Sequential; {shown} is neither: {error}"
            ) from error
        if found is not None and not _same(found, activation):
            raise SkgeoError(f"mean-field theory is of {chain}; here {where} and {shown} are two.")
        found, where = activation, shown
    if found is None:
        raise SkgeoError(f"mean-field theory is of {chain}; this network has no activation.")
    return found


def _same(one: Activation, other: Activation) -> bool:
    x = np.linspace(-7.0, 7.0, 57)
    return bool(np.array_equal(one.values(x), other.values(x)))


def _hidden(steps: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Linear]]:
    """The linear layers that an activation follows, each fed by the input or by an activation."""
    kept = [(name, m) for name, m in steps if not isinstance(m, (nn.Flatten, *_NEUTRAL))]
    found = []
    for (name, module), (after, following) in itertools.pairwise(kept):
        if isinstance(module, nn.Linear) == isinstance(following, nn.Linear):
            kind = "linear layers" if isinstance(module, nn.Linear) else "activations"
            raise SkgeoError(
                f"{name!r} and {after!r} are two {kind} in a row; mean-field theory is of linear "
                "layers and activations in turn."
            )
        if isinstance(module, nn.Linear):
            found.append((name, module))
    if not found or not isinstance(kept[0][1], nn.Linear):
        raise SkgeoError(
            "mean-field theory starts from the preactivations of a linear layer; this network "
            "starts with an activation."
        )
    return found


def _deviation(tensor: Tensor | None) -> float:
    return 0.0 if tensor is None else float(tensor.double().var(unbiased=False)) ** 0.5


def _measure(
    replica: Replica,
    X: Any,
    steps: list[tuple[str, nn.Module]],
    layers: list[tuple[str, nn.Linear]],
    activation: Activation,
    sigma_w: np.ndarray,
    sigma_b: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    inputs = cast_inputs(as_samples(X).to(dtype=replica.dtype).inputs, device=replica.device)
    if not isinstance(inputs, Tensor):
        raise SkgeoError("X holds several inputs; a chain of linear layers takes one array.")
    replica(inputs)  # checks that the shapes fit
    names = {name for name, _ in layers}
    h, before = inputs, None
    q, chi = [], []
    for name, module in steps:
        if name in names and isinstance(module, nn.Linear):
            weight = module.weight.double()
            if before is not None:
                columns = weight.square().sum(0)
                slope = torch.as_tensor(activation.derivatives(before.cpu().numpy())[1])
                chi.append(float((slope.square().to(columns) @ columns).mean()) / len(weight))
            else:
                chi.append(np.nan)
                entry = float(h.double().square().mean())
            h = module(h)
            before = h.double()
            q.append(float(before.square().mean()))
        else:
            h = module(h)
    predicted, slopes = np.empty(len(layers)), np.full(len(layers), np.nan)
    predicted[0] = sigma_w[0] ** 2 * entry + sigma_b[0] ** 2
    for index in range(1, len(layers)):
        at = GaussianMoments(activation, float(predicted[index - 1]))
        predicted[index] = sigma_w[index] ** 2 * at.square + sigma_b[index] ** 2
        slopes[index] = sigma_w[index] ** 2 * at.slope_square
    return predicted, np.array(q), slopes, np.array(chi)
