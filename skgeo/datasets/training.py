"""Seeded training runs, as pairs of a checkpoint and the data to measure it on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from skgeo.datasets._modules import seeded_mlp
from skgeo.exceptions import SkgeoError

__all__ = ["TrainingRun", "digits_run"]


class TrainingRun(NamedTuple):
    """Checkpoints of one network along its training.

    Attributes
    ----------
    pairs : list of tuple
        One ``(module, X, y)`` a checkpoint; the modules are copies that training no longer
        reaches, in evaluation mode, and X and y are the same two arrays in every tuple.
    history : pandas.DataFrame
        One row a checkpoint, in the same order: ``epoch``, ``train_loss``, ``test_loss``,
        ``train_accuracy``, ``test_accuracy``.
    """

    pairs: list[tuple[nn.Module, np.ndarray, np.ndarray]]
    history: pd.DataFrame


def _evaluate(module: nn.Module, X: Tensor, y: Tensor) -> tuple[float, float]:
    with torch.no_grad():
        logits = module(X)
        return cross_entropy(logits, y).item(), (logits.argmax(1) == y).double().mean().item()


def digits_run(
    hidden: Sequence[int] = (16,),
    *,
    checkpoints: Sequence[int] = (0, 1, 3, 10, 30),
    n_train: int = 1200,
    n_samples: int = 200,
    learning_rate: float = 0.01,
    weight_decay: float = 0.0,
    batch_size: int = 64,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> TrainingRun:
    """Train a small tanh network on scikit-learn's digits and keep checkpoints.

    Pixels are divided by 16. The 1797 images are split at random into a training and a test part;
    the network is trained by AdamW on the cross-entropy. All randomness comes from one local
    generator, so the global random state is neither read nor moved.

    Parameters
    ----------
    hidden : sequence of int, default=(16,)
        Widths of the hidden layers.
    checkpoints : sequence of int, default=(0, 1, 3, 10, 30)
        Epochs after which a copy is kept, increasing; 0 is the network before training, and
        training ends with the last one.
    n_train : int, default=1200
        Images to train on; the others make the test columns of the history.
    n_samples : int, default=200
        How many of the training images the pairs hold.
    learning_rate, weight_decay : float
        Of AdamW, in which the decay is decoupled from the gradient.
    batch_size : int, default=64
        Images in one step.
    dtype : torch.dtype, default=torch.float64
        ``torch.float64`` or ``torch.float32``, for parameters and images alike.
    seed : int, default=0
        Decides the split, the first weights and the order of the batches.

    Returns
    -------
    TrainingRun
        The pairs, and the losses and accuracies at the checkpoints.

    Raises
    ------
    SkgeoError
        If the checkpoints do not increase from 0 or more, or a size does not fit the 1797 images.

    Examples
    --------
    >>> from skgeo.datasets import digits_run
    >>> pairs, history = digits_run(checkpoints=(0, 2), n_samples=50)
    >>> len(pairs), pairs[0][1].shape, history["epoch"].tolist()
    (2, (50, 64), [0, 2])
    >>> bool(history["train_loss"].iloc[1] < history["train_loss"].iloc[0])
    True
    """
    epochs = [int(epoch) for epoch in checkpoints]
    if not epochs or epochs[0] < 0 or any(a >= b for a, b in pairwise(epochs)):
        raise SkgeoError(
            f"checkpoints={list(checkpoints)!r} must be increasing numbers of epochs from 0 on, "
            "such as (0, 1, 10)."
        )
    images, labels = load_digits(return_X_y=True)
    if not 0 < n_samples <= n_train < len(images):
        raise SkgeoError(
            f"n_samples={n_samples} and n_train={n_train} must satisfy "
            f"0 < n_samples <= n_train < {len(images)}, the number of digits."
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    X = torch.as_tensor(images / 16, dtype=dtype)[order]
    y = torch.as_tensor(labels, dtype=torch.int64)[order]
    module = seeded_mlp([64, *hidden, 10], nn.Tanh, generator, dtype=dtype)
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)

    X_pair, y_pair = X[:n_samples].numpy(), y[:n_samples].numpy()
    pairs: list[tuple[nn.Module, np.ndarray, np.ndarray]] = []
    rows: list[dict[str, float]] = []
    for epoch in range(epochs[-1] + 1):
        if epoch > 0:
            for batch in torch.randperm(n_train, generator=generator).split(batch_size):
                optimizer.zero_grad()
                cross_entropy(module(X[batch]), y[batch]).backward()
                optimizer.step()
        if epoch in epochs:
            train_loss, train_accuracy = _evaluate(module, X[:n_train], y[:n_train])
            test_loss, test_accuracy = _evaluate(module, X[n_train:], y[n_train:])
            optimizer.zero_grad()  # or the copy would carry the last gradient with it
            pairs.append((copy.deepcopy(module).eval(), X_pair, y_pair))
            rows.append(
                {
                    "epoch": epoch,
                    "train_loss": train_loss,
                    "test_loss": test_loss,
                    "train_accuracy": train_accuracy,
                    "test_accuracy": test_accuracy,
                }
            )
    return TrainingRun(pairs, pd.DataFrame(rows))
