"""Half precision and mixed precision: the rank is that of the weights, or something is said."""

import copy
import warnings

import pytest
import torch
from torch import nn

from skgeo import SkgeoError
from skgeo.chain import chain_profile
from skgeo.exceptions import RankAmbiguityWarning
from skgeo.fisher import fisher_rank, fisher_trace
from skgeo.quotient import layer_spectra, leading_eigenvalues


class Norm(nn.Module):
    """RMS normalisation in float32, as in Llama."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
        return self.weight * wide.to(x.dtype)


class Block(nn.Module):
    """A gated block on a residual stream."""

    def __init__(self, width=8, hidden=12):
        super().__init__()
        self.norm = Norm(width)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        h = self.norm(x)
        return x + self.down(nn.functional.silu(self.gate(h)) * self.up(h))


def llama():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), Block(), Norm(8), nn.Linear(8, 3))


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [llama, mlp])
def test_weights_in_half_precision_have_the_rank_of_these_weights(make, dtype):
    half = make().to(dtype)
    single, X = copy.deepcopy(half).float(), torch.randn(40, half[0].in_features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankAmbiguityWarning)
        for likelihood in ("gaussian", "categorical"):
            found = fisher_rank(half, X, likelihood=likelihood)
            expected = fisher_rank(single, X, likelihood=likelihood)
            assert (found.rank, found.tol) == (expected.rank, expected.tol)
            assert found.rank > 10
        (found,) = layer_spectra(half, X, layers=["0"], likelihood="gaussian")
        assert found.ranks.tolist() == [3] * 40
    assert half[0].weight.dtype == dtype


def test_half_precision_inside_forward_is_said():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.net(x).float()

    X = torch.randn(40, 4)
    for measure in (
        lambda: fisher_rank(Inside(), X, likelihood="gaussian"),
        lambda: layer_spectra(Inside(), X, layers=["net.1"], likelihood="gaussian"),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            measure()
        said = [str(w.message) for w in caught if "computes in torch.bfloat16" in str(w.message)]
        assert len(said) == 1
    with pytest.raises(SkgeoError, match="leaves no rank"):
        fisher_rank(Inside(), X.repeat(200, 1), likelihood="gaussian", solver="parameter")


@pytest.mark.filterwarnings("ignore:.*is the number of rows")
def test_float32_norms_in_a_float64_network_are_no_disagreement():
    """The rounding of float32 is no coupling, no wrong rule and no wrong product."""
    net = llama().double()
    X = torch.randn(12, 5).double()
    single = fisher_trace(copy.deepcopy(net).float(), X.float(), likelihood="gaussian")
    assert fisher_trace(net, X, likelihood="gaussian") == pytest.approx(single, rel=1e-4)
    assert fisher_rank(net, X, likelihood="gaussian").rank == 36
    (found,) = layer_spectra(net, X, layers=["0"], likelihood="gaussian")
    assert found.layer.is_cut
    values, _ = leading_eigenvalues(net, X, "0", n_values=2, likelihood="gaussian")
    torch.testing.assert_close(values, found.eigenvalues[:, :2], rtol=1e-4, atol=0)
    profile = chain_profile(net, X, layers=["0", "1", "2"])
    assert bool(torch.isfinite(profile.layers[-1].sigma_max).all())
