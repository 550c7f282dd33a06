import pytest
import torch

from helpers.cases import BY_NAME
from skgeo import SkgeoError
from skgeo.jacobian._cotangents import pull_back, unit_cotangents


@pytest.fixture
def graph():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(4, n, 3, dtype=torch.float64, generator=generator) for n in (2, 5))
    x = torch.randn(6, 4, dtype=torch.float64, generator=generator)
    h = torch.einsum("nd,dij->nij", x, first).requires_grad_()
    g = torch.tanh(h).sum(1, keepdim=True) * torch.einsum("nd,dij->nij", x, second)
    return g.sum(1), [h, g]


# One pass for all, passes of 64 and of 4, and one pass for each.
@pytest.mark.parametrize(("count", "room"), [(9, 10**6), (150, 10**6), (150, 130), (9, 0)])
@pytest.mark.parametrize("batched", [True, False])
def test_every_way_gives_the_same_rows(graph, count, room, batched):
    output, tensors = graph
    one = sum(tensor.numel() * 8 for tensor in tensors)
    weights = torch.randn(count, *output.shape, dtype=torch.float64)
    passes = []

    def cotangents(which):
        passes.append(which.stop - which.start)
        return weights[which]

    rows = pull_back(output, tensors, cotangents, count, batched=batched, max_bytes=room * one)
    widest = {(9, 10**6): 9, (150, 10**6): 64, (150, 130): 4, (9, 0): 1}[count, room]
    assert max(passes) == (widest if batched else 1)
    assert sum(passes) == count
    for tensor, found in zip(tensors, rows, strict=True):
        for k, weight in enumerate(weights):
            (expected,) = torch.autograd.grad(output, tensor, weight, retain_graph=True)
            torch.testing.assert_close(found[:, k], expected.flatten(1), rtol=1e-13, atol=1e-13)


def test_samples_may_be_on_another_axis():
    h = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)  # positions, samples, width
    output = h.square().sum(0)
    (rows,) = pull_back(output, [h], unit_cotangents(output), 2, axes=[1])
    assert rows.shape == (5, 2, 6)
    expected = torch.zeros(5, 2, 3, 2, dtype=torch.float64)
    for k in range(2):
        expected[:, k, :, k] = 2 * h.detach()[:, :, k].T
    torch.testing.assert_close(rows, expected.flatten(2))


def test_a_tensor_that_does_not_matter_has_zero_rows():
    h, g = torch.ones(2, 3, requires_grad=True), torch.ones(2, 4, requires_grad=True)
    rows = pull_back(h * 2, [h, g], unit_cotangents(h), 3)
    assert rows[1].shape == (2, 3, 4)
    assert not rows[1].any()


class Once(torch.autograd.Function):
    """An operation that torch.func cannot batch."""

    @staticmethod
    def forward(ctx, x):
        return x * 3

    @staticmethod
    def backward(ctx, gradient):
        if torch._C._functorch.is_batchedtensor(gradient):
            raise RuntimeError("no batching here")
        return gradient * 3


def test_graphs_that_refuse_batches_are_looped_over():
    h = torch.randn(2, 5, requires_grad=True)
    output = Once.apply(h)
    (rows,) = pull_back(output, [h], unit_cotangents(output), 5)
    torch.testing.assert_close(rows, 3 * torch.eye(5).expand(2, 5, 5))


def test_a_graph_that_refuses_any_backward_pass_is_an_error():
    case = BY_NAME["mlp"]
    output = case.module()(case.inputs())
    with pytest.raises(SkgeoError, match="cannot be differentiated with respect to the layers"):
        pull_back(output.detach(), [output], unit_cotangents(output), 3)
