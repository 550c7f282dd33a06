import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo.network import bind


@pytest.mark.parametrize("batch_size", [1, 4, None])
def test_ranges_are_the_least_and_largest_values(batch_size):
    module, X = mlp(3, 5, 2), normal(9, 3)
    with assert_untouched(module):
        found = bind(module, X, batch_size=batch_size).ranges
    values = module[0](X).detach()
    for met, expected in [
        (found.layers["0"].inputs, X),
        (found.layers["0"].outputs, values),
        (found.layers["2"].inputs, values.tanh()),
    ]:
        torch.testing.assert_close(met.low, expected.amin(0))
        torch.testing.assert_close(met.high, expected.amax(0))
    assert set(found.layers) == {"0", "2"}


def test_channels_are_taken_over_positions():
    module = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 1, 1)).double()
    X = normal(6, 2, 4, 4)
    found = bind(module, X).ranges.layers["0"]
    values = module[0](X).detach()
    torch.testing.assert_close(found.outputs.high, values.amax((0, 2, 3)))
    torch.testing.assert_close(found.inputs.low, X.amin((0, 2, 3)))


def test_positions_of_features_on_the_last_axis():
    module, X = mlp(3, 4, 2), normal(6, 5, 3)
    found = bind(module, X).ranges.layers["0"]
    torch.testing.assert_close(found.outputs.low, module[0](X).detach().amin((0, 1)))


def test_rows_and_entries_that_never_meet_anything():
    tokens = torch.tensor([[0, 1], [1, 3]])
    found = bind(BY_NAME["embedding"].module(), tokens, batch_size=1).ranges
    (reached,) = (met.reached for met in found.layers.values() if met.inputs is None)
    assert reached[:4].tolist() == [True, True, False, True]
    image = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    image[..., 0, 0] = 1.0
    kernel = nn.Conv2d(1, 1, 2, bias=False).double()
    reached = bind(kernel, image).ranges.layers[""].reached
    assert reached.flatten().tolist() == [True, False, False, False]


def test_calls_are_counted_over_batches():
    found = bind(mlp(3, 4, 2), normal(9, 3), batch_size=4).ranges
    assert found.calls["0"] == found.calls[""] == 3
