import itertools
import math

import numpy as np
import pytest
import torch

from helpers.chain_oracles import exact_log_singular_values
from helpers.networks import normal
from skgeo import SkgeoError
from skgeo.linalg._products import (
    LongProduct,
    factor_tolerance,
    product_log_singular_values,
)


def haar(n, count, seed=0):
    q, r = torch.linalg.qr(normal(count, n, n, seed=seed))
    return q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)


def logs(factors, **options):
    return product_log_singular_values([f.unsqueeze(0) for f in factors], **options)[0].numpy()


def test_orthogonal_chains_are_isometries():
    found = logs(haar(40, 50))
    np.testing.assert_allclose(np.exp(found), 1.0, atol=1e-11)


@pytest.mark.parametrize("depth", [1, 2, 3, 10, 80])
def test_gaussian_chains_match_extended_precision(depth):
    factors = normal(depth, 6, 6, seed=depth)
    np.testing.assert_allclose(
        np.expm1(logs(factors) - exact_log_singular_values(factors)), 0.0, atol=1e-11
    )


def conditioned(n, values, depth, seed=0):
    q = haar(n, 2 * depth, seed)
    return [a @ torch.diag(values) @ b for a, b in zip(q[:depth], q[depth:], strict=True)]


@pytest.mark.parametrize(
    ("values", "tolerance"),
    [
        ([10.0, 10.0, 10.0, 0.1, 0.1, 0.1], 1e-10),  # clusters far apart
        ([1.001, 1.001, 1.0, 1.0, 0.999, 0.999], 1e-12),  # almost isometric
        ([1e4, 1e2, 1.0, 1.0, 1e-2, 1e-4], 1e-6),  # widely spread, beyond the floating range
    ],
)
def test_spectra_of_all_kinds_match_extended_precision(values, tolerance):
    factors = conditioned(6, torch.tensor(values, dtype=torch.float64), 60)
    found, expected = logs(factors), exact_log_singular_values(factors)
    np.testing.assert_allclose(np.expm1(found - expected), 0.0, atol=tolerance)


def test_spans_beyond_the_floating_range_are_split():
    ladder = torch.linspace(1.0, -1.0, 40, dtype=torch.float64) * 8
    factors = [torch.diag(ladder.exp())] * 100
    np.testing.assert_allclose(logs(factors), 100 * ladder, rtol=1e-12)
    # Mixed and without gaps: what is known is the sum, from determinants, and each end.
    factors = normal(300, 48, 48, seed=3)
    found = logs(factors)
    assert found[0] - found[-1] > 600
    assert (np.diff(found) <= 0).all()
    triangles = torch.linalg.qr(factors, mode="r").R.diagonal(dim1=1, dim2=2)
    assert found.sum() == pytest.approx(float(triangles.abs().log().sum()), rel=1e-12)
    backwards = logs([f.mT for f in factors.flip(0)])
    np.testing.assert_allclose(found, backwards, rtol=1e-10)
    v = torch.ones(48, 1, dtype=torch.float64)
    for _ in range(3):  # rounds of the power method, of which the last counts
        growth = 0.0
        for factor in [*factors, *(f.mT for f in factors.flip(0))]:
            v = factor @ v
            growth += math.log(float(v.norm()))
            v /= v.norm()
    assert found[0] == pytest.approx(growth / 2, rel=1e-9)


def test_exponents_of_gaussian_chains_are_newmans():
    n, depth = 6, 1500
    found = logs(normal(depth, n, n, seed=1) / n**0.5) / depth
    place = torch.arange(1, n + 1, dtype=torch.float64)
    expected = (np.log(2 / n) + torch.digamma((n - place + 1) / 2).numpy()) / 2
    np.testing.assert_allclose(found, expected, atol=0.06)


@pytest.mark.parametrize(
    "widths", [(9, 5, 7, 4, 8), (4, 9, 9, 5), (5, 9, 3, 9, 5), (3, 8), (8, 3), (1, 4, 1)]
)
def test_widths_may_change(widths):
    factors = [
        normal(3, after, before, seed=index)
        for index, (before, after) in enumerate(itertools.pairwise(widths))
    ]
    found = product_log_singular_values(factors)
    assert found.shape == (3, min(widths))
    for sample in range(3):
        expected = exact_log_singular_values([f[sample] for f in factors])[: min(widths)]
        np.testing.assert_allclose(found[sample], expected, rtol=1e-12, atol=1e-12)


def test_singular_factors_lose_directions_and_nothing_else():
    factors = []
    for index in range(12):
        mask = (torch.rand(4, 8, generator=torch.Generator().manual_seed(index)) > 0.1).double()
        factors.append(mask.unsqueeze(2) * normal(4, 8, 8, seed=100 + index))
    found = product_log_singular_values(factors).numpy()
    ranks = set()
    for sample in range(4):
        expected = exact_log_singular_values([f[sample] for f in factors])
        np.testing.assert_array_equal(np.isneginf(found[sample]), np.isneginf(expected))
        kept = np.isfinite(expected)
        np.testing.assert_allclose(found[sample][kept], expected[kept], rtol=1e-11)
        ranks.add(int(kept.sum()))
    assert len(ranks) > 1  # samples of one batch keep ranks of their own
    assert np.isneginf(logs([torch.zeros(3, 3, dtype=torch.float64)] * 2)).all()


def test_low_rank_that_shows_in_no_pivot_is_found():
    # Columns a, a, b, b: unpivoted QR may leave three small pivots or two.
    a, b = normal(7, 1), normal(7, 1, seed=1)
    first = torch.cat([a, a, b, b], 1)
    found = logs([first, normal(5, 7, seed=2)])
    expected = torch.linalg.svdvals(normal(5, 7, seed=2) @ first).log()
    assert np.isneginf(found).sum() == 2
    np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rounding_in_weak_directions_is_no_rank(seed, dtype):
    """Two blocks whose ranges avoid one vector, averaged: no factor alone shows the loss."""
    weak = 1e-9 if dtype == torch.float64 else 1e-4
    c = torch.nn.functional.normalize(normal(4, seed=seed), dim=0)
    project = torch.eye(4, dtype=torch.float64) - torch.outer(c, c)
    scales = torch.diag(torch.tensor([1.0, 1.0, 1.0, weak], dtype=torch.float64))
    blocks = [project @ normal(4, 4, seed=10 * seed + i) @ scales for i in range(2)]
    first = torch.block_diag(*blocks).to(dtype)
    average = torch.eye(4, dtype=dtype).repeat(1, 2) / 2
    for factors in ([first, average], [first, average, normal(4, 4, seed=seed).to(dtype)]):
        product = LongProduct(dtype=dtype)
        for factor in factors:
            product.multiply(factor.unsqueeze(0))
        found = product.log_singular_values()[0]
        whole = torch.linalg.multi_dot([f.double() for f in reversed(factors)])
        assert torch.isneginf(found).tolist() == [False, False, False, True]
        expected = torch.linalg.svdvals(whole).log()
        tolerance = 1e-9 if dtype == torch.float64 else 1e-6
        torch.testing.assert_close(found[:3], expected[:3], rtol=tolerance, atol=tolerance)


def test_weak_directions_that_are_real_survive_the_trial():
    factors = []
    for index in range(60):  # a bottleneck, then layers with units that are off
        mask = torch.logspace(0, -2, 9, dtype=torch.float64)
        mask[index % 9] = 0.0
        factors.append(mask.unsqueeze(1) * normal(9, 9, seed=50 + index))
    factors.insert(0, normal(9, 3, seed=7))
    factors.append(normal(5, 9, seed=8))
    found, expected = logs(factors), exact_log_singular_values(factors)[:3]
    assert expected[0] - expected[2] > 20
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def test_the_product_may_be_read_while_it_grows():
    factors = normal(9, 2, 5, 5, seed=4)
    product = LongProduct()
    whole = torch.eye(5, dtype=torch.float64).expand(2, 5, 5)
    for index, factor in enumerate(factors):
        product.multiply(factor)
        whole = factor @ whole
        assert len(product) == index + 1
        torch.testing.assert_close(
            product.log_singular_values().exp(),
            torch.linalg.svdvals(whole),
            rtol=1e-8,
            atol=0.0,
        )


def test_samples_do_not_see_each_other():
    factors = [normal(5, 6, 6, seed=index) for index in range(8)]
    factors[3][2, :, 0] = 0.0
    together = product_log_singular_values(factors)
    for sample in range(5):
        alone = product_log_singular_values([f[sample : sample + 1] for f in factors])
        torch.testing.assert_close(together[sample : sample + 1], alone, rtol=1e-12, atol=1e-12)


def test_the_tolerance_is_relative_to_each_factor():
    factor = torch.diag(torch.tensor([1.0, 1e-3])).double()
    assert np.isneginf(logs([factor] * 3, tol=1e-5)[1])
    np.testing.assert_allclose(logs([factor] * 3, tol=1e-7)[1], 3 * math.log(1e-3))
    assert factor_tolerance(4, 9) == 144 * torch.finfo(torch.float64).eps ** 2
    rounding = torch.diag(torch.tensor([1.0, 1e-8])).double()
    product = LongProduct(dtype=torch.float32)
    product.multiply(rounding.unsqueeze(0))
    assert product.log_singular_values()[0].tolist() == [0.0, -math.inf]


def test_factors_that_do_not_fit_are_refused():
    with pytest.raises(SkgeoError, match=r"\(1, 3, 5\) does not follow .* 4 coordinates"):
        product_log_singular_values([normal(1, 4, 4), normal(1, 3, 5)])
    with pytest.raises(SkgeoError, match="batch of 2"):
        product_log_singular_values([normal(2, 4, 4), normal(3, 4, 4)])
    with pytest.raises(SkgeoError, match="NaN or infinity"):
        product_log_singular_values([normal(1, 2, 2) / 0])
    with pytest.raises(SkgeoError, match="no factors"):
        product_log_singular_values([])


def test_half_precision_does_not_lose_whole_directions():
    """The second value, 0.6 of the first, is no rounding of bfloat16."""
    make = torch.Generator().manual_seed(0)
    wide = torch.linalg.qr(torch.randn(3, 5, generator=make, dtype=torch.float64).mT).Q.mT
    product = LongProduct(dtype=torch.bfloat16)
    product.multiply(torch.eye(5, dtype=torch.float64).unsqueeze(0))
    product.multiply(wide.unsqueeze(0))
    product.multiply(torch.diag(torch.tensor([1.0, 0.6, 0.5])).double().unsqueeze(0))
    logs = product.log_singular_values()[0]
    torch.testing.assert_close(logs, torch.tensor([1.0, 0.6, 0.5]).double().log())


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_coordinates_that_the_range_has_no_part_in_stay_zero(rank):
    """A factor that takes only units that the one before cuts off gives zero, and not rounding."""
    make = torch.Generator().manual_seed(0)
    left = torch.randn(20, 6, rank, generator=make, dtype=torch.float64)
    right = torch.randn(20, rank, 4, generator=make, dtype=torch.float64)
    some = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    product = LongProduct()
    product.multiply(some.unsqueeze(1) * (left @ right))
    product.multiply(torch.diag(1 - some).expand(20, 6, 6))
    assert bool((product.log_singular_values() == -torch.inf).all())
