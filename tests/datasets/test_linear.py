import numpy as np
import pytest
import torch
from torch import nn

from skgeo import SkgeoError
from skgeo.datasets.linear import linear_network


def test_it_computes_the_product():
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=shape) for shape in ((3, 4), (2, 3), (5, 2))]
    net = linear_network(matrices)
    assert isinstance(net, nn.Sequential)
    assert [p.shape for p in net.parameters()] == [m.shape for m in matrices]
    x = torch.from_numpy(rng.normal(size=(6, 4)))
    expected = x.numpy() @ (matrices[2] @ matrices[1] @ matrices[0]).T
    np.testing.assert_allclose(net(x).detach(), expected, rtol=1e-12)
    for p, matrix in zip(net.parameters(), matrices, strict=True):
        np.testing.assert_array_equal(p.detach(), matrix)
        assert p.requires_grad


@pytest.mark.parametrize(
    ("matrices", "dtype"),
    [
        ([np.eye(2)], torch.float64),
        ([[[1, 0], [0, 1]]], torch.float64),
        ([np.eye(2, dtype=np.float32)], torch.float32),
        ([np.eye(2, dtype=np.float32), np.eye(2, dtype=int)], torch.float64),
        ([torch.eye(2), torch.eye(2, dtype=torch.float64)], torch.float64),
        ([torch.eye(2, dtype=torch.bfloat16)], torch.bfloat16),
    ],
)
def test_dtype_is_the_widest(matrices, dtype):
    assert {p.dtype for p in linear_network(matrices).parameters()} == {dtype}


def test_matrices_are_copied_and_no_random_number_is_drawn():
    array, tensor = np.eye(2), torch.eye(2, dtype=torch.float64, requires_grad=True)
    state = torch.get_rng_state()
    net = linear_network([array, tensor])
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    assert array.sum() == tensor.sum() == 2


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        ([], "list of matrices is empty"),
        (np.eye(2), "Put the matrix in a list"),
        (torch.eye(2), "Put the matrix in a list"),
        ([np.ones(3)], r"W_1 has shape \(3,\)"),
        ([np.ones((2, 2)), np.ones((0, 2))], r"W_2 has shape \(0, 2\)"),
        ([np.ones((3, 2)), np.ones((2, 2))], r"W_1 of shape \(3, 2\) and W_2 of shape \(2, 2\)"),
        ([np.array([[np.nan, 1.0]])], "W_1 has 1 entries that are NaN"),
        ([np.ones((1, 1), complex)], "W_1 is complex"),
        ([[["a"]]], "W_1 is not a matrix of numbers"),
    ],
)
def test_what_is_not_a_chain(matrices, message):
    with pytest.raises(SkgeoError, match=message):
        linear_network(matrices)
