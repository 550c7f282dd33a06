"""Symmetries of a network's parameters as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from skgeo._arguments import check_integer, check_option, check_tolerance
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

# Most unions of minimal sets in `reversible_sets_`.
_MOST_SETS = 4096
_COLUMNS = ["layer", "unit", "class", "group", "partner", "scale", "residual"]


class SymmetryClassifier(GeometryEstimator):
    r"""Symmetry classes of hidden units, and the flat directions that symmetries explain.

    A network computes the same function at many parameters: units may be permuted, scaled or
    sign-flipped, and redundant units may change freely. Continuous symmetries are flat directions
    of the Fisher metric. The unexplained nullity is

    .. math::
        \mathrm{unexplained} = P - \mathrm{rank}(G) - \dim \mathrm{span}(\text{generators}) .

    If it is zero, known symmetries explain every flat direction. If the rank is the number of rows
    that the samples give, no direction can be called unexplained: those left over may only lack
    data, and are counted apart.

    Bound to a model, ``fit(X)`` classifies its units and accounts for its null space on X.
    ``transform(X)`` gives, for each sample, the share of the units of each class that respond, and
    the distance to the nearest activation boundary. Without a model, ``transform(pairs)`` gives one
    row of features per (model, data) pair: the :meth:`summary` of the bound reading.

    Parameters
    ----------
    model : object, default=None
        Model to measure: an ``nn.Module``, a scikit-learn or skorch model or a Pipeline that ends
        in one (fitted in ``fit`` unless frozen), a ``Checkpoint`` or a ``WrappedModel``. None for
        the unbound reading.
    domain : {None, "box", "data"}, default=None
        Domain on which dead units are never active and always-on units always are, and on which
        the network of minimal width agrees: all inputs, the smallest box around the data, or the
        data.
    tol : float or "auto", default="auto"
        Relative tolerance up to which weights are treated as equal or zero. "auto" is 1e-10 for
        float64 weights and 2e-6 for float32.
    likelihood : str or Likelihood, default="auto"
        Meaning of the outputs: "categorical", "bernoulli", "gaussian", "gaussian_scale" or
        "poisson". "auto" asks the model, then the dtype of y; without either it assumes
        "gaussian" of unit variance and warns.
    max_set_size : {2, 3, 4}, default=4
        Largest size of the reversible sets that are searched where not all can be found.
    rank_tol : float or "auto", default="auto"
        Tolerance of the Fisher rank, relative to the largest eigenvalue.
    nullity_limit : int, default=4000
        Largest size of the smaller side of the Fisher matrix (rows or parameters) for which its
        rank is computed.
    memory_budget : int or str, default=None
        Bytes of memory to use, such as ``"4 GiB"``; by default 0.7 of the available memory.
    batch_size : int, default=None
        Samples per forward pass. The result does not depend on it.
    device : str, default=None
        "cpu", "cuda" or "cuda:i"; by default the device of the module.
    memory : str or joblib.Memory, default=None
        Cache of the features of pairs, by a fingerprint of weights and data.
    on_error : {"raise", "nan"}, default="raise"
        Whether a failing pair raises an error or gives a row of NaN.
    n_jobs : int, default=None
        Number of pairs that are measured at the same time.
    verbose : int, default=0
        If positive, the progress through a table of pairs is shown.

    Attributes
    ----------
    labels_ : ndarray of shape (n_units,)
        Class of each hidden unit, in the order of the layers: the first that applies of
        ``q_degenerate`` (no outgoing weights), ``w_degenerate`` (no incoming weights), ``dead`` and
        ``always_on`` (on `domain`), ``duplicate`` and ``antiparallel`` (another unit has the same
        activation boundary, with the same or the opposite side), ``reversible`` (in a set of units
        with :math:`\sum q_i w_i^T = 0`), and ``generic``.
    classes_ : ndarray of shape (n_classes,)
        The classes that occur, ``generic`` first and the others in the order above.
    symmetries_ : DataFrame
        One row per hidden unit: ``layer``, ``unit``, ``class``, ``group`` (shared boundary or set,
        -1 for none), ``partner`` (another unit of the layer, -1 for none), ``scale`` ((w, b) of the
        unit relative to the partner's) and ``residual`` (relative error up to which the unit
        belongs to its class).
    generators_ : Generators or None
        Flat directions in closed form: ``matrix``, a sparse array of shape (P, m) with one
        direction per column, checked against the Jacobian on the data; ``table``, one row per
        column; ``dimensions``, the dimension that each symmetry adds to the span. None above a
        million parameters.
    explained_nullity_ : int
        Dimension of the span of the generators; NaN without generators.
    unexplained_nullity_ : int
        ``n_parameters_ - fisher_rank_ - explained_nullity_ - sample_limited_nullity_``; NaN with
        `fisher_rank_`.
    sample_limited_nullity_ : int
        Dimension of the null space that is not explained where the Fisher rank is the number of
        rows of the samples, so that more samples may see it; otherwise 0. NaN with
        `fisher_rank_`.
    fisher_rank_ : int
        Rank of the Fisher information on the data, in float64 whatever the dtype of the model; NaN
        above `nullity_limit`, and with a warning where it does not fit in memory.
    rank_threshold_ : float
        Threshold (absolute) on the eigenvalues that count for the rank.
    spectral_gap_ : float
        Ratio of the eigenvalues above and below the threshold; NaN if the samples limit the rank.
    n_parameters_ : int
        Number P of trainable parameters.
    reversible_sets_ : list of tuple of int
        Sets of units, as indices into ``labels_``, that can be sign-flipped together: minimal sets
        and their disjoint unions, ordered by size within each layer.
    reversible_sets_complete_ : bool
        Whether these are all reversible sets.
    minimal_width_ : int
        Number of hidden units of the smallest network found that computes the same function on
        `domain`; NaN if the network is not a chain of linear layers and known activations.
    minimal_width_is_optimal_ : bool
        Whether `minimal_width_` is proved to be minimal.
    not_covered_ : tuple of str
        Modules that were not recognised, with the reason, and symmetries that were left out for
        their size.
    likelihood_ : str
        Name of the likelihood that was used.
    model_ : ResolvedModel
        The module that was measured, and the fitted estimator around it if there is one.

    See Also
    --------
    skgeo.FisherRankEstimator : The Fisher rank and spectrum.
    skgeo.symmetry.classify_units : Classes of the units of one layer.
    skgeo.symmetry.nullity_account : The account of the null space as a function.

    Notes
    -----
    The classified units are those of linear layers and convolutions (also before a BatchNorm) with
    a pointwise activation that only such layers read. Units that reach a residual sum, attention or
    recurrent layers are not classified, and a model without classified units has empty
    ``labels_``. For one hidden layer of ReLU and data on both sides of all boundaries, the
    unexplained nullity is zero, which is a theorem. For deeper ReLU networks hidden symmetries
    make it positive. With too few samples the Fisher rank is the number of their rows, and what is
    not explained is counted in ``sample_limited_nullity_``, with a warning.

    The cost is that of the Fisher rank, and for each layer of d units
    :math:`O(d (n + k) + d \log d)` and the search for reversible sets. ``transform`` needs one
    backward pass per unit with a kink after the first layer (per channel and position for
    convolutions).

    References
    ----------
    .. [1] M. Phuong and C. H. Lampert, "Functional vs. parametric equivalence of ReLU networks",
       ICLR 2020.
    .. [2] H. J. Sussmann, "Uniqueness of the weights for minimal feedforward nets with a given
       input-output map", Neural Networks 5(4), 1992.

    Examples
    --------
    For ``relu(x1-1) + relu(x2-1) + relu(-x1-1) + relu(-x2-1)``, opposite units can be sign-flipped
    together, and each of the four units has one flat direction, its scaling:

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
    sample_limited_nullity_: int | float
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
        check_tolerance(self.rank_tol, "rank_tol")
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
        self.sample_limited_nullity_ = account.sample_limited
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
            "symmetry_sample_limited_nullity",
            "symmetry_minimal_width_ratio",
        ]

    def _facts(self) -> dict[str, str]:
        return {"likelihood": self.likelihood_}

    def summary(self) -> dict[str, float]:
        """Summary in twelve numbers, the features of the unbound reading.

        Returns
        -------
        dict of str to float
            ``symmetry_{class}_share``, the share of the hidden units, for each of the eight
            classes, ``symmetry_explained_nullity``, ``symmetry_unexplained_nullity``,
            ``symmetry_sample_limited_nullity`` (the three add up to the nullity), and
            ``symmetry_minimal_width_ratio``, the ratio of minimal and actual width. Shares and
            ratio are NaN for a model without classified hidden units, the ratio also without a
            minimal width, and the unexplained and sample-limited nullity above ``nullity_limit``.
        """
        self._check_measured()
        n_units = len(self.labels_)
        shares = [
            float(np.mean(self.labels_ == name)) if n_units else float("nan")
            for name in UNIT_CLASSES
        ]
        ratio = self.minimal_width_ / n_units if n_units else float("nan")
        values = (
            *shares,
            self.explained_nullity_,
            self.unexplained_nullity_,
            self.sample_limited_nullity_,
            ratio,
        )
        return {
            name: float(value) for name, value in zip(self._summary_names(), values, strict=True)
        }

    def canonical(self) -> CanonicalForm:
        """Canonical form of the model under its known symmetries.

        Returns
        -------
        CanonicalForm
            As :func:`~skgeo.symmetry.canonical_form`.

        See Also
        --------
        skgeo.symmetry.canonical_form : The same for a module.
        """
        model = replace(self._resolved("canonical()"), preprocess=None)
        return canonical_form(model, tol=self.tol)

    def equivalent(self, other: Any, X: Any = None) -> EquivalenceReport:
        """Whether the model computes the same function as another model.

        Parameters
        ----------
        other : object
            A model of any kind, or a bound SymmetryClassifier.
        X : array, Tensor, dict, Dataset or DataLoader, default=None
            Further inputs at which to look for a difference, as the modules take them.

        Returns
        -------
        EquivalenceReport
            Verdict, and certificate or witness.

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
        """Network with fewer hidden units that computes the same function.

        Parameters
        ----------
        X : array, Tensor, Dataset or DataLoader, default=None
            Samples, as the module takes them. Needed with a domain, and with ``exact=False``.
        exact : bool, default=True
            If False, the report also has the curve of output error by width.
        domain : {None, "box", "data"}, default=None
            Where the function stays the same: on all inputs, on the smallest box around the
            samples, or on the samples only.

        Returns
        -------
        CompressionReport
            The new network, with widths and errors.

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
                "Bind it with SymmetryClassifier(model=net)."
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
