"""Deformation tensors of a network: how it stretches lengths, and in which directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skgeo._results import Result
from skgeo.chain._layer_map import LayerMap
from skgeo.linalg._memory import require_memory
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind


@dataclass(frozen=True, repr=False)
class CauchyGreen(Result):
    r"""Deformation at each sample, in the factors of :math:`J = U \operatorname{diag}(s) V^T`.

    Attributes
    ----------
    layer : str
        Name of the layer, or ``"output"``.
    stretches : ndarray of shape (n_samples, r)
        Principal stretches, the singular values s of J, descending; r is the smaller of the two
        dimensions.
    source_directions : ndarray of shape (n_samples, r, n_0)
        Rows of :math:`V^T`: principal directions at the source.
    layer_directions : ndarray of shape (n_samples, r, n_l)
        Rows of :math:`U^T`: their images at the layer, normalised.
    rank : ndarray of int, shape (n_samples,)
        Number of stretches above rounding error.
    """

    layer: str
    stretches: np.ndarray
    source_directions: np.ndarray
    layer_directions: np.ndarray
    rank: np.ndarray

    def _line(self) -> str:
        low, high = self.rank.min(), self.rank.max()
        rank = f"rank {low}" if low == high else f"ranks {low} to {high}"
        n_samples, r = self.stretches.shape
        return f"{self.layer!r}, {rank} of {r}, {n_samples} samples"

    @property
    def right(self) -> np.ndarray:
        """Right Cauchy-Green tensor ``C = J^T J`` at the source, (n_samples, n_0, n_0)."""
        return _tensor(self.stretches**2, self.source_directions)

    @property
    def left(self) -> np.ndarray:
        """Left Cauchy-Green tensor ``b = J J^T`` at the layer, (n_samples, n_l, n_l)."""
        return _tensor(self.stretches**2, self.layer_directions)

    @property
    def strains(self) -> np.ndarray:
        """Principal Hencky strains ``log s``, (n_samples, r); minus infinity beyond the rank."""
        with np.errstate(divide="ignore"):
            return np.where(self._alive(), np.log(self.stretches), -np.inf)

    @property
    def hencky(self) -> np.ndarray:
        """Hencky strain ``1/2 log C``, (n_samples, n_0, n_0).

        A singular C has no logarithm: this is the logarithm on its row space, and zero on its null
        space.
        """
        return _tensor(self._finite_strains(), self.source_directions)

    @property
    def left_hencky(self) -> np.ndarray:
        """Hencky strain ``1/2 log b`` at the layer, (n_samples, n_l, n_l); see `hencky`."""
        return _tensor(self._finite_strains(), self.layer_directions)

    def _alive(self) -> np.ndarray:
        return np.arange(self.stretches.shape[1]) < self.rank[:, None]

    def _finite_strains(self) -> np.ndarray:
        return np.where(self._alive(), self.strains, 0.0)


def cauchy_green(
    model: Any,
    X: Any,
    layer: str | None = None,
    *,
    source: str | None = None,
    device: str | torch.device | None = None,
) -> CauchyGreen:
    r"""Deformation tensors of the map from the input, or a cut, to a layer.

    With J the Jacobian at a sample, the right Cauchy-Green tensor :math:`C = J^T J` is the metric
    pulled back to the source, :math:`\|J v\|^2 = v^T C v`; the left one, :math:`b = J J^T`, is a
    tensor at the layer. They share their non-zero eigenvalues, the squared principal stretches.
    The Hencky strain :math:`\frac12 \log C` adds where stretches multiply.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Not modified.
    X : array, Tensor, dict, Dataset or DataLoader
        N samples.
    layer : str, optional
        Layer at which the map ends; by default the outputs.
    source : str, optional
        Layer, a cut, at whose representation the map starts instead of the input; or, where X is
        a dict of several floating tensors, the name of that at which it starts.
    device : str or torch.device, optional
        Where to compute; by default where the module is.

    Returns
    -------
    CauchyGreen
        Principal stretches and directions of each sample; the tensors are properties.

    Raises
    ------
    SkgeoError
        If the Jacobians do not fit in memory or are not finite.

    Notes
    -----
    It takes ``n_l`` backward passes and a singular value decomposition per sample.
    ``n_samples * r * (n_0 + n_l)`` numbers are kept, and the tensors are formed on access.

    References
    ----------
    .. [1] C. Truesdell and W. Noll, "The Non-Linear Field Theories of Mechanics", Springer 1965.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.chain import cauchy_green
    >>> net = nn.Linear(2, 2, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = net.weight.copy_(torch.tensor([[0.0, 3.0], [2.0, 0.0]]))
    >>> found = cauchy_green(net, [[0.0, 0.0]])
    >>> found.stretches.tolist()
    [[3.0, 2.0]]
    >>> found.right.round(12).tolist(), found.left.round(12).tolist()
    ([[[4.0, 0.0], [0.0, 9.0]]], [[[9.0, 0.0], [0.0, 4.0]]])
    """
    with single_blas_thread():
        network = bind(model, X, parameters=None, device=device)
        data = LayerMap(network, layer=layer, source=source)
        side = min(data.n_source, data.n_layer)
        require_memory(
            8 * network.n_samples * side * (data.n_source + data.n_layer),
            f"principal directions of {network.n_samples} samples, {side} of "
            f"{data.n_source} + {data.n_layer} coordinates each",
            "take fewer samples, or a narrower layer.",
            budget=network.budget,
        )
        x, parts = data.start(), []
        for batch in data.batches(2 * side):
            segment, at = data.at(batch), x[batch.start : batch.stop]
            u, s, vt = torch.linalg.svd(data.jacobian(segment, at), full_matrices=False)
            parts.append((u.mT.cpu(), s.cpu(), vt.cpu()))
        left, s, right = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    rounding = max(data.n_source, data.n_layer) * torch.finfo(network.dtype).eps
    rank = ((s > rounding * s[:, :1]) & (s > 0)).sum(1)
    return CauchyGreen(data.name, s, right, left, rank)


def _tensor(values: np.ndarray, directions: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.einsum("ni,nia,nib->nab", values, directions, directions, optimize=True)
    return found
