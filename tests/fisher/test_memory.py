"""Trace and diagonal keep their memory budget, and do not depend on it."""

import inspect
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

import skgeo.fisher._rows as rows_module
from skgeo.exceptions import GeometryWarning, SkgeoError
from skgeo.fisher import (
    FisherRankEstimator,
    fisher_diagonal,
    fisher_rank,
    fisher_spectrum,
    fisher_trace,
)
from skgeo.likelihood import LIKELIHOODS
from skgeo.symmetry import SymmetryClassifier


class Uncovered(nn.Module):
    """A parameter without a layer rule."""

    def __init__(self):
        super().__init__()
        self.body, self.scale = nn.Linear(3, 12), nn.Parameter(torch.randn(12))

    def forward(self, x):
        return (self.scale * torch.tanh(self.body(x))).reshape(len(x), 3, 4)


@pytest.mark.parametrize("family", LIKELIHOODS)
@pytest.mark.parametrize("n_samples", [1, 20])
def test_blocks_of_directions_change_nothing(family, n_samples, monkeypatch):
    torch.manual_seed(0)
    passes = []
    inner = rows_module.FisherRows.weighted_gradients

    def counted(self, *args):
        passes.append(args)
        return inner(self, *args)

    monkeypatch.setattr(rows_module.FisherRows, "weighted_gradients", counted)
    for net in (Uncovered().double(), nn.Linear(3, 12).double()):
        X = torch.randn(n_samples, 3).double()
        whole = fisher_diagonal(net, X, likelihood=family)
        trace = fisher_trace(net, X, likelihood=family)
        assert trace == pytest.approx(float(whole.sum()), rel=1e-12)
        some = {"likelihood": family, "memory_budget": 6000}
        passes.clear()
        torch.testing.assert_close(fisher_diagonal(net, X, **some), whole, rtol=1e-12, atol=0)
        assert len(passes) > n_samples
        assert fisher_trace(net, X, **some) == pytest.approx(trace, rel=1e-12)


@pytest.mark.parametrize("function", [fisher_trace, fisher_diagonal])
def test_one_direction_that_does_not_fit_is_refused(function):
    with pytest.raises(SkgeoError, match=r"one sample in one direction .* would take"):
        function(nn.Linear(3, 100), torch.randn(5, 3), likelihood="categorical", memory_budget=1000)


@pytest.mark.parametrize("family", LIKELIHOODS)
def test_some_rows_of_a_root_are_those_of_the_whole(family):
    for size in (1.0, 300.0):  # in logarithms as well
        z = size * torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)).double()
        if family in ("poisson", "gaussian_scale"):
            z = z / size
        root = LIKELIHOODS[family].transposed_root(z)
        for which in (slice(0, 3), slice(2, 5), slice(5, root.shape[-2])):
            found = LIKELIHOODS[family].root_rows(z, which)
            torch.testing.assert_close(found, root[..., which, :], rtol=1e-14, atol=0)


@pytest.mark.parametrize("call", [fisher_rank, fisher_spectrum, fisher_trace, FisherRankEstimator])
@pytest.mark.parametrize("budget", [1000, 30_000])
def test_advice_about_memory_names_options_that_exist(call, budget):
    net, X = nn.Sequential(nn.Linear(3, 30), nn.Linear(30, 30)), torch.randn(50, 3)
    options = {"likelihood": "gaussian", "memory_budget": budget}
    try:
        if isinstance(call, type):
            call(net, n_components=None, **options).fit(X)
        else:
            call(net, X, **options)
    except SkgeoError as error:
        said = str(error)
        assert "memory" not in said or "Instead" in said
    else:
        assert call is fisher_trace  # in blocks
        return
    known = inspect.signature(call).parameters
    assert set(re.findall(r"(\w+)=", said)) <= set(known)
    assert "lanczos" not in said or call is not fisher_rank


def test_the_classifier_is_not_advised_to_use_a_solver():
    net, X = nn.Sequential(nn.Linear(3, 30), nn.Tanh(), nn.Linear(30, 3)), torch.randn(50, 3)
    with pytest.warns(GeometryWarning, match=r"would take") as caught:
        SymmetryClassifier(net, likelihood="gaussian", memory_budget=200_000).fit(X)
    known = inspect.signature(SymmetryClassifier).parameters
    assert set(re.findall(r"(\w+)=", str(caught[0].message))) <= set(known)


SCRIPT = """
import resource, sys, torch
from torch import nn
import skgeo
torch.set_num_threads(1)
f = getattr(skgeo, sys.argv[1])
f(nn.Linear(3, 50).double(), torch.randn(1, 3).double(), likelihood="categorical")
torch.manual_seed(0)
net, X = nn.Linear(3, 6000).double(), torch.randn(1, 3).double()
p = net(X).detach().softmax(1)
right = float(((1 - (p**2).sum(1)) * ((X**2).sum(1) + 1)).mean())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = float(torch.as_tensor(f(net, X, likelihood="categorical", memory_budget="50 MiB")).sum())
used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(abs(found - right) <= 1e-6 * right, used)
"""


@pytest.mark.parametrize("name", ["fisher_trace", "fisher_diagonal"])
def test_peak_memory_of_many_classes(name):
    """6,000 classes: their root alone would take 275 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name], capture_output=True, text=True, check=True
    )
    right, used = done.stdout.split()
    assert right == "True"
    assert float(used) <= 100.0
