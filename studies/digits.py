"""Small ReLU networks on scikit-learn's digits, for the studies beside this file."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional


def split(
    n_train: int, label_noise: float, seed: int, *, noisy_test: bool = False
) -> tuple[Tensor, ...]:
    """X, y of `n_train` images and of the 597 test images, which no seed trains on.

    label_noise: share of the training labels that are replaced by another class.
    noisy_test: whether the same share of the test labels is replaced too.
    """
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(12345).permutation(len(images))
    test, rest = order[:597], order[597:]
    rng = np.random.default_rng(seed)
    train = rng.permutation(rest)[:n_train]

    def drawn(y: np.ndarray, share: float) -> Tensor:
        wrong = rng.permutation(len(y))[: round(share * len(y))]
        y = y.copy()
        y[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
        return torch.from_numpy(y)

    y = drawn(labels[train], label_noise)
    y_test = drawn(labels[test], label_noise if noisy_test else 0.0)
    X = torch.from_numpy(images / 16)
    return X[train], y, X[test], y_test


def trained(
    X: Tensor, y: Tensor, width: int, *, steps: int, weight_decay: float, seed: int, classes=10
) -> nn.Sequential:
    """A network with two hidden layers after AdamW with batches of 64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(64, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, classes),
        ).double()
        options = {"lr": 0.01, "weight_decay": weight_decay, "fused": True}
        optimizer = torch.optim.AdamW(net.parameters(), **options)
        step = 0
        while step < steps:
            for batch in torch.randperm(len(X)).split(64):
                optimizer.zero_grad()
                functional.cross_entropy(net(X[batch]), y[batch]).backward()
                optimizer.step()
                step += 1
                if step == steps:
                    break
    return net.eval()


@torch.no_grad()
def loss(net: nn.Module, X: Tensor, y: Tensor) -> float:
    """Mean cross-entropy."""
    return functional.cross_entropy(net(X), y).item()


@torch.no_grad()
def accuracy(net: nn.Module, X: Tensor, y: Tensor) -> float:
    """Share of images whose largest logit is that of their class."""
    return (net(X).argmax(1) == y).double().mean().item()
