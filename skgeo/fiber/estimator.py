"""The fiber of a deep linear network and its stratum, as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Mapping
from math import log10, nan
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from skgeo._arguments import check_integer
from skgeo.base import GeometryEstimator
from skgeo.exceptions import SkgeoError, warn
from skgeo.fiber._barcode import Bar, Barcode
from skgeo.fiber._chain import as_chain
from skgeo.fiber._dimensions import differential_rank, fiber_codimension, fiber_dimension
from skgeo.fiber._distance import rank_drops
from skgeo.fiber._enumeration import HasseDiagram, count_strata, hasse_diagram, strata
from skgeo.fiber._flow import FlowBases, flow_bases
from skgeo.fiber._inputs import input_ranks
from skgeo.fiber._learning_coefficient import linear_network_coefficient
from skgeo.fiber._local import coefficient_bounds
from skgeo.fiber._module import read_linear_network
from skgeo.fiber._moves import move_up
from skgeo.fiber._order import Move, up_moves
from skgeo.fiber._path import tolerance_path
from skgeo.fiber._projector import project_normal, project_tangent
from skgeo.fiber._staircase import Staircase, numerical_barcode
from skgeo.fiber._tangent import (
    FactoredNormals,
    Space,
    factored_normals,
    normal_basis,
    tangent_basis,
)
from skgeo.network._bound import BoundNetwork

__all__ = ["LinearFiberStratifier"]


class LinearFiberStratifier(GeometryEstimator):
    r"""The fiber of a deep linear network and the stratum on which it lies.

    .. math::
        \mu(\theta) = W_L \cdots W_1 , \qquad
        \text{fiber of } W = \{\theta : \mu(\theta) = W\} , \qquad
        r_{ji} = \operatorname{rank} W_j \cdots W_{i+1} .

    All weights that compute one matrix W form the fiber, which splits into strata: smooth
    manifolds, one for each list of ranks :math:`r_{ji}`. The bars [i, j], dimensions that enter at
    layer i and die after layer j, determine the ranks. From the bars follow the dimensions, the
    singular points, the rank of the Fisher metric under Gaussian outputs, and the learning
    coefficient.

    Bound to a model, ``fit(X)`` measures it. X may be left out, as only ``differential_rank_``
    depends on it. ``transform(X)`` gives the activations of one layer in its flow basis. Without a
    model, ``transform(pairs)`` gives one row of features per (model, data) pair, the
    :meth:`summary` of the bound reading; the data may be None.

    Parameters
    ----------
    model : object, default=None
        A linear network: an ``nn.Sequential``, nested or not, of ``nn.Linear`` with
        ``nn.Identity``, ``nn.Flatten`` and ``nn.Dropout`` between; a linear scikit-learn model; or
        matrices, through :func:`skgeo.datasets.linear_network`. A bias of the first layer counts as
        one more input, which is constant; later biases are refused. Of a Pipeline the last step is
        stratified, and the steps before it are applied to X. None for the unbound reading.
    tol : float or "auto", default="auto"
        Singular values are kept if they exceed ``tol`` times the spectral norm of their matrix.
        "auto" is eps^0.6 of the model's dtype: 4e-10 in float64, 7e-5 in float32.
    layer : int, default=None
        Layer whose activations ``transform`` gives: 0 is the input, L the output. None for L - 1,
        the last hidden layer (the input if there is one matrix). Does not enter the features of a
        pair.
    max_strata : int, default=100_000
        Default of :meth:`strata` and :meth:`hasse`: the largest number of strata that they list.
    memory : str or joblib.Memory, default=None
        Cache of the features of pairs, under a fingerprint of weights and data.
    on_error : {"raise", "nan"}, default="raise"
        Whether a pair that fails raises its error or gives a row of NaN.
    n_jobs : int, default=None
        Number of pairs measured at the same time.
    verbose : int, default=0
        Above 0, shows progress through a table of pairs.

    Attributes
    ----------
    rank_list_ : ndarray of int, shape (L + 1, L + 1)
        Entry (j, i) is :math:`r_{ji}` for j > i and the width :math:`d_i` for j = i; zero above the
        diagonal.
    bars_ : DataFrame with columns ``birth``, ``death``, ``multiplicity``
        The bars of the network.
    barcode_ : Barcode
        The same bars, as the functions of :mod:`skgeo.fiber` take them.
    widths_ : tuple of int
        d_0, ..., d_L, a constant input included.
    n_parameters_ : int
        Number of weights P.
    stratum_dim_ : int
        Dimension of the stratum.
    fiber_dim_ : int
        Dimension of the whole fiber, that of its largest strata.
    codimension_ : int
        ``n_parameters_ - fiber_dim_``: twice ``learning_coefficient_``.
    n_strata_ : int or NaN
        Number of strata of the fiber. NaN, with a warning, if counting would take too long.
    is_smooth_ : bool
        Whether the fiber is a manifold near the network.
    is_maximal_ : bool
        Whether the stratum is open in the fiber, which implies that it is smooth.
    differential_rank_ : int
        Rank of the differential of :math:`\mu`, on the span of X if X was given. It is the Fisher
        rank under Gaussian outputs.
    learning_coefficient_ : float
        Learning coefficient of the fiber, the least over its points. It depends on the widths and
        the rank of W only.
    multiplicity_ : int
        Its multiplicity.
    learning_coefficient_bounds_ : tuple of two floats
        Bounds for the learning coefficient at the network.
    is_ambiguous_ : bool
        Whether the network and its transpose disagree about the bars, or the singular values have
        no gap at the tolerance.
    rank_gap_ : float
        Smallest singular value kept over the largest dropped, each relative to its matrix.
    tol_ : float
        Relative tolerance used.
    flow_bases_ : FlowBases
        Bases of all layers in which the network is a direct sum of bars.
    tolerance_path_ : DataFrame
        One row for each set of decisions, coarse to fine: tolerances from ``tol_low`` to below
        ``tol_high`` give a product of rank ``rank``, a stratum of dimension ``stratum_dim`` in a
        fiber of dimension ``fiber_dim``, at the ``distance`` (Frobenius norm of what was
        dropped), with the ``bars``. Computed on first access.
    layer_ : int
        Layer whose activations ``transform`` gives.
    model_ : ResolvedModel
        The module measured, and the fitted estimator around it if there is one.

    See Also
    --------
    skgeo.fiber.BarcodeDisplay : Plot of the bars.
    skgeo.fiber.HasseDisplay : Plot of the strata and their order.
    skgeo.FisherRankEstimator : Its Gaussian rank on X is ``differential_rank_``.

    Notes
    -----
    Cost of ``fit``: three sweeps of about one SVD of each matrix, :math:`O(\sum_l d_l^3)`, and one
    more sweep with X. Everything else is integer arithmetic on the bars. The tolerance path takes
    one sweep for each set of decisions.

    A trained network lies near strata, not on them. A coarse tolerance gives the small stratum
    that it is close to, and a fine one its own, which may belong to the fiber of another product:
    read ``tolerance_path_`` before any single answer. All methods start from the weights that have
    the bars exactly, ``flow_bases_.weights``: those of the model minus what the tolerance dropped.

    References
    ----------
    .. [1] J. R. Shewchuk and S. Bhattacharya, "The Geometry of the Set of Equivalent Linear Neural
       Networks", arXiv:2404.14855.
    .. [2] M. Aoyagi, "Consideration on the learning efficiency of multiple-layered neural networks
       with linear units", Neural Networks 172 (2024).

    Examples
    --------
    Two scalar weights with product zero, at the crossing of the two lines of the fiber and away
    from it:

    >>> from skgeo.datasets.linear import linear_network
    >>> from skgeo.fiber import LinearFiberStratifier
    >>> crossing = LinearFiberStratifier(linear_network([[[0.0]], [[0.0]]])).fit()
    >>> crossing.stratum_dim_, crossing.is_smooth_, crossing.differential_rank_
    (0, False, 0)
    >>> line = LinearFiberStratifier(linear_network([[[3.0]], [[0.0]]])).fit()
    >>> line.stratum_dim_, line.is_smooth_, line.differential_rank_
    (1, True, 1)
    >>> line.bars_
       birth  death  multiplicity
    0      0      1             1
    1      2      2             1
    >>> line.learning_coefficient_, line.multiplicity_
    (0.5, 2)
    """

    rank_list_: np.ndarray
    bars_: pd.DataFrame
    barcode_: Barcode
    widths_: tuple[int, ...]
    n_parameters_: int
    stratum_dim_: int
    fiber_dim_: int
    codimension_: int
    n_strata_: int | float
    is_smooth_: bool
    is_maximal_: bool
    differential_rank_: int
    learning_coefficient_: float
    multiplicity_: int
    learning_coefficient_bounds_: tuple[float, float]
    is_ambiguous_: bool
    rank_gap_: float
    tol_: float
    flow_bases_: FlowBases
    layer_: int

    _needs_data: ClassVar[bool] = False
    _pair_parameters: ClassVar[Mapping[str, Any]] = {"layer": None}

    def __init__(
        self,
        model: Any = None,
        *,
        tol: float | Literal["auto"] = "auto",
        layer: int | None = None,
        max_strata: int = 100_000,
        memory: Any = None,
        on_error: Literal["raise", "nan"] = "raise",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.tol = tol
        self.layer = layer
        self.max_strata = max_strata
        self.memory = memory
        self.on_error = on_error
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _measure(self, bound: BoundNetwork) -> None:
        check_integer("max_strata", self.max_strata)
        network = read_linear_network(bound)
        self._network = network
        self.layer_ = self._chosen_layer(len(network.weights))
        # The original weights are passed, as "auto" depends on their dtype.
        found = numerical_barcode(network.weights, tol=self.tol)
        self.flow_bases_ = flow_bases(network.weights, tol=self.tol)
        code = self.flow_bases_.barcode
        self.is_ambiguous_ = found.is_ambiguous or found.barcode != code
        self.rank_gap_ = found.gap
        self.tol_ = found.tol
        self.barcode_ = code
        self.rank_list_ = code.rank_list()
        self.bars_ = pd.DataFrame(code.bars, columns=["birth", "death", "multiplicity"])
        self.widths_ = code.widths
        self.n_parameters_ = code.n_parameters
        self.stratum_dim_ = code.dimension
        self.fiber_dim_ = fiber_dimension(code.widths, code.rank)
        self.codimension_ = fiber_codimension(code.widths, code.rank)
        self.n_strata_ = _count_strata(code)
        self.is_smooth_ = code.is_smooth
        self.is_maximal_ = code.is_maximal
        reached = self.rank_list_[:, 0]
        if bound.has_samples:
            rows = network.inputs(bound.samples.inputs)
            seen = input_ranks(network.weights, rows, tol=self.tol)
            # Sweeps may decide an ambiguous rank differently; some inputs reach no more than all.
            reached = np.minimum(reached, seen)
        self.differential_rank_ = differential_rank(code, reached.tolist())
        coefficient = linear_network_coefficient(code.widths, code.rank)
        self.learning_coefficient_ = float(coefficient.value)
        self.multiplicity_ = coefficient.multiplicity
        lower, upper = coefficient_bounds(code)
        self.learning_coefficient_bounds_ = (float(lower), float(upper))
        self._tolerance_path: pd.DataFrame | None = None

    def _chosen_layer(self, depth: int) -> int:
        layer = depth - 1 if self.layer is None else self.layer
        if isinstance(layer, (bool, np.bool_)) or not isinstance(layer, (int, np.integer)):
            raise SkgeoError(
                f"Got layer={layer!r}; expected an integer from 0 to {depth}, or None."
            )
        if not 0 <= layer <= depth:
            raise SkgeoError(
                f"Got layer={layer}; expected one of the layers 0 (input) to {depth} (output)."
            )
        return int(layer)

    @property
    def tolerance_path_(self) -> pd.DataFrame:
        """Strata near the network over a range of tolerances, one row per set of decisions."""
        check_is_fitted(self, "flow_bases_")
        if self._tolerance_path is None:
            steps = tolerance_path(self._network.weights)
            self._tolerance_path = pd.DataFrame([_path_row(step) for step in steps])
        return self._tolerance_path

    def _features(self, network: BoundNetwork) -> np.ndarray:
        if not network.has_samples:
            raise SkgeoError(
                "The method transform gives the activations on X, but X is None. Pass X."
            )
        activations = self._network.inputs(network.samples.inputs)
        through = [weight.T for weight in as_chain(self._network.weights)[: self.layer_]]
        for matrix in (*through, self.flow_bases_.dual_bases[self.layer_]):
            activations = activations @ matrix
        return activations

    def _feature_names(self) -> list[str]:
        return [
            f"fiber_bar_{birth}_{death}_{copy}"
            for birth, death, copy in self.flow_bases_.columns[self.layer_]
        ]

    def _summary_names(self) -> list[str]:
        return [
            "fiber_product_rank",
            "fiber_stratum_dim",
            "fiber_dim",
            "fiber_codimension",
            "fiber_log10_n_strata",
            "fiber_is_smooth",
            "fiber_is_maximal",
            "fiber_differential_rank",
            "fiber_learning_coefficient",
            "fiber_multiplicity",
            "fiber_learning_coefficient_lower",
            "fiber_learning_coefficient_upper",
            "fiber_is_ambiguous",
            "fiber_n_parameters",
        ]

    def summary(self) -> dict[str, float]:
        """Fourteen numbers on the network and its fiber, the features of the unbound reading.

        Returns
        -------
        dict of str to float
            ``fiber_product_rank`` (rank of W), ``fiber_stratum_dim``, ``fiber_dim``,
            ``fiber_codimension``, ``fiber_log10_n_strata`` (NaN if counting takes too long),
            ``fiber_is_smooth``, ``fiber_is_maximal``, ``fiber_differential_rank``,
            ``fiber_learning_coefficient``, ``fiber_multiplicity``, the bounds at the network
            ``fiber_learning_coefficient_lower`` and ``_upper``, ``fiber_is_ambiguous``,
            ``fiber_n_parameters``. Truth values are 1 or 0.
        """
        self._check_measured()
        values = (
            self.barcode_.rank,
            self.stratum_dim_,
            self.fiber_dim_,
            self.codimension_,
            log10(self.n_strata_),
            self.is_smooth_,
            self.is_maximal_,
            self.differential_rank_,
            self.learning_coefficient_,
            self.multiplicity_,
            *self.learning_coefficient_bounds_,
            self.is_ambiguous_,
            self.n_parameters_,
        )
        return {
            name: float(value) for name, value in zip(self._summary_names(), values, strict=True)
        }

    def strata(self, max_strata: int | None = None) -> list[Barcode]:
        """All strata of the fiber.

        Parameters
        ----------
        max_strata : int, default=None
            Refuse a fiber with more than this; None for the constructor's.

        Returns
        -------
        list of Barcode

        Raises
        ------
        SkgeoError
            If there are more; the message gives their number.
        """
        self._check_measured()
        return strata(self.widths_, self.barcode_.rank, max_strata=self._most(max_strata))

    def hasse(self, max_strata: int | None = None) -> HasseDiagram:
        """Hasse diagram of the strata under closure.

        Parameters
        ----------
        max_strata : int, default=None
            Refuse a fiber with more than this; None for the constructor's.

        Returns
        -------
        HasseDiagram
            ``nodes``, ``dimensions``, ``edges`` (the covers, lower to upper), ``maximal``,
            ``index(barcode_)`` for the network's own stratum, and ``to_networkx()``.

        Raises
        ------
        SkgeoError
            If there are more; the message gives their number.
        """
        self._check_measured()
        return hasse_diagram(self.widths_, self.barcode_.rank, max_strata=self._most(max_strata))

    def _most(self, max_strata: int | None) -> int:
        return self.max_strata if max_strata is None else max_strata

    def up_moves(self) -> list[Move]:
        """Moves to larger strata of the fiber whose closure contains that of the network.

        Returns
        -------
        list of Move
            Empty exactly on a maximal stratum.
        """
        self._check_measured()
        return up_moves(self.barcode_)

    def move_up(
        self,
        move: Move | tuple[Bar, Bar],
        t: float = 1.0,
        *,
        layer: int | None = None,
        copies: tuple[int, int] = (0, 0),
    ) -> list[np.ndarray]:
        """Weights on a larger stratum that compute the same product.

        Parameters
        ----------
        move : Move, or pair of bars
            One of :meth:`up_moves`.
        t : float, default=1.0
            Step length. Every t other than 0 leads to the same stratum; a small one stays near the
            network.
        layer : int, default=None
            The l of the W_l that changes, one of ``move.layers``. None for the first of them.
        copies : (int, int), default=(0, 0)
            Which copies of the two bars to move.

        Returns
        -------
        list of ndarray
            One array per parameter of the module, in their order and shapes; without a bias these
            are the matrices W_1, ..., W_L.

        Raises
        ------
        SkgeoError
            If the network lacks the bars, the move leaves the fiber, the layer is not one of the
            move's, or t is 0 or not finite.
        """
        self._check_measured()
        step = move if isinstance(move, Move) else Move(*move)
        moved = move_up(self.flow_bases_, step, t, layer=layer, copies=copies)
        return self._network.split(moved)

    def tangent_basis(self, space: Space = "stratum") -> np.ndarray:
        """Basis of the tangent space at the network.

        Parameters
        ----------
        space : {"stratum", "orbit", "kernel"}, default="stratum"
            The space to be tangent to: the stratum, its orbit (same ranks, any product), or the
            kernel of the differential of the product.

        Returns
        -------
        ndarray of shape (n_basis, P)
            Rows of unit length, not orthogonal to each other, entries in the order of
            ``named_parameters()``.

        Raises
        ------
        SkgeoError
            If it would take more than 200 MB. :meth:`project_tangent` does not form a basis.
        """
        self._check_measured()
        return self._network.reorder(tangent_basis(self.flow_bases_, space))

    def normal_basis(
        self, *, factored: bool = False, space: Space = "stratum"
    ) -> np.ndarray | FactoredNormals:
        """Basis of the normal space at the network.

        Parameters
        ----------
        factored : bool, default=False
            Whether to return the rank-one factors of each normal in each layer instead of its
            entries.
        space : {"stratum", "orbit", "kernel"}, default="stratum"
            The space to be normal to, as in :meth:`tangent_basis`. For the kernel the rows span the
            row space of the differential.

        Returns
        -------
        ndarray of shape (n_basis, P), or FactoredNormals
            Normals of unit length. In the factors of W_1 the constant input is the last one.

        Raises
        ------
        SkgeoError
            If it would take more than 200 MB. :meth:`project_normal` does not form a basis.
        """
        self._check_measured()
        if factored:
            return factored_normals(self.flow_bases_, space)
        return self._network.reorder(normal_basis(self.flow_bases_, space))

    def project_tangent(self, dW: Any, space: Space = "stratum") -> Any:
        """Orthogonal projection of changes of the weights onto the tangent space.

        Parameters
        ----------
        dW : array-like of shape (P,) or (..., P), or list of arrays
            Vectors in the order of ``named_parameters()``, or one array per parameter, such as
            gradients.
        space : {"stratum", "orbit", "kernel"}, default="stratum"
            The space to be tangent to, as in :meth:`tangent_basis`.

        Returns
        -------
        ndarray of the shape of dW, or list of ndarray

        Raises
        ------
        SkgeoError
            If dW does not have the shapes of the parameters, or entries are not finite.

        Notes
        -----
        Least squares without a basis: O(sum d^3) per iteration, and about 50 iterations for well
        conditioned weights.
        """
        self._check_measured()
        return self._network.map_change(
            dW, lambda change: project_tangent(self.flow_bases_, change, space)
        )

    def project_normal(self, dW: Any, space: Space = "stratum") -> Any:
        """Orthogonal projection of changes of the weights onto the normal space.

        Parameters
        ----------
        dW : array-like of shape (P,) or (..., P), or list of arrays
            As in :meth:`project_tangent`.
        space : {"stratum", "orbit", "kernel"}, default="stratum"
            The space to be normal to, as in :meth:`normal_basis`.

        Returns
        -------
        ndarray of the shape of dW, or list of ndarray
        """
        self._check_measured()
        return self._network.map_change(
            dW, lambda change: project_normal(self.flow_bases_, change, space)
        )

    def distance_to_strata(self) -> pd.DataFrame:
        """Distances from the network to lower ranks, for each partial product of rank at least 1.

        Returns
        -------
        DataFrame
            Columns ``start``, ``stop`` (the product W_stop ... W_{start+1}), ``rank``, ``lower``,
            ``estimate`` and ``upper`` (Frobenius distance over all weights to the networks where
            that rank is smaller: lower bound, first-order estimate, upper bound), and ``layer``
            (a change of W_layer alone attains the upper bound).

        Notes
        -----
        About L^3 / 6 SVDs.
        """
        self._check_measured()
        columns = ["start", "stop", "rank", "lower", "estimate", "upper", "layer"]
        drops = rank_drops(self.flow_bases_)
        rows = [[getattr(drop, name) for name in columns] for drop in drops]
        return pd.DataFrame(rows, columns=columns)


def _count_strata(code: Barcode) -> int | float:
    try:
        return count_strata(code.widths, code.rank)
    except SkgeoError as error:  # widths and rank are valid: the count would take too long
        warn(f"{error} n_strata_ is NaN.")
        return nan


def _path_row(step: Staircase) -> dict[str, Any]:
    code = step.barcode
    return {
        "tol_low": step.largest_dropped,
        "tol_high": step.smallest_kept,
        "rank": code.rank,
        "stratum_dim": code.dimension,
        "fiber_dim": fiber_dimension(code.widths, code.rank),
        "distance": float(np.linalg.norm(step.dropped_norms)),
        "bars": code.bars,
    }
