"""Change of a network's outputs and of its local geometry under noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skgeo._arguments import check_integer, check_number, described
from skgeo._results import Result
from skgeo.chain._layer_map import LayerMap
from skgeo.exceptions import SkgeoError
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import BoundNetwork, bind

Noise = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, repr=False)
class StabilityEstimate(Result):
    r"""Changes under noise, each with the standard error of its mean over draws.

    Attributes
    ----------
    layer : str
        Name of the layer, or ``"output"``.
    noise : str
        ``"input"``, ``"weights"`` or the name of the function.
    metric_distance, metric_distance_se : float
        Log-Euclidean distance between the pulled back metrics :math:`g = J^T J` before and after
        the noise, averaged over samples and draws.
    subspace_angle, subspace_angle_se : float
        Largest principal angle between the spans of the leading right singular vectors, in radians.
    output_change, output_change_se : float
        :math:`\|h' - h\|` at the layer, divided by the root mean square of :math:`\|h\|`.
    values : dict of str to ndarray of shape (n_repeats, n_samples)
        Each of the three quantities for every draw and sample.
    """

    layer: str
    noise: str
    metric_distance: float
    metric_distance_se: float
    subspace_angle: float
    subspace_angle_se: float
    output_change: float
    output_change_se: float
    values: dict[str, np.ndarray]

    def _line(self) -> str:
        return (
            f"{self.layer!r}, {self.noise} noise, metric distance {self.metric_distance:.3g}, "
            f"subspace angle {self.subspace_angle:.3g}, output change {self.output_change:.3g}"
        )


def stability(
    model: Any,
    X: Any,
    noise: str | Noise = "input",
    *,
    layer: str | None = None,
    scale: float = 0.01,
    n_repeats: int = 10,
    n_directions: int = 2,
    floor: float = 1e-6,
    source: str | None = None,
    device: str | torch.device | None = None,
    random_state: int = 0,
) -> StabilityEstimate:
    r"""Change of outputs, metric and leading directions under noise.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Not modified: noise on weights is added to a copy.
    X : array, Tensor, dict, Dataset or DataLoader
        N samples.
    noise : {"input", "weights"} or callable, default="input"
        Gaussian noise on the inputs; or on every parameter, with each draw the same for all
        samples; or a function ``noise(x, generator) -> x`` of a batch of inputs, such as an
        augmentation, that draws from the ``torch.Generator``.
    layer : str, optional
        Layer at which the map ends; by default the outputs.
    scale : float, default=0.01
        Standard deviation of Gaussian noise, relative to the root mean square of all entries of
        the inputs, or of each parameter tensor (a zero tensor gets no noise). Not used if `noise`
        is a function.
    n_repeats : int, default=10
        Number of draws, at least 2.
    n_directions : int, default=2
        Number of leading right singular vectors whose span is compared.
    floor : float, default=1e-6
        Metrics are compared as :math:`\log(g + \epsilon I)`, with :math:`\epsilon` this share of
        the largest eigenvalue before the noise: a singular metric has no logarithm.
    source : str, optional
        Layer, a cut, at whose representation the map starts instead of the input; or, where X is
        a dict of several floating tensors, the name of that at which it starts.
    device : str or torch.device, optional
        Where to compute; by default where the module is.
    random_state : int, default=0
        Seed of the draws.

    Returns
    -------
    StabilityEstimate
        Means over samples and draws, standard errors, and all values.

    Raises
    ------
    SkgeoError
        If noise changes the shape of the inputs or is not finite, all outputs or a Jacobian are
        zero, or `n_directions` exceeds the number of singular vectors.

    Notes
    -----
    The standard errors are over draws, with the samples fixed: the standard deviation between
    draws of the mean over samples, divided by the root of `n_repeats`. For the error over samples,
    use the standard deviation of ``values[...].mean(0)``.

    Distances depend on `floor`: an eigenvalue that falls from a to zero counts as about
    :math:`\log(a / \epsilon)`. The distance is that of [1]_. Two dense Jacobians are computed per
    draw and sample.

    References
    ----------
    .. [1] V. Arsigny, P. Fillard, X. Pennec and N. Ayache, "Geometric means in a novel vector space
       structure on symmetric positive-definite matrices", SIAM J. Matrix Anal. Appl. 29 (2007).

    Examples
    --------
    The metric of a linear map does not depend on the input:

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.chain import stability
    >>> net = nn.Linear(3, 3).double()
    >>> found = stability(net, torch.eye(3), "input")
    >>> found.metric_distance, found.subspace_angle, found.output_change > 0
    (0.0, 0.0, True)
    """
    _check(noise, scale, n_repeats, n_directions, floor, random_state)
    with single_blas_thread():
        network = bind(model, X, parameters=None, device=device)
        data = LayerMap(network, layer=layer, source=source)
        if n_directions > min(data.n_source, data.n_layer):
            raise SkgeoError(
                f"Got n_directions={n_directions}; the Jacobian at {data.name!r} has "
                f"{min(data.n_source, data.n_layer)} singular vectors. Pass a smaller number."
            )
        x = data.start()
        generator = torch.Generator().manual_seed(random_state)
        names = ("metric_distance", "subspace_angle", "output_change")
        values = {name: np.empty((n_repeats, network.n_samples)) for name in names}
        size = _output_size(data, x)
        for repeat in range(n_repeats):
            after, moved = data, x
            if noise == "weights":
                noisy = BoundNetwork(network.model, network.samples, parameters=None, device=device)
                for parameter in noisy.replica.parameters.values():
                    parameter.data = _jittered(parameter.detach(), scale, generator)
                after = LayerMap(noisy, layer=layer, source=source)
                moved = after.start() if source is not None else x
            elif isinstance(noise, str):
                moved = _jittered(x, scale, generator)
            else:
                moved = _applied(noise, x, data, generator)
            for batch in data.batches(4 * min(data.n_source, data.n_layer)):
                rows = slice(batch.start, batch.stop)
                found = _compare(data, after, batch, x[rows], moved[rows], n_directions, floor)
                for name, value in zip(names, found, strict=True):
                    values[name][repeat, rows] = value.cpu().numpy()
        values["output_change"] /= size
    return StabilityEstimate(
        layer=data.name,
        noise=noise if isinstance(noise, str) else getattr(noise, "__name__", "function"),
        **{name: float(value.mean()) for name, value in values.items()},
        **{
            f"{name}_se": float(value.mean(1).std(ddof=1) / n_repeats**0.5)
            for name, value in values.items()
        },
        values=values,
    )


def log_euclidean_distance(
    s: Tensor, v: Tensor, other_s: Tensor, other_v: Tensor, epsilon: Tensor
) -> Tensor:
    r"""Distances :math:`\|\log(g + \epsilon I) - \log(g' + \epsilon I)\|_F` from factors of g.

    s, other_s: singular values of J and J'.
    v, other_v: their right singular vectors, as rows.

    Both logarithms are the same multiple of the identity on the complement of the span of all 2 r
    vectors. Within it, their difference is formed in an orthonormal basis.
    """
    # s (b, r), v (b, r, n), epsilon (b,) -> (b,)
    e = epsilon.unsqueeze(1)
    stacked = torch.cat([v, other_v], dim=1)
    basis: Tensor = torch.linalg.qr(stacked.mT).Q  # (b, n, min(n, 2 r))

    def inside(values: Tensor, vectors: Tensor) -> Tensor:
        rows = vectors @ basis
        return (rows.mT * torch.log1p(values.square() / e).unsqueeze(1)) @ rows

    change = inside(s, v) - inside(other_s, other_v)
    distances: Tensor = change.flatten(1).norm(dim=1)
    return distances


def subspace_angle(v: Tensor, other: Tensor) -> Tensor:
    """Largest principal angle between two spans of the same dimension.

    Returns radians, accurate for small angles too.
    """
    # v, other (b, k, n) -> (b,)
    inner = other @ v.mT
    sine = torch.linalg.svdvals(other - inner @ v)[:, 0]
    cosine = torch.linalg.svdvals(inner)[:, -1]
    return torch.atan2(sine, cosine)


def _compare(
    data: LayerMap,
    after: LayerMap,
    batch: range,
    x: Tensor,
    moved: Tensor,
    k: int,
    floor: float,
) -> tuple[Tensor, Tensor, Tensor]:
    segment, other = data.at(batch), after.at(batch)
    first, second = data.jacobian(segment, x), after.jacobian(other, moved)
    _, s, v = torch.linalg.svd(first, full_matrices=False)
    _, other_s, other_v = torch.linalg.svd(second, full_matrices=False)
    epsilon = floor * s[:, 0].square()
    if not bool((epsilon > 0).all()):
        bad = batch.start + int((epsilon == 0).nonzero()[0])
        raise SkgeoError(
            f"The Jacobian at {data.name!r} is zero for sample {bad}, so it has no leading "
            "directions and no metric to compare with. Remove the sample, or choose another layer."
        )
    with torch.no_grad():
        change = (other(moved).double() - segment(x).double()).norm(dim=1)
    same = (first == second).flatten(1).all(1)  # equal matrices have distance exactly zero
    distance = log_euclidean_distance(s, v, other_s, other_v, epsilon)
    angle = subspace_angle(v[:, :k], other_v[:, :k])
    return distance.masked_fill(same, 0.0), angle.masked_fill(same, 0.0), change


def _output_size(data: LayerMap, x: Tensor) -> float:
    squares = []
    for batch in data.batches(1):
        with torch.no_grad():
            h = data.at(batch)(x[batch.start : batch.stop]).double()
        squares.append(h.square().sum(1))
    size: float = float(torch.cat(squares).mean()) ** 0.5
    if not size > 0:
        raise SkgeoError(
            f"{data.name!r} is zero for all samples, so relative changes are undefined."
        )
    return size


def _jittered(tensor: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
    return tensor + scale * tensor.double().square().mean().sqrt().to(tensor) * drawn


def _applied(noise: Noise, x: Tensor, data: LayerMap, generator: torch.Generator) -> Tensor:
    given = x.reshape(len(x), *data.shape)
    result = noise(given.clone(), generator)
    if not isinstance(result, Tensor) or result.shape != given.shape:
        raise SkgeoError(
            f"The noise changed inputs of shape {tuple(given.shape)} into {described(result)}; "
            "expected a tensor of the same shape."
        )
    if not bool(torch.isfinite(result).all()):
        raise SkgeoError("The noise returned NaN or infinite inputs; expected finite values.")
    return result.detach().to(x).reshape(len(x), -1)


def _check(
    noise: Any, scale: float, n_repeats: int, n_directions: int, floor: float, random_state: int
) -> None:
    if noise not in ("input", "weights") and not callable(noise):
        raise SkgeoError(
            f"Got noise={noise!r}; expected 'input', 'weights' or a function of a batch of "
            "inputs and a torch.Generator."
        )
    check_number("scale", scale, above=0)
    check_number("floor", floor, above=0, below=1)
    check_integer("n_repeats", n_repeats, least=2)
    check_integer("n_directions", n_directions)
    check_integer("random_state", random_state, least=0)
