"""Derivatives that are zero have rank 0, and small ones have their rank."""

import copy

import pytest
import torch
from torch import nn

from skgeo.chain import JacobianChainProfiler
from skgeo.exceptions import SkgeoError
from skgeo.fisher import fisher_rank, fisher_spectrum, fisher_trace, ntk
from skgeo.fisher._rows import FisherRows
from skgeo.network._bound import bind
from skgeo.network._noise import relative_errors
from skgeo.quotient import layer_spectra

pytestmark = pytest.mark.filterwarnings(
    "ignore::skgeo.exceptions.GeometryWarning", "ignore::skgeo.exceptions.RankAmbiguityWarning"
)
DTYPES = (torch.float64, torch.float32)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Standardised(nn.Module):
    """Weights of mean zero, fed with ones: their sum is zero for any weights."""

    def __init__(self):
        super().__init__()
        self.w, self.o = nn.Parameter(torch.randn(4, 30)), nn.Linear(4, 2)

    def forward(self, x):
        w = self.w - self.w.mean(1, keepdim=True)
        w = w / w.std(1, keepdim=True)
        ones = torch.ones(len(x), 30, dtype=w.dtype)
        return self.o(torch.tanh(ones @ w.T) + x[:, :4])


def total():
    return Function(lambda h: h.sum(-1, keepdim=True))


# Networks, the shape of their samples, layers that the outputs do not depend on, parameters too.
ZERO = {
    "instance norm and mean": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3),
            nn.Tanh(),
            nn.InstanceNorm2d(2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2, 3),
        ),
        (1, 6, 6),
        ["0", "1"],
        ["0.weight", "0.bias", "5.weight"],
    ),
    "layer norm and sum": (
        lambda: nn.Sequential(
            nn.Linear(5, 20),
            nn.Tanh(),
            nn.LayerNorm(20, elementwise_affine=False),
            total(),
            nn.Linear(1, 3),
        ),
        (5,),
        ["0", "1"],
        ["0.weight", "0.bias", "4.weight"],
    ),
    "softmax and sum": (
        lambda: nn.Sequential(nn.Linear(5, 20), nn.Softmax(-1), total(), nn.Linear(1, 3)),
        (5,),
        ["0"],
        ["0.weight", "0.bias"],
    ),
    "difference of equals": (
        lambda: nn.Sequential(
            nn.Linear(5, 20), nn.Tanh(), Function(lambda h: h - h), nn.Linear(20, 3)
        ),
        (5,),
        ["0", "1"],
        ["0.weight", "0.bias", "3.weight"],
    ),
    "difference in another order": (
        lambda: nn.Sequential(
            nn.Linear(5, 20),
            nn.Tanh(),
            Function(lambda h: h.sum(1, keepdim=True) - h.flip(1).cumsum(1)[:, -1:]),
            nn.Linear(1, 3),
        ),
        (5,),
        ["0", "1"],
        ["0.weight", "0.bias"],
    ),
    "standardised weights": (Standardised, (5,), [], ["w"]),
}


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ZERO)
def test_a_zero_derivative_has_rank_zero(name, dtype, likelihood):
    make, shape, layers, parameters = ZERO[name]
    torch.manual_seed(0)
    net, X = make().to(dtype), torch.randn(8, *shape).to(dtype)
    for parameter in parameters:
        options = {"likelihood": likelihood, "parameters": [parameter]}
        assert fisher_rank(net, X, **options).rank == 0
        for solver in ("gram", "parameter"):
            found = fisher_spectrum(net, X, solver=solver, **options)
            assert (found.rank, found.trace) == (0, 0.0)
    if layers:
        for batch_size in (3, 8):
            for found in layer_spectra(
                net, X, layers=layers, likelihood=likelihood, batch_size=batch_size
            ):
                assert found.ranks.tolist() == [0] * 8, found.layer.name
                assert found.common.rank == 0


def test_long_sums_that_cancel_are_zero():
    """A sum of hundreds of terms leaves more than a unit of rounding."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, 300), nn.Tanh(), nn.LayerNorm(300, bias=False), total(), nn.Linear(1, 3)
    )
    for found in layer_spectra(net, torch.randn(8, 5), layers=["0", "1"], likelihood="gaussian"):
        assert found.ranks.tolist() == [0] * 8


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_logits_alike_are_no_rank(dtype):
    """A softmax does not see what all logits share."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, 6),
        nn.Tanh(),
        nn.Linear(6, 1),
        Function(lambda h: h + h.new_tensor([0.0, 0.3, -1.0])),
    ).to(dtype)
    X = torch.randn(8, 5).to(dtype)
    assert fisher_rank(net, X, likelihood="categorical").rank == 0
    found = layer_spectra(net, X, layers=["0", "1", "2"], likelihood="categorical")
    assert [(int(s.ranks.max()), s.common.rank) for s in found] == [(0, 0)] * 3


def small(scale, *, depth=2):
    inner = [m for _ in range(depth) for m in (nn.Linear(20, 20), nn.Tanh())]
    net = nn.Sequential(nn.Linear(5, 20), nn.Tanh(), *inner, nn.Linear(20, 3))
    for parameter in net.parameters():
        parameter.data *= scale
    return net


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0])
@pytest.mark.parametrize("depth", [1, 20])
def test_a_small_derivative_has_its_rank(scale, depth, dtype):
    if scale ** (2 * depth) < 1e-30:
        scale = 10 ** (-30 / (2 * depth))  # squares must stay in the range of float64
    torch.manual_seed(0)
    net, X = small(scale, depth=depth).to(dtype), torch.randn(8, 5).to(dtype)
    for found in layer_spectra(net, X, layers=["0", "1", "2"], likelihood="gaussian"):
        assert found.ranks.tolist() == [3] * 8
    assert fisher_rank(net, X, likelihood="gaussian", parameters=["0.bias"]).rank >= 3


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gap", [30.0, 80.0])
def test_saturated_outputs_have_their_rank(gap, dtype):
    """Probabilities of exp(-80) leave a metric of that size and not a zero one."""
    torch.manual_seed(0)
    net, X = nn.Linear(4, 2).to(dtype), torch.randn(8, 4).to(dtype)
    net.bias.data = torch.tensor([gap, -gap], dtype=dtype) / 2
    assert fisher_rank(net, X, likelihood="categorical", parameters=["bias"]).rank == 1
    hidden = nn.Sequential(
        nn.Linear(4, 2), net[0] if isinstance(net, nn.Sequential) else nn.Linear(2, 2)
    )
    hidden[1].bias.data = net.bias.data
    hidden = hidden.to(dtype)
    (found,) = layer_spectra(hidden, X, layers=["0"], likelihood="categorical")
    assert found.ranks.tolist() == [1] * 8


def test_a_difference_that_is_left_by_eps_has_its_rank():
    """A normalisation of (a, -a) gives plus and minus one, with the derivative eps / a^3."""
    net = nn.Sequential(nn.LayerNorm(2, bias=False), nn.Linear(2, 1, bias=False))
    net[1].weight.data = torch.tensor([[0.5, -0.5]])
    a = torch.linspace(1.0, 2.0, 13)
    X = torch.stack([a, -a], 1) + 0.1
    first = nn.Sequential(nn.Identity(), *net)
    (found,) = layer_spectra(first, X, layers=["0"], likelihood="gaussian")
    assert found.ranks.tolist() == [1] * 13
    exact = net[0].eps / (a.double() ** 2 + net[0].eps) ** 1.5 / 2**0.5
    torch.testing.assert_close(found.eigenvalues[:, 0].sqrt(), exact, rtol=0.1, atol=0.0)


def test_squares_below_the_range_of_float32_are_no_zeros():
    """The tail of a softmax at distance z has a metric of exp(-z)."""
    net = nn.Sequential(nn.Identity(), nn.Linear(2, 2, bias=False))
    net[1].weight.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    X = torch.tensor([[20.0], [120.0], [150.0]]).expand(3, 2) / 2
    (found,) = layer_spectra(net, X, layers=["0"], likelihood="categorical")
    assert found.ranks.tolist() == [1, 1, 1]
    exact = 2 * torch.exp(-X.double().sum(1))
    torch.testing.assert_close(found.eigenvalues[:, 0], exact, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kinks_and_ties_are_no_rounding(dtype):
    torch.manual_seed(0)
    tied = nn.Sequential(
        nn.Linear(5, 4, bias=False),
        Function(lambda h: 1e-9 * torch.stack([h, h], 1)),
        Function(lambda h: h.max(1).values),
        nn.Linear(4, 2),
    ).to(dtype)
    found = layer_spectra(tied, torch.randn(8, 5).to(dtype), layers=["0"], likelihood="gaussian")
    assert found[0].ranks.tolist() == [2] * 8


@pytest.mark.parametrize("name", ["instance norm and mean", "layer norm and sum"])
def test_a_chain_to_the_output_ends_in_rank_zero(name):
    make, shape, layers, _ = ZERO[name]
    torch.manual_seed(0)
    profile = JacobianChainProfiler(make().double(), chain="output").fit(torch.randn(6, *shape))
    ranks = profile.profile_.set_index("layer")["rank"]
    assert ranks[layers].tolist() == [0, 0]


def amplifying():
    """A normalisation over two numbers gives plus and minus one, up to its eps."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 2), nn.LayerNorm(2), nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3)
    )


def test_amplified_rounding_is_no_rank():
    net, X = amplifying(), torch.randn(20, 4)
    twin = copy.deepcopy(net).double()
    found = fisher_rank(net, X, likelihood="gaussian")
    exact = fisher_spectrum(twin, X.double(), likelihood="gaussian").eigenvalues
    most, least = (int((exact > c * found.tol * exact[0]).sum()) for c in (0.01, 100))
    assert least <= found.rank <= most
    (single,) = layer_spectra(net, X, layers=["0"], likelihood="gaussian")
    (double,) = layer_spectra(twin, X.double(), layers=["0"], likelihood="gaussian")
    assert int(double.ranks.max()) == 1
    assert bool((single.ranks <= double.ranks).all())
    values = single.eigenvalues
    assert bool((values[:, 1] > 1e-12 * values[:, 0]).any())  # beyond the errors of the arithmetic


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_ordinary_network_keeps_its_tolerance(dtype):
    """Rounding that nothing amplifies is far below the resolution of squares in float64."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).to(dtype)
    X = torch.randn(30, 6).to(dtype)
    fisher = FisherRows(bind(net, X, likelihood="categorical"))
    assert 0 < fisher.error() < 20 * torch.finfo(dtype).eps


def test_terms_that_cancel_exactly_settle_nothing():
    """A sum that is zero by chance, and not with any other rounding, has no relative error of 0."""
    terms = torch.tensor([[3.0, -1.0, -2.0], [1.0, 1.0, -2.0]])
    assert relative_errors(lambda: {"": (1.0 * terms).sum(1, keepdim=True)}) == {"": 1.0}
    assert relative_errors(lambda: {"": 0.0 * terms}) == {"": 0.0}


def test_the_largest_of_several_numbers_is_not_rounded():
    """The backward pass of a maximum divides by the number of entries that equal it."""
    net = nn.Sequential(nn.Linear(4, 6), Function(lambda h: h.amax(1, keepdim=True)))
    fisher = FisherRows(bind(net, torch.randn(8, 4), likelihood="gaussian"))
    assert 0 < fisher.error() < 20 * torch.finfo(torch.float32).eps


class Largest(nn.Module):
    def forward(self, x):
        return x.amax(2, keepdim=True)


@pytest.mark.parametrize("measure", [fisher_rank, fisher_spectrum, fisher_trace, ntk])
def test_an_overwritten_tensor_gets_one_sentence(measure):
    net = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Sigmoid(), Largest(), nn.ReLU(inplace=True))
    net = nn.Sequential(*net, nn.Flatten(), nn.Linear(2, 3))
    with pytest.raises(SkgeoError, match="operation in place overwrites"):
        measure(net, torch.randn(8, 2, 5), **({} if measure is ntk else {"likelihood": "gaussian"}))
