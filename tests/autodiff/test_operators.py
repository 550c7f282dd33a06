import pytest
import torch
from torch import nn

from cases import BY_NAME, CASES
from oracles import assert_untouched
from skgeo import SkgeoError
from skgeo.autodiff import capture
from skgeo.autodiff.operators import LayerMaps, layer_replica
from tails import dense_tail_jacobian


def maps_of(case, layers=None, **kwargs):
    module, inputs = case.module(**kwargs), case.inputs(**kwargs)
    return LayerMaps(layer_replica(module, forward=case.forward), inputs, layers), module, inputs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_jacobians_of_every_kind_of_layer_match_brute_force(case):
    module, inputs = case.module(), case.inputs()
    with assert_untouched(module):
        maps = LayerMaps(layer_replica(module, forward=case.forward), inputs)
        outputs, found = maps.jacobians(inputs)
    expected_outputs = module(inputs) if case.forward is None else case.forward(module, inputs)
    torch.testing.assert_close(outputs, expected_outputs.detach())
    assert list(found) == [layer.name for layer in maps.layers]
    for layer in maps.layers:
        expected = dense_tail_jacobian(module, inputs, layer.name, case.forward)
        assert found[layer.name].shape == (len(outputs), outputs[0].numel(), layer.dim)
        torch.testing.assert_close(
            found[layer.name], torch.from_numpy(expected), rtol=1e-10, atol=1e-12
        )


def test_layers_are_those_of_a_capture():
    for name in ("mlp", "residual", "reused", "plain_list", "attention"):
        maps, module, inputs = maps_of(BY_NAME[name])
        seen = capture(layer_replica(module), inputs)
        assert [layer.name for layer in maps.layers] == list(seen.names)
        assert [layer.is_cut for layer in maps.layers] == [call.is_cut for call in seen.layers]


def test_calls_are_numbered_and_the_output_is_known():
    maps, module, inputs = maps_of(BY_NAME["reused"])
    assert [(layer.name, layer.module, layer.number) for layer in maps.layers] == [
        ("body", "body", 0),
        ("relu", "relu", 0),
        ("body#1", "body", 1),
        ("relu#1", "relu", 1),
        ("out", "out", 0),
    ]
    assert [layer.is_output for layer in maps.layers] == [False] * 4 + [True]
    only = LayerMaps(maps.replica, inputs, ["relu#1"])
    _, jacobians = only.jacobians(inputs)
    torch.testing.assert_close(
        jacobians["relu#1"], module.out.weight.detach().expand(len(inputs), -1, -1)
    )


def test_layers_inside_a_branch_are_no_cuts():
    maps, *_ = maps_of(BY_NAME["residual"], ["stem", "block.bn1", "block.relu#1", "fc"])
    assert [layer.is_cut for layer in maps.layers] == [True, False, True, True]


class Transposed(nn.Module):
    """Positions first inside, as recurrent layers and transformers have it by default."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.rnn(x.transpose(0, 1))[0][-1])


@pytest.mark.parametrize("n", [1, 2, 6])
def test_the_axis_of_the_samples_is_found(n):
    torch.manual_seed(0)
    module, X = Transposed().double(), torch.randn(n, 6, 3, dtype=torch.float64)
    maps = LayerMaps(layer_replica(module), X)
    assert (maps["rnn"].shape, maps["rnn"].axis) == ((6, 4), 1)
    _, found = maps.jacobians(X)
    expected = dense_tail_jacobian(module, X, "rnn")
    torch.testing.assert_close(found["rnn"], torch.from_numpy(expected), rtol=1e-10, atol=1e-12)


class Coupled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        h = self.first(x)
        return self.last(h - h.mean(0))


def test_samples_that_are_coupled_are_refused():
    with pytest.raises(SkgeoError, match=r"'first'.*no axis of it keeps them apart"):
        LayerMaps(layer_replica(Coupled()), torch.randn(5, 3))


def test_unknown_layers_are_refused_with_those_that_exist():
    maps, _module, inputs = maps_of(BY_NAME["mlp"])
    with pytest.raises(SkgeoError, match=r"No layer named 'hidden'.*0, 1, 2, 3, 4"):
        LayerMaps(maps.replica, inputs, ["hidden"])
    with pytest.raises(SkgeoError, match=r"No layer '7' among those looked at: 0, 1, 2, 3, 4"):
        maps["7"]


class SideBranch(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.probe = nn.Linear(3, 2), nn.Linear(3, 4)

    def forward(self, x):
        self.probe(x)
        return self.trunk(x)


def test_layers_without_a_path_to_the_output_are_refused():
    with pytest.raises(SkgeoError, match="does not depend on what layer 'probe' returns"):
        LayerMaps(layer_replica(SideBranch()), torch.ones(4, 3), ["probe"])


class Counts(nn.Module):
    """A layer that returns indices, and one that returns as many rows as the first input says."""

    def __init__(self):
        super().__init__()
        self.choose = nn.Module()
        self.body, self.out = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        h = self.body(x.unsqueeze(1).expand(-1, int(x[0, 0].abs()) + 1, -1))
        return self.out(h.sum(1))


def test_representations_of_another_size_are_refused():
    maps = LayerMaps(layer_replica(Counts()), torch.ones(4, 3))
    with pytest.raises(SkgeoError, match="must be the same for all samples"):
        maps.jacobians(3 * torch.ones(4, 3))


def test_representations_that_are_no_floats_are_refused():
    module = nn.Sequential(nn.Linear(3, 2), nn.Threshold(0.0, 0.0))

    class Argmax(nn.Module):
        def forward(self, x):
            return x.argmax(1)

    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.pick = module, Argmax()

        def forward(self, x):
            z = self.inner(x)
            self.pick(z)
            return z

    with pytest.raises(SkgeoError, match="returned no floating tensor"):
        LayerMaps(layer_replica(Wrong()), torch.ones(4, 3), ["pick"])


def test_outputs_that_are_not_finite_are_refused():
    maps = LayerMaps(layer_replica(nn.Sequential(nn.Linear(1, 1), nn.Softplus())), torch.ones(2, 1))
    with pytest.raises(SkgeoError, match="sample 1"):
        maps.jacobians(torch.tensor([[0.0], [float("nan")]]))


def test_inference_mode_outside_does_no_harm():
    maps, _, inputs = maps_of(BY_NAME["mlp"])
    expected = maps.jacobians(inputs)[1]
    with torch.inference_mode():
        found = maps.jacobians(inputs.clone())[1]
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_no_parameter_is_on_the_graph():
    maps, _, inputs = maps_of(BY_NAME["mlp"])
    assert not any(p.requires_grad for p in maps.replica.parameters.values())
    assert maps.record(inputs, ["4"]).output.requires_grad
