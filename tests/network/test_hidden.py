import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.networks import mlp, normal
from skgeo.network import activation
from skgeo.network._flow import read_flow
from skgeo.network._hidden import hidden_units_of


def hidden(module, **options):
    return {units.name: units for units in hidden_units_of(read_flow(module), **options)}


class Through(nn.Module):
    """A hidden layer with any function behind it."""

    def __init__(self, function):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.function = function

    def forward(self, x):
        return self.second(self.function(self.first(x)))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (nn.Hardtanh(-2, 3), activation("hardtanh", min_val=-2.0, max_val=3.0)),
        (lambda z: F.hardtanh(z, -2, 3), activation("hardtanh", min_val=-2.0, max_val=3.0)),
        (lambda z: z.clamp(-2, 3), activation("hardtanh", min_val=-2.0, max_val=3.0)),
        (lambda z: F.elu(z, 2.0), activation("elu", alpha=2.0)),
        (nn.Softplus(3), activation("softplus", beta=3.0)),
        (nn.Dropout(), activation("identity")),
    ],
)
def test_activations_keep_their_options(function, expected):
    units = hidden(Through(function))["first"]
    assert units.activation == expected
    assert units.is_dense
    assert not units.is_rectified


def test_units_are_arrays():
    module = mlp(3, 4, 2, dtype=torch.float32)
    (units,) = hidden_units_of(read_flow(module))
    weights, biases = units.incoming
    assert weights.dtype == biases.dtype == units.outgoing.dtype == torch.float64
    torch.testing.assert_close(weights, module[0].weight.detach().double())
    torch.testing.assert_close(biases, module[0].bias.detach().double())
    torch.testing.assert_close(units.outgoing, module[2].weight.detach().double())


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_batch_norm_is_multiplied_into_the_layer_before(kind):
    torch.manual_seed(0)
    if kind == "linear":
        first, norm, x = nn.Linear(3, 4), nn.BatchNorm1d(4), normal(5, 3)
        last = nn.Linear(4, 2)
    else:
        first, norm, x = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), normal(5, 3, 1, 1)
        last = nn.Conv2d(4, 2, 1)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    module = nn.Sequential(first, norm, nn.ReLU(), last).double().eval()
    found = hidden(module)
    assert list(found) == ["1"]
    units = found["1"]
    assert (units.source, units.makers) == ("0", [norm, first])
    weights, biases = units.incoming
    torch.testing.assert_close(x.flatten(1) @ weights.T + biases, module[:2](x).flatten(1).detach())


def test_grouped_convolutions_are_not_merged_with_their_norm():
    """Equal kernels of two channels read different inputs."""
    module = nn.Sequential(
        nn.Conv2d(2, 2, 2, groups=2), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 1, 1)
    )
    units = hidden(module.eval())["1"]
    assert units.source == "1"
    assert units.incoming[0].shape == (2, 2)
    assert units.incoming[0][0, 1] == 0


def test_norms_without_gain():
    norm = nn.BatchNorm1d(4, affine=False)
    norm.running_mean.normal_(generator=torch.Generator().manual_seed(0))
    norm.running_var.fill_(0.3)
    module = nn.Sequential(nn.Linear(3, 4), nn.Identity(), norm, nn.ReLU(), nn.Linear(4, 1))
    units = hidden(module.double().eval())["2"]
    assert (units.source, units.width) == ("0", 4)
    weights, biases = units.incoming
    x = normal(5, 3)
    torch.testing.assert_close(x @ weights.T + biases, module[:3](x).detach())


def test_activations_behind_a_flattening():
    module = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Tanh(), nn.Linear(12, 2))
    units = hidden(module)["0"]
    assert units.activation == activation("tanh")
    assert units.outgoing.shape == (8, 3)


def test_positions_are_not_units():
    """A linear layer on a convolution's outputs reads their last axis."""
    assert hidden(nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU(), nn.Linear(6, 2))) == {}
    assert hidden(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Conv1d(6, 2, 1))) == {}


@pytest.mark.parametrize("channels_first", [True, False])
def test_outgoing_weights_of_flattened_units(channels_first):
    """What a unit adds to the outputs is linear in its column of outgoing weights."""
    first = nn.Conv1d(2, 3, 2) if channels_first else nn.Linear(2, 3)
    module = nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double()
    (units,) = hidden_units_of(read_flow(module))
    assert units.outgoing.shape == (8, 3)
    h = normal(1, 3, 4) if channels_first else normal(1, 4, 3)
    by_unit = h[0] if channels_first else h[0].T
    parts = units.outgoing.reshape(2, 4, 3)
    expected = torch.einsum("kpu,up->k", parts, by_unit)
    found = nn.functional.linear(h.flatten(1), module[3].weight)[0]
    torch.testing.assert_close(expected, found.detach())
    (consumer,) = units.consumers
    torch.testing.assert_close(module[3].weight[consumer.where(1)].detach(), parts[:, :, 1])


def test_a_softmax_sees_differences_of_logits():
    module = mlp(3, 4, 3)
    assert not hidden(module)["0"].meets_softmax
    units = hidden(module, softmax=True)["0"]
    assert units.meets_softmax
    assert units.outgoing_seen.sum(0).abs().max() < 1e-14
    torch.testing.assert_close(units.outgoing_seen.diff(dim=0), units.outgoing.diff(dim=0))


def test_units_that_something_else_reads_are_left_out():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = (nn.Linear(3, 3) for _ in range(3))

        def forward(self, x):
            h = self.first(x).relu()
            return self.third(h + self.second(h).relu())

    assert hidden(Residual()) == {}


def test_maxima_on_the_way_are_told():
    def build(pool):
        return nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), pool, nn.Conv2d(2, 1, 1))

    assert hidden(build(nn.MaxPool2d(2)))["0"].is_pooled
    assert not hidden(build(nn.AvgPool2d(2)))["0"].is_pooled
