"""Layer quotients and chains of Jacobians against dense derivatives between layers."""

from __future__ import annotations

import numpy as np
import torch

from fuzz.compare import apart, is_clear, rank_apart, spectra_apart, tolerance
from fuzz.networks import Case
from fuzz.oracle import Answer, Derivatives, answer, weighted
from fuzz.verdicts import Trial
from skgeo.chain import chain_profile
from skgeo.quotient import layer_spectra

# Singular values closer than this to those that rounding leaves are not compared.
CLEAR = 1e3
# Links are rounded one by one: chains that amplify this by more are left out.
MOST_UNITS = 100
# More samples cost more than they find.
MOST_SAMPLES = 3


def check_quotient(trial: Trial, case: Case, exact: Derivatives, others: list[Derivatives]) -> None:
    spectra, notes = trial.run(
        "quotient",
        lambda: layer_spectra(case.module, case.inputs, case.targets, likelihood=case.told),
    )
    if spectra is None:
        return
    dtype = next(case.module.parameters()).dtype
    mean, ranks, common = [], [], []
    clear = True
    for spectrum in spectra:
        name = spectrum.layer.name
        rows = [
            weighted(case.likelihood, d.outputs, d.layers[name]) for d in (exact, *others)
        ]  # (N, T, k, n)
        rows = [r.reshape(len(r), -1, r.shape[-1]) / len(r) ** 0.5 for r in rows]
        found = answer(*[r.reshape(-1, r.shape[-1]) for r in rows])
        clear &= is_clear(found)
        mean.append(spectra_apart(spectrum.mean_eigenvalues, found, dtype))
        if is_clear(found):
            common.append(rank_apart(spectrum.common.rank, found, spectrum.common.tol))
        relative = spectrum.thresholds / spectrum.eigenvalues[:, 0].clamp_min(1e-300)
        for n in range(min(len(rows[0]), MOST_SAMPLES)):
            one = answer(*[r[n] for r in rows])
            if is_clear(one):
                ranks.append(rank_apart(int(spectrum.ranks[n]), one, float(relative[n])))
    trial.judge("quotient spectra", _first(mean), notes, clear=clear)
    trial.judge("quotient common ranks", _first(common), notes, clear=clear)
    trial.judge("quotient ranks", _first(ranks), notes, clear=clear)


def check_chain(trial: Trial, case: Case, exact: Derivatives, others: list[Derivatives]) -> None:
    """B_l at every layer, and A_L at the output."""
    few = case.inputs[:MOST_SAMPLES]
    if len(case.module) > 1:
        profile, notes = trial.run(
            "chain to output", lambda: chain_profile(case.module, few, chain="output")
        )
        if profile is not None:
            _judge_chain(
                trial, "chain to output", profile.layers, notes, case,
                lambda d, name: d.layers[name], exact, others,
            )  # fmt: skip
    if exact.inputs is not None:
        profile, notes = trial.run(
            "chain from input", lambda: chain_profile(case.module, few, chain="input")
        )
        if profile is not None:
            _judge_chain(
                trial, "chain from input", profile.layers[-1:], notes, case,
                lambda d, name: d.inputs, exact, others,
            )  # fmt: skip


def _judge_chain(trial, quantity, layers, notes, case, derivative, exact, others) -> None:
    dtype = next(case.module.parameters()).dtype
    values, ranks = [], []
    for stretches in layers:
        jacobians = [derivative(d, stretches.layer.name) for d in (exact, *others)]
        for n in range(len(stretches.rank)):
            found = answer(*[j[n].reshape(-1, j.shape[-1]) for j in jacobians])
            if not is_clear(found) or found.noise > MOST_UNITS * torch.finfo(dtype).eps:
                continue
            logs, rank = stretches.log_singular_values[n].numpy(), int(stretches.rank[n])
            values.append(_values_apart(logs, found, dtype))
            floor = CLEAR * max(found.noise, float(torch.finfo(dtype).eps))
            if rank and np.exp(logs[rank - 1] - logs[0]) < floor:
                continue  # the last direction counted is as small as rounding may be
            ranks.append(_rank_apart(rank, found, dtype))
    clear = bool(values)
    trial.judge(f"{quantity}: singular values", _first(values), notes, clear=clear)
    trial.judge(f"{quantity}: ranks", _first(ranks), notes, clear=clear)


def _values_apart(logs: np.ndarray, found: Answer, dtype: torch.dtype) -> str:
    right = np.sqrt(found.eigenvalues)
    given = np.exp(logs)
    if not len(right) or right[0] == 0.0:
        return apart(given, np.zeros(len(given)), 0.0, 1.0)
    return apart(given, right[: len(given)], tolerance(dtype, found.noise))


def _rank_apart(given: float, found: Answer, dtype: torch.dtype) -> str:
    """A rank where all singular values are either far above rounding or below it."""
    noise = max(found.noise, float(torch.finfo(dtype).eps))
    most, least = found.count(1e-28), found.count(min((CLEAR * noise) ** 2, 1.0))
    return "" if least <= given <= most else f"rank {given:g} for {least} to {most}"


def _first(differences: list[str]) -> str:
    return next((text for text in differences if text), "")
