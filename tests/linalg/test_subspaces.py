import pytest
import torch

from helpers.networks import normal
from skgeo.linalg._subspaces import complement, orient_rows, orthonormalise_rows


@pytest.mark.parametrize("noise", [1e-9, 1e-3])
def test_orthonormalise_keeps_the_span_and_the_first_row(noise):
    rows = torch.linalg.qr(normal(9, 4)).Q.T + noise * normal(4, 9, seed=1)
    tidy = orthonormalise_rows(rows)
    torch.testing.assert_close(tidy @ tidy.T, torch.eye(4).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(
        rows - rows @ tidy.T @ tidy, torch.zeros(4, 9).double(), atol=1e-14, rtol=0
    )
    torch.testing.assert_close(tidy[0], rows[0] / rows[0].norm())


def test_orthonormalise_falls_back_on_qr_for_dependent_rows():
    rows = torch.stack([normal(5), normal(5)])
    tidy = orthonormalise_rows(rows)
    torch.testing.assert_close(tidy @ tidy.T, torch.eye(2).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(tidy[0], rows[0] / rows[0].norm())


def test_orient_makes_the_largest_entry_positive():
    rows = orient_rows(normal(20, 7))
    assert bool((rows.gather(1, rows.abs().argmax(1, keepdim=True)) > 0).all())
    assert orient_rows(rows[:0]).shape == (0, 7)


@pytest.mark.parametrize("count", [0, 3, 6])
def test_complement_completes_an_orthonormal_basis(count):
    rows = torch.linalg.qr(normal(6, 6)).Q.T[:count]
    both = torch.cat([rows, complement(rows)])
    torch.testing.assert_close(both @ both.T, torch.eye(6).double(), rtol=0, atol=1e-14)
