"""The Jacobian of a batch in factored form, and products with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from skgeo.jacobian._rules.parameter_side import Columns, add_block
from skgeo.jacobian._rules.rule import LayerGradients, StructureRule
from skgeo.jacobian._rules.rule_table import structure_rule
from skgeo.jacobian._rules.symmetric import lower_product, mirror


@dataclasses.dataclass(frozen=True, eq=False)
class FactoredJacobian:
    r"""Derivatives of m directions of the outputs of b samples, layer by layer.

    With respect to P parameters. Made by :meth:`~skgeo.jacobian.ParameterJacobian.factors`. If
    every selected parameter belongs to a layer that a rule covers, only :meth:`rows` forms a matrix
    of b m rows and P columns.

    Attributes
    ----------
    outputs : Tensor of shape (b, ...)
        Without a graph.
    calls : tuple of LayerGradients
        One for each covered layer.
    rest : tuple of str
        Selected parameters without structure, whose rows are dense.
    rest_rows : Tensor of shape (b, m, P_rest)
        Their dense Jacobian, in the order of `rest`.
    shapes : dict of str to torch.Size
        Shapes of all selected parameters, in their order. The outputs do not depend on those that
        are neither in a call nor in the rest.
    dtype : torch.dtype
        Of the Jacobian.
    """

    outputs: Tensor
    calls: tuple[LayerGradients, ...]
    rest: tuple[str, ...]
    rest_rows: Tensor
    shapes: Mapping[str, torch.Size]
    dtype: torch.dtype

    @property
    def n_samples(self) -> int:
        """Number of samples b."""
        return self.rest_rows.shape[0]

    @property
    def n_directions(self) -> int:
        """Number of directions m per sample."""
        return self.rest_rows.shape[1]

    @property
    def n_parameters(self) -> int:
        """Number P of entries of the selected parameters."""
        return sum(shape.numel() for shape in self.shapes.values())

    def weighted(self, weights: Tensor) -> FactoredJacobian:
        """The Jacobian of r linear combinations of the directions.

        weights: (b, r, m), the coefficients per sample: ``R^T`` turns the Jacobian J of the outputs
            into the rows ``R^T J`` of a metric.
        """
        dtype = torch.promote_types(weights.dtype, self.rest_rows.dtype)
        return dataclasses.replace(
            self,
            calls=tuple(call.weighted(weights) for call in self.calls),
            rest_rows=torch.bmm(weights.to(dtype), self.rest_rows.to(dtype)),
            dtype=dtype,
        )

    def rows(self, names: Collection[str] | None = None) -> Tensor:
        """The dense Jacobian.

        names: full names of the parameters to keep, by default all.
        Returns (b, m, P): in the order of `shapes`, each parameter flattened.
        """
        where, width = self._columns(self.shapes if names is None else names)
        dense = torch.zeros(
            (self.n_samples, self.n_directions, width),
            dtype=self.dtype,
            device=self.rest_rows.device,
        )
        start = 0
        for name in self.rest:
            stop = start + self.shapes[name].numel()
            if name in where:
                dense[..., where[name]] = self.rest_rows[..., start:stop]
            start = stop
        for call in self.calls:
            kept = {local: name for local, name in call.names.items() if name in where}
            if kept:
                part = dataclasses.replace(call, names=kept)
                for local, rows in _rule(call).rows(part).items():
                    dense[..., where[kept[local]]] = rows.flatten(2)
        return dense

    def gram(
        self,
        other: FactoredJacobian | None = None,
        dtype: torch.dtype = torch.float64,
        *,
        out: Tensor | None = None,
    ) -> Tensor:
        r"""Inner products :math:`J J'^T` of all per-sample gradients.

        other: of the same network and selection; by default this one.
        dtype: of the products and of the result. A rank must not be decided on less than float64.
        out: (b m, b' m'), zeros to write into, instead of `dtype`.
        Returns (b m, b' m'): ordered by sample, then direction.

        Costs :math:`2 (bm)(b'm')` operations per output feature for Linear layers on vectors,
        instead of per parameter; half of it with itself.
        """
        right = self if other is None else other
        shape = tuple(side.n_samples * side.n_directions for side in (self, right))
        if out is None:
            out = torch.zeros(shape, dtype=dtype, device=self.rest_rows.device)
        total, dtype = out, out.dtype
        theirs = {_key(call): call for call in right.calls}
        structured: set[str] = set()
        for call in self.calls:
            if _key(call) in theirs:
                structured.update(call.names.values())
                _rule(call).add_gram(total, call, theirs[_key(call)])
        # A layer that is not covered on one side is treated as dense on both.
        ways = [_full_names(side) for side in (self, right)]
        dense = (ways[0] & ways[1]) - structured
        if dense:
            mine = self.rows(dense).flatten(0, 1).to(dtype)
            lower_product(
                total, mine, mine if other is None else right.rows(dense).flatten(0, 1).to(dtype)
            )
        return mirror(total) if other is None else total

    @property
    def has_quick_products(self) -> bool:
        """Whether :meth:`push` and :meth:`pull` need fewer operations than differentiation.

        Products with the factors of a layer cost its weights once and its result once per
        direction; a pass of automatic differentiation costs the weights twice.
        """
        factors, passes = 0, 0
        for call in self.calls:
            each = call.gradients[:, 0].numel()
            factors += each * self.n_directions
            passes += 2 * each * call.n_parameters // max(call.gradients.shape[-1], 1)
        quick = all(_rule(call).quick_products for call in self.calls)
        return quick and not self.rest and factors <= passes

    def push(self, vectors: Tensor) -> Tensor:
        """``J v``, in the dtype of the factors."""
        # vectors (w, P) -> (b, m, w)
        where, _ = self._columns(self.shapes)
        vectors = vectors.to(self.dtype)
        size = (self.n_samples, self.n_directions, len(vectors))
        total = torch.zeros(size, dtype=self.dtype, device=vectors.device)
        for call in self.calls:
            parts = {
                local: torch.unflatten(vectors[:, where[name]], 1, self.shapes[name])
                for local, name in call.names.items()
            }
            total += _rule(call).push(call, parts)
        if self.rest:
            columns = torch.cat([vectors[:, where[name]] for name in self.rest], 1)
            total += self.rest_rows.to(self.dtype) @ columns.T
        return total

    def pull(self, weights: Tensor) -> Tensor:
        """``J^T u``, in the dtype of the factors."""
        # weights (b, m, w) -> (w, P)
        where, width = self._columns(self.shapes)
        weights = weights.to(self.dtype)
        size = (weights.shape[2], width)
        total = torch.zeros(size, dtype=self.dtype, device=weights.device)
        for call in self.calls:
            for local, each in _rule(call).pull(call, weights).items():
                total[:, where[call.names[local]]] = each.flatten(1)
        if self.rest:
            rows = torch.tensordot(weights, self.rest_rows.to(self.dtype), ([0, 1], [0, 1]))
            sizes = [self.shapes[name].numel() for name in self.rest]
            for name, each in zip(self.rest, rows.split(sizes, dim=1), strict=True):
                total[:, where[name]] = each
        return total

    def diagonal(self) -> Tensor:
        """Sum over samples and directions of the squared derivatives.

        Returns (P,): in the order of `shapes`.
        """
        where, width = self._columns(self.shapes)
        total = torch.zeros(width, dtype=torch.float64, device=self.rest_rows.device)
        squares = self.rest_rows.double().square().sum((0, 1))
        sizes = [self.shapes[name].numel() for name in self.rest]
        for name, each in zip(self.rest, torch.split(squares, sizes), strict=True):
            total[where[name]] = each
        for call in self.calls:
            for local, each in _rule(call).diagonal(call).items():
                total[where[call.names[local]]] = each.flatten()
        return total

    def trace(self) -> Tensor:
        """Sum of all squared derivatives."""
        # -> ()
        total = self.rest_rows.double().square().sum()
        for call in self.calls:
            total = total + _rule(call).trace(call)
        return total

    def add_metric(self, total: Tensor) -> None:
        r"""Add :math:`\sum_n J_n^T J_n` to a matrix, on and below its diagonal.

        Batches are added in turn, and :func:`mirror` completes the matrix at the end.

        total: (P, P), changed in place. In the order of `shapes`; entries above the diagonal are
            left in an undefined state.

        Costs :math:`2 b P^2` operations for Linear layers on vectors, for any number of directions,
        and a quarter of it within a layer; :math:`2 b m P^2` for other layers.
        """
        where, _ = self._columns(self.shapes)
        columns: list[Columns] = []
        dense: set[str] = set(self.rest)
        for call in self.calls:
            factors = _rule(call).outer(call)
            if factors is None:
                dense.update(call.names.values())
            else:
                places = {local: where[name] for local, name in call.names.items()}
                columns.append(Columns.of_layer(call, *factors, places))
        if dense:
            places = {name: where[name] for name in self.shapes if name in dense}
            columns.append(Columns.of_rows(self.rows(dense).double(), places))
        for index, left in enumerate(columns):
            for right in columns[: index + 1]:
                add_block(total, left, right)

    def metric(self) -> Tensor:
        r"""Sum over samples of :math:`J_n^T J_n`.

        Returns (P, P): in the order of `shapes`.
        """
        p = self.n_parameters
        total = torch.zeros(p, p, dtype=torch.float64, device=self.rest_rows.device)
        self.add_metric(total)
        return mirror(total)

    def _columns(self, names: Collection[str]) -> tuple[dict[str, slice], int]:
        where, start = {}, 0
        for name, shape in self.shapes.items():
            if name in names:
                where[name] = slice(start, start + shape.numel())
                start += shape.numel()
        return where, start


def _rule(call: LayerGradients) -> StructureRule:
    rule = structure_rule(call.module)
    assert rule is not None
    return rule


def _key(call: LayerGradients) -> tuple[str, ...]:
    return tuple(call.names.values())


def _full_names(side: FactoredJacobian) -> set[str]:
    """Parameters that the outputs depend on."""
    return {*side.rest, *(name for call in side.calls for name in call.names.values())}
