"""Small problems to train on, drawn from a local generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits, make_moons
from torch import Tensor
from torch.nn import functional

from skgeo.exceptions import SkgeoError

# Samples of problems that are drawn, inputs and outputs of the linear teacher, and its noise.
_MOONS, _LINEAR = 1000, 600
_TEACHER = (8, 4)
_TEACHER_RANK = 2
_NOISE = 0.1


@dataclass(frozen=True, eq=False)
class Problem:
    """Samples in random order, the first `n_train` of which are trained on.

    X: (n, n_inputs), or integers (n, 2) for tokens.
    y: classes (n,), or numbers (n, n_outputs).
    """

    X: Tensor
    y: Tensor
    n_train: int
    n_outputs: int

    @property
    def has_classes(self) -> bool:
        """Whether the targets are classes."""
        return not self.y.is_floating_point()


def digits(n_train: int | None, generator: torch.Generator, dtype: torch.dtype) -> Problem:
    """Images of digits, 8 x 8 pixels between 0 and 1."""
    images, labels = load_digits(return_X_y=True)
    X, y = torch.as_tensor(images / 16, dtype=dtype), torch.as_tensor(labels, dtype=torch.int64)
    return _shuffled(X, y, n_train or 1200, 10, "images", generator)


def moons(n_train: int | None, generator: torch.Generator, dtype: torch.dtype) -> Problem:
    """Points on two half circles, with noise of standard deviation 0.2."""
    draw = int(torch.randint(2**31, (), generator=generator))
    points, labels = make_moons(_MOONS, noise=0.2, random_state=draw)
    X, y = torch.as_tensor(points, dtype=dtype), torch.as_tensor(labels, dtype=torch.int64)
    return _shuffled(X, y, n_train or _MOONS // 2, 2, "points", generator)


def linear(n_train: int | None, generator: torch.Generator, dtype: torch.dtype) -> Problem:
    """Normal inputs, and their images under a matrix of rank 2 with noise."""
    n_inputs, n_outputs = _TEACHER

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    X = normal(_LINEAR, n_inputs)
    matrix = normal(n_inputs, _TEACHER_RANK) @ normal(_TEACHER_RANK, n_outputs) / n_inputs**0.5
    y = X @ matrix + _NOISE * normal(_LINEAR, n_outputs)
    return _shuffled(
        X.to(dtype), y.to(dtype), n_train or _LINEAR // 2, n_outputs, "samples", generator
    )


def modular(
    n_train: int | None,
    generator: torch.Generator,
    dtype: torch.dtype,
    *,
    modulus: int,
    tokens: bool,
) -> Problem:
    """Pairs (a, b) with the class a + b modulo p: two tokens, or two one-hot vectors."""
    if modulus < 2:
        raise SkgeoError(f"Got modulus={modulus}; expected an integer of at least 2.")
    a, b = (grid.flatten() for grid in torch.meshgrid(*[torch.arange(modulus)] * 2, indexing="ij"))
    X = torch.stack([a, b], 1)
    y = (a + b) % modulus
    if not tokens:
        X = functional.one_hot(X, modulus).flatten(1).to(dtype)
    return _shuffled(X, y, n_train or (3 * len(X)) // 4, modulus, "pairs", generator)


def _shuffled(
    X: Tensor, y: Tensor, n_train: int, n_outputs: int, what: str, generator: torch.Generator
) -> Problem:
    if not 0 < n_train < len(X):
        raise SkgeoError(
            f"Got n_train={n_train}; expected 0 < n_train < {len(X)}, the number of {what}."
        )
    order = torch.randperm(len(X), generator=generator)
    return Problem(X[order], y[order], n_train, n_outputs)


def with_label_noise(problem: Problem, share: float, generator: torch.Generator) -> Problem:
    """The problem with a share of its training labels drawn anew, among the other classes."""
    if not 0 <= share < 1:
        raise SkgeoError(
            f"Got label_noise={share!r}; expected a share, at least 0 and less than 1."
        )
    if share == 0:
        return problem
    if not problem.has_classes:
        raise SkgeoError(
            f"Got label_noise={share!r}, which needs classes, and the targets are numbers."
        )
    chosen = torch.randperm(problem.n_train, generator=generator)[: round(share * problem.n_train)]
    shift = torch.randint(1, problem.n_outputs, chosen.shape, generator=generator)
    y = problem.y.clone()
    y[chosen] = (y[chosen] + shift) % problem.n_outputs
    return Problem(problem.X, y, problem.n_train, problem.n_outputs)
