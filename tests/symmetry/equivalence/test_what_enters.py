"""Everything that enters the function enters the comparison."""

import copy
import dataclasses
import enum
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.networks import mlp, normal, seeded
from skgeo.exceptions import GeometryWarning, SkgeoError
from skgeo.models import bare_model
from skgeo.network._flow import read_flow
from skgeo.network._stack import read_stack
from skgeo.symmetry import (
    SymmetryClassifier,
    apply_symmetry,
    compress,
    equivalence_classes,
    equivalent,
)
from skgeo.symmetry._equivalence.parts import compare_parts

READ = {
    "weight": lambda net, x: F.linear(x, net.a.weight).sum(-1, keepdim=True),
    "transposed": lambda net, x: (x @ net.a.weight.t()).sum(-1, keepdim=True),
    "computed": lambda net, x: x.sum(-1, keepdim=True) * (2 * net.a.weight).sum(),
    "detached": lambda net, x: (x @ net.a.weight.detach().t()).sum(-1, keepdim=True),
    "number": lambda net, x: x.sum(-1, keepdim=True) * net.a.weight[0, 0].item(),
}


class Tied(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.a, self.b, self.read = nn.Linear(6, 8), nn.Linear(8, 3), read

    def forward(self, x):
        return self.b(torch.relu(self.a(x))) + self.read(self, x)


@pytest.mark.parametrize("name", READ)
def test_a_weight_that_is_read_outside_its_layer(name):
    net = Tied(READ[name]).double()
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.a.weight[0] *= 2
        other.a.bias[0] *= 2
        other.b.weight[:, 0] /= 2
    assert equivalent(net, other).verdict != "equivalent"
    assert equivalent(net, other, normal(5, 6)).verdict == "different"
    assert list(equivalence_classes([net, other], normal(5, 6))) == [0, 1]
    assert equivalent(net, copy.deepcopy(net)).verdict == "equivalent"
    if name != "number":
        flow = read_flow(net)
        assert flow.is_read_outside("a")
        assert not flow.is_read_outside("b")
        # What the steps show is not left to a comparison of outputs.
        assert compare_parts(bare_model(net), bare_model(other), 1e-10).verdict == "undecided"


class Normed(nn.Module):
    def __init__(self, flat=False):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.flat = nn.Flatten() if flat else nn.Identity()

    def forward(self, x):
        return self.b(torch.relu(self.norm(self.a(self.flat(x)))))


def normed_pair(flat=False):
    net = Normed(flat).double().eval()
    with torch.no_grad():
        for t in (net.norm.running_mean, net.norm.weight, net.norm.bias):
            t.copy_(normal(8, seed=int(t.numel())))
        net.norm.running_var.uniform_(0.5, 3)
        other, order = copy.deepcopy(net), torch.tensor([3, 1, 2, 0, 7, 6, 5, 4])
        for t in (*other.a.parameters(), *other.norm.parameters(), *list(other.norm.buffers())[:2]):
            t.copy_(t[order].clone())
        other.b.weight.copy_(other.b.weight[:, order].clone())
    return net, other


def test_a_norm_of_units_and_a_norm_of_positions():
    net, other = normed_pair()
    report = equivalent(net, other)
    assert report.verdict == "undecided"
    assert "pass X" in report.reason
    assert equivalent(net, other, normal(5, 6)).verdict == "equivalent"
    assert equivalent(net, other, normal(5, 8, 6)).verdict == "different"
    with pytest.warns(GeometryWarning, match="undecided"):
        assert list(equivalence_classes([net, other])) == [0, 1]
    assert equivalent(*normed_pair(flat=True)).verdict == "equivalent"
    units = SymmetryClassifier(net, likelihood="gaussian").fit(normal(20, 6)).labels_
    assert len(units) == 8
    positions = SymmetryClassifier(net, likelihood="gaussian").fit(normal(20, 8, 6)).labels_
    assert len(positions) == 0  # units of the norm are not those of the layers beside it


def test_layers_that_read_other_axes_are_no_chain():
    for net in (
        nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), nn.Linear(4, 3)),
        nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Conv1d(4, 3, 1)),
    ):
        with pytest.raises(SkgeoError, match="without flattening"):
            read_stack(net, convolutions=True)
    net = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), nn.Linear(4, 3)).double()
    other, order = copy.deepcopy(net), torch.tensor([2, 3, 1, 0])
    with torch.no_grad():
        for parameter in other[0].parameters():
            parameter.copy_(parameter[order].clone())
        other[2].weight.copy_(other[2].weight[:, order].clone())
    assert equivalent(net, other).verdict != "equivalent"
    assert equivalent(net, other, normal(5, 2, 4)).verdict == "different"


def test_linear_layers_do_not_hide_the_settings_of_convolutions():
    def net(mode, *more):
        first = nn.Conv1d(1, 2, 3, padding=1, padding_mode=mode)
        return nn.Sequential(first, nn.ReLU(), nn.Flatten(), *more).double()

    a = net("zeros", nn.Linear(10, 2))
    b = net("circular", nn.Linear(10, 2), nn.Linear(2, 2))
    with torch.no_grad():
        b[0].load_state_dict(a[0].state_dict())
        b[3].load_state_dict(a[3].state_dict())
        b[4].weight.copy_(torch.eye(2))
        b[4].bias.zero_()
    assert equivalent(a, b).verdict == "different"


def test_a_certificate_that_no_input_confirms_is_not_given():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp(3, 5, 4, 2, activation=nn.ReLU)

        def forward(self, x):
            return self.body(x["values"]) * x["scale"]

    net = Odd().double()
    other = copy.deepcopy(net)
    other.body = apply_symmetry(net.body, permutation=[[4, 3, 2, 1, 0], None])
    report = equivalent(net, other)
    assert report.verdict == "undecided"
    assert "pass X" in report.reason
    x = {"values": normal(6, 3), "scale": normal(6, 1, seed=1)}
    assert equivalent(net, other, x).verdict == "equivalent"
    assert equivalent(net, copy.deepcopy(net)).verdict == "equivalent"


class Kind(enum.Enum):
    A = 1
    B = 2


@dataclasses.dataclass
class Sizes:
    eps: float = 1e-5
    widths: list = dataclasses.field(default_factory=lambda: [4, 4])


class Config:
    def __init__(self, **settings):
        vars(self).update(settings)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.linear = config, nn.Linear(4, 4)
        self.norm = functools.partial(F.layer_norm, normalized_shape=[4], eps=config.sizes.eps)
        self.act = lambda x: x.relu()
        self.run = self.compute
        self.table = {"kinds": [config.kind, None], "mask": torch.arange(3.0)}

    def compute(self, x):
        return self.act(self.linear(self.norm(x)))

    def forward(self, x):
        return x if x.sum() > 1e9 else self.run(x)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        config = Config(sizes=Sizes(), kind=Kind.A, names={"a": 1})
        config.itself = config
        self.blocks = nn.ModuleList([Block(config), Block(config)])
        self.rnn = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_a_deep_copy_with_configuration_objects_is_equivalent():
    net = Model()
    assert equivalent(net, copy.deepcopy(net)).verdict == "equivalent"
    assert equivalent(net, copy.deepcopy(net), normal(5, 4)).verdict == "equivalent"


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net.blocks[0].config.sizes, "eps", 1e-3),
        lambda net: net.blocks[0].config.sizes.widths.append(1),
        lambda net: setattr(net.blocks[0].config, "kind", Kind.B),
        lambda net: net.blocks[1].table["kinds"].append(0),
        lambda net: net.blocks[1].table["mask"].add_(1),
        lambda net: setattr(net.blocks[1], "act", lambda x: x.tanh()),
        lambda net: net.blocks[1].norm.keywords.update(eps=1.0),
        lambda net: setattr(net.blocks[1], "run", net.blocks[0].compute),
    ],
)
def test_any_other_setting_is_not_equivalent(change):
    net = Model()
    other = copy.deepcopy(net)
    change(other)
    assert equivalent(net, other).verdict == "undecided"
    assert equivalent(net, other, normal(5, 4)).verdict != "equivalent"


@pytest.mark.parametrize("widths", [(3, 4, 2), (3, 6, 2), (3, 4, 4, 2), (3, 2, 3, 2), (3, 1, 2)])
def test_certificates_of_linear_chains_can_be_applied(widths):
    net = mlp(*widths, activation=nn.Identity)
    matrices = [normal(n, n, seed=n) if n > 1 else [-3.0] for n in widths[1:-1]]
    other = apply_symmetry(net, scales=matrices)
    report = equivalent(net, other)
    assert (report.verdict, report.matched) == ("equivalent", "layers")
    made = apply_symmetry(
        net, permutation=report.permutation, scales=report.scales, flips=report.flips
    )
    for ours, theirs in zip(made.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
    # A bias that moved to the next layer is the same function, by no matrix.
    if len(widths) == 3:
        with torch.no_grad():
            other[2].bias.add_(other[2].weight @ other[0].bias)
            other[0].bias.zero_()
        report = equivalent(net, other)
        assert report.verdict == "equivalent"


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_units_have_curves_and_permutations():
    net = nn.Sequential(nn.Linear(3, 0), nn.ReLU(), nn.Linear(0, 2)).double()
    assert compress(net, exact=False, X=normal(5, 3)).curve == ()
    assert apply_symmetry(net, permutation=[[]])[0].out_features == 0
    wide = nn.Sequential(nn.Linear(3, 2), nn.Identity(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        wide[2].weight.zero_()
        wide[2].bias.copy_(net[2].bias)
    for pair in ((net, wide), (wide, net), (net, net)):
        report = equivalent(*pair)
        assert report.verdict == "equivalent"


class Dropped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 4)

    def forward(self, x):
        return F.dropout(self.a(x))


def test_random_outputs_have_no_verdict():
    net = Dropped()
    with pytest.raises(SkgeoError, match="outputs are random"):
        equivalent(net, copy.deepcopy(net), normal(8, 3))


def test_inputs_that_a_network_overwrites_are_left_as_they_are():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 4)).double()
    x = normal(8, 3)
    before = x.clone()
    assert equivalent(net, copy.deepcopy(net), x).verdict == "equivalent"
    other = nn.Sequential(nn.Identity(), net[1])
    assert equivalent(net, other, x).verdict == "different"
    assert torch.equal(x, before)


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_convolutions_are_different_by_witness_only(groups):
    """A permuted copy is undecided, since their channels are not matched."""
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, 3, groups=groups), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)
        ).double()
    )
    same, other = copy.deepcopy(net), copy.deepcopy(net)
    order = torch.tensor([1, 0, *range(2, 8)])  # within the first group
    with torch.no_grad():
        same[0].weight.copy_(net[0].weight[order])
        same[0].bias.copy_(net[0].bias[order])
        same[3].weight.copy_(net[3].weight.view(2, 8, 4)[:, order].flatten(1))
        other[0].weight[0, 0, 0, 0] += 0.1
    X = normal(5, 4, 4, 4)
    torch.testing.assert_close(net(X), same(X))
    for data in (None, X):
        assert equivalent(net, same, data).verdict != "different"
        found = equivalent(net, other, data)
        assert found.verdict != "equivalent"
        assert (found.verdict == "different") == (found.witness is not None)
    assert found.verdict == "different"
