import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers.networks import normal
from skgeo.linalg._spectra import (
    RowFactor,
    effective_rank,
    eigenvalues_descending,
    eigenvectors_descending,
    participation_ratio,
)


def test_eigenvalues_match_numpy_and_are_never_negative():
    rows = normal(4, 9)
    values = eigenvalues_descending(rows.T @ rows)
    expected = np.linalg.svd(rows.numpy(), compute_uv=False) ** 2
    np.testing.assert_allclose(values[:4], expected, rtol=1e-12)
    assert bool((values >= 0).all())
    assert values[4:].max() < 1e-13 * values[0]


def test_rows_of_zeros_give_zeros_exactly():
    rows = normal(6, 5)
    expected = eigenvalues_descending(rows.T @ rows)
    wide = torch.zeros(6, 9, dtype=torch.float64)
    wide[:, [0, 2, 3, 7, 8]] = rows
    values = eigenvalues_descending(wide.T @ wide)
    torch.testing.assert_close(values[:5], expected, rtol=1e-13, atol=0)
    assert (values[5:] == 0).all()
    assert eigenvalues_descending(torch.zeros(3, 3)).tolist() == [0.0, 0.0, 0.0]


def test_eigenvectors_are_rows_in_descending_order():
    rows = normal(6, 5)
    matrix = rows.T @ rows
    vectors = eigenvectors_descending(matrix, 3)
    values = eigenvalues_descending(matrix)[:3]
    torch.testing.assert_close(vectors @ matrix, values.unsqueeze(1) * vectors)


@pytest.mark.parametrize("sizes", [[7], [1, 2, 4], [3, 3, 1]])
def test_row_factor_gives_the_singular_values_whatever_the_blocks(sizes):
    rows = normal(7, 4)
    factor = RowFactor(4)
    for block in rows.split(sizes):
        factor.update(block)
    expected = np.linalg.svd(rows.numpy(), compute_uv=False)
    np.testing.assert_allclose(factor.singular_values(), expected, rtol=1e-13)


def test_row_factor_keeps_digits_that_squaring_loses():
    basis = torch.linalg.qr(normal(8, 3)).Q
    turn = torch.linalg.qr(normal(3, 3, seed=1)).Q
    rows = basis * torch.tensor([1.0, 1e-5, 1e-11], dtype=torch.float64) @ turn
    factor = RowFactor(3)
    factor.update(rows)
    np.testing.assert_allclose(factor.singular_values(), [1.0, 1e-5, 1e-11], rtol=1e-4)
    squared = eigenvalues_descending(rows.T @ rows)
    assert not math.isclose(float(squared[2]), 1e-22, rel_tol=0.5)


def test_flat_spectra_have_their_length_as_effective_rank():
    weights = torch.tensor([3.0, 3.0, 3.0, 3.0, 0.0])
    assert effective_rank(weights) == pytest.approx(4.0, rel=1e-14)
    assert participation_ratio(weights) == pytest.approx(4.0, rel=1e-14)


def test_two_point_spectrum_in_closed_form():
    p = 0.2
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    assert effective_rank(torch.tensor([1 - p, p])) == pytest.approx(math.exp(entropy), rel=1e-7)
    expected = 1 / (p**2 + (1 - p) ** 2)
    assert participation_ratio(torch.tensor([1 - p, p])) == pytest.approx(expected, rel=1e-7)


def test_zero_spectrum_has_neither():
    assert math.isnan(effective_rank(torch.zeros(3)))
    assert math.isnan(participation_ratio(torch.zeros(3)))


def test_tiny_spectrum_does_not_underflow():
    assert participation_ratio(torch.full((3,), 1e-200, dtype=torch.float64)) == pytest.approx(3.0)


@given(hnp.arrays(np.float64, st.integers(1, 8), elements=st.floats(1e-6, 1e6)))
def test_summaries_lie_between_one_and_the_number_of_values(values):
    weights = torch.from_numpy(values)
    for quantity in (effective_rank, participation_ratio):
        assert 1 - 1e-12 <= quantity(weights) <= len(values) * (1 + 1e-12)
    # Renyi entropies decrease with their order: 2 against 1.
    assert participation_ratio(weights) <= effective_rank(weights) * (1 + 1e-12)
