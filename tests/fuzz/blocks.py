"""Modules of more than one layer, of which the generator builds networks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Branches(nn.Module):
    """Two readings of one tensor, joined along axis 1."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return torch.cat([self.first(x), self.second(x)], 1)


class Gate(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x * torch.sigmoid(self.inner(x))


class Tied(nn.Module):
    """x W^T, an activation, and the same W again."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.encode = nn.Linear(width, hidden)
        self.decode = nn.Linear(hidden, width)
        self.decode.weight = nn.Parameter(self.encode.weight.detach().T.clone())
        self.bias = nn.Parameter(torch.zeros(width))
        del self.decode

    def forward(self, x):
        return F.linear(torch.tanh(self.encode(x)), self.encode.weight.t(), self.bias)


class Bare(nn.Module):
    """A scale and a shift that belong to no layer of torch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(width))
        self.shift = nn.Parameter(torch.randn(width))

    def forward(self, x):
        return x * self.scale + self.shift


class Recurrent(nn.Module):
    """The output of a recurrent layer, whichever way it takes its sequence."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        if self.layer.batch_first:
            return self.layer(x)[0]
        return self.layer(x.transpose(0, 1))[0].transpose(0, 1)


class Attention(nn.Module):
    """Self-attention written out, or torch's own."""

    def __init__(self, width: int, heads: int, own: bool) -> None:
        super().__init__()
        self.own, self.heads = own, heads
        if own:
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        else:
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        if self.own:
            return self.attention(x, x, x, need_weights=False)[0]
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))


class Pool(nn.Module):
    """One vector of a sequence."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x):
        if self.how == "last":
            return x[:, -1]
        return x.mean(1) if self.how == "mean" else x.amax(1)

    def extra_repr(self) -> str:
        return self.how


class Transpose(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


class Shared(nn.Module):
    """One layer called twice with an activation between."""

    def __init__(self, layer: nn.Module, between: nn.Module) -> None:
        super().__init__()
        self.layer, self.between = layer, between

    def forward(self, x):
        return self.layer(self.between(self.layer(x)))
