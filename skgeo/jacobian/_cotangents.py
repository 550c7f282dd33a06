"""Pull-back of several cotangents of the outputs to several tensors of one graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError, said
from skgeo.network._switches import math_attention, silent_vmap

# Memory of the gradients with respect to the chosen tensors in one batched backward pass.
_CHUNK_BYTES = 2**26
# More cotangents per pass only need more memory: inner layers may be wider than the chosen ones.
_TOGETHER = 64


def pull_back(
    output: Tensor,
    tensors: Sequence[Tensor],
    cotangents: Callable[[slice], Tensor],
    count: int,
    *,
    axes: Sequence[int] | None = None,
    batched: bool = True,
    max_bytes: int = _CHUNK_BYTES,
) -> list[Tensor]:
    r"""Rows :math:`v_k^T\, \partial z / \partial h_l` for every cotangent k and every tensor l.

    output: (b, \*out_shape), with its graph.
    tensors: tensors from which `output` was computed.
    cotangents: ``cotangents(slice) -> Tensor`` of shape (c, b, \*out_shape), the cotangents of a
        slice. They are made when needed, since all together may need more memory than the rows.
    axes: the axis of the samples in each tensor; by default the first.
    batched: whether several cotangents may go through one backward pass (torch's
        ``is_grads_batched``), 64 at most: all of them where `max_bytes` hold the result, else what
        1/32 of it holds, and single ones where that is fewer than four.
    max_bytes: bound on the gradients of `tensors` in one backward pass, never less than those of
        one cotangent. Inner layers may take a few times as much meanwhile.
    Returns one tensor (b, count, n_l) per tensor, not necessarily contiguous.
    Raises SkgeoError if the graph cannot be differentiated.
    """
    axes = [0] * len(tensors) if axes is None else list(axes)
    one = max(1, sum(t.numel() * t.element_size() for t in tensors))
    step = min(_TOGETHER, max_bytes // (32 * one))
    if count <= _TOGETHER and count * one <= max_bytes:
        step = count
    with math_attention(), silent_vmap():
        if batched and step >= min(count, 4):
            try:
                return _chunks(output, tensors, cotangents, count, axes, step)
            except (RuntimeError, NotImplementedError):  # an operation that vmap cannot batch
                pass
        try:
            return _chunks(output, tensors, cotangents, count, axes, None)
        except (RuntimeError, NotImplementedError) as error:
            raise SkgeoError(
                f"The outputs cannot be differentiated with respect to the layers: {said(error)}"
            ) from error


def _chunks(
    output: Tensor,
    tensors: Sequence[Tensor],
    cotangents: Callable[[slice], Tensor],
    count: int,
    axes: list[int],
    step: int | None,
) -> list[Tensor]:
    """Run the backward passes, `step` cotangents each, or one each without batching for None."""
    size = len(output)
    rows: list[Tensor] = []
    for start in range(0, count, step or 1):
        which = slice(start, min(start + (step or 1), count))
        block = cotangents(which).to(output)
        found = torch.autograd.grad(
            output,
            list(tensors),
            block[0] if step is None else block,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=step is not None,
        )
        parts = []
        for tensor, gradient, axis in zip(tensors, found, axes, strict=True):
            if gradient is None:
                gradient = tensor.new_zeros((len(block), *tensor.shape))
            elif step is None:
                gradient = gradient.unsqueeze(0)
            flat = gradient.movedim(axis + 1, 1).reshape(len(block), size, -1)
            parts.append(flat.transpose(0, 1))
        if len(block) == count:
            return parts  # without another copy, which takes noticeable time
        if not rows:
            rows = [part.new_empty((size, count, part.shape[2])) for part in parts]
        for into, part in zip(rows, parts, strict=True):
            into[:, which] = part
    return rows


def unit_cotangents(output: Tensor) -> Callable[[slice], Tensor]:
    """Unit cotangents, which give the rows of the Jacobian.

    >>> import torch
    >>> unit_cotangents(torch.zeros(1, 3))(slice(1, 3))
    tensor([[[0., 1., 0.]],
            [[0., 0., 1.]]])
    """
    width = output[0].numel()

    def units(which: slice) -> Tensor:
        index = torch.arange(which.start, which.stop, device=output.device)
        block = torch.nn.functional.one_hot(index, width).to(output.dtype)
        return block.reshape(-1, 1, *output.shape[1:]).expand(-1, *output.shape)

    return units
