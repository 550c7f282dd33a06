"""Estimator of the Fisher metric on the representation at each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch

from skgeo._arguments import check_integer
from skgeo._depth import DEPTH_STATISTICS, depth_statistics
from skgeo.base import GeometryEstimator
from skgeo.exceptions import SkgeoError, warn
from skgeo.jacobian._layer import Layer
from skgeo.likelihood import Likelihood
from skgeo.linalg._threads import single_blas_thread
from skgeo.models import ResolvedModel
from skgeo.network._bound import BoundNetwork
from skgeo.quotient._coordinates import null_projection, quotient_fidelity
from skgeo.quotient._jumps import ends_of, segment_jumps
from skgeo.quotient._rows import LayerRows
from skgeo.quotient._spectra import LayerSpectrum, affordable_layers, measure_layers

__all__ = ["LayerQuotientEstimator"]

_PROFILES = ("rank", "common_rank", "nullity_share", "effective_rank")


class LayerQuotientEstimator(GeometryEstimator):
    r"""Directions of each layer's representation on which the outputs depend.

    .. math::
        G_l(h) = B_l^T F(z) B_l , \qquad B_l = \frac{\partial z}{\partial h_l} ,

    with F the Fisher metric of the output distribution in the natural outputs z, and :math:`h_l`
    one sample's representation after layer l. Along directions in the null space of :math:`G_l(h)`
    the output distribution does not change to first order. The *pointwise*
    rank is that of :math:`G_l` at a sample; the *common* rank that of its mean over samples, whose
    null space is the intersection of all pointwise ones.

    Bound to a model, ``fit(X)`` measures it on X and ``transform(X)`` gives the quotient
    coordinates at one layer: projections on the leading eigenvectors of the mean metric, as in a
    principal component analysis with effect on the outputs in place of variance.
    Without a model, ``transform(pairs)`` gives one row of features per (model, data) pair: the
    :meth:`summary` of the bound reading.

    Parameters
    ----------
    model : object, default=None
        Model to measure: an ``nn.Module``, a scikit-learn or skorch model or a Pipeline that ends
        in one (fitted in ``fit`` unless frozen), a ``Checkpoint`` or a ``WrappedModel``. None for
        the unbound reading.
    likelihood : str or Likelihood, default="auto"
        Distribution that the outputs parametrise: "categorical", "bernoulli", "gaussian",
        "gaussian_scale" or "poisson". "auto" asks the model, then the dtype of y; without either it
        assumes "gaussian" of unit variance and warns.
    layers : list of str, default=None
        Layers to measure, or single calls of a layer that is called several times (``"relu#1"``).
        None takes the children of a ``Sequential``; of any other module the members of its
        longest ``ModuleList``, or else its direct children, that are cuts.
    layer : str, default=None
        The measured layer whose coordinates ``transform`` gives. None for the last cut before the
        output. It does not affect the features of a pair.
    tol : float or "auto", default="auto"
        Tolerance relative to the largest eigenvalue: that of a sample's metric for pointwise ranks,
        that of the mean metric for the common rank. "auto" is what the arithmetic resolves.
    n_components : int, default=None
        Number of coordinates to keep; None for the common rank, 0 for none, in which case no
        eigenvectors are computed. It does not affect the features of a pair.
    memory_budget : int or str, default=None
        Memory limit in bytes, or such as ``"4 GiB"``; by default 0.7 of the available memory.
    batch_size : int, default=None
        Samples per forward pass; by default as many as have rows of 256 MiB. The result does not
        depend on it.
    device : str, default=None
        "cpu", "cuda" or "cuda:i"; by default where the module is.
    memory : str or joblib.Memory, default=None
        Caches the features of pairs under a fingerprint of weights and data.
    on_error : {"raise", "nan"}, default="raise"
        Whether a failing pair raises its error, or gives a row of NaN.
    n_jobs : int, default=None
        Number of pairs measured in parallel.
    verbose : int, default=0
        Above 0, shows progress and the time left, through the passes over the data of a ``fit``
        or through a table of pairs.

    Attributes
    ----------
    layers_ : DataFrame
        One row per layer, in the order in which they run: ``layer``, ``dim``, ``is_cut`` (whether
        all of the computation passes through it), ``rank_min``, ``rank_median`` and ``rank_max``
        of the pointwise ranks, ``common_rank``, ``nullity`` (``dim - rank_median``),
        ``common_nullity`` (``dim - common_rank``), ``effective_rank`` (exponential entropy of the
        mean metric's eigenvalues; NaN where the metric is zero), the tolerance ``tol`` and
        the spectral gap ``gap`` of the common rank, whether the common rank is ``sample_limited``
        (the number of rows of all samples, below ``dim``; ``gap`` is then NaN), and the smallest
        gap of a pointwise rank, ``pointwise_gap``. Ranks with a gap below 10 depend on the
        tolerance. A layer that does not fit in memory has NaN in all columns but the first three,
        with one warning that names it and its size, and no entry in the attributes below.
    eigenvalues_ : dict of str to ndarray of shape (n_samples, k)
        Eigenvalues of the pointwise metric of each layer, descending. k is the smaller of ``dim``
        and rank(F) times the number of positions of a sample.
    mean_eigenvalues_ : dict of str to ndarray of shape (k,)
        Eigenvalues of the mean metric of each layer, descending. k is the smaller of ``dim`` and
        ``n_samples`` times rank(F) times the number of positions of a sample.
    rank_path_ : DataFrame with columns ``layer``, ``tol`` and ``rank``
        Common rank against relative tolerance.
    layer_ : str
        The layer whose coordinates ``transform`` gives.
    components_ : ndarray of shape (n_components, dim)
        Leading eigenvectors of the mean metric at ``layer_``, orthonormal rows, the entry of
        largest modulus positive. Representations are flattened sample by sample.
    mean_ : ndarray of shape (dim,)
        Mean representation at ``layer_``.
    quotient_fidelity_ : float
        Mean Kullback-Leibler divergence, in nats, from the network's outputs to those with every
        other direction of ``layer_`` replaced by its mean; 0 if the outputs do not change. NaN with
        ``n_components=0``.
    likelihood_ : str
        Name of the output distribution that was used.
    model_ : ResolvedModel
        The module measured, and the fitted estimator around it where there is one.

    See Also
    --------
    skgeo.RankProfileDisplay : Plot of ranks and nullities over the layers.
    skgeo.FisherRankEstimator : The same metric pulled back to the parameters.

    Notes
    -----
    It takes rank(F) backward passes per sample for all layers together, an eigenproblem of that
    size for each sample and layer, and for each layer's mean metric ``min(dim, N rank(F))``
    squared times the other side.

    For a softmax over K classes a pointwise rank is at most K - 1, and at most the width of any
    later layer. It does not fall from one cut to the next. These bounds are properties of the
    network: more samples do not raise a pointwise rank. The common rank of N samples is at most
    the number of their rows, N rank(F) for each position, and grows with N until the samples are
    enough. Where it equals the number of rows and is less than ``dim``, it is a property of the
    sample, and a :class:`~skgeo.exceptions.RankAmbiguityWarning` says so. Where a layer is not a
    cut, such as one inside a residual branch, its quotient is a partial one, that of the
    contribution of the branch while everything around it is held fixed, and a warning is given.

    Spectra of trained networks often have no clear gap. A
    :class:`~skgeo.exceptions.NoGapWarning` says this once per process, and ``layers_`` for each
    layer.

    The metric describes small changes only. Null directions at one sample need not be null at a
    finite distance, unless the rest of the network is linear; ``quotient_fidelity_`` measures the
    effect of a finite change.

    References
    ----------
    .. [1] S. Amari and H. Nagaoka, "Methods of Information Geometry", AMS 2000, section 2.2: the
       Fisher metric as a Riemannian metric on a family of distributions, here pulled back.
    .. [2] O. Roy and M. Vetterli, "The effective rank: a measure of effective dimensionality",
       EUSIPCO 2007, Definition 1.

    Examples
    --------
    With three classes, the outputs depend on two directions of any layer at each sample. Before a
    linear head these are the same two for all samples:

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.quotient import LayerQuotientEstimator
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    >>> X = torch.randn(30, 4)
    >>> quotient = LayerQuotientEstimator(net, likelihood="categorical").fit(X)
    >>> quotient.layers_[["layer", "dim", "rank_median", "common_rank"]]
      layer  dim  rank_median  common_rank
    0     0    6          2.0            6
    1     1    6          2.0            2
    2     2    3          2.0            2
    >>> quotient.layer_, quotient.transform(X).shape, quotient.quotient_fidelity_ < 1e-12
    ('1', (30, 2), True)
    """

    layers_: pd.DataFrame
    eigenvalues_: dict[str, np.ndarray]
    mean_eigenvalues_: dict[str, np.ndarray]
    rank_path_: pd.DataFrame
    layer_: str
    components_: np.ndarray
    mean_: np.ndarray
    quotient_fidelity_: float
    likelihood_: str
    model_: ResolvedModel

    _parameters: ClassVar[str | None] = None
    _pair_parameters: ClassVar[Mapping[str, Any]] = {"n_components": 0, "layer": None}

    def __init__(
        self,
        model: Any = None,
        *,
        likelihood: str | Likelihood = "auto",
        layers: Sequence[str] | None = None,
        layer: str | None = None,
        tol: float | Literal["auto"] = "auto",
        n_components: int | None = None,
        memory_budget: int | str | None = None,
        batch_size: int | None = None,
        device: str | None = None,
        memory: Any = None,
        on_error: Literal["raise", "nan"] = "raise",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.likelihood = likelihood
        self.layers = layers
        self.layer = layer
        self.tol = tol
        self.n_components = n_components
        self.memory_budget = memory_budget
        self.batch_size = batch_size
        self.device = device
        self.memory = memory
        self.on_error = on_error
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _measure(self, network: BoundNetwork) -> None:
        wanted = self._n_components()
        rows = LayerRows(network, self.layers)
        if self.layer is not None and not isinstance(self.layer, str):
            raise SkgeoError(f"Got layer={self.layer!r}; expected the name of a layer, or None.")
        names = affordable_layers(rows, self.layer)
        self.layer_ = rows.default_layer(names) if self.layer is None else self.layer
        dim = rows.layers[self.layer_].dim
        spectra = measure_layers(
            rows, tol=self.tol, names=names, layer=self.layer_, n_directions=wanted
        )
        self._names = names
        self._likelihood = network.likelihood
        self.likelihood_ = network.likelihood.name
        found = {spectrum.layer.name: _row(spectrum) for spectrum in spectra}
        self.layers_ = pd.DataFrame(
            [found.get(layer.name) or _empty_row(layer) for layer in rows.layers.layers]
        )
        self.eigenvalues_ = {s.layer.name: s.eigenvalues.numpy() for s in spectra}
        self.mean_eigenvalues_ = {s.layer.name: s.mean_eigenvalues.numpy() for s in spectra}
        self.rank_path_ = pd.concat([_path(spectrum) for spectrum in spectra], ignore_index=True)
        (chosen,) = (s for s in spectra if s.layer.name == self.layer_)
        if wanted is not None and wanted > chosen.common.rank:
            warn(
                f"n_components={wanted} exceeds the common rank {chosen.common.rank} at layer "
                f"{self.layer_!r}: {chosen.common.rank} directions are kept."
            )
        self.components_ = np.empty((0, dim))
        self.mean_ = np.full(dim, np.nan)
        self.quotient_fidelity_ = float("nan")
        if chosen.directions is not None:
            center = rows.representations(self.layer_).mean(0).cpu()
            self.components_ = chosen.directions.numpy()
            self.mean_ = center.numpy()
            if rows.network.likelihood.has_kl:
                self.quotient_fidelity_ = quotient_fidelity(
                    rows, self.layer_, center, chosen.directions
                )

    def _n_components(self) -> int | None:
        asked = self.n_components
        if asked is None:
            return None
        return check_integer("n_components", asked, least=0, also="None")

    def _kept(self, request: str) -> np.ndarray:
        self._check_measured()
        if not len(self.components_):
            raise SkgeoError(
                f"{request} needs quotient coordinates, but none were kept: the common rank "
                f"at layer {self.layer_!r} is 0, or n_components=0 was passed."
            )
        return self.components_

    def _features(self, network: BoundNetwork) -> np.ndarray:
        components = self._kept("transform")
        rows = LayerRows(network, [self.layer_])
        representations = rows.representations(self.layer_).cpu().numpy()
        return np.asarray((representations - self.mean_) @ components.T)

    def _feature_names(self) -> list[str]:
        return [f"quotient_{index}" for index in range(len(self.components_))]

    def _summary_names(self) -> list[str]:
        return [
            f"quotient_{profile}_{statistic}"
            for profile in _PROFILES
            for statistic in DEPTH_STATISTICS
        ]

    def _facts(self) -> dict[str, str]:
        return {"likelihood": self.likelihood_}

    def _layer_numbers(self) -> dict[str, float]:
        layers = zip(self.layers_["layer"], self.layers_["common_nullity"], strict=True)
        return {f"quotient_common_nullity[{layer}]": float(value) for layer, value in layers}

    def summary(self) -> dict[str, float]:
        """Profiles over the layers in sixteen numbers, the features of the unbound reading.

        Returns
        -------
        dict of str to float
            ``quotient_{profile}_{statistic}`` with the profiles ``rank`` (median pointwise),
            ``common_rank``, ``nullity_share`` (``nullity / dim``) and ``effective_rank``, and the
            statistics ``first``, ``last`` and ``mean`` over the layers and ``slope``, that of a
            least squares line against relative depth, 0 at the first layer and 1 at the last. A
            slope is NaN over one layer; effective ranks are NaN where the metric is zero. Ranks
            without a clear gap, or that the samples limit, count as they are: ``layers_`` says
            which they are.

        Warns
        -----
        GeometryWarning
            If there is only one layer, so slopes are undefined.
        """
        self._check_measured()
        table = self.layers_
        profiles = {
            "rank": table["rank_median"],
            "common_rank": table["common_rank"],
            "nullity_share": table["nullity"] / table["dim"],
            "effective_rank": table["effective_rank"],
        }
        if len(table) == 1:
            warn(
                "One layer was measured, so slopes over depth are undefined (NaN). Name more "
                "layers with layers=[...]."
            )
        values: list[float] = []
        for name in _PROFILES:
            profile = profiles[name].to_numpy(dtype=np.float64)
            values += depth_statistics(profile)
        return {
            name: float(value) for name, value in zip(self._summary_names(), values, strict=True)
        }

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Representations with given quotient coordinates, and all other directions at their mean.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Coordinates, as :meth:`transform` gives them.

        Returns
        -------
        ndarray of shape (n_samples, dim)
            Representations at ``layer_``, flattened sample by sample.
        """
        components = self._kept("inverse_transform")
        Z = np.asarray(X, dtype=np.float64)
        if Z.ndim != 2 or Z.shape[1] != len(components):
            raise SkgeoError(
                f"X has shape {Z.shape}; expected (n_samples, {len(components)}), as transform "
                "gives."
            )
        return np.asarray(self.mean_ + Z @ components)

    def null_projector(self, layer: str, X: Any, v: Any = None) -> np.ndarray:
        """Orthogonal projection onto the null space of the metric at each sample.

        Parameters
        ----------
        layer : str
            Any of the measured layers.
        X : array, Tensor, DataFrame, dict, Dataset or DataLoader
            Samples.
        v : array-like of shape (dim,) or (n_samples, dim), optional
            Vectors to project, one for all samples or one per sample. By default the projectors
            themselves are formed.

        Returns
        -------
        ndarray of shape (n_samples, dim), or (n_samples, dim, dim) without v
            Projected vectors, or projectors.

        Raises
        ------
        SkgeoError
            If the layer was not measured, or the projectors do not fit in memory.
        """
        self._check_measured()
        if layer not in self._names:
            raise SkgeoError(
                f"No layer {layer!r} was measured; there are: {', '.join(self._names)}. Name it in "
                "layers=[...] and fit again."
            )
        with single_blas_thread():
            rows = LayerRows(self._fitted_network(X), [layer])
            vectors = None if v is None else torch.as_tensor(np.asarray(v, dtype=np.float64))
            return null_projection(rows, layer, vectors, tol=self.tol).numpy()

    def rank_jumps(self, x0: Any, x1: Any) -> pd.DataFrame:
        """Positions on the segment between two inputs at which a pattern or a rank changes.

        Parameters
        ----------
        x0, x1 : array-like, Tensor or dict
            One sample each, without an axis of samples, as ``X[0]`` is. For a Pipeline the segment
            is straight after the preprocessing.

        Returns
        -------
        DataFrame
            One row per change, in the order of positions: ``t`` in [0, 1], ``layer``, ``what``
            ("pattern" or "rank"), ``before`` and ``after``: ranks, or numbers of active units.

        See Also
        --------
        skgeo.quotient.rank_jumps : The same for any model, without an estimator.
        """
        self._check_measured()
        with single_blas_thread():
            rows = LayerRows(self._fitted_network(ends_of(x0, x1)), self._names)
            jumps = segment_jumps(rows, tol=self.tol)
        columns = ["t", "layer", "what", "before", "after"]
        return pd.DataFrame([vars(jump) for jump in jumps], columns=columns)


def _row(spectrum: LayerSpectrum) -> dict[str, Any]:
    layer, common = spectrum.layer, spectrum.common
    return {
        "layer": layer.name,
        "dim": layer.dim,
        "is_cut": layer.is_cut,
        "rank_min": int(spectrum.ranks.min()),
        "rank_median": spectrum.rank_median,
        "rank_max": int(spectrum.ranks.max()),
        "common_rank": common.rank,
        "nullity": spectrum.nullity,
        "common_nullity": layer.dim - common.rank,
        "effective_rank": spectrum.effective_rank,
        "tol": common.tol,
        "gap": common.gap,
        "sample_limited": common.sample_limited,
        "pointwise_gap": spectrum.pointwise_gap,
    }


def _empty_row(layer: Layer) -> dict[str, Any]:
    """Row of a layer that was not measured; what is missing becomes NaN."""
    return {"layer": layer.name, "dim": layer.dim, "is_cut": layer.is_cut}


def _path(spectrum: LayerSpectrum) -> pd.DataFrame:
    common = spectrum.common
    return pd.DataFrame(
        {"layer": spectrum.layer.name, "tol": common.path_tol, "rank": common.path_rank}
    )
