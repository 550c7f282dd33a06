"""Measure skgeo and its peers on the same work, and write the tables of docs/benchmarks.rst.

    python benchmarks/run.py

makes an environment of its own (outside the tree), installs the peers there, and runs this checkout
and each of them at each work in a process of its own with one thread. An environment that is there
already and was made from the same requirements is used as it is (`--env FOLDER`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import environment

HERE = Path(__file__).resolve().parent
INSIDE = "SKGEO_BENCHMARKS_INSIDE"
THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--env", type=Path, default=environment.default_folder(), help="folder of the environment"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="works and contestants to run"
    )
    parser.add_argument("--all", action="store_true", help="the optional works, too")
    parser.add_argument("--repeat", type=int, default=3, help="timed calls; the best counts")
    parser.add_argument(
        "--budget", type=float, default=10.0, help="CPU seconds for the timed calls of a pair"
    )
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for a pair")
    parser.add_argument("--memory", type=float, default=12.0, help="GB that a pair may take")
    parser.add_argument("--quick", action="store_true", help="small sizes: try the machinery")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for the tables; docs/ for a whole run, none with --only or --quick",
    )
    return parser.parse_args()


def run_inside(python: Path) -> int:
    """This command again, with the environment's Python."""
    settings = {**os.environ, **dict.fromkeys(THREAD_SETTINGS, "1"), INSIDE: "1"}
    settings["PYTHONPATH"] = str(environment.ROOT)
    command = [str(python), str(HERE / "run.py"), *sys.argv[1:]]
    return subprocess.run(command, env=settings, check=False).returncode


def measure(options: list[str], result: Path, timeout: float) -> dict[str, Any]:
    """One process of measure.py; what ends it early is recorded in words."""
    from outcomes import FAILED

    command = [sys.executable, str(HERE / "measure.py"), "--result", str(result), *options]
    try:
        ended = subprocess.run(
            command, timeout=timeout, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return {"outcome": FAILED, "reason": f"did not end within {timeout:g} s"}
    record = result.with_suffix(".json")
    if record.exists():
        return json.loads(record.read_text())
    last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
    return {"outcome": FAILED, "reason": f"the process ended with {ended.returncode}: {last[:120]}"}


def compare(work: Any, contestants: list[str], records: dict, folder: Path) -> None:
    """Add to each record how far its answer is from skgeo's (else from the first there is)."""
    import numpy as np
    from outcomes import MEASURED

    judged = [
        name
        for name in contestants
        if name != "floor" and records[work.name, name]["outcome"] == MEASURED
    ]
    if not judged:
        return
    reference = judged[0]
    expected = np.load(folder / f"{work.name}.{reference}.npy").astype(float)
    for name in judged[1:]:
        record = records[work.name, name]
        answer = np.load(folder / f"{work.name}.{name}.npy").astype(float)
        if work.quantity.startswith("spectrum"):  # sides differ in how many zeros they add
            length = max(len(answer), len(expected))
            answer, padded = (
                np.pad(values, (0, length - len(values))) for values in (answer, expected)
            )
        else:
            padded = expected
        if answer.shape != padded.shape:
            record["difference"] = float("inf")
        else:
            record["difference"] = float(np.abs(answer - padded).max() / np.abs(padded).max())
        record["agrees"] = record.get("estimate") or record["difference"] <= work.tolerance
        record["against"] = reference


def main() -> int:
    arguments = parse()
    if INSIDE not in os.environ:
        return run_inside(environment.prepare(arguments.env.expanduser().resolve()))

    import table
    from contestants import CONTESTANTS
    from works import WORKS

    unknown = set(arguments.only) - set(WORKS) - set(CONTESTANTS)
    if unknown:
        print(f"--only: {sorted(unknown)} not known. Works: {list(WORKS)}.", file=sys.stderr)
        print(f"Contestants: {list(CONTESTANTS)}.", file=sys.stderr)
        return 2
    works = [WORKS[name] for name in WORKS if name in arguments.only] or [
        work for work in WORKS.values() if arguments.all or not work.optional
    ]
    contestants = [name for name in CONTESTANTS if name in arguments.only] or list(CONTESTANTS)
    limits = ["--memory", str(arguments.memory)]
    options = ["--repeat", str(arguments.repeat), "--budget", str(arguments.budget), *limits]
    if arguments.quick:
        options.append("--quick")
        works = [work.smaller() for work in works]

    records: dict[tuple[str, str], dict[str, Any]] = {}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rates = measure(["--rates", *limits], folder / "rates", arguments.timeout)
        for work in works:
            print(work.description, flush=True)
            for contestant in contestants:
                pair = ["--work", work.name, "--contestant", contestant]
                result = folder / f"{work.name}.{contestant}.json"
                record = measure([*pair, *options], result, arguments.timeout)
                records[work.name, contestant] = record
                said = record.get("reason") or table.two_digits(record["seconds"]) + " s"
                print(f"    {contestant}: {said}", flush=True)
            compare(work, contestants, records, folder)
            for answer in folder.glob("*.npy"):
                answer.unlink()

    print("\n" + table.show(table.wide_rows(works, contestants, records)))
    print("\n" + table.show(table.detail_rows(works, contestants, records)))
    print("\n" + table.circumstances(rates))
    print(f"\n{time.monotonic() - start:,.0f} s in all")
    output = arguments.output
    if output is None and not arguments.only and not arguments.quick:
        output = environment.ROOT / "docs"
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        table.write(output, works, contestants, records, rates)
    wrong = [pair for pair, record in records.items() if not record.get("agrees", True)]
    if wrong:
        print(f"answers differ: {wrong}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
