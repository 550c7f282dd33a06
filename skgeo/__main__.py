"""Measure the Fisher geometry of a network from the command line: ``python -m skgeo``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from skgeo import Checkpoint, FisherRankEstimator, SkgeoError
from skgeo._arguments import check_integer
from skgeo.datasets import digits_run
from skgeo.fisher import SpectrumDisplay
from skgeo.likelihood import LIKELIHOODS

__all__ = ["main"]

_EXAMPLES = """\
examples:
  python -m skgeo
      train a small network on the digits and measure it at several checkpoints
  python -m skgeo --model weights.pt --factory package.module:function --data file.npz
      your own network: a state dict, a function that builds the module, arrays X and, optionally, y
  python -m skgeo --model whole.pt --trust --data file.npz
      a whole pickled module; unpickling runs code from the file
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m skgeo",
        description="Rank and spectrum of the Fisher information of a network.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = parser.add_argument_group("your own network")
    own.add_argument("--model", type=Path, metavar="FILE", help="state dict, or whole module")
    own.add_argument(
        "--factory", metavar="MODULE:FUNCTION", help="builds the module, called without arguments"
    )
    own.add_argument("--trust", action="store_true", help="unpickle FILE as a whole module")
    own.add_argument("--data", type=Path, metavar="NPZ", help="arrays X and, optionally, y")
    parser.add_argument(
        "--likelihood",
        default="auto",
        choices=["auto", *sorted(LIKELIHOODS)],
        help="likelihood of the outputs (default: inferred from y)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=200,
        help="rows to measure (default: 200); a note says if they limit the rank",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the default training run")
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("skgeo-spectra.png"),
        help="where the spectra are drawn",
    )
    return parser


def _factory(name: str) -> Callable[[], nn.Module]:
    module, _, function = name.partition(":")
    if not module or not function:
        raise SkgeoError(f"--factory {name!r}: expected package.module:function.")
    sys.path.insert(0, os.getcwd())  # as `python -m` does; an installed script does not
    try:
        made = cast("Callable[[], nn.Module]", getattr(importlib.import_module(module), function))
    except Exception as error:  # whatever importing the user's module raises
        raise SkgeoError(f"--factory {name!r} cannot be imported: {_said(error)}") from error
    finally:
        sys.path.pop(0)

    def build() -> nn.Module:
        try:
            return made()
        except Exception as error:  # whatever the user's function raises
            raise SkgeoError(f"--factory {name!r} failed: {_said(error)}") from error

    return build


def _said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _read_data(options: argparse.Namespace) -> list[Any]:
    """X and, where it is there, y."""
    try:
        with options.data.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ("X", "y") if name in arrays}
            names = sorted(arrays)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SkgeoError(
            f"{options.data} cannot be read: {_said(error)} Expected a file of numpy.savez with "
            "arrays of numbers."
        ) from error
    if "X" not in found:
        raise SkgeoError(f"{options.data} holds {names}; expected an array X.")
    for name, array in found.items():
        if array.ndim == 0:
            raise SkgeoError(f"{options.data}: {name} is a single number; expected an array.")
    return [array[: options.samples] for array in found.values()]


def _unpickle(path: Path) -> Any:
    print(f"Unpickling {path}: this runs code from the file, which --trust allows.")
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except OSError:
        raise
    except AttributeError as error:
        raise SkgeoError(
            f"{path} cannot be unpickled: {_said(error)}. A class that was defined in a script is "
            "known to that script alone: move it into a module that can be imported, or save a "
            "state dict and pass --factory."
        ) from error
    except Exception as error:  # whatever unpickling raises
        raise SkgeoError(f"{path} cannot be unpickled: {_said(error)}") from error


def _own_pair(options: argparse.Namespace) -> tuple[Any, ...]:
    if options.data is None:
        raise SkgeoError("--model needs --data file.npz with an array X and, optionally, y.")
    if options.trust == (options.factory is not None):
        raise SkgeoError(
            "Say how to read --model: --factory package.module:function for a state dict, or "
            "--trust to unpickle a whole module."
        )
    data = _read_data(options)
    if options.factory is not None:
        return (Checkpoint(options.model, _factory(options.factory)), *data)
    return (_unpickle(options.model), *data)


def _table(options: argparse.Namespace) -> tuple[list[tuple[Any, ...]], pd.DataFrame]:
    """The pairs to measure, and a frame that labels them."""
    if options.model is not None:
        return [_own_pair(options)], pd.DataFrame({"model": [options.model.name]})
    if options.data is not None or options.factory is not None or options.trust:
        raise SkgeoError("--data, --factory and --trust belong to --model.")
    print("Training a tanh network 64-16-10 on scikit-learn's digits ...")
    run = digits_run(n_samples=options.samples, seed=options.seed)
    return run.pairs, run.history[["epoch", "train_loss", "test_accuracy"]]


def _draw(
    pairs: Sequence[tuple[Any, ...]], labels: Sequence[str], likelihood: str, where: Path
) -> None:
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError:
        print("No picture: matplotlib is not installed (python -m pip install 'skgeo[plot]').")
        return
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(pairs)))
    for (model, *data), label, shade in zip(pairs, labels, shades, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # reported with the table already
            fitted = FisherRankEstimator(model, likelihood=likelihood, n_components=0).fit(*data)
        SpectrumDisplay.from_estimator(fitted, ax=axes, label=label, color=shade)
    where = where if where.suffix else where.with_suffix(".png")
    try:
        figure.savefig(where, dpi=150)
    except ValueError as error:
        raise SkgeoError(f"--picture {where}: {_said(error)}") from error
    print(f"Spectra: {where.resolve()}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line tool; returns its exit status, 2 if the input cannot be measured.

    argv: by default those of the process.
    """
    options = _parser().parse_args(argv)
    try:
        check_integer("--samples", options.samples)
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            pairs, rows = _table(options)
            estimator = FisherRankEstimator(likelihood=options.likelihood, verbose=1)
            estimator.set_output(transform="pandas")
            features = estimator.fit_transform(pairs)
            table = pd.concat([rows.reset_index(drop=True), features], axis=1)
            print(table.T.to_string(header=False, float_format="{:.6g}".format))
            labels = [f"{rows.columns[0]} {value}" for value in rows.iloc[:, 0]]
            _draw(pairs, labels, options.likelihood, options.picture)
    except (SkgeoError, TypeError, OSError) as error:
        print(f"skgeo: {error}", file=sys.stderr)
        return 2
    for message in dict.fromkeys(str(warning.message) for warning in noted):
        print(f"Note: {message}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
