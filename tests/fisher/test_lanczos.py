"""Leading eigenpairs without a matrix, next to the whole spectrum."""

import pytest
import torch
from torch import nn

from helpers.networks import normal
from skgeo import GeometryWarning, fisher_spectrum
from skgeo.fisher import _lanczos as lanczos


def normed():
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))


def conv():
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)
    )


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.shift = nn.Parameter(torch.linspace(0, 1, 6))

    def forward(self, x):
        return self.layer(torch.tanh(x + self.shift))


@pytest.fixture
def ways(monkeypatch):
    """By which way products were made."""
    seen = []
    for name in ("_by_factors", "_by_passes"):
        made = getattr(lanczos, name)

        def spy(*args, name=name, made=made):
            seen.append(name)
            return made(*args)

        monkeypatch.setattr(lanczos, name, spy)
    return seen


def leading(net, X, count, **options):
    with pytest.warns(GeometryWarning, match="leading"):
        return fisher_spectrum(net, X, solver="lanczos", n_components=count, **options)


@pytest.mark.filterwarnings("ignore:Fisher rank")
@pytest.mark.parametrize("likelihood", ["categorical", "gaussian", "poisson"])
@pytest.mark.parametrize(
    ("network", "way"), [(normed, "_by_factors"), (conv, "_by_passes"), (Bare, "_by_passes")]
)
def test_pairs_and_trace_by_either_way(network, way, likelihood, ways):
    torch.manual_seed(0)
    net, X = network().double(), normal(30, 6)
    found = leading(net, X, 4, likelihood=likelihood, batch_size=13)
    whole = fisher_spectrum(net, X, likelihood=likelihood, n_components=4)
    assert ways == [way]
    torch.testing.assert_close(found.eigenvalues, whole.eigenvalues[:4], rtol=1e-10, atol=0)
    assert found.trace == pytest.approx(whole.trace, rel=1e-12)
    projectors = [rows.T @ rows for rows in (found.row_space, whole.row_space)]
    torch.testing.assert_close(*projectors, rtol=0, atol=1e-7)


def test_eigenvalues_that_a_linear_model_repeats_for_every_output():
    net, X = nn.Linear(6, 5).double(), normal(40, 6)
    found = leading(net, X, 12, likelihood="gaussian")
    expected = fisher_spectrum(net, X, likelihood="gaussian").eigenvalues[:12]
    torch.testing.assert_close(found.eigenvalues, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(found.eigenvalues[:5], found.eigenvalues[:1].expand(5))
    assert repr(found) == "FisherSpectrum(12 leading eigenvalues of 35 parameters, 40 samples)"


def test_factors_that_do_not_fit_are_not_held(ways):
    torch.manual_seed(0)
    net, X = normed().double(), normal(400, 6)
    few = leading(net, X, 2, likelihood="gaussian", memory_budget=200_000)
    assert ways == ["_by_passes"]
    whole = leading(net, X, 2, likelihood="gaussian")
    torch.testing.assert_close(few.eigenvalues, whole.eigenvalues, rtol=1e-9, atol=0)
    assert few.plan.n_blocks > 1
