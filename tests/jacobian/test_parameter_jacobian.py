import pytest
import torch

from helpers.cases import BY_NAME, CASES
from helpers.oracles import assert_untouched, dense_jacobian
from skgeo.jacobian import ParameterJacobian
from skgeo.network import replica


def jacobian_of(case):
    return ParameterJacobian(replica(case.module(), forward=case.forward), case.inputs())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_forms_match_the_dense_jacobian(case):
    module = case.module()
    with assert_untouched(module):
        found = ParameterJacobian(replica(module, forward=case.forward), case.inputs())
        rows, factors = found.rows(), found.factors()
    z, jacobian = (torch.from_numpy(a) for a in dense_jacobian(module, case.inputs(), case.forward))
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(jacobian.shape[2], generator=generator, dtype=torch.float64)
    u = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(found.outputs.reshape(z.shape), z)
    torch.testing.assert_close(rows, jacobian)
    torch.testing.assert_close(factors.rows(), jacobian)
    torch.testing.assert_close(found.push(v).reshape(z.shape), jacobian @ v)
    pulled = found.pull(u.reshape(found.outputs.shape))
    torch.testing.assert_close(pulled, torch.einsum("nm,nmp->p", u, jacobian))
    # The products may be taken again: nothing of the graph was consumed.
    torch.testing.assert_close(found.push(2 * v).reshape(z.shape), 2 * jacobian @ v)


class Counting:
    """A forward function that counts its calls; replicas share it."""

    def __init__(self):
        self.calls = 0

    def __call__(self, module, x):
        self.calls += 1
        return module(x)


def test_nothing_is_recorded_before_it_is_asked_for():
    case, forward = BY_NAME["mlp"], Counting()
    found = ParameterJacobian(replica(case.module(), forward=forward), case.inputs())
    assert forward.calls == 0
    found.factors()
    rows = found.rows(path="loop")
    before = forward.calls
    assert found.outputs.shape == rows.shape[:2]
    assert forward.calls == before
    assert "_graph" not in vars(found)
    assert found._push is None
    found.pull(found.outputs)
    assert forward.calls == before + 1
    assert found._push is None
    found.push(torch.ones(rows.shape[2], dtype=torch.float64))
    assert forward.calls == before + 1


def test_a_certificate_spares_the_check_of_other_samples():
    case = BY_NAME["mlp"]
    copied = replica(case.module())
    certificate = ParameterJacobian(copied, case.inputs(3)).certify()
    assert certificate
    found = ParameterJacobian(copied, case.inputs()).factors(certificate=certificate)
    torch.testing.assert_close(found.rows(), jacobian_of(case).rows())


# torch compiles scripts of its own when forward mode is first used, and warns of itself.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_without_second_derivatives_forward_mode_does(monkeypatch):
    def refuse(self):
        raise RuntimeError("no second derivative")

    expected = jacobian_of(CASES[0])
    v = torch.ones(len(expected.pull(expected.outputs)), dtype=torch.float64)
    monkeypatch.setattr(ParameterJacobian, "_twice_backward", refuse)
    torch.testing.assert_close(jacobian_of(CASES[0]).push(v), expected.push(v))
