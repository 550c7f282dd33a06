"""All closed-form null vectors of a network on data, checked and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from skgeo._results import Result
from skgeo.likelihood import Likelihood
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind
from skgeo.symmetry._generators.candidate import Candidate
from skgeo.symmetry._generators.check import changes_at_random, relative_changes
from skgeo.symmetry._generators.span import nested_dimensions
from skgeo.symmetry._generators.table import propose
from skgeo.symmetry._network import SymmetryNetwork

_CHECK_TOL = 1e-10


class Generator(NamedTuple):
    r"""One flat direction.

    Attributes
    ----------
    symmetry : str
        Name of the symmetry.
    layer : str
        Dotted name of its first module.
    units : tuple of int
        Units of this layer that it changes; empty for all.
    domain : {"all", "data"}
        Whether it is flat for all inputs or on the data only. "all" is said of what a theorem says
        it of and random inputs confirm.
    weighted : bool
        Whether it leaves only the output distribution unchanged and not the outputs, as a shift of
        all logits does.
    residual : float
        :math:`\|J v\| / (\|J\| \|v\|)` on the data; if weighted, :math:`R^T J` replaces J, where
        :math:`F = R R^T` is the Fisher information of the output distribution.
    """

    symmetry: str
    layer: str
    units: tuple[int, ...]
    domain: str
    weighted: bool
    residual: float


@dataclass(frozen=True, eq=False, repr=False)
class Generators(Result):
    """Flat directions of a network on data, from its symmetries.

    Attributes
    ----------
    matrix : scipy.sparse.csc_array of shape (P, m)
        One direction per column, in ``named_parameters()`` order, for trainable parameters only,
        with tied parameters once. Columns may be linearly dependent.
    table : tuple of Generator
        One entry per column; ``pandas.DataFrame(table)`` makes a table of it.
    dimensions : dict of str to int
        Dimension that each symmetry adds to the span of those before it.
    dropped : tuple of Generator
        Candidates that failed the check, since they change the outputs.
    not_covered : tuple of str
        Modules that were not recognised, and symmetries that were left out for their size.

    See Also
    --------
    skgeo.symmetry.generators : Makes it.
    """

    matrix: sparse.csc_array
    table: tuple[Generator, ...]
    dimensions: dict[str, int]
    dropped: tuple[Generator, ...]
    not_covered: tuple[str, ...]

    def _line(self) -> str:
        names = ", ".join(f"{name} {added}" for name, added in self.dimensions.items()) or "none"
        return f"{self.n_generators} of {self.n_parameters} dimensions: {names}"

    def _repr_html_(self) -> str:
        html: str = pd.DataFrame(self.table, columns=list(Generator._fields)).to_html(max_rows=20)
        return html

    @property
    def n_generators(self) -> int:
        """Dimension of the span of all columns."""
        return sum(self.dimensions.values())

    @property
    def n_parameters(self) -> int:
        """P."""
        return int(self.matrix.shape[0])


def generators(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    likelihood: str | Likelihood = "auto",
    batch_size: int | None = None,
    device: str | None = None,
) -> Generators:
    r"""Flat directions of a network, in closed form.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Only read. All is computed in float64, whatever its dtype.
    X : array, Tensor, dict, Dataset or DataLoader
        N samples. Each direction is checked on them, and some are flat on them only (dead units,
        constant inputs).
    y : array-like, optional
        As in :func:`~skgeo.fisher.fisher_spectrum`.
    likelihood : str or Likelihood, default="auto"
        Meaning of the outputs, as in :func:`~skgeo.fisher.fisher_spectrum`. Under "categorical" a
        shift of all logits is flat too.
    batch_size : int, optional
        Samples per forward pass. The result does not depend on it.
    device : str, optional
        Device to compute on; by default that of the model.

    Returns
    -------
    Generators
        The directions, a table that describes them, and the dimension of each symmetry.

    Raises
    ------
    SkgeoError
        For NaN or infinity anywhere, a model that ignores its parameters, or outputs that do not
        fit the likelihood.

    See Also
    --------
    skgeo.symmetry.nullity_account : The part of the Fisher null space that they explain.

    Notes
    -----
    The symmetries are: scaling of rectifier units and channels, through BatchNorm, pooling,
    flattening and residual sums; consecutive linear layers; attention heads and their biases;
    invariances and redundant parameters of LayerNorm, RMSNorm and BatchNorm (in eval mode); the
    softmax; units that have no outgoing weights, are dead, constant, duplicates of each other, or
    exchange affine functions; inputs that are constant and weights that are not used on the data.
    Each column v satisfies :math:`\|J v\| \le 10^{-10} \|J\| \|v\|` on the data, where J is the
    Jacobian of the outputs with respect to the parameters (for softmax outputs, that of the output
    distribution). Candidates that do not are in ``dropped``.

    The cost is K backward passes over all samples for K outputs, or one per column if those are
    fewer.

    Examples
    --------
    Each unit of a ReLU network has one flat direction, ``(w, b, -q)``:

    >>> from skgeo.datasets import symmetric_hinges
    >>> from skgeo.symmetry import generators
    >>> case = symmetric_hinges()
    >>> found = generators(case.module, case.inputs, likelihood="gaussian")
    >>> found.dimensions, found.n_generators
    ({'scaling': 4}, 4)
    >>> found.matrix[:, [0]].toarray().ravel()[[0, 1, 8, 12]]
    array([ 1.,  0., -1., -1.])
    """
    with single_blas_thread():
        bound = bind(
            model,
            X,
            y,
            likelihood=likelihood,
            batch_size=batch_size,
            device=device,
        )
        return measure_generators(SymmetryNetwork(bound))


def measure_generators(network: SymmetryNetwork) -> Generators:
    """Generators of a network on data."""
    candidates = propose(network)
    matrix = _columns(candidates, network.n_parameters)
    weighted = np.array([candidate.weighted for candidate in candidates], dtype=bool)
    residuals = relative_changes(network, matrix, weighted)
    flat = residuals <= _CHECK_TOL
    everywhere = np.array([candidate.domain == "all" for candidate in candidates], dtype=bool)
    probed = np.flatnonzero(flat & everywhere)
    if len(probed):
        changes = changes_at_random(network, sparse.csc_array(matrix[:, probed]), weighted[probed])
        everywhere[probed] = changes <= _CHECK_TOL
    rows = [
        Generator(
            c.symmetry, c.layer, c.units, "all" if all_ else "data", c.weighted, float(residual)
        )
        for c, all_, residual in zip(candidates, everywhere, residuals, strict=True)
    ]
    matrix = sparse.csc_array(matrix[:, flat])
    table = tuple(row for row, kept in zip(rows, flat, strict=True) if kept)
    names = list(dict.fromkeys(row.symmetry for row in table))
    numbers = np.array([names.index(row.symmetry) for row in table], dtype=np.int64)
    dimensions = nested_dimensions(matrix, numbers)
    return Generators(
        matrix,
        table,
        {name: int(added) for name, added in zip(names, dimensions, strict=True)},
        tuple(row for row, kept in zip(rows, flat, strict=True) if not kept),
        tuple(dict.fromkeys((*network.flow.unread, *network.skipped))),
    )


def _columns(candidates: list[Candidate], n_parameters: int) -> sparse.csc_array:
    if not candidates:
        return sparse.csc_array((n_parameters, 0))
    starts = np.cumsum([0, *(len(candidate.rows) for candidate in candidates)])
    rows = np.concatenate([candidate.rows for candidate in candidates])
    values = np.concatenate([candidate.values for candidate in candidates])
    return sparse.csc_array((values, rows, starts), shape=(n_parameters, len(candidates)))
