r"""Mean-field theory of wide random networks: what depth does to lengths and angles.

Wide layers :math:`h' = W \phi(h) + b` with independent weights of variance
:math:`\sigma_w^2 / n` and biases of variance :math:`\sigma_b^2` move the mean square q of the
preactivations by :math:`q' = \sigma_w^2 E\, \phi(\sqrt q z)^2 + \sigma_b^2`. What happens to a
small step, an angle or a curve follows from Gaussian expectations at the fixed point of that map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from torch import Tensor, nn

from skgeo._results import Result
from skgeo.chain._gaussian_integrals import GaussianMoments, correlation
from skgeo.chain._scalar_function import ScalarFunction, scalar_function
from skgeo.exceptions import SkgeoError
from skgeo.network import Activation

_LARGEST, _SMALLEST = 1e9, 1e-30
_STEP = 2.0**0.5
# Relative change of q by one layer that counts as none.
_FIXED = 1e-12


@dataclass(frozen=True, repr=False)
class MeanFieldTheory(Result):
    r"""What mean-field theory says of one activation and two variances.

    Attributes
    ----------
    activation : str
    sigma_w, sigma_b : float
        Standard deviations :math:`\sigma_w` (times :math:`1/\sqrt n` for the weights) and
        :math:`\sigma_b`.
    q_star : float
        Mean square of the preactivations that a layer hands on unchanged; infinite where it grows
        without bound. The other numbers are then limits, where they have one, and NaN.
    chi_1 : float
        :math:`\sigma_w^2 E \phi'^2`: what one layer multiplies the square of a small step by.
        Below 1 nearby inputs merge, above 1 they part; 1 is the edge of chaos.
    chi_2 : float
        :math:`\sigma_w^2 E \phi''^2`: the curvature that one layer adds. Infinite at kinks.
    xi_q : float
        Layers over which the mean square forgets its start, by a factor of e each.
    c_star : float
        Correlation that two inputs end at.
    xi_c : float
        Layers over which their correlation approaches it. Infinite at the edge of chaos.
    mu_1, mu_2 : float
        :math:`E \phi'^2` and :math:`E \phi'^4`.
    """

    activation: str
    sigma_w: float
    sigma_b: float
    q_star: float
    chi_1: float
    chi_2: float
    xi_q: float
    c_star: float
    xi_c: float
    mu_1: float
    mu_2: float

    def _line(self) -> str:
        return (
            f"{self.activation}, sigma_w {self.sigma_w:.3g}, sigma_b {self.sigma_b:.3g}, "
            f"q_star {self.q_star:.3g}, chi_1 {self.chi_1:.3g}"
        )

    def curve(self, depth: int) -> tuple[np.ndarray, np.ndarray]:
        r"""Length and curvature of a great circle of the first preactivations, layer by layer.

        The curve starts as a circle of squared radius :math:`n q^*`, and a layer turns
        :math:`g' = \chi_1 g` and
        :math:`\kappa'^2 = 3 \chi_2 / \chi_1^2 + \kappa^2 / \chi_1`.

        Parameters
        ----------
        depth : int
            Layers of preactivations, at least 1.

        Returns
        -------
        speed, curvature : ndarray of shape (depth,)
            :math:`\sqrt g` and :math:`\kappa` for one neuron: the speed of the curve in n neurons
            is :math:`\sqrt{n g}`, its curvature :math:`\kappa / \sqrt n`.
        """
        _check_depth(depth)
        g, kappa2 = np.empty(depth), np.empty(depth)
        g[0], kappa2[0] = self.q_star, 1.0 / self.q_star if self.q_star else math.inf
        for layer in range(1, depth):
            g[layer] = self.chi_1 * g[layer - 1]
            kappa2[layer] = 3 * self.chi_2 / self.chi_1**2 + kappa2[layer - 1] / self.chi_1
        return np.sqrt(g), np.sqrt(kappa2)

    def spectrum(
        self, depth: int, weights: Literal["gaussian", "orthogonal"] = "gaussian"
    ) -> tuple[float, float]:
        r"""Mean and variance of the squared singular values of a product of `depth` layers.

        With :math:`\mu_k = E \phi'^{2k}` and :math:`s_1 = -1` for Gaussian, 0 for orthogonal
        weights, :math:`m_1 = (\sigma_w^2 \mu_1)^L` and the variance is
        :math:`m_1^2 L (\mu_2/\mu_1^2 - 1 - s_1)`.

        Parameters
        ----------
        depth : int
        weights : {"gaussian", "orthogonal"}, default="gaussian"

        Returns
        -------
        m1, variance : float
            In the limit of infinite width: a finite width adds to the variance.
        """
        _check_depth(depth)
        if weights not in ("gaussian", "orthogonal"):
            raise SkgeoError(f"weights={weights!r}: expected 'gaussian' or 'orthogonal'.")
        s1 = -1.0 if weights == "gaussian" else 0.0
        m1 = (self.sigma_w**2 * self.mu_1) ** depth
        return m1, m1**2 * depth * (self.mu_2 / self.mu_1**2 - 1.0 - s1)


def mean_field_theory(
    activation: str | nn.Module | Callable[[Tensor], Tensor] | Activation,
    sigma_w: float,
    sigma_b: float = 0.0,
    *,
    kinks: Sequence[float] | None = None,
    q0: float = 1.0,
) -> MeanFieldTheory:
    r"""Fixed point, stability and depth scales of wide random networks.

    Parameters
    ----------
    activation : str, nn.Module or callable
        A name (``"tanh"``, ``"erf"``, ``"relu"``, ...), a module of torch such as
        ``torch.nn.ELU()``, or a function of a tensor that autograd can differentiate twice.
    sigma_w : float
        The weights of a layer with n inputs have variance ``sigma_w**2 / n``.
    sigma_b : float, default=0.0
        The biases have variance ``sigma_b**2``.
    kinks : sequence of float, optional
        Where a derivative of the activation jumps. Known for torch's own activations.
    q0 : float, default=1.0
        Mean square of the first preactivations, from which the fixed point is looked for: a map
        may have several, and where all are fixed (ReLU at ``sigma_w**2 = 2``) it is this one.

    Returns
    -------
    MeanFieldTheory

    Raises
    ------
    SkgeoError
        For variances that are none, or an activation that mixes entries, jumps, or has kinks that
        were not said.

    Notes
    -----
    Expectations are taken on pieces between kinks that are halved until they agree to 1e-13. The
    correlation fixed point of the chaotic phase needs double integrals and takes some tenths of a
    second; everything else takes milliseconds.

    Fixed points and depth scales are those of [1]_, the recursion of curves that of [2]_, the
    integrals of rectifiers in closed form in [3]_, the spectrum of products in [4]_.

    References
    ----------
    .. [1] S. Schoenholz, J. Gilmer, S. Ganguli and J. Sohl-Dickstein, "Deep information
       propagation", ICLR 2017.
    .. [2] B. Poole, S. Lahiri, M. Raghu, J. Sohl-Dickstein and S. Ganguli, "Exponential
       expressivity in deep neural networks through transient chaos", NeurIPS 2016.
    .. [3] Y. Cho and L. Saul, "Kernel methods for deep learning", NeurIPS 2009.
    .. [4] J. Pennington, S. Schoenholz and S. Ganguli, "Resurrecting the sigmoid in deep learning
       through dynamical isometry", NeurIPS 2017.

    Examples
    --------
    A rectifier passes half of the variance on, so its edge of chaos is at 2:

    >>> from skgeo.chain import mean_field_theory
    >>> round(mean_field_theory("relu", 2**0.5).chi_1, 12)
    1.0
    >>> theory = mean_field_theory("tanh", 1.5, 0.3)
    >>> print(f"{theory.q_star:.9f} {theory.chi_1:.9f} {theory.chi_2:.9f}")
    0.960844280 1.060981264 0.680726587
    """
    _check_variances(sigma_w, sigma_b, q0)
    phi = scalar_function(activation, kinks)
    w2, b2 = float(sigma_w) ** 2, float(sigma_b) ** 2
    q = _fixed_point(phi, w2, b2, float(q0))
    # Where q has no bound, what it tends to: for a rectifier nothing depends on q.
    at = GaussianMoments(phi, q if math.isfinite(q) else _LARGEST)
    chi_1 = _rounded_to_one(w2 * at.slope_square)
    slope = _rounded_to_one(chi_1 + w2 * at.product)
    c_star, chi_c = 1.0, chi_1
    if chi_1 > 1.0 and math.isfinite(q):
        c_star, chi_c = _correlated_fixed_point(phi, w2, b2, q)
    return MeanFieldTheory(
        activation=phi.name,
        sigma_w=float(sigma_w),
        sigma_b=float(sigma_b),
        q_star=q,
        chi_1=chi_1,
        chi_2=w2 * at.bend_square,
        xi_q=_depth_scale(slope) if math.isfinite(q) else math.nan,
        c_star=c_star if math.isfinite(q) else math.nan,
        xi_c=_depth_scale(chi_c) if math.isfinite(q) else math.nan,
        mu_1=at.slope_square,
        mu_2=at.slope_fourth,
    )


def _fixed_point(phi: ScalarFunction, w2: float, b2: float, q0: float) -> float:
    """The fixed point that the iteration from q0 runs into."""

    def gain(q: float) -> float:
        return w2 * GaussianMoments(phi, q).square + b2 - q

    first = gain(q0)
    if abs(first) <= _FIXED * q0:
        return q0
    # The sign of the gain says which way the iteration goes, until it changes.
    near, ratio = q0, _STEP if first > 0 else 1 / _STEP
    while True:
        far = near * ratio
        if far > _LARGEST:
            return math.inf
        if far < _SMALLEST:
            return 0.0
        value = gain(far)
        if abs(value) <= _FIXED * far:  # critical: rounding is all that is left of the change
            return 0.0 if b2 == 0.0 and first < 0 else far
        if (value > 0) != (first > 0):
            ends = sorted((near, far))
            return float(brentq(gain, *ends, xtol=1e-15 * far, rtol=4 * np.finfo(float).eps))
        near = far


def _correlated_fixed_point(
    phi: ScalarFunction, w2: float, b2: float, q: float
) -> tuple[float, float]:
    """Where the correlation ends if 1 repels it, and the slope of its map there."""

    def gain(c: float, check: bool = False) -> float:
        return (w2 * correlation(phi, q, c, check=check) + b2) / q - c

    def slope(c: float) -> float:
        return w2 * correlation(phi, q, c, slopes=True)

    if abs(gain(0.0, check=True)) <= _FIXED:
        return 0.0, slope(0.0)
    # Near 1 the gain is (1 - c)(1 - chi_1), negative and soon lost in rounding.
    last = 1.0 - 1e-4
    while gain(last) >= 0.0:
        last = 1.0 - (1.0 - last) / 8.0
        if last > 1.0 - 1e-8:
            return 1.0, _rounded_to_one(w2 * GaussianMoments(phi, q).slope_square)
    c = float(brentq(gain, 0.0, last, xtol=1e-9))
    chi_c = slope(c)
    c -= gain(c, check=True) / (chi_c - 1.0)  # a step of Newton's method, checked
    return c, slope(c)


def _rounded_to_one(value: float) -> float:
    return 1.0 if abs(value - 1.0) <= _FIXED else value


def _depth_scale(slope: float) -> float:
    if slope == 0.0:
        return 0.0
    return math.inf if slope == 1.0 else -1.0 / math.log(abs(slope))


def _check_variances(sigma_w: float, sigma_b: float, q0: float) -> None:
    for name, value, least in (("sigma_w", sigma_w, 0.0), ("sigma_b", sigma_b, 0.0), ("q0", q0, 0)):
        if not (math.isfinite(value) and value >= least):
            raise SkgeoError(f"{name}={value!r}: expected a finite number of at least 0.")
    if sigma_w == 0.0 or q0 == 0.0:
        raise SkgeoError("sigma_w and q0 must be above 0: without them nothing reaches a layer.")


def _check_depth(depth: int) -> None:
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise SkgeoError(f"depth={depth!r}: expected a positive integer.")
