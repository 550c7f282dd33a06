from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.networks import mlp, normal
from helpers.planted import Planter, seed_case_31
from skgeo import SkgeoError
from skgeo.network._activation import activation
from skgeo.symmetry import compare_hinges, compress, hinge_form, minimal_width
from skgeo.symmetry._hidden_layer import one_hidden


def least_width(form, tol=1e-9):
    """Least width of a function with one output, trying all sets E and all H0."""
    u, jumps = form.directions[form.live], form.jumps[form.live]
    m = len(u)
    best = m + 2
    for mask in product((0.0, 1.0), repeat=m):
        e = torch.tensor(mask, dtype=torch.float64)
        rest = form.linear + (jumps * e[:, None]).T @ u
        if float(rest.norm()) < tol:
            return m
        for h in range(m):
            off = rest - torch.outer(rest @ u[h], u[h])
            if float(off.norm()) < tol:
                best = m + 1
    return best


def assert_same_function(network, found, rtol=1e-11):
    x = 4 * Planter(99).normal(200, network.n_inputs)
    torch.testing.assert_close(found.network(x), network(x), rtol=rtol, atol=rtol)
    assert found.width == found.network.n_units
    assert found.network.skip is None


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_against_enumeration(seed, n):
    plant = Planter(seed)
    w, q = (torch.from_numpy(plant.integers.integers(-2, 3, s)).double() for s in ((7, n), (1, 7)))
    b = torch.from_numpy(plant.integers.integers(-1, 2, 7)).double()
    network = one_hidden(w, b, q, plant.normal(1))
    found = minimal_width(network)
    assert found.optimal
    assert found.width == least_width(hinge_form(network))
    assert_same_function(network, found)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_affine_functions_take_two_units(n):
    network = one_hidden(
        torch.zeros(0, n), None, torch.zeros(1, 0), [3.0], torch.ones(1, n, dtype=torch.float64)
    )
    found = minimal_width(network)
    assert (found.width, found.n_boundaries, found.optimal) == (2, 0, True)
    assert_same_function(network, found)
    on_ball = minimal_width(network, ball=(torch.zeros(n, dtype=torch.float64), 50.0))
    assert (on_ball.width, on_ball.optimal) == (1, True)
    assert_same_function(network, on_ball)


def test_m_plus_one_and_m_plus_two():
    # One boundary, x1 = 0, with slope 1 in a direction that is parallel to it, and that is not.
    for skip, extra in (
        ([[0.0, 0.0]], 0),
        ([[-1.0, 0.0]], 0),
        ([[2.0, 0.0]], 1),
        ([[0.0, 1.0]], 2),
    ):
        network = one_hidden([[1.0, 0.0]], [0.0], [[1.0]], [0.0], skip)
        found = minimal_width(network)
        assert (found.width, found.n_boundaries, found.optimal) == (1 + extra, 1, True)
        assert_same_function(network, found)


def test_one_shared_boundary_besides_a_set_of_others():
    # R is parallel to u_0 only once boundary 1 stands on its other side.
    w = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    skip = [[0.5, -1.0]]
    network = one_hidden(w, [0.0, 1.0, 2.0], [[1.0, 1.0, 1.0]], [0.0], skip)
    found = minimal_width(network)
    assert (found.width, found.optimal) == (4, True)
    assert_same_function(network, found)


@pytest.mark.parametrize("seed", range(15))
def test_several_outputs_stay_within_the_bound(seed):
    plant = Planter(seed)
    w, b, q, c = plant.network(6, 3, 3)
    rank = 1 + seed % 3
    skip = plant.normal(3, rank) @ plant.normal(rank, 3)
    network = one_hidden(w, b, q, c, skip)
    found = minimal_width(network)
    assert 6 < found.width <= 6 + min(2 * rank, 3)
    assert found.optimal == (found.width <= 8 and rank == 1)
    assert_same_function(network, found)
    on_ball = minimal_width(network, ball=(torch.zeros(3, dtype=torch.float64), 60.0))
    assert on_ball.width == 6 + rank
    assert_same_function(network, on_ball)


@pytest.mark.parametrize("seed", range(10))
def test_the_network_it_came_from_is_found_again(seed):
    plant = Planter(seed)
    d, n, k = plant.sizes()
    small = plant.network(d, n, k)
    large = plant.disguise(*plant.degenerate(*plant.split(*small)))
    found = minimal_width(one_hidden(*large))
    assert (found.width, found.optimal) == (d, True)
    assert compare_hinges(found.network, one_hidden(*small)).verdict == "equivalent"
    live = found.units[(torch.as_tensor(large[2]) != 0).any(0)]
    assert set(live.tolist()) - {-1} == set(range(d))


def test_hidden_orientations_of_twenty_boundaries_are_found():
    # The hinge form of a network, with its linear part beside it, forgets the sides of its units.
    plant = Planter(7)
    hidden = hinge_form(one_hidden(*plant.network(20, 3, 1)))
    network = one_hidden(
        hidden.directions, hidden.offsets, hidden.jumps.T, hidden.constant, hidden.linear
    )
    assert float(hidden.linear.abs().max()) > 0.1
    found = minimal_width(network)
    assert (found.width, found.optimal) == (20, True)
    assert_same_function(network, found)


def test_seed_case_1_needs_its_four_units():
    found = minimal_width(one_hidden(*seed_case_31()))
    assert (found.width, found.n_boundaries, found.optimal) == (4, 4, True)


def test_many_boundaries_in_their_own_orientation():
    plant = Planter(0)
    network = one_hidden(*plant.network(3000, 20, 5))
    found = minimal_width(network)
    assert (found.width, found.optimal) == (3000, True)


def test_undecided_widths_say_so():
    # 60 boundaries on a line, with opposite units of random strengths: 2^60 sets.
    plant = Planter(3)
    t = plant.normal(60)
    up, down = plant.normal(60), plant.normal(60)
    w = torch.cat([torch.ones(60), -torch.ones(60)])[:, None].double()
    network = one_hidden(w, torch.cat([t, -t]), torch.cat([up, down])[None])
    found = minimal_width(network)
    assert found.width == 61  # one dimension: any boundary can carry the rest
    assert not found.optimal
    assert_same_function(network, found, rtol=1e-9)


SLOPES = [-3.0, -0.5, 0.01, 0.3, 1.5]


def leaky_units(seed, slope, n, d=5):
    """A network of small integer weights, of which some units often share a boundary."""
    plant = Planter(seed)
    w, q = (torch.from_numpy(plant.integers.integers(-2, 3, s)).double() for s in ((d, n), (1, d)))
    b = torch.from_numpy(plant.integers.integers(-1, 2, d)).double()
    kind = activation("leaky_relu", negative_slope=slope)
    return one_hidden(w, b, q, plant.normal(1), activation=kind)


def least_width_by_fitting(network, u, t, jumps, slope):
    """Least width for one output: for each set of sides, what is left, fitted by a linear map."""
    n, m = network.n_inputs, len(u)
    x = 5 * Planter(7).normal(4 * n + 20, n)
    lines = torch.cat([x, torch.ones(len(x), 1).double()], dim=1)
    best = m + 2
    for sides in product((1.0, -1.0), repeat=m):
        side = torch.tensor(sides, dtype=torch.float64)
        z = side * (x @ u.T + t)
        units = torch.nn.functional.leaky_relu(z, slope) @ (jumps / (1 - slope))
        left = network(x) - units
        fit = torch.linalg.lstsq(lines, left).solution
        assert float((lines @ fit - left).abs().max()) < 1e-9
        v = fit[:n, 0]
        if float(v.norm()) < 1e-9:
            return m
        if any(float((v - (v @ h) * h).norm()) < 1e-9 for h in u):
            best = m + 1
    return best


@pytest.mark.parametrize("slope", SLOPES)
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_leaky_units_against_all_sides(slope, seed, n):
    network = leaky_units(seed, slope, n)
    form = hinge_form(network)
    torch.testing.assert_close(form(x := normal(20, n)), network(x))
    found = minimal_width(network)
    u, t, jumps = (v[form.live] for v in (form.directions, form.offsets, form.jumps))
    assert found.optimal
    assert found.width == least_width_by_fitting(network, u, t, jumps, slope)
    assert found.width <= network.n_units
    assert found.network.activation == network.activation
    assert_same_function(network, found)


@pytest.mark.parametrize("slope", [*SLOPES, 0.0])
def test_leaky_units_are_counted_as_leaky_units(slope):
    net = mlp(3, 6, 2, activation=lambda: nn.LeakyReLU(slope))
    found = minimal_width(net)
    assert (found.width, found.n_boundaries, found.optimal) == (6, 6, True)
    torch.testing.assert_close(found.network(x := normal(50, 3)), net(x).detach())
    # A unit and its opposite are one unit if the slope that is left is that of one.
    w, b, q = net[0].weight.detach(), net[0].bias.detach(), net[2].weight.detach()
    twice = one_hidden(
        torch.cat([w, -w[:1], -w[:1]]),
        torch.cat([b, -b[:1], -b[:1]]),
        torch.cat([q, q[:, :1], -q[:, :1]], dim=1),
        net[2].bias.detach(),
        activation=found.network.activation,
    )
    again = minimal_width(twice)
    assert (again.width, again.optimal) == (6, True)
    assert again.units.tolist()[6:] == [again.units[0].item()] * 2


@pytest.mark.parametrize("slope", SLOPES)
def test_a_linear_map_is_two_leaky_units_or_one_on_a_ball(slope):
    kind = activation("leaky_relu", negative_slope=slope)
    for skip, extra in (([[0.0, 0.0]], 0), ([[-1.0 - slope, 0.0]], 0), ([[0.5, 0.0]], 1)):
        network = one_hidden([[1.0, 0.0]], [0.5], [[1.0]], [0.0], skip, activation=kind)
        found = minimal_width(network)
        assert (found.width, found.n_boundaries, found.optimal) == (1 + extra, 1, True)
        assert_same_function(network, found)
    network = one_hidden([[1.0, 0.0]], [0.5], [[1.0]], [0.0], [[0.0, 1.0]], activation=kind)
    found = minimal_width(network)
    assert (found.width, found.optimal) == (3, True)
    assert_same_function(network, found)
    on_ball = minimal_width(network, ball=(torch.zeros(2, dtype=torch.float64), 60.0))
    assert (on_ball.width, on_ball.optimal) == (2, True)
    assert_same_function(network, on_ball)


def test_compress_proves_the_width_of_leaky_units():
    net = mlp(3, 7, 1, activation=lambda: nn.LeakyReLU(0.2))
    with torch.no_grad():
        # c phi(s) + d phi(-s) has the kink (c + d)(1 - a) and the slope c a - d.
        net[0].weight[1], net[0].bias[1] = -net[0].weight[0], -net[0].bias[0]
        net[2].weight[:, 1] = -net[2].weight[:, 0] + 1e-3
    report = compress(net)
    assert (report.widths, report.optimal) == ((7,), True)
    with torch.no_grad():
        net[0].weight[2], net[0].bias[2] = net[0].weight[0], net[0].bias[0]
        net[0].weight[3], net[0].bias[3] = net[0].weight[1], net[0].bias[1]
        net[2].weight[:, 3] = -net[2].weight[:, 1]  # what is left are two on the same side
    report = compress(net)
    assert (report.widths, report.optimal) == ((4,), True)
    torch.testing.assert_close(report.module(x := normal(50, 3)), net(x))


def test_absolute_values_have_no_such_width():
    absolute = mlp(2, 3, 1, activation=lambda: nn.LeakyReLU(-1.0))
    with pytest.raises(SkgeoError, match=r"leaky ReLU of another slope than -1"):
        minimal_width(absolute)
    kind = activation("leaky_relu", negative_slope=-1.0)
    with pytest.raises(SkgeoError, match=r"leaky ReLU of another slope than -1"):
        minimal_width(one_hidden([[1.0]], [0.0], [[1.0]], activation=kind))
    assert compress(absolute).widths == (3,)
