"""Estimator of the effect of depth on lengths, volumes and directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from skgeo._depth import DEPTH_STATISTICS, depth_statistics
from skgeo.base import GeometryEstimator
from skgeo.chain._profile import ChainProfile, mean_row, measure_chain
from skgeo.chain._summaries import QUANTITIES
from skgeo.exceptions import collect_warnings, warn
from skgeo.models import ResolvedModel
from skgeo.network._bound import BoundNetwork

__all__ = ["JacobianChainProfiler"]


class JacobianChainProfiler(GeometryEstimator):
    r"""Stretching of lengths, volumes and directions by a chain of layers.

    .. math::
        J_l = \frac{\partial h_l}{\partial h_{l-1}} , \qquad
        A_l = J_l J_{l-1} \cdots J_1 , \qquad
        B_l = J_L \cdots J_{l+1} ,

    with :math:`h_l` one sample's representation after layer l, :math:`h_0` the input. The singular
    values :math:`s_1 \ge s_2 \ge \dots` of a Jacobian are the factors by which it stretches
    lengths in its principal directions. In a chain of near-isometries they are all near one value;
    in a chain that collapses directions their spread grows with depth.

    Bound to a model, ``fit(X)`` measures the chain on X, and ``transform(X)`` gives eight numbers
    per sample and layer. Without a model, ``transform(pairs)`` gives one row of features per
    (model, data) pair: the :meth:`summary` of the bound reading.

    Parameters
    ----------
    model : object, default=None
        Model to measure: an ``nn.Module``, a scikit-learn or skorch model or a Pipeline that ends
        in one (fitted in ``fit`` unless frozen), a ``Checkpoint`` or a ``WrappedModel``. None for
        the unbound reading.
    chain : {"layer", "input", "output"}, default="input"
        Which Jacobian of a layer: its own :math:`J_l`, with respect to the last cut before
        it; :math:`A_l`, of the layer with respect to the input; :math:`B_l`, of the output with
        respect to the layer. If inputs are indices, the first layer with floating outputs takes
        the place of the input.
    layers : list of str, default=None
        Layers to measure, or single calls of a layer that is called several times (``"relu#1"``).
        None takes the children of a ``Sequential``; of any other module the members of its
        longest ``ModuleList``, or else its direct children, that are cuts.
    n_singular_values : "auto", "all" or int, default="auto"
        Number of singular values to keep. "auto" computes all where every matrix on the way is
        small (one side of at most 256, and at most 2^19 entries), and the leading ten elsewhere.
        Where only leading values are
        computed, ``log_volume``, ``rank``, ``sigma_min``, ``condition`` and ``effective_rank`` are
        NaN, with a warning, and so are ``stable_rank`` and ``isometry_deviation`` for a Jacobian
        that is too large to be formed, unless the structure of the layer gives them (see Notes).
    tol : float or "auto", default="auto"
        A direction is lost where one link of the chain, restricted to what is left, has a squared
        singular value of at most `tol` times its largest. "auto" is what the arithmetic resolves.
        Ranks are decided link by link, never relative to the product: a chain that shrinks
        everything without losing a direction keeps its rank. With "auto", a direction of which
        only rounding may be left is tested by perturbing the links by a hundred units of rounding.
    strict : bool, default=False
        Whether to raise an error for layers that are not cuts when ``chain`` is "input" or
        "output", where a product over them is not the Jacobian of the network. Otherwise their
        values are NaN, with a warning.
    source : str, default=None
        Where X is a dict of several floating tensors, the name of the one that is the input of the
        chain.
    memory_budget : int or str, default=None
        Memory limit in bytes, or such as ``"4 GiB"``; by default 0.7 of the available memory.
    batch_size : int, default=None
        Samples per forward pass; by default as many as fit in 256 MiB. The result does not depend
        on it.
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
    profile_ : DataFrame
        One row per layer, in the order in which they run: ``layer``, ``dim``, ``is_cut`` (whether
        all of the computation passes through it), and the mean over samples of eight quantities,
        each followed by its standard error (``log_volume``, ``log_volume_se`` and so on; NaN for
        one sample). With r the number of singular values above zero; every formula uses the
        singular values, not their squares:

        - ``log_volume``: :math:`\sum_{i \le r} \log s_i`, in nats, which is half of
          :math:`\log \mathrm{pdet}(J^T J)`
        - ``rank``: r
        - ``sigma_max``, ``sigma_min``: the largest and the smallest of all, 0 below full rank
        - ``condition``: :math:`s_1/s_r`; for :math:`s_1/s_{\min}`, infinite below full rank, divide
          ``sigma_max`` by ``sigma_min``
        - ``effective_rank``: :math:`\exp H(s/\sum s)`, the exponential of their entropy
        - ``stable_rank``: :math:`\|J\|_F^2/s_1^2`
        - ``isometry_deviation``: :math:`\|J^T J/m_1 - I\|_F/\sqrt n` with
          :math:`m_1 = \|J\|_F^2/n` and n the columns of J; 0 for a scaled isometry

        The last four are NaN for a Jacobian that is zero. A layer whose matrices do not fit in
        memory has a row of NaN, and one warning names it and its size.
    singular_values_ : dict of str to ndarray of shape (n_samples, k)
        Singular values of each layer, descending.
    lyapunov_exponents_ : ndarray of shape (k,)
        Mean over samples of :math:`\log s_i / L`, descending, for the product of all L links
        between cuts: from the input to the last cut, or with ``chain="output"`` from the first to
        the output. They come from QR factorisations, iterated until they give singular values:
        these are the exponents of a finite chain, and do not depend on an initial basis. k is the
        narrowest width of the chain, or the number of values computed; ``-inf`` for directions that
        are lost; one NaN for ``chain="layer"`` where only leading values were computed.
    layer_names_ : list of str
        Names of the layers in `profile_`: without the one at which the chain starts and, with
        ``chain="output"``, without the output.
    model_ : ResolvedModel
        The module measured, and the fitted estimator around it where there is one.

    See Also
    --------
    skgeo.ProfileDisplay : Plot of the quantities against depth.
    skgeo.LayerQuotientEstimator : Directions of a layer on which the outputs depend, from the
        Jacobian to the outputs weighted by the Fisher metric.

    Notes
    -----
    A link of the chain takes as many backward passes as its smaller side has coordinates, and
    none where it is a linear layer, an elementwise activation or both. If all singular values are
    computed, it also takes a QR factorisation and a singular value decomposition of its smaller
    side. Products of links are never formed: each singular value, even the smallest, has a
    relative error of about eps times the largest condition number of a link, at any depth. For
    networks in float32, links are in float32 and all products in float64.

    Where only leading values are computed, a Jacobian of at most 2^22 entries is still formed, and
    leading values and moments come from its smaller Gram matrix. A larger one is used through its
    products with vectors, two for each of 45 to 90 steps of Golub-Kahan bidiagonalisation. Where a
    layer's own Jacobian is :math:`\mathrm{diag}(d) W` (``chain="layer"``, with ``layers`` naming
    the activations), moments come from :math:`W W^T`, the same for all samples, and so do
    ``rank`` and ``log_volume`` where W has full row rank.

    The log-volume is a sum over as many directions as the rank: compare it between layers of equal
    rank only.

    References
    ----------
    .. [1] J. Pennington, S. Schoenholz and S. Ganguli, "Resurrecting the sigmoid in deep learning
       through dynamical isometry", NeurIPS 2017, equation 2: the input-output Jacobian.
    .. [2] O. Roy and M. Vetterli, "The effective rank: a measure of effective dimensionality",
       EUSIPCO 2007, Definition 1.

    Examples
    --------
    Ten layers, each of which doubles one direction and halves another, preserve areas, while the
    condition number grows by a factor of four per layer:

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.chain import JacobianChainProfiler
    >>> net = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(10))).double()
    >>> with torch.no_grad():
    ...     for layer in net:
    ...         _ = layer.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
    >>> profiler = JacobianChainProfiler(net).fit(torch.ones(3, 2))
    >>> profiler.profile_[["layer", "rank", "sigma_max", "condition"]].tail(2).round(6)
      layer  rank  sigma_max  condition
    8     8   2.0      512.0   262144.0
    9     9   2.0     1024.0  1048576.0
    >>> (profiler.lyapunov_exponents_ / torch.tensor(2.0).log().item()).round(6).tolist()
    [1.0, -1.0]
    """

    profile_: pd.DataFrame
    singular_values_: dict[str, np.ndarray]
    lyapunov_exponents_: np.ndarray
    layer_names_: list[str]
    model_: ResolvedModel

    _parameters: ClassVar[str | None] = None

    def __init__(
        self,
        model: Any = None,
        *,
        chain: Literal["layer", "input", "output"] = "input",
        layers: Sequence[str] | None = None,
        n_singular_values: int | Literal["auto", "all"] = "auto",
        tol: float | Literal["auto"] = "auto",
        strict: bool = False,
        source: str | None = None,
        memory_budget: int | str | None = None,
        batch_size: int | None = None,
        device: str | None = None,
        memory: Any = None,
        on_error: Literal["raise", "nan"] = "raise",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.chain = chain
        self.layers = layers
        self.n_singular_values = n_singular_values
        self.tol = tol
        self.strict = strict
        self.source = source
        self.memory_budget = memory_budget
        self.batch_size = batch_size
        self.device = device
        self.memory = memory
        self.on_error = on_error
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _profile(self, network: BoundNetwork) -> ChainProfile:
        return measure_chain(
            network,
            self.layers,
            chain=self.chain,
            n_singular_values=self.n_singular_values,
            tol=self.tol,
            strict=self.strict,
            source=self.source,
        )

    def _measure(self, network: BoundNetwork) -> None:
        profile = self._profile(network)
        self.layer_names_ = [found.layer.name for found in profile.layers]
        self.profile_ = pd.DataFrame([mean_row(found) for found in profile.layers])
        self.singular_values_ = {
            found.layer.name: found.singular_values.numpy() for found in profile.layers
        }
        self.lyapunov_exponents_ = profile.lyapunov_exponents.mean(0).numpy()

    def _features(self, network: BoundNetwork) -> np.ndarray:
        # fit has already warned of undefined values.
        with collect_warnings():
            profile = self._profile(network)
        columns = [getattr(found, name) for found in profile.layers for name in QUANTITIES]
        return np.stack([column.numpy() for column in columns], axis=1)

    def _feature_names(self) -> list[str]:
        return [f"chain_{layer}_{name}" for layer in self.layer_names_ for name in QUANTITIES]

    def _summary_names(self) -> list[str]:
        return [
            f"chain_{name}_{statistic}" for name in QUANTITIES for statistic in DEPTH_STATISTICS
        ]

    def summary(self) -> dict[str, float]:
        """Profiles over the layers in 32 numbers, the features of the unbound reading.

        Returns
        -------
        dict of str to float
            ``chain_{quantity}_{statistic}`` with the quantities of `profile_` (means over samples)
            and the statistics ``first``, ``last`` and ``mean`` over the layers and ``slope``, that
            of a least squares line against relative depth, 0 at the first layer and 1 at the last.
            Layers without values because they are not cuts are left out. A slope is NaN over
            one layer; mean and slope are NaN for a quantity that is NaN at a layer.

        Warns
        -----
        GeometryWarning
            If fewer than two layers are left, so slopes are undefined.
        """
        self._check_measured()
        table = self.profile_ if self.chain == "layer" else self.profile_.query("is_cut")
        if len(table) < 2:
            warn(
                "Fewer than two layers were measured, so slopes over depth are undefined "
                "(NaN). Name more layers with layers=[...]."
            )
        values: list[float] = []
        for name in QUANTITIES:
            profile = table[name].to_numpy(dtype=np.float64)
            values += depth_statistics(profile)
        return {
            name: float(value) for name, value in zip(self._summary_names(), values, strict=True)
        }
