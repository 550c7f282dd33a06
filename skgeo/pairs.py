"""Tables of (model, data) pairs, and their evaluation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import joblib
import numpy as np
import pandas as pd

from skgeo._arguments import check_option, described
from skgeo._progress import shown
from skgeo.data._arrays import is_frame
from skgeo.exceptions import GeometryWarning, NotAModelError, SkgeoError, collect_warnings, warn
from skgeo.models import is_model

__all__ = ["Pair", "PairRow", "as_pairs", "run_pairs", "run_rows"]

_ADVICE = (
    "Without model= an estimator reads (model, X) or (model, X, y) pairs: a list of tuples, or a "
    "DataFrame with columns 'model', 'X'[, 'y']. To measure one model on an array, bind it: "
    "Estimator(model=net).fit(X)."
)


@dataclass(frozen=True)
class Pair:
    """One row of the unbound reading: a model, its data, and optional targets."""

    model: Any
    X: Any
    y: Any = None


@dataclass(frozen=True)
class PairRow:
    """Features of one pair, how they were measured, and warnings that a cache keeps."""

    values: list[float]
    facts: Mapping[str, str]
    notes: tuple[tuple[type[Warning], str], ...] = ()
    # Named numbers of single layers, which depend on the network.
    layer_numbers: tuple[tuple[str, float], ...] = ()


def as_pairs(rows: Any) -> list[Pair]:
    """Read a table of pairs.

    Parameters
    ----------
    rows : list of tuples, 1-D object array of tuples, or DataFrame of pandas or polars
        ``(model, X)`` or ``(model, X, y)``; columns ``model``, ``X``[, ``y``]. A column ``step``
        is ignored.

    Returns
    -------
    list of Pair

    Raises
    ------
    SkgeoError
        If `rows` is not a table of pairs, is empty, or has a row of another length.
    NotAModelError
        If the first item of a row is not a model.
    """
    if is_frame(rows):
        pairs = _from_frame(rows)
    else:
        if isinstance(rows, tuple) and rows and is_model(rows[0]):
            raise SkgeoError(
                f"Only one pair was given bare; put it in a list: [(model, X)]. {_ADVICE}"
            )
        is_objects = isinstance(rows, np.ndarray) and rows.dtype == object and rows.ndim == 1
        if not (is_objects or isinstance(rows, (list, tuple))):
            raise SkgeoError(f"Got {described(rows)}; expected a table of pairs. {_ADVICE}")
        pairs = [_from_row(index, row) for index, row in enumerate(rows)]
    if not pairs:
        raise SkgeoError(f"The table of pairs is empty: 0 sample(s). {_ADVICE}")
    for index, pair in enumerate(pairs):
        if not is_model(pair.model):
            raise NotAModelError(
                f"In the table, pair {index} starts with {described(pair.model)}, which is not a "
                f"model. {_ADVICE}"
            )
    return pairs


def _from_row(index: int, row: Any) -> Pair:
    if not isinstance(row, (tuple, list)) or len(row) not in (2, 3):
        raise SkgeoError(f"In the table, row {index} is {described(row)}, not a pair. {_ADVICE}")
    return Pair(*row)


def _from_frame(frame: Any) -> list[Pair]:
    columns = list(frame.columns)
    missing = [name for name in ("model", "X") if name not in columns]
    # The steps of a training run label its rows, as its index would.
    other = [name for name in columns if name not in ("model", "X", "y", "step")]
    if missing or other:
        raise SkgeoError(
            f"The DataFrame has columns {columns}: "
            + (f"{missing} missing. " if missing else "")
            + (f"{other} not expected; select the columns of the pairs. " if other else "")
            + _ADVICE
        )
    targets = list(frame["y"]) if "y" in columns else [None] * len(frame)
    rows = zip(list(frame["model"]), list(frame["X"]), targets, strict=True)
    return [Pair(model, X, None if _is_missing(y) else y) for model, X, y in rows]


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def run_pairs(
    row: Callable[[Pair], PairRow],
    pairs: list[Pair],
    *,
    width: int,
    n_jobs: int | None = None,
    verbose: int | bool = 0,
    on_error: Literal["raise", "nan"] = "raise",
) -> np.ndarray:
    """Compute one row of features per pair, in order, by default in threads.

    Parameters
    ----------
    row : callable
        Computes the features of a pair.
    pairs : list of Pair
    width : int
        Number of features.
    n_jobs : int, optional
        As in joblib; ``joblib.parallel_config`` selects the backend.
    verbose : int, default=0
        If positive, show progress and the time left: a bar if ``rich`` is installed, or lines.
    on_error : {"raise", "nan"}, default="raise"
        Whether a failing pair raises, with a note of its index, or gives a row of NaN and a
        warning.

    Returns
    -------
    ndarray of shape (n_pairs, width)
        Features in float64.
    """
    rows = run_rows(row, pairs, n_jobs=n_jobs, verbose=verbose, on_error=on_error)
    table = np.full((len(pairs), width), np.nan)
    for index, found in enumerate(rows):
        if found is not None:
            table[index] = found.values
    return table


def run_rows(
    row: Callable[[Any], PairRow],
    pairs: Sequence[Pair],
    *,
    n_jobs: int | None = None,
    verbose: int | bool = 0,
    on_error: str = "raise",
) -> list[PairRow | None]:
    """The rows of :func:`run_pairs` themselves; None for a pair that failed."""
    check_option("on_error", on_error, ("raise", "nan"))
    tasks = (
        joblib.delayed(_guarded)(row, index, pair, on_error) for index, pair in enumerate(pairs)
    )
    results = list(_parallel(tasks, len(pairs), n_jobs, int(verbose)))
    _report([notes for _, notes in results])
    _report_facts([found.facts for found, _ in results if found is not None])
    return [found for found, _ in results]


def _guarded(
    row: Callable[[Any], PairRow], index: int, pair: Pair, on_error: str
) -> tuple[PairRow | None, list[tuple[type[Warning], str]]]:
    with collect_warnings() as notes:
        try:
            return row(pair), notes
        except Exception as error:
            if on_error == "raise":
                error.add_note(f"in pair {index}")
                raise
            notes.append((GeometryWarning, f"NaN for a pair that failed: {error}"))
            return None, notes


def _parallel(tasks: Iterable[Any], total: int, n_jobs: int | None, verbose: int) -> Iterator[Any]:
    if verbose:
        try:
            parallel = joblib.Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
        except ValueError:  # ray gives all rows at once: messages of joblib instead
            pass
        else:
            yield from shown(parallel(tasks), total, "pairs")
            return
    yield from joblib.Parallel(n_jobs=n_jobs, prefer="threads", verbose=verbose)(tasks)


def _report(noted: list[list[tuple[type[Warning], str]]]) -> None:
    """Emit each kind of warning once, with the pairs it concerns."""
    groups: dict[tuple[type[Warning], str], list[tuple[int, str]]] = {}
    for index, notes in enumerate(noted):
        for category, message in notes:
            kind = re.sub(r"[-+]?\d[\d.e+-]*", "#", message)  # numbers differ from pair to pair
            groups.setdefault((category, kind), []).append((index, message))
    for (category, _), found in groups.items():
        rows = sorted({index for index, _ in found})
        where = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
        count = f"{len(rows)} of {len(noted)} pairs ({where})"
        first = "" if len({message for _, message in found}) == 1 else " The first says:"
        warn(f"In {count}.{first} {found[0][1]}", category, stacklevel=5)


def _report_facts(facts: list[Mapping[str, str]]) -> None:
    for name in sorted({name for fact in facts for name in fact}):
        counts = Counter(fact[name] for fact in facts if name in fact)
        if len(counts) > 1:
            found = ", ".join(f"{value} in {count}" for value, count in counts.most_common())
            warn(
                f"The pairs were not all read in the same way: {name} is {found}. Their features "
                f"are comparable only if this is intended; otherwise pass {name}=.",
                stacklevel=5,
            )
