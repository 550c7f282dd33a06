"""An activation is its function with its options: what is one function, and what is not."""

import copy
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from helpers.networks import mlp, normal
from skgeo.exceptions import GeometryWarning, SkgeoError
from skgeo.symmetry import (
    apply_symmetry,
    canonical_form,
    equivalence_classes,
    equivalent,
)

# Pairs of two functions, and a factor of the inputs at which they differ.
OTHERS = [
    (lambda: nn.Softplus(beta=0.3), lambda: nn.Softplus(beta=3.0)),
    (lambda: nn.ELU(1.0), lambda: nn.ELU(0.2)),
    (lambda: nn.CELU(1.0), lambda: nn.CELU(0.3)),
    (lambda: nn.Hardtanh(-1, 1), lambda: nn.Hardtanh(-0.2, 0.2)),
    (lambda: nn.Hardtanh(-1, 1), lambda: nn.Hardtanh(0, 1)),
    (lambda: nn.GELU(), lambda: nn.GELU("tanh")),
    (lambda: nn.LeakyReLU(0.1), lambda: nn.LeakyReLU(0.2)),
    (lambda: nn.PReLU(init=0.1), lambda: nn.PReLU(init=0.2)),
    (lambda: nn.Softshrink(0.1), lambda: nn.Softshrink(0.4)),
    (lambda: nn.Hardshrink(0.1), lambda: nn.Hardshrink(0.4)),
    (lambda: nn.Threshold(0.1, 0.0), lambda: nn.Threshold(0.4, 0.0)),
]
# Two ways of writing one function.
SAME = [
    (lambda: nn.ReLU6(), lambda: nn.Hardtanh(0, 6)),
    (lambda: nn.LeakyReLU(0.0), lambda: nn.ReLU()),
    (lambda: nn.ELU(1.0), lambda: nn.CELU(1.0)),
    (lambda: nn.Softshrink(0.0), lambda: nn.Identity()),
    (lambda: nn.RReLU(0.1, 0.3).eval(), lambda: nn.LeakyReLU(0.2)),
    (lambda: nn.PReLU(init=0.25), lambda: nn.LeakyReLU(0.25)),
]
ODD = [nn.Tanh, nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Hardtanh]


def net(make, *widths, seed=1, scale=1.0):
    made = mlp(*widths, activation=make, seed=seed).eval()
    with torch.no_grad():
        made[0].weight.mul_(scale)
    return made


@pytest.mark.parametrize("widths", [(2, 4, 1), (2, 4, 4, 1)], ids=["one", "two"])
@pytest.mark.parametrize(("make", "change"), OTHERS)
def test_other_options_are_other_functions(make, change, widths):
    ours, theirs = net(make, *widths), net(change, *widths)
    x = 3 * normal(200, 2)
    assert float((ours(x) - theirs(x)).detach().abs().max()) > 1e-5
    assert equivalent(ours, theirs).verdict != "equivalent"
    assert not canonical_form(ours).matches(canonical_form(theirs))
    order = [[2, 0, 3, 1]] * (len(widths) - 2)
    labels = equivalence_classes([ours, theirs, apply_symmetry(ours, permutation=order)])
    assert labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("widths", [(2, 4, 1), (2, 4, 4, 1)], ids=["one", "two"])
@pytest.mark.parametrize(("make", "change"), SAME)
def test_one_function_written_twice(make, change, widths):
    ours, theirs = net(make, *widths), net(change, *widths)
    x = 3 * normal(200, 2)
    assert float((ours(x) - theirs(x)).detach().abs().max()) < 1e-12
    assert equivalent(ours, theirs).verdict == "equivalent"
    assert canonical_form(ours).matches(canonical_form(theirs))


class Called(nn.Module):
    """A network that calls its activation as a function."""

    def __init__(self, function):
        super().__init__()
        self.first, self.last = nn.Linear(3, 5).double(), nn.Linear(5, 2).double()
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


@pytest.mark.parametrize(
    ("module", "function", "other"),
    [
        (nn.Hardtanh(-6, 6), lambda x: F.hardtanh(x, -6, 6), lambda x: F.hardtanh(x, -5, 6)),
        (nn.Hardtanh(-6, 6), lambda x: x.clamp(-6, 6), lambda x: x.clamp(max=6)),
        (nn.Hardtanh(-2, 2), lambda x: torch.clamp(x, min=-2, max=2), lambda x: x.clip(-2, 3)),
        (nn.ELU(0.5), lambda x: F.elu(x, 0.5), F.elu),
        (nn.Softplus(3), lambda x: F.softplus(x, beta=3), F.softplus),
        (nn.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh"), F.gelu),
        (nn.LeakyReLU(0.3), lambda x: F.leaky_relu(x, negative_slope=0.3), F.leaky_relu),
        (nn.Softshrink(0.2), lambda x: F.softshrink(x, 0.2), F.softshrink),
    ],
)
def test_functions_are_read_with_their_options(module, function, other):
    torch.manual_seed(0)
    called = Called(function)
    plain = nn.Sequential(called.first, module, called.last)
    changed = copy.deepcopy(called)
    changed.function = other
    form = canonical_form(plain)
    assert form.matches(canonical_form(called))
    assert equivalent(plain, called).verdict == "equivalent"
    assert not form.matches(canonical_form(changed))
    assert equivalent(plain, changed).verdict != "equivalent"


@pytest.mark.parametrize("widths", [(3, 5, 2), (3, 5, 4, 2)], ids=["one", "two"])
@pytest.mark.parametrize("make", ODD)
def test_signs_turn_under_odd_activations(make, widths):
    ours = net(make, *widths, scale=3.0)
    flips = [[(-1) ** (i // 2) for i in range(width)] for width in widths[1:-1]]
    theirs = apply_symmetry(ours, flips=flips)
    x = normal(100, 3)
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-12, atol=1e-12)
    report = equivalent(ours, theirs)
    assert report.verdict == "equivalent"
    assert [sign.tolist() for sign in report.flips] == flips
    assert canonical_form(ours).matches(canonical_form(theirs))


def test_a_clamp_from_zero_is_not_odd():
    ours = net(lambda: nn.Hardtanh(0, 6), 3, 5, 2)
    with pytest.raises(SkgeoError, match=r"hardtanh.* whose units can be permuted"):
        apply_symmetry(ours, flips=[-1, 1, 1, 1, 1])


@settings(max_examples=30, deadline=None)
@given(
    beta=st.floats(0.2, 4.0),
    change=st.floats(1.05, 2.0),
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(["softplus", "elu", "celu", "hardtanh", "leaky_relu"]),
)
def test_a_permuted_copy_is_equivalent_and_a_changed_option_is_not(beta, change, seed, kind):
    def make(value):
        return {
            "softplus": lambda: nn.Softplus(value),
            "elu": lambda: nn.ELU(value),
            "celu": lambda: nn.CELU(value),
            "hardtanh": lambda: nn.Hardtanh(-value, value / 2),
            "leaky_relu": lambda: nn.LeakyReLU(value / 8),
        }[kind]

    ours, theirs = (net(make(value), 2, 5, 1, seed=seed) for value in (beta, beta * change))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed)).tolist()
    assert equivalent(ours, apply_symmetry(ours, permutation=order)).verdict == "equivalent"
    assert equivalent(ours, theirs).verdict != "equivalent"
    assert not canonical_form(ours).matches(canonical_form(theirs))


def convolutions(**options):
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 3, 3, **options), nn.ReLU(), nn.Conv2d(3, 2, 1)).double()


CONVOLUTIONS = {
    "circular": {"padding": 1, "padding_mode": "circular"},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
    "dilation": {"padding": 2, "dilation": 2},
    "stride": {"padding": 1, "stride": 2},
    "padding": {},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("given", [False, True])
def test_what_convolutions_do_beside_their_weights(name, given):
    ours, theirs = convolutions(padding=1), convolutions(**CONVOLUTIONS[name])
    X = normal(16, 1, 8, 8) if given else None
    report = equivalent(ours, theirs, X)
    assert report.verdict == "different"
    assert report.difference > 0.1
    assert not canonical_form(ours).matches(canonical_form(theirs))
    assert len(set(equivalence_classes([ours, theirs], X).tolist())) == 2


def test_one_convolution_written_twice():
    ours, theirs = convolutions(padding=1), convolutions(padding="same")
    assert equivalent(ours, theirs).verdict == "equivalent"
    assert canonical_form(ours).matches(canonical_form(theirs))


def test_the_sum_of_both_slopes_is_what_a_reversal_leaves():
    # phi(-z) = phi(z) - (1 + s) z under a leaky rectifier.
    slope = 0.3
    ours = mlp(1, 2, 1, activation=lambda: nn.LeakyReLU(slope))
    with torch.no_grad():
        ours[0].weight.copy_(torch.tensor([[1.0], [1.0]]))
        ours[2].weight.copy_(torch.tensor([[2.0, -2.0]]))
    theirs = apply_symmetry(ours, flips=[-1, -1])
    x = normal(50, 1)
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-13, atol=1e-13)
    shift = (theirs[2].bias - ours[2].bias).detach()
    expected = (1 + slope) * (ours[2].weight @ ours[0].bias).detach()
    assert math.isclose(float(shift), float(expected), rel_tol=1e-12)


@pytest.mark.parametrize(
    ("make", "change", "scale", "far"),
    [
        (lambda: nn.Hardtanh(-50, 50), lambda: nn.Hardtanh(-60, 60), 1.0, 1e3),
        (lambda: nn.Hardtanh(-6, 6), lambda: nn.Hardtanh(-100, 100), 0.01, 1e5),
        (lambda: nn.Softplus(threshold=20), lambda: nn.Softplus(threshold=5), 1.0, 10.0),
        (lambda: nn.CELU(1.0), lambda: nn.CELU(1.5), 1.0, 10.0),
    ],
)
def test_functions_that_differ_far_away_only(make, change, scale, far):
    ours, theirs = net(make, 3, 5, 2, scale=scale), net(change, 3, 5, 2, scale=scale)
    x = far * normal(2000, 3)
    assert float((ours(x) - theirs(x)).detach().abs().max()) > 1e-4
    assert equivalent(ours, theirs).verdict != "equivalent"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeometryWarning)  # a pair may be undecided
        assert equivalence_classes([ours, theirs]).tolist() == [0, 1]
    assert not canonical_form(ours).matches(canonical_form(theirs))
