"""Divergences and distances against 60 digits, from steps of 1e-12 to far ends."""

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skgeo.likelihood import Bernoulli, Categorical, Gaussian, GaussianScale, Poisson

STEPS = [s * t for s in (1, -1) for t in (1e-12, 1e-8, 1e-4, 1e-2, 0.4, 0.6, 3.0, 50.0)]
FAMILIES = [Categorical(), Bernoulli(), Poisson(), GaussianScale(), Gaussian(scale=0.3)]


def softmax(z):
    top = max(z)
    weights = [mpmath.exp(a - top) for a in z]
    total = mpmath.fsum(weights)
    return [w / total for w in weights], [a - top - mpmath.log(total) for a in z]


def exact(family, z, w):
    """Divergence and squared distance at two lists of outputs."""
    with mpmath.workdps(400):  # probabilities of 1e-900 must not drown in the others
        z, w = ([mpmath.mpf(a) for a in side] for side in (z, w))
        if isinstance(family, Categorical):
            (p, log_p), (q, log_q) = softmax(z), softmax(w)
            kl = mpmath.fsum(a * (b - c) for a, b, c in zip(p, log_p, log_q, strict=True))
            roots = [mpmath.sqrt(a) - mpmath.sqrt(b) for a, b in zip(p, q, strict=True)]
            chord = mpmath.sqrt(mpmath.fsum(r**2 for r in roots))
            return kl, (4 * mpmath.asin(chord / 2)) ** 2
        if isinstance(family, Bernoulli):
            parts = [exact(Categorical(), [a, 0], [b, 0]) for a, b in zip(z, w, strict=True)]
            return mpmath.fsum(p[0] for p in parts), mpmath.fsum(p[1] for p in parts)
        exp = mpmath.exp
        pairs = list(zip(z, w, strict=True))
        if isinstance(family, Poisson):
            kl = mpmath.fsum(exp(a) * (a - b) + exp(b) - exp(a) for a, b in pairs)
            return kl, mpmath.fsum(4 * (exp(a / 2) - exp(b / 2)) ** 2 for a, b in pairs)
        if isinstance(family, Gaussian):
            square = mpmath.fsum((a - b) ** 2 for a, b in pairs) / mpmath.mpf(family.scale) ** 2
            return square / 2, square
        (m, k), (a, b) = pairs
        kl = (exp(2 * (a - b)) - 1) / 2 - (a - b) + ((m - k) * exp(-b)) ** 2 / 2
        cosh = 1 + ((m - k) ** 2 / 2 + (exp(a) - exp(b)) ** 2) / (2 * exp(a + b))
        return kl, 2 * mpmath.acosh(cosh) ** 2


def close(found, expected, rtol):
    return abs(mpmath.mpf(found) - expected) <= rtol * abs(expected) + mpmath.mpf("1e-307")


def starts(family):
    if isinstance(family, Categorical):
        return [[0.3, -1.2, 2.0], [40.0, 0.0, -35.0], [1e3, -1e3, 0.0], [1e3, 1e3, 1e3 - 1]]
    if isinstance(family, GaussianScale):
        return [[0.3, -1.2], [0.0, 30.0], [5.0, -30.0]]
    return [[0.3, -1.2], [0.0, 30.0], [-40.0, 0.1]] + (
        [[1e3, -1e3]] if isinstance(family, Bernoulli) else [[-1e3, 0.0]]
    )


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("step", STEPS)
def test_divergence_and_distance_are_accurate_to_the_last_digits(family, step):
    for z in starts(family):
        for direction in ([1.0, -0.4, 0.7], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0 + 1e-3]):
            w = [a + step * b for a, b in zip(z, direction, strict=False)]
            kl, square = exact(family, z, w)
            one, other = (torch.tensor([side], dtype=torch.float64) for side in (z, w))
            # Logarithms of probabilities e^-1000 carry 1000 eps; nothing carries more.
            assert close(float(family.kl(one, other)), kl, 1e-12), (z, w)
            assert close(float(family.squared_distance(one, other)), square, 1e-12), (z, w)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-3, 5.0, 100.0, 1e3])
def test_distances_up_to_opposite_ends(gap):
    """Nearly disjoint distributions are at the largest distance, pi."""
    for family, z, w in (
        (Categorical(), [gap, -gap, 0.0], [-gap, gap, 0.0]),
        (Bernoulli(), [gap], [-gap]),
        (Bernoulli(), [gap], [gap / 3]),
    ):
        one, other = (torch.tensor([side], dtype=torch.float64) for side in (z, w))
        assert close(float(family.squared_distance(one, other)), exact(family, z, w)[1], 1e-12)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), size=st.floats(-3, 0.5), step=st.floats(-12, 1))
def test_divergence_is_positive_and_quadratic_for_small_steps(family, seed, size, step):
    generator = torch.Generator().manual_seed(seed)
    z, move = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    z = 10**size * z if isinstance(family, (Categorical, Bernoulli)) else z
    w = z + 10**step * move
    assert bool((family.kl(z, z) == 0).all())
    assert bool((family.squared_distance(z, z) == 0).all())
    kl, square = family.kl(z, w), family.squared_distance(z, w)
    assert bool((kl >= 0).all())
    assert bool((square >= 0).all())
    if step < -6.5:
        d = w - z  # what was added, after rounding
        quadratic = torch.einsum("ni,nij,nj->n", d, family.fisher(z), d)
        torch.testing.assert_close(2 * kl, quadratic, rtol=1e-6, atol=0)
        torch.testing.assert_close(square, quadratic, rtol=1e-6, atol=0)


def test_the_divergence_of_float32_outputs_is_measured_in_float64():
    z = torch.tensor([[1.0, 2.0, 3.0]])
    w = z + torch.tensor([[1e-3, 0.0, 0.0]])
    expected = Categorical().kl(z.double(), w.double())
    assert Categorical().kl(z, w).dtype == torch.float64
    torch.testing.assert_close(Categorical().kl(z, w), expected, rtol=1e-12, atol=0)
