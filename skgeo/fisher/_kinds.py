"""Three Fisher metrics on the outputs: the expectation, its sample, and that of the labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.likelihood import Likelihood
from skgeo.network._bound import BoundNetwork

KINDS = ("exact", "mc", "empirical")


class OutputMetric(ABC):
    """A metric F on the outputs of each sample, in products and in random directions.

    z: outputs of some samples, (b, n_positions, K).
    """

    @abstractmethod
    def apply(self, z: Tensor, dz: Tensor, samples: range) -> Tensor:
        """``F dz``, of the shape of z."""

    @abstractmethod
    def n_signs(self, z: Tensor) -> int:
        """Number of random signs that a direction takes per sample."""

    @abstractmethod
    def direction(self, z: Tensor, signs: Tensor, samples: range) -> Tensor:
        """Directions u of the outputs with E[u u^T] = F, for signs (b, n_signs)."""

    def roots(self, z: Tensor, samples: range) -> Tensor | None:
        """Directions (b, m, n_positions, K) whose squares add up to F, if they are few."""
        return None


class Expected(OutputMetric):
    """The Fisher information: the expectation over the model's own outputs."""

    def __init__(self, likelihood: Likelihood) -> None:
        self._likelihood = likelihood

    def apply(self, z: Tensor, dz: Tensor, samples: range) -> Tensor:
        return _row_by_row(self._likelihood.apply_fisher, z, dz)

    def n_signs(self, z: Tensor) -> int:
        return z[0].numel()

    def direction(self, z: Tensor, signs: Tensor, samples: range) -> Tensor:
        return _row_by_row(self._likelihood.apply_root, z, signs.view_as(z))


class OfScores(OutputMetric):
    """The mean of squares of scores: ``(1/m) sum_k s_k s_k^T`` for m targets of each sample."""

    @abstractmethod
    def scores(self, z: Tensor, samples: range) -> Tensor:
        """(b, m, n_positions, K)."""

    def apply(self, z: Tensor, dz: Tensor, samples: range) -> Tensor:
        s = self.scores(z, samples)
        along = (s * dz.unsqueeze(1)).sum((-2, -1), keepdim=True)
        found: Tensor = (s * along).mean(1)
        return found

    def n_signs(self, z: Tensor) -> int:
        return 1

    def direction(self, z: Tensor, signs: Tensor, samples: range) -> Tensor:
        return (self.roots(z, samples) * signs[..., None, None]).sum(1)

    def roots(self, z: Tensor, samples: range) -> Tensor:
        s = self.scores(z, samples)
        root: Tensor = s / s.shape[1] ** 0.5
        return root


class Sampled(OfScores):
    """Scores of targets that the model itself draws, the same ones in every pass."""

    def __init__(self, likelihood: Likelihood, n_draws: int, seed: int) -> None:
        self._likelihood, self._n_draws, self._seed = likelihood, n_draws, seed

    def n_signs(self, z: Tensor) -> int:
        return self._n_draws

    def scores(self, z: Tensor, samples: range) -> Tensor:
        found = []
        for index, outputs in zip(samples, z, strict=True):
            generator = seeded(self._seed, 0, index)
            several = outputs.cpu().expand(self._n_draws, *outputs.shape)
            drawn = self._likelihood.draw(several, generator)
            found.append(self._likelihood.score(several, drawn).to(z.device))
        return torch.stack(found)


class OfLabels(OfScores):
    """Scores of the labels: the empirical Fisher, which is not the Fisher information."""

    def __init__(self, network: BoundNetwork) -> None:
        self._likelihood = network.likelihood
        self._labels = _labels(network)

    def scores(self, z: Tensor, samples: range) -> Tensor:
        labels = self._labels[samples.start : samples.stop].to(z.device)
        return self._likelihood.score(z, labels).unsqueeze(1)


def seeded(*numbers: int) -> torch.Generator:
    """A generator on the CPU for each tuple of numbers, independent of the others."""
    state = np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


def output_metric(network: BoundNetwork, kind: str, n_draws: int, seed: int) -> OutputMetric:
    """The metric of a kind, on the outputs of this network."""
    if kind == "empirical":
        return OfLabels(network)
    if kind == "mc":
        return Sampled(network.likelihood, n_draws, seed)
    return Expected(network.likelihood)


# Entries of the outputs that are weighted at a time: the weights are computed in float64.
_AT_A_TIME = 2**20


def _row_by_row(weigh: Callable[[Tensor, Tensor], Tensor], z: Tensor, vectors: Tensor) -> Tensor:
    """``weigh(z, vectors)`` in the dtype of z, a block of positions at a time."""
    found = torch.empty_like(z)
    rows, into, by = (t.reshape(-1, z.shape[-1]) for t in (z, found, vectors))
    step = max(1, _AT_A_TIME // z.shape[-1])
    for start in range(0, len(rows), step):
        which = slice(start, start + step)
        into[which] = weigh(rows[which], by[which].double())
    return found


def _labels(network: BoundNetwork) -> Tensor:
    """The labels as the score reads them, (N, n_positions) or (N, n_positions, ...)."""
    given = network.samples.targets
    if given is None:
        raise SkgeoError(
            "kind='empirical' is the Fisher matrix of the labels: pass y. The Fisher information "
            "itself needs none: kind='exact'."
        )
    array = given.detach().cpu().numpy() if isinstance(given, Tensor) else given
    if array.dtype.kind not in "biuf":
        raise SkgeoError(
            f"kind='empirical' needs numbers in y; got {array.dtype}. Encode classes as 0 to "
            f"{network.n_outputs - 1}, in the order of the outputs."
        )
    labels = torch.from_numpy(np.array(array))  # a copy: the array may be read-only
    n, positions = network.n_samples, network.n_positions
    if network.likelihood.name == "categorical":
        return _classes(labels, n, positions, network.n_outputs)
    halved = network.likelihood.name == "gaussian_scale"
    width = network.n_outputs // 2 if halved else network.n_outputs
    if labels.numel() != n * positions * width or network.classes_moved:
        raise SkgeoError(
            f"y has shape {tuple(labels.shape)}; expected {width} numbers, on the last axis, for "
            f"each of {positions} positions of {n} samples."
        )
    if not bool(torch.isfinite(labels).all()):
        raise SkgeoError("y holds NaN or infinity.")
    return labels.reshape(n, positions, width)


def _classes(labels: Tensor, n: int, positions: int, n_outputs: int) -> Tensor:
    if labels.numel() != n * positions:
        raise SkgeoError(
            f"y has shape {tuple(labels.shape)}; expected one class for each of {positions} "
            f"positions of {n} samples."
        )
    # Positions left out have no gradient, whatever their class.
    classes = labels.reshape(n, positions).long().clamp_min(0)
    if int(classes.max()) >= n_outputs:
        raise SkgeoError(f"y has class {int(classes.max())}, and the model {n_outputs} outputs.")
    return classes
