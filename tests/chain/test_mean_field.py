import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import nn

from helpers.networks import normal
from helpers.oracles import assert_untouched
from skgeo import SkgeoError
from skgeo.chain import mean_field, mean_field_theory
from skgeo.chain._gaussian_integrals import GaussianMoments, correlation
from skgeo.chain._scalar_function import scalar_function


def random_net(width, depth, sigma_w, sigma_b, activation=nn.Tanh, n_in=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for index in range(depth):
        linear = nn.Linear((n_in or width) if index == 0 else width, width, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.normal_(0, sigma_w / linear.in_features**0.5, generator=generator)
            linear.bias.normal_(0, 1, generator=generator).mul_(sigma_b)
        layers += [linear, activation()]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("sigma_w", "q_star", "chi_1", "chi_2"),
    [
        (1.5, 0.960844279740, 1.060981264141, 0.680726587433),
        (2.5, 4.079123875282, 1.585224765006, 1.196041291424),
    ],
)
def test_known_values_of_tanh(sigma_w, q_star, chi_1, chi_2):
    found = mean_field_theory("tanh", sigma_w, 0.3)
    assert found.q_star == pytest.approx(q_star, abs=1e-9)
    assert found.chi_1 == pytest.approx(chi_1, abs=1e-9)
    assert found.chi_2 == pytest.approx(chi_2, abs=1e-9)


@pytest.mark.parametrize(("sigma_w", "sigma_b"), [(0.8, 0.2), (1.2, 0.3), (3.0, 0.0), (20.0, 0.1)])
def test_closed_forms_of_erf(sigma_w, sigma_b):
    found = mean_field_theory("erf", sigma_w, sigma_b)
    q, w2 = found.q_star, sigma_w**2
    assert q == pytest.approx(
        sigma_b**2 + w2 * 2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-11
    )
    assert found.chi_1 == pytest.approx(w2 * 4 / math.pi / math.sqrt(1 + 4 * q), rel=1e-11)
    # The variance map has the derivative (4/pi) sw^2 / ((1 + 2q) sqrt(1 + 4q)).
    slope = w2 * 4 / math.pi / ((1 + 2 * q) * math.sqrt(1 + 4 * q))
    assert found.xi_q == pytest.approx(-1 / math.log(slope), rel=1e-9)
    if found.chi_1 > 1:
        c = found.c_star
        product = w2 * 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q)) + sigma_b**2
        assert product / q == pytest.approx(c, abs=1e-9)
        assert c < 1
        slope = w2 * 4 / math.pi / math.sqrt((1 + 2 * q) ** 2 - (2 * q * c) ** 2)
        assert found.xi_c == pytest.approx(-1 / math.log(slope), rel=1e-8)
    else:
        assert found.c_star == 1.0
        assert found.xi_c == pytest.approx(-1 / math.log(found.chi_1), rel=1e-9)


def test_rectifiers():
    critical = mean_field_theory(nn.ReLU(), 2**0.5)
    assert (critical.q_star, critical.chi_1, critical.xi_c, critical.xi_q) == (
        1,
        1,
        math.inf,
        math.inf,
    )
    assert critical.chi_2 == math.inf
    assert mean_field_theory("relu", 2**0.5, q0=3.7).q_star == 3.7
    below = mean_field_theory("relu", 1.2, 0.5)
    assert below.q_star == pytest.approx(0.25 / (1 - 0.72), rel=1e-12)
    assert below.chi_1 == pytest.approx(0.72, rel=1e-12)
    assert below.xi_q == pytest.approx(-1 / math.log(0.72), rel=1e-12)
    above = mean_field_theory("relu", 2.0, 0.5)
    assert above.q_star == math.inf
    assert above.chi_1 == pytest.approx(2.0, rel=1e-12)
    assert math.isnan(above.xi_c)
    quiet = mean_field_theory("relu", 1.0)
    assert (quiet.q_star, quiet.chi_1) == pytest.approx((0.0, 0.5), rel=1e-12)
    assert quiet.xi_q == pytest.approx(-1 / math.log(0.5), rel=1e-12)
    shifted = mean_field_theory(lambda x: (x - 0.3).relu() + 0.3, 1.0, kinks=[0.3])
    assert 0.3**2 < shifted.q_star < 1
    leaky = mean_field_theory(nn.LeakyReLU(0.1), 1.0, 0.3)
    assert leaky.chi_1 == pytest.approx((1 + 0.01) / 2, rel=1e-12)


def test_silence_and_criticality_without_biases():
    assert mean_field_theory("tanh", 0.5).q_star == 0.0
    assert mean_field_theory("tanh", 0.5).chi_1 == pytest.approx(0.25, rel=1e-12)
    edge = mean_field_theory("tanh", 1.0)
    assert (edge.q_star, edge.chi_1, edge.xi_c) == (0.0, 1.0, math.inf)
    chaotic = mean_field_theory("tanh", 1.5)
    assert chaotic.c_star == 0.0
    slope = 1.5**2 * GaussianMoments(scalar_function("tanh"), chaotic.q_star).slope ** 2
    assert chaotic.xi_c == pytest.approx(-1 / math.log(slope), rel=1e-9)


@pytest.mark.parametrize(
    ("activation", "q"),
    [
        ("tanh", 400.0),
        (nn.GELU(), 3.0),
        (nn.Hardtanh(-0.5, 1.2), 2.0),
        (nn.ELU(0.7), 1.3),
        (nn.Softplus(), 50.0),
        (nn.Hardswish(), 9.0),
        (nn.SELU(), 0.01),
    ],
)
def test_expectations_against_quadpack(activation, q):
    phi = scalar_function(activation)
    found = GaussianMoments(phi, q)
    root = q**0.5
    points = [k / root for k in (*phi.breaks, 0.0) if abs(k / root) < 8]

    def expected(index, power):
        def value(z):
            given = phi.derivatives(np.array([root * z]))[index][0] ** power
            return given * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        options = {"points": points, "limit": 400, "epsabs": 1e-12, "epsrel": 1e-10}
        return integrate.quad(value, -9, 9, **options)[0]

    assert found.square == pytest.approx(expected(0, 2), rel=1e-9)
    assert found.slope_square == pytest.approx(expected(1, 2), rel=1e-9)
    assert found.slope_fourth == pytest.approx(expected(1, 4), rel=1e-9)
    if math.isfinite(found.bend_square):
        assert found.bend_square == pytest.approx(expected(2, 2), rel=1e-9)
    # d/dq E phi^2 = E phi'^2 + E phi phi'', jumps of phi' included.
    step = 1e-4 * q
    squares = [GaussianMoments(phi, q + sign * step).square for sign in (1, -1)]
    slope = (squares[0] - squares[1]) / (2 * step)
    assert found.slope_square + found.product == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("c", [-0.4, 0.0, 0.3, 0.9, 0.999])
def test_correlations_in_closed_form(c):
    erf, relu, q = scalar_function("erf"), scalar_function("relu"), 2.3
    expected = 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q))
    assert correlation(erf, q, c) == pytest.approx(expected, abs=1e-12)
    angle = math.acos(c)
    expected = q / (2 * math.pi) * (math.sin(angle) + (math.pi - angle) * c)
    assert correlation(relu, q, c) == pytest.approx(expected, rel=1e-11)
    expected = (math.pi - angle) / (2 * math.pi)
    assert correlation(relu, q, c, slopes=True) == pytest.approx(expected, rel=1e-11)


def test_a_wide_network_does_as_predicted():
    net = random_net(600, 8, 1.5, 0.3)
    X = 3 * normal(40, 600, seed=1)
    with assert_untouched(net):
        found = mean_field(net, X)
    assert found.layers == tuple(str(2 * k) for k in range(8))
    np.testing.assert_allclose(found.sigma_w, 1.5, rtol=0.01)
    np.testing.assert_allclose(found.sigma_b, 0.3, rtol=0.1)
    np.testing.assert_allclose(found.q_measured, found.q_predicted, rtol=0.05)
    np.testing.assert_allclose(found.chi_measured[1:], found.chi_predicted[1:], rtol=0.05)
    assert np.isnan(found.chi_measured[0])
    assert found.theory.q_star == pytest.approx(found.q_measured[-1], rel=0.1)
    # The measured numbers are means of what autograd gives.
    h = net[:3](X[:3]).detach()
    jacobians = [torch.autograd.functional.jacobian(net[3:5], row) for row in h]
    sizes = [float(j.square().sum()) / 600 for j in jacobians]
    assert mean_field(net, X[:3]).chi_measured[2] == pytest.approx(np.mean(sizes), rel=1e-12)


def test_without_data_only_the_theory():
    net = nn.Sequential(nn.Flatten(), *random_net(30, 2, 1.0, 0.1, nn.ELU), nn.Linear(30, 3))
    found = mean_field(net.float())
    assert found.theory.activation == "elu"
    assert found.layers == ("1", "3")
    assert np.isnan(found.q_measured).all()
    again = mean_field_theory(nn.ELU(), found.theory.sigma_w, found.theory.sigma_b)
    assert again == found.theory


def test_curves_and_spectra():
    theory = mean_field_theory("tanh", 2.5, 0.3)
    speed, curvature = theory.curve(4)
    np.testing.assert_allclose(speed**2, theory.q_star * theory.chi_1 ** np.arange(4))
    assert curvature[0] ** 2 == pytest.approx(1 / theory.q_star)
    # In the long run 3 chi_2 / (chi_1 (chi_1 - 1)).
    limit = 3 * theory.chi_2 / (theory.chi_1 * (theory.chi_1 - 1))
    assert theory.curve(80)[1][-1] ** 2 == pytest.approx(limit, rel=1e-9)
    m1, variance = theory.spectrum(3)
    assert m1 == pytest.approx(theory.chi_1**3)
    assert variance == pytest.approx(m1**2 * 3 * theory.mu_2 / theory.mu_1**2)
    linear = mean_field_theory("identity", 1.0)
    assert linear.spectrum(5, "orthogonal") == (1.0, 0.0)


def test_spectrum_of_a_wide_product():
    theory, width, depth = mean_field_theory("tanh", 1.3, 0.2), 500, 3
    net = random_net(width, depth + 1, 1.3, 0.2, seed=3)
    h = normal(width, seed=4)
    h *= theory.q_star**0.5 / h.square().mean() ** 0.5
    values = torch.autograd.functional.jacobian(net[1:-1], h)
    values = torch.linalg.svdvals(values).square().numpy()
    m1, variance = theory.spectrum(depth)
    assert values.mean() == pytest.approx(m1, rel=0.1)
    assert values.var() == pytest.approx(variance, rel=0.2)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * x.tanh()


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)

    def forward(self, x):
        return self.first(x).tanh()


def test_functions_are_read_like_modules():
    torch.manual_seed(0)
    plain = Plain()
    again = nn.Sequential(plain.first, nn.Tanh())
    assert mean_field(plain).theory == mean_field(again).theory
    X = normal(5, 3)
    found, expected = (mean_field(net.double(), X) for net in (plain, again))
    np.testing.assert_array_equal(found.q_measured, expected.q_measured)


@pytest.mark.parametrize("shape", [(6, 2, 3), (6, 6)])
def test_inputs_may_be_flattened_or_have_positions(shape):
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU())
    X = normal(*shape)
    found, expected = mean_field(net.double(), X), mean_field(net[1:], X.reshape(6, 6))
    np.testing.assert_allclose(found.q_measured, expected.q_measured)
    every = mean_field(net[1:], X.reshape(2, 3, 6))
    np.testing.assert_allclose(every.q_measured, expected.q_measured)
    np.testing.assert_allclose(every.chi_measured, expected.chi_measured)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), "the module at '0', Conv2d"),
        (nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Tanh()), "the module at '1', Layer"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(-1)), "the module at '1', Softmax"),
        (
            nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.ReLU()),
            "'0' is followed by tanh and '2' by relu",
        ),
        (nn.Sequential(nn.Linear(3, 3), Scaled()), "a parameter used outside the layers"),
        (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Tanh()), "two linear layers in a row"),
        (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), "two linear layers in a row"),
        (nn.Linear(3, 3), "no activation"),
        (nn.Sequential(nn.Tanh(), nn.Linear(3, 3)), "the module at '0', tanh"),
        (nn.Sequential(nn.Linear(3, 3), nn.Hardshrink()), "jumps"),
        (nn.Sequential(nn.Linear(3, 3), nn.PReLU(3)), "a slope for each unit"),
    ],
)
def test_networks_out_of_reach_are_named(net, message):
    with pytest.raises(SkgeoError, match=message):
        mean_field(net)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tan", 1.0), "not known"),
        (("tanh", -1.0), "sigma_w"),
        (("tanh", math.nan), "sigma_w"),
        (("tanh", 1.0, math.inf), "sigma_b"),
        (("tanh", 0.0), "above 0"),
        ((lambda x: x.cumsum(-1), 1.0), "mixes the entries"),
        ((lambda x: (x - 0.3).relu(), 1.0), "their positions with kinks="),
        ((3, 1.0), "a name, a module or a function"),
    ],
)
def test_theories_that_are_none(arguments, message):
    with pytest.raises(SkgeoError, match=message):
        mean_field_theory(*arguments)


def test_depths_that_are_none():
    theory = mean_field_theory("tanh", 0.9, 0.3)
    with pytest.raises(SkgeoError, match="depth=0"):
        theory.curve(0)
    with pytest.raises(SkgeoError, match="weights='uniform'"):
        theory.spectrum(2, "uniform")
