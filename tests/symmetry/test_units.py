import pytest
import torch

from helpers.planted import Planter, seed_case_31
from skgeo import SkgeoError
from skgeo.network import activation
from skgeo.symmetry import UNIT_CLASSES, classify_units
from skgeo.symmetry._units import box_interval, data_interval

N_PLANTED = 200


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def labels(network, **options):
    return classify_units(*network[:3], **options).labels


def same_side(w, b, i, j, tol):
    u, v = (torch.cat([w[m], b[m : m + 1]]) for m in (i, j))
    scale = float(w[i].norm() / w[j].norm())
    return float((u - scale * v).norm()) <= tol * float(u.norm())


def test_generic_networks_200_of_200():
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        network = plant.disguise(*plant.network(*plant.sizes()))
        assert set(labels(network)) == {"generic"}


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_planted_classes_200_of_200(precision):
    tol = 1e-10 if precision == torch.float64 else 2e-6
    for seed in range(N_PLANTED):
        plant = Planter(seed)
        w, b, q, _ = plant.annihilating(16, 6, 3, size=3)
        expected = ["reversible"] * 3 + ["generic"] * 13
        for i, (kind, of) in enumerate(
            (("duplicate", 4), ("antiparallel", 5), ("w_degenerate", 0), ("q_degenerate", 0)), 10
        ):
            expected[i] = kind
            if kind == "w_degenerate":
                w[i] = 0
            elif kind == "q_degenerate":
                q[:, i] = 0
            else:
                sign = 1.0 if kind == "duplicate" else -1.0
                factor = sign * float(10 ** (4 * plant.uniform(1) - 2))
                w[i], b[i] = factor * w[of], factor * b[of]
                q[:, i] = q[:, i] / abs(factor)
                expected[of] = kind
        order = torch.randperm(16, generator=plant.generator)
        scale = 10.0 ** (6 * plant.uniform(16) - 3)
        w, b, q = (w * scale[:, None])[order], (b * scale)[order], (q / scale)[:, order]
        w, b, q = (t.to(precision).double() for t in (w, b, q))
        found = classify_units(w, b, q, tol=tol)
        wanted = tuple(expected[i] for i in order)
        assert found.labels == wanted
        check_bookkeeping(found, w, b, tol)


def check_bookkeeping(found, w, b, tol):
    for i, name in enumerate(found.labels):
        assert name in UNIT_CLASSES
        if name in ("duplicate", "antiparallel"):
            j, scale = int(found.partner[i]), float(found.scale[i])
            assert (scale > 0) == (name == "duplicate")
            torch.testing.assert_close(w[i], scale * w[j], rtol=10 * tol, atol=1e-12)
            torch.testing.assert_close(b[i], scale * b[j], rtol=10 * tol, atol=1e-12)
            assert found.group[i] == found.group[j]
        else:
            assert found.partner[i] == -1
            assert torch.isnan(found.scale[i])
        if name == "generic":
            assert torch.isnan(found.residual[i])
        else:
            assert 0 <= float(found.residual[i]) <= tol
        if name == "reversible":
            assert i in found.reversible.minimal[int(found.group[i])]


def test_seed_case_1_is_reversible():
    found = classify_units(*seed_case_31()[:3])
    assert found.labels == ("reversible",) * 4
    assert found.reversible.minimal == ((0, 2), (1, 3))
    assert found.group.tolist() == [0, 1, 0, 1]


def test_seed_case_4_dead_on_the_box_generic_off_it():
    w, b, q = double([[-1.0]]), double([-3.0]), double([[5.0]])
    assert labels((w, b, q)) == ("generic",)
    box = box_interval(w, b, double([-2.0]), double([2.0]))
    assert labels((w, b, q), interval=box) == ("dead",)
    assert labels((-w, -b, q), interval=box_interval(-w, -b, -double([2.0]), double([2.0]))) == (
        "always_on",
    )


def test_precedence():
    w = double([[1.0], [2.0], [0.0], [0.0], [3.0], [-4.0]])
    b = double([1.0, 2.0, 1.0, 1.0, 3.0, -4.0])
    q = double([[1.0, 1.0, 0.0, 1.0, 0.0, 1.0]])
    found = classify_units(w, b, q)
    # Unit 4 shares a boundary with 0, 1 and 5 but nothing reads it; unit 5 is on the other side.
    assert found.labels == (
        "duplicate",
        "duplicate",
        "q_degenerate",
        "w_degenerate",
        "q_degenerate",
        "antiparallel",
    )
    assert found.partner.tolist() == [1, 0, -1, -1, -1, 0]
    assert found.scale[0] == 0.5
    assert found.scale[5] == -4.0
    # Dead units are no partners.
    low, high = double([0.0] * 6), double([1.0, -1.0, 1.0, 1.0, 1.0, 1.0])
    narrow = classify_units(w, b, q, interval=(low - 1, high))
    assert narrow.labels[:2] == ("antiparallel", "dead")


def test_boxes_bound_and_data_are_attained():
    plant = Planter(0)
    w, b, _, _ = plant.network(7, 3, 1)
    low, high = -plant.uniform(3), plant.uniform(3)
    x = low + plant.uniform(4000, 3) * (high - low)
    corners = torch.cartesian_prod(*(torch.stack([a, c]) for a, c in zip(low, high, strict=True)))
    box, data = box_interval(w, b, low, high), data_interval(w, b, torch.cat([x, corners]))
    for bound, attained in zip(box, data, strict=True):
        torch.testing.assert_close(bound, attained)
    assert bool((data_interval(w, b, x)[1] <= box[1]).all())


def test_unbounded_boxes():
    infinite = double([torch.inf, torch.inf])
    w = double([[-1.0, -2.0], [1.0, -1.0], [0.0, 1.0], [0.0, 0.0]])
    b = double([-1.0, 0.0, 2.0, 3.0])
    low, high = box_interval(w, b, torch.zeros(2).double(), infinite)
    assert high.tolist() == [-1.0, torch.inf, torch.inf, 3.0]
    assert low.tolist() == [-torch.inf, -torch.inf, 2.0, 3.0]
    low, high = box_interval(w, b, -infinite, infinite)
    assert low.tolist() == [-torch.inf] * 3 + [3.0]


def test_tanh_units_are_equal_up_to_sign_and_not_up_to_scale():
    w, b = double([[1.0], [-1.0], [2.0], [1.0], [0.5]]), double([0.5, -0.5, 1.0, 0.5, 0.1])
    found = classify_units(w, b, torch.ones(1, 5).double(), activation="tanh")
    assert found.labels == ("duplicate", "antiparallel", "generic", "duplicate", "generic")
    assert found.scale[1] == -1.0
    assert found.partner.tolist() == [3, 0, -1, 0, -1]
    assert found.reversible.minimal == ()


@pytest.mark.parametrize("name", ["softsign", "tanhshrink", "softshrink", "hardshrink", "hardtanh"])
def test_units_of_odd_activations_are_equal_up_to_sign(name):
    w, b = double([[1.0], [-1.0], [2.0]]), double([0.5, -0.5, 1.0])
    found = classify_units(w, b, torch.ones(1, 3).double(), activation=name)
    assert found.labels == ("antiparallel", "antiparallel", "generic")
    clamp = activation("hardtanh", min_val=0.0, max_val=6.0)  # not odd
    assert classify_units(w, b, torch.ones(1, 3).double(), activation=clamp).labels == (
        ("generic",) * 3
    )


def test_other_activations_share_equal_weights_only():
    w, b = double([[1.0], [-1.0], [1.0], [0.0]]), double([0.5, -0.5, 0.5, 1.0])
    found = classify_units(w, b, torch.ones(1, 4).double(), activation="gelu")
    assert found.labels == ("duplicate", "generic", "duplicate", "w_degenerate")
    slopes = activation("prelu", weight=(0.1, 0.2, 0.3, 0.4))  # one per unit
    found = classify_units(w, b, torch.ones(1, 4).double(), activation=slopes)
    assert found.labels == ("generic", "generic", "generic", "w_degenerate")


def test_leaky_units_that_are_never_positive_are_affine():
    w, b, q = double([[1.0], [1.0], [1.0]]), double([-9.0, 9.0, 0.0]), torch.ones(1, 3).double()
    box = box_interval(w, b, double([-2.0]), double([2.0]))
    found = classify_units(w, b, q, activation="leaky_relu", interval=box)
    assert found.labels == ("always_on", "always_on", "generic")
    assert classify_units(w, b, q, interval=box).labels == ("dead", "always_on", "generic")


def test_no_units_and_bad_shapes():
    assert classify_units(torch.zeros(0, 2), torch.zeros(0), torch.zeros(1, 0)).labels == ()
    with pytest.raises(SkgeoError, match=r"expected \(d, n\), \(d,\) and \(k, d\)"):
        classify_units(torch.zeros(3, 2), torch.zeros(3), torch.zeros(3, 1))
