from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.networks import normal
from helpers.planted import Planter, evaluate, flip, seed_case_31
from skgeo import SkgeoError
from skgeo.exceptions import GeometryWarning
from skgeo.symmetry import compare_hinges
from skgeo.symmetry._hidden_layer import one_hidden

N_PLANTED = 200


def compare(a, b, tol="auto"):
    return compare_hinges(one_hidden(*a), one_hidden(*b), tol=tol)


def transform(network, report):
    """What the certificate makes of the first network."""
    w, b, q, c = (t.double() for t in network)
    order, scale, sign = report.permutation[0], report.scales[0], report.flips[0]
    factor = scale * sign
    return (
        w[order] * factor[:, None],
        b[order] * factor,
        q[:, order] / scale,
        c + report.bias_shift,
    )


def check_certificate(a, b, report, rtol=1e-11):
    """The certificate turns a into b: unit by unit where something reads the unit."""
    assert report.verdict == "equivalent"
    assert report.matched == "units"
    assert report.residual <= report.tol
    assert sorted(report.permutation[0].tolist()) == list(range(len(a[0])))
    assert bool((report.scales[0] > 0).all())
    w, bias, q, c = transform(a, report)
    live = (b[2] != 0).any(0) & (b[0] != 0).any(1)
    size = torch.hypot(b[0].double().norm(dim=1), b[1].double())[live]
    assert float(((w - b[0])[live].norm(dim=1) / size).max()) <= rtol
    assert float(((bias - b[1])[live].abs() / size).max()) <= rtol
    torch.testing.assert_close(q[:, live], b[2][:, live].double(), rtol=1e3 * rtol, atol=rtol)
    torch.testing.assert_close(c, b[3].double(), rtol=1e3 * rtol, atol=100 * rtol)


def check_difference(a, b, report):
    assert report.verdict == "different"
    x = report.witness[None]
    gap = (evaluate(a, x) - evaluate(b, x)).abs().max()
    assert float(gap) > 0
    assert report.difference == pytest.approx(float(gap), rel=1e-6)
    torch.testing.assert_close(report.outputs[0], evaluate(a, x)[0])
    torch.testing.assert_close(report.outputs[1], evaluate(b, x)[0])


def test_permuted_and_scaled_networks_200_of_200():
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        a = plant.network(*plant.sizes())
        b = plant.disguise(*a)
        report = compare(a, b)
        check_certificate(a, b, report)
        assert bool((report.flips[0] == 1).all())
        assert float(report.bias_shift.abs().max()) < 1e-12


def test_annihilating_flips_200_of_200():
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        a = plant.annihilating(*plant.sizes(), size=3)
        b = plant.disguise(*flip(a, range(3)))
        report = compare(a, b)
        check_certificate(a, b, report)
        turned = report.permutation[0][report.flips[0] < 0]
        assert set(turned.tolist()) == {0, 1, 2}
        torch.testing.assert_close(report.bias_shift, a[2][:, :3] @ a[1][:3])


def test_split_duplicates_200_of_200():
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        a = plant.network(*plant.sizes())
        report = compare(a, plant.disguise(*plant.split(*a)))
        assert (report.verdict, report.matched) == ("equivalent", "boundaries")
        # Split in two ways: as many units, but no map of them.
        report = compare(plant.split(*a, times=1), plant.disguise(*plant.split(*a, times=1)))
        assert (report.verdict, report.matched) == ("equivalent", "boundaries")


def test_degenerate_units_200_of_200():
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        a = plant.network(*plant.sizes())
        fat = plant.degenerate(*a)
        assert compare(a, plant.disguise(*fat)).verdict == "equivalent"
        b = plant.disguise(*plant.degenerate(*a))
        check_certificate(fat, b, compare(fat, b))


def test_float32_weights_200_of_200():
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        exact = plant.annihilating(*plant.sizes(), size=3)
        a = tuple(t.float() for t in exact)
        b = tuple(t.float() for t in plant.disguise(*flip(exact, range(3))))
        report = compare(a, b)
        assert report.tol == pytest.approx(1.9e-6, rel=0.01)
        check_certificate(a, b, report, rtol=1e-6)


def test_flips_that_do_not_annihilate_are_refused_200_of_200():
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        d, n, k = plant.sizes()
        a = plant.network(d, n, k)
        units = plant.integers.choice(d, size=int(plant.integers.integers(1, 4)), replace=False)
        b = plant.disguise(*flip(a, units.tolist()))
        report = compare(a, b)
        check_difference(a, b, report)
        assert "linear" in report.reason


def test_annihilating_flips_without_their_shift_are_refused_200_of_200():
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        a = plant.annihilating(*plant.sizes(), size=3)
        b = plant.disguise(*flip(a, range(3))[:3], a[3])
        report = compare(a, b)
        check_difference(a, b, report)
        assert "constants" in report.reason


@pytest.mark.parametrize("part", ["weights", "biases", "outputs", "shift"])
def test_perturbations_of_1e_5_at_tol_1e_7_are_refused_200_of_200(part):
    which = ("weights", "biases", "outputs", "shift").index(part)
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        a = plant.network(*plant.sizes())
        b = [t.clone() for t in a]
        at = int(plant.integers.integers(b[which].numel()))
        b[which].view(-1)[at] += 1e-5
        b = plant.disguise(*b)
        report = compare(a, b, tol=1e-7)
        check_difference(a, b, report)
        assert compare(a, b, tol=1e-2).verdict == "equivalent"


def test_all_weights_perturbed_by_1e_5_are_refused_and_by_1e_9_are_not():
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        a = plant.network(*plant.sizes())
        noisy = [t * (1 + 1e-5 * plant.normal(*t.shape)) for t in a]
        report = compare(a, plant.disguise(*noisy), tol=1e-7)
        assert report.verdict == "different"
        close = [t * (1 + 1e-9 * plant.normal(*t.shape)) for t in a]
        assert compare(a, plant.disguise(*close), tol=1e-7).verdict == "equivalent"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_symmetric_and_decided_like_dense_evaluation(seed):
    plant = Planter(seed)
    # Small integers: equal functions happen by chance as well.
    a, b = (
        tuple(
            torch.from_numpy(plant.integers.integers(-1, 2, size)).double()
            for size in ((3, 2), (3,), (1, 3), (1,))
        )
        for _ in range(2)
    )
    x = 4 * plant.normal(500, 2)
    equal = float((evaluate(a, x) - evaluate(b, x)).abs().max()) < 1e-12
    for pair in ((a, b), (b, a)):
        assert compare(*pair).verdict == ("equivalent" if equal else "different")


def test_seed_case_3_is_recognised_with_its_flips_and_shift():
    a = ([[1.0], [-1.0]], [-1.0, -1.0], [[1.0, 1.0]], [2.0])
    b = ([[-1.0], [1.0]], [1.0, 1.0], [[1.0, 1.0]], [0.0])
    report = compare(a, b)
    assert (report.verdict, report.residual) == ("equivalent", 0.0)
    assert report.flips[0].tolist() == [-1, -1]
    assert report.bias_shift.tolist() == [-2.0]
    # One unit alone, with the bias as it was and shifted.
    for shift in (2.0, 1.0):
        other = ([[-1.0], [-1.0]], [1.0, -1.0], [[1.0, 1.0]], [shift])
        assert compare(a, other).verdict == "different"


def test_seed_case_4_units_that_add_up():
    one = ([[1.0]], [0.0], [[1.0]], [0.0])

    def pair(u, v):
        return ([[u], [v]], [0.0, 0.0], [[1.0, 1.0]], [0.0])

    assert compare(one, pair(0.3, 0.7)).verdict == "equivalent"
    assert compare(one, pair(1.0, 0.0)).verdict == "equivalent"
    assert compare(one, pair(1.2, -0.2)).verdict == "different"


@pytest.mark.parametrize("units", [(0, 2), (1, 3), (0, 1, 2, 3)])
def test_seed_case_1_flips(units):
    a = seed_case_31()
    report = compare(a, flip(a, units))
    assert report.verdict == "equivalent"
    # Units 0 and 2 are each other's mirror images, so that a permutation may stand for a flip.
    x = 3 * Planter(0).normal(200, 2)
    torch.testing.assert_close(evaluate(transform(a, report), x), evaluate(a, x))


def test_boundaries_on_the_edge_of_the_sign_rule():
    # The projection that decides signs is perpendicular to these units, up to rounding.
    n = 3
    probe = normal(n)
    w = torch.tensor([[probe[1], -probe[0], 0.0], [probe[2], 0.0, -probe[0]], [0.0, 0.0, 1.0]])
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        _, b, q, c = plant.network(3, n, 2)
        rounded = w * (1 + 1e-15 * plant.normal(3, n))
        assert compare((w, b, q, c), plant.disguise(rounded, b, q, c)).verdict == "equivalent"
        q[:, 1] = -q[:, 0]
        double = (torch.cat([w[:1], -w[:1] * (1 + 1e-15)]), b[:1].repeat(2) * q.new([1, -1]))
        assert compare((*double, q[:, :2], c), (*double, q[:, :2], c)).verdict == "equivalent"


def test_crowded_boundaries_of_float32_weights():
    # On a line some of 20,000 boundaries are nearer than rounding moves them.
    for seed in range(3):
        plant = Planter(seed)
        a = plant.network(20_000, 1, 2)
        b = tuple(t.float() for t in plant.disguise(*a))
        a = tuple(t.float() for t in a)
        assert compare(a, b).verdict == "equivalent"
        b[2][0, 0] *= 2
        assert compare(a, b).verdict == "different"


def test_differences_within_rounding_are_undecided():
    plant = Planter(0)
    a = plant.network(8, 3, 2)
    b = plant.disguise(*a)
    with pytest.warns(GeometryWarning, match="below the precision"):
        report = compare(a, b, tol=1e-18)
    assert report.verdict == "undecided"
    assert report.residual > report.tol
    single = tuple(t.float() for t in a)
    with pytest.warns(GeometryWarning, match="below the precision"):
        report = compare(single, tuple(t.float() for t in plant.disguise(*a)), tol=1e-10)
    assert report.verdict == "undecided"


def test_skip_connections_take_part():
    plant = Planter(5)
    w, b, q, c = plant.network(5, 3, 2)
    skip = plant.normal(2, 3)
    a = one_hidden(w, b, q, c, skip)
    turned = one_hidden(-w, -b, q, c + q @ b, skip + q @ w)
    report = compare_hinges(a, turned)
    assert (report.verdict, report.matched) == ("equivalent", "units")
    assert compare_hinges(a, one_hidden(w, b, q, c)).verdict == "different"


def test_constant_and_empty_networks():
    nothing = (torch.zeros(0, 2), None, torch.zeros(1, 0), torch.ones(1))
    constant = ([[0.0, 0.0]], [1.0], [[1.0]], [0.0])
    assert compare(nothing, constant).verdict == "equivalent"
    report = compare(nothing, ([[0.0, 0.0]], [2.0], [[1.0]], [0.0]))
    assert report.verdict == "different"
    assert report.difference == 1.0


def test_reports_have_three_answers():
    a = seed_case_31()
    report = compare(a, a)
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(report)
    with pytest.raises(FrozenInstanceError):
        report.verdict = "different"
    assert str(report).startswith("equivalent")
    assert report.difference != report.difference  # NaN without a witness


def test_networks_of_other_interfaces_are_refused():
    plant = Planter(0)
    a = plant.network(5, 3, 2)
    with pytest.raises(SkgeoError, match="the same inputs and outputs"):
        compare(a, plant.network(5, 4, 2))
    with pytest.raises(SkgeoError, match="the same inputs and outputs"):
        compare(a, plant.network(5, 3, 1))
