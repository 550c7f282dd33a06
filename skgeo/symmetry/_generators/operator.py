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
from skgeo.symmetry._generators.check import relative_changes
from skgeo.symmetry._generators.span import nested_dimensions
from skgeo.symmetry._generators.table import propose
from skgeo.symmetry._network import SymmetryNetwork

_CHECK_TOL = 1e-10


class Generator(NamedTuple):
    r"""One flat direction.

    Attributes
    ----------
    symmetry : str
    layer : str
        Dotted name of the module that it starts from.
    units : tuple of int
        Units that take part; empty where all do.
    domain : str
        ``"all"`` inputs, or the ``"data"`` only.
    weighted : bool
        Whether the output distribution alone is left as it is, as by a shift of all logits, while
        the outputs change.
    residual : float
        :math:`\|J v\| / (\|J\| \|v\|)` on the data; if weighted with :math:`R^T J v` in place of
        J v, where :math:`F = R R^T` is the Fisher metric of the output distribution.
    """

    symmetry: str
    layer: str
    units: tuple[int, ...]
    domain: str
    weighted: bool
    residual: float


@dataclass(frozen=True, eq=False, repr=False)
class Generators(Result):
    """Flat directions of a network on data that a symmetry gives a name to.

    Attributes
    ----------
    matrix : scipy.sparse.csc_array of shape (P, m)
        One direction a column, in ``named_parameters()`` order, trainable parameters only, tied
        ones once. Columns may depend on one another.
    table : tuple of Generator
        One a column; ``pandas.DataFrame(table)`` makes a table of it.
    dimensions : dict of str to int
        What each symmetry adds to the span of those before it.
    dropped : tuple of Generator
        Candidates that change the outputs: they failed the check.
    not_covered : tuple of str
        Modules that were not understood, and what was left out for its size.
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
        Each direction is checked on these samples; some are flat on them only (dead units,
        constant inputs).
    y : array-like, optional
        As in :func:`~skgeo.fisher.fisher_spectrum`.
    likelihood : str or Likelihood, default="auto"
        What the outputs mean. Under "categorical" a shift of all logits is flat too.
    batch_size : int, optional
        Samples a forward pass. The answer does not depend on it.
    device : str, optional

    Returns
    -------
    Generators

    Raises
    ------
    SkgeoError
        For NaN or infinity anywhere, a model that ignores its parameters, outputs that do not fit
        the likelihood.

    Notes
    -----
    Known are: scaling of rectifier units and channels, through BatchNorm, pooling, flattening and
    residual sums; linear layers in a row; attention heads and their biases; what LayerNorm,
    RMSNorm and BatchNorm (in eval mode) take away or give twice; the softmax; units that are never
    read, dead, constant, duplicates of one another, or trade affine functions; inputs and entries
    that do not vary on the data. Each column v satisfies
    :math:`\|J v\| \le 10^{-10} \|J\| \|v\|` on the data (see :class:`Generator` for softmax
    outputs); what does not is in ``dropped``.

    Costs K backward passes of all samples, or one for each column where those are fewer.

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
    """Flat directions of a network on data."""
    candidates = propose(network)
    matrix = _columns(candidates, network.n_parameters)
    weighted = np.array([candidate.weighted for candidate in candidates], dtype=bool)
    residuals = relative_changes(network, matrix, weighted)
    rows = [
        Generator(c.symmetry, c.layer, c.units, c.domain, c.weighted, float(residual))
        for c, residual in zip(candidates, residuals, strict=True)
    ]
    flat = residuals <= _CHECK_TOL
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
