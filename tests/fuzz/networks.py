"""Random networks of at most 200 parameters, each with data and targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fuzz.blocks import Transpose
from fuzz.draw import Draw
from fuzz.layers import next_layer

MOST_PARAMETERS = 200
MOST_ENTRIES = 40
LIKELIHOODS = {
    "categorical": 3.0, "bernoulli": 1.0, "gaussian": 2.0, "gaussian_scale": 1.0, "poisson": 1.0
}  # fmt: skip
SCALES = (1e-8, 1e-4, 1e-2, 1e2, 1e4, 1e8)


@dataclass(frozen=True)
class Case:
    """One network with its data: everything that a measurement is given."""

    recipe: str
    module: nn.Sequential
    inputs: Tensor
    targets: Tensor | None
    likelihood: str  # that of the outputs; what the measurement is told may be "auto"
    told: str

    @property
    def arguments(self) -> dict[str, object]:
        return {"y": self.targets, "likelihood": self.told}


def make_case(seed: int) -> Case:
    draw = Draw(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inputs = _inputs(draw)
        likelihood = draw.weighted(LIKELIHOODS)
        module = _network(draw, inputs, likelihood)
    dtype = draw.weighted({torch.float64: 0.55, torch.float32: 0.37, torch.bfloat16: 0.08})
    module, inputs = module.to(dtype).eval(), _degenerate(draw, inputs)
    if inputs.is_floating_point():
        inputs = inputs.to(dtype)
    _scale(draw, module)
    _freeze(draw, module)
    told, targets = _targets(draw, likelihood, module, inputs)
    draw.note(f"{dtype}, X {tuple(inputs.shape)}, {likelihood} told as {told}")
    draw.note(repr(module).replace("\n", " "))
    return Case(str(draw), module, inputs, targets, likelihood, told)


def _inputs(draw: Draw) -> Tensor:
    n = draw.weighted({1: 0.1, 2: 0.1, 5: 0.4, 8: 0.3, 20: 0.1})
    kind = draw.weighted({"vector": 5, "sequence": 2, "signal": 2, "image": 2, "tokens": 1})
    draw.note(kind)
    few = draw.integer
    if kind == "tokens":
        return draw.integers(5, n, few(1, 4))
    shape = {
        "vector": (few(1, 6),), "sequence": (few(1, 4), few(1, 4)),
        "signal": (few(1, 3), few(3, 7)),
        "image": (few(1, 2), few(3, 5), few(3, 5)),
    }[kind]  # fmt: skip
    return draw.normal(n, *shape)


def _network(draw: Draw, inputs: Tensor, likelihood: str) -> nn.Sequential:
    """Layers as long as they fit, and a linear one that ends in outputs."""
    kind, layers, x = draw.recipe[0], [], inputs
    if kind == "tokens":
        padding = draw.choice((None, 0))
        layers, kind = (
            [nn.Embedding(5, draw.integer(1, 4), padding_idx=padding).double()],
            "sequence",
        )
        x = layers[0](x)
    for _ in range(draw.integer(1, 9)):
        if layers and draw.chance(0.08):
            layer = draw.choice(layers)  # the same module once more
        else:
            layer = next_layer(draw, kind, tuple(x.shape[1:])).double()
        found = _try(layer, x)
        if found is None or found[0].numel() > MOST_ENTRIES or len(found) != len(x):
            continue
        if _count([*layers, layer]) > MOST_PARAMETERS - 40 or found.dim() not in (2, 3, 4):
            continue
        kind = _kind_after(layer, kind, found)
        layers.append(layer)
        x = found
    if x.dim() > 2 and not (kind == "sequence" and x.dim() == 3 and draw.chance(0.4)):
        layers.append(nn.Flatten())
        x = x.flatten(1)
    even = likelihood == "gaussian_scale"
    outputs = 2 * draw.integer(1, 2) if even else draw.integer(1 + (likelihood == "categorical"), 4)
    layers.append(nn.Linear(x.shape[-1], outputs, bias=draw.chance(0.8)).double())
    return nn.Sequential(*layers)


def _kind_after(layer: nn.Module, kind: str, found: Tensor) -> str:
    if found.dim() != 3:
        return "vector" if found.dim() == 2 else "image"
    if isinstance(layer, Transpose):
        return "signal" if kind == "sequence" else "sequence"
    return kind if kind in ("sequence", "signal") else "signal"


def _try(layer: nn.Module, x: Tensor) -> Tensor | None:
    """What the layer gives for x, or None where it does not fit."""
    try:
        with torch.no_grad():
            layer.eval()(x[:1].clone())  # GroupNorm refuses one sample of one number per group
            found = layer(x.clone())
    except (RuntimeError, ValueError, AssertionError):
        return None
    return found if bool(found.isfinite().all()) and found.numel() else None


def _count(layers: list[nn.Module]) -> int:
    return sum(p.numel() for p in nn.Sequential(*layers).parameters())


def _degenerate(draw: Draw, x: Tensor) -> Tensor:
    how = draw.weighted({"plain": 6, "duplicates": 1, "zeros": 0.7, "constant": 0.7, "scaled": 1.5})
    x = x.clone()
    if how == "duplicates":
        x[1:] = x[:1] if draw.chance(0.5) else x[1:]
        x[-1] = x[0]
    elif how == "zeros":
        x[: draw.choice((1, len(x)))] = 0
    elif how == "constant":
        x[(slice(None), *(0 for _ in x.shape[1:]))] = 1
    elif how == "scaled" and x.is_floating_point():
        scale = draw.choice(SCALES)
        x, how = x * scale, f"scaled by {scale:g}"
    draw.note(f"data {how}")
    return x


def _scale(draw: Draw, module: nn.Module) -> None:
    """Now and then weights of another size, all or those of one tensor, or biases of zero."""
    how = draw.weighted({"none": 6, "all": 1, "one": 1, "no bias": 0.5, "zero": 0.3})
    parameters = dict(module.named_parameters())
    name, scale = draw.choice(list(parameters)), draw.choice(SCALES)
    with torch.no_grad():
        for key, parameter in parameters.items():
            if how == "all" or (how == "one" and key == name):
                parameter.mul_(scale if how == "one" else scale ** (1 / 3))
            elif (how == "no bias" and key.endswith("bias")) or (how == "zero" and key == name):
                parameter.zero_()
    if how != "none":
        draw.note(f"weights {how}: {name} {scale:g}")


def _freeze(draw: Draw, module: nn.Module) -> None:
    parameters = list(module.named_parameters())
    if draw.chance(0.15) and len(parameters) > 1:
        frozen = [p for _, p in parameters[:-1] if draw.chance(0.5)]
        for parameter in frozen:
            parameter.requires_grad_(False)
        draw.note(f"{len(frozen)} of {len(parameters)} frozen")


def _targets(
    draw: Draw, likelihood: str, module: nn.Module, inputs: Tensor
) -> tuple[str, Tensor | None]:
    """Mostly the likelihood by name; else targets that decide it."""
    if likelihood not in ("categorical", "gaussian") or draw.chance(0.7):
        return likelihood, None
    with torch.no_grad():
        shape = tuple(module(inputs.clone()).shape)
    if likelihood == "categorical":
        return "auto", draw.integers(shape[-1], *shape[:-1])
    return "auto", draw.normal(*shape).float()
