"""One stream of random choices from one integer, and the recipe that they add up to."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Draw:
    """Choices and tensors of one seed; what was chosen is kept in `recipe`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.recipe: list[str] = []
        self._random = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)

    def note(self, text: str) -> None:
        self.recipe.append(text)

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def integer(self, least: int, most: int) -> int:
        return self._random.randint(least, most)

    def uniform(self, low: float, high: float) -> float:
        return round(self._random.uniform(low, high), 3)

    def choice(self, options: Sequence[Any]) -> Any:
        return self._random.choice(options)

    def weighted(self, options: dict[Any, float]) -> Any:
        return self._random.choices(list(options), list(options.values()))[0]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, dtype=torch.float64)

    def integers(self, most: int, *shape: int) -> Tensor:
        """Integers below `most`."""
        return torch.randint(most, shape, generator=self._generator)

    def __str__(self) -> str:
        return f"seed {self.seed}: " + "; ".join(self.recipe)
