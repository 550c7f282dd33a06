import pytest
import torch

from helpers.networks import normal
from skgeo import SkgeoError
from skgeo.linalg._golub_kahan import golub_kahan


def run(A, n_values, n_steps):
    return golub_kahan(
        lambda v: (A @ v.unsqueeze(-1)).squeeze(-1),
        lambda u: (A.mT @ u.unsqueeze(-1)).squeeze(-1),
        normal(len(A), A.shape[1], seed=1),
        n_values,
        n_steps,
    )


@pytest.mark.parametrize("shape", [(3, 12, 7), (3, 7, 12), (1, 5, 5)])
def test_all_values_after_as_many_steps_as_the_smaller_side(shape):
    A = normal(*shape)
    side = min(shape[1:])
    values, vectors, residuals = run(A, side, side)
    torch.testing.assert_close(values, torch.linalg.svdvals(A), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(
        vectors @ vectors.mT, torch.eye(side).double().expand(shape[0], -1, -1)
    )
    torch.testing.assert_close(
        torch.linalg.vector_norm(A @ vectors.mT, dim=1), values, rtol=1e-12, atol=1e-13
    )
    assert float(residuals.max()) < 1e-12


def test_residuals_bound_the_error_and_values_come_from_below():
    A = normal(4, 60, 80)
    exact = torch.linalg.svdvals(A)
    for steps in (6, 12, 25):
        values, _, residuals = run(A, 5, steps)
        assert (values <= exact[:, :5] + 1e-12).all()
        nearest = (values.unsqueeze(-1) - exact.unsqueeze(1)).abs().amin(-1)
        assert (nearest <= residuals + 1e-12).all()
    assert (values[:, 0] - exact[:, 0]).abs().max() < 1e-3


def test_matrices_of_different_rank_in_one_batch():
    A = torch.stack([normal(6, 1) @ normal(1, 9), normal(6, 9), torch.zeros(6, 9).double()])
    values, vectors, _ = run(A, 4, 6)
    torch.testing.assert_close(values, torch.linalg.svdvals(A)[:, :4], rtol=1e-11, atol=1e-13)
    assert torch.isfinite(vectors).all()


def test_repeated_values_come_as_often_as_they_are():
    exact = torch.tensor([[3.0, 3.0, 3.0, 2.0, 1.0, 0.0], [5.0, 5.0, 5.0, 5.0, 5.0, 5.0]]).double()
    bases = torch.linalg.qr(normal(2, 6, 6)).Q, torch.linalg.qr(normal(2, 6, 6, seed=2)).Q
    values, _, _ = run(bases[0] @ torch.diag_embed(exact) @ bases[1], 6, 6)
    torch.testing.assert_close(values, exact, rtol=1e-12, atol=1e-12)


def test_converged_values_come_once():
    A = torch.diag(torch.cat([torch.tensor([9.0, 5.0]), torch.linspace(1, 0.9, 38)])).double()
    values, _, _ = run(A.unsqueeze(0), 4, 20)
    assert values[0, :2].tolist() == pytest.approx([9.0, 5.0], rel=1e-12)
    assert float(values[0, 2]) <= 1.0 + 1e-12


def test_too_few_steps_are_refused():
    with pytest.raises(SkgeoError, match="n_steps=2"):
        run(normal(1, 5, 5), 3, 2)
