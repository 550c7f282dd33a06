"""Every claim about an activation beside the module of torch, by search on grids."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.networks import normal
from skgeo.exceptions import SkgeoError
from skgeo.network import (
    IDENTITY,
    Activation,
    activation,
    activation_call,
    activation_operation,
    read_activation,
)
from skgeo.network._activation import ACTIVATION_NAMES, as_activation

INF = math.inf


def prelu(*slopes):
    module = nn.PReLU(len(slopes)).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor(slopes))
    return module


class Call(nn.Module):
    """A function of torch, as a module of its own."""

    def __init__(self, function, *args, **kwargs):
        super().__init__()
        self.function, self.args, self.kwargs = function, args, kwargs

    def forward(self, x):
        return self.function(x, *self.args, **self.kwargs)


# All modules of torch that act on every unit alone, at their defaults and at other options; and
# the functions that have no module.
MODULES = [
    nn.CELU(), nn.CELU(0.3), nn.CELU(2.0), nn.CELU(49.0), nn.CELU(-1.5),
    nn.ELU(), nn.ELU(0.2), nn.ELU(3.0), nn.ELU(0.0), nn.ELU(-0.5),
    nn.GELU(), nn.GELU("tanh"),
    nn.Hardshrink(), nn.Hardshrink(2.0), nn.Hardshrink(0.0), nn.Hardshrink(-1.0),
    nn.Hardsigmoid(), nn.Hardswish(),
    nn.Hardtanh(), nn.Hardtanh(-0.2, 0.2), nn.Hardtanh(-3.0, 2.0), nn.Hardtanh(0.0, 6.0),
    nn.Hardtanh(-2.0, -1.0), nn.Hardtanh(1.5, 2.5), nn.Hardtanh(0.0, INF), nn.Hardtanh(-INF, 0.0),
    nn.Hardtanh(-INF, INF), nn.Hardtanh(-INF, 2.0),
    nn.LeakyReLU(), nn.LeakyReLU(0.3), nn.LeakyReLU(0.0), nn.LeakyReLU(1.0), nn.LeakyReLU(-1.0),
    nn.LeakyReLU(-0.4), nn.LeakyReLU(2.0),
    nn.LogSigmoid(), nn.Mish(),
    prelu(0.25), prelu(-0.7), prelu(0.0),
    nn.RReLU(), nn.RReLU(0.25, 0.5),
    nn.ReLU(), nn.ReLU6(), nn.SELU(), nn.SiLU(), nn.Sigmoid(),
    nn.Softplus(), nn.Softplus(beta=0.3), nn.Softplus(beta=5.0), nn.Softplus(threshold=0.5),
    nn.Softplus(beta=2.0, threshold=-1.0), nn.Softplus(beta=-1.0), nn.Softplus(3.0, 50.0),
    nn.Softshrink(), nn.Softshrink(2.0), nn.Softshrink(0.0),
    nn.Softsign(), nn.Tanh(), nn.Tanhshrink(),
    nn.Threshold(0.0, 0.0), nn.Threshold(0.5, 0.5), nn.Threshold(-1.0, -2.0),
    nn.Threshold(1.0, 3.0), nn.Threshold(0.0, -1.0),
    nn.Identity(), nn.Dropout(0.5), nn.AlphaDropout(0.5), nn.FeatureAlphaDropout(0.5),
]  # fmt: skip
CALLS = [
    Call(torch.abs), Call(torch.erf), Call(torch.sin), Call(torch.clamp, 2.0, -1.0),
    Call(torch.clamp, 3.0, 3.0), Call(torch.clamp, 1.0, -1.0), Call(torch.clamp, min=-0.5),
    Call(torch.clip, -1.0, 0.5), Call(torch.clamp_min, 0.0), Call(torch.clamp_max, 4.0),
    Call(torch.ops.aten.elu, 1.5, 0.7, 2.0), Call(torch.ops.aten.elu, 0.5, 2.0, 2.0),
]  # fmt: skip


def read(module):
    if not isinstance(module, Call):
        return read_activation(module.eval())
    args = (torch.zeros(1), *module.args)
    if module.function is torch.ops.aten.elu:
        return activation_operation("elu", args, module.kwargs)
    return activation_call(module.function, args, module.kwargs)


PAIRS = [(read(module), module.double().eval()) for module in MODULES + CALLS]
EACH = pytest.mark.parametrize(("phi", "module"), PAIRS, ids=[f"{p} {m}" for p, m in PAIRS])


def grid(width=12.0, count=8001):
    """Equal steps that miss whole and half numbers."""
    generator = torch.Generator().manual_seed(0)
    shift = torch.rand(1, generator=generator, dtype=torch.float64) * 1e-3
    return torch.linspace(-width, width, count, dtype=torch.float64) + shift


def derivatives(module, x, order):
    """Values, or derivatives, by automatic differentiation of the module of torch."""
    x = x.detach().clone().requires_grad_(True)
    value = module(x)
    for _ in range(order):
        # Of a hardsigmoid torch has the first derivative only; it is piecewise constant.
        if not value.requires_grad or type(value.grad_fn).__name__ == "NotImplemented":
            return torch.zeros_like(x)
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    return value.detach()


def jumps(module, order, low=-30.0, high=30.0, cells=1500):
    """Where a derivative jumps: each cell of a grid is halved down to where it is largest."""
    ends = torch.linspace(low, high, cells + 1, dtype=torch.float64) + 1e-4
    left, right = ends[:-1].clone(), ends[1:].clone()
    for _ in range(44):
        middle = (left + right) / 2
        at = [derivatives(module, x, order) for x in (left, middle, right)]
        first = (at[1] - at[0]).abs() >= (at[2] - at[1]).abs()
        left, right = torch.where(first, left, middle), torch.where(first, middle, right)
    size = (derivatives(module, right, order) - derivatives(module, left, order)).abs()
    found = (right[size > 1e-5]).tolist()
    return [x for x, before in zip(found, [-INF, *found], strict=False) if x - before > 1e-9]


@EACH
def test_values_are_those_of_torch(phi, module):
    x = grid()
    torch.testing.assert_close(phi(x), module(x).detach(), rtol=1e-15, atol=0)
    single = copy.deepcopy(module).float()
    x = x.float()
    torch.testing.assert_close(phi(x), single(x).detach(), rtol=1e-6, atol=1e-30)


@EACH
def test_derivatives_are_those_of_torch(phi, module):
    x = grid(count=4001)
    expected = derivatives(module, x, 1)
    torch.testing.assert_close(phi.derivative(x), expected, rtol=1e-13, atol=1e-16)
    # Flat parts have slope 0, but for functions that only approach a constant.
    flat = (expected[x.abs() < 6] == 0).any() or (derivatives(module, x, 2) == 0).all()
    assert torch.equal(phi.responds(x), expected != 0 if flat else expected.abs() > 1e-3)
    with torch.no_grad():
        assert torch.equal(phi.derivative(x), phi.derivative(x.clone().requires_grad_(True)))
    for kink in phi.kinks:  # there torch decides
        at = torch.tensor([kink], dtype=torch.float64)
        torch.testing.assert_close(phi.derivative(at), derivatives(module, at, 1))


@EACH
def test_steps_kinks_and_breaks_are_all_there_are(phi, module):
    by_order = [jumps(module, order) for order in (0, 1, 2)]
    steps = by_order[0]
    kinks = sorted(by_order[0] + [x for x in by_order[1] if not near(x, by_order[0])])
    breaks = sorted(kinks + [x for x in by_order[2] if not near(x, kinks)])
    assert phi.steps == pytest.approx(steps, abs=1e-8)
    assert phi.kinks == pytest.approx(kinks, abs=1e-8)
    assert phi.breaks == pytest.approx(breaks, abs=1e-8)


def near(x, places):
    return any(abs(x - place) < 1e-7 for place in places)


@EACH
def test_oddness_homogeneity_and_monotony(phi, module):
    x = grid()
    y = module(x).detach()
    assert phi.is_odd == bool(torch.allclose(module(-x), -y, rtol=1e-12, atol=1e-14))
    scaled = [torch.allclose(module(a * x), a * y, rtol=1e-12, atol=1e-14) for a in (0.3, 7.0)]
    assert phi.is_homogeneous == all(scaled)
    assert phi.is_monotone == bool((y.diff() > -1e-8).all())
    assert phi.is_identity == bool(torch.allclose(y, x, rtol=1e-14))
    rectifies = torch.allclose(y[x > 0], x[x > 0]) and all(scaled) and not phi.is_identity
    assert phi.is_rectifier == rectifies
    if rectifies or phi.is_identity:
        assert phi.slope == pytest.approx(-float(module(torch.tensor([-1.0]).double()).detach()))
    else:
        assert math.isnan(phi.slope)
    expected = {"identity": "linear", "homogeneous": "positive", "odd": "sign"}
    which = [phi.is_identity, phi.is_homogeneous, phi.is_odd]
    names = list(itertools.compress(expected.values(), which))
    assert phi.scales == (names[0] if names else "none")


@EACH
def test_the_range_is_approached_and_never_left(phi, module):
    low, high = phi.range
    # Periods and plateaus near zero, and what happens far away.
    far = torch.logspace(0, 300, 3001, dtype=torch.float64)
    x = torch.cat([grid(), -far, far, *around(phi.kinks)])
    y = module(x).detach()
    assert float(y.min()) >= low - 1e-15
    assert float(y.max()) <= high + 1e-15
    for end, reached in ((low, float(y.min())), (high, float(y.max()))):
        if math.isinf(end):
            assert abs(reached) > 1e100
        else:
            assert reached == pytest.approx(end, abs=1e-5)


def around(places):
    """Each place and its neighbours in floating point."""
    at = torch.as_tensor(places, dtype=torch.float64)
    infinity = torch.full_like(at, INF)
    return at, torch.nextafter(at, infinity), torch.nextafter(at, -infinity)


@EACH
def test_images_of_intervals(phi, module):
    generator = torch.Generator().manual_seed(1)
    drawn = 30 * torch.rand(2, 120, generator=generator, dtype=torch.float64) - 15
    places = torch.tensor([*phi.kinks, 0.0]).double()
    drawn[0, : len(places)] = drawn[1, 10 : 10 + len(places)] = places
    drawn[:, 20] = drawn[0, 20]  # a point
    drawn[0, 30:50], drawn[1, 40:60] = -INF, INF
    low, high = drawn.amin(0), drawn.amax(0)
    least, most = phi.image(low, high)
    inside = low.clamp(min=-400) + torch.linspace(0, 1, 4001)[:, None].double() * (
        high.clamp(max=400) - low.clamp(min=-400)
    )
    ends = [end for bound in (low, high) for end in around(bound)]
    marks = [mark.expand(120) for mark in torch.cat(around(places))]
    x = torch.cat([inside, torch.stack(ends + marks)]).clamp(low, high).clamp(-400, 400)
    y = module(x).detach()
    rounding = 1e-14 * (1 + y.abs().amax(0))
    assert bool((least <= y.amin(0) + rounding).all())
    assert bool((most >= y.amax(0) - rounding).all())
    # No wider than what is attained on the grid, or approached at infinity.
    bounded = torch.isfinite(low) & torch.isfinite(high)
    step = 1e-9 + (y[1:4001] - y[:4000]).abs().amax(0)
    steepest = derivatives(module, x, 1).abs().amax(0)
    step = step.minimum(steepest * (inside[-1] - inside[0]) / 4000 + 1e-9)
    assert bool((least >= y.amin(0) - step)[bounded].all())
    assert bool((most <= y.amax(0) + step)[bounded].all())
    for bound, reached in ((least, y.amin(0)), (most, y.amax(0))):
        grows = torch.isinf(bound)
        assert bool((reached[grows].abs() > 3).all())
        close = (bound - reached).abs() <= torch.maximum(step, torch.tensor(0.05))
        assert bool(close[~grows & ~bounded].all())


def test_images_are_taken_entry_by_entry():
    phi = activation("gelu")
    low = torch.tensor([[-INF, -2.0], [0.0, -0.1]]).double()
    high = torch.tensor([[INF, -1.0], [1.0, 0.1]]).double()
    least, most = phi.image(low, high)
    assert torch.equal(phi.image(low.flatten(), high.flatten())[0], least.flatten())
    assert least[0, 0] == pytest.approx(-0.169971, abs=1e-6)
    assert most[0].tolist() == [INF, pytest.approx(float(F.gelu(torch.tensor(-2.0))), abs=1e-7)]


def test_two_are_equal_exactly_if_they_are_one_function():
    x = torch.cat([grid(40.0), torch.tensor([-1e3, 1e3]).double()])
    values = [module(x).detach() for _, module in PAIRS]
    for (i, (a, _)), (j, (b, _)) in itertools.combinations(enumerate(PAIRS), 2):
        same = torch.allclose(values[i], values[j], rtol=1e-14, atol=1e-14)
        assert (a == b) == same, (str(a), str(b))
        if same:
            assert hash(a) == hash(b)
    assert activation("relu") != "relu"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (nn.ReLU6(), nn.Hardtanh(0, 6)),
        (nn.LeakyReLU(0.0), nn.ReLU()),
        (nn.ELU(1.0), nn.CELU(1.0)),
        (nn.Threshold(0, 0), nn.ReLU()),
        (nn.Hardtanh(-INF, INF), nn.Identity()),
        (prelu(0.5), nn.LeakyReLU(0.5)),
        (nn.RReLU(0.1, 0.3), nn.LeakyReLU(0.2)),
    ],
    ids=str,
)
def test_functions_of_two_names(a, b):
    assert read_activation(a) == read_activation(b)


# Function and method forms of each name, in place too, with options by place and by keyword.
FORMS = [
    (
        activation("relu"),
        [(torch.relu,), (F.relu,), ("relu",), ("relu_",), (F.relu, {"inplace": True})],
    ),
    (activation("leaky_relu"), [(F.leaky_relu,)]),
    (
        activation("leaky_relu", negative_slope=0.3),
        [(F.leaky_relu, 0.3), (F.leaky_relu, {"negative_slope": 0.3})],
    ),
    (
        activation("leaky_relu", negative_slope=0.375),
        [(F.rrelu, 0.25, 0.5), (F.rrelu, {"lower": 0.25, "upper": 0.5})],
    ),
    (
        activation("abs"),
        [(torch.abs,), ("abs",), ("abs_",), (torch.absolute,), ("absolute",), (abs,)],
    ),
    (activation("relu6"), [(F.relu6,)]),
    (
        activation("hardtanh", min_val=-6, max_val=6),
        [
            (F.hardtanh, -6, 6),
            (F.hardtanh_, -6, 6),
            (F.hardtanh, {"min_val": -6.0, "max_val": 6.0}),
            ("clamp", -6, 6),
            ("clip_", {"min": -6, "max": 6}),
            (torch.clip, -6, 6),
        ],
    ),
    (
        activation("clamp", min=2.0),
        [("clamp", 2), ("clamp_min", 2.0), (torch.clamp_min, 2.0), ("clamp", {"min": 2})],
    ),
    (
        activation("clamp", max=2.0),
        [("clamp", {"max": 2}), ("clamp_max", 2.0), ("clamp", None, 2.0)],
    ),
    (activation("hardsigmoid"), [(F.hardsigmoid,)]),
    (activation("hardswish"), [(F.hardswish,)]),
    (activation("hardshrink", lambd=0.2), [(F.hardshrink, 0.2), ("hardshrink", 0.2)]),
    (activation("softshrink", lambd=0.2), [(F.softshrink, 0.2)]),
    (
        activation("threshold", threshold=1.0, value=-2.0),
        [(F.threshold, 1, -2), (torch.threshold, 1, -2)],
    ),
    (activation("elu", alpha=2.0), [(F.elu, 2.0), (F.elu_, 2.0), (F.elu, {"alpha": 2.0})]),
    (activation("selu"), [(F.selu,), (torch.selu,), (torch.selu_,)]),
    (activation("celu", alpha=2.0), [(F.celu, 2.0), (torch.celu, 2.0)]),
    (activation("gelu", approximate="tanh"), [(F.gelu, {"approximate": "tanh"})]),
    (activation("silu"), [(F.silu,), (F.silu, {"inplace": True})]),
    (activation("mish"), [(F.mish,)]),
    (activation("softplus", beta=3.0), [(F.softplus, 3), (F.softplus, {"beta": 3.0})]),
    (activation("softplus", threshold=1.0), [(F.softplus, 1, 1.0), (F.softplus, {"threshold": 1})]),
    (activation("logsigmoid"), [(F.logsigmoid,)]),
    (
        activation("sigmoid"),
        [(torch.sigmoid,), (F.sigmoid,), ("sigmoid",), ("sigmoid_",), (torch.special.expit,)],
    ),
    (activation("tanh"), [(torch.tanh,), (F.tanh,), ("tanh",), ("tanh_",)]),
    (activation("softsign"), [(F.softsign,)]),
    (activation("tanhshrink"), [(F.tanhshrink,)]),
    (activation("erf"), [(torch.erf,), (torch.special.erf,), ("erf",), ("erf_",)]),
    (activation("sin"), [(torch.sin,), ("sin",), ("sin_",)]),
]


@pytest.mark.parametrize(("phi", "forms"), FORMS, ids=lambda value: str(value)[:20])
def test_functions_and_methods(phi, forms):
    x = grid(count=101)
    for target, *rest in forms:
        kwargs = rest.pop() if rest and isinstance(rest[-1], dict) else {}
        method = isinstance(target, str)
        found = activation_call(target, (x, *rest), kwargs, method=method)
        assert found == phi, (target, rest)
        function = getattr(Tensor, target) if method else target
        torch.testing.assert_close(phi(x), function(x.clone(), *rest, **kwargs))
        if target is not F.rrelu and "inplace" not in kwargs:
            name = found.name
            assert activation_operation(name, (x, *dict(found.options).values()), {}) == phi


def test_what_is_not_an_activation():
    x = torch.zeros(2, 3)
    for module in (nn.Softmax(-1), nn.Linear(2, 2), nn.GLU(), nn.LayerNorm(3), nn.Sequential()):
        assert read_activation(module) is None
    for call in (
        (torch.exp, (x,), {}),
        (torch.clamp, (x, torch.zeros(3)), {}),
        (F.leaky_relu, (x, torch.tensor(0.1)), {}),
        (F.rrelu, (x,), {"training": True}),
        (F.prelu, (x, torch.ones(3)), {}),
        ([], (x,), {}),
    ):
        assert activation_call(*call) is None
    assert activation_call("softmax", (x,), {}, method=True) is None
    assert activation_operation("mm", (x, x), {}) is None


class Squared(nn.ReLU):
    def forward(self, x):
        return super().forward(x).square()


class Named(nn.ReLU):
    pass


def test_subclasses_are_read_by_their_forward_pass():
    assert read_activation(Named()) == activation("relu")
    assert read_activation(Squared()) is None
    patched = nn.ReLU()
    patched.forward = torch.tanh
    assert read_activation(patched) is None


def test_a_slope_for_each_unit():
    module = prelu(0.1, 0.0, -0.5)
    phi = read_activation(module)
    assert (phi.scales, phi.per_unit, phi.is_homogeneous) == ("unknown", True, True)
    assert str(phi) == "prelu(3 slopes)"
    assert math.isnan(phi.slope)
    for shape in ((7, 3), (7, 3, 5), (2, 3, 4, 4)):
        x = normal(shape)
        torch.testing.assert_close(phi(x), module(x).detach())
        torch.testing.assert_close(phi.derivative(x), derivatives(module, x, 1))
    least, most = phi.image(torch.full((3,), -INF).double(), torch.tensor([1.0, 1, 1]).double())
    assert (least.tolist(), most.tolist()) == ([-INF, 0.0, 0.0], [1.0, 1.0, INF])
    assert phi == read_activation(prelu(0.1, 0.0, -0.5)) != read_activation(prelu(0.1, 0.0, 0.5))


def test_names():
    for name in ACTIVATION_NAMES:
        phi = as_activation(name)
        assert (phi.name, str(phi), as_activation(phi)) == (name, name, phi)
        restored = pickle.loads(pickle.dumps(phi))
        assert (restored, restored.kinks) == (phi, phi.kinks)
    assert Activation("identity") == IDENTITY
    assert str(activation("softplus", beta=0.3)) == "softplus(beta=0.3)"
    with pytest.raises(SkgeoError, match="'softmax' is not known; expected one of identity, relu"):
        as_activation("softmax")
    with pytest.raises(SkgeoError, match="expected a name such as 'relu', or an Activation"):
        as_activation(torch.relu)
    with pytest.raises(SkgeoError, match="'relu' has no option slope; it has none"):
        activation("relu", slope=2.0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hardtanh", {"min_val": 1.0, "max_val": -1.0}),
        ("softplus", {"beta": 0.0}),
        ("celu", {"alpha": 0.0}),
        ("gelu", {"approximate": "sometimes"}),
        ("softshrink", {"lambd": -1.0}),
        ("hardtanh", {"min_val": float("nan")}),
    ],
)
def test_options_that_torch_refuses(name, options):
    with pytest.raises(SkgeoError, match="is not a function"):
        activation(name, **options)


def test_infinite_thresholds_and_options_that_are_not_numbers():
    for name in ("threshold", "softplus"):
        assert activation(name, threshold=-math.inf) == IDENTITY
        with pytest.raises(SkgeoError, match="an option is NaN"):
            activation(name, threshold=math.nan)
