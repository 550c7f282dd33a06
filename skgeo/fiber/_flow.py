"""Flow bases: coordinates in which every weight matrix is a matrix of zeros and ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from skgeo._cached import cached_property
from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.fiber._barcode import Bar, Barcode, BarCopy
from skgeo.fiber._chain import as_chain
from skgeo.fiber._staircase import rank_tolerance, staircase


@dataclass(frozen=True, repr=False)
class FlowBases(Result):
    r"""Bases of all layers in which the network is a direct sum of bars.

    The columns of :math:`J_l` are labelled by the copies of the bars that contain layer l, and
    :math:`W_l J_{l-1} = J_l E_l`, where the 0/1 matrix :math:`E_l` sends the column of a bar at
    layer l - 1 to its column at layer l, or to zero where the bar ends. With the dual bases
    :math:`D_l = J_l^{-T}` the columns of J flow forward, :math:`v_l = W_l v_{l-1}`, and those of D
    backward, :math:`u_{l-1} = W_l^T u_l`.

    Attributes
    ----------
    barcode : Barcode
    weights : tuple of ndarray
        The matrices that have these bars exactly: the given ones minus what was dropped.
    bases : tuple of ndarray, shapes (d_l, d_l)
        J_0, ..., J_L.
    dual_bases : tuple of ndarray, shapes (d_l, d_l)
        D_0, ..., D_L.
    tol : float
        Relative tolerance of the ranks.
    dropped_norms : tuple of float
        Frobenius norm of the change of each W_l.
    """

    barcode: Barcode
    weights: tuple[np.ndarray, ...]
    bases: tuple[np.ndarray, ...]
    dual_bases: tuple[np.ndarray, ...]
    tol: float
    dropped_norms: tuple[float, ...]

    def _line(self) -> str:
        return f"{self.barcode._in_short()}, tol {self.tol:.1e}"

    @cached_property
    def columns(self) -> tuple[tuple[BarCopy, ...], ...]:
        """For each layer, the bar copies (birth, death, number) of the columns of its bases."""
        copies = self.barcode.copies()
        return tuple(
            tuple(copy for copy in copies if copy[0] <= layer <= copy[1])
            for layer in range(self.barcode.depth + 1)
        )

    def slice(self, layer: int, bar: Bar) -> slice:
        """Columns of a layer's basis that belong to the copies of one bar.

        Parameters
        ----------
        layer : int
            From 0 to L.
        bar : (birth, death)

        Returns
        -------
        slice
            Into the columns of ``bases[layer]`` and ``dual_bases[layer]``.

        Raises
        ------
        SkgeoError
            If the bar is not there at that layer.
        """
        here = [k for k, copy in enumerate(self.columns[layer]) if copy[:2] == tuple(bar)]
        if not here:
            raise SkgeoError(
                f"Layer {layer} has no bar {list(bar)}; it has "
                f"{sorted({copy[:2] for copy in self.columns[layer]})}."
            )
        return slice(here[0], here[-1] + 1)

    def subspaces(self, layer: int) -> dict[Bar, tuple[np.ndarray, np.ndarray]]:
        """Decomposition of a layer's space by bars.

        Parameters
        ----------
        layer : int
            From 0 to L.

        Returns
        -------
        dict of (birth, death) to (columns, dual columns), each of shape (d_l, multiplicity)
            The columns span the subspace of the bar. For an activation h, ``dual.T @ h`` are its
            coordinates with respect to ``columns``.
        """
        found = {}
        for birth, death, _ in self.barcode.bars:
            if birth <= layer <= death:
                part = self.slice(layer, (birth, death))
                found[birth, death] = (
                    self.bases[layer][:, part],
                    self.dual_bases[layer][:, part],
                )
        return found


def flow_bases(weights: Sequence[object], *, tol: float | Literal["auto"] = "auto") -> FlowBases:
    """Flow bases of a linear network at a point.

    Parameters
    ----------
    weights : sequence of arrays or tensors
        W_1, ..., W_L.
    tol : float or "auto", default="auto"
        Relative tolerance of the ranks, see :func:`~skgeo.fiber.rank_tolerance`.

    Returns
    -------
    FlowBases

    Raises
    ------
    SkgeoError
        If the weights do not form a linear network.

    Notes
    -----
    The cost is O(sum d^3). Flow bases are not unique: any automorphism of the bars gives others.
    Each bar copy is scaled such that the norms of its columns have geometric mean 1 over the
    layers. Small singular values that were kept make the bases ill conditioned.

    References
    ----------
    Shewchuk and Bhattacharya, arXiv:2404.14855, where this is the fundamental theorem of linear
    neural networks.

    Examples
    --------
    >>> flow = flow_bases([[[2.0, 0.0]], [[1.0], [3.0]]])
    >>> flow.barcode.bars
    ((0, 0, 1), (0, 2, 1), (2, 2, 1))
    >>> bool(np.allclose(flow.weights[1] @ flow.bases[1][:, 0], flow.bases[2][:, 0]))
    True
    """
    chain = as_chain(weights)
    stairs = staircase(chain, tol=rank_tolerance(weights, tol), bases=True)
    assert stairs.bases is not None
    depth, code = len(chain), stairs.barcode
    number = {copy: k for k, copy in enumerate(code.copies())}
    frames = [stairs.bases[depth]]
    labels = [
        [
            number[birth, depth, copy]
            for birth, size in enumerate(stairs.births[depth])
            for copy in range(size)
        ]
    ]
    exact = []
    for layer in range(depth, 0, -1):
        before, after = stairs.bases[layer - 1], stairs.bases[layer]
        alive, kept = stairs.births[layer - 1], stairs.births[layer][:-1]
        block = _staircase_block(after.T @ chain[layer - 1] @ before, alive, kept)
        n_kept = sum(kept)
        exact.append(after[:, :n_kept] @ block @ before.T)
        survives = np.concatenate([np.arange(a) < k for a, k in zip(alive, kept, strict=True)])
        frame = np.empty_like(before)
        label = np.empty(len(survives), dtype=np.int64)
        onto = (after.T @ frames[-1])[:n_kept, :n_kept]
        through = np.linalg.solve(block[:, survives], np.hstack([onto, block[:, ~survives]]))
        frame[:, survives] = before[:, survives] @ through[:, :n_kept]
        frame[:, ~survives] = before[:, ~survives] - before[:, survives] @ through[:, n_kept:]
        label[survives] = labels[-1][:n_kept]
        label[~survives] = [
            number[birth, layer - 1, copy]
            for birth, (a, k) in enumerate(zip(alive, kept, strict=True))
            for copy in range(a - k)
        ]
        frames.append(frame)
        labels.append(label.tolist())
    bases = _balanced(frames[::-1], labels[::-1], len(number))
    duals = tuple(np.linalg.inv(basis).T for basis in bases)
    return FlowBases(code, tuple(exact[::-1]), bases, duals, stairs.tol, stairs.dropped_norms)


def _staircase_block(matrix: np.ndarray, alive: Sequence[int], kept: Sequence[int]) -> np.ndarray:
    """Rows of the surviving directions of W_l, with exact zeros below the staircase."""
    block = matrix[: sum(kept)].copy()
    column = row = 0
    for size, keep in zip(alive, kept, strict=True):
        block[row + keep :, column : column + keep] = 0.0
        block[row:, column + keep : column + size] = 0.0
        column, row = column + size, row + keep
    return block


def _balanced(
    frames: Sequence[np.ndarray], labels: Sequence[Sequence[int]], n_copies: int
) -> tuple[np.ndarray, ...]:
    """Columns in the order of the bar copies, scaled copy by copy."""
    logs, lengths = np.zeros(n_copies), np.zeros(n_copies)
    for frame, label in zip(frames, labels, strict=True):
        logs[list(label)] += np.log(np.hypot.reduce(frame, axis=0))
        lengths[list(label)] += 1
    scales = np.exp(-logs / lengths)
    return tuple(
        (frame * scales[list(label)])[:, np.argsort(label)]
        for frame, label in zip(frames, labels, strict=True)
    )


def representative(barcode: Barcode) -> list[np.ndarray]:
    """The simplest network with given bars: matrices of zeros and ones.

    Parameters
    ----------
    barcode : Barcode

    Returns
    -------
    list of ndarray of int64, shapes (d_l, d_{l-1})
        E_1, ..., E_L. Each bar copy is one coordinate of every layer of the bar, passed on
        unchanged.

    Notes
    -----
    All networks with these bars are :math:`G_l E_l G_{l-1}^{-1}` with invertible G_l.

    Examples
    --------
    >>> representative(Barcode(2, [(0, 1, 1), (2, 2, 1)]))
    [array([[1]]), array([[0]])]
    """
    copies = barcode.copies()
    layers = [
        {copy: k for k, copy in enumerate(c for c in copies if c[0] <= layer <= c[1])}
        for layer in range(barcode.depth + 1)
    ]
    matrices = []
    for before, after in itertools.pairwise(layers):
        matrix = np.zeros((len(after), len(before)), dtype=np.int64)
        for copy, column in before.items():
            if copy in after:
                matrix[after[copy], column] = 1
        matrices.append(matrix)
    return matrices
