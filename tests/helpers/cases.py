"""One table of small seeded networks, one for each kind of layer that a user may bring.

Every case maps a few samples to three outputs with fewer than 400 parameters, so that an oracle
can take them apart one number at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

SAMPLES = 5


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and data for it.

    Attributes
    ----------
    name : str
    build : callable
        ``build() -> module``; call :meth:`module` for a seeded one in eval mode.
    draw : callable
        ``draw(n) -> inputs``; call :meth:`inputs` for seeded ones.
    forward : callable, optional
        ``forward(module, inputs) -> Tensor`` where the call is not ``module(inputs)``.
    smooth : bool
        Whether the network is smooth in its parameters (no ReLU).
    """

    name: str
    build: Callable[[], nn.Module]
    draw: Callable[[int], Any]
    forward: Callable[[Any, Any], Tensor] | None = None
    smooth: bool = True

    def module(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.build()
            _unsettle(module)
        return module.to(dtype).eval()

    def inputs(self, n: int = SAMPLES, dtype: torch.dtype = torch.float64, seed: int = 1) -> Any:
        """Draw data; not from several threads at once, which share the random state."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            drawn = self.draw(n)

        def cast(tensor: Tensor) -> Tensor:
            return tensor.to(dtype) if tensor.is_floating_point() else tensor

        if isinstance(drawn, dict):
            return {key: cast(value) for key, value in drawn.items()}
        return tuple(map(cast, drawn)) if isinstance(drawn, tuple) else cast(drawn)

    def run(self, module: nn.Module, inputs: Any) -> Any:
        return module(inputs) if self.forward is None else self.forward(module, inputs)


def _unsettle(module: nn.Module) -> None:
    """Move statistics, scales and shifts away from their initial ones and zeros."""
    for child in module.modules():
        for key, buffer in child._buffers.items():
            if buffer is not None and key == "running_mean":
                buffer.normal_(0.0, 0.5)
            elif buffer is not None and key == "running_var":
                buffer.uniform_(0.5, 2.0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))


def _gaussian(*shape: int) -> Callable[[int], Tensor]:
    # Drawn from the global state, which Case.inputs seeds for all kinds of inputs alike.
    return lambda n: torch.randn(n, *shape)


def _indices(count: int, *shape: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randint(count, (n, *shape))


class Mean(nn.Module):
    """Average over axis 1, the positions of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class TiedTokens(nn.Module):
    """Embedding whose table is also the output matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 4)
        self.hidden = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(self.embedding(tokens)).mean(1)))


class Recurrent(nn.Module):
    """A recurrent layer read out at its last step."""

    def __init__(self, rnn: nn.RNNBase, width: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    """Self-attention with its residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        mixed, _ = self.attention(x, x, x, need_weights=False)
        return self.out(self.norm(x + mixed).mean(1))


class Bare(nn.Module):
    """Parameters that belong to no layer, one of them unused."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.scale = nn.Parameter(torch.randn(()))
        self.unused = nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight.T) * self.scale.exp()


class TiedLayers(nn.Module):
    """Two layers with one weight, the second time transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.second(torch.tanh(self.first(x))))
        return self.out(F.linear(h, self.first.weight.T))


class Reused(nn.Module):
    """One layer called twice, with one in-place activation for all."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.body(x))
        x = self.relu(self.body(x))
        return self.out(x)


class Block(nn.Module):
    """A basic residual block: one reused in-place activation, an in-place sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


class Residual(nn.Module):
    """Stem, residual block, pooled head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.block = Block(3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.block(self.stem(x))).flatten(1))


class PlainList(nn.Module):
    """Registered layers that the forward pass reads from a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)])
        self.order = list(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.order[:-1]:
            x = torch.tanh(layer(x))
        return self.order[-1](x)


class FromDict(nn.Module):
    """Indices and numbers in one dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 3)
        self.out = nn.Linear(5, 3)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = self.embedding(inputs["tokens"]).mean(1)
        return self.out(torch.cat([torch.tanh(tokens), inputs["numbers"]], 1))


@dataclasses.dataclass
class Result:
    """What a library model returns: several tensors by name."""

    logits: Tensor
    hidden: Tensor


class Returns(nn.Module):
    """Keyword inputs, a dataclass out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, *, x: Tensor) -> Result:
        hidden = torch.tanh(self.body(x))
        return Result(self.head(hidden), hidden)


def _conv(dimension: int, *args: Any, head: int, **options: Any) -> nn.Sequential:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimension - 1]
    return nn.Sequential(kind(*args, **options), nn.Tanh(), nn.Flatten(), nn.Linear(head, 3))


def _normed(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), norm, nn.Tanh(), nn.Linear(6, 3))


def _normed_maps(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 2), norm, nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def _linear() -> nn.Module:
    return nn.Linear(4, 3)


def _three_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3))


def _relu() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def _weight_norm() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))


def _transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation="gelu", batch_first=True)
    return nn.Sequential(layer, Mean(), nn.Linear(4, 3))


CASES: tuple[Case, ...] = (
    Case("linear", _linear, _gaussian(4)),
    Case("mlp", _three_layers, _gaussian(4)),
    Case("relu", _relu, _gaussian(4), smooth=False),
    Case("flatten", lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), _gaussian(2, 3)),
    Case(
        "positions",
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), Mean(), nn.Linear(4, 3)),
        _gaussian(5, 3),
    ),
    Case("conv1d", lambda: _conv(1, 2, 4, 3, head=16, padding=1, stride=2), _gaussian(2, 8)),
    Case(
        "conv1d_circular",
        lambda: _conv(1, 2, 3, 3, head=15, padding=1, padding_mode="circular"),
        _gaussian(2, 5),
    ),
    Case("conv2d", lambda: _conv(2, 2, 3, 3, head=27), _gaussian(2, 5, 5)),
    Case(
        "conv2d_groups",
        lambda: _conv(2, 4, 4, (2, 3), head=32, groups=2, stride=(2, 1), padding=(0, 1)),
        _gaussian(4, 4, 4),
    ),
    Case(
        "conv2d_dilated",
        lambda: _conv(2, 2, 3, 3, head=12, dilation=2, padding="same", bias=False),
        _gaussian(2, 2, 2),
    ),
    Case(
        "conv2d_reflect",
        lambda: _conv(2, 1, 2, 3, head=18, padding=1, padding_mode="reflect"),
        _gaussian(1, 3, 3),
    ),
    Case(
        "conv2d_replicate",
        lambda: _conv(2, 1, 2, 3, head=18, padding=1, padding_mode="replicate"),
        _gaussian(1, 3, 3),
    ),
    # More channels than positions: where a square of sums is easily taken for a sum of squares.
    Case("conv2d_wide", lambda: _conv(2, 1, 16, 2, head=64), _gaussian(1, 3, 3)),
    Case("conv3d", lambda: _conv(3, 1, 2, 2, head=16, bias=True), _gaussian(1, 3, 3, 3)),
    Case(
        "embedding",
        lambda: nn.Sequential(nn.Embedding(6, 4), Mean(), nn.Linear(4, 3)),
        _indices(6, 4),
    ),
    Case("embedding_tied", TiedTokens, _indices(3, 4)),
    Case("batchnorm", lambda: _normed(nn.BatchNorm1d(6)), _gaussian(4)),
    Case("batchnorm2d", lambda: _normed_maps(nn.BatchNorm2d(4)), _gaussian(1, 4, 4)),
    Case("layernorm", lambda: _normed(nn.LayerNorm(6)), _gaussian(4)),
    Case(
        "layernorm_positions",
        lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm((5, 4)), Mean(), nn.Linear(4, 3)),
        _gaussian(5, 3),
    ),
    Case("groupnorm", lambda: _normed_maps(nn.GroupNorm(2, 4)), _gaussian(1, 4, 4)),
    Case(
        "instancenorm", lambda: _normed_maps(nn.InstanceNorm2d(4, affine=True)), _gaussian(1, 4, 4)
    ),
    Case("rmsnorm", lambda: _normed(nn.RMSNorm(6)), _gaussian(4)),
    Case(
        "prelu",
        lambda: nn.Sequential(nn.Linear(4, 5), nn.PReLU(5), nn.Linear(5, 3)),
        _gaussian(4),
        smooth=False,
    ),
    Case("lstm", lambda: Recurrent(nn.LSTM(3, 4, batch_first=True), 4), _gaussian(4, 3)),
    Case(
        "lstm_two_ways",
        lambda: Recurrent(nn.LSTM(2, 2, 2, batch_first=True, bidirectional=True), 4),
        _gaussian(3, 2),
    ),
    Case("gru", lambda: Recurrent(nn.GRU(3, 4, batch_first=True), 4), _gaussian(4, 3)),
    Case("attention", Attention, _gaussian(5, 4)),
    Case("transformer", _transformer, _gaussian(5, 4)),
    Case("bare", Bare, _gaussian(4)),
    Case("tied", TiedLayers, _gaussian(4)),
    Case("reused", Reused, _gaussian(4), smooth=False),
    Case("residual", Residual, _gaussian(1, 4, 4), smooth=False),
    Case("weight_norm", _weight_norm, _gaussian(4)),
    Case("plain_list", PlainList, _gaussian(4)),
    Case(
        "dict",
        FromDict,
        lambda n: {"tokens": torch.randint(6, (n, 3)), "numbers": torch.randn(n, 2)},
    ),
    Case("returns", Returns, _gaussian(4), forward=lambda module, x: module(x=x).logits),
)

BY_NAME: dict[str, Case] = {case.name: case for case in CASES}
