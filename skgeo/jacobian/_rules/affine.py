r"""Per-sample gradients that are sums over positions of outer products.

With inputs :math:`a_{nt}` and gradients :math:`g_{nkt}` of sample n, direction k and position t,
the gradient with respect to the weight is :math:`\sum_t g_{nkt} a_{nt}^T`, and that for the bias
:math:`\sum_t g_{nkt}`. Linear layers and convolutions (whose inputs are patches) are of this kind;
groups of channels are a further axis.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from skgeo.jacobian._rules.rule import LayerGradients, StructureRule, sample_slices
from skgeo.jacobian._rules.symmetric import lower_blocks, lower_product

# Bytes of a product and of its columns processed together, which fit into the caches.
_TILE_BYTES = 2**23
_COLUMN_BYTES = 2**26
_CACHED_BYTES = 2**20
# Cost in operations of one entry of an elementwise product, which is limited by memory access.
_ENTRYWISE = 16


class AffineRule(StructureRule):
    """Rule of a layer whose weight multiplies something linear in the input.

    Subclasses give :meth:`affine`; all products follow.

    Attributes
    ----------
    transposed : bool
        Whether the weight has its inputs before its outputs in each group.
    """

    transposed: ClassVar[bool] = False

    def affine(self, call: LayerGradients) -> tuple[Tensor, Tensor]:
        """Inputs and gradients of the matrix product within the layer.

        Returns a (b, G, T, i) and g (b, m, G, T, o) for G groups and T positions;
        ``weight.reshape(G, o, i)`` maps a to the layer's result, or if the rule is `transposed`
        the matrices ``weight.reshape(G, i, o)`` from the right.
        """
        raise NotImplementedError(f"{type(self).__name__} must define affine(call).")

    def _laid_out(self, call: LayerGradients, local: str, values: Tensor) -> Tensor:
        """Values (*, G, o, i) of the weight or (*, G, o) of the bias in the parameter's shape."""
        shape = call.parameter(local).shape
        if local == "bias":
            return values.reshape(*values.shape[:-2], *shape)
        return (values.mT if self.transposed else values).reshape(*values.shape[:-3], *shape)

    def rows(self, call: LayerGradients) -> dict[str, Tensor]:
        a, g = self.affine(call)
        found = {}
        for local in call.names:
            each = rows(a, g) if local == "weight" else _over_positions(g)
            found[local] = self._laid_out(call, local, each)
        return found

    def total(self, call: LayerGradients) -> dict[str, Tensor]:
        a, g = self.affine(call)
        g = g.sum(1)
        found = {}
        for local in call.names:
            each = (
                torch.einsum("bgti,bgto->goi", a.to(g.dtype), g)
                if local == "weight"
                else g.sum((0, 2))
            )
            found[local] = self._laid_out(call, local, each)
        return found

    def add_gram(self, total: Tensor, left: LayerGradients, right: LayerGradients) -> None:
        mine = self.affine(left.to(total.dtype))
        other = mine if left is right else self.affine(right.to(total.dtype))
        add_gram(total, mine, other, weight="weight" in left.names, bias="bias" in left.names)

    def diagonal(self, call: LayerGradients) -> dict[str, Tensor]:
        a, g = self.affine(call)
        if a.shape[2] == 1:
            squares, x = _squares(g), a[:, :, 0].double().square()
            each = {"weight": torch.einsum("bgo,bgi->goi", squares, x), "bias": squares.sum(0)}
            return {local: self._laid_out(call, local, each[local]) for local in call.names}
        found: dict[str, Tensor] = {}
        for part in self._pieces(call):
            a, g = self.affine(part)
            for local in call.names:
                values = diagonal(a, g) if local == "weight" else g.sum(3).square().sum((0, 1))
                values = self._laid_out(call, local, values)
                found[local] = found[local] + values if local in found else values
        return found

    def trace(self, call: LayerGradients) -> Tensor:
        a, g = self.affine(call)
        if a.shape[2] == 1:
            return _trace_without_positions(a, g, call.names)
        total = torch.zeros((), dtype=torch.float64, device=call.gradients.device)
        for part in self._pieces(call):
            a, g = self.affine(part)
            if "weight" in call.names:
                total += trace(a, g)
            if "bias" in call.names:
                total += g.sum(3).square().sum()
        return total

    def _pieces(self, call: LayerGradients) -> Iterator[LayerGradients]:
        """Parts of a call, in float64, that fit into the caches."""
        per_sample = 8 * call.gradients[0].numel()
        for samples in sample_slices(call.n_samples, per_sample, _CACHED_BYTES):
            yield call.take(samples).double()

    def outer(self, call: LayerGradients) -> tuple[Tensor, Tensor] | None:
        a, g = self.affine(call.double())
        if a.shape[1] != 1 or a.shape[2] != 1 or self.transposed:
            return None
        a, g = a[:, 0, 0], g[:, :, 0, 0]
        one = a.new_ones(len(a), 1)
        if "weight" not in call.names:
            return one, g
        return (torch.cat([a, one], 1), g) if "bias" in call.names else (a, g)


def rows(a: Tensor, g: Tensor) -> Tensor:
    """Per-sample gradients with respect to the weight."""
    # a (b, G, T, i); g (b, m, G, T, o) -> (b, m, G, o, i)
    a = a.to(g.dtype)
    if a.shape[2] == 1:
        return g[:, :, :, 0, :, None] * a[:, None, :, 0, None, :]
    return torch.einsum("bgti,bmgto->bmgoi", a, g)


def diagonal(a: Tensor, g: Tensor) -> Tensor:
    """Sum over samples and directions of the squared gradients with respect to the weight.

    The square of a sum over positions, not a sum of squares.
    """
    # a (b, G, T, i); g (b, m, G, T, o) -> (G, o, i)
    if a.shape[2] == 1:
        return torch.einsum("bgo,bgi->goi", g[:, :, :, 0].square().sum(1), a[:, :, 0].square())
    (b, groups, _, i), (m, o) = a.shape, (g.shape[1], g.shape[4])
    total = a.new_zeros(groups, o, i)
    for samples in sample_slices(b, 8 * m * groups * o * i):
        total += rows(a[samples], g[samples]).square_().sum((0, 1))
    return total


def trace(a: Tensor, g: Tensor) -> Tensor:
    """Sum over samples, directions and entries of the squared gradients of the weight."""
    # a (b, G, T, i); g (b, m, G, T, o) -> ()
    (b, groups, positions, i), (m, o) = a.shape, (g.shape[1], g.shape[4])
    if positions == 1:
        return _trace_without_positions(a, g, ("weight",))
    if positions * (i + m * o) > m * o * i:
        return diagonal(a, g).sum()
    total = a.new_zeros(())
    for samples in sample_slices(b, 16 * groups * positions * positions):
        among_inputs = torch.einsum("bgti,bgsi->bgts", a[samples], a[samples])
        among_gradients = torch.einsum("bmgto,bmgso->bgts", g[samples], g[samples])
        total += torch.sum(among_inputs * among_gradients)
    return total


def _over_positions(g: Tensor) -> Tensor:
    return g[:, :, :, 0] if g.shape[3] == 1 else g.sum(3)


def _trace_without_positions(a: Tensor, g: Tensor, names: Collection[str]) -> Tensor:
    factors = torch.zeros(a.shape[:2], dtype=torch.float64, device=a.device)
    if "weight" in names:
        factors += a.double().square().sum((2, 3))
    if "bias" in names:
        factors += 1
    return torch.sum(factors * _squares(g).sum(2))


def _squares(g: Tensor) -> Tensor:
    """Sums over directions of the squares, (b, m, G, 1, o) to (b, G, o), in float64."""
    total = torch.zeros(g[:, 0, :, 0].shape, dtype=torch.float64, device=g.device)
    values = torch.empty_like(total)
    for direction in g.unbind(1):  # each fits into the caches
        values.copy_(direction[:, :, 0])
        total.addcmul_(values, values)
    return total


def add_gram(
    total: Tensor,
    left: tuple[Tensor, Tensor],
    right: tuple[Tensor, Tensor],
    *,
    weight: bool,
    bias: bool,
) -> None:
    r"""Add the inner products of all per-sample gradients to a matrix.

    Computed either from pairs of positions, :math:`\sum_{ts} (a_{nt} \cdot a_{n's} + 1)
    (g_{nkt} \cdot g_{n'k's})`, or from the gradients themselves, some output channels at a time,
    whichever takes fewer operations.

    total: (b_left * m_left, b_right * m_right), changed in place; only below the diagonal where
        `left` is `right`.
    left, right: inputs (b, G, T, i) and gradients (b, m, G, T, o), float64.
    weight, bias: whether to include each parameter.
    """
    same = left is right
    if weight and _pairs_are_cheaper(left, right):
        _add_pairs(total, left, right, bias)
        return
    if weight:
        _add_columns(total, left, right)
    if bias:
        sums = _over_positions(left[1]).flatten(2).flatten(0, 1)
        other = sums if same else _over_positions(right[1]).flatten(2).flatten(0, 1)
        lower_product(total, sums, other)


def _pairs_are_cheaper(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> bool:
    """Compare the numbers of operations per group."""
    (b, _, t, i), (m, o) = left[0].shape, (left[1].shape[1], left[1].shape[4])
    c, s, k = right[0].shape[0], right[0].shape[2], right[1].shape[1]
    pairs = b * c * t * s * (i + m * k * (o + _ENTRYWISE))
    columns = (b * m * t + c * k * s) * o * i + b * m * c * k * o * i
    return (t == 1 and s == 1) or pairs < columns


def _add_pairs(
    total: Tensor, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], bias: bool
) -> None:
    (a, g), (a_right, g_right) = left, right
    groups, positions = a.shape[1:3]
    for group in range(groups):
        for s in range(a_right.shape[2]):
            x_right = a_right[:, group, s]
            y_right = g_right[:, :, group, s].flatten(0, 1)
            for t in range(positions):
                x, y = a[:, group, t], g[:, :, group, t]
                _add_pair(total, x, y, x_right, y_right, bias, same=left is right)


def _add_pair(
    total: Tensor,
    x: Tensor,
    y: Tensor,
    x_right: Tensor,
    y_right: Tensor,
    bias: bool,
    same: bool,
) -> None:
    """Add ``(x x'^T [+ 1]) * (y y'^T)``, the first factor repeated over directions."""
    b, m = y.shape[:2]
    k = len(y_right) // len(x_right)
    step = max(1, _TILE_BYTES // (8 * m * len(y_right)))
    for samples, stop in lower_blocks(b, len(x_right), same, step):
        among_inputs = x[samples] @ x_right[:stop].T
        if bias:
            among_inputs += 1
        # Repeated along the contiguous axis, so the product below can be vectorised.
        among_inputs = among_inputs.repeat_interleave(k, 1)
        among_gradients = y[samples].flatten(0, 1) @ y_right[: stop * k].T
        into = total[samples.start * m : samples.stop * m, : stop * k]
        torch.unflatten(into, 0, (-1, m)).addcmul_(
            torch.unflatten(among_gradients, 0, (-1, m)), among_inputs.unsqueeze(1)
        )


def _add_columns(total: Tensor, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> None:
    (a, g), (a_right, g_right) = left, right
    same = left is right
    n_rows = total.shape[0] + (0 if same else total.shape[1])
    groups, i, o = a.shape[1], a.shape[3], g.shape[4]
    if i == 0:  # no inputs, or an embedding that looks up nothing but its padding
        return
    step = max(1, _COLUMN_BYTES // (8 * n_rows * groups * i))
    for start in range(0, o, step):
        some = slice(start, min(start + step, o))
        mine = rows(a, g[..., some]).flatten(2).flatten(0, 1)
        other = mine if same else rows(a_right, g_right[..., some]).flatten(2).flatten(0, 1)
        lower_product(total, mine, other)
