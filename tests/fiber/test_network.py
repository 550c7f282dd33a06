import numpy as np
import pytest
import torch
from torch import nn

from skgeo.exceptions import SkgeoError
from skgeo.fiber._network import LinearNetwork


@pytest.fixture(params=[False, True], ids=["plain", "bias"])
def module(request):
    return nn.Sequential(nn.Linear(3, 2, bias=request.param), nn.Linear(2, 4, bias=False)).double()


@pytest.fixture
def network(module):
    first, second = (layer.weight.detach() for layer in module)
    bias = module[0].bias
    if bias is not None:
        first = torch.cat([first, bias.detach()[:, None]], 1)
    return LinearNetwork((first, second), bias is not None, False)


def test_both_layouts_of_the_weights(module, network):
    matrices = [weight.numpy() for weight in network.weights]
    vector = nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    np.testing.assert_array_equal(network.to_parameters(matrices), vector)
    for back, matrix in zip(network.to_matrices(vector), matrices, strict=True):
        np.testing.assert_array_equal(back, matrix)
    assert network.shapes == tuple(tuple(p.shape) for p in module.parameters())
    for part, p in zip(network.split(matrices), module.parameters(), strict=True):
        np.testing.assert_array_equal(part, p.detach().numpy())
    assert network.widths == (3 + network.has_bias, 2, 4)


def test_samples_that_do_not_fit(network):
    for wrong in (torch.ones(2, 4), torch.ones(2, 3, 1), torch.ones(3)):
        with pytest.raises(SkgeoError, match="expecting 3 features"):
            network.inputs(wrong)
    with pytest.raises(SkgeoError, match="X is a dict of tensors"):
        network.inputs({"x": torch.ones(2, 3)})


def test_samples_are_rows_with_the_constant_last(network):
    rows = network.inputs(torch.arange(6.0).reshape(2, 3))
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows[:, :3], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(rows[:, 3:], np.ones((2, int(network.has_bias))))


def test_changes_in_any_layout(network):
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(2, 3, sum(np.prod(s) for s in network.shapes)))

    def second_only(matrices):
        return [np.zeros_like(matrices[0]), 2 * matrices[1]]

    mapped = network.map_change(steps, second_only)
    np.testing.assert_array_equal(mapped[..., -8:], 2 * steps[..., -8:])
    assert not mapped[..., :-8].any()
    parts = [torch.from_numpy(rng.normal(size=shape)) for shape in network.shapes]
    *first, last = network.map_change(parts, second_only)
    np.testing.assert_array_equal(last, 2 * parts[-1].numpy())
    assert [part.shape for part in first] == list(network.shapes[:-1])


def test_changes_of_other_shapes(network):
    n_parameters = sum(np.prod(s) for s in network.shapes)
    for wrong in (1.0, np.ones(n_parameters - 1), [np.ones(n_parameters)] * 2, list(range(4))):
        with pytest.raises(SkgeoError, match=r"expected .*shapes|expected those of"):
            network.map_change(wrong, lambda matrices: matrices)
