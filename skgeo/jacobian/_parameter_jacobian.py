"""The Jacobian of one batch of outputs with respect to the parameters, in three forms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skgeo._cached import cached_property
from skgeo.jacobian._dense_rows import output_jacobian
from skgeo.jacobian._rules.factored import FactoredJacobian
from skgeo.jacobian._rules.gradients import certify_structure, structured_gradients
from skgeo.jacobian._rules.rule_check import Certificate
from skgeo.network._batch import Inputs
from skgeo.network._replica import Replica
from skgeo.network._switches import math_attention

Cotangents = Callable[[Tensor], Tensor]
Push = Callable[[dict[str, Tensor]], Tensor]


class ParameterJacobian:
    r"""The Jacobian :math:`J = \partial z / \partial\theta` of one batch.

    Products (:meth:`push`, :meth:`pull`), dense rows (:meth:`rows`), and a factored form layer by
    layer (:meth:`factors`). Nothing is computed before it is
    needed.

    replica: its selected parameters, in their order and each flattened, are the P columns.
        Parameters that an output does not depend on have zero columns.
    inputs: b samples.

    The Jacobian of a linear model repeats its inputs:

    >>> from torch import nn
    >>> from skgeo.jacobian import ParameterJacobian
    >>> from skgeo.network import replica
    >>> J = ParameterJacobian(replica(nn.Linear(2, 1)), torch.tensor([[3.0, 5.0], [1.0, 0.0]]))
    >>> J.rows()
    tensor([[[3., 5., 1.]],
            [[1., 0., 1.]]])
    >>> J.push(torch.tensor([1.0, 1.0, 0.0]))
    tensor([[8.],
            [1.]])
    >>> J.factors().gram()
    tensor([[35.,  4.],
            [ 4.,  2.]], dtype=torch.float64)
    """

    def __init__(self, replica: Replica, inputs: Inputs) -> None:
        self._replica, self._inputs = replica, inputs
        self._outputs: Tensor | None = None
        self._push: Push | None = None
        self._values = {name: replica.parameters[name].detach() for name in replica.selected}

    @property
    def outputs(self) -> Tensor:
        r"""Outputs z of shape (b, \*out_shape), without a graph."""
        if self._outputs is None:
            self._outputs = self._graph.detach()
        return self._outputs

    def push(self, vector: Tensor) -> Tensor:
        """``J v`` for v of shape (P,), of the shape of the outputs.

        The first product records a backward pass with its graph; each then costs about as much as
        one backward pass.
        """
        sizes = [value.numel() for value in self._values.values()]
        parts = {
            name: part.view_as(value).to(value.dtype)
            for (name, value), part in zip(
                self._values.items(), torch.split(vector, sizes), strict=True
            )
        }
        with math_attention():
            if self._push is None:
                try:
                    with torch.enable_grad():
                        self._push = self._twice_backward()
                        return self._push(parts).detach()
                except RuntimeError:  # an operation without second derivatives
                    self._push = self._forward
            return self._push(parts).detach()

    def pull(self, cotangent: Tensor, into: Tensor | None = None) -> Tensor:
        """``J^T u`` for u of the shape of the outputs: (P,).

        into: (P,), to which the product is added, instead of a new tensor.
        """
        with math_attention():
            parts = torch.autograd.grad(
                self._graph,
                [self._replica.parameters[name] for name in self._values],
                cotangent.to(self._graph.dtype),
                retain_graph=True,
                allow_unused=True,
                materialize_grads=into is None,
            )
        if into is None:
            return torch.cat([part.reshape(-1) for part in parts])
        sizes = [value.numel() for value in self._values.values()]
        for part, where in zip(parts, torch.split(into, sizes), strict=True):
            if part is not None:
                where += part.reshape(-1)
        return into

    def rows(self, *, path: str = "auto", max_bytes: int = 2**25) -> Tensor:
        """J itself, of shape (b, M, P), in the dtype of the parameters; M outputs per sample.

        path: ``"vmap"`` takes all samples of a piece at once with ``torch.func``, ``"loop"`` one
            sample at a time with plain backward passes; ``"auto"`` uses the second where the first
            fails.
        max_bytes: bound on the gradients held in addition to the result, at least one row.

        Costs M backward passes per sample, and one of the whole batch to check the result.
        """
        self._outputs, rows = output_jacobian(
            self._replica, self._inputs, path=path, max_bytes=max_bytes
        )
        return rows

    def factors(
        self,
        cotangents: Cotangents | None = None,
        certificate: Certificate | None = None,
    ) -> FactoredJacobian:
        """J, or combinations of its rows, in factored form layer by layer.

        cotangents: ``cotangents(outputs) -> Tensor of shape (b, m, *out_shape)``: the directions of
            the outputs to differentiate, sample by sample. By default all M outputs one by one.
        certificate: from :meth:`certify` on some samples of the same data; layers whose
            arrangement and shapes are the same are not checked again.
        """
        found = structured_gradients(
            self._replica, self._inputs, cotangents=cotangents, certificate=certificate
        )
        self._outputs = found.outputs
        return found

    def certify(self, cotangents: Cotangents | None = None) -> Certificate:
        """Check on these samples which layers' rules reproduce a plain backward pass."""
        return certify_structure(self._replica, self._inputs, cotangents=cotangents)

    @cached_property
    def _graph(self) -> Tensor:
        """The outputs with their graph."""
        with torch.enable_grad(), math_attention():
            outputs = self._replica(self._inputs)
        self._replica.check_reached(outputs)
        return outputs

    def _forward(self, v: dict[str, Tensor]) -> Tensor:
        """``J v`` by forward mode, or by a backward pass per output where there is none."""
        try:
            moved: Tensor = torch.func.jvp(self._function, (self._values,), (v,))[1]
            return moved
        except NotImplementedError:
            z, names = self._graph, list(self._values)
            parameters = [self._replica.parameters[name] for name in names]
            found = []
            for value in z.reshape(-1):
                rows = torch.autograd.grad(
                    value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                found.append(sum((r * v[n]).sum() for n, r in zip(names, rows, strict=True)))
            return torch.stack([torch.as_tensor(value) for value in found]).reshape(z.shape)

    def _function(self, values: dict[str, Tensor]) -> Tensor:
        return self._replica.call(values, self._inputs)

    def _twice_backward(self) -> Push:
        r"""``J v`` as the derivative with respect to u of :math:`v \cdot J^T u`, linear in u.

        The backward pass is recorded once; forward mode would differentiate the network again for
        each vector, at twice the cost.
        """
        parameters = [self._replica.parameters[name] for name in self._values]
        dummy = torch.zeros_like(self._graph, requires_grad=True)
        pulled = torch.autograd.grad(
            self._graph,
            parameters,
            dummy,
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )

        def push(v: dict[str, Tensor]) -> Tensor:
            weights = [v[name] for name in self._values]
            return torch.autograd.grad(
                pulled, dummy, weights, retain_graph=True, materialize_grads=True
            )[0]

        return push
