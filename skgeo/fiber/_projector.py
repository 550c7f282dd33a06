"""Projection onto tangent and normal spaces without a basis, for large networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.linalg import qr, solve_triangular
from scipy.sparse.linalg import LinearOperator, lsqr

from skgeo.exceptions import SkgeoError, warn
from skgeo.fiber._chain import as_chain, as_parameters, from_parameters
from skgeo.fiber._flow import FlowBases
from skgeo.fiber._tangent import Space, check_space, is_constrained

# What LSQR is asked for, and above which its answer is reported as not converged.
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
    for each constrained pair of bar copies, and :math:`Y_l` is its part at the bars present on
    the two sides of :math:`W_l`: so the projection is a least-squares problem for Y, of full
    rank, which LSQR solves.

    Parameters
    ----------
    flow : FlowBases
        Of the point.
    direction : sequence of arrays or tensors
        A matrix for each layer, of the shapes of the weights.
    space : {"stratum", "orbit", "kernel"}, default="stratum"
        With "kernel": the row space of the differential of the product.
    max_iter : int, default=10_000
        Iterations of LSQR.

    Returns
    -------
    list of ndarray
        One matrix for each layer.

    Raises
    ------
    SkgeoError
        If the shapes do not fit, or entries are not finite.

    Warns
    -----
    GeometryWarning
        If the iteration has not converged.

    Notes
    -----
    O(sum d^3) an iteration, and O((sum d)^2) memory. Some 50 iterations for well conditioned
    weights; they grow with the condition of the kept singular values (1000 where it is 500).

    Examples
    --------
    >>> from skgeo.fiber import flow_bases
    >>> flow = flow_bases([[[1.0]], [[0.0]]])
    >>> [part.round(9) + 0.0 for part in project_normal(flow, [[[3.0]], [[4.0]]])]
    [array([[0.]]), array([[4.]])]
    """
    check_space(space)
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
    # Its columns have norm 1: these are cosines between what is left and the single normals.
    slope = float(np.abs(operator.rmatvec(target / size - image)).max())
    if slope > _ACCEPTED:
        warn(
            f"The projection has not converged after {steps} iterations: what it leaves still has "
            f"{slope:.1e} of the vector's length along one of the normals. Raise max_iter; or "
            "tol, if the network is close to a lower stratum."
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

    What :func:`project_normal`, with the same parameters, leaves.

    Parameters
    ----------
    flow : FlowBases
        Of the point.
    direction : sequence of arrays or tensors
        A matrix for each layer, of the shapes of the weights.
    space : {"stratum", "orbit", "kernel"}, default="stratum"
    max_iter : int, default=10_000

    Returns
    -------
    list of ndarray
        One matrix for each layer.

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
    given = [tuple(np.shape(matrix)) for matrix in direction]
    expected = [weight.shape for weight in flow.weights]
    if given != expected:
        raise SkgeoError(
            f"A direction has one matrix for each layer, of shapes {expected}; got {given}."
        )
    return as_parameters(as_chain(direction))


def _normal_operator(flow: FlowBases, space: Space) -> LinearOperator:
    """Y -> (D_l Y_l J_{l-1}^T)_l over the constrained pairs, scaled to columns of norm 1."""
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
    """Bases in which equal bars are orthonormal over the used layers together.

    Copies of one bar may be mixed freely: it changes no span, and halves the iterations.
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
