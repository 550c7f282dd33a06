"""Seeded training runs, as pairs of a checkpoint and the data to measure it on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from skgeo._arguments import check_integer, check_number
from skgeo.datasets import _problems
from skgeo.datasets._modules import seeded_mlp
from skgeo.datasets._problems import Problem
from skgeo.datasets._small_networks import OneLayerTransformer, conv_network, seeded_weights
from skgeo.exceptions import SkgeoError

__all__ = ["TrainingRun", "digits_run", "training_run"]


class TrainingRun(NamedTuple):
    """Checkpoints of one network during its training.

    Parameters
    ----------
    pairs : list of tuple
        One ``(module, X, y)`` per checkpoint. The modules are independent copies in evaluation
        mode. X, of shape (n_samples, n_inputs), and y, of shape (n_samples,) or (n_samples,
        n_outputs), are the same two arrays in every tuple.
    history : pandas.DataFrame
        One row per checkpoint, in the same order, with columns ``step`` (or ``epoch``),
        ``train_loss``, ``train_accuracy``, ``test_loss`` and ``test_accuracy``.

    See Also
    --------
    training_run : Trains a network and returns its checkpoints.
    """

    pairs: list[tuple[nn.Module, np.ndarray, np.ndarray]]
    history: pd.DataFrame

    def __repr__(self) -> str:
        name = self.history.columns[0]
        steps = ", ".join(map(str, self.history[name]))
        return f"TrainingRun({len(self.pairs)} checkpoints, {name}s {steps})"

    @property
    def table(self) -> pd.DataFrame:
        """The run as a table with columns ``step``, ``model``, ``X`` and ``y``."""
        found = pd.DataFrame({"step": self.history.iloc[:, 0]})
        for index, name in enumerate(("model", "X", "y")):
            column = np.empty(len(self.pairs), dtype=object)
            for row, pair in enumerate(self.pairs):
                column[row] = pair[index]
            found[name] = column
        return found


def training_run(
    problem: str = "digits",
    network: str = "mlp",
    *,
    hidden: Sequence[int] | None = None,
    activation: Callable[[], nn.Module] | None = nn.ReLU,
    steps: Sequence[int] = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500),
    n_train: int | None = None,
    n_samples: int = 200,
    label_noise: float = 0.0,
    label_smoothing: float = 0.0,
    learning_rate: float = 0.01,
    weight_decay: float = 0.0,
    batch_size: int = 64,
    modulus: int = 23,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> TrainingRun:
    """Checkpoints of a small network during its training.

    Networks are trained with AdamW, on the cross-entropy or, for the linear teacher, the mean
    squared error. All randomness comes from one local generator, so the global random state is
    neither read nor changed.

    Parameters
    ----------
    problem : {"digits", "moons", "linear", "modular"}, default="digits"
        scikit-learn's 1797 digits with pixels between 0 and 1; 1000 points on two moons; 600
        samples of a linear teacher of rank 2 from 8 inputs to 4 outputs, with noise of standard
        deviation 0.1; or addition modulo `modulus` of all pairs of integers. Samples are split at
        random into a training and a test set.
    network : {"mlp", "conv", "transformer"}, default="mlp"
        Fully connected; two convolutions, for the digits; or one layer of attention and one
        hidden layer, for modular addition.
    hidden : sequence of int, default=None
        Widths of the hidden layers, (32, 32) by default; channels of the two convolutions, (8,
        16); residual stream and hidden layer of the transformer, (32, 64).
    activation : callable, default=torch.nn.ReLU
        Makes the activation of the hidden layers; None for a linear network.
    steps : sequence of int, default=(0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
        Steps of the optimizer after which a copy is kept, in increasing order. Step 0 is the
        network before training. Training ends with the last one.
    n_train : int, default=None
        Number of training samples; the others are the test set. By default 1200 digits, half of
        the moons and of the teacher's samples, and three quarters of the pairs of integers.
    n_samples : int, default=200
        Number of training samples in the pairs.
    label_noise : float, default=0.0
        Share of the training labels that are replaced by another class at random.
    label_smoothing : float, default=0.0
        Smoothing of the cross-entropy, as in :func:`torch.nn.functional.cross_entropy`. Recorded
        losses are without it.
    learning_rate : float, default=0.01
        Learning rate of AdamW.
    weight_decay : float, default=0.0
        Weight decay of AdamW, decoupled from the gradient.
    batch_size : int, default=64
        Number of samples per step.
    modulus : int, default=23
        Modulus of the addition.
    dtype : torch.dtype, default=torch.float64
        Type of parameters and inputs, ``torch.float64`` or ``torch.float32``.
    seed : int, default=0
        Seed of the data, their split, the initial weights and the order of the batches.

    Returns
    -------
    TrainingRun
        The pairs, and the losses and accuracies at the checkpoints; accuracies are NaN for the
        linear teacher.

    Raises
    ------
    SkgeoError
        If the steps do not increase from 0 or more, a size does not fit the problem, or the
        network does not.

    Examples
    --------
    >>> from skgeo.datasets import training_run
    >>> pairs, history = training_run("moons", hidden=(8,), steps=(0, 100), n_samples=50)
    >>> len(pairs), pairs[0][1].shape, history["step"].tolist()
    (2, (50, 2), [0, 100])
    >>> bool(history["train_loss"].iloc[1] < history["train_loss"].iloc[0])
    True
    """
    recorded = _increasing("steps", steps, "steps, none negative, such as (0, 1, 10)")
    for width in () if hidden is None else hidden:
        check_integer("hidden width", width)
    check_integer("n_samples", n_samples)
    check_integer("batch_size", batch_size)
    check_integer("modulus", modulus, least=2)
    check_integer("seed", seed, least=0)
    check_number("learning_rate", learning_rate, above=0)
    check_number("weight_decay", weight_decay, least=0)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise SkgeoError(f"Got dtype={dtype!r}; expected a floating torch.dtype.")
    generator = torch.Generator().manual_seed(seed)
    data = _problem(problem, network, n_train, modulus, generator, dtype)
    if not 0 < n_samples <= data.n_train:
        raise SkgeoError(
            f"Got n_samples={n_samples}, n_train={data.n_train}; expected "
            f"0 < n_samples <= n_train < {len(data.X)}, the number of samples."
        )
    data = _problems.with_label_noise(data, label_noise, generator)
    module = _network(network, problem, data, hidden, activation, generator, dtype)

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        if not data.has_classes:
            return functional.mse_loss(outputs, y)
        return functional.cross_entropy(outputs, y, label_smoothing=label_smoothing)

    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    X_pair, y_pair = data.X[:n_samples].numpy(), data.y[:n_samples].numpy()
    pairs: list[tuple[nn.Module, np.ndarray, np.ndarray]] = []
    rows: list[dict[str, float]] = []
    batches = _batches(data.n_train, batch_size, generator)
    for step in range(recorded[-1] + 1):
        if step > 0:
            batch = next(batches)
            optimizer.zero_grad()
            torch.autograd.backward(loss(module(data.X[batch]), data.y[batch]))
            optimizer.step()
        if step in recorded:
            optimizer.zero_grad()  # otherwise the copy would keep the last gradient
            pairs.append((copy.deepcopy(module).eval(), X_pair, y_pair))
            rows.append({"step": step} | _evaluate(module, data))
    return TrainingRun(pairs, pd.DataFrame(rows))


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
    """Checkpoints of a small tanh network trained on scikit-learn's digits, by epochs.

    The same as ``training_run("digits", activation=torch.nn.Tanh)``, counted in epochs.

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
    epochs = _increasing(
        "checkpoints", checkpoints, "numbers of epochs, none negative, such as (0, 1, 10)"
    )
    check_integer("n_train", n_train)
    per_epoch = math.ceil(n_train / check_integer("batch_size", batch_size))
    run = training_run(
        hidden=hidden,
        activation=nn.Tanh,
        steps=[epoch * per_epoch for epoch in epochs],
        n_train=n_train,
        n_samples=n_samples,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        batch_size=batch_size,
        dtype=dtype,
        seed=seed,
    )
    history = run.history.drop(columns="step")
    history.insert(0, "epoch", epochs)
    return TrainingRun(run.pairs, history)


def _increasing(name: str, given: Sequence[int], what: str) -> list[int]:
    found = [check_integer(name, value, least=0) for value in given]
    if not found or any(a >= b for a, b in pairwise(found)):
        raise SkgeoError(f"Got {name}={list(given)!r}; expected increasing {what}.")
    return found


def _problem(
    name: str,
    network: str,
    n_train: int | None,
    modulus: int,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> Problem:
    if name == "modular":
        tokens = network == "transformer"
        return _problems.modular(n_train, generator, dtype, modulus=modulus, tokens=tokens)
    plain = {"digits": _problems.digits, "moons": _problems.moons, "linear": _problems.linear}
    if name not in plain:
        raise SkgeoError(
            f"Got problem={name!r}; expected 'digits', 'moons', 'linear' or 'modular'."
        )
    return plain[name](n_train, generator, dtype)


def _network(
    name: str,
    problem: str,
    data: Problem,
    hidden: Sequence[int] | None,
    activation: Callable[[], nn.Module] | None,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> nn.Module:
    if name == "mlp":
        widths = [data.X.shape[1], *(hidden if hidden is not None else (32, 32)), data.n_outputs]
        return seeded_mlp(widths, activation, generator, dtype=dtype)
    made: dict[str, tuple[str, Callable[[], nn.Module]]] = {
        "conv": ("digits", lambda: conv_network(hidden or (8, 16), activation)),
        "transformer": (
            "modular",
            lambda: OneLayerTransformer(data.n_outputs, hidden or (32, 64), activation),
        ),
    }
    if name not in made:
        raise SkgeoError(f"Got network={name!r}; expected 'mlp', 'conv' or 'transformer'.")
    wanted, build = made[name]
    if problem != wanted:
        raise SkgeoError(
            f"Got network={name!r}, which is for problem={wanted!r}, not for {problem!r}."
        )
    return seeded_weights(build, generator).to(dtype)


def _batches(size: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of indices, in a new order in each epoch, without end."""
    while True:
        yield from torch.split(torch.randperm(size, generator=generator), batch_size)


def _evaluate(module: nn.Module, data: Problem) -> dict[str, float]:
    """Losses and accuracies on both sets."""
    found = {}
    with torch.no_grad():
        for name, part in (("train", slice(data.n_train)), ("test", slice(data.n_train, None))):
            outputs, y = module(data.X[part]), data.y[part]
            loss = functional.cross_entropy if data.has_classes else functional.mse_loss
            found[f"{name}_loss"] = loss(outputs, y).item()
            right = (outputs.argmax(1) == y).double().mean().item() if data.has_classes else None
            found[f"{name}_accuracy"] = math.nan if right is None else right
    return found
