"""Small networks of the kinds that people use, with what makes each of them hard to take apart."""

import torch
from torch import nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Residual block: BatchNorm, one in-place activation used twice, an in-place sum."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """Stem with in-place activation and pooling, three stages, a linear head."""

    def __init__(self, n_classes=4):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 4, 1))
        self.layer2 = nn.Sequential(BasicBlock(4, 8, 2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, n_classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Encoder(nn.Module):
    """Pre-norm transformer block around nn.MultiheadAttention."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x, mask):
        h = self.norm1(x)
        x = x + self.attention(h, h, h, key_padding_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Token classifier: embedding, positions, three blocks, masked mean, head."""

    def __init__(self, vocabulary=11, width=8, n_classes=4):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(16, width))
        self.blocks = nn.ModuleList([Encoder(width, 2) for _ in range(3)])
        self.head = nn.Linear(width, n_classes)

    def forward(self, tokens):
        mask = tokens == 0
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        weights = (~mask).unsqueeze(-1).to(x.dtype)
        return self.head((x * weights).sum(1) / weights.sum(1))


class Lstm(nn.Module):
    """Token classifier read out at the last step, positions first inside."""

    def __init__(self, vocabulary=11, width=6, n_classes=4):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 5)
        self.lstm = nn.LSTM(5, width, num_layers=2)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, tokens):
        h, _ = self.lstm(self.embedding(tokens).transpose(0, 1))
        return self.head(self.norm(h[-1]))


class Mlp(nn.Module):
    """Functional activations, so that no module is one."""

    def __init__(self, n_classes=4):
        super().__init__()
        self.first, self.second = nn.Linear(6, 20), nn.Linear(20, 12)
        self.head = nn.Linear(12, n_classes)

    def forward(self, x):
        return self.head(torch.tanh(self.second(F.gelu(self.first(x)))))


def tokens(n):
    drawn = torch.randint(1, 11, (n, 7))
    drawn[0, 5:] = 0  # padding
    return drawn


NETWORKS = {
    "resnet": (ResNet, lambda n: torch.randn(n, 1, 10, 10)),
    "transformer": (Transformer, tokens),
    "lstm": (Lstm, tokens),
    "mlp": (Mlp, lambda n: torch.randn(n, 6)),
}


def build(name, n=6, dtype=torch.float64):
    """A seeded network in eval mode, after some steps that move its statistics, and inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, draw = NETWORKS[name]
        module = network().train()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
        for _ in range(10):
            optimizer.zero_grad()
            F.cross_entropy(module(draw(16)), torch.randint(4, (16,))).backward()
            optimizer.step()
        optimizer.zero_grad()
        inputs = draw(n)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    return module.to(dtype).eval(), inputs
