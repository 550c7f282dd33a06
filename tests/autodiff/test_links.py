import pytest
import torch
from torch import nn

from cases import BY_NAME, CASES
from chains import dense_between
from nets import mlp, normal
from networks import NETWORKS, build
from oracles import assert_untouched
from skgeo import SkgeoError
from skgeo.autodiff.links import ChainMaps
from skgeo.autodiff.operators import layer_replica


def recorded(module, inputs, layers=None, forward=None):
    chain = ChainMaps(layer_replica(module, forward=forward), inputs, layers)
    return chain, chain.record(inputs)


def source_name(chain, layer):
    return None if layer.name == "input" else layer.name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_links_of_every_kind_of_layer_match_brute_force(case):
    module, inputs = case.module(), case.inputs(3)
    with assert_untouched(module):
        chain, links = recorded(module, inputs, forward=case.forward)
        found = {x: links.jacobian(x, chain.cut_before(x)) for x in (*chain.layers, chain.output)}
    for layer, jacobian in found.items():
        source = source_name(chain, chain.cut_before(layer))
        target = None if layer == chain.output else layer.name
        expected = dense_between(module, inputs, target, source, case.forward)
        torch.testing.assert_close(jacobian, torch.from_numpy(expected), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
def test_products_match_the_jacobians(name):
    module, inputs = build(name, n=3)
    chain, links = recorded(module, inputs)
    for layer in (*chain.layers, chain.output):
        source = chain.root
        jacobian = links.jacobian(layer, source)
        operator = links.operator(layer, source)
        v, u = normal(3, source.dim), normal(3, layer.dim, seed=1)
        pushed, pulled = jacobian @ v.unsqueeze(2), jacobian.mT @ u.unsqueeze(2)
        torch.testing.assert_close(operator.push(v), pushed.squeeze(2))
        torch.testing.assert_close(operator.pull(u), pulled.squeeze(2))
        V = normal(3, source.dim, 5, seed=2)
        for max_bytes in (1, 2**26):
            torch.testing.assert_close(operator.push_columns(V, max_bytes), jacobian @ V)
        torch.testing.assert_close(links.pull(layer, source, u.unsqueeze(1)), pulled.mT)


@pytest.mark.parametrize("name", NETWORKS)
def test_jacobians_from_the_root_match_brute_force(name):
    module, inputs = build(name, n=2)
    chain, links = recorded(module, inputs)
    found = links.root_jacobians()
    assert list(found) == [layer.name for layer in chain.layers if layer.is_cut]
    for target, jacobian in found.items():
        expected = dense_between(module, inputs, target, source_name(chain, chain.root))
        torch.testing.assert_close(jacobian, torch.from_numpy(expected), rtol=1e-9, atol=1e-11)


def test_wide_networks_are_pushed_forward_and_deep_narrow_ones_pulled_back():
    for widths in ((3, 30, 40, 20), (30, 3, 4, 2)):
        net, X = mlp(*widths), normal(4, widths[0])
        chain, links = recorded(net, X)
        for target, jacobian in links.root_jacobians().items():
            expected = dense_between(net, X, target)
            torch.testing.assert_close(jacobian, torch.from_numpy(expected))
        wide = links.jacobian(chain.layers[-1], chain.root)
        torch.testing.assert_close(wide, links.root_jacobians()[chain.layers[-1].name])


class TestRoots:
    def test_floating_inputs_are_the_root(self):
        chain, _ = recorded(mlp(4, 5, 3), normal(2, 4))
        assert (chain.root.name, chain.root.dim) == ("input", 4)

    def test_tokens_start_behind_their_first_layer(self):
        module, inputs = build("transformer", n=3)
        chain, _ = recorded(module, inputs)
        assert (chain.root.name, chain.root.dim) == ("embedding", 56)
        assert [layer.name for layer in chain.layers] == ["blocks.0", "blocks.1", "blocks.2"]
        only, _ = recorded(module, inputs, ["blocks.0", "blocks.2"])
        assert only.root.name == "blocks.0"
        assert [layer.name for layer in only.layers] == ["blocks.2"]
        with pytest.raises(SkgeoError, match=r"the only layer, 'blocks\.0'"):
            recorded(module, inputs, ["blocks.0"])

    def test_a_root_with_samples_behind_is_turned(self):
        class Turned(nn.Module):
            def __init__(self):
                super().__init__()
                self.embedding = nn.Embedding(7, 3)
                self.rnn = nn.LSTM(3, 4)
                self.out = nn.Linear(4, 2)

            def forward(self, tokens):
                return self.out(self.rnn(self.embedding(tokens.T))[0][-1])

        torch.manual_seed(0)
        module, inputs = Turned().double(), torch.randint(7, (2, 5))
        chain, links = recorded(module, inputs)
        assert (chain.root.axis, chain.root.dim) == (1, 15)
        jacobian = links.jacobian(chain.output, chain.root)
        for sample in range(2):
            _, alone = recorded(module, inputs[sample : sample + 1])
            one = alone.jacobian(chain.output, chain.root)
            torch.testing.assert_close(jacobian[sample : sample + 1], one)


def test_cuts_are_linked_to_cuts_only():
    case = BY_NAME["residual"]
    chain, links = recorded(case.module(), case.inputs(3), ["stem", "block.bn1", "block", "fc"])
    assert [layer.name for layer in chain.cuts] == ["input", "stem", "block", "fc"]
    _, branch, block, _ = chain.layers
    assert chain.cut_before(branch).name == chain.cut_before(block).name == "stem"
    stem = chain.cut_before(block)
    product = links.jacobian(block, stem) @ links.jacobian(stem, chain.root)
    torch.testing.assert_close(links.jacobian(block, chain.root), product)


class Residual(nn.Module):
    """A linear layer as the only module, and a sum that no module makes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = self.first(x)
        return h + self.second(h)


class TestElementwise:
    @pytest.mark.parametrize(
        "activation",
        [nn.Tanh(), nn.ReLU(inplace=True), nn.GELU(), nn.PReLU(5), nn.Softplus(), nn.Hardtanh()],
        ids=lambda module: type(module).__name__,
    )
    def test_links_are_recognised_and_right(self, activation):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(4, 5), activation, nn.Dropout(0.5), nn.Linear(5, 3), nn.Identity()
        )
        net, X = net.double().eval(), normal(6, 4)
        for layers in (["0", "1", "3"], ["1", "4"], ["2", "3"]):
            chain, links = recorded(net, X, layers)
            for layer in chain.layers:
                link = links.elementwise(layer)
                assert link is not None
                expected = torch.from_numpy(
                    dense_between(net, X, layer.name, source_name(chain, chain.cut_before(layer)))
                )
                torch.testing.assert_close(link.jacobian(), expected)
                V, u = normal(6, expected.shape[2], 2), normal(6, expected.shape[1])
                torch.testing.assert_close(link.push_columns(V), expected @ V)
                torch.testing.assert_close(link.pull(u), torch.einsum("bij,bi->bj", expected, u))

    def test_what_runs_beside_the_modules_is_not_overlooked(self):
        module, X = Residual().double(), normal(3, 4)
        chain, links = recorded(module, X, ["first", "Residual"])
        assert "Residual" in chain.modules
        assert links.elementwise(chain.layers[0]) is not None
        assert links.elementwise(chain.layers[1]) is None
        functional, inputs = build("mlp", n=3)
        chain, links = recorded(functional, inputs)
        assert [links.elementwise(x) is not None for x in chain.layers] == [True, False, False]

    def test_positions_convolutions_and_subclasses_go_the_general_way(self):
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
            chain, links = recorded(case.module(), case.inputs())
            assert [links.elementwise(x) is not None for x in chain.layers] == expected
        chain, links = recorded(nn.Sequential(nn.Linear(4, 3), Squash()).double(), normal(2, 4))
        assert [links.elementwise(x) is not None for x in chain.layers] == [True, False]


def test_single_precision_stays_single():
    net, X = mlp(4, 5, 3, dtype=torch.float32), normal(3, 4, dtype=torch.float32)
    chain, links = recorded(net, X)
    found = links.jacobian(chain.output, chain.root)
    assert found.dtype == torch.float32
    expected = torch.from_numpy(dense_between(net, X.double(), None))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_columns_that_have_no_second_derivative_become_rows():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return 2 * x * grad

    class Square(nn.Module):
        def forward(self, x):
            return Once.apply(x).repeat(1, 3)

    net = nn.Sequential(nn.Linear(4, 4), Square(), nn.Linear(12, 2)).double()
    X = normal(3, 4)
    chain, links = recorded(net, X, ["1", "2"])
    h = net[0](X).detach()
    expected = (2 * h.unsqueeze(2) * net[0].weight).repeat(1, 3, 1).detach()
    torch.testing.assert_close(links.jacobian(chain.layers[0], chain.root), expected)
    torch.testing.assert_close(links.root_jacobians()["2"], net[2].weight.detach() @ expected)
    with pytest.raises(SkgeoError, match="by 'input'"):
        links.operator(chain.layers[0], chain.root)
