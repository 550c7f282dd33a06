import numpy as np
import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo import GeometryWarning, NonSmoothWarning, SkgeoError, WrappedModel
from skgeo.chain import curvature, kink_density, mean_field_theory


class Surface(nn.Module):
    """A parametrised surface, turned and shifted in a larger space."""

    def __init__(self, function, n_out=None):
        super().__init__()
        self.function = function
        self.shift = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.turn = None
        if n_out is not None:
            basis = torch.linalg.qr(normal(n_out, n_out, seed=5)).Q
            self.turn = nn.Parameter(basis)

    def forward(self, x):
        y = torch.stack(self.function(*x.T), dim=1)
        if self.turn is not None:
            y = y @ self.turn[: y.shape[1]]
        return y + self.shift


def sphere(r):
    return lambda u, v: (
        r * v.cos() * u.cos(),
        r * v.cos() * u.sin(),
        r * v.sin(),
    )


def torus(big, r):
    return lambda u, v: (
        (big + r * v.cos()) * u.cos(),
        (big + r * v.cos()) * u.sin(),
        r * v.sin(),
    )


def angles(n=7, seed=0):
    return normal(n, 2, seed=seed).clamp(-1.4, 1.4)


@pytest.mark.parametrize("radius", [0.3, 1.0, 40.0])
@pytest.mark.parametrize("n_out", [None, 6])
def test_spheres(radius, n_out):
    net = Surface(sphere(radius), n_out)
    with assert_untouched(net):
        found = curvature(net, angles(), "sectional")
    np.testing.assert_allclose(found.curvature, 1 / radius**2, rtol=1e-10)
    np.testing.assert_allclose(found.scalar, 2 / radius**2, rtol=1e-10)
    np.testing.assert_allclose(found.planes[:, 0, 1], found.planes[:, 1, 0])
    np.testing.assert_allclose(found.singular_values[:, 0], radius, rtol=1e-12)
    assert (found.gap == np.inf).all()
    assert not found.kink_density.any()


@pytest.mark.parametrize(("big", "r"), [(2.0, 0.5), (3.0, 1.5)])
def test_tori(big, r):
    X = 3 * normal(9, 2)
    found = curvature(Surface(torus(big, r), 5), X, "sectional")
    cosine = np.cos(X[:, 1].numpy())
    np.testing.assert_allclose(found.curvature, cosine / (r * (big + r * cosine)), rtol=1e-9)
    assert (found.curvature < 0).any()


def test_graphs_of_quadratics_saddles_included():
    def graph(x, y):
        return x, y, (1.3 * x**2 - 0.7 * y**2) / 2

    X = normal(6, 2)
    x, y = X.T.numpy()
    expected = -1.3 * 0.7 / (1 + (1.3 * x) ** 2 + (0.7 * y) ** 2) ** 2
    found = curvature(Surface(graph), X, "sectional")
    np.testing.assert_allclose(found.curvature, expected, rtol=1e-9)


def test_planes_and_cylinders_are_flat():
    def cylinder(u, v):
        return 2 * u.cos(), 2 * u.sin(), v

    for net in (nn.Linear(2, 5).double(), Surface(cylinder, 4)):
        found = curvature(net, angles(), "sectional")
        np.testing.assert_allclose(found.curvature, 0.0, atol=1e-13)


def test_three_directions_of_a_three_sphere():
    def inverse_stereographic(x, y, z):
        s = x**2 + y**2 + z**2
        return (*(4.0 * c / (1 + s) for c in (x, y, z)), 2.0 * (s - 1) / (1 + s))

    X = normal(4, 3)
    found = curvature(Surface(inverse_stereographic, 6), X, "sectional", n_directions=3)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(found.planes[:, off], 0.25, rtol=1e-9)
    np.testing.assert_allclose(found.scalar, 6 / 4, rtol=1e-9)
    # The map takes planes to spheres, small ones unless the plane passes the origin.
    slices = curvature(Surface(inverse_stereographic, 6), X, "sectional")
    assert slices.n_directions == 2
    assert (slices.curvature > 0.25 - 1e-9).all()


def intrinsic(net, x, u, v):
    """Gaussian curvature of a slice from its metric alone, by Brioschi's formula."""

    def metric(p):
        def place(p):
            return net((x + p[0] * u + p[1] * v).unsqueeze(0))[0]

        j = torch.autograd.functional.jacobian(place, p, create_graph=True)
        return j.T @ j

    p = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    entries = [(0, 0), (0, 1), (1, 1)]
    values = [metric(p)[i].detach() for i in entries]
    firsts = [torch.autograd.functional.jacobian(lambda p, i=i: metric(p)[i], p) for i in entries]
    seconds = [torch.autograd.functional.hessian(lambda p, i=i: metric(p)[i], p) for i in entries]
    E, F, G = values
    (Eu, Ev), (Fu, Fv), (Gu, Gv) = firsts
    top = -seconds[0][1, 1] / 2 + seconds[1][0, 1] - seconds[2][0, 0] / 2
    one = torch.stack(
        [
            torch.stack([top, Eu / 2, Fu - Ev / 2]),
            torch.stack([Fv - Gu / 2, E, F]),
            torch.stack([Gv / 2, F, G]),
        ]
    )
    zero = torch.zeros_like(E)
    two = torch.stack(
        [
            torch.stack([zero, Ev / 2, Gu / 2]),
            torch.stack([Ev / 2, E, F]),
            torch.stack([Gu / 2, F, G]),
        ]
    )
    return ((torch.det(one) - torch.det(two)) / (E * G - F * F) ** 2).item()


@pytest.mark.parametrize("layer", [None, "1"])
def test_networks_against_their_intrinsic_curvature(layer):
    net, X = mlp(5, 8, 7, 4), normal(3, 5)
    found = curvature(net, X, "sectional", layer=layer)
    part = net if layer is None else net[:2]
    for index, x in enumerate(X):
        jacobian = torch.autograd.functional.jacobian(part, x)
        _, s, vt = torch.linalg.svd(jacobian)
        assert found.curvature[index] == pytest.approx(intrinsic(part, x, *vt[:2]), rel=1e-7)
        assert found.gap[index] == pytest.approx((s[1] / s[2]).item(), rel=1e-9)
    assert found.layer == (layer or "output")


def test_a_circle_keeps_its_curvature_under_a_turn():
    net = nn.Linear(2, 7, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(3 * torch.linalg.qr(normal(7, 2)).Q)
    times = torch.linspace(0, 6, 9, dtype=torch.float64)
    found = curvature(net, lambda t: 0.5 * torch.stack([t.cos(), t.sin()], 1), t=times)
    np.testing.assert_allclose(found.curvature, 1 / 1.5, rtol=1e-12)
    np.testing.assert_allclose(found.input_curvature, 2.0, rtol=1e-12)
    np.testing.assert_allclose(found.speed, 1.5, rtol=1e-12)
    np.testing.assert_allclose(found.stretch, 3.0, rtol=1e-12)
    np.testing.assert_array_equal(found.kink_density, 0.0)


def test_a_curve_may_be_a_module():
    net, curve, times = mlp(3, 6, 4), mlp(1, 5, 3, seed=2), torch.linspace(0, 1, 4).double()
    found = curvature(net, nn.Sequential(nn.Unflatten(0, (-1, 1)), curve), t=times)
    whole = curvature(nn.Sequential(curve, net), times.unsqueeze(1), velocity=torch.ones(4, 1))
    np.testing.assert_allclose(found.curvature, whole.curvature, rtol=1e-9)
    np.testing.assert_allclose(found.speed, whole.speed, rtol=1e-9)


def test_curves_on_a_sphere():
    # A line of constant latitude v is a circle of radius r cos v, a meridian a great circle.
    r, X = 2.0, angles()
    along = torch.zeros_like(X)
    along[:, 0] = 0.3
    found = curvature(Surface(sphere(r), 4), X, velocity=along)
    latitude = r * np.cos(X[:, 1].numpy())
    np.testing.assert_allclose(found.curvature, 1 / latitude, rtol=1e-10)
    np.testing.assert_allclose(found.speed, 0.3 * latitude, rtol=1e-10)
    found = curvature(Surface(sphere(r), 4), X, velocity=along.flip(1))
    np.testing.assert_allclose(found.curvature, 1 / r, rtol=1e-10)


@pytest.mark.parametrize("name", ["mlp", "transformer", "conv2d", "layernorm", "gru", "returns"])
def test_networks_against_differences(name):
    case = BY_NAME[name]
    module, X = case.module(), case.inputs()
    v, a = normal(2, *X.shape)

    def run(x):
        z = module(x) if case.forward is None else case.forward(module, x)
        return z.detach().flatten(1)

    with assert_untouched(module):
        found = curvature(WrappedModel(module, forward=case.forward), X, velocity=v, acceleration=a)
    h = 1e-4
    points = [run(X + t * v + t * t / 2 * a) for t in (-h, 0.0, h)]
    velocity = (points[2] - points[0]) / (2 * h)
    acceleration = (points[2] - 2 * points[1] + points[0]) / h**2
    vv, aa = velocity.square().sum(1), acceleration.square().sum(1)
    va = (velocity * acceleration).sum(1)
    expected = ((vv * aa - va**2) / vv**3).sqrt()
    np.testing.assert_allclose(found.curvature, expected, rtol=1e-4)
    np.testing.assert_allclose(found.speed, vv.sqrt(), rtol=1e-6)


def test_tokens_move_behind_their_embedding():
    case = BY_NAME["embedding"]
    h = case.module()[0](case.inputs()).detach()
    found = curvature(case.module(), case.inputs(), source="0", velocity=torch.ones_like(h))
    np.testing.assert_allclose(found.curvature, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.input_curvature, 0.0)


def test_a_circle_in_a_wide_random_network_follows_the_recursion():
    theory, width, depth = mean_field_theory("tanh", 2.0, 0.3), 500, 5
    generator = torch.Generator().manual_seed(0)
    layers = []
    for _ in range(depth):
        linear = nn.Linear(width, width, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.normal_(0, 2.0 / width**0.5, generator=generator)
            linear.bias.normal_(0, 0.3, generator=generator)
        layers += [nn.Tanh(), linear]
    net = nn.Sequential(*layers)
    plane = torch.linalg.qr(normal(width, 2)).Q.T * (width * theory.q_star) ** 0.5
    times = torch.linspace(0, 6, 6, dtype=torch.float64)
    speed, kappa = theory.curve(depth + 1)
    for index in range(depth):
        found = curvature(
            net,
            lambda t: torch.stack([t.cos(), t.sin()], 1) @ plane,
            t=times,
            layer=str(2 * index + 1),
        )
        own = found.speed.mean() / width**0.5, found.curvature.mean() * width**0.5
        assert own == pytest.approx((speed[index + 1], kappa[index + 1]), rel=0.1)


def test_piecewise_linear_networks_count_kinks():
    net, X = mlp(3, 16, 16, 4, activation=nn.ReLU), normal(5, 3)
    with pytest.warns(NonSmoothWarning, match="piecewise linear"):
        found = curvature(net, X, velocity=torch.ones_like(X), radius=2.0)
    assert np.isnan(found.curvature).all()
    assert (found.kink_density > 0).any()
    assert (found.speed > 0).all()
    step = 2.0 * torch.ones(3).double() / 3**0.5
    counted = kink_density(net, X - step, X + step)
    np.testing.assert_allclose(found.kink_density, counted.counts / 4.0)
    with pytest.warns(NonSmoothWarning, match="piecewise linear"):
        sectional = curvature(net, X, "sectional")
    assert np.isnan(sectional.curvature).all()
    assert np.isnan(sectional.scalar).all()
    # Before the first kink the network is linear, and flat.
    first = curvature(net, X, velocity=torch.ones_like(X), layer="0")
    np.testing.assert_allclose(first.curvature, 0.0)


def test_kinks_beside_smooth_parts_are_named():
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    X = normal(4, 3)
    with pytest.warns(NonSmoothWarning, match="between them"):
        found = curvature(net.double(), X, velocity=torch.ones_like(X))
    assert (found.curvature > 0).all()


def test_images_that_stand_still():
    net = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    X = torch.zeros(2, 2).double()
    with pytest.warns(GeometryWarning, match="zero speed at 'output' for 1 of 2"):
        found = curvature(net, X, velocity=torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert np.isnan(found.curvature).tolist() == [False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "velocity at every sample"),
        ({"velocity": torch.zeros(3, 4)}, "velocity of sample 0 is zero"),
        ({"velocity": torch.ones(3, 3)}, r"\(3, 3\); expected 3 samples of 4"),
        ({"velocity": torch.ones(3, 4), "t": [0.0]}, "belongs to a curve"),
        ({"velocity": torch.ones(3, 4) * torch.nan}, "NaN"),
        ({"velocity": torch.ones(3, 4), "layer": "seven"}, "No layer named"),
        ({"velocity": torch.ones(3, 4), "radius": -1.0}, "radius"),
        ({"kind": "scalar"}, "kind='scalar'"),
        ({"kind": "sectional", "velocity": torch.ones(3, 4)}, "kind='curve'"),
        ({"kind": "sectional", "n_directions": 1}, "at least 2"),
        ({"kind": "sectional", "n_directions": 3}, "leave a normal direction"),
        ({"kind": "sectional", "layer": "0", "n_directions": 5}, "fit in the input"),
    ],
)
def test_what_has_no_curvature(options, message):
    with pytest.raises(SkgeoError, match=message):
        curvature(mlp(4, 6, 3), normal(3, 4), **options)


def test_curves_that_are_none():
    net, times = mlp(2, 6, 3), torch.linspace(0, 1, 4)

    def circle(t):
        return torch.stack([t.cos(), t.sin()], 1)

    with pytest.raises(SkgeoError, match="at which times"):
        curvature(net, circle)
    with pytest.raises(SkgeoError, match="has its own velocity"):
        curvature(net, circle, t=times, velocity=torch.ones(4, 2))
    with pytest.raises(SkgeoError, match=r"shape \(4,\) for 4 times"):
        curvature(net, torch.cos, t=times)
    with pytest.raises(SkgeoError, match="one axis"):
        curvature(net, circle, t=times.reshape(2, 2))
    with pytest.raises(SkgeoError, match="velocity of sample 0 is zero"):
        curvature(net, lambda t: torch.ones(len(t), 2, dtype=t.dtype), t=times)


def test_slices_beyond_the_rank():
    net = nn.Sequential(nn.Linear(4, 1), nn.Tanh(), nn.Linear(1, 5)).double()
    with pytest.raises(SkgeoError, match="has rank 1 for sample 0"):
        curvature(net, normal(3, 4), "sectional")


def test_single_precision_is_close():
    net, X = mlp(4, 8, 3), normal(3, 4)
    expected = curvature(net, X, velocity=torch.ones_like(X)).curvature
    found = curvature(net.float(), X, velocity=torch.ones_like(X))
    np.testing.assert_allclose(found.curvature, expected, rtol=1e-3)
