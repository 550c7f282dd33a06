"""Networks with planted symmetries, and near misses. Nothing of skgeo is imported here."""

import copy
import itertools

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


# Deeper networks, for all activations with options and all settings of convolutions: copies that
# compute the same function, and near misses that do not.

# By what may be done to a unit: a module, and one with another option (None if it has no options).
ACTIVATIONS = [
    ("positive", nn.ReLU, None),
    ("positive", lambda: nn.LeakyReLU(0.2), lambda: nn.LeakyReLU(0.201)),
    ("positive", lambda: nn.LeakyReLU(-0.5), lambda: nn.LeakyReLU(0.5)),
    ("sign", nn.Tanh, None),
    ("sign", nn.Softsign, None),
    ("sign", nn.Tanhshrink, None),
    ("sign", lambda: nn.Hardtanh(-2.0, 2.0), lambda: nn.Hardtanh(-2.0, 1.9)),
    ("sign", lambda: nn.Hardshrink(0.3), lambda: nn.Hardshrink(0.31)),
    ("sign", lambda: nn.Softshrink(0.3), lambda: nn.Softshrink(0.301)),
    ("none", nn.GELU, lambda: nn.GELU(approximate="tanh")),
    ("none", lambda: nn.ELU(0.7), lambda: nn.ELU(0.701)),
    ("none", lambda: nn.CELU(0.7), lambda: nn.CELU(0.701)),
    ("none", lambda: nn.Softplus(2.0), lambda: nn.Softplus(2.01)),
    ("none", lambda: nn.Softplus(1.0, 1.0), lambda: nn.Softplus(1.0, 1.1)),
    ("none", lambda: nn.Threshold(0.1, 0.2), lambda: nn.Threshold(0.1, 0.201)),
    ("none", lambda: nn.Hardtanh(-1.0, 0.5), lambda: nn.Hardtanh(-1.0, 0.501)),
    ("none", nn.ReLU6, nn.ReLU),
    ("none", nn.SiLU, nn.Hardswish),
    ("none", nn.Mish, nn.SiLU),
    ("none", nn.SELU, nn.ELU),
    ("none", nn.Sigmoid, nn.Hardsigmoid),
    ("none", nn.LogSigmoid, None),
]
# Settings of a convolution, and others in which the same weights are another function.
CONVOLUTIONS = [
    ({}, {"stride": 2}),
    ({"stride": 2}, {"stride": (2, 1)}),
    ({"padding": 1}, {"padding": 1, "padding_mode": "circular"}),
    ({"padding": (1, 0)}, {"padding": (0, 1)}),
    ({"padding": 1, "padding_mode": "reflect"}, {"padding": 1, "padding_mode": "replicate"}),
    ({"padding": "same"}, {"padding": "valid"}),
    ({"dilation": 2, "padding": 2}, {"dilation": 1, "padding": 1}),
    ({"stride": 2, "dilation": 2}, {"stride": 2}),
    ({"kernel_size": (1, 3)}, {"kernel_size": (3, 1)}),
]


def dense(make, seed=0):
    """A random network of two hidden layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(3, 5), make(), nn.Linear(5, 4), make(), nn.Linear(4, 2)
        ).double()
    return net


def convolutional(settings, seed=0):
    """A random network whose first convolution has these settings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = nn.Conv2d(2, 4, **{"kernel_size": 3, **settings})
        return nn.Sequential(first, nn.ReLU(), nn.Conv2d(4, 3, 2)).double()


def with_weights_of(net, other):
    """`other`, whose weights may have another order of axes, with the weights of `net`."""
    with torch.no_grad():
        for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
            theirs.copy_(ours.reshape(theirs.shape))
    return other


def planted_copy(net, group, seed=0):
    """The same function with hidden units permuted, and scaled or signed as `group` says."""
    generator = torch.Generator().manual_seed(seed)
    net = copy.deepcopy(net)
    layers = [each for each in net if hasattr(each, "weight")]
    with torch.no_grad():
        for layer, following in itertools.pairwise(layers):
            width = len(layer.weight)
            order = torch.randperm(width, generator=generator)
            scale = torch.ones(width, dtype=torch.float64)
            drawn = 2 * torch.rand(width, generator=generator, dtype=torch.float64) - 1
            if group != "none":
                scale = 10**drawn if group == "positive" else drawn.sign()
            ones = [1] * (layer.weight.dim() - 1)
            layer.weight.copy_(layer.weight[order] * scale.reshape(-1, *ones))
            layer.bias.copy_(layer.bias[order] * scale)
            ones = [1] * (following.weight.dim() - 2)
            following.weight.copy_(following.weight[:, order] / scale.reshape(1, -1, *ones))
    return net


def moved(net, size=1e-3, seed=0):
    """One weight of a random layer moved."""
    generator = torch.Generator().manual_seed(seed)
    net = copy.deepcopy(net)
    layers = [each for each in net if hasattr(each, "weight")]
    chosen = layers[int(torch.randint(len(layers), (), generator=generator))].weight
    with torch.no_grad():
        chosen.view(-1)[int(torch.randint(chosen.numel(), (), generator=generator))] += size
    return net


def planted_cases(seed=0):
    """Names, networks, a planted copy of each, and near misses, for all options and settings."""
    for number, (group, make, near) in enumerate(ACTIVATIONS):
        net = dense(make, seed)
        other = planted_copy(net, group, seed)
        misses = [moved(other, seed=seed + number)]
        if near is not None:
            misses.append(with_weights_of(other, dense(near)))
        yield str(net[1]), net, other, misses
    for number, (settings, near) in enumerate(CONVOLUTIONS):
        net = convolutional(settings, seed)
        other = planted_copy(net, "positive", seed)
        misses = [moved(other, seed=seed + number), with_weights_of(other, convolutional(near))]
        yield f"convolution {settings}", net, other, misses
