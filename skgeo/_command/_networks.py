"""The networks that the command measures, as a training run."""

from __future__ import annotations

import argparse
import glob
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from torch import nn

from skgeo import Checkpoint, SkgeoError
from skgeo._command._data import read_data
from skgeo.datasets import training_run
from skgeo.exceptions import raised
from skgeo.training._run import run_table, steps_of


def default_run(options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A seeded training on the digits, and its losses by step."""
    print("Training a network 64-16-16-10 on scikit-learn's digits ...", flush=True)
    run = training_run(
        hidden=(16, 16),
        n_samples=options.samples,
        steps=(0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000),
        seed=options.seed,
    )
    return run.table, run.history.set_index("step")


def own_run(options: argparse.Namespace) -> pd.DataFrame:
    """The networks in the user's files."""
    paths = _files(options.model)
    data = read_data(options.data, options.samples)
    if options.factory is not None:
        build = _factory(options.factory)
        models: list[Any] = [Checkpoint(path, build) for path in paths]
        models[0].load()  # whether it fits is known before any work
    else:
        models = [_unpickle(path) for path in paths]
    steps = [0] if len(paths) == 1 else steps_of(paths)
    ordered = dict(sorted(zip(steps, models, strict=True), key=lambda found: found[0]))
    return run_table(ordered, data[0], data[1] if len(data) > 1 else None)


def _files(given: list[str]) -> list[Path]:
    paths: list[Path] = []
    for name in given:
        found = [name] if Path(name).is_file() else sorted(glob.glob(name))
        if not found:
            raise SkgeoError(f"--model {name}: there is no such file.")
        paths += map(Path, found)
    folders = [path for path in paths if path.is_dir()]
    if folders:
        raise SkgeoError(
            f"--model {folders[0]} is a folder; expected files, such as '{folders[0]}/*.pt'."
        )
    return list(dict.fromkeys(paths))


def _factory(name: str) -> Callable[[], nn.Module]:
    module, _, function = name.partition(":")
    if not module or not function:
        raise SkgeoError(f"--factory {name!r}: expected package.module:function.")
    sys.path.insert(0, os.getcwd())  # as `python -m` does; an installed script does not
    try:
        made = cast("Callable[[], nn.Module]", getattr(importlib.import_module(module), function))
    except Exception as error:  # whatever importing the user's module raises
        raise SkgeoError(f"--factory {name!r} cannot be imported: {raised(error)}") from error
    finally:
        sys.path.pop(0)

    def build() -> nn.Module:
        try:
            return made()
        except Exception as error:  # whatever the user's function raises
            raise SkgeoError(f"--factory {name!r} failed: {raised(error)}") from error

    return build


def _unpickle(path: Path) -> Any:
    print(f"Unpickling {path}: this runs code from the file, which --trust allows.")
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except OSError:
        raise
    except AttributeError as error:
        raise SkgeoError(
            f"{path} cannot be unpickled: {raised(error)} A class that was defined in a script is "
            "known to that script alone: move it into a module that can be imported, or save a "
            "state dict and pass --factory."
        ) from error
    except Exception as error:  # whatever unpickling raises
        raise SkgeoError(f"{path} cannot be unpickled: {raised(error)}") from error
