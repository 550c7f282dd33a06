"""Self-attention of torch with its projections called as layers, so that their rules apply.

``nn.MultiheadAttention`` multiplies by its weights in one function, in which no call of a layer can
be recorded. On a replica the same formula runs instead, with a linear layer over ``in_proj_weight``
and the module's own ``out_proj``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def is_plain_attention(module: nn.Module) -> bool:
    """Whether :class:`ProjectedAttention` knows the formula of a layer."""
    return (
        isinstance(module, nn.MultiheadAttention)
        and type(module).forward is nn.MultiheadAttention.forward
        and "forward" not in vars(module)
        and module._qkv_same_embed_dim
        and module.bias_k is None
        and not module.add_zero_attn
    )


def _in_projection(module: nn.MultiheadAttention) -> nn.Linear:
    """A linear layer over the weights for queries, keys and values."""
    width = module.embed_dim
    into = nn.Linear(width, 3 * width, bias=module.in_proj_bias is not None, device="meta")
    into.weight = module.in_proj_weight
    into.bias = module.in_proj_bias
    return into


class ProjectedAttention:
    """The forward pass of one attention layer; what is not self-attention goes to its class.

    layers: the linear layer over the weights for queries, keys and values.
    """

    def __init__(self, module: nn.MultiheadAttention) -> None:
        self._module, self._into = module, _in_projection(module)
        self.layers = {"in_proj": self._into}

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        module = self._module
        if not query is key is value or query.dim() != 3:
            return nn.MultiheadAttention.forward(
                module,
                query,
                key,
                value,
                key_padding_mask=key_padding_mask,
                need_weights=need_weights,
                attn_mask=attn_mask,
                average_attn_weights=average_attn_weights,
                is_causal=is_causal,
            )
        parts = torch.unflatten(self._into(query), 2, (3, module.num_heads, -1))
        if not module.batch_first:
            parts = parts.transpose(0, 1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        scores = q @ k.mT / math.sqrt(q.shape[-1])  # (b, heads, T, T)
        if attn_mask is not None:
            shape: Any = (-1, module.num_heads) if attn_mask.dim() == 3 else (1, 1)
            scores = _masked(scores, attn_mask.reshape(*shape, *attn_mask.shape[-2:]))
        if key_padding_mask is not None:
            scores = _masked(scores, key_padding_mask[:, None, None, :])
        weights = scores.softmax(-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        result = module.out_proj(mixed if module.batch_first else mixed.transpose(0, 1))
        if not need_weights:
            return result, None
        return result, weights.mean(1) if average_attn_weights else weights


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores that are left out where a boolean mask is true, or to which a mask is added."""
    if mask.dtype == torch.bool:
        return scores.masked_fill(mask, -math.inf)
    return scores + mask
