"""Copies, disguises and near misses: certificates against outputs, generators against rows."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fuzz.compare import is_clear, rank_apart
from fuzz.draw import Draw
from fuzz.networks import Case
from fuzz.oracle import Answer
from fuzz.verdicts import Trial, Verdict
from helpers.planted import Planter, as_module
from skgeo.symmetry import equivalent, generators, nullity_account

# Columns of weights that are flat have at most this share of the largest derivative.
FLAT = 1e-6


def check_generators(trial: Trial, case: Case, found: Answer) -> None:
    """Every generator is flat, and there are no more than the null space has dimensions.

    found: of the weighted rows. The package computes symmetries in float64.
    """
    clear = is_clear(found) and found.eigenvalues.size > 0
    own = {"likelihood": case.told}
    account, notes = trial.run(
        "nullity account", lambda: nullity_account(case.module, case.inputs, case.targets, **own)
    )
    if account is not None and account.decision is not None:
        wrong = rank_apart(account.fisher_rank, found, account.decision.tol) if clear else "?"
        trial.judge("nullity account", wrong, notes, clear=clear)
    flat, notes = trial.run(
        "generators", lambda: generators(case.module, case.inputs, case.targets, **own)
    )
    if flat is None:
        return
    columns = flat.matrix.toarray()
    if not clear or not columns.size:
        trial.judge("generators", "" if not columns.size else "?", notes, clear=clear)
        return
    unit = columns / np.linalg.norm(columns, axis=0)
    left = np.linalg.norm(found.rows @ unit, axis=0)
    size = found.eigenvalues[0] ** 0.5
    bad = left > (FLAT + 30 * found.noise) * size
    wrong = f"column {bad.argmax()} moves outputs: {left.max() / size:.2g}" if bad.any() else ""
    if not wrong and flat.n_generators > unit.shape[0] - found.count(1e-4):
        wrong = f"{flat.n_generators} generators, rank {found.count(1e-4)} of {unit.shape[0]}"
    trial.judge("generators", wrong, notes, clear=size > 0)


def check_equivalence(trial: Trial, case: Case, seed: int) -> None:
    """A copy is not different; a near miss whose outputs differ is not equivalent."""
    draw = Draw(seed)
    module = copy.deepcopy(case.module).double()
    x = case.inputs.double() if case.inputs.is_floating_point() else case.inputs
    same = copy.deepcopy(module)
    report, notes = trial.run("equivalent: copy", lambda: equivalent(module, same, x))
    if report is not None:
        _judge(trial, "equivalent: copy", report, notes, differ=False)
    other = copy.deepcopy(module)
    change = near_miss(draw, other)
    if change is None:
        return
    probes = _probes(draw, case.inputs)
    try:
        differ = _differ(module, other, probes)
    except (RuntimeError, ValueError):  # the change does not fit the inputs
        return
    report, notes = trial.run("equivalent: near miss", lambda: equivalent(module, other, x))
    if report is not None:
        _judge(trial, "equivalent: near miss", report, notes, differ=differ, what=change)


def check_planted(trial: Trial, seed: int) -> None:
    """One hidden layer in a disguise, and the disguise with one weight moved."""
    plant, draw = Planter(seed), Draw(seed)
    d, n, k = plant.sizes()
    network = plant.network(d, n, k)
    if draw.chance(0.3):
        network = plant.annihilating(max(d, 6), n, k)
    hidden = plant.disguise(*network)
    if draw.chance(0.4):
        hidden = plant.disguise(*plant.split(*hidden))
    if draw.chance(0.3):
        hidden = plant.degenerate(*hidden)
    a, b = as_module(network), as_module(hidden)
    report, notes = trial.run("equivalent: disguise", lambda: equivalent(a, b))
    if report is not None:
        _judge(trial, "equivalent: disguise", report, notes, differ=False)
    with torch.no_grad():
        b[0].weight[0, 0] += 1e-3 * b[0].weight.abs().max()
    differ = _differ(a, b, [s * plant.normal(200, n) for s in (0.1, 1.0, 10.0)])
    report, notes = trial.run("equivalent: moved weight", lambda: equivalent(a, b))
    if report is not None:
        _judge(trial, "equivalent: moved weight", report, notes, differ=differ)


def _judge(
    trial: Trial, quantity: str, report: Any, notes: list[Warning], *, differ: bool, what: str = ""
) -> None:
    if report.verdict == "undecided" and quantity == "equivalent: copy":
        trial.add(quantity, "wrong", f"a copy is undecided: {report.reason}")
        return
    if report.verdict == "undecided":
        trial.add(quantity, "refused", f"undecided: {report.reason}")
        return
    if differ:
        wrong = f"equivalent after {what}" if report.verdict == "equivalent" else ""
    else:
        wrong = ""
        # A change that random probes do not see may still be one: the witness tells.
        if report.verdict == "different" and not what:
            wrong = f"different: {report.reason}"
    trial.judge(quantity, wrong, notes)


def near_miss(draw: Draw, module: nn.Module) -> str | None:
    """Change one option, buffer or weight of one submodule; what was changed, or None."""
    changes: list[tuple[str, Callable[[], None]]] = []

    def option(child: nn.Module, name: str, key: str, value: Any) -> None:
        if getattr(child, key) != value:
            changes.append((f"{name}.{key} = {value}", lambda: setattr(child, key, value)))

    for name, child in module.named_modules():
        for key in ("negative_slope", "alpha", "beta", "lambd", "threshold", "min_val", "max_val"):
            if isinstance(getattr(child, key, None), float):
                option(child, name, key, getattr(child, key) * 1.25 + 0.01)
        if isinstance(child, nn.GELU):
            option(child, name, "approximate", "tanh" if child.approximate == "none" else "none")
        if isinstance(child, (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)):
            option(child, name, "eps", 0.1)
        if isinstance(child, (nn.Conv1d, nn.Conv2d)) and set(
            child._reversed_padding_repeated_twice
        ) != {0}:
            option(child, name, "padding_mode", draw.choice(("zeros", "circular", "replicate")))
        if isinstance(child, (nn.AvgPool1d, nn.AvgPool2d)):
            option(child, name, "ceil_mode", True)
        if isinstance(child, nn.RNN):
            option(child, name, "mode", "RNN_RELU" if child.mode == "RNN_TANH" else "RNN_TANH")
        for key in ("low", "high"):
            if isinstance(getattr(child, key, None), float):
                option(child, name, key, getattr(child, key) * 1.25)
        for key in ("running_mean", "running_var"):
            if isinstance(getattr(child, key, None), Tensor):
                changes.append((f"{name}.{key}", functools.partial(getattr(child, key).mul_, 1.1)))
    parameters = [(f"{n} moved", p) for n, p in module.named_parameters() if p.numel()]
    label, tensor = draw.choice(parameters)
    entry = draw.integer(0, tensor.numel() - 1)
    changes.append(
        (label, lambda: tensor.view(-1)[entry].add_(1e-3 * float(tensor.abs().max()) or 1e-3))
    )
    if not changes:
        return None
    label, change = draw.choice(changes)
    with torch.no_grad():
        change()
    return label


def _probes(draw: Draw, inputs: Tensor) -> list[Tensor]:
    shape = (60, *inputs.shape[1:])
    if not inputs.is_floating_point():
        return [draw.integers(5, *shape)]
    return [s * draw.normal(*shape) for s in (0.1, 1.0, 5.0)]


def _differ(a: nn.Module, b: nn.Module, probes: list[Tensor]) -> bool:
    """Whether outputs differ by far more than rounding at one of the probes."""
    for x in probes:
        with torch.no_grad():
            one, other = a(x.clone()), b(x.clone())
        if one.shape != other.shape:
            return True
        size = float(one.abs().max())
        if float((one - other).abs().max()) > 1e-6 * size:
            return True
    return False


def examine_planted(seed: int) -> tuple[str, list[Verdict]]:
    trial = Trial()
    check_planted(trial, seed)
    return f"seed {seed}: one hidden layer, planted", trial.verdicts
