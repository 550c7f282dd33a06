"""A null vector in closed form, assembled from changes of single parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from skgeo.geometry.symmetry.generators.network import SymmetryNetwork

__all__ = ["Candidate", "Change"]

Domain = Literal["all", "data"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A direction in parameter space that a symmetry says is flat.

    Attributes
    ----------
    symmetry : str
    layer : str
        Dotted name of the module that it starts from.
    units : tuple of int
        Units of that layer that take part; empty where all do.
    rows : ndarray of int
        Places of the non-zero entries among all P.
    values : ndarray
    domain : {"all", "data"}
        Whether it is flat for all inputs, or on the given ones.
    weighted : bool
        Whether it is flat for the output distribution only, while the outputs change.
    """

    symmetry: str
    layer: str
    units: tuple[int, ...]
    rows: np.ndarray
    values: np.ndarray
    domain: Domain = "all"
    weighted: bool = False


class Change:
    """A change of some parameters, to be filled in entry by entry.

    Parameters
    ----------
    network : SymmetryNetwork
    """

    def __init__(self, network: SymmetryNetwork) -> None:
        self._network = network
        self._rows: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        self._fixed = False

    def add(self, parameter: Tensor | None, where: Any, values: Tensor | float) -> Change:
        """Change the entries ``parameter[where]`` by some values.

        Parameters
        ----------
        parameter : Tensor or None
            One that is not trained, or None, makes the whole change impossible unless the values
            are zero.
        where : index
            As tensors are indexed.
        values : Tensor or float
            Of the shape of ``parameter[where]``, or broadcast to it.

        Returns
        -------
        Change
            Itself.
        """
        if parameter is None:
            given = torch.as_tensor(values)
            self._fixed = self._fixed or bool((given != 0).any())
            return self
        numbers = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
        if not bool((numbers != 0).any()):
            return self
        if not self._network.trains(parameter):
            self._fixed = True
            return self
        places = self._network.places(parameter)[where]
        self._rows.append(places.reshape(-1).numpy())
        self._values.append(numbers.expand(places.shape).reshape(-1).numpy())
        return self

    def candidate(
        self,
        symmetry: str,
        layer: str | None,
        units: Any = (),
        *,
        domain: Domain = "all",
        weighted: bool = False,
    ) -> Iterator[Candidate]:
        """The change as a candidate; none where it is zero or moves what is not trained.

        Yields
        ------
        Candidate
        """
        if self._fixed or not self._rows:
            return
        rows = np.concatenate(self._rows)
        values = np.concatenate(self._values)
        places, inverse = np.unique(rows, return_inverse=True)  # tied parameters meet here
        sums = np.zeros(len(places))
        np.add.at(sums, inverse, values)
        keep = sums != 0.0
        if keep.any():
            yield Candidate(
                symmetry,
                str(layer),
                tuple(int(unit) for unit in units),
                places[keep],
                sums[keep],
                domain,
                weighted,
            )
