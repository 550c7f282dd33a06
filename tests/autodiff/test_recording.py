import pytest
import torch

from cases import BY_NAME
from skgeo.autodiff.cotangents import unit_cotangents
from skgeo.autodiff.operators import LayerMaps, layer_replica


@pytest.mark.parametrize("name", ["mlp", "attention", "lstm", "residual", "transformer", "dict"])
def test_products_are_those_of_the_jacobian(name):
    case = BY_NAME[name]
    maps = LayerMaps(layer_replica(case.module()), case.inputs())
    seen = maps.record(case.inputs())
    size, width = len(seen.output), seen.output[0].numel()
    rows = seen.pull_back(unit_cotangents(seen.output), width)
    generator = torch.Generator().manual_seed(0)
    for layer in maps.layers:
        operator = seen.operator(layer.name)
        v = torch.randn(size, layer.dim, generator=generator, dtype=torch.float64)
        u = torch.randn(size, width, generator=generator, dtype=torch.float64)
        jacobian = rows[layer.name]
        torch.testing.assert_close(
            operator.push(v).flatten(1), torch.einsum("bkn,bn->bk", jacobian, v)
        )
        torch.testing.assert_close(
            operator.pull(u.reshape(seen.output.shape)), torch.einsum("bkn,bk->bn", jacobian, u)
        )


def test_representations_are_flattened_and_off_the_graph():
    case = BY_NAME["conv2d"]
    module, inputs = case.module(), case.inputs()
    seen = LayerMaps(layer_replica(module), inputs).record(inputs, ["0", "2"])
    found = seen.representations()
    torch.testing.assert_close(found["0"], module[0](inputs).detach().flatten(1))
    assert [layer.name for layer in seen.layers] == ["0", "2"]
    assert not found["0"].requires_grad
    assert seen.output.requires_grad
