import pytest
import torch
from torch import nn

from nets import normal
from skgeo.geometry.symmetry.activations import KINKS, derivative, responds
from skgeo.network.vocabulary import describe_module

MODULES = [
    nn.ReLU(), nn.LeakyReLU(0.3), nn.ReLU6(), nn.ELU(), nn.SELU(), nn.CELU(), nn.GELU(), nn.SiLU(),
    nn.Mish(), nn.Tanh(), nn.Sigmoid(), nn.Softplus(), nn.Softsign(), nn.Hardtanh(),
    nn.Hardswish(), nn.Hardsigmoid(), nn.Tanhshrink(),
]  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_derivatives_are_those_of_the_modules(module):
    step = describe_module(module)
    values = 3 * normal(50)
    arguments = values.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(module(arguments).sum(), arguments)
    found = derivative(step.what, step.slope, values)
    torch.testing.assert_close(found, expected)
    threshold = 0.0 if step.what in KINKS else 1e-3
    assert torch.equal(responds(step.what, step.slope, values), expected.abs() > threshold)


def test_unknown_functions_respond():
    assert derivative("prelu", float("nan"), torch.ones(2)) is None
    assert derivative("unheard_of", float("nan"), torch.ones(2)) is None
    assert responds("prelu", float("nan"), torch.tensor([-1.0, 1.0])).all()
    assert derivative("identity", 1.0, torch.zeros(2)).tolist() == [1.0, 1.0]
