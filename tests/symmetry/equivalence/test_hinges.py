import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.networks import mlp, normal
from helpers.planted import Planter, evaluate, flip, seed_case_31
from skgeo import SkgeoError, WrappedModel
from skgeo.exceptions import GeometryWarning
from skgeo.symmetry import compare_hinges, hinge_form, minimal_width
from skgeo.symmetry._grouping import group_rows
from skgeo.symmetry._hidden_layer import one_hidden
from skgeo.symmetry._tolerance import resolve_tolerance


def assert_same_form(a, b, atol=1e-9):
    """Forms of one function, number by number."""
    assert a.n_live == b.n_live
    for name in ("directions", "offsets", "jumps"):
        torch.testing.assert_close(
            getattr(a, name)[a.live], getattr(b, name)[b.live], rtol=1e-9, atol=atol
        )
    torch.testing.assert_close(a.linear, b.linear, rtol=1e-9, atol=atol)
    torch.testing.assert_close(a.constant, b.constant, rtol=1e-9, atol=atol)


def brute_groups(rows, tol):
    labels = []
    for i in range(len(rows)):
        near = [j for j in range(i) if float((rows[i] - rows[j]).norm()) <= tol]
        labels.append(labels[near[0]] if near else max(labels, default=-1) + 1)
    return labels


@pytest.mark.parametrize("seed", range(20))
def test_the_form_is_the_function(seed):
    plant = Planter(seed)
    d, n, k = plant.sizes()
    network = plant.degenerate(*plant.split(*plant.network(d, n, k)))
    form = hinge_form(one_hidden(*network))
    x = 4 * plant.normal(300, n)
    torch.testing.assert_close(form(x), evaluate(network, x), rtol=1e-11, atol=1e-11)
    assert form.n_live == d
    assert len(form.live) == d + 1  # the unit that nothing reads has a boundary
    torch.testing.assert_close(
        torch.linalg.vector_norm(form.directions, dim=1), torch.ones(d + 1).double()
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_invariant_under_permutation_scaling_splitting_flips_and_degenerate_units(seed):
    plant = Planter(seed)
    network = plant.annihilating(*plant.sizes(), size=3)
    other = plant.disguise(*plant.degenerate(*plant.split(*flip(network, range(3)))))
    assert_same_form(hinge_form(one_hidden(*network)), hinge_form(one_hidden(*other)))


def test_bookkeeping_says_which_boundary_each_unit_is_on():
    w = torch.tensor([[1.0], [-2.0], [0.0], [3.0]], dtype=torch.float64)
    b = torch.tensor([1.0, -2.0, 4.0, 0.0], dtype=torch.float64)
    form = hinge_form(one_hidden(w, b, torch.ones(1, 4, dtype=torch.float64)))
    assert form.boundary[0] == form.boundary[1] != form.boundary[3]
    assert form.boundary[2] == -1
    assert form.side[0] == -form.side[1]
    assert form.side[2] == 0
    assert form.norms.tolist() == [1.0, 2.0, 0.0, 3.0]
    assert form.constant.tolist() != [0.0]


def test_seed_case_1_has_four_boundaries_and_its_flips_the_same_form():
    network = seed_case_31()
    form = hinge_form(one_hidden(*network))
    assert form.n_live == 4
    for units, shift in (((0, 2), -2.0), ((1, 3), -2.0), ((0, 1, 2, 3), -4.0)):
        turned = flip(network, units)
        assert turned[3].tolist() == [shift]
        assert_same_form(form, hinge_form(one_hidden(*turned)), atol=1e-15)


def test_seed_case_3_orientation_reversal():
    # relu(x-1) + relu(-x-1) + 2 = relu(-x+1) + relu(x+1)
    a = one_hidden([[1.0], [-1.0]], [-1.0, -1.0], [[1.0, 1.0]], [2.0])
    b = one_hidden([[-1.0], [1.0]], [1.0, 1.0], [[1.0, 1.0]], [0.0])
    assert_same_form(hinge_form(a), hinge_form(b), atol=0.0)
    # On [-3, 3] turning unit 1 alone changes f by up to 4, or by 3 with the bias shifted.
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)[:, None]
    alone = one_hidden([[-1.0], [-1.0]], [1.0, -1.0], [[1.0, 1.0]], [2.0])
    shifted = one_hidden([[-1.0], [-1.0]], [1.0, -1.0], [[1.0, 1.0]], [1.0])
    assert float((alone(x) - a(x)).abs().max()) == pytest.approx(4.0)
    assert float((shifted(x) - a(x)).abs().max()) == pytest.approx(3.0)


def test_cancelling_units_leave_no_live_boundary():
    plant = Planter(3)
    w, b, q, _ = plant.network(6, 3, 2)
    twice = one_hidden(torch.cat([w, 2 * w]), torch.cat([b, 2 * b]), torch.cat([q, -q / 2], 1))
    form = hinge_form(twice)
    assert form.n_live == 0
    assert max(form.linear_size, form.constant_size) < 1e-14


def test_the_linear_part_of_opposite_units():
    # relu(s) - relu(-s) = s
    form = hinge_form(one_hidden([[2.0, 1.0], [-2.0, -1.0]], [3.0, -3.0], [[1.0, -1.0]]))
    assert form.n_live == 0
    torch.testing.assert_close(form.linear, torch.tensor([[2.0, 1.0]]).double())
    torch.testing.assert_close(form.constant, torch.tensor([3.0]).double())


@pytest.mark.parametrize("seed", range(12))
def test_groups_of_rows_against_all_pairs(seed):
    plant = Planter(seed)
    rows = plant.normal(40, 3)
    rows[10:25] = rows[plant.integers.integers(0, 10, 15)]
    rows[25:30, 0] = rows[:5, 0]  # agree in one coordinate only
    rows = rows + 1e-9 * plant.uniform(40, 3)
    labels, first = group_rows(rows, 1e-7)
    expected = brute_groups(rows, 1e-7)
    assert len(first) == max(expected) + 1
    together = labels[:, None] == labels[None]
    assert torch.equal(together, torch.tensor(expected)[:, None] == torch.tensor(expected)[None])
    assert torch.equal(labels[first], torch.arange(len(first)))


def test_groups_of_crowded_rows_with_chance_neighbours():
    plant = Planter(0)
    rows = torch.cat([plant.normal(3000, 2)] * 2)
    labels, first = group_rows(rows, 1e-4)  # one projection alone would join strangers
    assert torch.equal(labels[:3000], labels[3000:])
    assert 2900 < len(first) <= 3000
    assert group_rows(rows[:0], 1e-4)[0].shape == (0,)


def test_chains_hold_what_is_near_whatever_else_is():
    rows = torch.tensor([[0.0], [0.9], [1.8], [5.0]]).double()
    assert len(group_rows(rows, 1.0)[1]) == 3
    labels, first = group_rows(rows, 1.0, chains=True)
    assert labels[0] == labels[1] == labels[2] != labels[3]
    assert torch.equal(labels[first], torch.arange(2))


def test_numbers_do_not_depend_on_the_order_of_rows():
    plant = Planter(1)
    rows = plant.normal(50, 4)
    order = torch.randperm(50, generator=plant.generator)
    assert torch.equal(group_rows(rows, 1e-9)[0][order], group_rows(rows[order], 1e-9)[0])


def test_a_single_unit_a_network_without_units_and_wide_offsets():
    assert hinge_form(one_hidden(torch.zeros(0, 3), None, torch.zeros(2, 0))).n_live == 0
    far = one_hidden([[1e-3], [1.0]], [1e3, 1.0], [[1.0, 1.0]])
    form = hinge_form(far)
    assert form.n_live == 2
    assert sorted(form.offsets.abs().tolist()) == [1.0, 1e6]


def test_bad_input():
    with pytest.raises(SkgeoError, match="NaN or infinity"):
        one_hidden([[float("nan")]], [0.0], [[1.0]])
    with pytest.raises(SkgeoError, match=r"expected \(d, n\) and \(k, d\)"):
        one_hidden([[1.0]], [0.0], [[1.0, 2.0]])
    with pytest.raises(SkgeoError, match=r"biases of shape \(2,\); expected \(1,\)"):
        one_hidden([[1.0]], [0.0, 1.0], [[1.0]])
    with pytest.raises(SkgeoError, match="expected one of"):
        one_hidden([[1.0]], [0.0], [[1.0]], activation="no such")
    with pytest.raises(SkgeoError, match="expected one hidden layer of ReLU"):
        hinge_form(one_hidden([[1.0]], [0.0], [[1.0]], activation="tanh"))
    for tol in (0, 1.0, True, "small", None):
        with pytest.raises(SkgeoError, match="greater than 0 and less than 1 or 'auto'"):
            resolve_tolerance(tol, 1e-16)
    with pytest.warns(GeometryWarning, match="below the precision"):
        resolve_tolerance(1e-9, 1.2e-7)
    with pytest.warns(GeometryWarning, match="half precision"):
        resolve_tolerance("auto", torch.finfo(torch.float16).eps)
    with pytest.raises(SkgeoError, match="overflow"):
        hinge_form(one_hidden([[1e200]], [0.0], [[1e200]]))


def test_any_model_of_one_hidden_layer():
    net = mlp(3, 5, 2, activation=nn.ReLU)
    layer = one_hidden(net[0].weight, net[0].bias, net[2].weight, net[2].bias)
    x = normal(20, 3)
    for model in (net, WrappedModel(net), layer):
        torch.testing.assert_close(hinge_form(model)(x), net(x).detach(), rtol=1e-12, atol=1e-12)
        assert minimal_width(model).width == 5
        assert compare_hinges(model, net).verdict == "equivalent"
    with pytest.raises(SkgeoError, match="expected one hidden layer of ReLU"):
        hinge_form(mlp(3, 5, 2, activation=nn.Tanh))
