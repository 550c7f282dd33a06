import itertools
import threading

import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from laws import PairLaws
from skgeo.estimators.quotient import LayerQuotientEstimator


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mlp(*widths, activation=nn.Tanh, seed=0, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), activation()]
        return nn.Sequential(*layers[:-1]).to(dtype)


class LockedLayers(nn.Module):
    """A module that deepcopy cannot copy, made of layers, unlike the one of the laws."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.first, self.last = mlp(4, 5, 3)[::2]
        self.weights = [self.first.weight, self.last.weight]

    def forward(self, x):
        return self.last(self.first(x).tanh())


class TestLayerQuotientLaws(PairLaws):
    @pytest.fixture(autouse=True)
    def _locked(self, monkeypatch):
        monkeypatch.setattr("laws.LockedMLP", LockedLayers)

    def estimator(self, model=None, **parameters):
        return LayerQuotientEstimator(model, **{"likelihood": "categorical", **parameters})

    def pairs(self):
        return [(mlp(4, 5, 3, seed=seed), normal(6, 4, seed=10 + seed)) for seed in range(2)] + [
            (mlp(4, 6, 5, 3, seed=5), normal(7, 4, seed=3))
        ]


class TestLayerQuotientLawsWithTargets(PairLaws):
    def estimator(self, model=None, **parameters):
        return LayerQuotientEstimator(model, **parameters)

    def pairs(self):
        X, y = load_iris(return_X_y=True)
        X, y = X[::25] / 4, y[::25]
        return [(mlp(4, 5, 3, seed=seed), X, y) for seed in range(3)]

    test_modules_that_cannot_be_copied_are_measured_and_cloned = None
    test_a_changed_weight_is_not_read_from_the_cache = None
    test_a_model_changed_after_fit_is_refused = None
