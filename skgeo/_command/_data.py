"""Samples and targets in files of several kinds."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skgeo.exceptions import SkgeoError, raised

_TARGET = "y"


def read_data(path: Path, size: int) -> list[Any]:
    """X and, where it is there, y: the first `size` samples of a file."""
    if not path.is_file():
        raise SkgeoError(f"--data {path}: there is no such file.")
    readers = {".npz": _archive, ".npy": _array, ".csv": _table, ".parquet": _table}
    reader = readers.get(path.suffix)
    if reader is None:
        raise SkgeoError(
            f"--data {path}: expected a name that ends with one of {', '.join(readers)}."
        )
    try:
        found = reader(path)
    except SkgeoError:
        raise
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise SkgeoError(f"--data {path} cannot be read: {raised(error)}") from error
    for name, array in found.items():
        if array.ndim == 0:
            raise SkgeoError(f"--data {path}: {name} is a single number; expected an array.")
        if not len(array):
            raise SkgeoError(f"--data {path}: {name} is empty.")
    sizes = {name: len(array) for name, array in found.items()}
    if len(set(sizes.values())) > 1:
        raise SkgeoError(f"--data {path}: X has {sizes['X']} samples and y has {sizes['y']}.")
    return [array[:size] for array in found.values()]


def _archive(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        if not hasattr(arrays, "files"):
            raise SkgeoError(f"--data {path} holds a single array; name it .npy.")
        if "X" not in arrays:
            raise SkgeoError(f"--data {path} holds {sorted(arrays)}; expected an array X.")
        return {name: arrays[name] for name in ("X", _TARGET) if name in arrays}


def _array(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        return {"X": np.load(file, allow_pickle=False)}


def _table(path: Path) -> dict[str, np.ndarray]:
    """The column y is the target, the others are features."""
    if path.suffix == ".parquet":
        from skgeo._command._options import check_parquet

        check_parquet("--data")
        frame = pd.read_parquet(path)
    else:
        frame = pd.read_csv(path)
    features = frame.drop(columns=_TARGET, errors="ignore")
    words = [name for name in features if not pd.api.types.is_numeric_dtype(features[name])]
    if words:
        raise SkgeoError(
            f"--data {path}: column {words[0]!r} does not hold numbers; the column 'y' is the "
            "target, and all others are features."
        )
    if not features.shape[1]:
        raise SkgeoError(f"--data {path} has no column of features.")
    found = {"X": features.to_numpy()}
    if _TARGET in frame:
        found[_TARGET] = frame[_TARGET].to_numpy()
    return found
