import itertools

import numpy as np
import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal
from skgeo import GeometryWarning, RankAmbiguityWarning
from skgeo.datasets import known_networks, planted_relu
from skgeo.symmetry import nullity_account

KNOWN = known_networks()


@pytest.mark.parametrize("name", KNOWN)
def test_every_flat_direction_of_the_known_networks_has_a_name(name):
    case = KNOWN[name]
    account = nullity_account(case.module, case.inputs, likelihood=case.likelihood)
    assert account.fisher_rank == case.fisher_rank
    assert account.explained == case.fisher_nullity
    assert account.unexplained == 0


def planted(seed, n=2, d=4, k=3, slope=0.0):
    """A ReLU network with a same-side pair, an opposite pair, a silent and a constant unit."""
    act = nn.ReLU if slope == 0 else lambda: nn.LeakyReLU(slope)
    net = mlp(n, d + 5, k, activation=act, seed=seed)
    w, b, q = net[0].weight, net[0].bias, net[2].weight
    with torch.no_grad():
        w[1], b[1] = 2 * w[0], 2 * b[0]
        w[3], b[3] = -0.5 * w[2], -0.5 * b[2]
        q[:, 4] = 0
        w[5], b[5] = 0.0, 0.7
        w[6], b[6] = 3 * w[0], 3 * b[0]
        q[:, 6] = -2 * q[:, 0]
        w[7], b[7], q[:, 7] = -w[0], -b[0], 0.0
    return net, 3 * normal(1500, n, seed=seed + 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_several_degeneracies_at_once(seed, k, slope):
    net, X = planted(seed, k=k, slope=slope)
    account = nullity_account(net, X, likelihood="gaussian")
    assert account.unexplained == 0
    assert account.nullity > net[0].out_features


def random_degeneracies(seed):
    """A network of one hidden layer, every second unit with some degeneracy, and wide data."""
    rng = np.random.default_rng(seed)
    n, d, k = int(rng.integers(1, 4)), int(rng.integers(1, 9)), int(rng.integers(1, 4))
    activation = nn.ReLU if rng.random() < 0.7 else lambda: nn.LeakyReLU(0.2)
    categorical = k > 1 and rng.random() < 0.4
    net = mlp(n, d, k, activation=activation, seed=seed)
    w, b, q = net[0].weight, net[0].bias, net[2].weight
    with torch.no_grad():
        for i in range(d):
            kind, j, factor = rng.integers(12), int(rng.integers(d)), float(rng.uniform(0.5, 3))
            if kind <= 1 and j != i:  # on the same side of another unit's boundary, or not
                factor = factor if kind == 0 else -factor
                w[i], b[i] = factor * w[j], factor * b[j]
            elif kind == 2:
                q[:, i] = 0.0
            elif kind == 3:
                w[i] = 0.0
            elif kind == 4 and j != i:
                q[:, i] = (factor - 1.5) * q[:, j]
            elif kind == 5 and not categorical:  # a softmax would saturate
                b[i] = float(rng.choice([-100.0, 100.0]))
    if rng.random() < 0.2:
        net[0].bias = None
    if rng.random() < 0.2:
        net[2].bias = None
    likelihood = "categorical" if categorical else "gaussian"
    return net, 4 * normal(1500, n, seed=seed + 1000), likelihood


@pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")  # some are constant
@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_left_over_in_one_hidden_layer(seed):
    net, X, likelihood = random_degeneracies(seed)
    account = nullity_account(net, X, likelihood=likelihood)
    assert account.unexplained == 0


@pytest.mark.parametrize(
    ("change", "rank"), [("generic", 23), ("duplicate", 20), ("opposite", 23), ("parallel", 22)]
)
def test_counts_for_three_outputs(change, rank):
    net = mlp(2, 4, 3, activation=nn.ReLU, seed=3)
    w, b, q = net[0].weight, net[0].bias, net[2].weight
    with torch.no_grad():
        if change != "generic":
            sign = 2 if change == "duplicate" else -2
            w[1], b[1] = sign * w[0], sign * b[0]
        if change == "parallel":
            q[:, 1] = -3 * q[:, 0]
    account = nullity_account(net, 3 * normal(1500, 2), likelihood="gaussian")
    assert (account.n_parameters, account.fisher_rank) == (27, rank)
    assert account.unexplained == 0


OPTIONS = {
    "softplus": nn.Softplus,
    "softplus_3": lambda: nn.Softplus(3),
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "elu_2": lambda: nn.ELU(2.0),
    "celu": lambda: nn.CELU(0.2),
    "selu": nn.SELU,
    "hardtanh": lambda: nn.Hardtanh(-0.8, 1.2),
    "relu6": nn.ReLU6,
    "softshrink": lambda: nn.Softshrink(0.3),
    "hardswish": nn.Hardswish,
    "prelu_units": lambda: nn.PReLU(5),
}


def stretched(*widths, **options):
    """A network whose units meet all kinks of their activation on normal data, which it returns."""
    net = mlp(*widths, **options)
    with torch.no_grad():
        net[0].weight *= 8
    return net, 3 * normal(600, widths[0])


@pytest.mark.parametrize("bias", [0.4, -0.7])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_constant_unit_trades_with_its_own_activation(name, bias):
    """Its bias against the next one, at the slope of the function with its options."""
    net, X = stretched(3, 5, 2, activation=OPTIONS[name], seed=1)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = 0.0, bias
    for parameter in net[1].parameters():
        parameter.requires_grad_(False)
    account = nullity_account(net, X, likelihood="gaussian")
    assert account.unexplained == 0
    assert account.explained >= 3  # its bias, and two outgoing weights


@pytest.mark.parametrize(
    "activation",
    [
        nn.Tanh, nn.Softsign, nn.Tanhshrink, nn.Hardtanh, lambda: nn.Hardtanh(-2, 2),
        nn.Softshrink,
    ],
)  # fmt: skip
def test_a_unit_and_its_negative_are_duplicates_of_odd_activations(activation):
    net, X = stretched(3, 5, 2, activation=activation, seed=2)
    with torch.no_grad():
        net[0].weight[3], net[0].bias[3] = -net[0].weight[0], -net[0].bias[0]
    account = nullity_account(net, X, likelihood="gaussian")
    assert account.generators.dimensions == {"duplicate": 2}
    assert account.unexplained == 0


@pytest.mark.parametrize(
    ("activation", "explained", "unexplained"),
    # The two equal units trade outgoing weights. Under an odd function all three do, and incoming
    # ones too, by the one relation among their outgoing weights; rectifiers scale, and trade what
    # is affine by that relation. Clamps share kinks in a way that has no name.
    [
        (nn.ReLU6, 2, 1),
        (lambda: nn.Hardtanh(0, 6), 2, 1),
        (nn.Hardtanh, 4 + 4, 0),
        (nn.ReLU, 2 + 5 + 1, 0),
    ],
)
def test_the_order_of_units_does_not_matter(activation, explained, unexplained):
    """Two equal units and their negative, in any order, beside two others."""
    for order in itertools.permutations(range(3)):
        net, X = stretched(3, 5, 2, activation=activation, seed=1)
        w, b = net[0].weight, net[0].bias
        with torch.no_grad():
            signs = torch.tensor([1.0, -1.0, -1.0])[list(order)]
            w[:3], b[:3] = signs[:, None] * w[0].clone(), signs * b[0].clone()
        account = nullity_account(net, X, likelihood="gaussian")
        assert (account.explained, account.unexplained) == (explained, unexplained)


def test_two_names_of_one_function_count_alike():
    accounts = []
    for activation in (nn.ReLU6, lambda: nn.Hardtanh(0, 6)):
        net, X = stretched(3, 4, 2, activation=activation, seed=1)
        with torch.no_grad():
            for i in (1, 2):
                net[0].weight[i], net[0].bias[i] = -net[0].weight[0], -net[0].bias[0]
        accounts.append(nullity_account(net, X, likelihood="gaussian"))
    relu6, hardtanh = accounts
    assert relu6.fisher_rank == hardtanh.fisher_rank
    # The two negatives trade outgoing weights, and no incoming ones: those are not parallel.
    assert relu6.generators.dimensions == hardtanh.generators.dimensions == {"duplicate": 2}


@pytest.mark.parametrize(
    ("activation", "shift"),
    [
        (nn.ReLU, -90.0), (nn.ReLU6, -90.0), (nn.ReLU6, 90.0), (nn.Hardtanh, 90.0),
        (lambda: nn.Hardtanh(-1, 4), -90.0), (lambda: nn.Hardtanh(1, 4), -90.0),
        (lambda: nn.Softshrink(0.5), None), (nn.SELU, -900.0),
    ],
)  # fmt: skip
def test_units_that_are_flat_on_the_data(activation, shift):
    """Incoming weights and the bias do nothing, outgoing ones raise the next bias at most."""
    net, X = stretched(3, 5, 2, activation=activation, seed=1)
    with torch.no_grad():
        if shift is None:  # within the flat piece around zero
            net[0].weight[1] *= 1e-3
            net[0].bias[1] = 0.1
        else:
            net[0].bias[1] += shift
    account = nullity_account(net, X, likelihood="gaussian")
    (flat,) = {row.units for row in account.generators.table if row.symmetry == "dead"}
    assert flat == (1,)
    assert account.unexplained == 0


def test_dead_units_behind_a_batch_norm():
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    net = net.double().eval()
    with torch.no_grad():
        net[1].bias[0] = -50.0
        net[3].weight[:, 1] = 0.0
    account = nullity_account(net, 3 * normal(300, 3), likelihood="gaussian")
    # Of each: three weights, two biases and a gain: six, of which three trade with the norm anyway.
    dimensions = account.generators.dimensions
    assert (dimensions["batchnorm"], dimensions["no_output"]) == (10, 3)
    assert account.unexplained == 0


def test_slopes_of_single_units_tell_them_apart():
    """Two units of one boundary are duplicates if their slopes below it are the same."""
    net = mlp(3, 4, 2, activation=lambda: nn.PReLU(4), seed=1)
    with torch.no_grad():
        for i in (1, 2):
            net[0].weight[i], net[0].bias[i] = 2 * net[0].weight[0], 2 * net[0].bias[0]
        net[1].weight.copy_(torch.tensor([0.2, 0.2, 0.5, 0.2]))
    net[1].weight.requires_grad_(False)
    account = nullity_account(net, 3 * normal(300, 3), likelihood="gaussian")
    assert account.unexplained == 0
    assert {"duplicate", "affine"} <= set(account.generators.dimensions)


@pytest.mark.parametrize("clamp", [{"max": 0.0}, {"min": 0.0}])
def test_clamps_at_zero_are_rectifiers(clamp):
    class Clamped(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = mlp(2, 4, 1, seed=1)[::2]

        def forward(self, x):
            return self.second(self.first(x).clamp(**clamp))

    net = Clamped()
    with torch.no_grad():
        net.first.weight[1], net.first.bias[1] = -2 * net.first.weight[0], -2 * net.first.bias[0]
    account = nullity_account(net, 3 * normal(400, 2), likelihood="gaussian")
    assert account.generators.dimensions == {"scaling": 4, "affine": 1}
    assert account.unexplained == 0


def test_units_that_are_on_or_off_on_the_data():
    net = mlp(3, 6, 2, activation=nn.ReLU, seed=1)
    with torch.no_grad():
        net[0].bias[:2] = 90.0
        net[0].bias[2] = -90.0
    account = nullity_account(
        net, 3 * normal(400, 3), likelihood="gaussian"
    )  # wide: the other units see both sides
    assert account.unexplained == 0
    assert account.generators.dimensions["dead"] > 0
    assert account.generators.dimensions["affine"] > 0


def test_deep_networks_may_hide_more():
    net = mlp(3, 5, 4, 2, activation=nn.ReLU, seed=2)
    account = nullity_account(net, 3 * normal(600, 3), likelihood="gaussian")
    assert account.generators.dimensions["scaling"] == 9
    assert account.unexplained >= 0


def test_what_lacks_data_is_not_unexplained():
    net = mlp(10, 20, 3)
    with pytest.warns(RankAmbiguityWarning, match="Fisher rank 40 is the number of rows"):
        few = nullity_account(net, normal(20, 10), likelihood="categorical")
    # The 21 shifts of the logits are explained: by one feature each, and by the bias.
    assert (few.nullity, few.explained, few.unexplained, few.sample_limited) == (243, 21, 0, 222)
    assert repr(few).endswith("21 explained, 0 unexplained, 222 for lack of data)")
    enough = nullity_account(net, normal(200, 10), likelihood="categorical")
    assert (enough.fisher_rank, enough.unexplained, enough.sample_limited) == (262, 0, 0)
    assert "lack of data" not in repr(enough)


def test_few_samples_that_are_alike_are_warned_of():
    X = normal(10, 10)[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9]]
    with pytest.warns(GeometryWarning, match="24 rows, fewer than the 262 .* may only lack data"):
        found = nullity_account(mlp(10, 20, 3), X, likelihood="categorical")
    assert (found.fisher_rank, found.unexplained, found.sample_limited) == (20, 242, 0)


def test_float32_networks_are_measured_in_float64():
    case = planted_relu("duplicate")
    account = nullity_account(case.module.float(), case.inputs.float(), likelihood="gaussian")
    assert (account.fisher_rank, account.unexplained) == (10, 0)


def test_rounded_copies_are_listed_with_how_flat_they_are():
    """A third of a unit in float32 is a multiple of it up to rounding only."""
    case = planted_relu("duplicate")
    module = case.module.float()
    with torch.no_grad():
        module[0].weight[1], module[0].bias[1] = module[0].weight[0] / 3, module[0].bias[0] / 3
    account = nullity_account(module, case.inputs, likelihood="gaussian")
    # Incoming weights trade exactly, since no sample is between the two boundaries; outgoing ones
    # trade up to rounding.
    assert account.generators.dimensions == {"scaling": 4, "duplicate": 3}
    assert account.unexplained == 0
    (dropped,) = account.generators.dropped
    assert (dropped.symmetry, dropped.units) == ("duplicate", (0, 1))
    assert 1e-10 < dropped.residual < 1e-7


def test_large_matrices_are_skipped_with_a_warning():
    case = KNOWN["one_hidden_relu"]
    with pytest.warns(GeometryWarning, match="26 rows on its smaller side, above the limit of 20"):
        account = nullity_account(case.module, case.inputs, limit=20, likelihood="gaussian")
    assert account.explained == 4
    assert account.fisher_rank != account.fisher_rank
    assert account.unexplained != account.unexplained
