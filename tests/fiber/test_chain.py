import numpy as np
import pytest
import torch

from skgeo.exceptions import SkgeoError
from skgeo.fiber import as_parameters, flow_bases, from_parameters, staircase
from skgeo.fiber._chain import as_chain, precision


def test_arrays_tensors_and_lists_are_read():
    mixed = [np.ones((3, 2), np.float32), torch.ones(1, 3, requires_grad=True), [[2]]]
    chain = as_chain(mixed)
    assert [w.shape for w in chain] == [(3, 2), (1, 3), (1, 1)]
    assert all(w.dtype == np.float64 for w in chain)


@pytest.mark.parametrize(
    ("weights", "eps"),
    [
        ([np.eye(2)], 2.0**-52),
        ([np.eye(2, dtype=int)], 2.0**-52),
        ([torch.eye(2, dtype=torch.float64), np.eye(2, dtype=np.float32)], 2.0**-23),
        ([torch.eye(2, dtype=torch.bfloat16)], 2.0**-7),
    ],
)
def test_precision_is_that_of_the_coarsest_matrix(weights, eps):
    assert precision(weights) == eps


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([], "the list is empty"),
        (np.eye(2), "Put it in a list"),
        (torch.eye(2), "Put it in a list"),
        ([np.ones(3)], r"W_1 has shape \(3,\)"),
        ([np.ones((2, 2)), np.ones((2, 0))], r"W_2 has shape \(2, 0\)"),
        ([np.ones((3, 2)), np.ones((2, 2))], r"W_1 of shape \(3, 2\) and W_2 of shape \(2, 2\)"),
        ([np.ones((2, 2)), np.array([[1.0, np.nan], [np.inf, 0]])], "W_2 has 2 entries"),
        ([torch.full((1, 1), float("nan"))], "W_1 has 1 entries"),
        ([np.ones((1, 1), complex)], "W_1 is complex"),
        ([torch.ones(1, 1, dtype=torch.complex64)], "W_1 is complex"),
        ([[["a"]]], "W_1 is not a matrix of numbers"),
        ([[[1.0], [1.0, 2.0]]], "W_1 is not a matrix of numbers"),
    ],
)
def test_what_is_no_linear_network(weights, message):
    for function in (as_chain, staircase, flow_bases):
        with pytest.raises(SkgeoError, match=message):
            function(weights)


def test_parameters_are_in_the_order_of_torch():
    chain = torch.nn.Sequential(
        torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 4, bias=False)
    )
    matrices = as_chain(list(chain.parameters()))
    vector = as_parameters(matrices)
    expected = torch.nn.utils.parameters_to_vector(chain.parameters()).detach().numpy()
    assert (vector == expected).all()
    for back, matrix in zip(from_parameters(vector, [2, 3, 4]), matrices, strict=True):
        assert (back == matrix).all()


def test_many_vectors_at_once():
    rows = np.arange(36.0).reshape(2, 18)
    matrices = from_parameters(rows, [2, 3, 4])
    assert [m.shape for m in matrices] == [(2, 3, 2), (2, 4, 3)]
    assert (as_parameters(matrices) == rows).all()
    with pytest.raises(SkgeoError, match="has 18 weights; got a vector of 17"):
        from_parameters(rows[:, 1:], [2, 3, 4])
