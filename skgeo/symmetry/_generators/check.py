"""Check of candidates against the Jacobian on the data, and on random inputs."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from skgeo.data import Inputs
from skgeo.exceptions import SkgeoError
from skgeo.network._batch import map_inputs
from skgeo.network._positions import without_mask
from skgeo.symmetry._network import SymmetryNetwork

_POWER_STEPS = 10
# Random inputs on which what is said to be flat everywhere is probed.
_PROBES = 8


def relative_changes(
    network: SymmetryNetwork, matrix: sparse.csc_array, weighted: np.ndarray
) -> np.ndarray:
    r"""Ratio :math:`\|J v\| / (\|J\| \|v\|)` for each column v: (m,).

    For `weighted` columns :math:`R^T J` replaces J. The norm of J is replaced by a lower bound from
    power iteration, so the ratios are upper bounds. Either the rows of J are computed, for K
    backward passes, or its products with the m columns, whichever is cheaper.
    """
    norm = _spectral_norm(network)  # also where no column is checked: the derivatives must exist
    if matrix.shape[1] == 0:
        return np.zeros(0)
    few = 2 * network.bound.n_positions * network.bound.n_outputs < matrix.shape[1]
    squares = _by_rows(network, matrix, weighted) if few else _by_columns(network, matrix, weighted)
    sizes = np.sqrt(np.asarray((matrix**2).sum(axis=0)).ravel())
    changes = np.sqrt(squares)
    if norm == 0.0:
        return np.zeros(matrix.shape[1])
    relative: np.ndarray = changes / (norm * sizes)
    return relative


def changes_at_random(
    network: SymmetryNetwork, matrix: sparse.csc_array, weighted: np.ndarray
) -> np.ndarray:
    """The same ratios on random inputs; infinite where the network has no outputs there."""
    try:
        some, _ = without_mask(network.bound.spread(_PROBES))
        probe = SymmetryNetwork(network.bound.at(_drawn_like(some)))
        return relative_changes(probe, matrix, weighted)
    except SkgeoError:  # such as outputs that are not finite
        return np.full(matrix.shape[1], np.inf)


def _drawn_like(inputs: Inputs) -> Inputs:
    """Normal numbers of the size of the data; of indices and masks, those of other samples."""
    generator = torch.Generator().manual_seed(0)

    def drawn(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            n = tensor.shape[0]
            order = torch.rand(tensor.shape, generator=generator).argsort(0)
            return tensor.cpu().gather(0, order) if n > 1 else tensor
        size = tensor.abs().amax().cpu().double().clamp(min=1.0)
        return (size * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)).to(
            tensor.dtype
        )

    return map_inputs(drawn, inputs)


def _by_rows(
    network: SymmetryNetwork, matrix: sparse.csc_array, weighted: np.ndarray
) -> np.ndarray:
    fisher = network.fisher
    squares = np.zeros(matrix.shape[1])
    transposed = sparse.csr_array(matrix.T)
    for samples in fisher.batches(fisher.row_bytes):
        found = fisher.gradients(samples)
        outputs = network.bound.sized(found.outputs).double()
        rows = found.rows().double().reshape(*outputs.shape, -1)
        plain = transposed[~weighted] @ rows.reshape(-1, rows.shape[-1]).cpu().numpy().T
        squares[~weighted] += (plain**2).sum(1)
        if weighted.any():
            rows = fisher.weigh(outputs, rows)
            shifted = transposed[weighted] @ rows.reshape(-1, rows.shape[-1]).cpu().numpy().T
            squares[weighted] += (shifted**2).sum(1)
    return squares


def _by_columns(
    network: SymmetryNetwork, matrix: sparse.csc_array, weighted: np.ndarray
) -> np.ndarray:
    squares = np.zeros(matrix.shape[1])
    for operator, outputs in network.fisher.operators():
        for place in range(matrix.shape[1]):
            vector = torch.from_numpy(matrix[:, [place]].toarray().ravel())
            change = operator.push(vector.to(outputs.device)).reshape(*outputs.shape, 1)
            if weighted[place]:
                change = network.fisher.weigh(outputs, change)
            squares[place] += float(change.square().sum())
    return squares


def _spectral_norm(network: SymmetryNetwork) -> float:
    """Lower bound of the largest singular value of J, on the first batch."""
    operator, _ = next(network.fisher.operators())
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(network.n_parameters, generator=generator, dtype=torch.float64)
    vector = vector.to(operator.outputs.device) / torch.linalg.vector_norm(vector)
    norm = 0.0
    for _ in range(_POWER_STEPS):
        image = operator.push(vector)
        norm = max(norm, float(torch.linalg.vector_norm(image)))
        back = operator.pull(image)
        length = float(torch.linalg.vector_norm(back))
        if length == 0.0:
            break
        vector = back / length
    return norm
