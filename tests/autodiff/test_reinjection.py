import pytest
import torch

from cases import BY_NAME, CASES
from skgeo import SkgeoError
from skgeo.autodiff.operators import LayerMaps, layer_replica
from skgeo.autodiff.reinjection import Tail
from tails import run_from


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_finite_and_small_moves_of_every_kind_of_layer(case):
    module, inputs = case.module(), case.inputs()
    maps = LayerMaps(layer_replica(module, forward=case.forward), inputs)
    outputs, jacobians = maps.jacobians(inputs)
    representations = maps.record(inputs).representations()
    for layer in maps.layers:
        tail, h = Tail(maps, inputs, layer.name), representations[layer.name]
        assert torch.equal(tail(h), outputs)
        torch.manual_seed(0)
        direction = torch.randn_like(h)
        moved = (h + direction).reshape(len(outputs), *layer.shape)
        expected = run_from(module, inputs, layer.name, moved, case.forward)[0].detach()
        torch.testing.assert_close(tail(h + direction), expected)
        z, dz = tail.jvp(h, direction)
        assert torch.equal(z, outputs)
        torch.testing.assert_close(
            dz.flatten(1), (jacobians[layer.name] @ direction.unsqueeze(-1)).squeeze(-1)
        )


def test_a_tail_is_differentiable():
    case = BY_NAME["transformer"]
    maps = LayerMaps(layer_replica(case.module()), case.inputs())
    tail = Tail(maps, case.inputs(), "0")
    h = maps.record(case.inputs()).representations()["0"].requires_grad_()
    assert torch.autograd.gradcheck(lambda h: tail(h), (h,))


def test_second_derivatives_pass_through_attention():
    case = BY_NAME["attention"]
    module, inputs = case.module(), case.inputs()
    maps = LayerMaps(layer_replica(module), inputs, ["attention", "norm"])
    z, dz = Tail(maps, inputs, "attention").jvp(
        *(maps.record(inputs).representations()["attention"],) * 2
    )
    assert torch.isfinite(dz).all()
    assert z.shape == dz.shape


def test_wrong_shapes_are_named():
    case = BY_NAME["mlp"]
    maps = LayerMaps(layer_replica(case.module()), case.inputs())
    with pytest.raises(SkgeoError, match=r"\(5, 3\); layer '1' takes \(5, 5\)"):
        Tail(maps, case.inputs(), "1")(torch.zeros(5, 3))
