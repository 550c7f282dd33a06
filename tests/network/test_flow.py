import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.architectures import build
from helpers.cases import BY_NAME, CASES
from helpers.laws import LockedMLP
from helpers.networks import mlp
from helpers.oracles import assert_untouched
from skgeo import NotAModelError
from skgeo.network import Replica
from skgeo.network._copytree import TreeCopy
from skgeo.network._flow import _trace, read_flow


def kinds(flow):
    return [node.kind for node in flow if node.known]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_architecture_is_read_and_untouched(case):
    module = case.module()
    with assert_untouched(module):
        flow = read_flow(module, forward=case.forward)
    assert flow.output is not None
    for node in flow:
        assert all(node.name in parent.users for parent in flow.parents(node))
        assert all(node.name in user.parents for user in flow.users(node))


def test_modules_and_functions_are_the_same_steps():
    module, _ = build("mlp")
    flow = read_flow(module)
    assert kinds(flow) == [
        "input", "linear", "activation", "linear", "activation", "linear", "output",
    ]  # fmt: skip
    assert [node.what for node in flow if node.kind == "activation"] == ["gelu", "tanh"]
    assert [node.module for node in flow if node.kind == "linear"] == ["first", "second", "head"]
    assert flow.unread == ()
    assert flow.layer(flow.nodes[1]) is module.first


def test_residual_networks():
    module, _ = build("resnet")
    flow = read_flow(module)
    adds = [node for node in flow if node.kind == "add"]
    assert [tuple(p.what for p in flow.parents(node)) for node in adds] == [
        ("BatchNorm2d", "MaxPool2d"),
        ("BatchNorm2d", "relu"),
        ("BatchNorm2d", "BatchNorm2d"),
    ]
    assert flow.calls("layer1.0.relu") == 2
    assert flow.unread == ()


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.head = nn.Linear(12, 2)
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x):
        h = self.conv(x)
        h.relu_()  # its result is thrown away: what follows reads the overwritten tensor
        h = F.leaky_relu(F.max_pool2d(h, 2), 0.2)
        h = F.dropout(h.view(h.size(0), -1), 0.5, training=self.training)
        return self.head(h.reshape(h.shape[0], -1).contiguous()) * self.scale


def test_functions_methods_and_in_place_steps():
    flow = read_flow(Functional())
    assert kinds(flow) == [
        "input", "conv", "activation", "pool", "activation", "flatten", "identity", "flatten",
        "identity", "linear", "constant", "other", "output",
    ]  # fmt: skip
    found = [str(node.activation) for node in flow if node.kind == "activation"]
    assert found == ["relu", "leaky_relu(negative_slope=0.2)"]
    for node in flow.nodes[1:10]:
        assert len(node.parents) == len(node.users) == 1


def test_parameters_outside_layers_are_listed():
    flow = read_flow(LockedMLP())
    assert len(flow.unread) == 2
    assert all("outside the layers" in line for line in flow.unread)
    assert [node.what for node in flow if node.kind == "other"] == ["matmul", "matmul"]


def test_computed_weights_and_hooks_are_not_looked_into():
    flow = read_flow(BY_NAME["weight_norm"].module())
    assert [line.split(":")[0] for line in flow.unread] == ["0"]
    module = mlp(2, 3, 1)
    module[0].register_forward_hook(lambda *_: None)
    flow = read_flow(module)
    assert [node.kind for node in flow] == ["input", "other", "activation", "linear", "output"]
    assert flow.unread[0].startswith("0: Linear")


class Undecided(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = mlp(3, 4, 3), mlp(3, 5, 3)

    def forward(self, x):
        return self.first(x) if x.sum() > 0 else self.second(x)


def test_what_depends_on_values_is_one_step_and_its_parts_are_read():
    flow = read_flow(nn.Sequential(nn.Linear(2, 3), Undecided(), nn.Linear(3, 1)))
    assert kinds(flow) == ["input", "linear", "unread", "linear", "output"]
    assert len(flow.unread) == 1
    assert "1: Undecided cannot be followed without data" in flow.unread[0]
    parts = [node.module for node in flow if not node.known and node.kind == "linear"]
    assert parts == ["1.first.0", "1.first.2", "1.second.0", "1.second.2"]
    assert flow.output.module == "2"


def test_a_network_that_cannot_be_followed_at_all():
    module, _ = build("transformer")
    flow = read_flow(module)
    assert kinds(flow) == ["input", "unread", "output"]
    attention = [node.module for node in flow if node.kind == "attention"]
    assert attention == [f"blocks.{i}.attention" for i in range(3)]


def test_an_example_tells_the_lengths():
    module, tokens = build("transformer")
    with assert_untouched(module):
        flow = read_flow(module, example=tokens[:2])
    assert flow.unread == ("positions: a parameter used outside the layers of torch.nn",)
    assert all(node.known for node in flow)
    attention = [node for node in flow if node.kind == "attention"]
    assert [node.module for node in attention] == [f"blocks.{i}.attention" for i in range(3)]
    assert len(attention[0].parents) == 4
    assert flow.output.module == "head"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_example_changes_nothing_where_none_is_needed(case):
    module, found = case.module(), {}
    copy = Replica(TreeCopy(module), case.forward, None)
    plain = _trace(copy, "", found)
    example = _trace(copy, "", found, case.inputs(2))
    assert repr(plain) == repr(example)
    assert found == {}


class Reshaped(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(2, 3), nn.Linear(12, 1)

    def forward(self, x):
        n, length, _ = x.shape
        if length > 100:
            return x
        hidden = self.first(x).relu()
        assert len(hidden) == n == hidden.size(0)
        assert (hidden.dim(), hidden.numel()) == (3, 3 * n * length)
        return self.head(hidden.view(n, -1))


def test_shapes_are_known_with_an_example():
    module = Reshaped()
    assert kinds(read_flow(module)) == ["input", "unread", "output"]
    flow = read_flow(module, example=torch.zeros(2, 4, 2))
    assert kinds(flow) == ["input", "linear", "activation", "flatten", "linear", "output"]
    assert flow.unread == ()
    values = read_flow(Undecided(), example=torch.zeros(2, 3))
    assert kinds(values) == ["input", "unread", "output"]


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoders_of_torch_are_looked_into(norm_first):
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(4), enable_nested_tensor=False)
    flow = read_flow(nn.Sequential(encoder, nn.Linear(4, 2)))
    assert flow.unread == ()
    attention = [node.module for node in flow if node.kind == "attention"]
    assert attention == ["0.layers.0.self_attn", "0.layers.1.self_attn"]
    hidden = [node for node in flow if node.what == "relu"]
    assert [flow.parents(node)[0].module for node in hidden] == [
        "0.layers.0.linear1",
        "0.layers.1.linear1",
    ]
    first = next(node for node in flow if node.kind == "attention")
    assert {parent.kind for parent in flow.parents(first)} == {
        "layernorm" if norm_first else "input"
    }


def test_forward_functions_are_followed():
    flow = read_flow(mlp(2, 3, 1), forward=lambda module, x: module(x["a"]).tanh())
    assert kinds(flow) == [
        "input", "select", "linear", "activation", "linear", "activation", "output",
    ]  # fmt: skip


def test_other_threads_may_run_modules_meanwhile():
    module, inputs = build("resnet")
    expected = module(inputs)
    wrong, stop = [], threading.Event()

    def run():
        while not stop.is_set():
            if not torch.equal(module(inputs), expected):
                wrong.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        flows = [read_flow(module) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert not wrong
    assert all(flow.nodes == flows[0].nodes or repr(flow) == repr(flows[0]) for flow in flows)


def test_bad_input():
    with pytest.raises(NotAModelError, match=r"expected a torch\.nn\.Module"):
        read_flow("net")
