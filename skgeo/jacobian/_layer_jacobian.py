"""Products with the Jacobian between two places of a recorded forward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.jacobian._layer import Layer
from skgeo.network._agreement import agree, seeded_normal
from skgeo.network._switches import math_attention, silent_vmap

# Bytes in one batched pass.
_CHUNK_BYTES = 2**26


class LayerJacobian:
    r"""The Jacobian J between two places of one recorded batch, as a linear operator.

    Made by :meth:`Recording.operator`. A product costs about one backward pass between the
    places.

    output: (b, \*out_shape), the target with its graph.
    tensor: the source.
    batched: whether several vectors may go through one pass.
    arithmetic: the coarsest dtype in which the network computes.
    Raises SkgeoError if an operation between the two has no second derivative, which products with
        J require.
    """

    def __init__(
        self,
        output: Tensor,
        tensor: Tensor,
        source: Layer,
        batched: bool,
        arithmetic: torch.dtype,
    ) -> None:
        self._output, self._tensor, self._source = output, tensor, source
        self._batched, self._arithmetic = batched, arithmetic
        try:
            with torch.enable_grad(), math_attention():
                self._dummy = torch.zeros_like(output, requires_grad=True)
                # J^T u is linear in the cotangent u, and the derivative of v J^T u with respect to
                # u is J v. This needs second derivatives, which most kernels have, and not
                # forward-mode rules, which many lack.
                (self._pulled,) = torch.autograd.grad(
                    output, tensor, self._dummy, create_graph=True
                )
            agrees = self._is_adjoint()
        except (RuntimeError, NotImplementedError) as error:
            raise SkgeoError(
                f"No products with the Jacobian with respect to {source.name!r} can be formed: "
                f"{error}"
            ) from error
        if not agrees:
            raise SkgeoError(
                f"Products with the Jacobian with respect to {source.name!r} and with its "
                "transpose do not agree: something after that layer has no second derivative."
            )

    def _is_adjoint(self) -> bool:
        """Whether u (J v) = (J^T u) v; a derivative that was not recorded would give zeros."""
        size = len(self._output)
        v = seeded_normal(size, self._source.dim, like=self._tensor)
        u = seeded_normal(size, self._output[0].numel(), like=self._output, seed=1)
        pushed, pulled = self.push(v), self.pull(u)
        scales = pushed.norm(dim=1) * u.norm(dim=1), pulled.norm(dim=1) * v.norm(dim=1)
        scale = float(torch.maximum(*scales).max())
        one, other = (pushed * u).sum(1), (pulled * v).sum(1)
        return agree(one, other, self._arithmetic, scale, by_entry=True)

    def push(self, vectors: Tensor) -> Tensor:
        """``J v`` for each sample: (b, n_source) to (b, n_target)."""
        with math_attention():
            return self._push(vectors)

    def pull(self, cotangents: Tensor) -> Tensor:
        """``J^T u`` for each sample: (b, n_target) to (b, n_source)."""
        with math_attention():
            (found,) = torch.autograd.grad(
                self._output,
                self._tensor,
                cotangents.to(self._output.dtype).reshape(self._output.shape),
                retain_graph=True,
            )
        return found.movedim(self._source.axis, 0).reshape(len(cotangents), -1)

    def push_columns(self, matrix: Tensor, max_bytes: int = _CHUNK_BYTES) -> Tensor:
        """``J A`` for each sample: (b, n_source, c) to (b, n_target, c), in passes of `max_bytes`.

        The result is not contiguous: the columns come first in memory.
        """
        count = matrix.shape[2]
        each = (matrix[:, :, :1].numel() + self._output.numel()) * self._output.element_size()
        step = max(1, min(count, max_bytes // max(each, 1))) if self._batched else 1
        parts = []
        with math_attention(), silent_vmap():
            for block in torch.split(matrix.permute(2, 0, 1), step):
                if step > 1:
                    parts.append(self._push_many(block))
                else:
                    parts.append(self._push(block[0]).unsqueeze(0))
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.permute(1, 2, 0)

    def _push(self, vectors: Tensor) -> Tensor:
        moved = vectors.to(self._tensor.dtype).reshape(len(vectors), *self._source.shape)
        (found,) = torch.autograd.grad(
            self._pulled,
            self._dummy,
            moved.movedim(0, self._source.axis),
            retain_graph=True,
            materialize_grads=True,
            allow_unused=True,
        )
        return found.reshape(len(vectors), -1)

    def _push_many(self, vectors: Tensor) -> Tensor:
        """Several vectors in one pass: (c, b, n_source) to (c, b, n_target)."""
        moved = vectors.to(self._tensor.dtype).reshape(*vectors.shape[:2], *self._source.shape)
        (found,) = torch.autograd.grad(
            self._pulled,
            self._dummy,
            moved.movedim(1, self._source.axis + 1),
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
        if found is None:
            found = self._output.new_zeros(len(vectors), *self._output.shape)
        return found.reshape(*vectors.shape[:2], -1)
