"""Small seeded networks and data that many tests share."""

import copy
import itertools

import torch
from torch import nn


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mlp(*widths, activation=nn.Tanh, seed=0, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), activation()]
        return nn.Sequential(*layers[:-1]).to(dtype)


def seeded(build, seed=0, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().to(dtype).eval()


def linear(*shape, seed=0, dtype=torch.float64, **options):
    return seeded(lambda: nn.Linear(*shape, **options), seed, dtype)


def flat(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def moved(module, step):
    copied = copy.deepcopy(module)
    nn.utils.vector_to_parameters(flat(module) + torch.as_tensor(step), copied.parameters())
    return copied
