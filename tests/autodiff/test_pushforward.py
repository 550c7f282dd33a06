import pytest
import torch

from cases import CASES
from oracles import assert_untouched, dense_jacobian
from skgeo.autodiff import replica
from skgeo.autodiff.pushforward import OutputOperator


def operator(case):
    return OutputOperator(replica(case.module(), forward=case.forward), case.inputs())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_products_match_the_dense_jacobian(case):
    module = case.module()
    with assert_untouched(module):
        found = OutputOperator(replica(module, forward=case.forward), case.inputs())
    z, jacobian = (torch.from_numpy(a) for a in dense_jacobian(module, case.inputs(), case.forward))
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(jacobian.shape[2], generator=generator, dtype=torch.float64)
    u = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(found.outputs.reshape(z.shape), z)
    torch.testing.assert_close(found.push(v).reshape(z.shape), jacobian @ v)
    pulled = found.pull(u.reshape(found.outputs.shape))
    torch.testing.assert_close(pulled, torch.einsum("nm,nmp->p", u, jacobian))
    # The products may be taken again: nothing of the graph was consumed.
    torch.testing.assert_close(found.push(2 * v).reshape(z.shape), 2 * jacobian @ v)


# torch compiles scripts of its own when forward mode is first used, and warns of itself.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_without_second_derivatives_forward_mode_does(monkeypatch):
    def refuse(self):
        raise RuntimeError("no second derivative")

    expected = operator(CASES[0])
    v = torch.ones(len(expected.pull(expected.outputs)), dtype=torch.float64)
    monkeypatch.setattr(OutputOperator, "_twice_backward", refuse)
    torch.testing.assert_close(operator(CASES[0]).push(v), expected.push(v))
