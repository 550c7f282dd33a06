r"""Mean-field theory of wide random networks: the effect of depth on lengths and angles.

Wide layers :math:`h' = W \phi(h) + b` with independent weights of variance
:math:`\sigma_w^2 / n` and biases of variance :math:`\sigma_b^2` map the mean square q of the
preactivations to :math:`q' = \sigma_w^2 E\, \phi(\sqrt q z)^2 + \sigma_b^2`. Their effect on a
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

from skgeo._arguments import check_integer, check_number
from skgeo._results import Result
from skgeo.chain._gaussian_integrals import GaussianMoments, correlation
from skgeo.chain._scalar_function import ScalarFunction, scalar_function
from skgeo.exceptions import SkgeoError
from skgeo.network import Activation

_LARGEST, _SMALLEST = 1e9, 1e-30
_STEP = 2.0**0.5
# Relative change of q over one layer that counts as zero.
_FIXED = 1e-12


@dataclass(frozen=True, repr=False)
class MeanFieldTheory(Result):
    r"""Mean-field theory of one activation and two variances.

    Attributes
    ----------
    activation : str
        Name of the activation.
    sigma_w, sigma_b : float
        Standard deviations :math:`\sigma_w` (times :math:`1/\sqrt n` for the weights) and
        :math:`\sigma_b`.
    q_star : float
        Fixed point of the mean square of the preactivations; infinite where it grows without bound.
        The other numbers are then limits where these exist, and NaN otherwise.
    chi_1 : float
        :math:`\sigma_w^2 E \phi'^2`, the factor by which one layer multiplies the square of a small
        step. Below 1 nearby inputs converge, above 1 they diverge; 1 is the edge of chaos.
    chi_2 : float
        :math:`\sigma_w^2 E \phi''^2`, which determines the curvature that one layer adds. Infinite
        for activations with kinks.
    xi_q : float
        Number of layers over which the distance of the mean square from its fixed point falls by a
        factor of e.
    c_star : float
        Stable fixed point of the correlation of two inputs.
    xi_c : float
        Number of layers over which the distance of their correlation from `c_star` falls by a
        factor of e. Infinite at the edge of chaos.
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

        The curve starts as a circle of squared radius :math:`n q^*`. A layer maps g to
        :math:`g' = \chi_1 g` and :math:`\kappa` to :math:`\kappa'` with
        :math:`\kappa'^2 = 3 \chi_2 / \chi_1^2 + \kappa^2 / \chi_1`.

        Parameters
        ----------
        depth : int
            Number of layers of preactivations, at least 1.

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
            # The recursion of Poole et al. [2].
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
            Number L of layers, at least 1.
        weights : {"gaussian", "orthogonal"}, default="gaussian"
            Distribution of the weight matrices.

        Returns
        -------
        m1, variance : float
            Mean and variance in the limit of infinite width; a finite width adds to the variance.
        """
        _check_depth(depth)
        if weights not in ("gaussian", "orthogonal"):
            raise SkgeoError(f"Got weights={weights!r}; expected 'gaussian' or 'orthogonal'.")
        # The moments of Pennington et al. [4].
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
    r"""Fixed points, stability and depth scales of wide random networks.

    Parameters
    ----------
    activation : str, nn.Module or callable
        A name (``"tanh"``, ``"erf"``, ``"relu"``, ...), a module such as
        ``torch.nn.ELU()``, or a function of a tensor that autograd can differentiate twice.
    sigma_w : float
        The weights of a layer with n inputs have variance ``sigma_w**2 / n``. Above 0.
    sigma_b : float, default=0.0
        The biases have variance ``sigma_b**2``.
    kinks : sequence of float, optional
        Positions at which a derivative of the activation jumps. By default the known ones of
        torch's own activations, and none for other functions.
    q0 : float, default=1.0
        Mean square of the first preactivations, from which the iteration to the fixed point starts.
        There may be several fixed points; where every q is one (ReLU at ``sigma_w**2 = 2``) it is
        `q0`.

    Returns
    -------
    MeanFieldTheory
        Fixed points and the quantities that follow from them.

    Raises
    ------
    SkgeoError
        If a variance is invalid, or the activation mixes entries, jumps, or has kinks that are not
        in `kinks`.

    Notes
    -----
    Expectations are integrated on pieces between kinks, which are halved until results agree to
    1e-13. The fixed point of the correlation in the chaotic phase needs double integrals and takes
    some tenths of a second; everything else takes milliseconds.

    Fixed points and depth scales are those of [1]_, the recursion of curves is that of [2]_,
    integrals of rectifiers in closed form are in [3]_, and the spectrum of products is in [4]_.

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
    A rectifier halves the mean square, so its edge of chaos is at ``sigma_w**2 = 2``:

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
    # Where q grows without bound, limits are taken at a large q; for a rectifier nothing depends on
    # q.
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
    """The fixed point to which the iteration from q0 converges."""

    def gain(q: float) -> float:
        return w2 * GaussianMoments(phi, q).square + b2 - q

    first = gain(q0)
    if abs(first) <= _FIXED * q0:
        return q0
    # The iteration moves in the direction of the sign of the gain, until that changes.
    near, ratio = q0, _STEP if first > 0 else 1 / _STEP
    while True:
        far = near * ratio
        if far > _LARGEST:
            return math.inf
        if far < _SMALLEST:
            return 0.0
        value = gain(far)
        if abs(value) <= _FIXED * far:  # critical: the change is rounding only
            return 0.0 if b2 == 0.0 and first < 0 else far
        if (value > 0) != (first > 0):
            ends = sorted((near, far))
            return float(brentq(gain, *ends, xtol=1e-15 * far, rtol=4 * np.finfo(float).eps))
        near = far


def _correlated_fixed_point(
    phi: ScalarFunction, w2: float, b2: float, q: float
) -> tuple[float, float]:
    """Stable fixed point of the correlation where 1 is unstable, and the slope of its map there."""

    def gain(c: float, check: bool = False) -> float:
        return (w2 * correlation(phi, q, c, check=check) + b2) / q - c

    def slope(c: float) -> float:
        return w2 * correlation(phi, q, c, slopes=True)

    if abs(gain(0.0, check=True)) <= _FIXED:
        return 0.0, slope(0.0)
    # Near 1 the gain is about (1 - c)(1 - chi_1), negative and dominated by rounding.
    last = 1.0 - 1e-4
    while gain(last) >= 0.0:
        last = 1.0 - (1.0 - last) / 8.0
        if last > 1.0 - 1e-8:
            return 1.0, _rounded_to_one(w2 * GaussianMoments(phi, q).slope_square)
    c = float(brentq(gain, 0.0, last, xtol=1e-9))
    chi_c = slope(c)
    c -= gain(c, check=True) / (chi_c - 1.0)  # a Newton step, with converged integrals
    return c, slope(c)


def _rounded_to_one(value: float) -> float:
    return 1.0 if abs(value - 1.0) <= _FIXED else value


def _depth_scale(slope: float) -> float:
    if slope == 0.0:
        return 0.0
    return math.inf if slope == 1.0 else -1.0 / math.log(abs(slope))


def _check_variances(sigma_w: float, sigma_b: float, q0: float) -> None:
    for name, value, least in (("sigma_w", sigma_w, 0.0), ("sigma_b", sigma_b, 0.0), ("q0", q0, 0)):
        check_number(name, value, least=least)
    if sigma_w == 0.0 or q0 == 0.0:
        raise SkgeoError(
            f"Got sigma_w={sigma_w!r}, q0={q0!r}; expected numbers above 0; otherwise "
            "layers receive zero from those before them."
        )


def _check_depth(depth: int) -> None:
    check_integer("depth", depth)
