"""Symmetries of a network's parameters as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from skgeo._arguments import check_integer, check_option
from skgeo.base import GeometryEstimator
from skgeo.exceptions import SkgeoError
from skgeo.likelihood import Likelihood
from skgeo.linalg._threads import single_blas_thread
from skgeo.models import ResolvedModel, resolve_model
from skgeo.network._bound import BoundNetwork
from skgeo.symmetry._compression.compress import CompressionReport, compress
from skgeo.symmetry._compression.reduction import reduce_stack
from skgeo.symmetry._equivalence.canonical import CanonicalForm, canonical_form
from skgeo.symmetry._equivalence.equivalence import equivalent
from skgeo.symmetry._equivalence.report import EquivalenceReport
from skgeo.symmetry._generators.nullity import NULLITY_LIMIT, measure_nullity
from skgeo.symmetry._generators.operator import Generators
from skgeo.symmetry._hidden_units import LayerClasses, classify_network, read_chain
from skgeo.symmetry._network import SymmetryNetwork
from skgeo.symmetry._responses import unit_responses
from skgeo.symmetry._tolerance import resolve_tolerance
from skgeo.symmetry._units import UNIT_CLASSES

__all__ = ["SymmetryClassifier"]

# Unions of minimal sets that are listed.
_MOST_SETS = 4096
_COLUMNS = ["layer", "unit", "class", "group", "partner", "scale", "residual"]


class SymmetryClassifier(GeometryEstimator):
    r"""Which symmetry or degeneracy each hidden unit takes part in, and what they explain.

    A network computes the same function at many parameters: units may be permuted, scaled,
    reversed, and superfluous ones moved freely. Continuous families of such moves are flat
    directions of the Fisher metric,

    .. math::
        \mathrm{unexplained} = P - \mathrm{rank}(G) - \dim \mathrm{span}(\text{generators}) ,

    and zero means that every flat direction has a name.

    Bound to a model, ``fit(X)`` classifies its units and accounts for its null space on X, and
    ``transform(X)`` gives the share of each class's units that respond at each sample, and the
    distance to the nearest activation boundary. Without a model, ``transform(pairs)`` gives one row
    of features a (model, data) pair: the :meth:`summary` of the bound reading.

    Parameters
    ----------
    model : object, default=None
        What to measure: an ``nn.Module``, a scikit-learn or skorch model or a Pipeline that ends
        in one (fitted in ``fit`` unless frozen), a ``Checkpoint`` or a ``WrappedModel``. None for
        the unbound reading.
    domain : {None, "box", "data"}, default=None
        Where a unit must be off, or on, to be called dead, or always on, and where the network of
        minimal width must agree: all inputs, the smallest box around the data, or the data.
    tol : float or "auto", default="auto"
        Relative, for weights to be taken for equal or zero. "auto" is 1e-10 for float64 weights
        and 2e-6 for float32.
    likelihood : str or Likelihood, default="auto"
        What the outputs mean: "categorical", "bernoulli", "gaussian", "gaussian_scale" or
        "poisson". "auto" asks the model, then the dtype of y; without either it assumes
        "gaussian" of unit variance and warns.
    max_set_size : {2, 3, 4}, default=4
        Size up to which reversible sets are searched for where not all can be found.
    rank_tol : float or "auto", default="auto"
        Of the Fisher rank, relative to the largest eigenvalue.
    nullity_limit : int, default=4000
        Size of the Fisher matrix on its smaller side (rows or parameters) above which its rank
        is not taken.
    memory_budget : int or str, default=None
        Bytes to stay within, such as ``"4 GiB"``; by default 0.7 of what is available.
    batch_size : int, default=None
        Samples a forward pass. The answer does not depend on it.
    device : str, default=None
        "cpu", "cuda" or "cuda:i"; by default where the module is.
    memory : str or joblib.Memory, default=None
        Caches the features of pairs under a fingerprint of weights and data.
    on_error : {"raise", "nan"}, default="raise"
        What a failing pair does to the table.
    n_jobs : int, default=None
        Pairs measured at the same time.
    verbose : int, default=0
        Above 0, shows progress through a table of pairs.

    Attributes
    ----------
    labels_ : ndarray of shape (n_units,)
        Class of each hidden unit, in layer order: the first of ``q_degenerate`` (nothing reads it),
        ``w_degenerate`` (it reads nothing), ``dead`` and ``always_on`` (on `domain`),
        ``duplicate`` and ``antiparallel`` (another unit has its activation boundary, on the same or
        the other side), ``reversible`` (in a set of units with :math:`\sum q_i w_i^T = 0`), and
        ``generic`` that applies.
    classes_ : ndarray of shape (n_classes,)
        Those of them that occur, ``generic`` first and the others as listed above.
    symmetries_ : DataFrame
        One row a hidden unit: ``layer``, ``unit``, ``class``, ``group`` (boundary or set that it
        shares, -1 for none), ``partner`` (another unit of the layer, -1 for none), ``scale``
        ((w, b) of the unit is that much times the partner's) and ``residual`` (by how much the
        class fails to hold exactly, relative).
    generators_ : Generators
        Flat directions in closed form: ``matrix``, a sparse array of shape (P, m) with one
        direction a column, checked against the Jacobian on the data; ``table``, one row a column;
        ``dimensions``, what each symmetry adds to the span. None above a million parameters.
    explained_nullity_ : int
        Dimension of their span, as part of the nullity (NaN without them).
    unexplained_nullity_ : int
        ``n_parameters_ - fisher_rank_ - explained_nullity_``. NaN above `nullity_limit`.
    fisher_rank_ : int
        Of the true Fisher information on the data, in float64 whatever the dtype of the model. NaN
        above `nullity_limit`.
    rank_threshold_ : float
        Its absolute threshold.
    spectral_gap_ : float
        Ratio of the eigenvalues on either side of it.
    n_parameters_ : int
        P, trainable parameters.
    reversible_sets_ : list of tuple of int
        Sets of units, as indices into ``labels_``, that may change the sign of (w, b) together:
        minimal ones and their disjoint unions, ordered by size within a layer.
    reversible_sets_complete_ : bool
        Whether these are all.
    minimal_width_ : int
        Hidden units of the smallest network found that computes the same function on `domain`. NaN
        where the network is no chain of linear layers and known activations.
    minimal_width_is_optimal_ : bool
        Whether it is proved that no fewer do.
    not_covered_ : tuple of str
        Modules that were not understood, with the reason; nothing is guessed of them.
    likelihood_ : str
        The output family that was used.
    model_ : ResolvedModel
        The module measured, and the fitted estimator around it where there is one.

    See Also
    --------
    skgeo.FisherRankEstimator : The rank on its own, with its spectrum.
    skgeo.symmetry.nullity_account : The account as a function of a module.

    Notes
    -----
    Classified are hidden units of linear layers and convolutions (also before a BatchNorm) that are
    read by nothing but such layers, after a pointwise activation. Units that reach a residual sum,
    attention, or recurrent layers are not, and a model without classified units has empty
    ``labels_``. Zero unexplained nullity is a theorem for one hidden layer of ReLU, and data on
    both sides of all boundaries; deeper ReLU networks have hidden symmetries that show as a
    positive count, and so do too few samples.

    Cost: as the Fisher rank, plus, for each layer of d units, :math:`O(d (n + k) + d \log d)` and
    the search for reversible sets. ``transform`` takes one backward pass for each unit with a kink
    behind the first layer (channel and position, in convolutions).

    References
    ----------
    .. [1] M. Phuong and C. H. Lampert, "Functional vs. parametric equivalence of ReLU networks",
       ICLR 2020.
    .. [2] H. J. Sussmann, "Uniqueness of the weights for minimal feedforward nets with a given
       input-output map", Neural Networks 5(4), 1992.

    Examples
    --------
    ``relu(x1-1) + relu(x2-1) + relu(-x1-1) + relu(-x2-1)``: opposite units can be reversed
    together, and each of the four has one flat direction, its scaling.

    >>> from skgeo.datasets import symmetric_hinges
    >>> from skgeo.symmetry import SymmetryClassifier
    >>> case = symmetric_hinges()
    >>> symmetry = SymmetryClassifier(case.module, likelihood="gaussian").fit(case.inputs)
    >>> symmetry.reversible_sets_
    [(0, 2), (1, 3), (0, 1, 2, 3)]
    >>> symmetry.fisher_rank_, symmetry.explained_nullity_, symmetry.unexplained_nullity_
    (13, 4, 0)
    """

    labels_: np.ndarray
    classes_: np.ndarray
    symmetries_: pd.DataFrame
    generators_: Generators | None
    explained_nullity_: int | float
    unexplained_nullity_: int | float
    fisher_rank_: int | float
    rank_threshold_: float
    spectral_gap_: float
    n_parameters_: int
    reversible_sets_: list[tuple[int, ...]]
    reversible_sets_complete_: bool
    minimal_width_: int | float
    minimal_width_is_optimal_: bool
    not_covered_: tuple[str, ...]
    likelihood_: str
    model_: ResolvedModel

    def __init__(
        self,
        model: Any = None,
        *,
        domain: Literal["box", "data"] | None = None,
        tol: float | Literal["auto"] = "auto",
        likelihood: str | Likelihood = "auto",
        max_set_size: int = 4,
        rank_tol: float | Literal["auto"] = "auto",
        nullity_limit: int = NULLITY_LIMIT,
        memory_budget: int | str | None = None,
        batch_size: int | None = None,
        device: str | None = None,
        memory: Any = None,
        on_error: Literal["raise", "nan"] = "raise",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.domain = domain
        self.tol = tol
        self.likelihood = likelihood
        self.max_set_size = max_set_size
        self.rank_tol = rank_tol
        self.nullity_limit = nullity_limit
        self.memory_budget = memory_budget
        self.batch_size = batch_size
        self.device = device
        self.memory = memory
        self.on_error = on_error
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _measure(self, bound: BoundNetwork) -> None:
        check_option("max_set_size", self.max_set_size, (2, 3, 4))
        check_integer("nullity_limit", self.nullity_limit, least=0)
        tol = resolve_tolerance(self.tol, torch.finfo(bound.model.dtype).eps)
        network = SymmetryNetwork(bound)
        layers = classify_network(network, domain=self.domain, tol=tol, max_size=self.max_set_size)
        self._set_units(layers)
        self._set_minimal_width(network, tol)
        account = measure_nullity(
            network, tol=self.rank_tol, limit=self.nullity_limit, progress=bound.progress
        )
        self.generators_ = account.generators
        self.explained_nullity_ = account.explained
        self.unexplained_nullity_ = account.unexplained
        self.fisher_rank_ = account.fisher_rank
        self.n_parameters_ = account.n_parameters
        decision = account.decision
        self.rank_threshold_ = float("nan") if decision is None else decision.threshold
        self.spectral_gap_ = float("nan") if decision is None else decision.gap
        self.not_covered_ = (
            network.flow.unread if account.generators is None else account.generators.not_covered
        )
        self._likelihood = network.bound.likelihood
        self.likelihood_ = self._likelihood.name

    def _set_units(self, layers: list[LayerClasses]) -> None:
        labels = [label for layer in layers for label in layer.classes.labels]
        self.labels_ = np.array(labels, dtype=f"<U{max(map(len, UNIT_CLASSES))}")
        self.classes_ = np.array(
            [name for name in UNIT_CLASSES if name in labels], dtype=self.labels_.dtype
        )
        self.symmetries_ = pd.concat(
            [pd.DataFrame(columns=_COLUMNS)] if not layers else [_table(layer) for layer in layers],
            ignore_index=True,
        )
        self.reversible_sets_ = []
        self.reversible_sets_complete_ = True
        start = 0
        for layer in layers:
            found = layer.classes.reversible
            unions = found.unions(_MOST_SETS)
            self.reversible_sets_ += [tuple(start + unit for unit in union) for union in unions]
            self.reversible_sets_complete_ &= found.complete and len(unions) < _MOST_SETS
            start += len(layer.classes.labels)

    def _set_minimal_width(self, network: SymmetryNetwork, tol: float) -> None:
        self.minimal_width_ = float("nan")
        self.minimal_width_is_optimal_ = False
        chain = read_chain(network, self.domain)
        if chain is None:
            return
        stack, region = chain
        found = reduce_stack(stack, region, tol=tol)
        classified = set(self.symmetries_["layer"])
        widths = zip(stack.names, found.widths, strict=False)
        self.minimal_width_ = sum(width for name, width in widths if name in classified)
        self.minimal_width_is_optimal_ = found.optimal or self.minimal_width_ == 0

    def _features(self, bound: BoundNetwork) -> np.ndarray:
        responses, distance = unit_responses(SymmetryNetwork(bound))
        shares = [
            responses[:, torch.from_numpy(self.labels_ == name)].double().mean(1)
            for name in self.classes_
        ]
        return torch.stack([*shares, distance], dim=1).numpy()

    def _feature_names(self) -> list[str]:
        return [f"symmetry_{name}_active" for name in self.classes_] + [
            "symmetry_boundary_distance"
        ]

    def _summary_names(self) -> list[str]:
        return [
            *(f"symmetry_{name}_share" for name in UNIT_CLASSES),
            "symmetry_explained_nullity",
            "symmetry_unexplained_nullity",
            "symmetry_minimal_width_ratio",
        ]

    def _facts(self) -> dict[str, str]:
        return {"likelihood": self.likelihood_}

    def summary(self) -> dict[str, float]:
        """The classification in eleven numbers, the features of the unbound reading.

        Returns
        -------
        dict of str to float
            ``symmetry_{class}_share`` of the hidden units for each of the eight classes,
            ``symmetry_explained_nullity``, ``symmetry_unexplained_nullity``, and
            ``symmetry_minimal_width_ratio``, minimal over actual width. Shares and ratio are NaN
            for a model without classified hidden units, the ratio also where no minimal width is
            known, and the unexplained nullity above ``nullity_limit``.
        """
        self._check_measured()
        n_units = len(self.labels_)
        shares = [
            float(np.mean(self.labels_ == name)) if n_units else float("nan")
            for name in UNIT_CLASSES
        ]
        ratio = self.minimal_width_ / n_units if n_units else float("nan")
        values = (*shares, self.explained_nullity_, self.unexplained_nullity_, ratio)
        return {
            name: float(value) for name, value in zip(self._summary_names(), values, strict=True)
        }

    def canonical(self) -> CanonicalForm:
        """The form that all networks of the model's function share, as far as it is known.

        Returns
        -------
        CanonicalForm

        See Also
        --------
        skgeo.symmetry.canonical_form : The same for a module.
        """
        model = replace(self._resolved("canonical()"), preprocess=None)
        return canonical_form(model, tol=self.tol)

    def equivalent(self, other: Any, X: Any = None) -> EquivalenceReport:
        """Whether the model computes the same function as another.

        Parameters
        ----------
        other : object
            A model of any kind, or a bound SymmetryClassifier.
        X : array, Tensor, Dataset or DataLoader, optional
            Inputs at which to look for a difference too, as the modules take them.

        Returns
        -------
        EquivalenceReport

        See Also
        --------
        skgeo.symmetry.equivalent : The same for two modules.
        """
        theirs = other if isinstance(other, SymmetryClassifier) else SymmetryClassifier(other)
        return equivalent(
            self._resolved("equivalent(other)"),
            theirs._resolved("equivalent(other)"),
            X,
            tol=self.tol,
        )

    def compress(
        self,
        X: Any = None,
        *,
        exact: bool = True,
        domain: Literal["box", "data"] | None = None,
    ) -> CompressionReport:
        """A network of fewer hidden units that computes the same function.

        Parameters
        ----------
        X : array, Tensor, Dataset or DataLoader, optional
            Samples, as the module takes them. Needed with a domain, and without exactness.
        exact : bool, default=True
            With False, the curve of width against error is given as well.
        domain : {None, "box", "data"}, default=None
            Where the function is to stay the same.

        Returns
        -------
        CompressionReport

        See Also
        --------
        skgeo.symmetry.compress : The same for a module.
        """
        model = replace(self._resolved("compress()"), preprocess=None)
        return compress(model, exact=exact, domain=domain, X=X, tol=self.tol)

    def _resolved(self, request: str) -> ResolvedModel:
        if self.model is None:
            raise SkgeoError(
                f"Got {request} on a SymmetryClassifier without a model; expected a bound one. "
                "Bind it to a model: SymmetryClassifier(model=net)."
            )
        if hasattr(self, "model_"):
            return self.model_
        with single_blas_thread():
            return resolve_model(self.model, refit=False)


def _table(layer: LayerClasses) -> pd.DataFrame:
    classes = layer.classes
    return pd.DataFrame(
        {
            "layer": layer.name,
            "unit": np.arange(len(classes.labels)),
            "class": list(classes.labels),
            "group": classes.group.numpy(),
            "partner": classes.partner.numpy(),
            "scale": classes.scale.numpy(),
            "residual": classes.residual.numpy(),
        },
        columns=_COLUMNS,
    )
