"""Networks of one hidden layer with planted symmetries. Nothing of skgeo is imported here."""

import numpy as np
import torch
from torch import nn


class Planter:
    """Random networks (weights, biases, outputs, shift) and disguises of them, from one seed."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.integers = np.random.default_rng(seed)

    def normal(self, *shape):
        # Not helpers.networks.normal: one stream, of which every draw differs from the last.
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape):
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def network(self, d=12, n=4, k=2):
        return self.normal(d, n), self.normal(d), self.normal(k, d), self.normal(k)

    def sizes(self):
        """Units, inputs and outputs."""
        return [int(self.integers.integers(*r)) for r in ((5, 25), (1, 7), (1, 5))]

    def disguise(self, weights, biases, outputs, shift):
        """Units permuted, and scaled by 1e-3 to 1e3."""
        order = torch.randperm(len(weights), generator=self.generator)
        scale = 10.0 ** (6 * self.uniform(len(weights)) - 3)
        return (
            (weights * scale[:, None])[order],
            (biases * scale)[order],
            (outputs / scale)[:, order],
            shift.clone(),
        )

    def annihilating(self, d=12, n=4, k=2, size=3):
        """A network whose first `size` units have weights that annihilate."""
        w, b, q, c = self.network(d, n, k)
        w[size - 1] = -w[: size - 1].sum(0)
        factor = 0.5 + self.uniform(size)
        q[:, :size] = q[:, :1] / factor
        w[:size] = w[:size] * factor[:, None]
        return w, b, q, c

    def split(self, weights, biases, outputs, shift, times=3):
        """Some units written as two, with other scales; now and then cancelling in part."""
        w, b, q = weights, biases, outputs
        for i in self.integers.choice(len(weights), size=min(times, len(weights)), replace=False):
            share = self.normal(1)
            factor = 0.3 + self.uniform(1)
            w = torch.cat([w, w[i : i + 1] * factor])
            b = torch.cat([b, b[i : i + 1] * factor])
            q = torch.cat([q, share * q[:, i : i + 1] / factor], dim=1)
            q[:, i] = q[:, i] * (1 - share)
        return w, b, q, shift.clone()

    def degenerate(self, weights, biases, outputs, shift):
        """Three units more: nothing reads one, two are constants."""
        n, k = weights.shape[1], len(outputs)
        w = torch.cat([weights, self.normal(1, n), torch.zeros(2, n).double()])
        b = torch.cat([biases, self.normal(1), torch.tensor([1.5, -0.5]).double()])
        q = torch.cat([outputs, torch.zeros(k, 1).double(), self.normal(k, 2)], dim=1)
        return w, b, q, shift - 1.5 * q[:, -2]


def flip(network, units):
    """Turn the sign of (w, b) of some units and shift the output bias."""
    w, b, q, c = (t.clone() for t in network)
    units = list(units)
    w[units], b[units] = -w[units], -b[units]
    return w, b, q, c + q[:, units] @ network[1][units]


def evaluate(network, x, activation=torch.relu):
    w, b, q, c = (t.double() for t in network)
    return activation(x @ w.T + b) @ q.T + c


def as_module(network, activation=nn.ReLU):
    """The module with these very numbers."""
    w, b, q, c = network
    module = nn.Sequential(
        nn.Linear(w.shape[1], len(w)), activation(), nn.Linear(len(w), len(c))
    ).to(w.dtype)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), (w, b, q, c), strict=True):
            parameter.copy_(value)
    return module


def seed_case_31():
    """``relu(x1-1) + relu(x2-1) + relu(-x1-1) + relu(-x2-1)``."""
    w = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    one = torch.ones(4, dtype=torch.float64)
    return w, -one, one[None].clone(), torch.zeros(1, dtype=torch.float64)
