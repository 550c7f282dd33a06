"""Curvature of the images of curves and of slices of the input space under a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from skgeo._arguments import check_number, check_option
from skgeo._results import Result
from skgeo.chain._curves import Curve, read_curve
from skgeo.chain._kinks import has_kinks, kinks_between
from skgeo.chain._layer_map import LayerMap
from skgeo.exceptions import NonSmoothWarning, SkgeoError, warn
from skgeo.jacobian._directional import push
from skgeo.linalg._threads import single_blas_thread
from skgeo.models import bare_model
from skgeo.network._bound import bind
from skgeo.network._finite import check_derivatives


@dataclass(frozen=True, repr=False)
class CurveCurvature(Result):
    r"""Curvature of the image of a curve at one layer.

    Attributes
    ----------
    layer : str
        Name of the layer, or ``"output"``.
    curvature : ndarray of shape (n_samples,)
        :math:`\kappa`, the inverse radius of the osculating circle of the image. NaN where the
        network is piecewise linear, or the image has zero speed.
    speed : ndarray of shape (n_samples,)
        Speed of the image, :math:`\|J \dot x\|`.
    stretch : ndarray of shape (n_samples,)
        `speed` divided by the speed of the curve itself.
    input_curvature : ndarray of shape (n_samples,)
        Curvature of the curve itself.
    kink_density : ndarray of shape (n_samples,)
        Kinks per unit of length on a segment along the curve's tangent; 0 for smooth networks.
    """

    layer: str
    curvature: np.ndarray
    speed: np.ndarray
    stretch: np.ndarray
    input_curvature: np.ndarray
    kink_density: np.ndarray

    def _line(self) -> str:
        return (
            f"{self.layer!r}, mean curvature {self.curvature.mean():.3g}, "
            f"mean stretch {self.stretch.mean():.3g}, {len(self.curvature)} samples"
        )


@dataclass(frozen=True, repr=False)
class SectionalCurvature(Result):
    r"""Sectional curvature of the pulled back metric on the leading slice at each sample.

    Attributes
    ----------
    layer : str
        Name of the layer, or ``"output"``.
    n_directions : int
        Dimension k of the slice. The curvatures depend on it.
    curvature : ndarray of shape (n_samples,)
        Curvature of the plane of the two leading right singular vectors. NaN where the network is
        piecewise linear.
    planes : ndarray of shape (n_samples, k, k)
        Curvature of the plane of each two of the k vectors; 0 on the diagonal.
    scalar : ndarray of shape (n_samples,)
        Scalar curvature of the slice, the sum of `planes`.
    singular_values : ndarray of shape (n_samples, k)
        Factors by which the network stretches the k vectors.
    gap : ndarray of shape (n_samples,)
        :math:`s_k / s_{k+1}`. Where it is near 1 the slice itself is not well defined. Infinite
        where :math:`s_{k+1}` is zero or does not exist.
    kink_density : ndarray of shape (n_samples,)
        Kinks per unit of length on a segment along the leading vector; 0 for smooth networks.
    """

    layer: str
    n_directions: int
    curvature: np.ndarray
    planes: np.ndarray
    scalar: np.ndarray
    singular_values: np.ndarray
    gap: np.ndarray
    kink_density: np.ndarray

    def _line(self) -> str:
        return (
            f"{self.layer!r}, {self.n_directions} directions, "
            f"mean curvature {self.curvature.mean():.3g}, smallest gap {self.gap.min():.3g}, "
            f"{len(self.curvature)} samples"
        )


@overload
def curvature(
    model: Any,
    X: Any,
    kind: Literal["curve"] = "curve",
    *,
    layer: str | None = None,
    velocity: Any = None,
    acceleration: Any = None,
    t: Any = None,
    n_directions: int = 2,
    radius: float | None = None,
    source: str | None = None,
    device: str | torch.device | None = None,
) -> CurveCurvature: ...


@overload
def curvature(
    model: Any,
    X: Any,
    kind: Literal["sectional"],
    *,
    layer: str | None = None,
    velocity: Any = None,
    acceleration: Any = None,
    t: Any = None,
    n_directions: int = 2,
    radius: float | None = None,
    source: str | None = None,
    device: str | torch.device | None = None,
) -> SectionalCurvature: ...


def curvature(
    model: Any,
    X: Any,
    kind: Literal["curve", "sectional"] = "curve",
    *,
    layer: str | None = None,
    velocity: Any = None,
    acceleration: Any = None,
    t: Any = None,
    n_directions: int = 2,
    radius: float | None = None,
    source: str | None = None,
    device: str | torch.device | None = None,
) -> CurveCurvature | SectionalCurvature:
    r"""Curvature of the images of curves, or of slices of the input space.

    For ``kind="curve"``, with :math:`v = J \dot x` and
    :math:`a = D^2 h[\dot x, \dot x] + J \ddot x` the velocity and acceleration at the layer,

    .. math:: \kappa^2 = \frac{(v \cdot v)(a \cdot a) - (v \cdot a)^2}{(v \cdot v)^3} .

    For ``kind="sectional"``, the slice :math:`x + \operatorname{span} V_k` of the k leading right
    singular vectors of J is mapped to a surface at the layer. With :math:`B_{uv}` the part of
    :math:`D^2 h[u, v]` normal to it and :math:`g = J^T J`, its curvature in the plane of u and v is

    .. math::

        K = \frac{\langle B_{uu}, B_{vv} \rangle - \|B_{uv}\|^2}{g_{uu} g_{vv} - g_{uv}^2} .

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Not modified.
    X : array, Tensor, dict, Dataset, DataLoader or callable
        Samples; or, with `t`, the curve itself: a function of torch operations from a tensor of
        times, of shape (m,), to inputs, of shape (m, ...), each of which depends on its own time
        only.
    kind : {"curve", "sectional"}, default="curve"
        Curvature of curves, or sectional curvature of slices.
    layer : str, optional
        Layer at which the map ends; by default the outputs.
    velocity : array or Tensor of the shape of `X`, optional
        Velocity of the curve through each sample. Required if the curve is not a function.
    acceleration : array or Tensor of the shape of `X`, optional
        Acceleration of the curve at each sample. By default zero: a straight line.
    t : array or Tensor of shape (m,), optional
        Times at which a curve that is a function is evaluated.
    n_directions : int, default=2
        Dimension k of the slice, at most the rank of J and below the width of the layer.
    radius : float, optional
        Half the length of the segments on which kinks are counted. By default a tenth of the root
        mean square distance of the samples from their mean (of their mean norm if they coincide).
    source : str, optional
        Layer, a cut, at whose representation the map starts instead of the input. `velocity` and
        `acceleration` are then given there.
    device : str or torch.device, optional
        Where to compute; by default where the module is.

    Returns
    -------
    CurveCurvature or SectionalCurvature
        The former for ``kind="curve"``, the latter for ``kind="sectional"``.

    Raises
    ------
    SkgeoError
        If a curve has zero velocity, a slice leaves no normal direction or is larger than the rank,
        or inputs or derivatives are not finite.

    Warns
    -----
    NonSmoothWarning
        If the network has kinks. If it is piecewise linear, all its curvature is at the kinks: the
        curvature is NaN, and the kink density counts them.

    See Also
    --------
    skgeo.chain.kink_density : Kinks along given segments.
    skgeo.chain.mean_field_theory : Curvature of curves under wide random networks.

    Notes
    -----
    A curve takes three backward passes through the network, and a fourth with an acceleration. A
    slice takes ``n_l`` backward passes for the dense Jacobian, its singular value decomposition,
    and three backward passes for each of k (k + 1)/2 second derivatives. Linear algebra is in
    float64, derivatives are in the dtype of the module: float32 gives about three digits.

    References
    ----------
    .. [1] M. do Carmo, "Riemannian Geometry", Birkhauser 1992, chapter 6, theorem 2.5 (the Gauss
       equation).

    Examples
    --------
    A circle of radius 2 is mapped to one of radius 6:

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.chain import curvature
    >>> net = nn.Linear(2, 2, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = net.weight.copy_(3 * torch.eye(2))
    >>> circle = lambda t: 2 * torch.stack([t.cos(), t.sin()], dim=1)
    >>> found = curvature(net, circle, t=torch.linspace(0, 1, 3))
    >>> (6 * found.curvature).round(12).tolist(), found.stretch.round(12).tolist()
    ([1.0, 1.0, 1.0], [3.0, 3.0, 3.0])
    """
    check_option("kind", kind, ("curve", "sectional"))
    if radius is not None:
        check_number("radius", radius, above=0, also="None")
    with single_blas_thread():
        given = read_curve(X, t, velocity, acceleration, needed=kind == "curve")
        # Velocities are not taken through a Pipeline's first steps.
        network = bind(bare_model(model), given.points, parameters=None, device=device)
        data = LayerMap(network, layer=layer, source=source)
        if kind == "curve":
            return _of_curve(data, given, radius)
        return _of_slices(data, n_directions, radius)


def _of_curve(data: LayerMap, given: Curve, radius: float | None) -> CurveCurvature:
    x = data.start()
    velocity, acceleration = given.at(x, data.network.n_samples)
    parts, bends = [], False
    for batch in data.batches(24):
        rows = slice(batch.start, batch.stop)
        segment, v = data.at(batch), velocity[rows]
        _, moved, bent = push(segment, x[rows], v, v)
        bends = bends or bool(bent.any())
        if acceleration is not None:
            bent = bent + push(segment, x[rows], acceleration[rows])[1]
        parts.append((moved.double(), bent.double()))
    v, a = (torch.cat(part) for part in zip(*parts, strict=True))
    _check_finite(data, v, a)
    kappa = _bend(v, a)
    speed, own = v.norm(dim=1), velocity.double().norm(dim=1)
    kinks = torch.zeros(data.network.n_samples, dtype=torch.float64)
    if has_kinks(data):
        kinks = _local_kinks(data, x, velocity.double(), radius)
        kappa = _without_smoothness(data, bends, kappa)
    if not bool((speed > 0).all()):
        warn(
            f"The image of the curve has zero speed at {data.name!r} for {int((speed == 0).sum())} "
            f"of {data.network.n_samples} samples, so it has no curvature there (NaN).",
            stacklevel=4,
        )
    still = torch.zeros_like(velocity) if acceleration is None else acceleration
    return CurveCurvature(
        layer=data.name,
        curvature=_numpy(kappa),
        speed=_numpy(speed),
        stretch=_numpy(speed / own),
        input_curvature=_numpy(_bend(velocity.double(), still.double())),
        kink_density=_numpy(kinks),
    )


def _bend(v: Tensor, a: Tensor) -> Tensor:
    """Curvature from velocity and acceleration, without cancellation between large products."""
    squared = v.square().sum(1, keepdim=True)
    across = a - (v * a).sum(1, keepdim=True) / squared * v
    length: Tensor = across.norm(dim=1)
    return length / squared.squeeze(1)  # 0 / 0 where the curve stands still


def _of_slices(data: LayerMap, k: int, radius: float | None) -> SectionalCurvature:
    if isinstance(k, bool) or not isinstance(k, int) or k < 2:
        raise SkgeoError(
            f"Got n_directions={k!r}; expected an integer of at least 2, as for a plane."
        )
    if k >= data.n_layer or k > data.n_source:
        raise SkgeoError(
            f"Got n_directions={k} at {data.name!r}, which has {data.n_layer} coordinates, "
            f"computed from {data.n_source}: the slice must fit in the input, and leave a normal "
            "direction at the layer. Pass a smaller n_directions, or choose a wider layer."
        )
    x = data.start()
    values, gaps, planes, leading, bends = [], [], [], [], False
    for batch in data.batches(2 * min(data.n_layer, data.n_source)):
        rows = slice(batch.start, batch.stop)
        segment, at = data.at(batch), x[rows]
        left, s, right = torch.linalg.svd(data.jacobian(segment, at), full_matrices=False)
        _check_rank(data, s, k, batch.start)
        left, right = left[:, :, :k], right[:, :k]
        beyond = s[:, k] if s.shape[1] > k else torch.zeros_like(s[:, 0])
        found, bent = _planes(data, segment, at, left, s[:, :k], right)
        bends = bends or bent
        values.append(s[:, :k])
        gaps.append(s[:, k - 1] / beyond)
        planes.append(found)
        leading.append(right[:, 0])
    kinks = torch.zeros(data.network.n_samples, dtype=torch.float64)
    sectional = torch.cat(planes)
    if has_kinks(data):
        kinks = _local_kinks(data, x, torch.cat(leading), radius)
        sectional = _without_smoothness(data, bends, sectional)
    return SectionalCurvature(
        layer=data.name,
        n_directions=k,
        curvature=_numpy(sectional[:, 0, 1]),
        planes=_numpy(sectional),
        scalar=_numpy(sectional.sum((1, 2))),
        singular_values=_numpy(torch.cat(values)),
        gap=_numpy(torch.cat(gaps)),
        kink_density=_numpy(kinks),
    )


def _planes(
    data: LayerMap, segment: Any, x: Tensor, left: Tensor, s: Tensor, right: Tensor
) -> tuple[Tensor, bool]:
    """Curvatures of all planes of a batch, and whether any second derivative is not zero."""
    # left (b, n_l, k), s (b, k), right (b, k, n_0) -> (b, k, k)
    k, bent = right.shape[1], False
    normal = s.new_zeros((len(x), k, k, left.shape[1]))
    for i in range(k):
        for j in range(i, k):
            second = push(segment, x, right[:, i], right[:, j])[2].double()
            _check_finite(data, second)
            bent = bent or bool(second.any())
            inside = torch.einsum("bnk,bn->bk", left, second)
            normal[:, i, j] = second - torch.einsum("bnk,bk->bn", left, inside)
            normal[:, j, i] = normal[:, i, j]
    own = normal.diagonal(dim1=1, dim2=2).mT  # (b, k, n_l)
    # J V_k has orthogonal columns of lengths s, so the denominator is a product.
    area = (s.unsqueeze(2) * s.unsqueeze(1)).square()
    # The Gauss equation: do Carmo [1], chapter 6, theorem 2.5.
    found = (own @ own.mT - normal.square().sum(3)) / area
    return found - torch.diag_embed(found.diagonal(dim1=1, dim2=2)), bent


def _check_rank(data: LayerMap, s: Tensor, k: int, first: int) -> None:
    eps = torch.finfo(data.network.dtype).eps
    floor = max(data.n_source, data.n_layer) * eps * s[:, :1]
    low = ~(s > floor)[:, k - 1]
    if bool(low.any()):
        bad = int(low.nonzero()[0])
        raise SkgeoError(
            f"The Jacobian at {data.name!r} has rank {int((s > floor)[bad].sum())} for sample "
            f"{first + bad}, below n_directions={k}, so the image of the slice is not a surface "
            "of that dimension. Pass a smaller n_directions."
        )


def _without_smoothness(data: LayerMap, bends: bool, values: Tensor) -> Tensor:
    """Warn of kinks; the values, or NaN if the network is piecewise linear."""
    if bends:
        warn(
            f"The network has kinks before {data.name!r}. The curvature is that between them; "
            "kink_density counts the kinks themselves.",
            NonSmoothWarning,
            stacklevel=5,
        )
        return values
    warn(
        f"The network is piecewise linear up to {data.name!r}: it is flat between its kinks, so "
        "its curvature is not given by derivatives (NaN). Use kink_density instead.",
        NonSmoothWarning,
        stacklevel=5,
    )
    return torch.full_like(values, float("nan"))


def _local_kinks(data: LayerMap, x: Tensor, direction: Tensor, radius: float | None) -> Tensor:
    """Kinks per unit of length on the segment of each sample along a direction."""
    if radius is None:
        spread = float((x - x.mean(0)).double().square().sum(1).mean()) ** 0.5
        radius = 0.1 * (spread or float(x.double().norm(dim=1).mean()) or 1.0)
    step = (radius * direction / direction.norm(dim=1, keepdim=True)).to(x)
    counts = kinks_between(data, torch.arange(len(x)), x - step, x + step)
    return counts.double() / (2 * radius)


def _check_finite(data: LayerMap, *tensors: Tensor) -> None:
    for tensor in tensors:
        check_derivatives(tensor, f"{data.name!r}, the first or the second,")


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
