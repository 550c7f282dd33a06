"""A small convolutional network and a transformer of one layer, from a local generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from skgeo.exceptions import SkgeoError


def seeded_weights(build: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """A module with weights of variance 1 / fan-in, and biases zero, in float64.

    Its own initialisation runs on no device, so nothing is drawn from the global state.
    """
    with torch.device("meta"):
        module = build()
    module = module.to_empty(device="cpu").double()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim < 2:
                parameter.zero_()
                continue
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(draw / math.sqrt(parameter[0].numel()))
    return module


def conv_network(channels: Sequence[int], activation: Callable[[], nn.Module] | None) -> nn.Module:
    """Two convolutions on 8 x 8 pixels, each followed by a mean over 2 x 2, and ten logits."""
    if len(channels) != 2:
        raise SkgeoError(
            f"Got hidden={tuple(channels)!r}: the convolutional network has two layers; "
            "expected two "
            "numbers of channels, such as (8, 16)."
        )
    first, second = channels
    act = activation or nn.Identity
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, first, 3, padding=1),
        act(),
        nn.AvgPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        act(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * second, 10),
    )


class OneLayerTransformer(nn.Module):
    """One layer of attention and one hidden layer on two tokens, with logits at the second.

    Without normalisation of layers, as in studies of modular addition, and with four heads.

    sizes: dimensions of the residual stream, and of the hidden layer.
    """

    def __init__(
        self, n_tokens: int, sizes: Sequence[int], activation: Callable[[], nn.Module] | None
    ) -> None:
        super().__init__()
        if len(sizes) != 2 or sizes[0] % 4:
            raise SkgeoError(
                f"Got hidden={tuple(sizes)!r}: the transformer has a residual stream that 4 heads "
                "divide and a hidden layer; expected two numbers, such as (32, 64)."
            )
        width, hidden = sizes
        self.tokens = nn.Embedding(n_tokens, width)
        self.positions = nn.Parameter(torch.zeros(2, width))
        self.query, self.key, self.value, self.mix = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.up = nn.Linear(width, hidden)
        self.act = (activation or nn.Identity)()
        self.down = nn.Linear(hidden, width)
        self.logits = nn.Linear(width, n_tokens, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits: (n, 2) to (n, n_tokens)."""
        x = self.tokens(tokens) + self.positions
        query, key, value = (
            layer(x).unflatten(-1, (4, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        heads = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.mix(heads.transpose(1, 2).flatten(2))
        x = x + self.down(self.act(self.up(x)))
        logits: Tensor = self.logits(x[:, -1])
        return logits
