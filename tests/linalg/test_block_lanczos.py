import pytest
import torch

from helpers.networks import normal
from skgeo import SkgeoError
from skgeo.linalg._block_lanczos import block_lanczos

SIZE = 150
DECAY = torch.logspace(0, -9, SIZE, dtype=torch.float64)
SPECTRA = {
    "graded": DECAY,
    "even": torch.linspace(1, 0, SIZE, dtype=torch.float64),
    "power law": 1 / torch.arange(1, SIZE + 1, dtype=torch.float64) ** 2,
    "repeated": torch.cat([torch.ones(7), torch.full((9,), 0.5)]).double().repeat(1),
    "low rank": torch.cat([DECAY[:5], torch.zeros(SIZE - 5)]).double(),
    "of both signs": torch.linspace(-1, 1, SIZE, dtype=torch.float64),
    "zero": torch.zeros(SIZE, dtype=torch.float64),
}
SPECTRA["repeated"] = torch.cat([SPECTRA["repeated"], DECAY[: SIZE - 16] / 10])


def matrix(values):
    basis = torch.linalg.qr(normal(len(values), len(values))).Q
    return (basis * values) @ basis.T


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("tol", [1e-10, 1e-4])
@pytest.mark.parametrize("name", SPECTRA)
def test_values_and_vectors_are_those_of_the_dense_matrix(name, tol, width):
    values = SPECTRA[name]
    G = matrix(values)
    found, vectors = block_lanczos(lambda v: v @ G, normal(width, SIZE, seed=1), 10, tol=tol)
    expected = values.sort(descending=True).values[:10]
    # The error of a value is the square of its residual over the gap, where there is a gap.
    torch.testing.assert_close(found, expected, rtol=0, atol=max(tol**1.5, 1e-13))
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(10).double(), rtol=0, atol=1e-12)
    residuals = torch.linalg.vector_norm(vectors @ G - found[:, None] * vectors, dim=1)
    assert (residuals <= 1.01 * tol * found.abs() + 1e-13).all()


@pytest.mark.parametrize("n_values", [1, 6, 12])
def test_a_space_that_is_exhausted(n_values):
    G = matrix(DECAY[:12])
    found, _ = block_lanczos(lambda v: v @ G, normal(5, 12, seed=1), n_values)
    torch.testing.assert_close(found, DECAY[:12][:n_values], rtol=0, atol=1e-14)


def test_a_start_inside_an_invariant_subspace():
    G = torch.diag(torch.tensor([1.0, 1.0, 1.0, 5.0, 4.0])).double()
    start = torch.tensor([[1.0, 0, 0, 0, 0], [2.0, 0, 0, 0, 0]]).double()
    found, _ = block_lanczos(lambda v: v @ G, start, 2)
    torch.testing.assert_close(found, torch.tensor([5.0, 4.0]).double())


def test_products_in_float32_converge_to_their_rounding():
    """The smallest of the values asked for is near the rounding of the products."""
    values = torch.logspace(0, -7, SIZE, dtype=torch.float64)
    G = matrix(values).float()
    eps = float(torch.finfo(torch.float32).eps)
    found, _ = block_lanczos(
        lambda v: (v.float() @ G).double(), normal(1, SIZE), 100, tol=1e-5, noise=16 * eps
    )
    torch.testing.assert_close(found, values[:100], rtol=0, atol=16 * eps)


def test_the_same_answer_every_time():
    G = matrix(SPECTRA["repeated"])
    first, second = (block_lanczos(lambda v: v @ G, normal(1, SIZE), 4) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_bad_input():
    G = matrix(DECAY)
    start = normal(1, SIZE)
    with pytest.raises(SkgeoError, match="n_values=0"):
        block_lanczos(lambda v: v @ G, start, 0)
    with pytest.raises(SkgeoError, match="n_values=151"):
        block_lanczos(lambda v: v @ G, start, SIZE + 1)
    with pytest.raises(SkgeoError, match="NaN or infinite"):
        block_lanczos(lambda v: v * float("nan"), start, 3)
    with pytest.raises(SkgeoError, match="were not enough"):
        block_lanczos(lambda v: v @ G, start, 3, max_steps=2)
