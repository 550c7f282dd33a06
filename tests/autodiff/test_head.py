import pytest
import torch
from torch import nn

from cases import BY_NAME, CASES
from oracles import assert_untouched
from skgeo import SkgeoError
from skgeo.autodiff.head import Head
from skgeo.autodiff.operators import LayerMaps, layer_replica
from tails import run_from

INDICES = {"embedding", "embedding_tied", "dict"}


def heads(case):
    """The map to every layer of a case, from the input or from the embedding."""
    module, inputs = case.module(), case.inputs()
    maps = LayerMaps(layer_replica(module, forward=case.forward), inputs)
    source = maps.layers[0] if case.name in INDICES else None
    for layer in maps.layers[source is not None :]:
        if source is None or source.is_cut:
            yield module, inputs, layer, Head(maps.replica, inputs, layer, source)
    if source is None:
        yield module, inputs, None, Head(maps.replica, inputs, None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_values_at_every_kind_of_layer(case):
    for module, inputs, layer, head in heads(case):
        with assert_untouched(module):
            found = head(head.start())
        if layer is None:
            expected = module(inputs) if case.forward is None else case.forward(module, inputs)
        else:
            h = run_from(module, inputs, layer.name, forward=case.forward)[1]
            expected = h.movedim(layer.axis, 0)
        torch.testing.assert_close(found, expected.detach().reshape(found.shape))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_jacobians_against_differences(case):
    for *_, head in heads(case):
        x = head.start()
        jacobian = head.jacobian(x)
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
        step = 1e-6 * direction
        expected = (head(x + step) - head(x - step)) / 2e-6
        found = (jacobian @ direction.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_some_samples_and_repeated_ones():
    case = BY_NAME["mlp"]
    maps = LayerMaps(layer_replica(case.module()), case.inputs())
    head = Head(maps.replica, case.inputs(), maps.layers[1])
    x = head.start()
    torch.testing.assert_close(head.take(slice(1, 3))(x[1:3]), head(x)[1:3])
    index = torch.tensor([4, 0, 0])
    torch.testing.assert_close(head.take(index)(x[index]), head(x)[index])


def test_later_layers_do_not_run():
    class Refuses(nn.Module):
        def forward(self, x):
            raise AssertionError("ran")

    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Identity())
    maps = LayerMaps(layer_replica(net), torch.ones(2, 3))
    maps.replica.module[2] = Refuses()
    head = Head(maps.replica, torch.ones(2, 3), maps["1"])
    assert torch.equal(head(torch.ones(2, 3)), net[:2](torch.ones(2, 3)).detach())


def test_places_that_cannot_be_started_from():
    case = BY_NAME["embedding"]
    maps = LayerMaps(layer_replica(case.module()), case.inputs())
    with pytest.raises(SkgeoError, match="behind the embedding"):
        Head(maps.replica, case.inputs(), None)
    head = Head(maps.replica, case.inputs(), maps["0"], maps["2"])
    with pytest.raises(SkgeoError, match="the source before the layer"):
        head(torch.zeros(5, 3).double())
    mlp = BY_NAME["mlp"]
    with pytest.raises(SkgeoError, match=r"\(5, 3\); this batch starts from \(5, 4\)"):
        Head(layer_replica(mlp.module()), mlp.inputs(), None)(torch.zeros(5, 3))
