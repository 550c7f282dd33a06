"""Curvature of what a network makes of curves and of slices of its input space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from skgeo._results import Result
from skgeo.chain._curves import Curve, read_curve
from skgeo.chain._kinks import has_kinks, kinks_between
from skgeo.chain._layer_map import LayerMap
from skgeo.exceptions import NonSmoothWarning, SkgeoError, warn
from skgeo.jacobian._directional import push
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind
from skgeo.network._finite import check_derivatives


@dataclass(frozen=True, repr=False)
class CurveCurvature(Result):
    r"""Curvature of curves at one layer.

    Attributes
    ----------
    layer : str
    curvature : ndarray of shape (n_samples,)
        :math:`\kappa`, the inverse radius of the circle that fits the image of the curve best. NaN
        where the network is piecewise linear, or the image stands still.
    speed : ndarray of shape (n_samples,)
        Of the image, :math:`\|J \dot x\|`.
    stretch : ndarray of shape (n_samples,)
        `speed` over that of the curve itself.
    input_curvature : ndarray of shape (n_samples,)
        Of the curve itself.
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
    n_directions : int
        Dimension k of the slice. The values depend on it.
    curvature : ndarray of shape (n_samples,)
        Of the plane of the two leading right singular vectors. NaN where the network is piecewise
        linear.
    planes : ndarray of shape (n_samples, k, k)
        Of every plane of two of the k vectors; 0 on the diagonal.
    scalar : ndarray of shape (n_samples,)
        Scalar curvature of the slice, the sum of `planes`.
    singular_values : ndarray of shape (n_samples, k)
        How much the network stretches the k vectors.
    gap : ndarray of shape (n_samples,)
        :math:`s_k / s_{k+1}`: where it is near 1 the slice itself is not well defined. Infinite
        where nothing is left beyond the slice.
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
    r"""Curvature that a network gives to curves, or to slices of its input space.

    For ``kind="curve"``, with :math:`v = J \dot x` and
    :math:`a = D^2 h[\dot x, \dot x] + J \ddot x` the velocity and acceleration at the layer,

    .. math:: \kappa^2 = \frac{(v \cdot v)(a \cdot a) - (v \cdot a)^2}{(v \cdot v)^3} .

    For ``kind="sectional"``, the slice :math:`x + \operatorname{span} V_k` of the k leading right
    singular vectors of J is carried to a surface at the layer. With :math:`B_{uv}` the part of
    :math:`D^2 h[u, v]` normal to it and :math:`g = J^T J`, its curvature in the plane of u and v is

    .. math::

        K = \frac{\langle B_{uu}, B_{vv} \rangle - \|B_{uv}\|^2}{g_{uu} g_{vv} - g_{uv}^2} .

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Left as it is.
    X : array, Tensor, dict, Dataset, DataLoader or callable
        Samples; or, with `t`, the curve itself: a function of a tensor of times, of shape (m,), to
        inputs, of shape (m, ...), made of torch operations, each input from its own time.
    kind : {"curve", "sectional"}, default="curve"
    layer : str, optional
        By default the outputs.
    velocity : array or Tensor of the shape of `X`
        Of the curve through each sample. Needed for curves that are not a function.
    acceleration : array or Tensor of the shape of `X`, optional
        By default zero: a straight line.
    t : array or Tensor of shape (m,)
        Times at which a curve that is a function is looked at.
    n_directions : int, default=2
        Dimension k of the slice, at most the rank of J and below the width of the layer.
    radius : float, optional
        Half the length of the segments on which kinks are counted. By default a tenth of the root
        mean square distance of the samples from their mean.
    source : str, optional
        Start from this layer's representation, a cut, instead of the input: `velocity` and
        `acceleration` are given there.
    device : str or torch.device, optional

    Returns
    -------
    CurveCurvature or SectionalCurvature

    Raises
    ------
    SkgeoError
        For curves that stand still, slices that leave no normal direction or are larger than the
        rank, and inputs or derivatives that are not finite.

    Warns
    -----
    NonSmoothWarning
        Where the network has kinks. If it is piecewise linear, all its curvature is at them: the
        result is NaN, and the kink density says how many there are.

    See Also
    --------
    kink_density : Along given segments.
    mean_field_theory : What random networks do to curves.

    Notes
    -----
    A curve takes three backward passes through the network, and a fourth with an acceleration. A
    slice takes the dense Jacobian, ``n_l`` backward passes, its singular value decomposition, and
    three backward passes for each of k (k + 1)/2 second derivatives. Linear algebra is in float64,
    derivatives in the dtype of the module: float32 leaves some three digits.

    References
    ----------
    .. [1] M. do Carmo, "Riemannian Geometry", Birkhauser 1992, chapter 6, theorem 2.5 (the Gauss
       equation).

    Examples
    --------
    A circle of radius 2 goes to one of radius 6:

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
    if kind not in ("curve", "sectional"):
        raise SkgeoError(f"kind={kind!r}: expected 'curve' or 'sectional'.")
    if radius is not None and not (np.isfinite(radius) and radius > 0):
        raise SkgeoError(f"radius={radius!r}: expected a positive number.")
    with single_blas_thread():
        given = read_curve(X, t, velocity, acceleration, needed=kind == "curve")
        network = bind(model, given.points, parameters=None, device=device)
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
            f"The image of the curve stands still at {data.name!r} for {int((speed == 0).sum())} "
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
    """Curvature from velocity and acceleration, without a difference of large products."""
    squared = v.square().sum(1, keepdim=True)
    across = a - (v * a).sum(1, keepdim=True) / squared * v
    length: Tensor = across.norm(dim=1)
    return length / squared.squeeze(1)  # 0 / 0 where the curve stands still


def _of_slices(data: LayerMap, k: int, radius: float | None) -> SectionalCurvature:
    if isinstance(k, bool) or not isinstance(k, int) or k < 2:
        raise SkgeoError(f"n_directions={k!r}: a plane needs an integer of at least 2.")
    if k >= data.n_layer or k > data.n_source:
        raise SkgeoError(
            f"n_directions={k} at {data.name!r}, which has {data.n_layer} coordinates made of "
            f"{data.n_source}: the slice must fit in the input, and leave a normal direction at "
            "the layer. Take fewer, or a wider layer."
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
            f"{first + bad}, below n_directions={k}: the slice is not carried to a surface of "
            "that dimension."
        )


def _without_smoothness(data: LayerMap, bends: bool, values: Tensor) -> Tensor:
    """Warn of kinks; NaN where there is nothing but kinks."""
    if bends:
        warn(
            f"The network has kinks before {data.name!r}: its curvature is that between them, "
            "and kink_density counts what is left out.",
            NonSmoothWarning,
            stacklevel=5,
        )
        return values
    warn(
        f"The network is piecewise linear up to {data.name!r}: flat between its kinks, so no "
        "derivative sees its curvature (NaN). Read kink_density instead.",
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
