"""Null vectors in closed form, assembled from changes of single parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from skgeo.symmetry._network import SymmetryNetwork

Domain = Literal["all", "data"]
# A parameter, some of its entries, and their change.
Term = tuple[Tensor, Any, float]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A direction in parameter space that is flat by a symmetry."""

    symmetry: str
    layer: str  # dotted name of its first module
    units: tuple[int, ...]  # units of that layer; empty for all
    rows: np.ndarray  # indices of the nonzero entries among all P parameters
    values: np.ndarray
    domain: Domain = "all"  # whether it is flat for all inputs or on the data only
    weighted: bool = False  # whether only the output distribution is unchanged, not the outputs


class Change:
    """A change of some parameters, assembled entry by entry."""

    def __init__(self, network: SymmetryNetwork) -> None:
        self._network = network
        self._rows: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        self._fixed = False

    def add(self, parameter: Tensor | None, where: Any, values: Tensor | float) -> Change:
        """Change ``parameter[where]`` by some values, broadcast to its shape.

        If the parameter is None or not trained, and the values are not zero, the whole change is
        impossible.
        """
        numbers = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
        if not bool((numbers != 0).any()):
            return self
        if parameter is None or not self._network.trains(parameter):
            self._fixed = True
            return self
        places = self._network.places(parameter)[where]
        self._rows.append(places.reshape(-1).numpy())
        self._values.append(numbers.expand(places.shape).reshape(-1).numpy())
        return self

    def candidate(self, *names: Any, **flags: Any) -> Iterator[Candidate]:
        """The change as a candidate; none if it is zero or impossible.

        ``names`` and ``flags`` are the symmetry, layer, units (by default all), domain and weighted
        of :class:`Candidate`.
        """
        if self._rows and not self._fixed:
            rows, values = np.concatenate(self._rows), np.concatenate(self._values)
            yield from _candidate(rows, values, *names, **flags)


def _candidate(
    rows: np.ndarray,
    values: np.ndarray,
    symmetry: str,
    layer: str | None,
    units: Sequence[int] = (),
    *,
    domain: Domain = "all",
    weighted: bool = False,
) -> Iterator[Candidate]:
    places, inverse = np.unique(rows, return_inverse=True)  # sums over tied parameters
    sums = np.bincount(inverse, values)
    keep = sums != 0.0
    if keep.any():
        named = tuple(map(int, units))
        yield Candidate(symmetry, str(layer), named, places[keep], sums[keep], domain, weighted)


def entrywise(
    network: SymmetryNetwork, terms: Sequence[Term], *names: Any, **flags: Any
) -> Iterator[Candidate]:
    """One candidate per entry of parts of parameters, of the same shape, that change together.

    ``names`` and ``flags`` are those of :meth:`Change.candidate`.
    """
    terms = [term for term in terms if term[2] != 0.0]
    if not terms or not all(network.trains(parameter) for parameter, *_ in terms):
        return
    places = [network.places(parameter)[where].reshape(-1) for parameter, where, _ in terms]
    amounts = np.array([amount for *_, amount in terms])
    for rows in torch.stack(places, dim=1).numpy():  # (entries, terms)
        yield from _candidate(rows, amounts, *names, **flags)


def rowwise(
    network: SymmetryNetwork,
    layer: Any,
    amounts: Sequence[tuple[Any, float]],
    *names: Any,
    **flags: Any,
) -> Iterator[Candidate]:
    """Changes of rows ``(w_i, b_i)`` by amount_i times a vector: one candidate per entry of it.

    ``amounts`` are pairs of an index into weight and bias, and a number.
    """
    for parameter in (layer.weight, getattr(layer, "bias", None)):
        if parameter is not None:
            terms = [(parameter, where, amount) for where, amount in amounts]
            yield from entrywise(network, terms, *names, **flags)
