"""Features of every network of a training run."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from torch import nn

from skgeo.base import GeometryEstimator
from skgeo.exceptions import SkgeoError, warn
from skgeo.likelihood import Likelihood
from skgeo.linalg._threads import single_blas_thread
from skgeo.models import Checkpoint, ResolvedModel, WrappedModel, resolve_model
from skgeo.models._digest import read_content
from skgeo.pairs import Pair, PairRow, as_pairs, run_rows
from skgeo.training._files import writable_folder
from skgeo.training._function import FunctionRow, is_function, name_of
from skgeo.training._jump import JUMP, jump, jump_options
from skgeo.training._kept import kept_row
from skgeo.training._signature import SIGNATURE, known_signature, signature

_NAN = float("nan")
# What each row has beside its estimators.
BESIDE = {"signature": SIGNATURE, "jump": JUMP}


def track(
    run: Any,
    estimators: Any,
    *,
    memory: Any = None,
    on_error: str = "raise",
    n_jobs: int | None = None,
    verbose: int = 0,
) -> pd.DataFrame:
    r"""Features of every network of a training run, and its jumps from step to step.

    Parameters
    ----------
    run : DataFrame, TrainingRun or list of pairs
        Columns ``step``, ``model``, ``X``[, ``y``], as :func:`~skgeo.training.read_run`,
        :meth:`CheckpointRecorder.run <skgeo.training.CheckpointRecorder.run>` and
        :func:`skgeo.datasets.training_run` give them. The step may be the index. The pairs of a
        list have the steps 0, 1, 2, ...
    estimators : estimator or function, list of them, or dict of str to them
        Estimators without a model of their own, and functions ``f(model, X, y)`` that return a
        mapping of names to numbers, or a result with such a ``summary()``, such as
        :func:`skgeo.quotient.neural_collapse`. By default the name of an estimator is that of its
        class in lower case, and that of a function its own.
    memory : str, path-like or joblib.Memory, default=None
        Where results are kept, by the content of weights, data and parameters. A call that was
        interrupted goes on from there.
    on_error : {"raise", "nan"}, default="raise"
        Whether a network that cannot be measured raises, or has NaN and a warning that names it.
    n_jobs : int, default=None
        Number of rows at a time, as in joblib: by default one, or what
        ``joblib.parallel_config`` says; threads, unless it names processes, dask or ray.
    verbose : int, default=0
        If positive, show progress and the time left.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``step``, in order. Columns ``name__feature`` for the features of each
        estimator or function, among them those of single layers, such as
        ``name__quotient_common_nullity[layer]``; then ``signature__rank``,
        ``signature__negative`` and ``signature__nullity``, which are NaN without X, and
        ``jump__kl`` and ``jump__fisher_rao_length``, which are NaN also at the first step.

    Raises
    ------
    SkgeoError
        If the run is empty, has a step twice, or changes its architecture, if a network cannot be
        measured, a function returns anything but numbers by name, or nothing can be written to
        `memory`.

    See Also
    --------
    skgeo.training.TrajectoryDisplay : Draws such a table.

    Notes
    -----
    The jump from step s to step t is, for output distributions :math:`p_n` before and
    :math:`q_n` after on sample n of X of step t,

    .. math:: \frac1N \sum_n KL(p_n \,\|\, q_n) \quad\text{and}\quad
        \Big(\frac1N \sum_n d(p_n, q_n)^2\Big)^{1/2}

    with the Fisher-Rao distance d. For small jumps the first is half the square of the second.
    The likelihood is that of the first estimator that has one.

    The signature counts the positive, negative and zero eigenvalues of the Fisher metric on the P
    parameters, (rank, 0, P - rank): a pullback has no negative ones. It does not depend on how the
    network is parametrised, as eigenvalues do. It is taken from the first estimator that measures
    the nullity, :class:`skgeo.FisherRankEstimator` or :class:`skgeo.SymmetryClassifier`. Where
    there is none, :func:`skgeo.fisher.fisher_rank` measures it on the trainable parameters, if the
    smaller side of the matrix is at most 4000; else it is NaN with a warning, as without such
    parameters.

    A function is given the network of the row as a module or a WrappedModel, or the fitted
    scikit-learn or skorch model, and the data. Its result is kept by its code, and by what the code
    names. A name that a row does not have is NaN there.

    A row reads its network once for all estimators, and that of the step before for the jump. With
    `memory`, each result is a file that is written beside its place and moved there: a process
    that is killed leaves nothing half written, and two processes may share the folder. Rows are
    measured with one BLAS thread each, so that threads, processes and clusters give the same
    digits.

    Examples
    --------
    >>> from skgeo import FisherRankEstimator, track
    >>> from skgeo.datasets import training_run
    >>> run = training_run("linear", hidden=(), activation=None, steps=(0, 10), n_samples=50)
    >>> table = track(run, {"fisher": FisherRankEstimator(likelihood="gaussian")})
    >>> table["fisher__fisher_rank"].tolist()  # 4 outputs of 8 inputs and a bias
    [36.0, 36.0]
    """
    steps, pairs = _read_run(run)
    store = _memory(memory)
    named = {name: _prepared(name, found, store) for name, found in _named(estimators).items()}
    if on_error not in ("raise", "nan"):
        raise SkgeoError(f"Got on_error={on_error!r}; expected 'raise' or 'nan'.")
    links = [
        Link(pair.model, pair.X, pair.y, step, before)
        for step, pair, before in zip(steps, pairs, [None, *pairs], strict=False)
    ]
    options = jump_options([own for own in named.values() if isinstance(own, GeometryEstimator)])
    on_gpu = torch.device(options.get("device") or "cpu").type == "cuda"
    with single_blas_thread():  # also here, so that workers inherit it
        shapes = _first_shapes(links, on_error)
        row = TrackRow(named, shapes, options, store, on_error)
        found = run_rows(
            row, links, n_jobs=1 if on_gpu else n_jobs, verbose=verbose, on_error=on_error
        )
    return _table(steps, named, found)


@dataclass(frozen=True)
class Link(Pair):
    """One row of a run: a pair at a step, and the pair of the step before."""

    step: float = 0
    before: Pair | None = None


@dataclass(frozen=True)
class TrackRow:
    """Measures one row of a run.

    shapes: names and shapes that every network has; None if they are not compared.
    options: of the networks whose jump is measured.
    """

    estimators: Mapping[str, GeometryEstimator | FunctionRow]
    shapes: dict[str, tuple[int, ...]] | None
    options: dict[str, Any]
    memory: joblib.Memory | None
    on_error: str

    def __call__(self, link: Link) -> PairRow:
        """All features of the row in the order of the estimators, its signature and its jump."""
        values: list[float] = []
        features: list[Mapping[str, float]] = []
        layers: list[tuple[str, float]] = []
        facts: dict[str, str] = {}
        with single_blas_thread():
            model = _resolved(link, link.step, self.shapes)
            for name, estimator in self.estimators.items():
                try:
                    found = estimator._pair_row(Pair(model, link.X, link.y))
                except Exception as error:
                    if self.on_error == "raise":
                        _raise_at(error, link.step, name)
                    warn(f"NaN for what failed, {name} at step {link.step:g}: {error}")
                    found = PairRow([_NAN] * len(estimator._summary_names()), {})
                values += found.values
                features.append(dict(zip(estimator._summary_names(), found.values, strict=True)))
                layers += [(f"{name}__{key}", value) for key, value in found.layer_numbers]
                facts |= found.facts
            values += self._signature(model, link, features)
            values += self._jump(model, link)
        return PairRow(values, facts, layer_numbers=tuple(layers))

    def _jump(self, model: ResolvedModel, link: Link) -> list[float]:
        if link.before is None or link.X is None:
            return [_NAN, _NAN]
        try:
            before = _resolved(link.before, link.step, self.shapes)
        except SkgeoError:
            if self.on_error == "raise":
                raise
            return [_NAN, _NAN]  # named where that row was measured itself

        def compute() -> PairRow:
            return PairRow(jump(before, model, link.X, link.y, self.options), {})

        return self._beside(link, "jump", (before, model), compute)

    def _signature(
        self, model: ResolvedModel, link: Link, features: list[Mapping[str, float]]
    ) -> list[float]:
        known = known_signature(features, model)
        if known is not None:
            return known
        if link.X is None:
            return [_NAN] * len(SIGNATURE)

        def compute() -> PairRow:
            return PairRow(signature(model, link.X, link.y, self.options), {})

        return self._beside(link, "signature", (model,), compute)

    def _beside(
        self,
        link: Link,
        name: str,
        models: tuple[ResolvedModel, ...],
        compute: Callable[[], PairRow],
    ) -> list[float]:
        """What is measured beside the estimators, kept by the content of networks and data."""
        family = self.options["likelihood"]
        own = isinstance(family, Likelihood)

        def contents() -> list[tuple[str, list[str]]]:
            # What cannot be followed is said where the rows are measured.
            return [read_content(found) for found in (*models, *([family] if own else []))]

        try:
            words = (name, "" if own else family)
            row = kept_row(self.memory, words, contents, models[-1], link.X, link.y, compute)
            return row.values
        except Exception as error:
            if self.on_error == "raise":
                _raise_at(error, link.step, name)
            warn(f"NaN for what failed, the {name} at step {link.step:g}: {error}")
            return [_NAN] * len(BESIDE[name])


def _resolved(pair: Pair, step: float, shapes: dict[str, tuple[int, ...]] | None) -> ResolvedModel:
    """The network of a row; raises SkgeoError that names the step if it is another's."""
    try:
        model = resolve_model(pair.model, pair.X, pair.y, refit=False)
    except Exception as error:
        _raise_at(error, step)
    if shapes is not None and (own := _shapes(model)) != shapes:
        other = [n for n in [*shapes, *own] if shapes.get(n) != own.get(n)]
        name = other[0] if other else "order of the names"
        raise SkgeoError(
            f"At step {step:g}: the network has another architecture than the first of the run "
            f"({name}: {own.get(name, 'not there')} instead of {shapes.get(name, 'not there')}). "
            "A run follows one network: track the parts apart, or pass on_error='nan'."
        )
    return model


def _shapes(model: ResolvedModel) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.module.named_parameters()}


def _first_shapes(links: Sequence[Link], on_error: str) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes of the first network that can be read; None if one is fitted first."""
    for link in links:
        if not isinstance(link.model, nn.Module | WrappedModel | Checkpoint):
            return None
        try:
            return _shapes(_resolved(link, link.step, None))
        except Exception:
            if on_error == "raise":
                raise
    return None


def _raise_at(error: Exception, step: float, name: str = "") -> NoReturn:
    """Raise an error again that says at which step it arose."""
    where = f"At step {step:g}{name and f', {name}'}"
    if isinstance(error, SkgeoError):
        raise type(error)(f"{where}: {error}") from error
    error.add_note(where)
    raise error


def _read_run(run: Any) -> tuple[list[float], list[Pair]]:
    """Steps in order, and their pairs."""
    run = run if isinstance(run, pd.DataFrame) else getattr(run, "table", run)
    pairs = as_pairs(run)
    steps: list[Any] = list(range(len(pairs)))
    if isinstance(run, pd.DataFrame):
        if "step" in run.columns:
            steps = run["step"].tolist()
        elif run.index.name == "step":
            steps = run.index.tolist()
        else:
            raise SkgeoError(
                f"The run has columns {list(run.columns)}; expected 'step' among them, or as the "
                "name of the index."
            )
    wrong = [s for s in steps if not isinstance(s, Real) or not math.isfinite(s)]
    if wrong:
        raise SkgeoError(f"The run has step {wrong[0]!r}; expected numbers.")
    twice = [step for step, count in Counter(steps).items() if count > 1]
    if twice:
        raise SkgeoError(
            f"The run has step {twice[0]} more than once; a run is one training. Track several "
            "apart."
        )
    order = sorted(range(len(steps)), key=steps.__getitem__)
    return [steps[i] for i in order], [pairs[i] for i in order]


def _named(estimators: Any) -> dict[str, Any]:
    if isinstance(estimators, Mapping):
        named = dict(estimators)
    else:
        listed = estimators if isinstance(estimators, list | tuple) else [estimators]
        kinds = [name_of(estimator) for estimator in listed]
        named = {}
        for kind, estimator in zip(kinds, listed, strict=True):
            alone = kinds.count(kind) == 1
            count = sum(name.startswith(f"{kind}-") for name in named) + 1
            named[kind if alone else f"{kind}-{count}"] = estimator
    if not named:
        raise SkgeoError("No estimators: expected one, a list, or a dict of names to estimators.")
    for name, estimator in named.items():
        if not isinstance(estimator, GeometryEstimator) and not is_function(estimator):
            kind = getattr(estimator, "__name__", type(estimator).__name__)
            raise SkgeoError(
                f"The estimator {name!r} is {kind}; expected an estimator of skgeo, such as "
                "FisherRankEstimator(), or a function of (model, X, y)."
            )
        if isinstance(estimator, GeometryEstimator) and estimator.model is not None:
            raise SkgeoError(
                f"The estimator {name!r} is bound to a model; the run has its own. Leave out "
                "model=."
            )
        if not isinstance(name, str) or "__" in name or name in BESIDE:
            raise SkgeoError(
                f"Estimator name {name!r}: expected a string without '__', and not "
                f"{' or '.join(map(repr, BESIDE))}."
            )
    return named


def _prepared(
    name: str, estimator: Any, memory: joblib.Memory | None
) -> GeometryEstimator | FunctionRow:
    if not isinstance(estimator, GeometryEstimator):
        return FunctionRow(name, estimator, memory)
    own: GeometryEstimator = clone(estimator)
    if memory is not None and getattr(own, "memory", None) is None:
        own.memory = memory
    return own


def _memory(memory: Any) -> joblib.Memory | None:
    if memory is None or isinstance(memory, joblib.Memory):
        return memory
    if not isinstance(memory, str | os.PathLike):
        raise SkgeoError(
            f"Got memory={memory!r}; expected the name of a folder, a joblib.Memory, or None."
        )
    return joblib.Memory(str(writable_folder("memory", Path(memory))), verbose=0)


def _table(
    steps: Sequence[float],
    estimators: Mapping[str, GeometryEstimator | FunctionRow],
    rows: Sequence[PairRow | None],
) -> pd.DataFrame:
    """Features, then what single layers have, one estimator after the other; then the rest."""
    layers = list(dict.fromkeys(key for row in rows if row for key, _ in row.layer_numbers))
    fixed = [f"{n}__{key}" for n, own in estimators.items() for key in own._summary_names()]
    fixed += [f"{name}__{key}" for name, keys in BESIDE.items() for key in keys]
    columns = [
        column
        for name in [*estimators, *BESIDE]
        for column in [*fixed, *layers]
        if column.startswith(f"{name}__")
    ]
    found = [
        dict(zip(fixed, row.values, strict=True)) | dict(row.layer_numbers) if row else {}
        for row in rows
    ]
    table = pd.DataFrame(found, columns=columns, index=pd.Index(steps, name="step"))
    return table.astype(np.float64)
