import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.cases import BY_NAME, CASES, Block
from helpers.networks import seeded
from helpers.oracles import assert_untouched
from skgeo.jacobian._calls import CallRecorder
from skgeo.jacobian._layer_names import leaves, named
from skgeo.network import replica

FLOATING = [case for case in CASES if not case.name.startswith(("embedding", "dict"))]
# A tied weight has more terms than one layer shows.
UNTIED = [case for case in CASES if case.name not in ("embedding_tied", "tied")]
X = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4)


def gradient(output, source):
    return torch.autograd.grad(output.square().sum(), source, retain_graph=True)[0]


def recorded(copied, inputs, names=None, *, keep_inputs=True):
    """One forward pass with all leaves, or the named layers, watched: recorder and output."""
    everything = named(copied.module)
    recorder = CallRecorder(keep_inputs=keep_inputs)
    with ExitStack() as stack:
        for name in leaves(copied.module) if names is None else names:
            recorder.watch(name, everything[name], stack)
        with torch.enable_grad():
            output = copied(recorder.root_at(inputs))
    return recorder, output


def by_name(recorder):
    return {call.name: call for call in recorder.calls}


@pytest.mark.parametrize("case", FLOATING, ids=lambda case: case.name)
def test_the_gradient_with_respect_to_the_input_is_left_as_it_is(case):
    module, inputs = case.module(), case.inputs()
    with assert_untouched(module):
        recorder, output = recorded(replica(module, forward=case.forward), inputs)
    leaf = inputs.clone().requires_grad_(True)
    # Not the leaf itself, since a network may start with an in-place operation.
    expected = case.run(copy.deepcopy(module), leaf * 1)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(gradient(output, recorder.root), gradient(expected, leaf))
    assert recorder.root_name == "input"
    assert recorder.root_call is None


@pytest.mark.parametrize("case", UNTIED, ids=lambda case: case.name)
def test_inputs_and_outputs_give_the_gradients_of_linear_layers(case):
    module, inputs = case.module(), case.inputs()
    recorder, output = recorded(replica(module, forward=case.forward), inputs)
    plain = copy.deepcopy(module)
    case.run(plain, inputs).square().sum().backward()
    for name, layer in plain.named_modules():
        if type(layer) is not nn.Linear:
            continue
        total = torch.zeros_like(layer.weight)
        for call in recorder.calls:
            if call.layer == (name or "Linear"):
                a = call.inputs[0].reshape(-1, layer.in_features)
                g = gradient(output, call.output).reshape(-1, layer.out_features)
                total += g.T @ a
        torch.testing.assert_close(total, layer.weight.grad)


class TestInPlace:
    def test_a_residual_block_is_seen_as_it_was(self):
        block = seeded(lambda: Block(3))
        x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
        recorder, _ = recorded(replica(block), x)
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
        calls = by_name(recorder)
        assert list(calls) == list(expected)
        assert recorder.ran == ["conv1", "bn1", "relu", "conv2", "bn2", "relu"]
        for name, value in expected.items():
            torch.testing.assert_close(calls[name].output, value)
        torch.testing.assert_close(calls["conv2"].inputs[0], first)
        torch.testing.assert_close(calls["relu"].inputs[0], expected["bn1"])

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
        recorder, output = recorded(replica(module), X)
        calls = by_name(recorder)
        # The addition comes after `same` and `flat` were read by tanh and sum.
        h = module.body(X)
        torch.testing.assert_close(calls["same"].output, h)
        torch.testing.assert_close(calls["flat"].output, h)
        torch.testing.assert_close(output, module(X))

    def test_of_the_input_itself(self):
        module = seeded(lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)))
        x = X.clone()
        recorder, output = recorded(replica(module), x)
        assert torch.equal(x, X)
        expected = torch.autograd.functional.jacobian(
            lambda v: module(v * 1).square().sum(), X.clone()
        )
        torch.testing.assert_close(gradient(output, recorder.root), expected)


class TestWatching:
    def test_is_not_bypassed_by_fused_attention(self):
        case = BY_NAME["transformer"]
        module = case.module()
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name.startswith("2"))
        recorder, output = recorded(replica(module), case.inputs())
        assert {"0.self_attn", "0.linear1", "0.linear2", "0.norm2"} <= set(by_name(recorder))
        torch.testing.assert_close(output, module(case.inputs()))

    def test_leaves_own_parameters_or_have_no_children(self):
        case = BY_NAME["weight_norm"]
        recorder, _ = recorded(replica(case.module()), case.inputs())
        assert list(by_name(recorder)) == ["0", "1", "2"]
        attention = BY_NAME["attention"]
        recorder, _ = recorded(replica(attention.module()), attention.inputs())
        calls = by_name(recorder)
        assert len(calls["attention"].inputs) == 3
        assert list(calls) == ["attention", "norm", "out"]

    def test_keeps_inputs_only_where_asked(self):
        case = BY_NAME["mlp"]
        without, _ = recorded(replica(case.module()), case.inputs(), keep_inputs=False)
        assert without.calls[0].inputs == ()
        recorder, _ = recorded(replica(case.module()), case.inputs())
        (x,) = recorder.calls[0].inputs
        assert torch.equal(x, case.inputs())
        assert not x.requires_grad

    def test_without_keeping_notes_the_order_alone(self):
        copied = replica(BY_NAME["mlp"].module())
        recorder = CallRecorder()
        with ExitStack() as stack:
            recorder.watch("0", copied.module[0], stack)
            recorder.watch("1", copied.module[1], stack, keep=False)
            copied(X)
        assert recorder.ran == ["0", "1"]
        assert list(by_name(recorder)) == ["0"]

    def test_hooks_are_removed(self):
        case = BY_NAME["residual"]
        copied = replica(case.module())
        recorded(copied, case.inputs())
        with pytest.raises(RuntimeError):
            recorded(copied, case.inputs()[:, :, :, 0])
        for module in copied.module.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks

    def test_sees_what_the_users_hooks_return(self):
        module = BY_NAME["mlp"].module()
        module[0].register_forward_hook(lambda m, args, out: out * 2)
        recorder, _ = recorded(replica(module), X)
        expected = 2 * F.linear(X, *module[0].parameters())
        torch.testing.assert_close(by_name(recorder)["0"].output, expected)

    def test_in_threads(self):
        case = BY_NAME["residual"]
        module = case.module()
        batches = [case.inputs(seed=seed) for seed in range(8)]

        def work(inputs):
            return [call.output for call in recorded(replica(module), inputs)[0].calls]

        expected = [work(inputs) for inputs in batches]
        with assert_untouched(module), ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                for ours, theirs in zip(pool.map(work, batches), expected, strict=True):
                    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
