"""Tangent and normal spaces of strata, orbits and the fiber, from the flow bases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.fiber._barcode import Bar, Barcode, extends
from skgeo.fiber._chain import as_parameters
from skgeo.fiber._flow import FlowBases
from skgeo.linalg._memory import format_bytes

Space = Literal["stratum", "orbit", "kernel"]
"""Tangent to the stratum, to the orbit (same ranks, any product), or in the kernel of dmu."""

# Entries of one basis: 200 MB in float64, what P = 5000 parameters take in full.
_MAX_ENTRIES = 25_000_000


@dataclass(frozen=True, repr=False)
class FactoredNormals(Result):
    """Normal vectors as rank-one matrices, one in each layer.

    Attributes
    ----------
    left : tuple of ndarray, shapes (n_normals, d_l)
        For l = 1, ..., L.
    right : tuple of ndarray, shapes (n_normals, d_{l-1})
        Normal k is the matrix ``outer(left[l-1][k], right[l-1][k])`` at W_l, which is zero
        outside the layers of its pair of bars.
    """

    left: tuple[np.ndarray, ...]
    right: tuple[np.ndarray, ...]

    def _line(self) -> str:
        return f"{len(self.left[0])} normals, {len(self.left)} layers"

    def dense(self) -> np.ndarray:
        """The normals as vectors.

        Returns
        -------
        ndarray, shape (n_normals, P)
            One normal per row, weights flattened layer by layer.
        """
        return as_parameters(
            [u[:, :, None] * v[:, None, :] for u, v in zip(self.left, self.right, strict=True)]
        )


def check_space(space: str) -> None:
    if space not in ("stratum", "orbit", "kernel"):
        raise SkgeoError(f"Got space={space!r}; expected 'stratum', 'orbit' or 'kernel'.")


def is_constrained(first: Bar, second: Bar, depth: int, space: Space) -> bool:
    (a, b), (c, e) = first, second
    in_orbit = space != "kernel" and extends(first, second)
    in_kernel = space != "orbit" and a == 0 and e == depth and c <= b + 1
    return in_orbit or in_kernel


def _pairs(barcode: Barcode) -> Iterator[tuple[Bar, Bar, int, range]]:
    """Ordered pairs of bars, the number of pairs of copies, and the l with W_l between them."""
    for a, b, m in barcode.bars:
        for c, e, n in barcode.bars:
            layers = range(max(a + 1, c, 1), min(b + 1, e, barcode.depth) + 1)
            if layers:
                yield (a, b), (c, e), m * n, layers


def normal_dimension(barcode: Barcode, space: Space) -> int:
    """Dimension of the normal space: the number of constrained pairs of bar copies."""
    return sum(
        count
        for first, second, count, _ in _pairs(barcode)
        if is_constrained(first, second, barcode.depth, space)
    )


def _refuse_large(entries: int, what: str) -> None:
    if entries > _MAX_ENTRIES:
        raise SkgeoError(
            f"{what} would take {format_bytes(8 * entries)}; the limit is "
            f"{format_bytes(8 * _MAX_ENTRIES)}. Project single vectors instead, with "
            "project_tangent or project_normal, which do not form a basis."
        )


def tangent_basis(flow: FlowBases, space: Space = "stratum") -> np.ndarray:
    r"""Basis of the tangent space at a point, from the flow bases.

    Write :math:`\Delta_l[J, I] = u_l(J)^T \, dW_l \, v_{l-1}(I)` for bar copies I = [a, b] and
    J = [c, e], both present where W_l leads from one to the other. The pair is *constrained* when

    - a < c <= b + 1 <= e, for the orbit,
    - a = 0, e = L and c <= b + 1, for the kernel of the differential of the product,

    and either one for the stratum; then the sum of :math:`\Delta_l[J, I]` over the layers must
    vanish. A pair without constraint gives one vector per layer, which changes one matrix. A
    constrained pair gives one vector per two consecutive layers, which changes two matrices.

    Parameters
    ----------
    flow : FlowBases
        Flow bases of the network.
    space : {"stratum", "orbit", "kernel"}, default="stratum"
        The space to be tangent to: the stratum, its orbit (same ranks, any product), or the kernel
        of the differential of the product.

    Returns
    -------
    ndarray, shape (dimension, P)
        Rows of unit length, weights flattened layer by layer and row by row. They are orthogonal to
        the normals, but not to each other.

    Raises
    ------
    SkgeoError
        If the basis would take more than 200 MB (P about 5000).

    See Also
    --------
    skgeo.fiber.project_tangent : Projection without a basis, for large networks.

    Examples
    --------
    >>> from skgeo.fiber import flow_bases
    >>> tangent_basis(flow_bases([[[1.0]], [[0.0]]]))
    array([[1., 0.]])
    """
    check_space(space)
    code = flow.barcode
    n_parameters = code.n_parameters
    dimension = n_parameters - normal_dimension(code, space)
    _refuse_large(
        dimension * n_parameters, f"A tangent basis of {dimension} vectors in R^{n_parameters}"
    )
    basis = np.zeros((dimension, n_parameters))
    offsets = np.cumsum([0] + [w.size for w in flow.weights])
    row = 0
    for first, second, count, layers in _pairs(code):
        constrained = is_constrained(first, second, code.depth, space)
        previous = None
        for layer in layers:
            step = _outer(
                flow.bases[layer][:, flow.slice(layer, second)],
                flow.dual_bases[layer - 1][:, flow.slice(layer - 1, first)],
            )
            here = slice(offsets[layer - 1], offsets[layer])
            if not constrained:
                basis[row : row + count, here] = step
                row += count
            else:
                if previous is not None:
                    basis[row : row + count, here] = step
                    basis[row : row + count, previous[1]] = -previous[0]
                    row += count
                previous = (step, here)
    assert row == dimension
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    return basis


def _outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Outer products of all columns of `left` and of `right`, flattened, as rows."""
    products = left.T[:, None, :, None] * right.T[None, :, None, :]
    flat: np.ndarray = products.reshape(left.shape[1] * right.shape[1], -1)
    return flat


def factored_normals(flow: FlowBases, space: Space = "stratum") -> FactoredNormals:
    r"""Basis of the normal space as rank-one factors.

    Each constrained pair of bar copies gives one normal (see :func:`~skgeo.fiber.tangent_basis`):
    the matrices :math:`u_l(J) v_{l-1}(I)^T` at the layers of the pair. Those of the kernel span
    the row space of the differential of the product. Those of the orbit span the orthogonal
    complement of the directions that changes of bases reach.

    Parameters
    ----------
    flow : FlowBases
        Flow bases of the network.
    space : {"stratum", "orbit", "kernel"}, default="stratum"
        The space to be normal to, as in :func:`~skgeo.fiber.normal_basis`.

    Returns
    -------
    FactoredNormals
        Each normal has unit length over all layers.

    Raises
    ------
    SkgeoError
        If the factors would take more than 200 MB.

    Examples
    --------
    The normal to the line w_2 = 0 of the fiber w_2 w_1 = 0:

    >>> from skgeo.fiber import flow_bases
    >>> factors = factored_normals(flow_bases([[[1.0]], [[0.0]]]))
    >>> factors
    FactoredNormals(1 normals, 2 layers)
    >>> factors.dense()
    array([[0., 1.]])
    """
    check_space(space)
    code = flow.barcode
    total = normal_dimension(code, space)
    sizes = code.widths
    _refuse_large(
        total * (2 * sum(sizes) - sizes[0] - sizes[-1]), f"The factors of {total} normals"
    )
    left = tuple(np.zeros((total, width)) for width in sizes[1:])
    right = tuple(np.zeros((total, width)) for width in sizes[:-1])
    squares = np.zeros(total)
    row = 0
    for first, second, count, layers in _pairs(code):
        if not is_constrained(first, second, code.depth, space):
            continue
        rows = slice(row, row + count)
        for layer in layers:
            u = flow.dual_bases[layer][:, flow.slice(layer, second)].T
            v = flow.bases[layer - 1][:, flow.slice(layer - 1, first)].T
            left[layer - 1][rows] = np.repeat(u, len(v), axis=0)
            right[layer - 1][rows] = np.tile(v, (len(u), 1))
            squares[rows] += np.outer((u * u).sum(axis=1), (v * v).sum(axis=1)).ravel()
        row += count
    assert row == total
    scale = 1.0 / np.sqrt(squares)[:, None]
    return FactoredNormals(tuple(u * scale for u in left), right)


def normal_basis(flow: FlowBases, space: Space = "stratum") -> np.ndarray:
    """Basis of the normal space at a point, from the flow bases.

    Parameters
    ----------
    flow : FlowBases
        Flow bases of the network.
    space : {"stratum", "orbit", "kernel"}, default="stratum"
        The space to be normal to: the stratum, its orbit (same ranks, any product), or the kernel
        of the differential of the product. For the kernel the rows span the row space of the
        differential.

    Returns
    -------
    ndarray, shape (codimension, P)
        Rows of unit length, each a matrix of rank at most one in every layer.

    Raises
    ------
    SkgeoError
        If the basis would take more than 200 MB (P about 5000).

    See Also
    --------
    skgeo.fiber.factored_normals : The same normals as factors.
    skgeo.fiber.project_normal : Projection without a basis, for large networks.

    Examples
    --------
    >>> from skgeo.fiber import flow_bases
    >>> normal_basis(flow_bases([[[1.0]], [[0.0]]]))
    array([[0., 1.]])
    """
    check_space(space)
    n_parameters = flow.barcode.n_parameters
    dimension = normal_dimension(flow.barcode, space)
    _refuse_large(
        dimension * n_parameters, f"A normal basis of {dimension} vectors in R^{n_parameters}"
    )
    return factored_normals(flow, space).dense()
