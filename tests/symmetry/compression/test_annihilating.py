from itertools import combinations

import pytest
import torch

from helpers.planted import Planter, evaluate, flip, seed_case_31
from skgeo.symmetry import AnnihilatingSets, annihilating_sets
from skgeo.symmetry._compression.binary import binary_blocks


def all_annihilating_sets(w, q, tol=1e-9):
    """Every set of units that something reads and that read something, by enumeration."""
    live = [i for i in range(len(w)) if bool(w[i].any()) and bool(q[:, i].any())]
    found = []
    for size in range(1, len(live) + 1):
        for units in combinations(live, size):
            chosen = list(units)
            gross = sum(float(q[:, i].norm() * w[i].norm()) for i in units)
            if float((q[:, chosen] @ w[chosen]).norm()) <= tol * gross:
                found.append(units)
    return found


def minimal(sets):
    return [s for s in sets if not any(set(o) < set(s) for o in sets)]


def test_seed_case_1():
    w, b, q, _ = seed_case_31()
    found = annihilating_sets(w, q)
    assert found.minimal == ((0, 2), (1, 3))
    assert found.complete
    assert found.size == 4
    assert found.unions() == ((0, 2), (1, 3), (0, 1, 2, 3))
    shifts = [float(q[0, list(s)] @ b[list(s)]) for s in found.unions()]
    assert shifts == [-2.0, -2.0, -4.0]


@pytest.mark.parametrize("seed", range(40))
def test_against_enumeration(seed):
    plant = Planter(seed)
    d, n, k = 9, 1 + seed % 3, 1 + seed % 2
    w = torch.from_numpy(plant.integers.integers(-2, 3, (d, n))).double()
    q = torch.from_numpy(plant.integers.integers(-2, 3, (k, d))).double()
    found = annihilating_sets(w, q)
    everything = all_annihilating_sets(w, q)
    assert found.complete
    assert sorted(found.minimal) == sorted(minimal(everything))
    if len(found.minimal) <= 10:
        assert sorted(found.unions()) == sorted(everything)


@pytest.mark.parametrize("m", [2, 3, 5, 8])
def test_rotated_weights_annihilate(m):
    angle = 2 * torch.pi * torch.arange(m, dtype=torch.float64) / m
    w = torch.stack([angle.cos(), angle.sin()], dim=1)
    found = annihilating_sets(w, torch.ones(1, m, dtype=torch.float64))
    smallest = next(p for p in (2, 3, 5, 7) if m % p == 0)
    assert found.complete
    # The m-th roots of unity: for m a power of a prime p, the cosets of the p-th roots.
    assert len(found.minimal) == m // smallest
    assert all(len(s) == smallest for s in found.minimal)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_planted_sets_in_general_position_are_the_only_ones(seed, precision):
    plant = Planter(seed)
    size = 2 + seed % 5
    w, b, q, c = plant.annihilating(14, 4, 3, size)
    w, b, q, c = (t.to(precision).double() for t in plant.disguise(w, b, q, c))
    tol = 1e-10 if precision == torch.float64 else 2e-6
    found = annihilating_sets(w, q, tol=tol)
    assert found.complete
    assert len(found.minimal) == 1
    assert len(found.minimal[0]) == size
    x = 3 * plant.normal(100, 4)
    turned = flip((w, b, q, c), found.minimal[0])
    torch.testing.assert_close(
        evaluate(turned, x), evaluate((w, b, q, c), x), rtol=0, atol=2e4 * tol
    )


def test_generic_networks_have_none_and_that_is_proved_up_to_the_rank():
    plant = Planter(0)
    for d, n, k in ((12, 4, 3), (60, 10, 10), (700, 40, 30)):
        w, _, q, _ = plant.network(d, n, k)
        found = annihilating_sets(w, q)
        assert found == AnnihilatingSets((), d, True)


def test_where_not_all_can_be_found_small_sets_are():
    plant = Planter(1)
    w, _, q, _ = plant.network(150, 4, 2)
    for units in ((3, 8), (20, 31, 44), (50, 61, 72, 83)):
        chosen = list(units)
        q[:, chosen] = q[:, chosen[:1]]
        w[chosen[-1]] = -w[chosen[:-1]].sum(0)
    found = annihilating_sets(w, q)
    assert not found.complete
    assert found.size == 4
    assert found.minimal == ((3, 8), (20, 31, 44), (50, 61, 72, 83))
    assert annihilating_sets(w, q, max_size=2).minimal == ((3, 8),)
    assert annihilating_sets(w, q, max_size=2).size == 2


def test_pairs_among_many_units():
    plant = Planter(2)
    w, _, q, _ = plant.network(4000, 5, 2)
    w[17], q[:, 17] = -2 * w[1234], q[:, 1234] / 2
    found = annihilating_sets(w, q)
    assert found.minimal == ((17, 1234),)
    assert (found.size, found.complete) == (2, False)


def test_units_without_weights_take_no_part():
    zero = torch.zeros(3, 2, dtype=torch.float64)
    assert annihilating_sets(zero, torch.ones(1, 3, dtype=torch.float64)).minimal == ()
    assert annihilating_sets(zero[:0], torch.ones(1, 0, dtype=torch.float64)).complete


def all_solutions(vectors, target):
    d = vectors.shape[1]
    masks = torch.arange(2**d)[:, None] >> torch.arange(d) & 1
    rest = masks.double() @ vectors.T - target
    return {tuple(m) for m, r in zip(masks.tolist(), rest, strict=True) if float(r.norm()) < 1e-9}


@pytest.mark.parametrize("seed", range(30))
def test_systems_with_a_target_against_enumeration(seed):
    plant = Planter(seed)
    p, d = 1 + seed % 3, 10
    vectors = torch.from_numpy(plant.integers.integers(-3, 4, (p, d))).double()
    vectors[0, (vectors == 0).all(0)] = 1.0
    target = torch.from_numpy(plant.integers.integers(-4, 5, p)).double()
    if bool((target == 0).all()):
        target[0] = 1.0
    blocks = binary_blocks(vectors, target, 1e-10)
    everything = all_solutions(vectors, target)
    if not blocks:
        assert not everything
        return
    (block,) = blocks
    assert block.complete
    found = set()
    for row in block.solutions:
        mask = torch.zeros(d, dtype=torch.int64)
        mask[block.columns] = row.long()
        found.add(tuple(mask.tolist()))
    outside = [i for i in range(d) if i not in block.columns.tolist()]
    assert found == {s for s in everything if not any(s[i] for i in outside)}
    assert bool(found) == bool(everything)


def test_thirty_numbers_of_one_row_are_solved_by_halves():
    plant = Planter(4)
    vectors = plant.normal(1, 28)
    chosen = plant.integers.choice(28, size=11, replace=False)
    target = vectors[:, chosen].sum(1)
    (block,) = binary_blocks(vectors, target, 1e-13)
    assert block.complete
    picked = [sorted(block.columns[row].tolist()) for row in block.solutions]
    assert sorted(chosen.tolist()) in picked
