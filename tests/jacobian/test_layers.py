import dataclasses
from collections import OrderedDict

import pytest
import torch
from torch import nn

from helpers.architectures import build
from helpers.cases import BY_NAME, Block
from helpers.layer_oracles import dense_tail_jacobian
from helpers.networks import mlp, normal, seeded
from skgeo import SkgeoError
from skgeo.jacobian import Layers
from skgeo.network import replica

X = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4)


def layers_of(module, inputs=X, names=None, **options):
    return Layers(replica(module, **options, parameters=None), inputs, names)


def layers_of_case(name, names=None):
    case = BY_NAME[name]
    return layers_of(case.module(), case.inputs(), names, forward=case.forward)


def names_of(layers):
    return [layer.name for layer in layers.layers]


def cuts_of(layers):
    return {layer.name: layer.is_cut for layer in layers.layers}


class Counting:
    """A forward function that notes the size of every batch; replicas share it."""

    def __init__(self):
        self.sizes = []

    def __call__(self, module, x):
        self.sizes.append(len(x))
        return module(x)


def test_all_places_are_found_in_one_forward_pass():
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    forward = Counting()
    layers = layers_of(net, forward=forward)
    assert [layer.name for layer in layers.cuts] == ["input", "0", "1", "2"]
    assert list(layers.elementwise) == ["0", "1", "2"]
    assert forward.sizes == [5]
    layers.record(X, root=True)
    assert forward.sizes == [5, 5]


class Residuals(nn.Module):
    """Two blocks of two layers each, with skip connections."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            [nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]) for _ in "ab"]
        )
        self.end = nn.ModuleList([nn.Identity(), nn.Identity()])
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        for (one, two), end in zip(self.blocks, self.end, strict=True):
            x = end(x + two(torch.tanh(one(x))))
        return self.head(x)


class TestCuts:
    def test_inside_and_between_residual_branches(self):
        module = seeded(Residuals)
        names = ["blocks.0.0", "blocks.0.1", "end.0", "blocks.1.0", "blocks.1.1", "end.1", "head"]
        assert cuts_of(layers_of(module, X, names)) == {
            "blocks.0.0": False,
            # Depends on all that the layer before it returns, and is not a cut all the same.
            "blocks.0.1": False,
            "end.0": True,
            "blocks.1.0": False,
            "blocks.1.1": False,
            "end.1": True,
            "head": True,
        }

    def test_of_one_block(self):
        block = seeded(lambda: nn.Sequential(nn.Conv2d(1, 3, 1), Block(3), nn.Flatten()))
        x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
        names = ["0", "1.conv1", "1.bn1", "1.relu", "1.conv2", "1.bn2"]
        assert cuts_of(layers_of(block, x, names)) == {
            "0": True,
            "1.conv1": False,
            "1.bn1": False,
            "1.relu": False,
            "1.conv2": False,
            "1.bn2": False,
            "1.relu#1": True,
        }

    def test_of_a_residual_network(self):
        layers = layers_of_case("residual", ["stem", "block.bn1", "block.relu#1", "fc"])
        assert [layer.is_cut for layer in layers.layers] == [True, False, True, True]

    def test_a_layer_comes_after_the_last_cut_before_it(self):
        layers = layers_of_case("residual", ["stem", "block.bn1", "block", "fc"])
        assert [layer.name for layer in layers.cuts] == ["input", "stem", "block", "fc"]
        stem, branch, block, fc = layers.layers
        assert layers.cut_before(stem) == layers.root
        assert layers.cut_before(branch) == layers.cut_before(block) == stem
        assert layers.cut_before(fc) == block
        assert layers.cut_before(layers.output) == fc

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_of_long_chains(self, dtype):
        torch.manual_seed(0)
        modules = [layer for _ in range(30) for layer in (nn.Linear(8, 8), nn.Tanh())]
        x = torch.randn(3, 8, dtype=dtype)
        layers = layers_of(nn.Sequential(*modules).to(dtype), x)
        assert all(layer.is_cut for layer in layers.layers)
        assert len(layers.layers) == 60

    @pytest.mark.parametrize("first", [0.0, 100.0])
    def test_are_judged_on_all_samples(self, first):
        """The outputs of the first samples do not move: nothing of them tells a cut."""

        class Flat(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x):
                h = torch.tanh(self.a(x))
                return self.head(torch.relu(h + torch.tanh(self.b(h)) - 2.2 * (x[:, :1] > 50)))

        module = seeded(Flat)
        x = normal(10, 3)
        x[:4] += first
        found = cuts_of(layers_of(module, x, ["a", "b", "head"]))
        assert found == {"a": True, "b": False, "head": True}

    def test_are_the_same_every_time(self):
        module = seeded(Residuals)
        state = torch.get_rng_state()
        layers_of(module)
        assert torch.equal(state, torch.get_rng_state())

    def test_are_not_decided_from_derivatives_that_are_not_numbers(self):
        class Root(nn.Module):
            def forward(self, x):
                return x.square().sum(1, keepdim=True).sqrt().expand(-1, 4)

        net = nn.Sequential(Root(), nn.Linear(4, 2)).double()
        with pytest.raises(SkgeoError, match=r"with respect to 'input' are NaN.*leave those"):
            layers_of(net, torch.zeros(3, 4, dtype=torch.float64))


class TestDefaultLayers:
    @pytest.mark.parametrize(
        ("case", "names"),
        [
            ("mlp", ["0", "1", "2", "3", "4"]),
            ("linear", ["Linear"]),
            ("plain_list", ["layers.0", "layers.1", "layers.2"]),
            ("reused", ["body", "relu", "body#1", "relu#1", "out"]),
            ("residual", ["stem", "block", "pool", "fc"]),
            ("lstm", ["rnn", "out"]),
            ("attention", ["norm", "out"]),
            ("embedding_tied", ["embedding", "hidden", "out"]),
            ("weight_norm", ["0", "1", "2"]),
        ],
    )
    def test_of_cases(self, case, names):
        layers = layers_of_case(case)
        assert names_of(layers) == names
        assert all(layer.is_cut for layer in layers.layers)

    def test_longest_list_that_is_called(self):
        # `blocks` holds lists, which are never called; the layers in those are not cuts.
        assert names_of(layers_of(seeded(Residuals))) == ["end.0", "end.1"]

    def test_wrapped_chain(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))

            def forward(self, x):
                return self.net(x)

        assert names_of(layers_of(seeded(Net))) == ["net.0", "net.1", "net.2"]

    def test_chain_with_its_own_forward(self):
        class Skips(nn.Sequential):
            def forward(self, x):
                return x + super().forward(x)

        module = seeded(lambda: nn.Sequential(Skips(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 3)))
        assert names_of(layers_of(module)) == ["0", "1"]
        with pytest.raises(SkgeoError, match=r"No layer was found.*layers="):
            layers_of(module[0])

    def test_nothing_to_start_from(self):
        case = BY_NAME["embedding"]
        copied = replica(nn.Sequential(case.module()), forward=lambda m, x: m(x))
        copied.module.forward = lambda x: x.double() + copied.parameters["0.0.weight"].sum()
        with pytest.raises(SkgeoError, match="nothing to differentiate with respect to"):
            Layers(copied, case.inputs())


class TestNames:
    def test_calls_are_numbered_and_the_output_is_known(self):
        layers = layers_of_case("reused")
        assert [(layer.name, layer.module, layer.number) for layer in layers.layers] == [
            ("body", "body", 0),
            ("relu", "relu", 0),
            ("body#1", "body", 1),
            ("relu#1", "relu", 1),
            ("out", "out", 0),
        ]
        assert [layer.is_output for layer in layers.layers] == [False] * 4 + [True]

    @pytest.mark.parametrize(
        ("asked", "found"),
        [
            (["relu"], ["relu", "relu#1"]),
            (["relu#1"], ["relu#1"]),
            (["relu#0", "out"], ["relu", "out"]),
            (["out", "body#1"], ["body#1", "out"]),
        ],
    )
    def test_select_calls(self, asked, found):
        assert names_of(layers_of_case("reused", asked)) == found

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["rellu"], r"No layer named 'rellu'. Did you mean 'relu'.*body, relu, out"),
            (["relu#2"], r"called 2 time\(s\)"),
            (["relu#x"], "No layer named 'relu#x'"),
            ([], "names no layer"),
            ("relu", r"expected None or a list of names such as \['relu'\]"),
        ],
    )
    def test_errors(self, names, message):
        with pytest.raises(SkgeoError, match=message):
            layers_of_case("reused", names)

    def test_unknown_layers_are_refused_with_those_that_exist(self):
        with pytest.raises(SkgeoError, match=r"No layer named 'hidden'.*0, 1, 2, 3, 4"):
            layers_of_case("mlp", ["hidden"])
        with pytest.raises(SkgeoError, match=r"No layer '7' among those looked at: 0, 1, 2, 3, 4"):
            layers_of_case("mlp")["7"]

    def test_layers_that_are_none(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.position = nn.Embedding(1, 4)
                self.body = nn.Linear(4, 4)
                self.side = nn.Linear(4, 2)
                self.choice = Argmax()
                self.spare = nn.Linear(4, 4)
                self.out = nn.Linear(4, 3)

            def forward(self, x):
                shift = self.position(torch.zeros(len(x), dtype=torch.int64))
                self.side(x)
                self.choice(x)
                return self.out(self.body(x) + shift)

        module = seeded(Net)
        for name, message in {
            "position": "does not depend on 'input'",
            "side": "output does not depend on what layer 'side'",
            "choice": "no floating tensor",
            "spare": "never called",
        }.items():
            with pytest.raises(SkgeoError, match=message):
                layers_of(module, X, [name])
        assert names_of(layers_of(module)) == ["body", "out"]


class Argmax(nn.Module):
    def forward(self, x):
        return x.argmax(1)


class TestRoots:
    def test_floating_inputs_are_the_root(self):
        layers = layers_of(mlp(4, 5, 3), normal(2, 4))
        assert (layers.root.name, layers.root.module, layers.root.dim) == ("input", "", 4)
        assert layers.after_root == layers.layers

    @pytest.mark.parametrize("name", ["embedding", "embedding_tied", "dict"])
    def test_indices_start_at_the_first_layer_behind_them(self, name):
        layers = layers_of_case(name)
        assert layers.root == layers.layers[0]
        assert layers.after_root == layers.layers[1:]

    def test_frozen_embedding(self):
        case = BY_NAME["embedding"]
        module = case.module()
        module[0].requires_grad_(False)
        layers = Layers(replica(module), case.inputs())
        seen = layers.record(case.inputs(), root=True)
        (found,) = torch.autograd.grad(seen.output.square().sum(), seen.tensor(layers.root))
        assert found.abs().max() > 0

    def test_a_root_may_lie_before_all_layers(self):
        module, inputs = build("transformer", n=3)
        layers = layers_of(module, inputs)
        assert (layers.root.name, layers.root.dim) == ("embedding", 56)
        assert names_of(layers) == ["blocks.0", "blocks.1", "blocks.2"]
        only = layers_of(module, inputs, ["blocks.0", "blocks.2"])
        assert only.root.name == "blocks.0"
        assert [layer.name for layer in only.after_root] == ["blocks.2"]

    def test_a_layer_called_input_is_not_the_input(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.input, self.out = nn.Embedding(7, 3), nn.Linear(3, 2)

            def forward(self, tokens):
                return self.out(self.input(tokens).mean(1))

        tokens = torch.arange(8).reshape(4, 2) % 7
        layers = layers_of(seeded(Net), tokens)
        assert layers.root == layers["input"]
        seen = layers.record(tokens, root=True)
        found = seen.jacobian(layers["out"], layers.root)
        weight = layers.replica.module.out.weight
        torch.testing.assert_close(found, (weight / 2).repeat(1, 2).expand(4, -1, -1))

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
        # As many samples as positions: the shape alone does not tell the axes apart.
        module, inputs = Turned().double(), torch.randint(7, (4, 4))
        layers = layers_of(module, inputs)
        assert (layers.root.axis, layers.root.dim) == (1, 12)
        jacobian = layers.record(inputs, root=True).jacobian(layers.output, layers.root)
        for sample in range(4):
            alone = inputs[sample : sample + 1]
            single = layers_of(module, alone)
            one = single.record(alone, root=True).jacobian(single.output, single.root)
            torch.testing.assert_close(jacobian[sample : sample + 1], one)

    def test_a_root_without_samples_is_refused_when_it_is_asked_for(self):
        class Positions(nn.Module):
            def __init__(self):
                super().__init__()
                self.position, self.token = nn.Embedding(5, 3), nn.Embedding(7, 3)
                self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])

            def forward(self, tokens):
                h = self.position(torch.arange(5)) + self.token(tokens)
                for block in self.blocks:
                    h = torch.tanh(block(h))
                return h.mean(1)

        layers = layers_of(seeded(Positions), torch.arange(20).reshape(4, 5) % 7)
        assert names_of(layers) == ["blocks.0", "blocks.1"]
        with pytest.raises(SkgeoError, match=r"'position', where the graph starts, returned"):
            _ = layers.root


class Transposed(nn.Module):
    """Positions first inside, as recurrent layers and transformers have it by default."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.rnn(x.transpose(0, 1))[0][-1])


class Coupled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        h = self.first(x)
        return self.last(h - h.mean(0))


class TestSamples:
    @pytest.mark.parametrize("n", [1, 2, 6])
    def test_their_axis_is_found(self, n):
        torch.manual_seed(0)
        module, x = Transposed().double(), torch.randn(n, 6, 3, dtype=torch.float64)
        layers = layers_of(module, x)
        assert (layers["rnn"].shape, layers["rnn"].axis) == ((6, 4), 1)
        found = layers.record(x).output_jacobians()
        expected = dense_tail_jacobian(module, x, "rnn")
        torch.testing.assert_close(found["rnn"], torch.from_numpy(expected), rtol=1e-10, atol=1e-12)

    def test_are_refused_where_they_are_coupled(self):
        with pytest.raises(SkgeoError, match=r"'first'.*no axis of it keeps them apart"):
            layers_of(Coupled(), torch.randn(5, 3))


@dataclasses.dataclass
class Plain:
    logits: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Frozen:
    mask: torch.Tensor
    logits: torch.Tensor


class ModelOutput(OrderedDict):
    """An ordered dict that also has attributes, as libraries return."""

    def __getattr__(self, name):
        return self[name]


class Wrapping(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.layer(x))


class Returning(nn.Module):
    def __init__(self, wrap, read):
        super().__init__()
        self.body = Wrapping(wrap)
        self.read = read
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.read(self.body(x))))


class TestOutputsOfLayers:
    @pytest.mark.parametrize(
        ("wrap", "read"),
        [
            (lambda h: (h, None), lambda r: r[0]),
            (lambda h: (torch.arange(3), h), lambda r: r[1]),
            (lambda h: ((None, h), 3), lambda r: r[0][1]),
            (lambda h: [h, h.sum()], lambda r: r[0]),
            (lambda h: {"a": 1, "b": h}, lambda r: r["b"]),
            (lambda h: ModelOutput(logits=h), lambda r: r.logits),
            (lambda h: Plain(h), lambda r: r.logits),
            (lambda h: Frozen(torch.ones(2, dtype=torch.bool), h), lambda r: r.logits),
            (lambda h: torch.max(h.unsqueeze(1), 1), lambda r: r.values),
        ],
    )
    def test_first_tensor_is_kept_and_put_back(self, wrap, read):
        module = seeded(lambda: Returning(wrap, read))
        layers = layers_of(module)
        assert cuts_of(layers) == {"body": True, "out": True}
        seen = layers.record(X)
        torch.testing.assert_close(seen.output, module(X))
        torch.testing.assert_close(seen.tensor(layers["body"]), module.body.layer(X))

    def test_last_state_of_an_lstm_is_another_tensor(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn = nn.LSTM(4, 4, batch_first=True)
                self.out = nn.Linear(4, 3)

            def forward(self, x):
                return self.out(self.rnn(x)[1][0][-1])

        module = seeded(Net)
        x = torch.randn(3, 2, 4, dtype=torch.float64)
        assert names_of(layers_of(module, x)) == ["out"]
        with pytest.raises(SkgeoError, match="of several tensors, the first"):
            layers_of(module, x, ["rnn"])


class Counts(nn.Module):
    """A layer that returns as many rows as the first input says."""

    def __init__(self):
        super().__init__()
        self.choose = nn.Module()
        self.body, self.out = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        h = self.body(x.unsqueeze(1).expand(-1, int(x[0, 0].abs()) + 1, -1))
        return self.out(h.sum(1))


class TestRecord:
    def test_representations_of_another_size_are_refused(self):
        layers = layers_of(Counts(), torch.ones(4, 3))
        with pytest.raises(SkgeoError, match="must be the same for all samples"):
            layers.record(3 * torch.ones(4, 3))

    def test_outputs_that_are_not_finite_are_refused(self):
        layers = layers_of(nn.Sequential(nn.Linear(1, 1), nn.Softplus()), torch.ones(2, 1))
        with pytest.raises(SkgeoError, match="sample 1"):
            layers.record(torch.tensor([[0.0], [float("nan")]]))

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_in_any_gradient_mode(self, mode):
        case = BY_NAME["mlp"]
        expected = layers_of_case("mlp").record(case.inputs()).output_jacobians()
        with mode():
            inputs = case.inputs().clone()
            layers = layers_of(case.module(), inputs)
            found = layers.record(inputs).output_jacobians()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])

    def test_parameters_are_on_the_graph_where_the_replica_has_them(self):
        layers = layers_of_case("mlp")
        assert not any(p.requires_grad for p in layers.replica.parameters.values())
        assert layers.record(X, ["4"]).output.requires_grad
        module = BY_NAME["bare"].module()
        copied = replica(module)
        seen = Layers(copied, X).record(X)
        (found,) = torch.autograd.grad(seen.output.square().sum(), copied.parameters["weight"])
        (expected,) = torch.autograd.grad(module(X).square().sum(), module.weight)
        torch.testing.assert_close(found, expected)
