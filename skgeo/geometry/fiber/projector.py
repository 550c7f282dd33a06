"""Projection onto tangent and normal spaces without a basis, for large networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import qr, svd
from scipy.sparse.linalg import LinearOperator, lsqr

from skgeo.exceptions import SkgeoError, warn
from skgeo.geometry.fiber.chain import as_chain, as_parameters, from_parameters
from skgeo.geometry.fiber.flow import FlowBases
from skgeo.geometry.fiber.tangent import Space, check_space

__all__ = ["project_normal", "project_tangent"]

# What LSQR is asked for, and above which its answer is reported as not converged.
_ASKED, _ACCEPTED = 1e-14, 1e-8


def project_tangent(
    flow: FlowBases,
    direction: Sequence[object],
    space: Space = "stratum",
    *,
    max_iter: int = 2000,
) -> list[np.ndarray]:
    r"""Orthogonal projection of a change of the weights onto a tangent space.

    The tangent space of the orbit is the image of
    :math:`(X_0, \dots, X_L) \mapsto (X_l W_l - W_l X_{l-1})_l`; that of the stratum the image of
    those with :math:`X_L W = W X_0`; the row space of the differential of the product, which is
    the complement of its kernel, the image of
    :math:`Y \mapsto (W_{L\sim l}^T Y\, W_{l-1\sim 0}^T)_l`. Each projection is a least-squares
    problem, solved by LSQR.

    Parameters
    ----------
    flow : FlowBases
        Of the point.
    direction : sequence of arrays or tensors
        A matrix for each layer, of the shapes of the weights.
    space : {"stratum", "orbit", "kernel"}, default="stratum"
    max_iter : int, default=2000
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
    O(sum d^3) an iteration and O(P) memory. The unknowns are scaled layer by layer, exactly where
    they do not couple to their neighbours, so that the scale of the layers does not matter; small
    kept singular values cost iterations.

    Examples
    --------
    >>> from skgeo.geometry.fiber.flow import flow_bases
    >>> project_tangent(flow_bases([[[1.0]], [[0.0]]]), [[[3.0]], [[4.0]]])
    [array([[3.]]), array([[0.]])]
    """
    check_space(space)
    target = _direction(flow, direction)
    if space == "kernel":
        image, residual = _project(_row_space_operator(flow), target, max_iter), target
        return from_parameters(residual - image, flow.barcode.widths)
    operator = _base_change_operator(flow, keep_product=space == "stratum")
    return from_parameters(_project(operator, target, max_iter), flow.barcode.widths)


def project_normal(
    flow: FlowBases,
    direction: Sequence[object],
    space: Space = "stratum",
    *,
    max_iter: int = 2000,
) -> list[np.ndarray]:
    """Orthogonal projection of a change of the weights onto a normal space.

    What :func:`project_tangent`, with the same parameters, takes away.

    Parameters
    ----------
    flow : FlowBases
    direction : sequence of arrays or tensors
    space : {"stratum", "orbit", "kernel"}, default="stratum"
        With "kernel": the row space of the differential of the product.
    max_iter : int, default=2000

    Returns
    -------
    list of ndarray
        One matrix for each layer.
    """
    tangent = project_tangent(flow, direction, space, max_iter=max_iter)
    return [a - b for a, b in zip(as_chain(direction), tangent, strict=True)]


def _direction(flow: FlowBases, direction: Sequence[object]) -> np.ndarray:
    matrices = as_chain(direction)
    given = [matrix.shape for matrix in matrices]
    expected = [weight.shape for weight in flow.weights]
    if given != expected:
        raise SkgeoError(
            f"A direction has one matrix for each layer, of shapes {expected}; got {given}."
        )
    return as_parameters(matrices)


def _project(operator: LinearOperator, target: np.ndarray, max_iter: int) -> np.ndarray:
    """The point of the operator's image nearest to the target."""
    size = float(np.linalg.norm(target))
    if operator.shape[1] == 0 or size == 0.0:
        return np.zeros_like(target)
    solution, _, steps = lsqr(
        operator, target / size, atol=_ASKED, btol=_ASKED, conlim=0.0, iter_lim=max_iter
    )[:3]
    image = np.asarray(operator.matvec(solution))
    # The operator's columns have norm 1: this is the cosine that the least-squares condition
    # leaves between what remains and a direction that is still available.
    slope = float(np.abs(operator.rmatvec(target / size - image)).max())
    if slope > _ACCEPTED:
        warn(
            f"The projection has not converged after {steps} iterations: it still slopes by "
            f"{slope:.1e} of the vector's length. Raise max_iter, or a larger tol for the ranks "
            "if the network is close to a lower stratum."
        )
    return size * image


def _base_change_operator(flow: FlowBases, *, keep_product: bool) -> LinearOperator:
    """(X_0, ..., X_L) -> X_l W_l - W_l X_{l-1}, in frames where its columns have norm 1."""
    weights, code = flow.weights, flow.barcode
    depth = len(weights)
    ranks = code.rank_list()
    factors = [svd(weight) for weight in weights]
    values = []
    for layer, (_, found, _) in enumerate(factors, start=1):
        # The rank is known; what rounding left beyond it must not be scaled up.
        values.append(np.where(np.arange(len(found)) < ranks[layer, layer - 1], found, 0.0))
    # Hidden layer: X = V Z U^T with W_{l+1} = . S' V^T and W_l = U S . makes the norm of the
    # image of Z entry by entry (s'_i^2 + s_j^2) Z_ij^2.
    frames = [
        (factors[layer][2].T, factors[layer - 1][0], _inverse(np.hypot.outer(
            _padded(values[layer], width), _padded(values[layer - 1], width)
        )))
        for layer, width in enumerate(code.widths[1:-1], start=1)
    ]
    ends = _product_ends(flow) if keep_product else _free_ends(factors, values)
    sizes = [scale.size for *_, scale in frames]
    n_hidden = sum(sizes)
    cuts = np.cumsum(sizes)[:-1]

    def matvec(y: np.ndarray) -> np.ndarray:
        y = np.ravel(y)
        parts = np.split(y[:n_hidden], cuts) if frames else []
        hidden = [
            left @ (scale * part.reshape(scale.shape)) @ right.T
            for (left, right, scale), part in zip(frames, parts, strict=True)
        ]
        changes = [np.zeros_like(weight) for weight in weights]
        for layer, x in enumerate(hidden, start=1):
            changes[layer - 1] += x @ weights[layer - 1]
            changes[layer] -= weights[layer] @ x
        first, last = ends.expand(y[n_hidden:])
        changes[0] -= weights[0] @ first
        changes[-1] += last @ weights[-1]
        return as_parameters(changes)

    def rmatvec(g: np.ndarray) -> np.ndarray:
        grads = from_parameters(np.ravel(g), code.widths)
        parts = []
        for layer, (left, right, scale) in enumerate(frames, start=1):
            x = grads[layer - 1] @ weights[layer - 1].T - weights[layer].T @ grads[layer]
            parts.append((scale * (left.T @ x @ right)).ravel())
        parts.append(ends.contract(-weights[0].T @ grads[0], grads[-1] @ weights[-1].T))
        return np.concatenate(parts)

    assert depth >= 1
    shape = (code.n_parameters, n_hidden + ends.size)
    return LinearOperator(shape, matvec=matvec, rmatvec=rmatvec, dtype=np.float64)


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([values, np.zeros(length - len(values))])


def _inverse(norms: np.ndarray) -> np.ndarray:
    """Reciprocals, zero at zero: unknowns without effect stay out."""
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0.0)


class _Ends:
    """Base changes X_0 and X_L: a sum of blocks (left_0, right_0, scale_0, left_L, ...).

    Each block has unknowns Z of one shape, and adds ``left (scale * Z) right^T`` to X_0, to X_L,
    or to both.
    """

    def __init__(
        self,
        widths: tuple[int, int],
        blocks: list[tuple[tuple[np.ndarray, np.ndarray, np.ndarray] | None, ...]],
    ) -> None:
        self.widths = widths
        self.blocks = blocks
        self.shapes = [next(part for part in block if part)[2].shape for block in blocks]
        self.sizes = [rows * columns for rows, columns in self.shapes]
        self.size = sum(self.sizes)

    def expand(self, y: np.ndarray) -> list[np.ndarray]:
        changes = [np.zeros((width, width)) for width in self.widths]
        start = 0
        for block, shape, size in zip(self.blocks, self.shapes, self.sizes, strict=True):
            z = y[start : start + size].reshape(shape)
            start += size
            for change, part in zip(changes, block, strict=True):
                if part:
                    change += part[0] @ (part[2] * z) @ part[1].T
        return changes

    def contract(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        parts = [np.zeros(0)]
        for block in self.blocks:
            terms = [
                part[2] * (part[0].T @ change @ part[1])
                for change, part in zip((first, last), block, strict=True)
                if part
            ]
            parts.append(np.sum(terms, axis=0).ravel())
        return np.concatenate(parts)


def _free_ends(factors: list, values: list[np.ndarray]) -> _Ends:
    d_0, d_last = factors[0][2].shape[0], factors[-1][0].shape[0]
    scale_0 = np.tile(_inverse(_padded(values[0], d_0))[:, None], (1, d_0))
    scale_last = np.tile(_inverse(_padded(values[-1], d_last)), (d_last, 1))
    return _Ends(
        (d_0, d_last),
        [
            ((factors[0][2].T, np.eye(d_0), scale_0), None),
            (None, (np.eye(d_last), factors[-1][0], scale_last)),
        ],
    )


def _product_ends(flow: FlowBases) -> _Ends:
    """X_0 and X_L with X_L W = W X_0.

    With W = U S V^T and V = (V_1, V_2), U = (U_1, U_2), the first parts of width r: X_0 maps V_2
    to V_2, X_L maps U_1 to U_1, and on V_1 and U_1 they are linked by S X_0 = X_L S.
    """
    code, weights = flow.barcode, flow.weights
    d_0, d_last, rank = code.widths[0], code.widths[-1], code.rank
    u_1, core, v_1 = _product_factors(flow)
    u_1, s, v_1 = u_1 @ core[0], core[1], v_1 @ core[2].T
    v_2, v_norms = _free_frame(v_1, weights[0].T, int(code.rank_list()[1, 0]) - rank)
    u_2, u_norms = _free_frame(u_1, weights[-1], int(code.rank_list()[-1, -2]) - rank)
    v, u = np.hstack([v_1, v_2]), np.hstack([u_1, u_2])
    blocks: list = []
    if rank:
        # X_L[i, j] s_j = s_i X_0[i, j]: both are multiples of one unknown.
        s_max = s.max()
        along_0 = np.tile(s / s_max, (rank, 1))
        along_last = along_0.T
        into_0 = np.linalg.norm(weights[0] @ v_1, axis=0)
        into_last = np.linalg.norm(weights[-1].T @ u_1, axis=0)
        norms = np.hypot(into_0[:, None] * along_0, into_last[None, :] * along_last)
        blocks.append(((v_1, v_1, along_0 / norms), (u_1, u_1, along_last / norms)))
    if d_0 > rank:
        blocks.append(((v_2, v, np.tile(_inverse(v_norms)[:, None], (1, d_0))), None))
    if d_last > rank:
        blocks.append((None, (u, u_2, np.tile(_inverse(u_norms), (d_last, 1)))))
    return _Ends((d_0, d_last), blocks)


def _product_factors(flow: FlowBases) -> tuple[np.ndarray, tuple, np.ndarray]:
    """Column space, core and row space of the product W, without multiplying the weights."""
    depth, rank = flow.barcode.depth, flow.barcode.rank
    if rank == 0:
        nothing = (np.zeros((0, 0)), np.zeros(0), np.zeros((0, 0)))
        d_0, d_last = flow.barcode.widths[0], flow.barcode.widths[-1]
        return np.zeros((d_last, 0)), nothing, np.zeros((d_0, 0))
    # W = J_L E D_0^T, where E keeps the bars [0, L].
    columns, r_columns = qr(flow.bases[depth][:, flow.slice(depth, (0, depth))], mode="economic")
    rows, r_rows = qr(flow.dual_bases[0][:, flow.slice(0, (0, depth))], mode="economic")
    return columns, svd(r_columns @ r_rows.T), rows


def _free_frame(
    taken: np.ndarray, weight: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal complement of `taken` whose images under weight^T are orthogonal, and norms."""
    size, used = taken.shape
    rest = qr(taken)[0][:, used:] if used else np.eye(size)
    if rest.shape[1] == 0:
        return rest, np.zeros(0)
    left, values, _ = svd(rest.T @ weight)
    values = np.where(np.arange(len(values)) < rank, values, 0.0)
    return rest @ left, _padded(values, rest.shape[1])


def _row_space_operator(flow: FlowBases) -> LinearOperator:
    """Y -> (W_{L~l}^T Y W_{l-1~0}^T)_l, in frames where its columns have norm 1."""
    weights, widths = flow.weights, flow.barcode.widths
    from_input, to_output = [np.eye(widths[0])], [np.eye(widths[-1])]
    for weight in weights[:-1]:
        from_input.append(weight @ from_input[-1])
    for weight in weights[:0:-1]:
        to_output.append(to_output[-1] @ weight)
    to_output.reverse()
    left = svd(to_output[0])[0]
    right = svd(from_input[-1])[2].T
    ahead = [m.T @ left for m in to_output]
    behind = [m @ right for m in from_input]
    squares = sum(
        np.outer((a * a).sum(axis=0), (b * b).sum(axis=0))
        for a, b in zip(ahead, behind, strict=True)
    )
    norms = np.sqrt(squares)
    # Products are only as exact as rounding: what is that small does nothing.
    scale = _inverse(np.where(norms > 1e-13 * norms.max(), norms, 0.0))

    def matvec(y: np.ndarray) -> np.ndarray:
        z = scale * y.reshape(scale.shape)
        return as_parameters([a @ z @ b.T for a, b in zip(ahead, behind, strict=True)])

    def rmatvec(g: np.ndarray) -> np.ndarray:
        grads = from_parameters(np.ravel(g), widths)
        terms = [a.T @ h @ b for a, h, b in zip(ahead, grads, behind, strict=True)]
        return (scale * np.sum(terms, axis=0)).ravel()

    shape = (flow.barcode.n_parameters, scale.size)
    return LinearOperator(shape, matvec=matvec, rmatvec=rmatvec, dtype=np.float64)
