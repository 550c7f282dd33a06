"""The output Jacobian of a batch as an operator: ``J v`` and ``J^T u`` without J."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skgeo.autodiff.batch import Inputs
from skgeo.autodiff.replica import Replica
from skgeo.autodiff.switches import math_attention

__all__ = ["OutputOperator"]


class OutputOperator:
    r"""Products with :math:`J = \partial z / \partial\theta` for all outputs of one batch.

    The forward pass and its backward pass are recorded once; each product then costs about as much
    as one backward pass.

    Parameters
    ----------
    replica : Replica
    inputs : Tensor, dict of str to Tensor, or tuple of Tensor
        A batch, samples first.

    Attributes
    ----------
    outputs : Tensor of shape (b, \*out_shape)
        Without a graph.
    """

    def __init__(self, replica: Replica, inputs: Inputs) -> None:
        self._replica = replica
        self._names = replica.selected
        self._sizes = [replica.parameters[name].numel() for name in self._names]
        self._values = {name: replica.parameters[name].detach() for name in self._names}
        self._inputs = inputs
        with torch.enable_grad(), math_attention():
            self._graph = replica(inputs)
            self._push = self._linear_map()
        self.outputs = self._graph.detach()

    def _linear_map(self) -> Callable[[dict[str, Tensor]], Tensor]:
        r"""``J v`` as the derivative by u of :math:`u \mapsto v \cdot J^T u`, which is linear in u.

        The backward pass is recorded once; forward mode would derive the network anew for each
        vector, at twice the cost.
        """
        try:
            return self._twice_backward()
        except RuntimeError:  # an operation whose derivative has none in turn
            return lambda v: torch.func.jvp(self._function, (self._values,), (v,))[1]

    def _function(self, values: dict[str, Tensor]) -> Tensor:
        return self._replica.call(values, self._inputs)

    def _twice_backward(self) -> Callable[[dict[str, Tensor]], Tensor]:
        parameters = [self._replica.parameters[name] for name in self._names]
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
            weights = [v[name] for name in self._names]
            return torch.autograd.grad(
                pulled, dummy, weights, retain_graph=True, materialize_grads=True
            )[0]

        push(self._values)  # raises here rather than later
        return push

    def push(self, vector: Tensor) -> Tensor:
        """``J v``.

        Parameters
        ----------
        vector : Tensor of shape (P,)
            In the order of ``replica.selected``.

        Returns
        -------
        Tensor of the shape of the outputs
        """
        parts = {
            name: part.view_as(self._values[name]).to(self._values[name].dtype)
            for name, part in zip(self._names, vector.split(self._sizes), strict=True)
        }
        with math_attention():
            return self._push(parts).detach()

    def pull(self, cotangent: Tensor) -> Tensor:
        """``J^T u``.

        Parameters
        ----------
        cotangent : Tensor of the shape of the outputs

        Returns
        -------
        Tensor of shape (P,)
        """
        with math_attention():
            parts = torch.autograd.grad(
                self._graph,
                [self._replica.parameters[name] for name in self._names],
                cotangent.to(self._graph.dtype),
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        return torch.cat([part.reshape(-1) for part in parts])
