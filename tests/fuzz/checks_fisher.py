"""Fisher information on parameters against the dense matrix."""

from __future__ import annotations

import numpy as np

from fuzz.compare import apart, is_clear, rank_apart, spectra_apart, tolerance
from fuzz.networks import Case
from fuzz.oracle import Answer
from fuzz.verdicts import Trial
from skgeo import FisherRankEstimator, fisher_diagonal, fisher_rank, fisher_trace, ntk
from skgeo.fisher import fisher_spectrum


def check_fisher(trial: Trial, case: Case, found: Answer, *, alone: bool) -> None:
    """found: of the rows of all samples, divided by the root of their number.

    alone: whether to ask for the rank alone, or for trace and diagonal.
    """
    dtype = next(case.module.parameters()).dtype
    model, x, y = case.module, case.inputs, case.targets
    own = {"likelihood": case.told}
    clear = is_clear(found)
    allowed = tolerance(dtype, found.noise)
    size = float(found.eigenvalues.sum()) if found.finite else np.nan

    spectrum, notes = trial.run("fisher spectrum", lambda: fisher_spectrum(model, x, y, **own))
    if spectrum is not None:
        trial.judge(
            "fisher spectrum", spectra_apart(spectrum.eigenvalues, found, dtype), notes, clear=clear
        )
        relative = spectrum.decision.tol
        wrong = rank_apart(spectrum.rank, found, relative)
        trial.judge("fisher rank", wrong, notes, clear=clear)
    if alone:
        decided, notes = trial.run("fisher rank alone", lambda: fisher_rank(model, x, y, **own))
        if decided is not None:
            wrong = rank_apart(decided.rank, found, decided.tol)
            trial.judge("fisher rank alone", wrong, notes, clear=clear)
        return
    trace, notes = trial.run("fisher trace", lambda: fisher_trace(model, x, y, **own))
    if trace is not None:
        trial.judge("fisher trace", apart(trace, size, allowed), notes, clear=clear)
    diagonal, notes = trial.run("fisher diagonal", lambda: fisher_diagonal(model, x, y, **own))
    if diagonal is not None:
        right = (found.rows**2).sum(0)
        trial.judge("fisher diagonal", apart(diagonal, right, allowed, size), notes, clear=clear)


def check_null_space(trial: Trial, case: Case, found: Answer) -> None:
    """The null space of the estimator moves no output."""
    fisher, notes = trial.run(
        "null space",
        lambda: FisherRankEstimator(case.module, likelihood=case.told).fit(
            case.inputs, case.targets
        ),
    )
    if fisher is None:
        return
    null, more = trial.run("null space", fisher.null_space)
    if null is None:
        return
    clear = is_clear(found)
    dtype = next(case.module.parameters()).dtype
    size = np.sqrt(found.eigenvalues[0]) if found.finite and len(found.eigenvalues) else 0.0
    left = found.rows @ null.T if found.finite else np.full(1, np.nan)
    # A direction counts as null at the tolerance of the rank: its root, and rounding.
    relative = fisher.rank_threshold_ / fisher.eigenvalues_[0] if fisher.eigenvalues_[0] else 0.0
    allowed = 10 * np.sqrt(relative) + tolerance(dtype, found.noise)
    trial.judge(
        "null space", apart(left, np.zeros_like(left), allowed, size), notes + more, clear=clear
    )


def check_kernel(trial: Trial, case: Case, plain: Answer) -> None:
    """The tangent kernel. plain: of the rows without the weight of the family."""
    kernel, notes = trial.run("tangent kernel", lambda: ntk(case.module, case.inputs))
    if kernel is None:
        return
    dtype = next(case.module.parameters()).dtype
    right = plain.rows @ plain.rows.T
    clear = is_clear(plain)
    wrong = apart(kernel.double().numpy(), right, 3 * tolerance(dtype, plain.noise))
    trial.judge("tangent kernel", wrong, notes, clear=clear)
