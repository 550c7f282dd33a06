"""All checks of one seed, and runs over many that may be taken up again."""

from __future__ import annotations

import collections
import json
import multiprocessing
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from fuzz.checks_fisher import check_fisher, check_kernel, check_null_space
from fuzz.checks_layers import check_chain, check_quotient
from fuzz.fibers import examine_fiber
from fuzz.networks import Case, make_case
from fuzz.oracle import answer, derive, perturbed, weighted
from fuzz.symmetries import check_equivalence, check_generators, check_planted
from fuzz.verdicts import VERDICTS, Trial, Verdict


def examine(seed: int) -> tuple[str, list[Verdict]]:
    """The recipe of a seed's network, and a verdict for each quantity."""
    case = make_case(seed)
    recipe, verdicts = case.recipe, examine_case(case, seed)
    if seed % 5 == 0:
        linear, more = examine_fiber(seed)
        return f"{recipe}\n{linear}", [*verdicts, *more]
    return recipe, verdicts


def examine_case(case: Case, seed: int = 0) -> list[Verdict]:
    dtype = next(case.module.parameters()).dtype
    with np.errstate(all="ignore"):
        return _examine(case, seed, dtype)


def _examine(case: Case, seed: int, dtype: torch.dtype) -> list[Verdict]:
    exact = derive(case.module, case.inputs, torch.float64)
    moved = perturbed(case.module, case.inputs, seed)
    others = [derive(*moved, torch.float64, rounding=torch.finfo(dtype).eps)]
    if dtype != torch.float64:
        others.append(derive(case.module, case.inputs, dtype))
    root = len(case.inputs) ** 0.5
    rows = [weighted(case.likelihood, d.outputs, d.parameters) / root for d in (exact, *others)]
    found = answer(*[r.reshape(-1, r.shape[-1]) for r in rows])
    trial, kept = Trial(), _contents(case)
    # Each quantity is asked of every second or third network.
    check_fisher(trial, case, found, alone=seed % 2 == 0)
    if seed % 3 == 0:
        check_null_space(trial, case, found)
        plain = [d.parameters.reshape(-1, d.parameters.shape[-1]) for d in (exact, *others)]
        check_kernel(trial, case, answer(*plain))
    elif seed % 3 == 1:
        check_generators(trial, case, found)
    else:
        check_equivalence(trial, case, seed)
    if seed % 10 == 0:
        check_planted(trial, seed)
    if seed // 2 % 2 == 0:
        check_quotient(trial, case, exact, others)
    else:
        check_chain(trial, case, exact, others)
    same = all(torch.equal(a, b) for a, b in zip(kept, _contents(case), strict=True))
    trial.judge("left as it was", "" if same else "data, weights or buffers were changed", [])
    return trial.verdicts


def _contents(case: Case) -> list[torch.Tensor]:
    """Copies of all that the user gave."""
    given = [case.inputs, *case.module.state_dict().values()]
    return [torch.nan_to_num(tensor.detach().clone().double()) for tensor in given]


def record(seed: int) -> dict[str, object]:
    """One line of a state file."""
    torch.set_num_threads(1)
    recipe, verdicts = examine(seed)
    kept = [[v.quantity, v.kind, v.detail if v.kind != "right" else ""] for v in verdicts]
    failed = any(v.kind in ("wrong", "bare") for v in verdicts)
    return {"seed": seed, "verdicts": kept, "recipe": recipe if failed else ""}


def read_state(path: Path) -> list[dict[str, object]]:
    """Lines of a state file; a last one that was cut off is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def records(seeds: Iterable[int], jobs: int) -> Iterator[dict[str, object]]:
    if jobs == 1:
        yield from map(record, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(record, seeds, chunksize=8)


def counts(lines: Iterable[dict[str, object]]) -> dict[str, collections.Counter[str]]:
    """By quantity, how often each verdict came."""
    table: dict[str, collections.Counter[str]] = {}
    for line in lines:
        for quantity, kind, _ in line["verdicts"]:
            table.setdefault(quantity, collections.Counter())[kind] += 1
    return table


def as_text(table: dict[str, collections.Counter[str]]) -> str:
    width = max(map(len, table), default=0)
    rows = [" " * width + "".join(f"{kind:>9}" for kind in VERDICTS)]
    for quantity, found in sorted(table.items()):
        rows.append(f"{quantity:{width}}" + "".join(f"{found[kind]:9}" for kind in VERDICTS))
    return "\n".join(rows)
