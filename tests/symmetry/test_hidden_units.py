import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal
from skgeo import SkgeoError
from skgeo.network import bind
from skgeo.symmetry._hidden_units import classify_network
from skgeo.symmetry._network import SymmetryNetwork


def classes(module, X, **options):
    network = SymmetryNetwork(bind(module, X))
    return {layer.name: layer.classes for layer in classify_network(network, **options)}


def convolutional(*between):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 2), norm, nn.ReLU(), *between, nn.Flatten(), nn.LazyLinear(2)
    )
    module = module.double().eval()
    module(torch.zeros(1, 1, 5, 5).double())
    return module


@pytest.fixture(autouse=True)
def own_random_state():
    with torch.random.fork_rng(devices=[]):
        yield


def fold_twice(module, sign):
    """Make channel 1 a multiple of channel 0 after the normalisation, not before it."""
    conv, norm = module[0], module[1]
    root = (norm.running_var + norm.eps).sqrt()
    with torch.no_grad():
        gain = norm.weight[0] / root[0]
        norm.weight[1] = sign * 2.0
        conv.weight[1] = gain * conv.weight[0] * root[1]
        shift = norm.bias[0] + gain * (conv.bias[0] - norm.running_mean[0])
        norm.bias[1] = sign * 2 * shift - norm.weight[1] / root[1] * (
            conv.bias[1] - norm.running_mean[1]
        )


@pytest.mark.parametrize(("sign", "label"), [(1, "duplicate"), (-1, "antiparallel")])
def test_batch_norm_is_multiplied_in(sign, label):
    module = convolutional(nn.AvgPool2d(2))
    fold_twice(module, sign)
    found = classes(module, normal(20, 1, 5, 5))
    assert list(found) == ["0"]
    assert found["0"].labels == (label, label, "generic", "generic")
    assert found["0"].scale[1] == pytest.approx(sign * 2.0)


@pytest.mark.parametrize(
    ("pool", "label"), [(nn.AvgPool2d, "reversible"), (nn.MaxPool2d, "generic")]
)
def test_maxima_do_not_reverse(pool, label):
    module = convolutional(pool(2))
    conv, norm = module[0], module[1]
    root = (norm.running_var + norm.eps).sqrt()
    with torch.no_grad():
        norm.weight[:] = root  # what stays is a shift of each channel
        conv.weight[1] = -conv.weight[0]
        spread = module[-1].weight.shape[1] // 4
        module[-1].weight[:, spread : 2 * spread] = module[-1].weight[:, :spread]
    found = classes(module, normal(20, 1, 5, 5))["0"]
    assert found.labels == (label, label, "generic", "generic")
    assert bool(found.reversible.minimal) == (label == "reversible")


def test_a_batch_norm_behind_something_else_stands_for_itself():
    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(3, 4)
            self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.norm(self.first(x) + self.second(x)).relu())

    module = Summed().double().eval()
    assert classes(module, normal(9, 3))["norm"].labels == ("generic",) * 4
    with torch.no_grad():
        module.norm.weight[2], module.norm.bias[2] = 0.0, 0.5
    assert classes(module, normal(9, 3))["norm"].labels[2] == "w_degenerate"


def test_channels_that_read_different_inputs_are_not_duplicates():
    """Equal kernels of a grouped convolution, before a BatchNorm that is alike for both."""
    module = nn.Sequential(
        nn.Conv2d(2, 2, 2, groups=2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 1)
    )
    module = module.double().eval()
    with torch.no_grad():
        module[0].weight[1], module[0].bias[1] = module[0].weight[0], module[0].bias[0]
    found = classes(module, normal(9, 2, 4, 4))
    assert found["1"].labels == ("generic", "generic")


@pytest.mark.parametrize(
    ("activation", "labels"),
    [
        (nn.Tanh(), ["antiparallel", "antiparallel"]),
        (nn.Hardtanh(-2, 2), ["antiparallel", "antiparallel"]),
        (nn.Hardtanh(0, 6), ["generic", "generic"]),
        (nn.Softsign(), ["antiparallel", "antiparallel"]),
        (nn.GELU(), ["generic", "generic"]),
    ],
    ids=str,
)
def test_a_unit_and_its_negative(activation, labels):
    module = nn.Sequential(nn.Linear(3, 3), activation, nn.Linear(3, 2)).double()
    with torch.no_grad():
        module[0].weight[1], module[0].bias[1] = -module[0].weight[0], -module[0].bias[0]
    assert classes(module, normal(9, 3))["0"].labels == (*labels, "generic")


def test_domains_of_deeper_layers():
    module = mlp(2, 3, 2, 1, activation=nn.ReLU, seed=1)
    with torch.no_grad():
        module[2].bias[0] = -50.0
        module[2].bias[1] = 50.0
    X = normal(30, 2)
    assert classes(module, X)["2"].labels == ("generic", "generic")
    for domain in ("box", "data"):
        assert classes(module, X, domain=domain)["2"].labels == ("dead", "always_on")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "activation",
    [
        nn.Softplus(0.3), nn.Softplus(3), nn.ELU(2.0), nn.CELU(0.2), nn.GELU(), nn.GELU("tanh"),
        nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.Hardtanh(-0.4, 0.7), nn.ReLU6(),
        nn.Hardshrink(0.3), nn.Softshrink(0.3), nn.LeakyReLU(-0.5), nn.Threshold(0.2, -0.3),
        nn.Tanh(), nn.Sigmoid(), nn.LogSigmoid(), nn.PReLU(), nn.Identity(),
    ],
    ids=str,
)  # fmt: skip
def test_boxes_are_followed_through_every_activation(activation, sign):
    """A unit that is on at the ends of a box by a little is not dead, and one that is off is."""
    module = nn.Sequential(
        nn.Linear(1, 1), activation, nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)
    ).double()
    X = torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        for parameter, value in zip(module[0].parameters(), (1.0, 0.1), strict=True):
            parameter.fill_(value)
        module[2].weight.fill_(float(sign))
        module[2].bias.fill_(0.0)
        top = float(module[:3](X).max())
        module[2].bias.fill_(0.01 - top)
        assert classes(module, X, domain="box")["2"].labels == ("generic",)
        module[2].bias.fill_(-0.01 - top)
        assert classes(module, X, domain="box")["2"].labels == ("dead",)


def test_boxes_reach_the_first_layer_of_other_architectures():
    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 3), nn.Linear(2, 3)
            self.deep, self.head = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x):
            hidden = self.deep(self.first(x).relu()).relu()
            return self.head(hidden) + self.second(x).sum(1, True)

    module = Branched().double()
    with torch.no_grad():
        module.first.bias[0], module.deep.bias[0] = -50.0, -500.0
    found = classes(module, normal(30, 2), domain="box")
    assert found["first"].labels[0] == "dead"
    assert found["deep"].labels[0] != "dead"
    with pytest.raises(SkgeoError, match="expected None, 'box' or 'data'"):
        classes(module, normal(30, 2), domain="ball")


class ByPosition(nn.Module):
    """Calls the layers of a Sequential one by one, and cannot be followed without data."""

    def __init__(self, skips):
        super().__init__()
        self.body, self.skips = mlp(3, 4, 3, activation=nn.ReLU), skips

    def forward(self, x):
        if bool((x > 1e6).any()):
            return x
        first, relu, second = self.body
        if not self.skips:
            return self.body(x)
        hidden = relu(first(x))
        return second(hidden) + hidden.sum(1, keepdim=True)


def test_parts_are_believed_only_if_they_run_as_they_were_traced():
    assert list(classes(ByPosition(skips=False), normal(9, 3))) == ["body.0"]
    module = ByPosition(skips=True)
    network = SymmetryNetwork(bind(module, normal(9, 3)))
    assert "ByPosition cannot be followed without data" in network.flow.unread[0]
    assert classify_network(network) == []


def test_layers_called_by_keyword():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.second(input=self.first(input=x).relu())

    assert classes(Keyword().double(), normal(9, 3), domain="data")["first"].labels


def test_linear_layers_have_no_classes():
    assert classes(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).double(), normal(9, 2)) == {}
