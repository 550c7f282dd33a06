"""Projection onto tangent and normal spaces without a basis, for large networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.linalg import qr, solve_triangular
from scipy.sparse.linalg import LinearOperator, lsqr

from skgeo._arguments import check_integer
from skgeo.exceptions import SkgeoError, warn
from skgeo.fiber._chain import as_chain, as_parameters, from_parameters
from skgeo.fiber._flow import FlowBases
from skgeo.fiber._tangent import Space, check_space, is_constrained

# Tolerance passed to LSQR, and the residual above which it is reported as not converged.
_ASKED, _ACCEPTED = 1e-14, 1e-9


def project_normal(
    flow: FlowBases,
    direction: Sequence[object],
    space: Space = "stratum",
    *,
    max_iter: int = 10_000,
) -> list[np.ndarray]:
    r"""Orthogonal projection of a change of the weights onto a normal space.

    In the flow bases the normals are the matrices :math:`(D_l Y_l J_{l-1}^T)_l`. Y has an entry
    for each constrained pair of bar copies, and :math:`Y_l` is its part at the bars that are
    present on the two sides of :math:`W_l`. The projection is thus a least-squares problem for Y,
    of full rank, which LSQR solves.

    Parameters
    ----------
    flow : FlowBases
        Flow bases of the network.
    direction : sequence of arrays or tensors
        One matrix per layer, of the shapes of the weights.
    space : {"stratum", "orbit", "kernel"}, default="stratum"
        The space to be normal to: the stratum, its orbit (same ranks, any product), or the kernel
        of the differential of the product, whose normals are its row space.
    max_iter : int, default=10_000
        Most iterations of LSQR.

    Returns
    -------
    list of ndarray
        One matrix per layer.

    Raises
    ------
    SkgeoError
        If the shapes are not those of the weights, or entries are not finite.

    Warns
    -----
    GeometryWarning
        If the iteration has not converged.

    See Also
    --------
    skgeo.fiber.normal_basis : A basis of the space, for small networks.

    Notes
    -----
    O(sum d^3) operations per iteration and O((sum d)^2) memory. About 50 iterations for well
    conditioned weights. Their number grows with the condition number of the kept singular values:
    1000 iterations where it is 500.

    Examples
    --------
    >>> from skgeo.fiber import flow_bases
    >>> flow = flow_bases([[[1.0]], [[0.0]]])
    >>> [part.round(9) + 0.0 for part in project_normal(flow, [[[3.0]], [[4.0]]])]
    [array([[0.]]), array([[4.]])]
    """
    check_space(space)
    check_integer("max_iter", max_iter)
    widths = flow.barcode.widths
    target = _direction(flow, direction)
    size = float(np.linalg.norm(target))
    operator = _normal_operator(flow, space)
    if operator.shape[1] == 0 or size == 0.0:
        return from_parameters(np.zeros_like(target), widths)
    solution, _, steps = lsqr(
        operator, target / size, atol=_ASKED, btol=_ASKED, conlim=0.0, iter_lim=max_iter
    )[:3]
    image = np.asarray(operator.matvec(solution))
    # The columns have norm 1, so these are cosines between the residual and single normals.
    slope = float(np.abs(operator.rmatvec(target / size - image)).max())
    if slope > _ACCEPTED:
        warn(
            f"The projection has not converged after {steps} iterations: the residual still has "
            f"{slope:.1e} of the vector's length along one of the normals. Raise max_iter, or "
            "raise tol if the network is close to a lower stratum."
        )
    return from_parameters(size * image, widths)


def project_tangent(
    flow: FlowBases,
    direction: Sequence[object],
    space: Space = "stratum",
    *,
    max_iter: int = 10_000,
) -> list[np.ndarray]:
    """Orthogonal projection of a change of the weights onto a tangent space.

    It is the direction minus its projection onto the normal space.

    Parameters
    ----------
    flow : FlowBases
        Flow bases of the network.
    direction : sequence of arrays or tensors
        One matrix per layer, of the shapes of the weights.
    space : {"stratum", "orbit", "kernel"}, default="stratum"
        The space to be tangent to: the stratum, its orbit (same ranks, any product), or the kernel
        of the differential of the product.
    max_iter : int, default=10_000
        Most iterations of LSQR.

    Returns
    -------
    list of ndarray
        One matrix per layer.

    See Also
    --------
    skgeo.fiber.project_normal : Errors, warnings and costs are the same.
    skgeo.fiber.tangent_basis : A basis of the space, for small networks.

    Examples
    --------
    >>> from skgeo.fiber import flow_bases
    >>> flow = flow_bases([[[1.0]], [[0.0]]])
    >>> [part.round(9) + 0.0 for part in project_tangent(flow, [[[3.0]], [[4.0]]])]
    [array([[3.]]), array([[0.]])]
    """
    normal = project_normal(flow, direction, space, max_iter=max_iter)
    return [a - b for a, b in zip(as_chain(direction), normal, strict=True)]


def _direction(flow: FlowBases, direction: Sequence[Any]) -> np.ndarray:
    given = [] if direction is None else [tuple(np.shape(matrix)) for matrix in direction]
    expected = [weight.shape for weight in flow.weights]
    if given != expected:
        raise SkgeoError(
            f"A direction has one matrix per layer, of shapes {expected}; got {given}."
        )
    return as_parameters(as_chain(direction))


def _normal_operator(flow: FlowBases, space: Space) -> LinearOperator:
    """Y -> (D_l Y_l J_{l-1}^T)_l on the constrained pairs, scaled to columns of norm 1."""
    code = flow.barcode
    depth, widths = code.depth, code.widths
    copies = [copy[:2] for copy in code.copies()]
    allowed = {
        (first, second): is_constrained(first, second, depth, space)
        for first in set(copies)
        for second in set(copies)
    }
    constrained = np.array([[allowed[first, second] for first in copies] for second in copies])
    places = [
        np.array([k for k, (b, e) in enumerate(copies) if b <= layer <= e])
        for layer in range(depth + 1)
    ]
    left = _orthonormal_copies(flow, flow.dual_bases, range(1, depth + 1))
    right = _orthonormal_copies(flow, flow.bases, range(depth))
    parts = [np.ix_(places[layer], places[layer - 1]) for layer in range(1, depth + 1)]
    factors = list(zip(parts, left[1:], right[:-1], strict=True))
    squares = np.zeros(constrained.shape)
    for part, u, v in factors:
        squares[part] += np.outer((u * u).sum(axis=0), (v * v).sum(axis=0))
    scale = 1.0 / np.sqrt(squares[constrained])

    def matvec(y: np.ndarray) -> np.ndarray:
        table = np.zeros(constrained.shape)
        table[constrained] = scale * np.ravel(y)
        return as_parameters([u @ table[part] @ v.T for part, u, v in factors])

    def rmatvec(g: np.ndarray) -> np.ndarray:
        table = np.zeros(constrained.shape)
        changes = from_parameters(np.ravel(g), widths)
        for (part, u, v), change in zip(factors, changes, strict=True):
            table[part] += u.T @ change @ v
        coefficients: np.ndarray = scale * table[constrained]
        return coefficients

    shape = (code.n_parameters, len(scale))
    return LinearOperator(shape, matvec=matvec, rmatvec=rmatvec, dtype=np.float64)


def _orthonormal_copies(
    flow: FlowBases, bases: Sequence[np.ndarray], used: Iterable[int]
) -> list[np.ndarray]:
    """Bases in which the copies of each bar are orthonormal over the used layers together.

    Mixing copies of one bar does not change a span, and halves the number of iterations.
    """
    mixed, used = [basis.copy() for basis in bases], set(used)
    for birth, death, _ in flow.barcode.bars:
        layers = [layer for layer in range(birth, death + 1) if layer in used]
        if not layers:
            continue
        parts = [flow.slice(layer, (birth, death)) for layer in layers]
        stacked = np.vstack([bases[layer][:, p] for layer, p in zip(layers, parts, strict=True)])
        mix = qr(stacked, mode="r")[0][: stacked.shape[1]]
        for layer, part in zip(layers, parts, strict=True):
            mixed[layer][:, part] = solve_triangular(mix, bases[layer][:, part].T, trans="T").T
    return mixed
