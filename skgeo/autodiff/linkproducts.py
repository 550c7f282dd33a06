"""Products with the Jacobian between two places of a recorded forward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from skgeo.autodiff.outputs import agreement_tolerance
from skgeo.autodiff.recording import Layer, LayerOperator
from skgeo.autodiff.switches import math_attention, silent_vmap
from skgeo.exceptions import SkgeoError

__all__ = ["LinkOperator", "seeded_normal"]

_CHUNK_BYTES = 2**26


class LinkOperator:
    r"""Products with the Jacobian J between two places of one recorded batch.

    Made by :meth:`ChainRecording.operator`. A product costs about one backward pass of what lies
    between them.

    Parameters
    ----------
    output : Tensor of shape (b, \*out_shape)
        With its graph.
    tensor : Tensor
        At the source.
    layer : Layer
        The source.
    batched : bool
        Whether several vectors may go through one pass.

    Raises
    ------
    SkgeoError
        If something between the two has no second derivative, of which products with J are made.
    """

    def __init__(self, output: Tensor, tensor: Tensor, layer: Layer, batched: bool) -> None:
        self._output, self._layer, self._batched = output, layer, batched
        size = len(output)
        try:
            with torch.enable_grad(), math_attention():
                self._operator = LayerOperator(output, tensor, layer)
            # A derivative that was not recorded would give zeros: u (J v) must be (J^T u) v.
            v, u = (
                seeded_normal(size, layer.dim).to(tensor),
                seeded_normal(size, output[0].numel()).to(output),
            )
            pushed, pulled = self.push(v), self.pull(u)
        except (RuntimeError, NotImplementedError) as error:
            raise SkgeoError(
                f"no products with the Jacobian by {layer.name!r} can be formed: {error}"
            ) from error
        one, other = (pushed * u).sum(1), (pulled * v).sum(1)
        scale = float((pushed.norm(dim=1) * u.norm(dim=1)).max())
        scale = max(scale, float((pulled.norm(dim=1) * v.norm(dim=1)).max()))
        if not float((one - other).abs().max()) <= agreement_tolerance(output.dtype, scale):
            raise SkgeoError(
                f"products with the Jacobian by {layer.name!r} and with its transpose do not "
                "agree: something behind that layer has no second derivative."
            )

    def push(self, vectors: Tensor) -> Tensor:
        """``J v`` for each sample: (b, n_source) to (b, n_target)."""
        with math_attention():
            return self._operator.push(vectors).reshape(len(vectors), -1)

    def pull(self, cotangents: Tensor) -> Tensor:
        """``J^T u`` for each sample: (b, n_target) to (b, n_source)."""
        with math_attention():
            return self._operator.pull(cotangents.reshape(self._output.shape))

    def push_columns(self, matrix: Tensor, max_bytes: int = _CHUNK_BYTES) -> Tensor:
        """``J A`` for each sample: (b, n_source, c) to (b, n_target, c).

        Parameters
        ----------
        matrix : Tensor of shape (b, n_source, c)
        max_bytes : int, default=2**26
            Bound on what goes through one pass.

        Returns
        -------
        Tensor of shape (b, n_target, c)
            Not contiguous: the columns come first in memory.
        """
        size, _, count = matrix.shape
        each = (matrix[:, :, :1].numel() + self._output.numel()) * self._output.element_size()
        step = max(1, min(count, max_bytes // max(each, 1))) if self._batched else 1
        columns = matrix.permute(2, 0, 1)
        parts = []
        with math_attention(), silent_vmap():
            for start in range(0, count, step):
                block = columns[start : start + step]
                moved = self._operator.push_many(block) if step > 1 else None
                if moved is None:
                    moved = torch.stack([self._operator.push(one) for one in block])
                parts.append(moved.reshape(len(block), size, -1))
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.permute(1, 2, 0)


def seeded_normal(*shape: int) -> Tensor:
    """Normal numbers in float64 that are the same at every call, for checks."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
