"""A null vector in closed form, assembled from changes of single parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from skgeo.symmetry._network import SymmetryNetwork

Domain = Literal["all", "data"]
# A parameter, some of its entries, and how much each of them moves.
Term = tuple[Tensor, Any, float]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A direction in parameter space that a symmetry says is flat."""

    symmetry: str
    layer: str  # dotted name of the module that it starts from
    units: tuple[int, ...]  # of that layer that take part; empty where all do
    rows: np.ndarray  # places of the non-zero entries among all P
    values: np.ndarray
    domain: Domain = "all"  # where it is flat: for all inputs, or on the given ones
    weighted: bool = False  # whether the output distribution alone stays as it is


class Change:
    """A change of some parameters, to be filled in entry by entry."""

    def __init__(self, network: SymmetryNetwork) -> None:
        self._network = network
        self._rows: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        self._fixed = False

    def add(self, parameter: Tensor | None, where: Any, values: Tensor | float) -> Change:
        """Change ``parameter[where]`` by some values, broadcast to its shape.

        A parameter that is not trained, or None, makes the whole change impossible unless the
        values are zero.
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
        """The change as a candidate; none where it is zero or moves what is not trained.

        ``names`` and ``flags`` are the symmetry, the layer, its units (by default all), the domain
        and whether it is weighted, as a :class:`Candidate` has them.
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
    places, inverse = np.unique(rows, return_inverse=True)  # tied parameters meet here
    sums = np.bincount(inverse, values)
    keep = sums != 0.0
    if keep.any():
        named = tuple(map(int, units))
        yield Candidate(symmetry, str(layer), named, places[keep], sums[keep], domain, weighted)


def entrywise(
    network: SymmetryNetwork, terms: Sequence[Term], *names: Any, **flags: Any
) -> Iterator[Candidate]:
    """One candidate per entry of parts of parameters of one shape that move together.

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
    """``(w_i, b_i)`` of a layer moved by amount_i times one vector: a candidate per entry of it.

    ``amounts`` are pairs of an index into weight and bias and a number.
    """
    for parameter in (layer.weight, getattr(layer, "bias", None)):
        if parameter is not None:
            terms = [(parameter, where, amount) for where, amount in amounts]
            yield from entrywise(network, terms, *names, **flags)
