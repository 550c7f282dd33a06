"""A training run: a table with one network per step."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from skgeo.exceptions import SkgeoError
from skgeo.models import Checkpoint


def read_run(
    folder: str | os.PathLike[str],
    factory: Callable[[], nn.Module],
    X: Any = None,
    y: Any = None,
    *,
    pattern: str = "*.pt",
    step: str | None = None,
    key: str | None = None,
    prefix: str | None = None,
    safe_globals: Sequence[Any] = (),
    forward: Callable[[nn.Module, Any], Tensor] | None = None,
) -> pd.DataFrame:
    r"""Training run from a folder of checkpoints.

    Parameters
    ----------
    folder : str or path-like
        Folder of the files.
    factory : callable
        ``factory() -> torch.nn.Module`` builds the network, as in :class:`skgeo.Checkpoint`.
    X : array, Tensor, dict, Dataset or DataLoader, default=None
        Data on which the networks are measured, the same for all. None for estimators that need
        none.
    y : array-like of shape (n_samples, ...), default=None
        Targets.
    pattern : str, default="\*.pt"
        Which files, as in :meth:`pathlib.Path.glob`: ``"*.ckpt"``, or
        ``"checkpoint-*/model.safetensors"``.
    step : str, default=None
        Regular expression that is searched in the path of a file, below `folder` and without its
        last suffix, and whose first group (or whole match) is the step: ``r"step=(\d+)"``. By
        default the last integer in the path.
    key : str, default=None
        Entry of each file, as in :class:`skgeo.Checkpoint`.
    prefix : str, default=None
        Beginning of the names, as in :class:`skgeo.Checkpoint`.
    safe_globals : sequence of class or function, default=()
        What else may be read, as in :class:`skgeo.Checkpoint`.
    forward : callable, default=None
        ``forward(module, inputs) -> Tensor``, as in :class:`skgeo.WrappedModel`.

    Returns
    -------
    pandas.DataFrame
        Columns ``step``, ``model``, ``X`` and, if given, ``y``, in the order of the steps. Models
        are :class:`skgeo.Checkpoint`: nothing is read before it is measured. The table is a table
        of pairs for any estimator.

    Raises
    ------
    SkgeoError
        If there is no such file, a name holds no step, or two files have one step.

    See Also
    --------
    skgeo.track : Features of every network of a run.
    skgeo.training.CheckpointRecorder : Writes such a folder from a training loop.

    Examples
    --------
    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from skgeo.training import read_run
    >>> net = torch.nn.Linear(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for step in (5, 10, 100):
    ...         torch.save(net.state_dict(), Path(folder) / f"net-{step}.pt")
    ...     run = read_run(folder, lambda: torch.nn.Linear(3, 2), torch.ones(4, 3))
    >>> run["step"].tolist()
    [5, 10, 100]
    """
    home = Path(folder).absolute()
    if not home.is_dir():
        raise SkgeoError(f"There is no folder {home}.")
    files = sorted(path for path in home.glob(pattern) if path.is_file())
    if not files:
        raise SkgeoError(
            f"{home} has no file that fits pattern={pattern!r}; expected checkpoints. It holds "
            f"{_some(path.name for path in home.iterdir())}."
        )
    found: dict[int, Path] = {}
    for path in files:
        number = _step_of(path.relative_to(home).with_suffix("").as_posix(), path, step)
        if number in found:
            raise SkgeoError(
                f"Two files have step {number}: {found[number]} and {path}. Narrow pattern=, or "
                "say with step= where the step stands in the path."
            )
        found[number] = path
    models = {
        number: Checkpoint(
            found[number],
            factory,
            key=key,
            prefix=prefix,
            safe_globals=safe_globals,
            forward=forward,
        )
        for number in sorted(found)
    }
    return run_table(models, X, y)


def run_table(models: dict[int, Any], X: Any, y: Any) -> pd.DataFrame:
    """Columns step, model, X[, y], one row per model; X and y are shared by all rows."""
    columns = {"model": list(models.values()), "X": [X] * len(models)}
    if y is not None:
        columns["y"] = [y] * len(models)
    table = pd.DataFrame({"step": np.asarray(list(models), dtype=np.int64)})
    for name, values in columns.items():
        table[name] = as_objects(values)
    return table


def as_objects(values: list[Any]) -> np.ndarray:
    """A 1-D array of objects, whatever their length or shape."""
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array


def steps_of(paths: Sequence[Path]) -> list[int]:
    """The last integer in the name of each file; raises SkgeoError if two have the same."""
    steps = [_step_of(path.stem, path, None) for path in paths]
    for index, number in enumerate(steps):
        first = steps.index(number)
        if first < index:
            raise SkgeoError(
                f"Two files have step {number}: {paths[first]} and {paths[index]}. The step is the "
                "last number in a file's name."
            )
    return steps


def _step_of(name: str, path: Path, pattern: str | None) -> int:
    if pattern is None:
        numbers = re.findall(r"\d+", name)
        if not numbers:
            raise SkgeoError(
                f"{path} has no number in its name, and so no step. Narrow pattern= to the "
                "checkpoints."
            )
        return int(numbers[-1])
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise SkgeoError(
            f"Got step={pattern!r}, which is not a regular expression: {error}."
        ) from error
    if match is None:
        raise SkgeoError(
            f"Got step={pattern!r}, which does not occur in the path {name!r} of {path}."
        )
    text = match.group(1) if match.re.groups else match.group()
    try:
        return int(text)
    except (TypeError, ValueError):
        raise SkgeoError(
            f"Got step={pattern!r}, which finds {text!r} in {path}; expected an integer, as a "
            f"first group "
            r"such as (\d+)."
        ) from None


def _some(names: Any) -> str:
    listed = sorted(names)
    return (", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")) or "nothing"
