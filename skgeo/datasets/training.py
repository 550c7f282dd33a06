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

from skgeo._arguments import check_integer, check_number
from skgeo.datasets._modules import seeded_mlp
from skgeo.exceptions import SkgeoError

__all__ = ["TrainingRun", "digits_run"]


class TrainingRun(NamedTuple):
    """Checkpoints of one network during its training.

    Parameters
    ----------
    pairs : list of tuple
        One ``(module, X, y)`` per checkpoint. The modules are independent copies in evaluation
        mode. X, of shape (n_samples, 64), and y, of shape (n_samples,), are the same two arrays
        in every tuple.
    history : pandas.DataFrame
        One row per checkpoint, in the same order, with columns ``epoch``, ``train_loss``,
        ``test_loss``, ``train_accuracy`` and ``test_accuracy``.

    See Also
    --------
    digits_run : Trains a network and returns its checkpoints.
    """

    pairs: list[tuple[nn.Module, np.ndarray, np.ndarray]]
    history: pd.DataFrame

    def __repr__(self) -> str:
        epochs = ", ".join(map(str, self.history["epoch"]))
        return f"TrainingRun({len(self.pairs)} checkpoints, epochs {epochs})"


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
    """Checkpoints of a small tanh network trained on scikit-learn's digits.

    Pixels are divided by 16. The 1797 images are split at random into a training and a test set.
    The network is trained with AdamW on the cross-entropy. All randomness comes from one local
    generator, so the global random state is neither read nor changed.

    Parameters
    ----------
    hidden : sequence of int, default=(16,)
        Widths of the hidden layers.
    checkpoints : sequence of int, default=(0, 1, 3, 10, 30)
        Epochs after which a copy is kept, in increasing order. Epoch 0 is the network before
        training. Training ends with the last one.
    n_train : int, default=1200
        Number of training images; the others are the test set.
    n_samples : int, default=200
        Number of training images in the pairs.
    learning_rate : float, default=0.01
        Learning rate of AdamW.
    weight_decay : float, default=0.0
        Weight decay of AdamW, decoupled from the gradient.
    batch_size : int, default=64
        Number of images per step.
    dtype : torch.dtype, default=torch.float64
        Type of parameters and images, ``torch.float64`` or ``torch.float32``.
    seed : int, default=0
        Seed of the split, the initial weights and the order of the batches.

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
    epochs = [check_integer("checkpoint", epoch, least=0) for epoch in checkpoints]
    widths = [check_integer("hidden width", width) for width in hidden]
    for name, size in (("n_train", n_train), ("n_samples", n_samples), ("batch_size", batch_size)):
        check_integer(name, size)
    check_number("learning_rate", learning_rate, above=0)
    check_number("weight_decay", weight_decay, least=0)
    check_integer("seed", seed, least=0)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise SkgeoError(f"Got dtype={dtype!r}; expected a floating torch.dtype.")
    if not epochs or epochs[0] < 0 or any(a >= b for a, b in pairwise(epochs)):
        raise SkgeoError(
            f"Got checkpoints={list(checkpoints)!r}; expected increasing numbers of epochs, none "
            "negative, such as (0, 1, 10)."
        )
    images, labels = load_digits(return_X_y=True)
    if not 0 < n_samples <= n_train < len(images):
        raise SkgeoError(
            f"Got n_samples={n_samples}, n_train={n_train}; expected "
            f"0 < n_samples <= n_train < {len(images)}, the number of images."
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    X = torch.as_tensor(images / 16, dtype=dtype)[order]
    y = torch.as_tensor(labels, dtype=torch.int64)[order]
    module = seeded_mlp([64, *widths, 10], nn.Tanh, generator, dtype=dtype)
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)

    X_pair, y_pair = X[:n_samples].numpy(), y[:n_samples].numpy()
    pairs: list[tuple[nn.Module, np.ndarray, np.ndarray]] = []
    rows: list[dict[str, float]] = []
    for epoch in range(epochs[-1] + 1):
        if epoch > 0:
            for batch in torch.split(torch.randperm(n_train, generator=generator), batch_size):
                optimizer.zero_grad()
                torch.autograd.backward(cross_entropy(module(X[batch]), y[batch]))
                optimizer.step()
        if epoch in epochs:
            train_loss, train_accuracy = _evaluate(module, X[:n_train], y[:n_train])
            test_loss, test_accuracy = _evaluate(module, X[n_train:], y[n_train:])
            optimizer.zero_grad()  # otherwise the copy would keep the last gradient
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
