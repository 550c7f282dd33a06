"""Repeated directional derivatives of a function of a batch, one direction per sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def push(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    *directions: Tensor,
    create_graph: bool = False,
) -> tuple[Tensor, ...]:
    r"""Value of a function and its repeated derivatives along given directions.

    function: from (b, n) to (b, \*out_shape), sample by sample.
    create_graph: whether the results are on a graph to the parameters that the function closes
        over.
    Returns: :math:`f(x),\ Df(x)[u_1],\ D^2 f(x)[u_1, u_2], \dots`.

    With a cotangent :math:`c`, let :math:`s_1 = \langle J^T c, u_1 \rangle` and
    :math:`s_{k+1} = \langle \partial_x s_k, u_{k+1} \rangle`. Each is linear in :math:`c`, and its
    derivative with respect to :math:`c` is the k-th result. This takes one more backward pass per
    direction, and no derivative with respect to `x` beyond the requested order. The latter matters
    because kernels that save statistics treat them as constants in third derivatives.

    >>> x, u = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    >>> [float(value) for value in push(lambda x: x**3, x, u, u)]
    [8.0, 12.0, 12.0]
    """
    # x (b, n); *directions (b, n)
    x = x.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        value = function(x)
        results = [value]
        cotangent = torch.zeros_like(value, requires_grad=True)
        along = (cotangent * value).sum()
        for direction in directions:
            pulled = _gradient(along, x)
            along = (pulled * direction.detach().to(x)).sum()
            results.append(_gradient(along, cotangent, create_graph=create_graph))
    return tuple(results) if create_graph else tuple(result.detach() for result in results)


def _gradient(value: Tensor, by: Tensor, create_graph: bool = True) -> Tensor:
    if not value.requires_grad:  # it does not depend on the variable
        return torch.zeros_like(by)
    (found,) = torch.autograd.grad(
        value,
        by,
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return found


class plain_normalisation(TorchFunctionMode):
    """Context in which layer and instance normalisation are computed from plain operations.

    The second derivatives of the fused kernels treat the saved mean and variance as constants, so a
    third derivative, such as that of a curvature with respect to the weights, is silently wrong.
    Affects the current thread only. Running statistics are not updated.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        plain = _PLAIN.get(func)
        return (plain or func)(*args, **(kwargs or {}))


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    result = _standardised(input, tuple(range(-len(normalized_shape), 0)), eps)
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:  # running statistics are constants
        return F.instance_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    result = _standardised(input, tuple(range(2, input.dim())), eps)
    shape = (1, -1, *[1] * (input.dim() - 2))
    result = result if weight is None else result * weight.reshape(shape)
    return result if bias is None else result + bias.reshape(shape)


def _standardised(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()


_PLAIN: dict[Any, Callable[..., Tensor]] = {
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.instance_norm: _instance_norm,
}
