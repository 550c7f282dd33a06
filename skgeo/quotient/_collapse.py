r"""Neural collapse: how far the representations of a class have become one point.

Classes c have means :math:`\mu_c`, and :math:`\mu` is the mean of all samples. With

.. math:: \Sigma_W = \frac1N \sum_n (h_n - \mu_{c(n)})(h_n - \mu_{c(n)})^T , \qquad
          \Sigma_B = \frac1C \sum_c (\mu_c - \mu)(\mu_c - \mu)^T

the four measures of [1]_ are :math:`\mathrm{tr}(\Sigma_W \Sigma_B^+) / C`, the spread of the norms
and of the angles of the centred class means, the distance of the last linear layer from them, and
the share of samples for which the nearest class mean is not the class that the network predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from skgeo._depth import DEPTH_STATISTICS, depth_statistics
from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.jacobian._layer import Layer
from skgeo.likelihood import Likelihood
from skgeo.linalg._memory import require_memory
from skgeo.linalg._rank import resolution
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._agreement import agree
from skgeo.network._bound import BoundNetwork, bind
from skgeo.quotient._rows import LayerRows
from skgeo.quotient._spectra import Tolerance, measure_layers

_PROFILES = ("within_rank", "between_rank", "nc1", "nc2_norms", "nc2_angles", "nc4")
_OF_LAYERS = ("rank_median", "common_rank", *_PROFILES[:5], "nc3", "nc4")


@dataclass(frozen=True, repr=False)
class NeuralCollapse(Result):
    """Within- and between-class geometry of representations beside their quotient ranks.

    Attributes
    ----------
    layers : DataFrame
        One row per layer, in the order in which they run: ``layer``, ``dim``, ``rank_median`` and
        ``common_rank`` of the quotient, ``within_rank``, ``between_rank`` and the traces
        ``within_variance``, ``between_variance`` of the two covariances, and the measures
        ``nc1`` (0 at collapse), ``nc2_norms`` (0 if the centred class means have equal norms),
        ``nc2_angles`` (0 if they have the angles of a simplex), ``nc3`` (0 if the rows of the last
        linear layer are proportional to them; NaN at every layer but its input) and ``nc4`` (share
        of samples).
    n_classes : int
        Number of classes C.
    """

    layers: pd.DataFrame
    n_classes: int

    def _line(self) -> str:
        last = self.layers.iloc[-1]
        return (
            f"{self.n_classes} classes, {len(self.layers)} layers, nc1 {last['nc1']:.3g} at "
            f"{last['layer']!r}"
        )

    def summary(self) -> dict[str, float]:
        """Profiles over the layers, with keys that do not depend on the network.

        Returns
        -------
        dict of str to float
            ``collapse_{profile}_{statistic}`` with the profiles ``within_rank``, ``between_rank``,
            ``nc1``, ``nc2_norms``, ``nc2_angles`` and ``nc4``, and the statistics ``first``,
            ``last``, ``mean`` and ``slope`` over relative depth; and ``collapse_nc3``, NaN unless
            the network ends in a linear layer whose input was measured.
        """
        found: dict[str, float] = {}
        for name in _PROFILES:
            profile = self.layers[name].to_numpy(dtype=np.float64)
            for statistic, value in zip(DEPTH_STATISTICS, depth_statistics(profile), strict=True):
                found[f"collapse_{name}_{statistic}"] = value
        known = self.layers["nc3"].dropna()
        found["collapse_nc3"] = float(known.iloc[-1]) if len(known) else float("nan")
        return found

    def _layer_numbers(self) -> dict[str, float]:
        """Numbers of single layers by name, as those of an estimator in a tracked training run."""
        rows = self.layers.set_index("layer")
        return {
            f"collapse_{name}[{layer}]": float(value)
            for name in _OF_LAYERS
            for layer, value in rows[name].items()
        }


def neural_collapse(
    model: Any,
    X: Any,
    y: Any,
    *,
    likelihood: str | Likelihood = "auto",
    layers: Sequence[str] | None = None,
    tol: Tolerance = "auto",
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    memory_budget: int | str | None = None,
) -> NeuralCollapse:
    r"""Measures of neural collapse at each layer, beside the ranks of its quotient.

    .. math::
        \mathrm{NC1} = \tfrac1C \mathrm{tr}(\Sigma_W \Sigma_B^+), \quad
        \mathrm{NC2} = \frac{\mathrm{std}_c \|\bar\mu_c\|}{\mathrm{avg}_c \|\bar\mu_c\|},\;
        \mathrm{avg}_{c \ne d} \Bigl| \cos(\bar\mu_c, \bar\mu_d) + \tfrac{1}{C-1} \Bigr|, \quad
        \mathrm{NC3} = \Bigl\| \frac{W}{\|W\|} - \frac{\bar M}{\|\bar M\|} \Bigr\|^2, \quad
        \mathrm{NC4} = P\bigl(\arg\max_c z_c \ne \arg\min_c \|h - \mu_c\|\bigr)

    with the centred class means :math:`\bar\mu_c = \mu_c - \mu` as rows of :math:`\bar M`, W the
    weight of the last linear layer, and Frobenius norms.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        A classifier with one output per class, or one logit for two. Not modified.
    X : array, Tensor, dict, Dataset or DataLoader
        N samples.
    y : array-like of shape (N,)
        The class of each sample: numbers of the outputs, or, if every class of the model occurs,
        any labels, whose sorted order is that of the outputs.
    likelihood, layers, tol, batch_size, device
        As in :func:`~skgeo.quotient.layer_spectra`.
    memory_budget : int or str, optional
        Memory limit in bytes, or such as ``"4 GiB"``.

    Returns
    -------
    NeuralCollapse
        With the table ``layers``, and :meth:`~NeuralCollapse.summary`, one row of features.

    Raises
    ------
    SkgeoError
        If y is missing, is not one label per sample, has a single class, or does not fit the
        outputs.

    See Also
    --------
    skgeo.quotient.LayerQuotientEstimator : The quotient ranks in the same table.
    skgeo.track : Follows the measures through a training: ``track(run, neural_collapse)``.

    Notes
    -----
    The cost beyond that of ``layer_spectra`` is one singular value decomposition of the N
    representations of each layer, ``N dim min(N, dim)`` operations. The within- and between-class
    variances count the variance of representations, the quotient counts the directions on which
    outputs depend: a direction may have one and not the other. ``nc1`` is NaN where the class
    means are all equal, ``nc2_angles`` also where one of them is the mean of all samples.

    References
    ----------
    .. [1] V. Papyan, X. Y. Han and D. L. Donoho, "Prevalence of neural collapse during the
       terminal phase of deep learning training", PNAS 117 (2020), the measures of figures 2 to 7.

    Examples
    --------
    Two points for two classes have collapsed:

    >>> import torch
    >>> from skgeo.quotient import neural_collapse
    >>> X = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(2, 2, bias=False)).double()
    >>> _ = net[1].weight.data.copy_(3 * torch.eye(2))
    >>> found = neural_collapse(net, X, [0, 0, 1, 1])
    >>> found.layers[["layer", "within_rank", "between_rank", "nc1", "nc4"]]
      layer  within_rank  between_rank  nc1  nc4
    0     0            0             1  0.0  0.0
    1     1            0             1  0.0  0.0
    """
    if y is None:
        raise SkgeoError(
            "neural_collapse compares classes and got y=None: pass a label per sample."
        )
    with single_blas_thread():
        network = bind(
            model,
            X,
            y,
            likelihood=likelihood,
            parameters=None,
            batch_size=batch_size,
            device=device,
            memory_budget=memory_budget,
        )
        return measure_collapse(LayerRows(network, layers), tol)


def measure_collapse(rows: LayerRows, tol: Tolerance = "auto") -> NeuralCollapse:
    """The measures at the layers of a network on data with labels."""
    network = rows.network
    labels = _labels(network)
    outputs = network.outputs()[:, 0].double()
    predicted = outputs.argmax(-1) if network.n_outputs > 1 else (outputs[:, 0] > 0).long()
    spectra = measure_layers(rows, tol=tol)
    table = []
    for spectrum in spectra:
        layer = spectrum.layer
        require_memory(
            3 * 8 * network.n_samples * layer.dim,
            f"the representations of {network.n_samples} samples at layer {layer.name!r} "
            f"({layer.dim} coordinates) and their decomposition",
            "measure fewer samples, or name smaller layers with layers=[...].",
            network.device,
            network.budget,
        )
        h = rows.representations(layer.name)
        classes = _Classes(h, labels.to(h.device), network.first_run.arithmetic)
        table.append(
            {
                "layer": layer.name,
                "dim": layer.dim,
                "rank_median": spectrum.rank_median,
                "common_rank": spectrum.common.rank,
                **classes.moments(),
                **classes.means_geometry(),
                "nc3": _self_duality(rows, layer, h, classes, outputs),
                "nc4": classes.disagreement(predicted),
            }
        )
    return NeuralCollapse(pd.DataFrame(table), len(np.unique(labels.numpy())))


class _Classes:
    """Representations with their class means; class c is output c.

    h: (N, d), float64; labels: (N,).
    """

    def __init__(self, h: Tensor, labels: Tensor, arithmetic: torch.dtype) -> None:
        self.h = h
        self.present, numbers, counts = torch.unique(
            labels, return_inverse=True, return_counts=True
        )
        sums = h.new_zeros(len(counts), h.shape[1]).index_add_(0, numbers, h)
        self.means = sums / counts.unsqueeze(1)  # (C, d)
        self.centred = self.means - h.mean(0)
        self.within = h - self.means[numbers]
        # Representations have rounding relative to their own size, not to that of differences.
        size = float(torch.linalg.vector_norm(h)) ** 2
        self._rounding = resolution(len(h), h.shape[1], arithmetic, squared=False) * size

    def moments(self) -> dict[str, float]:
        """Ranks and traces of the two covariances, and the first measure."""
        n, c = len(self.h), len(self.means)
        _, values, directions = torch.linalg.svd(self.centred, full_matrices=False)
        # A mean of n/C samples has the rounding of one sample at most.
        kept = values.square() > self._rounding * c / n
        coordinates = (self.within @ directions[kept].T) / values[kept]
        spread = torch.linalg.svdvals(self.within).square()
        collapsed = bool(kept.any())
        return {
            "within_rank": int((spread > self._rounding).sum()),
            "between_rank": int(kept.sum()),
            "within_variance": float(spread.sum()) / n,
            "between_variance": float(values.square().sum()) / c,
            # Sigma_B = sum_k s_k^2 u_k u_k^T / C, so the factor C of its inverse cancels 1 / C.
            "nc1": float(coordinates.square().sum()) / n if collapsed else float("nan"),
        }

    def means_geometry(self) -> dict[str, float]:
        """Spread of the norms of the centred class means, and distance from a simplex's angles."""
        norms = torch.linalg.vector_norm(self.centred, dim=1)
        c = len(norms)
        if float(norms.square().max()) <= self._rounding * c / len(self.h):
            return {"nc2_norms": float("nan"), "nc2_angles": float("nan")}
        spread = float(norms.std(correction=0) / norms.mean())
        if float(norms.square().min()) <= self._rounding * c / len(self.h):
            return {"nc2_norms": spread, "nc2_angles": float("nan")}
        unit = self.centred / norms.unsqueeze(1)
        off = ~torch.eye(c, dtype=torch.bool, device=unit.device)
        angles = (unit @ unit.T)[off] + 1.0 / (c - 1)
        return {"nc2_norms": spread, "nc2_angles": float(angles.abs().mean())}

    def disagreement(self, predicted: Tensor) -> float:
        """Share of samples whose nearest class mean is not the predicted class."""
        nearest = self.present[torch.cdist(self.h, self.means).argmin(1)]
        return float((nearest != predicted.to(nearest.device)).double().mean())


def _self_duality(
    rows: LayerRows, layer: Layer, h: Tensor, classes: _Classes, outputs: Tensor
) -> float:
    """Squared distance of the last linear layer from the centred class means, both of norm 1.

    NaN unless the outputs are a linear layer's of this representation, and every class occurs.
    """
    # h (N, d), outputs (N, K)
    heads = [
        found for found in rows.layers.replica.module.modules() if isinstance(found, nn.Linear)
    ]
    k = outputs.shape[1]
    if len(classes.present) != k:
        return float("nan")
    for head in reversed(heads):
        weight = head.weight.detach().double()
        if tuple(weight.shape) != (k, layer.dim):
            continue
        given = h @ weight.T + (0.0 if head.bias is None else head.bias.detach().double())
        scale = float(torch.linalg.vector_norm(h) * torch.linalg.vector_norm(weight))
        if not agree(given, outputs, rows.network.first_run.arithmetic, scale):
            continue
        size, norm = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(classes.centred)
        if float(size) == 0.0 or float(norm) == 0.0:
            return float("nan")
        return float((weight / size - classes.centred / norm).square().sum())
    return float("nan")


def _labels(network: BoundNetwork) -> Tensor:
    """Number of the output of each sample's class."""
    # -> (N,)
    targets = network.samples.targets
    found = targets.detach().cpu().numpy() if isinstance(targets, Tensor) else np.asarray(targets)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or network.n_positions != 1:
        raise SkgeoError(
            f"neural_collapse needs one label and one output distribution per sample; y has shape "
            f"{found.shape} and the outputs {network.n_positions} position(s)."
        )
    names, numbers = np.unique(found, return_inverse=True)
    k = max(network.n_outputs, 2)
    if len(names) < 2:
        raise SkgeoError(f"y has the single class {names[0]!r}; classes are compared, so pass two.")
    if len(names) == k:
        return torch.from_numpy(numbers)
    whole = found.dtype.kind in "iu" and 0 <= found.min() and found.max() < k
    if not whole:
        raise SkgeoError(
            f"y has {len(names)} classes and the model {network.n_outputs} output(s), so which "
            f"output belongs to which class is not known. Pass numbers from 0 to {k - 1}."
        )
    return torch.from_numpy(found.astype(np.int64))
