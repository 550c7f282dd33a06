"""Comparison of a rule with general differentiation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skgeo.exceptions import SkgeoError
from skgeo.jacobian._dense_rows import output_jacobian
from skgeo.jacobian._rules.rule import LayerGradients, StructureRule
from skgeo.network._agreement import seeded_normal
from skgeo.network._replica import replica

_DIRECTIONS = 3


def check_structure(
    rule: StructureRule, module: nn.Module, x: Tensor, *, rtol: float = 1e-9
) -> None:
    """Compare a rule with general differentiation on one layer.

    Per-sample gradients, their sum, Gram matrices (of a batch with itself and with another),
    diagonal, trace, products and, if the rule has them, outer-product factors are compared in
    float64 for random directions of the layer's result.

    Parameters
    ----------
    rule : StructureRule
        Registered or not.
    module : torch.nn.Module
        A layer that the rule covers. It is not changed; a copy in float64 is used.
    x : Tensor of shape (b, ...)
        Inputs of the layer: more than one sample, with values in general position.
    rtol : float, default=1e-9
        Allowed difference, relative to the largest entry.

    Raises
    ------
    SkgeoError
        Naming what disagrees and by how much.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.jacobian import StructureRule, check_structure
    >>> class Wrong(StructureRule):
    ...     names = ("bias",)
    ...
    ...     def rows(self, call):
    ...         return {"bias": 2 * call.gradients}
    >>> check_structure(Wrong(), nn.Linear(3, 2), torch.randn(4, 3))
    Traceback (most recent call last):
        ...
    skgeo.exceptions.SkgeoError: Wrong disagrees with the general path: rows of 'bias' ...
    """
    if not rule.covers(module):
        raise SkgeoError(
            f"{type(rule).__name__} does not cover this {type(module).__name__}: its covers() "
            "returned False."
        )
    names = [local for local in rule.names if module._parameters.get(local) is not None]
    if not names:
        raise SkgeoError(
            f"{type(module).__name__} has none of the parameters that {type(rule).__name__} names: "
            f"{', '.join(rule.names)}."
        )
    copied = replica(_double(module), parameters=names)
    x = x.double() if x.is_floating_point() else x
    z, jacobian = output_jacobian(copied, x)
    directions = seeded_normal(len(z), _DIRECTIONS, *z.shape[1:], like=z)
    dense = torch.bmm(directions.flatten(2), jacobian)
    call = LayerGradients(copied.module, x, directions, {local: local for local in names})
    _Comparison(rule, call, dense, copied.selected, rtol).run()


def _double(module: nn.Module) -> nn.Module:
    """A copy in float64; tensors of a replica are shared and must not be converted in place."""
    twin = replica(module, parameters="all").module
    for child in twin.modules():
        for key, parameter in child._parameters.items():
            if parameter is not None and parameter.is_floating_point():
                child._parameters[key] = nn.Parameter(parameter.detach().double())
        for key, buffer in child._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                child._buffers[key] = buffer.double()
    return twin


class _Comparison:
    def __init__(
        self,
        rule: StructureRule,
        call: LayerGradients,
        dense: Tensor,
        order: tuple[str, ...],
        rtol: float,
    ) -> None:
        self._rule, self._call, self._rtol = rule, call, rtol
        sizes = [call.parameter(local).numel() for local in order]
        self._dense, self._order = dense, order
        self._by_name = dict(zip(order, torch.split(dense, sizes, 2), strict=True))

    def run(self) -> None:
        rule, call = self._rule, self._call
        found = rule.rows(call)
        if set(found) != set(call.names):
            self._fail(f"rows are given for {sorted(found)}, expected {sorted(call.names)}.")
        for local, rows in found.items():
            expected = self._by_name[local].reshape(
                *self._dense.shape[:2], *call.parameter(local).shape
            )
            self._compare(f"rows of {local!r}", rows, expected)
        for local, total in rule.total(call).items():
            self._compare(f"total of {local!r}", total, self._sum(local, self._by_name[local]))
        for local, squares in rule.diagonal(call).items():
            expected = self._sum(local, self._by_name[local].square())
            self._compare(f"diagonal of {local!r}", squares, expected)
        self._compare("trace", rule.trace(call), self._dense.square().sum())
        self._grams()
        self._outer()
        self._products()

    def _grams(self) -> None:
        rule, call = self._rule, self._call
        flat = self._dense.flatten(0, 1)
        self._compare("gram of a batch with itself", rule.gram(call, call), flat @ flat.T)
        some = slice(0, max(1, call.n_samples // 2))
        other = self._dense[some].flatten(0, 1)
        self._compare("gram of two batches", rule.gram(call, call.take(some)), flat @ other.T)

    def _outer(self) -> None:
        factors = self._rule.outer(self._call)
        if factors is None:
            return
        a, g = factors
        columns = g.unsqueeze(3) * a[:, None, None, :]
        weight = "weight" in self._call.names
        parts = []
        for local in self._order:
            inputs = slice(0, -1) if local == "weight" and len(self._order) > 1 else slice(None)
            inputs = slice(-1, None) if weight and local == "bias" else inputs
            parts.append(columns[..., inputs].flatten(2))
        self._compare("outer", torch.cat(parts, 2), self._dense)

    def _products(self) -> None:
        call = self._call
        pushed: Tensor | None = None
        vectors: dict[str, Tensor] = {}
        for local, rows in self._by_name.items():
            seed = 1 + len(vectors)
            vector = seeded_normal(2, *call.parameter(local).shape, like=rows, seed=seed)
            vectors[local] = vector
            moved = rows @ vector.flatten(1).T
            pushed = moved if pushed is None else pushed + moved
        assert pushed is not None
        self._compare("push", self._rule.push(call, vectors), pushed)
        for local, found in self._rule.pull(call, pushed).items():
            expected = pushed.flatten(0, 1).T @ self._by_name[local].flatten(0, 1)
            self._compare(f"pull of {local!r}", found.flatten(1), expected)

    def _sum(self, local: str, values: Tensor) -> Tensor:
        return values.sum((0, 1)).reshape(self._call.parameter(local).shape)

    def _compare(self, what: str, found: Tensor, expected: Tensor) -> None:
        if found.shape != expected.shape:
            self._fail(f"{what} has shape {tuple(found.shape)}, expected {tuple(expected.shape)}.")
        scale = float(expected.abs().max())
        error = float((found - expected).abs().max())
        if not error <= self._rtol * scale:
            self._fail(f"{what} differs by {error:.3g} where the largest entry is {scale:.3g}.")

    def _fail(self, what: str) -> None:
        raise SkgeoError(f"{type(self._rule).__name__} disagrees with the general path: {what}")
