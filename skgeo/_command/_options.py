"""Arguments of the command, each checked before any work."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skgeo import (
    FisherRankEstimator,
    JacobianChainProfiler,
    LayerQuotientEstimator,
    SkgeoError,
    SymmetryClassifier,
)
from skgeo._arguments import check_integer
from skgeo._version import __version__
from skgeo.base import GeometryEstimator
from skgeo.likelihood import LIKELIHOODS
from skgeo.network._running import check_device

EXAMPLES = """\
examples:
  python -m skgeo
      follow a small network while it is trained on the digits
  python -m skgeo --model weights.pt --factory package.module:function --data file.npz
      your own network: a state dict, a function that builds the module, arrays X and, optionally, y
  python -m skgeo --model 'run/*.pt' --factory package.module:function --data file.csv
      your own training run: a file per step, in the order of the last number in their names
  python -m skgeo --model whole.pt --trust --data file.npz
      a whole pickled module; unpickling runs code from the file
"""
ESTIMATORS: dict[str, Callable[[str, str | None], GeometryEstimator]] = {
    "fisher": lambda family, where: FisherRankEstimator(likelihood=family, device=where),
    "quotient": lambda family, where: LayerQuotientEstimator(likelihood=family, device=where),
    "chain": lambda family, where: JacobianChainProfiler(device=where),
    "symmetry": lambda family, where: SymmetryClassifier(likelihood=family, device=where),
}
TABLES = (".csv", ".json", ".parquet")


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(
        prog="python -m skgeo",
        description="Follow the geometry of a network while it is trained.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"skgeo {__version__}")
    own = made.add_argument_group("your own networks")
    own.add_argument(
        "--model", nargs="+", metavar="FILE", help="checkpoints, or a pattern such as 'run/*.pt'"
    )
    own.add_argument(
        "--factory", metavar="MODULE:FUNCTION", help="builds the module, called without arguments"
    )
    own.add_argument("--trust", action="store_true", help="unpickle FILE as a whole module")
    own.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help=".npz with X and, optionally, y; .npy with X; .csv or .parquet, where y is the target",
    )
    made.add_argument(
        "--estimators",
        default="fisher,quotient,symmetry",
        metavar="NAMES",
        help=f"some of {','.join(ESTIMATORS)} (default: fisher,quotient,symmetry)",
    )
    made.add_argument(
        "--likelihood",
        default="auto",
        choices=["auto", *sorted(LIKELIHOODS)],
        help="likelihood of the outputs (default: inferred from y)",
    )
    made.add_argument("--samples", type=int, default=300, help="rows to measure (default: 300)")
    made.add_argument("--seed", type=int, default=0, help="seed of the default training run")
    made.add_argument(
        "--output", type=Path, metavar="FILE", help="the table: .csv, .json, .parquet"
    )
    made.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="where the trajectories are drawn (default: skgeo-run.png)",
    )
    made.add_argument("--device", help="cpu, cuda or cuda:i (default: cpu)")
    made.add_argument("--jobs", type=int, help="networks measured at the same time (default: 1)")
    made.add_argument(
        "--memory",
        type=Path,
        metavar="FOLDER",
        help="keeps what is finished (default: a folder that is removed at the end)",
    )
    return made


def check(options: argparse.Namespace) -> None:
    """Raise SkgeoError for the first argument that is wrong."""
    check_integer("--samples", options.samples)
    check_integer("--seed", options.seed, least=0)
    if options.jobs is not None and options.jobs != -1:
        check_integer("--jobs", options.jobs)
    check_device(options.device)
    named_estimators(options)
    if options.model is None:
        own = [name for name in ("data", "factory", "trust") if getattr(options, name)]
        if own:
            raise SkgeoError(f"--{own[0]} belongs to --model, which is not given.")
    elif options.trust == (options.factory is not None):
        raise SkgeoError(
            "Say how to read --model: --factory package.module:function for a state dict, or "
            "--trust to unpickle a whole module."
        )
    elif options.data is None:
        raise SkgeoError("--model needs --data, a file with an array X and, optionally, y.")
    if options.output is not None:
        if options.output.suffix not in TABLES:
            raise SkgeoError(
                f"--output {options.output}: expected a name that ends with one of "
                f"{', '.join(TABLES)}."
            )
        _check_writable("--output", options.output)
        if options.output.suffix == ".parquet":
            check_parquet("--output")
    if options.picture is not None:
        if not options.picture.suffix and not options.picture.is_dir():
            options.picture = options.picture.with_suffix(".png")
        _check_writable("--picture", options.picture)
        _check_picture(options.picture)
    if options.memory is not None and options.memory.exists() and not options.memory.is_dir():
        raise SkgeoError(f"--memory {options.memory} is a file; expected a folder.")


def named_estimators(options: argparse.Namespace) -> dict[str, Any]:
    """The estimators by their names in the table."""
    names = [name.strip() for name in options.estimators.split(",")]
    for name in names:
        if name not in ESTIMATORS:
            raise SkgeoError(
                f"--estimators {options.estimators!r}: {name!r} is not one of "
                f"{', '.join(ESTIMATORS)}."
            )
        if names.count(name) > 1:
            raise SkgeoError(f"--estimators {options.estimators!r}: {name!r} is named twice.")
    return {name: ESTIMATORS[name](options.likelihood, options.device) for name in names}


def check_parquet(argument: str) -> None:
    """Raise SkgeoError unless parquet files can be read and written."""
    if importlib.util.find_spec("pyarrow") is None:
        raise SkgeoError(
            f"{argument}: a .parquet file needs pyarrow, which is not installed "
            "(python -m pip install pyarrow). Use .csv instead."
        )


def _check_writable(argument: str, path: Path) -> None:
    folder = path.absolute().parent
    if path.is_dir():
        raise SkgeoError(f"{argument} {path} is a folder; expected the name of a file.")
    if not folder.is_dir():
        raise SkgeoError(f"{argument} {path}: there is no folder {folder}.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise SkgeoError(f"{argument} {path} cannot be written: permission denied.")


def _check_picture(path: Path) -> None:
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise SkgeoError(
            f"--picture {path} needs matplotlib, which is not installed "
            "(python -m pip install 'skgeo[plot]')."
        ) from None
    kinds: Sequence[str] = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in kinds:
        raise SkgeoError(
            f"--picture {path}: matplotlib writes {', '.join(kinds)}, and not {path.suffix!r}."
        )
