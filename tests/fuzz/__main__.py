"""``python -m tests.fuzz --n 10000``: many random networks, in runs that may be taken up again."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does


def main(arguments: list[str] | None = None) -> int:
    from fuzz.run import as_text, counts, read_state, records
    from fuzz.verdicts import VERDICTS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="number of seeds")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--state", type=Path, help="JSON lines of seeds done, which are left out")
    parser.add_argument("--csv", type=Path, help="where to write the table of counts")
    parser.add_argument("--said", action="store_true", help="list refusals and warnings as well")
    given = parser.parse_args(arguments)

    wanted = range(given.start, given.start + given.n)
    done = [] if given.state is None else read_state(given.state)
    lines = [line for line in done if line["seed"] in wanted]
    seen = {line["seed"] for line in lines}
    warnings.simplefilter("ignore")  # those of torch; each check records its own
    left = [seed for seed in wanted if seed not in seen]
    for line in records(left, given.jobs):
        lines.append(line)
        if given.state is not None:
            with given.state.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if len(lines) % 500 == 0:
            print(f"{len(lines)} of {len(wanted)}", file=sys.stderr, flush=True)

    table = counts(lines)
    print(f"{len(lines)} networks, seeds {wanted.start} to {wanted.stop - 1}")
    print(as_text(table))
    failed = _list(lines, ("wrong", "bare"))
    if given.said:
        _list(lines, ("refused", "warned", "unclear"))
    if given.csv is not None:
        with given.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["quantity", *VERDICTS])
            for quantity, found in sorted(table.items()):
                writer.writerow([quantity, *(found[kind] for kind in VERDICTS)])
    return 1 if failed else 0


def _list(lines: list[dict], kinds: tuple[str, ...]) -> int:
    found = [
        (kind, line["seed"], quantity, detail)
        for line in lines
        for quantity, kind, detail in line["verdicts"]
        if kind in kinds
    ]
    for kind, seed, quantity, detail in sorted(found):
        print(f"{kind}  seed {seed}  {quantity}: {detail}")
    return len(found)


if __name__ == "__main__":
    raise SystemExit(main())
