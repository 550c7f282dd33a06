import warnings
from itertools import pairwise

import pytest
import torch
from torch import nn

from helpers.planted import Planter, as_module, evaluate
from skgeo import SkgeoError, WrappedModel
from skgeo.exceptions import GeometryWarning
from skgeo.symmetry import (
    apply_symmetry,
    canonical_form,
    compress,
    equivalence_classes,
    equivalent,
    hinge_form,
    match_networks,
    minimal_width,
)

N_PLANTED = 200
ACTIVATIONS = {nn.ReLU: torch.relu, nn.Tanh: torch.tanh}


def deep(plant, widths, activation=nn.ReLU, dtype=torch.float64):
    layers = []
    for n, d in pairwise(widths):
        layer = nn.Linear(n, d).double()
        with torch.no_grad():
            layer.weight.copy_(plant.normal(d, n) / n**0.5)
            layer.bias.copy_(plant.normal(d) / 2)
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def plant_superfluous(module, i, factor):
    """Of the units of one layer, five that can go: equal, unread, constant, and two that cancel."""
    into, out = module[i], module[i + 2]
    with torch.no_grad():
        into.weight[1], into.bias[1] = factor * into.weight[0], factor * into.bias[0]
        out.weight[:, 2] = 0
        into.weight[3] = 0
        into.weight[5], into.bias[5] = into.weight[4], into.bias[4]
        out.weight[:, 5] = -out.weight[:, 4]


def gap(a, b, x):
    with torch.no_grad():
        return float((a(x) - b(x)).abs().max())


def test_relu_networks_come_back_at_their_width_200_of_200():
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        d, n, k = plant.sizes()
        small = plant.network(d, n, k)
        large = as_module(plant.disguise(*plant.degenerate(*plant.split(*small))))
        report = compress(large)
        assert report.widths == (d,)
        assert report.optimal
        x = 3 * plant.normal(200, n)
        torch.testing.assert_close(report.module(x), evaluate(small, x), rtol=1e-10, atol=1e-10)
        assert report.error <= 1e-10
        assert gap(large, report.module, x) <= report.error_bound * (1 + float(x.norm(dim=1).max()))


def test_tanh_networks_come_back_at_their_width_200_of_200():
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        d, n, k = plant.sizes()
        w, b, q, c = plant.network(d, n, k)
        sign = torch.where(plant.normal(d) > 0, 1.0, -1.0).double()
        share = plant.uniform(d)
        twice = (
            torch.cat([w, sign[:, None] * w, torch.zeros(1, n).double(), w[:1]]),
            torch.cat([b, sign * b, torch.ones(1).double(), b[:1]]),
            torch.cat([q * share, q * (1 - share) * sign, q[:, :1], 0 * q[:, :1]], dim=1),
            c,
        )
        report = compress(as_module(twice, nn.Tanh))
        assert (report.widths, report.optimal) == ((d,), True)
        x = 3 * plant.normal(100, n)
        with torch.no_grad():
            error = report.module(x) - evaluate(twice, x, torch.tanh)
        assert float(error.abs().max()) <= 1e-10


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.LeakyReLU, nn.Sigmoid])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_deep_networks_layer_by_layer(activation, dtype):
    plant = Planter(1)
    module = deep(plant, [4, 11, 10, 3], activation, dtype)
    factor = {nn.ReLU: 2.5, nn.LeakyReLU: 0.5, nn.Tanh: -1.0, nn.Sigmoid: 1.0}[activation]
    plant_superfluous(module, 0, factor)
    plant_superfluous(module, 2, factor)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    report = compress(module)
    assert report.widths_before == (11, 10)
    assert report.widths == (6, 5)
    assert report.layers == ("0", "2")
    assert not report.optimal
    x = 3 * plant.normal(500, 4)
    limit = 1e-10 if dtype == torch.float64 else 1e-5
    assert gap(module, report.module, x.to(dtype)) <= limit
    assert report.error <= limit
    assert {len(m.weight) for m in report.module if isinstance(m, nn.Linear)} == {6, 5, 3}
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.data_ptr() not in {p.data_ptr() for p in report.module.parameters()}


def test_the_map_of_units():
    plant = Planter(2)
    module = deep(plant, [3, 8, 2])
    plant_superfluous(module, 0, 2.5)
    report = compress(module)
    assert report.units[0].tolist() == [0, 0, -1, -1, -1, -1, 1, 2]


@pytest.mark.parametrize("widths", [[3, 40, 2], [3, 40, 30, 2]])
def test_on_a_domain_more_goes_and_the_report_says_what_it_costs_elsewhere(widths):
    plant = Planter(3)
    module = deep(plant, widths)
    with torch.no_grad():
        for layer in module[::2][:-1]:
            layer.bias.mul_(8)
    X = plant.normal(200, 3)
    everywhere = compress(module, X=X)
    box, data = (compress(module, X=X, domain=d) for d in ("box", "data"))
    assert everywhere.widths == tuple(widths[1:-1])
    assert sum(data.widths) < sum(box.widths) < sum(everywhere.widths)
    low, high = X.amin(0), X.amax(0)
    inside = low + plant.uniform(5000, 3) * (high - low)
    assert gap(module, box.module, inside) <= 1e-10
    assert gap(module, data.module, X) <= 1e-10
    for report in (box, data):
        assert report.error <= 1e-10
        assert report.error_outside > 0.1
    assert data.error_bound == data.error
    if len(widths) == 3:
        assert gap(module, box.module, inside) <= box.error_bound <= 1e-10
    assert everywhere.error_outside != everywhere.error_outside


def test_one_output_on_a_box_is_narrowed_to_the_least():
    plant = Planter(4)
    module = deep(plant, [2, 30, 1])
    with torch.no_grad():
        module[0].bias.mul_(10)
    X = plant.normal(300, 2)
    report = compress(module, X=X, domain="box")
    low, high = X.amin(0), X.amax(0)
    w, b = module[0].weight.detach(), module[0].bias.detach()
    middle, half = (low + high) / 2, (high - low) / 2
    crossing = (w @ middle + b).abs() < w.abs() @ half
    assert report.optimal
    assert report.widths == (int(crossing.sum()) + 1,)


def test_seed_case_4_is_the_zero_function_on_its_domain():
    module = as_module(tuple(torch.tensor(v).double() for v in ([[-1.0]], [-3.0], [[5.0]], [0.0])))
    X = torch.tensor([[-2.0], [2.0]]).double()
    report = compress(module, X=X, domain="box")
    assert (report.widths, report.optimal, report.error) == ((0,), True, 0.0)
    assert report.module(X).tolist() == [[0.0], [0.0]]
    assert compress(module).widths == (1,)


def test_leaky_units_on_a_box_share_their_linear_part():
    plant = Planter(5)
    module = deep(plant, [3, 30, 2], nn.LeakyReLU)
    with torch.no_grad():
        module[0].bias.mul_(10)
    X = plant.normal(100, 3)
    report = compress(module, X=X, domain="box")
    w, b = module[0].weight.detach(), module[0].bias.detach()
    middle, half = (X.amin(0) + X.amax(0)) / 2, (X.amax(0) - X.amin(0)) / 2
    crossing = int(((w @ middle + b).abs() < w.abs() @ half).sum())
    assert report.widths == (crossing + 2,)  # two outputs: a linear part of rank 2
    assert crossing < 25
    assert report.error <= 1e-10


def test_networks_without_biases_get_one_where_it_is_needed():
    module = nn.Sequential(
        nn.Linear(2, 3, bias=False), nn.Sigmoid(), nn.Linear(3, 1, bias=False)
    ).double()
    with torch.no_grad():
        module[0].weight[1] = 0
    report = compress(module)
    assert report.widths == (2,)
    assert report.module[2].bias is not None
    assert report.module[0].bias is None
    assert report.error <= 1e-15


def test_a_forward_of_its_own_and_inputs_of_another_shape():
    plant = Planter(10)
    module = nn.ModuleDict({"chain": nn.Sequential(nn.Flatten(), *deep(plant, [6, 9, 2]))})
    plant_superfluous(module["chain"], 1, 2.5)
    X = plant.normal(20, 2, 3)
    report = compress(WrappedModel(module, forward=lambda m, x: m["chain"](x)), X=X, domain="box")
    assert report.widths == (4,)
    assert gap(module["chain"], report.module["chain"], X) <= 1e-10
    assert report.error <= 1e-10 < report.error_outside + 1


def test_units_with_activations_of_their_own_are_left_alone():
    plant = Planter(11)
    module = deep(plant, [3, 9, 2], lambda: nn.PReLU(9).double())
    plant_superfluous(module, 0, 1.0)
    with torch.no_grad():
        module[1].weight.copy_(plant.uniform(9))
    assert compress(module).widths == (9,)


def test_nothing_to_do():
    plant = Planter(6)
    module = deep(plant, [5, 12, 12, 3])
    report = compress(module)
    assert (report.widths, report.error) == ((12, 12), 0.0)
    linear = compress(nn.Linear(3, 2))
    assert (linear.widths, linear.optimal) == ((), True)


def test_the_curve_is_exact_at_the_rank_and_greedy_below():
    plant = Planter(7)
    module = deep(plant, [4, 12, 2], nn.Tanh)
    plant_superfluous(module, 0, 1.0)
    X = plant.normal(400, 4)
    report = compress(module, exact=False, X=X)
    by_width = {point.width: point for point in report.curve}
    assert set(by_width) == set(range(13))
    for width in range(7, 13):
        assert by_width[width].max_error < 1e-5  # five of twelve are superfluous
    errors = [by_width[width].rms_error for width in range(12, -1, -1)]
    assert all(a <= b + 1e-9 for a, b in pairwise(errors))
    assert by_width[6].rms_error > 1e-4
    # Width 0 leaves the mean.
    with torch.no_grad():
        spread = module(X) - module(X).mean(0)
    assert by_width[0].rms_error == pytest.approx(float(spread.square().mean().sqrt()))
    assert "greedy" not in str(report)


def test_the_first_step_of_the_curve_is_the_best_single_unit():
    plant = Planter(8)
    module = deep(plant, [3, 6, 2])
    X = plant.normal(200, 3)
    curve = compress(module, exact=False, X=X).curve
    with torch.no_grad():
        hidden = torch.cat([module[:2](X), torch.ones(200, 1).double()], dim=1)
        outputs = module(X)
    errors = []
    for i in range(6):
        kept = hidden[:, [j for j in range(7) if j != i]]
        fit = kept @ torch.linalg.lstsq(kept, outputs).solution
        errors.append(float((fit - outputs).square().mean().sqrt()))
    point = next(p for p in curve if p.width == 5)
    assert point.rms_error == pytest.approx(min(errors), rel=1e-5)
    assert set(range(6)) - set(point.units.tolist()) == {errors.index(min(errors))}


def test_bad_input():
    plant = Planter(9)
    module = deep(plant, [3, 5, 2])
    with pytest.raises(SkgeoError, match="Pass X"):
        compress(module, domain="data")
    with pytest.raises(SkgeoError, match="Pass X"):
        compress(module, exact=False)
    with pytest.raises(SkgeoError, match="None, 'box' or 'data'"):
        compress(module, domain="ball", X=plant.normal(5, 3))
    with pytest.raises(SkgeoError, match="reads 3 numbers"):
        compress(module, X=plant.normal(5, 4))
    with pytest.raises(SkgeoError, match="plain chain"):
        compress(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)))
    with torch.no_grad():
        module[0].weight[0, 0] = float("nan")
    with pytest.raises(SkgeoError, match="NaN"):
        compress(module)


MAKE = {
    "softplus 5": lambda: nn.Softplus(beta=5),
    "softplus 0.3": lambda: nn.Softplus(beta=0.3),
    "elu": lambda: nn.ELU(2.0),
    "celu": lambda: nn.CELU(0.5),
    "gelu tanh": lambda: nn.GELU("tanh"),
    "hardtanh": lambda: nn.Hardtanh(-0.2, 0.2),
    "relu6": nn.ReLU6,
    "softsign": nn.Softsign,
    "softshrink": lambda: nn.Softshrink(0.1),
    "hardshrink": lambda: nn.Hardshrink(0.1),
    "leaky": lambda: nn.LeakyReLU(0.3),
    "prelu": nn.PReLU,
    "threshold": lambda: nn.Threshold(0.1, -0.3),
}


@pytest.mark.parametrize("domain", [None, "box", "data"])
@pytest.mark.parametrize("name", MAKE)
def test_constants_and_copies_go_under_any_activation_with_its_options(name, domain):
    plant = Planter(3)
    net = deep(plant, (3, 8, 7, 2), activation=MAKE[name])
    for i in (0, 2):
        plant_superfluous(net, i, 1.0)
    X = plant.normal(200, 3)
    report = compress(net, domain=domain, X=X)
    assert all(
        after <= before - 5
        for before, after in zip(report.widths_before, report.widths, strict=True)
    )
    assert gap(net, report.module, X) < 1e-12
    assert report.error < 1e-12
    curve = compress(net, exact=False, X=X).curve
    whole = [point for point in curve if point.width == len(point.units) == 8]
    assert whole
    assert all(point.max_error < 1e-9 for point in whole)


def test_a_box_goes_through_softplus_as_it_is():
    # The argument of the rectifier reaches log(1 + e^0.3) / 0.3 - 2 = 0.85 at x = 1.
    net = nn.Sequential(
        *(nn.Linear(1, 1), nn.Softplus(beta=0.3), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    ).double()
    with torch.no_grad():
        for value, parameter in zip((1.0, 0.0, 1.0, -2.0, 1.0, 0.0), net.parameters(), strict=True):
            parameter.fill_(value)
    X = torch.linspace(-1, 1, 21, dtype=torch.float64)[:, None]
    report = compress(net, domain="box", X=X)
    assert report.widths == (1, 1)
    assert gap(net, report.module, X) == 0.0
    with torch.no_grad():
        net[2].bias.fill_(-2.9)  # now it is at most -0.05
    assert sum(compress(net, domain="box", X=X).widths) == 0


@pytest.mark.parametrize("domain", [None, "box", "data"])
def test_units_that_saturate_on_the_domain_are_constants(domain):
    net = nn.Sequential(nn.Linear(1, 2), nn.Hardtanh(-1, 1), nn.Linear(2, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [1.0]]))
        net[0].bias.copy_(torch.tensor([0.0, 5.0]))  # the second is 1 for x > -4
    X = torch.linspace(-2, 2, 11, dtype=torch.float64)[:, None]
    report = compress(net, domain=domain, X=X)
    assert report.widths == ((2,) if domain is None else (1,))
    assert gap(net, report.module, X) < 1e-15


def test_a_reduction_that_went_wrong_is_refused(monkeypatch):
    net = deep(Planter(0), (2, 4, 1), activation=nn.Tanh)
    compress(net)

    def wrong(layer, **_):
        return layer.keep(torch.arange(layer.n_units) != 0)

    monkeypatch.setattr("skgeo.symmetry._compression.reduction.merge_units", wrong)
    with pytest.raises(SkgeoError, match="the reduction went wrong"):
        compress(net)


@pytest.mark.parametrize("domain", [None, "box", "data"])
@pytest.mark.parametrize("spoilt", ["off", "unread", "zero"])
def test_a_whole_layer_that_does_nothing(spoilt, domain):
    plant = Planter(1)
    net = deep(plant, (2, 4, 4, 1))
    with torch.no_grad():
        if spoilt == "off":
            net[2].weight.copy_(-net[2].weight.abs())
            net[2].bias.fill_(-1.0)
        elif spoilt == "unread":
            net[4].weight.fill_(0.0)
        else:
            net[2].weight.fill_(0.0)
            net[2].bias.fill_(0.0)
    X = plant.normal(50, 2)
    report = compress(net, domain=domain, X=X)
    assert sum(report.widths) == 0
    assert gap(net, report.module, X) < 1e-14
    again = compress(report.module, domain=domain, X=X)
    assert sum(again.widths) == 0


@pytest.mark.parametrize(("dtype", "small"), [(torch.float64, 1e-12), (torch.float32, 1e-8)])
def test_a_unit_read_by_a_row_of_another_scale_stays(dtype, small):
    net = deep(Planter(2), (2, 4, 4, 1))
    with torch.no_grad():
        net[2].weight[0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
        net[2].weight[1:, 0] = 0.0  # nothing else reads the first unit
        net[2].bias[0] = -0.01
        net[2].weight[0] *= small
        net[2].bias[0] *= small
        net[4].weight[:, 0] = 1 / small
    net = net.to(dtype)
    report = compress(net)
    assert report.widths == (4, 4)
    x = Planter(3).normal(100, 2).to(dtype)
    assert gap(net, report.module, x) <= 1e-5 * float(net(x).detach().abs().max())


@pytest.mark.parametrize("make", [nn.Softplus, nn.GELU, nn.ELU, nn.ReLU])
def test_a_large_unit_that_is_hardly_read_stays(make):
    net = deep(Planter(4), (2, 4, 1), activation=make)
    with torch.no_grad():
        net[0].weight[0] *= 1e12
        net[2].weight[:, 0] *= 1e-12
    report = compress(net)
    assert report.widths == (4,)
    assert gap(net, report.module, Planter(5).normal(100, 2)) < 1e-9


def test_a_step_is_not_a_constant():
    net = nn.Sequential(nn.Linear(1, 1), nn.Hardshrink(0.5), nn.Linear(1, 1)).double()
    with torch.no_grad():
        for value, parameter in zip((1e-12, 0.5, 1.0, 0.0), net.parameters(), strict=True):
            parameter.fill_(value)
    report = compress(net)
    assert report.widths == (1,)
    assert not report.optimal


def test_outputs_of_different_scales_keep_their_own_tolerance():
    net = deep(Planter(6), (2, 4, 2))
    with torch.no_grad():
        net[2].weight[1] = torch.tensor([0.0, 0.0, 0.0, 1e-12])
        net[2].weight[0, 3] = 0.0
        net[2].bias[1] = 0.0
    report = compress(net)
    x = Planter(7).normal(100, 2)
    with torch.no_grad():
        ours, theirs = net(x)[:, 1], report.module(x)[:, 1]
    assert float((ours - theirs).abs().max()) <= 1e-9 * float(ours.abs().max())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_units_are_compared_at_the_size_of_their_inputs(dtype, seed):
    # Hidden values are near 7e5: biases of that size hide weights from a relative tolerance.
    plant = Planter(seed)
    net = deep(plant, (2, 6, 6, 1), activation=lambda: nn.Softplus(beta=1e-6))
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = net[0].weight[0], net[0].bias[0]
        net[2].weight[:, 3] = 0
        net[2].weight[4], net[2].bias[4] = net[2].weight[2], net[2].bias[2]
        net[0].weight[5] = 0
    net = net.to(dtype)
    x = 5 * plant.normal(200, 2)
    report = compress(net)
    assert report.widths == (3, 5)
    ours, theirs = net.double(), report.module.double()
    scale = float(ours(x).detach().abs().max())
    assert gap(ours, theirs, x) <= 16 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("make", [nn.Tanh, nn.ReLU, nn.Sigmoid, nn.GELU])
@pytest.mark.parametrize("widths", [(2, 3, 2), (2, 3, 3, 2)], ids=["one", "two"])
def test_a_network_without_hidden_units_is_a_network(make, widths):
    net = deep(Planter(0), widths, activation=make)
    with torch.no_grad():
        net[0].weight.zero_()
    small = compress(net).module
    assert sum(compress(small).widths) == 0
    for a, b in [(net, small), (small, net), (small, small)]:
        assert equivalent(a, b).verdict == "equivalent"
    assert equivalence_classes([net, small]).tolist() == [0, 0]
    assert canonical_form(small).matches(canonical_form(net))


@pytest.mark.parametrize("between", [nn.Identity, lambda: nn.LeakyReLU(1.0), None])
def test_linear_layers_in_a_row_are_as_wide_as_their_product_has_rank(between):
    plant = Planter(12)
    net = deep(plant, [3, 9, 8, 7, 2])
    net[1] = nn.Identity() if between is None else between()
    if between is None:
        net = nn.Sequential(net[0], *net[2:])
    report = compress(net)
    assert report.widths == (3, 8, 7)  # the product of the first two is 8 x 3
    assert report.units[0].tolist() == [-1] * 9
    x = 3 * plant.normal(100, 3)
    assert gap(net, report.module, x) <= 1e-12
    assert compress(report.module).widths == (3, 8, 7)


def test_a_linear_network_is_as_wide_as_its_rank_and_proves_it():
    plant = Planter(13)
    net = nn.Sequential(nn.Linear(5, 9), nn.Linear(9, 6)).double()
    with torch.no_grad():
        net[1].weight.copy_(plant.normal(6, 2) @ plant.normal(2, 9))
    report = compress(net)
    assert (report.widths, report.optimal) == ((2,), True)
    assert gap(net, report.module, plant.normal(50, 5)) <= 1e-12
    with torch.no_grad():
        net[1].weight.zero_()
    report = compress(net)
    assert report.widths == (0,)
    assert gap(net, report.module, plant.normal(50, 5)) == 0.0


class Absolute(nn.Module):
    def forward(self, x):
        return x.abs()


@pytest.mark.parametrize("make", [lambda: nn.LeakyReLU(-1.0), Absolute])
def test_opposite_absolute_values_are_one_unit(make):
    plant = Planter(14)
    net = deep(plant, [3, 6, 2], make)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = -2 * net[0].weight[0], -2 * net[0].bias[0]
        net[0].weight[2], net[0].bias[2] = -net[0].weight[3], -net[0].bias[3]
        net[2].weight[:, 2] = -net[2].weight[:, 3]  # |z| - |-z|
    report = compress(net)
    assert report.widths == (3,)
    assert gap(net, report.module, 3 * plant.normal(100, 3)) <= 1e-12


@pytest.mark.parametrize(
    ("make", "value"),
    [(nn.ReLU6, 6.0), (lambda: nn.Hardtanh(-2.0, 3.0), 3.0), (nn.Hardsigmoid, 1.0)],
)
def test_units_that_a_bounded_layer_saturates_are_constants_everywhere(make, value):
    # The second layer reads values between 0 and 6 (or -2 and 3, or 0 and 1), whatever the input.
    plant = Planter(15)
    net = deep(plant, [2, 3, 4, 1], make)
    with torch.no_grad():
        net[2].bias[1] = 100.0  # always at the upper bound
        net[2].weight[2] = 0.0
        net[2].bias[2] = 9.0  # reads nothing, and is there as well
    report = compress(net)
    assert report.widths == (3, 2)
    before, after = net[4].bias.item(), report.module[4].bias.item()
    assert after - before == pytest.approx(value * net[4].weight[0, 1:3].sum().item(), rel=1e-12)
    assert gap(net, report.module, 10 * plant.normal(200, 2)) <= 1e-12


def half_precision():
    net = deep(Planter(16), [2, 5, 1], dtype=torch.bfloat16)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = 2 * net[0].weight[0], 2 * net[0].bias[0]  # a copy
        net[0].weight[4] = net[0].weight[3] * torch.tensor([1.0, 1.0625])  # another unit
        net[0].bias[4] = net[0].bias[3]
        net[2].weight.fill_(1.0)
    return net


def test_units_merged_for_lack_of_precision_are_named():
    net = half_precision()
    with (
        pytest.warns(GeometryWarning, match="units closer than 0.12"),
        pytest.warns(GeometryWarning, match=r"these units are .*: 0\[3\], 0\[4\]\. The answer"),
    ):
        assert compress(net).widths == (3,)
    for measure in (minimal_width, canonical_form):
        with (
            pytest.warns(GeometryWarning, match="units closer than 0.12"),
            pytest.warns(GeometryWarning, match=r"these units are .*: 3, 4\. The answer"),
        ):
            measure(net)
    with pytest.warns(GeometryWarning, match="below the precision"):
        assert compress(net, tol=1e-6).widths == (4,)


def test_complex_weights_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls complex modules experimental
        net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).to(torch.complex64)
    for measure in (
        *(compress, minimal_width, canonical_form, hinge_form, equivalence_of_two),
        *(lambda net: match_networks(net, net), lambda net: apply_symmetry(net)),
    ):
        with pytest.raises(
            SkgeoError, match=r"'0.weight' has dtype torch.complex64; expected real"
        ):
            measure(net)


def equivalence_of_two(net):
    return equivalent(net, net)
