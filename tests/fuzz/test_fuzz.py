"""A fixed number of random networks, and tests of the fuzz itself."""

import json

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fuzz.fibers import examine_fiber
from fuzz.networks import MOST_PARAMETERS, make_case
from fuzz.oracle import answer, derive, weighted
from fuzz.run import counts, examine, read_state
from helpers.oracles import dense_fisher, spectrum

# torch speaks of its own kernels while networks are drawn and differentiated.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def failures(verdicts):
    return [v for v in verdicts if v.kind in ("wrong", "bare")]


# A smaller seed is no smaller network, so failures are not shrunk.
@settings(max_examples=20, derandomize=True, database=None, phases=[Phase.generate])
@given(st.integers(0, 10**6))
def test_no_wrong_number_and_no_bare_error(seed):
    recipe, verdicts = examine(seed)
    assert not failures(verdicts), recipe


@settings(max_examples=15, derandomize=True, database=None, phases=[Phase.generate])
@given(st.integers(0, 10**6))
def test_linear_chains_against_elimination(seed):
    recipe, verdicts = examine_fiber(seed)
    assert not failures(verdicts), recipe


# What the fuzz found, and what was mended.
FOUND = {
    20: "inputs of a comparison were overwritten",
    36: "a normalisation amplifies rounding at some samples",
    43: "no forward mode and no second derivatives",
    49: "a part of a link was taken for the link",
    120: "a normalisation amplifies rounding in float32",
    128: "derivatives of a few digits were taken for zero",
    155: "an operation in place overwrites what the backward pass needs",
    164: "inputs of a comparison part by part were overwritten",
    175: "a singular value of a bfloat16 network was taken for rounding",
    193: "weights before a normalisation have derivatives that are rounding",
    845: "roots of a metric below the range of float32",
    1092: "an operation in place, seen by the rules of layers",
    1101: "weights before an instance normalisation have derivatives that are rounding",
    1120: "derivatives of one digit were taken for zero",
    1137: "squares of small derivatives left the range of float32",
    1145: "the oracle lost the digits of a small slope",
    1344: "rounding grew less than it does in true sums",
    1411: "the oracle's small slopes, at another scale",
    1464: "rounding of terms that cancel was measured as nothing",
    1589: "an embedding that looks up nothing but its padding",
    1830: "products of gradients of padding",
    1963: "the oracle took another eps of a normalisation",
    2111: "a maximum of units that were cut off",
    2140: "the tail of a softmax, squared in float32",
    2178: "the oracle took another eps over one number",
    2234: "a maximum of clamped units in bfloat16",
    2320: "a normalisation over two numbers has small derivatives",
    2383: "a unit that passes one of two thresholds each",
    3249: "normalisations over two numbers, one after the other",
}


@pytest.mark.parametrize("seed", FOUND, ids=FOUND.get)
def test_what_was_found_stays_mended(seed):
    recipe, verdicts = examine(seed)
    assert not failures(verdicts), recipe


def test_a_seed_gives_one_network():
    a, b = make_case(3), make_case(3)
    assert a.recipe == b.recipe
    assert torch.equal(a.inputs, b.inputs)
    for one, other in zip(a.module.parameters(), b.module.parameters(), strict=True):
        assert torch.equal(one, other)
        assert sum(p.numel() for p in a.module.parameters()) <= MOST_PARAMETERS


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian_scale", "poisson", "bernoulli"])
def test_the_two_oracles_agree(likelihood):
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 4))
    net, x = net.double(), torch.randn(5, 3, dtype=torch.float64)
    found = derive(net, x, torch.float64)
    rows = weighted(likelihood, found.outputs, found.parameters) / 5**0.5
    values = answer(rows.reshape(-1, rows.shape[-1])).eigenvalues
    other = spectrum(dense_fisher(net, x, likelihood))[: len(values)]
    np.testing.assert_allclose(values[: len(other)], other, atol=1e-13 * other[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_oracle_keeps_the_function_of_a_network_in_another_dtype(dtype):
    """x / sqrt(x^2 + eps) has the derivative eps / (x^2 + eps)^(3/2)."""
    net = torch.nn.Sequential(torch.nn.RMSNorm(1)).to(dtype)
    x, eps = 0.5, torch.finfo(torch.float32).eps
    found = derive(net, torch.tensor([[x]], dtype=dtype), torch.float64)
    np.testing.assert_allclose(found.inputs.item(), eps / (x**2 + eps) ** 1.5, rtol=1e-6)


def test_the_oracle_has_all_digits_of_a_small_slope():
    """tanh^2 x is x^2 at small x, where torch's 1 - (1 - tanh^2 x) is rounding."""
    last = torch.nn.Linear(2, 2, bias=False).double()
    last.weight.data = torch.eye(2, dtype=torch.float64)
    net = torch.nn.Sequential(torch.nn.Tanhshrink(), last)
    x = torch.tensor([[1e-7, 1e-9]], dtype=torch.float64)
    exact = np.diag(x[0].numpy() ** 2)
    found = derive(net, x, torch.float64).inputs[0, 0]
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=0)
    off = derive(net, x, torch.float64, rounding=2**-52).inputs[0, 0]
    assert 1e-17 < abs(off - exact).max() < 1e-15


def test_a_wrong_number_is_seen(monkeypatch):
    """A trace that is off by a thousandth is called wrong."""
    import fuzz.checks_fisher as checks

    right = checks.fisher_trace
    monkeypatch.setattr(checks, "fisher_trace", lambda *a, **k: 1.001 * right(*a, **k))
    seed = next(s for s in range(1, 99, 2) if make_case(s).inputs.dtype == torch.float64)
    kinds = {v.quantity: v.kind for v in examine(seed)[1]}
    assert kinds["fisher trace"] == "wrong"


def test_a_state_file_that_was_cut_off_is_read(tmp_path):
    path = tmp_path / "state.jsonl"
    line = {"seed": 1, "verdicts": [["fisher trace", "right", ""]], "recipe": ""}
    path.write_text(json.dumps(line) + "\n" + json.dumps(line)[:20], encoding="utf-8")
    assert read_state(path) == [line]
    assert counts(read_state(path))["fisher trace"]["right"] == 1
