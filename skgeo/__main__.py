"""Follow the geometry of a network while it is trained: ``python -m skgeo``."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from skgeo import SkgeoError
from skgeo._command._networks import default_run, own_run
from skgeo._command._options import check, named_estimators, parser
from skgeo._command._report import draw, show, write
from skgeo.training import track

__all__ = ["main"]

_PICTURE = Path("skgeo-run.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line tool; returns its exit status, 2 if the input cannot be measured.

    argv: by default those of the process.
    """
    options = parser().parse_args(argv)
    try:
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            check(options)
            last = _measure(options)
    except (SkgeoError, TypeError, OSError) as error:
        print(f"skgeo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"skgeo: Interrupted. What was finished is kept in {_memory(options).resolve()}: the "
            "same command goes on from there.",
            file=sys.stderr,
        )
        return 130
    for message in dict.fromkeys(str(warning.message) for warning in noted):
        print(f"Note: {message}")
    if last:
        print(last)
    return 0


def _measure(options: argparse.Namespace) -> str:
    """Measure, show and write; returns the last line, which says where the picture is."""
    history = None
    if options.model is None:
        run, history = default_run(options)
    else:
        run = own_run(options)
    folder = _memory(options)
    table = track(
        run,
        named_estimators(options),
        memory=folder,
        n_jobs=options.jobs,
        verbose=int(sys.stderr.isatty()),
    )
    if history is not None:
        table = history.join(table)
    show(table)
    if options.output is not None:
        write(table, options.output)
    if options.picture is not None or importlib.util.find_spec("matplotlib") is not None:
        last = draw(table, options.picture or _PICTURE)
    else:
        last = "No picture: matplotlib is not installed (python -m pip install 'skgeo[plot]')."
    if options.memory is None:
        shutil.rmtree(folder, ignore_errors=True)
    return last


def _memory(options: argparse.Namespace) -> Path:
    """Where what is finished is kept; beside the results unless the user says."""
    if options.memory is not None:
        return Path(options.memory)
    beside = options.output or options.picture or _PICTURE
    return Path(beside).absolute().parent / ".skgeo-unfinished"


if __name__ == "__main__":
    raise SystemExit(main())
