import pytest
import torch

from helpers.networks import mlp, normal
from skgeo.chain._topk import default_steps, leading_singular_values


def products(A):
    calls = []

    def push(v):
        calls.append(1)
        return torch.einsum("bij,bj->bi", A, v)

    return push, lambda u: torch.einsum("bij,bi->bj", A, u), calls


def test_ten_values_of_a_deep_product_take_45_pairs():
    """The Jacobian of eight tanh layers at initialisation, 512 by 784."""
    net = mlp(784, *[512] * 8, 10, dtype=torch.float64)[:16]
    x = normal(1, 784)
    with torch.no_grad():
        jacobian, h = torch.eye(784, dtype=torch.float64), x
        for place in range(0, 16, 2):
            h = net[place : place + 2](h)
            jacobian = (1 - h.square()).T * (net[place].weight @ jacobian)
    push, pull, calls = products(jacobian.unsqueeze(0))
    found, errors = leading_singular_values(push, pull, (1, 512, 784), 10)
    expected = torch.linalg.svdvals(jacobian)[:10]
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=0.0)
    assert len(calls) <= 45
    assert (errors[0] <= 1e-5 * found[0, 0]).all()


def test_spectra_without_gaps_take_more_steps():
    A = normal(2, 80, 100)
    push, pull, calls = products(A)
    found, _ = leading_singular_values(push, pull, A.shape, 5)
    assert len(calls) > default_steps(5, 80)
    torch.testing.assert_close(found, torch.linalg.svdvals(A)[:, :5], rtol=1e-5, atol=0.0)
    few, errors = leading_singular_values(push, pull, A.shape, 5, n_steps=12)
    assert (few <= found + 1e-12).all()
    assert (errors > 1e-3 * few).any(1).all()  # and it is said that they have not settled


def test_samples_do_not_see_each_other():
    A = torch.cat(
        [normal(1, 80, 60), torch.diag(torch.linspace(9, 1, 60).double()).new_zeros(1, 80, 60)]
    )
    A[1, :60] = torch.diag(torch.logspace(3, 0, 60, dtype=torch.float64))
    together, _ = leading_singular_values(*products(A)[:2], A.shape, 4)
    for sample in range(2):
        one = A[sample : sample + 1]
        alone, _ = leading_singular_values(*products(one)[:2], one.shape, 4)
        torch.testing.assert_close(together[sample], alone[0], rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("shape", [(3, 5, 9), (3, 9, 5), (1, 1, 4)])
def test_all_values_of_small_matrices(shape):
    A = normal(*shape)
    side = min(shape[1:])
    found, _ = leading_singular_values(*products(A)[:2], shape, side)
    torch.testing.assert_close(found, torch.linalg.svdvals(A), rtol=1e-10, atol=1e-12)


def test_a_rank_below_the_number_gives_zeros():
    A = normal(2, 30, 2) @ normal(2, 2, 40, seed=1)
    found, _ = leading_singular_values(*products(A)[:2], A.shape, 4)
    torch.testing.assert_close(found[:, :2], torch.linalg.svdvals(A)[:, :2])
    assert (found[:, 2:] < 1e-12).all()
