import pytest
import torch
from torch import nn

from helpers.architectures import build
from helpers.cases import BY_NAME
from helpers.chain_oracles import dense_between
from helpers.networks import normal
from skgeo.jacobian import Layers
from skgeo.network import replica


def recorded(module, inputs, names=None):
    layers = Layers(replica(module, parameters=None), inputs, names)
    return layers, layers.record(inputs, root=True)


def recognised(layers, seen):
    return [seen.elementwise(layer) is not None for layer in layers.after_root]


class Residual(nn.Module):
    """A linear layer as the only module, and a sum that no module makes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = self.first(x)
        return h + self.second(h)


@pytest.mark.parametrize(
    "activation",
    [nn.Tanh(), nn.ReLU(inplace=True), nn.GELU(), nn.PReLU(5), nn.Softplus(), nn.Hardtanh()],
    ids=lambda module: type(module).__name__,
)
def test_links_are_recognised_and_right(activation):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 5), activation, nn.Dropout(0.5), nn.Linear(5, 3), nn.Identity()
    )
    net, X = net.double().eval(), normal(6, 4)
    for names in (["0", "1", "3"], ["1", "4"], ["2", "3"]):
        layers, seen = recorded(net, X, names)
        for layer in layers.layers:
            link, source = seen.elementwise(layer), layers.cut_before(layer)
            assert link is not None
            expected = torch.from_numpy(
                dense_between(net, X, layer.name, source.name if source.module else None)
            )
            torch.testing.assert_close(link.jacobian(), expected)
            V, u = normal(6, expected.shape[2], 2), normal(6, expected.shape[1])
            torch.testing.assert_close(link.push_columns(V), expected @ V)
            torch.testing.assert_close(seen.push(layer, source, V), expected @ V)
            torch.testing.assert_close(link.pull(u), torch.einsum("bij,bi->bj", expected, u))


def test_what_runs_beside_the_modules_is_not_overlooked():
    module, X = Residual().double(), normal(3, 4)
    layers, seen = recorded(module, X, ["first", "Residual"])
    assert "Residual" in layers.elementwise
    assert recognised(layers, seen) == [True, False]
    functional, inputs = build("mlp", n=3)
    assert recognised(*recorded(functional, inputs)) == [True, False, False]


def test_positions_convolutions_and_subclasses_go_the_general_way():
    class Squash(nn.Tanh):
        def forward(self, x):
            return super().forward(x) * x.sum(1, keepdim=True)

    for name, expected in {
        # An activation is elementwise on whatever shape; other layers on vectors only.
        "positions": [False, True, False, True],
        "conv2d": [False, True, False, True],
        "layernorm": [True, False, True, True],
    }.items():
        case = BY_NAME[name]
        assert recognised(*recorded(case.module(), case.inputs())) == expected
    net = nn.Sequential(nn.Linear(4, 3), Squash()).double()
    assert recognised(*recorded(net, normal(2, 4))) == [True, False]
