import copy
import dataclasses
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cases import BY_NAME, CASES, Block
from oracles import assert_untouched
from skgeo.autodiff import capture, replica
from skgeo.exceptions import SkgeoError

FLOATING = [case for case in CASES if not case.name.startswith(("embedding", "dict"))]
# A tied weight has more terms than one layer shows.
UNTIED = [case for case in CASES if case.name not in ("embedding_tied", "tied")]
X = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4)


def seeded(build):
    torch.manual_seed(0)
    return build().double().eval()


def run(case, module, inputs):
    return module(inputs) if case.forward is None else case.forward(module, inputs)


def gradient(output, by):
    return torch.autograd.grad(output.square().sum(), by, retain_graph=True)[0]


def cuts(captured):
    return {call.name: call.is_cut for call in captured.layers}


class TestGraph:
    @pytest.mark.parametrize("layers", [None, "leaves"])
    @pytest.mark.parametrize("case", FLOATING, ids=lambda case: case.name)
    def test_gradient_by_the_input(self, case, layers):
        module, inputs = case.module(), case.inputs()
        with assert_untouched(module):
            captured = capture(replica(module, forward=case.forward), inputs, layers)
        leaf = inputs.clone().requires_grad_(True)
        # Not the leaf itself, since a network may start with an in-place operation.
        expected = run(case, copy.deepcopy(module), leaf * 1)
        torch.testing.assert_close(captured.output, expected)
        torch.testing.assert_close(
            gradient(captured.output, captured.root), gradient(expected, leaf)
        )
        assert captured.root_name == "input"

    @pytest.mark.parametrize("case", UNTIED, ids=lambda case: case.name)
    def test_leaves_give_the_gradients_of_linear_layers(self, case):
        module, inputs = case.module(), case.inputs()
        captured = capture(replica(module, forward=case.forward), inputs, "leaves")
        plain = copy.deepcopy(module)
        run(case, plain, inputs).square().sum().backward()
        for name, layer in plain.named_modules():
            if type(layer) is not nn.Linear:
                continue
            total = torch.zeros_like(layer.weight)
            for call in captured.layers:
                if call.layer == (name or "Linear"):
                    a = call.inputs[0].reshape(-1, layer.in_features)
                    g = gradient(captured.output, call.output).reshape(-1, layer.out_features)
                    total += g.T @ a
            torch.testing.assert_close(total, layer.weight.grad)

    def test_parameters_are_on_the_graph(self):
        module = BY_NAME["bare"].module()
        copied = replica(module)
        captured = capture(copied, X)
        found = gradient(captured.output, copied.parameters["weight"])
        plain = copy.deepcopy(module)
        torch.testing.assert_close(found, gradient(plain(X), plain.weight))

    def test_chain_of_jacobians_is_the_jacobian(self):
        case = BY_NAME["mlp"]
        x = case.inputs(1)
        captured = capture(replica(case.module()), x)
        chain, source = torch.eye(4, dtype=torch.float64), captured.root
        for call in captured.layers:
            rows = [
                torch.autograd.grad(value, source, retain_graph=True)[0].reshape(-1)
                for value in call.output.reshape(-1)
            ]
            chain, source = torch.stack(rows) @ chain, call.output
        expected = torch.autograd.functional.jacobian(case.module(), x).reshape(3, 4)
        torch.testing.assert_close(chain, expected)

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_in_any_gradient_mode(self, mode):
        case = BY_NAME["mlp"]
        with mode():
            captured = capture(replica(case.module()), case.inputs())
        assert captured.output.requires_grad
        gradient(captured.output, captured.root)


class TestInPlace:
    def test_a_residual_block_is_seen_as_it_was(self):
        block = seeded(lambda: Block(3))
        x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
        leaves = capture(replica(block), x, "leaves")
        first = F.relu(block.bn1(block.conv1(x)))
        second = block.bn2(block.conv2(first))
        expected = {
            "conv1": block.conv1(x),
            "bn1": block.bn1(block.conv1(x)),
            "relu": first,
            "conv2": block.conv2(first),
            "bn2": second,
            "relu#1": F.relu(second + x),
        }
        assert leaves.names == tuple(expected)
        for name, value in expected.items():
            torch.testing.assert_close(leaves[name].output, value)
        torch.testing.assert_close(leaves["conv2"].inputs[0], first)
        torch.testing.assert_close(leaves["relu"].inputs[0], expected["bn1"])

    def test_of_a_layer_that_hands_on_its_input(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(4, 4)
                self.same = nn.Identity()
                self.flat = nn.Flatten()
                self.out = nn.Linear(4, 3)

            def forward(self, x):
                h = self.body(x)
                same, flat = self.same(h), self.flat(h)
                result = self.out(torch.tanh(same)) + flat.sum(1, keepdim=True)
                h += 1
                return result

        module = seeded(Net)
        captured = capture(replica(module), X, ["body", "same", "flat", "out"])
        # The addition comes after `same` and `flat` were read by tanh and sum.
        h = module.body(X)
        torch.testing.assert_close(captured["same"].output, h)
        torch.testing.assert_close(captured["flat"].output, h)
        torch.testing.assert_close(captured.output, module(X))

    def test_of_the_input_itself(self):
        module = seeded(lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)))
        x = X.clone()
        captured = capture(replica(module), x)
        assert torch.equal(x, X)
        expected = torch.autograd.functional.jacobian(
            lambda v: module(v * 1).square().sum(), X.clone()
        )
        torch.testing.assert_close(gradient(captured.output, captured.root), expected)


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
        captured = capture(replica(module), X, names)
        assert cuts(captured) == {
            "blocks.0.0": False,
            # Depends on all that the layer before it returns, and is no cut all the same.
            "blocks.0.1": False,
            "end.0": True,
            "blocks.1.0": False,
            "blocks.1.1": False,
            "end.1": True,
            "head": True,
        }

    def test_of_one_block(self):
        block = seeded(lambda: nn.Sequential(nn.Conv2d(1, 3, 1), Block(3)))
        x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
        names = ["0", "1.conv1", "1.bn1", "1.relu", "1.conv2", "1.bn2"]
        found = cuts(capture(replica(block), x, names))
        assert found == {
            "0": True,
            "1.conv1": False,
            "1.bn1": False,
            "1.relu": False,
            "1.conv2": False,
            "1.bn2": False,
            "1.relu#1": True,
        }

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_of_long_chains(self, dtype):
        torch.manual_seed(0)
        layers = [layer for _ in range(30) for layer in (nn.Linear(8, 8), nn.Tanh())]
        captured = capture(
            replica(nn.Sequential(*layers).to(dtype)), torch.randn(3, 8, dtype=dtype)
        )
        assert all(call.is_cut for call in captured.layers)
        assert len(captured.layers) == 60

    def test_are_the_same_every_time(self):
        module = seeded(Residuals)
        state = torch.get_rng_state()
        capture(replica(module), X)
        assert torch.equal(state, torch.get_rng_state())


class TestDefaultLayers:
    @pytest.mark.parametrize(
        ("case", "names"),
        [
            ("mlp", ("0", "1", "2", "3", "4")),
            ("linear", ("Linear",)),
            ("plain_list", ("layers.0", "layers.1", "layers.2")),
            ("reused", ("body", "relu", "body#1", "relu#1", "out")),
            ("residual", ("stem", "block", "pool", "fc")),
            ("lstm", ("rnn", "out")),
            ("attention", ("norm", "out")),
            ("embedding_tied", ("embedding", "hidden", "out")),
            ("weight_norm", ("0", "1", "2")),
        ],
    )
    def test_of_cases(self, case, names):
        captured = capture(replica(BY_NAME[case].module()), BY_NAME[case].inputs())
        assert captured.names == names
        assert all(call.is_cut for call in captured.layers)

    def test_longest_list_that_is_called(self):
        module = seeded(Residuals)
        # `blocks` holds lists, which are never called; the layers in those are no cuts.
        assert capture(replica(module), X).names == ("end.0", "end.1")

    def test_wrapped_chain(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))

            def forward(self, x):
                return self.net(x)

        assert capture(replica(seeded(Net)), X).names == ("net.0", "net.1", "net.2")

    def test_chain_with_its_own_forward(self):
        class Skips(nn.Sequential):
            def forward(self, x):
                return x + super().forward(x)

        module = seeded(lambda: nn.Sequential(Skips(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 3)))
        assert capture(replica(module), X).names == ("0", "1")
        with pytest.raises(SkgeoError, match=r"No layer was found.*layers="):
            capture(replica(module[0]), X)

    def test_starts_behind_the_embedding(self):
        for name in ("embedding", "embedding_tied", "dict"):
            case = BY_NAME[name]
            captured = capture(replica(case.module()), case.inputs())
            assert captured.root_name == captured.layers[0].name
            assert captured.root is captured.layers[0].output

    def test_frozen_embedding(self):
        module = BY_NAME["embedding"].module()
        module[0].requires_grad_(False)
        captured = capture(replica(module), BY_NAME["embedding"].inputs())
        assert gradient(captured.output, captured.root).abs().max() > 0


class TestNames:
    def test_select_calls(self):
        copied = replica(BY_NAME["reused"].module())
        inputs = BY_NAME["reused"].inputs()
        assert capture(copied, inputs, ["relu"]).names == ("relu", "relu#1")
        assert capture(copied, inputs, ["relu#1"]).names == ("relu#1",)
        assert capture(copied, inputs, ["relu#0", "out"]).names == ("relu", "out")
        captured = capture(copied, inputs, ["out", "body#1"])
        assert captured.names == ("body#1", "out")
        assert captured["out"].module is copied.module.out
        with pytest.raises(KeyError, match=r"captured: body#1, out"):
            captured["relu"]

    @pytest.mark.parametrize(
        ("layers", "message"),
        [
            (["rellu"], r"No layer named 'rellu'. Did you mean 'relu'.*body, relu, out"),
            (["relu#2"], r"called 2 time\(s\)"),
            (["relu#x"], "No layer named 'relu#x'"),
            ([], "names no layer"),
            ("relu", "expected None, 'leaves' or a list"),
        ],
    )
    def test_errors(self, layers, message):
        case = BY_NAME["reused"]
        with pytest.raises(SkgeoError, match=message):
            capture(replica(case.module()), case.inputs(), layers)

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

        copied = replica(seeded(Net))
        for name, message in {
            "position": "does not depend on 'input'",
            "side": "output does not depend on what layer 'side'",
            "choice": "no floating tensor",
            "spare": "never called",
        }.items():
            with pytest.raises(SkgeoError, match=message):
                capture(copied, X, [name])
        assert capture(copied, X).names == ("body", "out")
        reach = {c.name: c.reaches_output for c in capture(copied, X, "leaves").layers}
        assert reach == {"position": True, "side": False, "body": True, "out": True}

    def test_nothing_to_start_from(self):
        case = BY_NAME["embedding"]
        copied = replica(nn.Sequential(case.module()), forward=lambda m, x: m(x))
        copied.module.forward = lambda x: x.double() + copied.parameters["0.0.weight"].sum()
        with pytest.raises(SkgeoError, match="nothing to differentiate by"):
            capture(copied, case.inputs())


class Argmax(nn.Module):
    def forward(self, x):
        return x.argmax(1)


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


class Returning(nn.Module):
    def __init__(self, wrap, read):
        super().__init__()
        self.body = Wrapping(wrap)
        self.read = read
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.read(self.body(x))))


class Wrapping(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.layer(x))


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
        captured = capture(replica(module), X)
        assert captured.names == ("body", "out")
        assert all(call.is_cut for call in captured.layers)
        torch.testing.assert_close(captured.output, module(X))
        h = module.layer(X) if hasattr(module, "layer") else module.body.layer(X)
        torch.testing.assert_close(captured["body"].output, h)

    def test_last_state_of_an_lstm_is_another_tensor(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn = nn.LSTM(4, 4, batch_first=True)
                self.out = nn.Linear(4, 3)

            def forward(self, x):
                return self.out(self.rnn(x)[1][0][-1])

        copied = replica(seeded(Net))
        x = torch.randn(3, 2, 4, dtype=torch.float64)
        assert capture(copied, x).names == ("out",)
        with pytest.raises(SkgeoError, match="of several tensors, the first"):
            capture(copied, x, ["rnn"])


class TestLeaves:
    def test_are_not_bypassed_by_fused_attention(self):
        case = BY_NAME["transformer"]
        module = case.module()
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name.startswith("2"))
        with torch.no_grad():
            captured = capture(replica(module), case.inputs(), "leaves")
        assert {"0.self_attn", "0.linear1", "0.linear2", "0.norm2"} <= set(captured.names)
        torch.testing.assert_close(captured.output, module(case.inputs()))

    def test_own_parameters_or_have_no_children(self):
        case = BY_NAME["weight_norm"]
        captured = capture(replica(case.module()), case.inputs(), "leaves")
        assert captured.names == ("0", "1", "2")
        attention = BY_NAME["attention"]
        captured = capture(replica(attention.module()), attention.inputs(), "leaves")
        (first,) = [call for call in captured.layers if call.layer == "attention"]
        assert len(first.inputs) == 3
        assert captured.names == ("attention", "norm", "out")

    def test_inputs_only_there(self):
        case = BY_NAME["mlp"]
        assert capture(replica(case.module()), case.inputs()).layers[0].inputs == ()
        (x,) = capture(replica(case.module()), case.inputs(), "leaves").layers[0].inputs
        assert torch.equal(x, case.inputs())
        assert not x.requires_grad


class TestHooks:
    def test_are_removed(self):
        case = BY_NAME["residual"]
        copied = replica(case.module())
        capture(copied, case.inputs(), "leaves")
        with pytest.raises(RuntimeError):
            capture(copied, case.inputs()[:, :, :, 0], "leaves")
        for module in copied.module.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks

    def test_see_what_the_users_hooks_return(self):
        module = BY_NAME["mlp"].module()
        module[0].register_forward_hook(lambda m, args, out: out * 2)
        captured = capture(replica(module), X)
        torch.testing.assert_close(captured["0"].output, 2 * F.linear(X, *module[0].parameters()))

    def test_threads(self):
        case = BY_NAME["residual"]
        module = case.module()
        batches = [case.inputs(seed=seed) for seed in range(8)]

        def work(inputs):
            return [call.output for call in capture(replica(module), inputs, "leaves").layers]

        expected = [work(inputs) for inputs in batches]
        with assert_untouched(module), ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                for ours, theirs in zip(pool.map(work, batches), expected, strict=True):
                    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
