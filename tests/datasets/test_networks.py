"""The ranks that the networks promise, against a dense Jacobian."""

import numpy as np
import pytest
import torch

from skgeo.datasets import KnownNetwork, known_networks, planted_relu, two_hinges

CASES = known_networks()


def dense_fisher_eigenvalues(case: KnownNetwork) -> np.ndarray:
    """Eigenvalues, descending, from one backward pass per sample and output."""
    parameters = list(case.module.parameters())
    metric = np.zeros((case.n_parameters, case.n_parameters))
    for x in case.inputs:
        outputs = case.module(x[None])[0]
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(z, parameters, retain_graph=True)])
            for z in outputs
        ]
        jacobian = torch.stack(rows).numpy()
        if case.likelihood == "categorical":
            p = torch.softmax(outputs.detach(), 0).numpy()
            weight = np.diag(p) - np.outer(p, p)
        else:
            weight = np.eye(len(outputs))
        metric += jacobian.T @ weight @ jacobian
    return np.linalg.eigvalsh(metric / len(case.inputs))[::-1]


@pytest.mark.parametrize("name", CASES)
def test_rank_is_the_promised_one(name):
    case = CASES[name]
    eigenvalues = dense_fisher_eigenvalues(case)
    kept, dropped = eigenvalues[: case.fisher_rank], eigenvalues[case.fisher_rank :]
    # The smallest eigenvalue kept and the rounding noise must be decades apart, or the case would
    # be no use as a reference.
    assert kept.min() > 1e-8 * eigenvalues[0]
    assert np.abs(dropped).max(initial=0) < 1e-13 * eigenvalues[0]


def test_cases_are_double_precision_and_say_why():
    for case in CASES.values():
        assert case.inputs.dtype == torch.float64
        assert {p.dtype for p in case.module.parameters()} == {torch.float64}
        assert case.fisher_rank + case.fisher_nullity == case.n_parameters
        assert case.why


def test_seed_decides_everything_and_global_state_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = planted_relu(seed=1), planted_relu(seed=1), planted_relu(seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.module[0].weight, again.module[0].weight)
    assert not torch.equal(first.module[0].weight, other.module[0].weight)


def test_two_hinges_compute_one_function():
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)[:, None]
    one, two = two_hinges().module, two_hinges(reversed_orientation=True).module
    torch.testing.assert_close(one(x), two(x))
    assert not torch.equal(one[0].weight, two[0].weight)
