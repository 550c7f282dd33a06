import mpmath
import numpy as np
import pytest
import torch

from skgeo.linalg._graded import SPAN, graded_log_singular_values


def unit_triangle(n, size=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    upper = torch.randn(n, n, generator=generator, dtype=torch.float64).triu(1) * size
    return torch.eye(n, dtype=torch.float64) + upper / n


def exact(logs, unit):
    with mpmath.workdps(500):
        rows = [
            [mpmath.exp(mpmath.mpf(float(log))) * mpmath.mpf(value) for value in row]
            for log, row in zip(logs, unit.tolist(), strict=True)
        ]
        values = mpmath.svd_r(mpmath.matrix(rows), compute_uv=False)
        return sorted((float(mpmath.log(value)) for value in values), reverse=True)


@pytest.mark.parametrize("span", [0.0, 5.0, 30.0, 200.0, 0.9 * SPAN, SPAN])
def test_values_of_all_sizes_match_extended_precision(span):
    logs, unit = torch.linspace(span, 0.0, 7, dtype=torch.float64), unit_triangle(7)
    found = graded_log_singular_values(logs.unsqueeze(0), unit.unsqueeze(0))[0]
    np.testing.assert_allclose(found, exact(logs, unit), rtol=0.0, atol=1e-12)


def test_rows_need_not_be_in_order():
    logs, unit = torch.tensor([0.0, 3.0, -40.0, -38.0, 2.0]).double(), unit_triangle(5)
    found = graded_log_singular_values(logs.unsqueeze(0), unit.unsqueeze(0))[0]
    np.testing.assert_allclose(found, exact(logs, unit), rtol=0.0, atol=1e-12)


def test_spans_beyond_floating_point_fall_into_blocks_or_windows():
    # Sorted factors leave couplings that die out with the distance in size.
    for logs in (
        torch.tensor([900.0, 899.0, 895.0, 0.0, -1.0, -900.0]).double(),  # gaps to split at
        torch.linspace(500.0, -500.0, 60, dtype=torch.float64),  # none
    ):
        distance = (logs.unsqueeze(1) - logs.unsqueeze(0)).abs()
        unit = unit_triangle(len(logs)) * torch.exp(-distance)
        found = graded_log_singular_values(logs.unsqueeze(0), unit.unsqueeze(0))[0]
        np.testing.assert_allclose(found, exact(logs, unit), rtol=0.0, atol=1e-11)


def test_samples_of_all_kinds_share_a_batch():
    logs = torch.stack([torch.linspace(s, 0.0, 5, dtype=torch.float64) for s in (1.0, 50.0, 900.0)])
    unit = torch.stack([unit_triangle(5, 0.0)] * 3)
    found = graded_log_singular_values(logs, unit)
    torch.testing.assert_close(found, logs, rtol=1e-14, atol=1e-13)
