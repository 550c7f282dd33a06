import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME, CASES
from helpers.layer_oracles import run_from
from helpers.oracles import assert_untouched
from skgeo import SkgeoError
from skgeo.jacobian import Layers, Segment
from skgeo.jacobian._directional import push
from skgeo.network import replica

INDICES = {"embedding", "embedding_tied", "dict"}


def segments(case):
    """The map to every layer of a case, from the input or from the embedding."""
    module, inputs = case.module(), case.inputs()
    layers = Layers(replica(module, forward=case.forward, parameters=None), inputs)
    source = layers.layers[0] if case.name in INDICES else None
    for layer in layers.layers[source is not None :]:
        if source is None or source.is_cut:
            yield module, inputs, layer, Segment(layers.replica, inputs, layer, source)
    if source is None:
        yield module, inputs, None, Segment(layers.replica, inputs, None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_values_at_every_kind_of_layer(case):
    for module, inputs, layer, segment in segments(case):
        with assert_untouched(module):
            found = segment(segment.start())
        if layer is None:
            expected = module(inputs) if case.forward is None else case.forward(module, inputs)
        else:
            h = run_from(module, inputs, layer.name, forward=case.forward)[1]
            expected = h.movedim(layer.axis, 0)
        torch.testing.assert_close(found, expected.detach().reshape(found.shape))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_finite_and_small_moves_from_every_kind_of_layer_to_the_outputs(case):
    module, inputs = case.module(), case.inputs()
    layers = Layers(replica(module, forward=case.forward, parameters=None), inputs)
    seen = layers.record(inputs)
    outputs, jacobians = seen.output.detach(), seen.output_jacobians()
    for layer in layers.layers:  # those that are not cuts as well
        segment, h = Segment(layers.replica, inputs, None, layer), seen.representation(layer)
        assert torch.equal(segment(h), outputs.flatten(1))
        direction = torch.randn(h.shape, generator=torch.Generator().manual_seed(0)).to(h)
        moved = (h + direction).reshape(len(outputs), *layer.shape)
        expected = run_from(module, inputs, layer.name, moved, case.forward)[0].detach()
        torch.testing.assert_close(segment(h + direction), expected.flatten(1))
        z, dz = push(segment, h, direction)
        assert torch.equal(z, outputs.flatten(1))
        expected = (jacobians[layer.name] @ direction.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(dz, expected)


def test_segments_are_differentiable():
    case = BY_NAME["transformer"]
    layers = Layers(replica(case.module(), parameters=None), case.inputs())
    segment = Segment(layers.replica, case.inputs(), None, layers["0"])
    h = layers.record(case.inputs()).representation(layers["0"]).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: segment(h), (h,))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_jacobians_against_differences(case):
    for *_, segment in segments(case):
        x = segment.start()
        jacobian = segment.jacobian(x)
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
        step = 1e-6 * direction
        expected = (segment(x + step) - segment(x - step)) / 2e-6
        found = (jacobian @ direction.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_some_samples_and_repeated_ones():
    case = BY_NAME["mlp"]
    layers = Layers(replica(case.module(), parameters=None), case.inputs())
    segment = Segment(layers.replica, case.inputs(), layers.layers[1])
    x = segment.start()
    torch.testing.assert_close(segment.take(slice(1, 3))(x[1:3]), segment(x)[1:3])
    index = torch.tensor([4, 0, 0])
    torch.testing.assert_close(segment.take(index)(x[index]), segment(x)[index])


def test_later_layers_do_not_run():
    class Refuses(nn.Module):
        def forward(self, x):
            raise AssertionError("ran")

    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Identity())
    layers = Layers(replica(net, parameters=None), torch.ones(2, 3))
    layers.replica.module[2] = Refuses()
    segment = Segment(layers.replica, torch.ones(2, 3), layers["1"])
    assert torch.equal(segment(torch.ones(2, 3)), net[:2](torch.ones(2, 3)).detach())


def test_places_that_cannot_be_started_from():
    case = BY_NAME["embedding"]
    layers = Layers(replica(case.module(), parameters=None), case.inputs())
    with pytest.raises(SkgeoError, match="after the embedding"):
        Segment(layers.replica, case.inputs(), None)
    segment = Segment(layers.replica, case.inputs(), layers["0"], layers["2"])
    with pytest.raises(SkgeoError, match="the source must come before the layer"):
        segment(torch.zeros(5, 3).double())
    mlp = BY_NAME["mlp"]
    with pytest.raises(SkgeoError, match=r"\(5, 3\); expected \(5, 4\)"):
        Segment(replica(mlp.module(), parameters=None), mlp.inputs(), None)(torch.zeros(5, 3))
