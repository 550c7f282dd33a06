"""The tables of docs/benchmarks.rst, from the records of one run."""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from contestants import DISTRIBUTIONS
from outcomes import FAILED, MEASURED, NOT_AVAILABLE, NOT_OFFERED
from works import Work

import skgeo

BEGIN = ".. The lines from here on are written by benchmarks/run.py."
END = ".. The lines up to here are written by benchmarks/run.py."
Records = Mapping[tuple[str, str], Mapping[str, Any]]


def two_digits(value: float) -> str:
    """A positive number to two significant digits, without an exponent where that is short."""
    if value >= 10:
        return f"{value:,.0f}"
    if value >= 1:
        return f"{value:.1f}"
    return f"{float(f'{value:.2g}'):f}".rstrip("0")


def megabytes(size: float) -> str:
    """Bytes as MB."""
    return f"{size / 1e6:,.0f}"


def short_cell(record: Mapping[str, Any], ours: Mapping[str, Any] | None) -> str:
    """Seconds and the ratio to ours, or a word."""
    words = {NOT_OFFERED: "-", NOT_AVAILABLE: "not yet", FAILED: "failed"}
    if record["outcome"] != MEASURED:
        return words[record["outcome"]]
    seconds = two_digits(record["seconds"])
    if ours is None or ours is record or ours["outcome"] != MEASURED:
        return seconds
    mark = "" if record.get("agrees", True) else " (!)"
    return f"{seconds} ({two_digits(record['seconds'] / ours['seconds'])}x){mark}"


def agreement(record: Mapping[str, Any]) -> str:
    """What the comparison of answers said."""
    if "difference" not in record:
        return ""
    difference = f"{record['difference']:.1e}"
    if record.get("estimate"):
        return f"random estimate, off by {100 * record['difference']:.2g}%"
    if record["agrees"]:
        return f"agrees with {record['against']}: {difference}"
    return f"DIFFERS from {record['against']}: {difference}"


def wide_rows(
    works: Sequence[Work], contestants: Sequence[str], records: Records
) -> list[list[str]]:
    """A row a work, a column a contestant."""
    rows = [["work", *contestants]]
    for work in works:
        ours = records.get((work.name, "skgeo"))
        cells = [short_cell(records[work.name, name], ours) for name in contestants]
        rows.append([work.description, *cells])
    return rows


def detail_rows(
    works: Sequence[Work], contestants: Sequence[str], records: Records
) -> list[list[str]]:
    """A row for each contestant at each work: memory, agreement and reasons."""
    rows = [["work", "contestant", "CPU seconds", "peak MB", "remark"]]
    for work in works:
        for name in contestants:
            record = records[work.name, name]
            if record["outcome"] == MEASURED:
                numbers = [two_digits(record["seconds"]), megabytes(record["peak_bytes"])]
                remark = agreement(record)
                if not record["repeats"]:
                    remark = "; ".join(filter(None, [remark, "one call, too slow to repeat"]))
            else:
                numbers = ["", ""]
                remark = f"{record['outcome']}: {record['reason']}"
            rows.append([work.description, name, *numbers, remark])
    return rows


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def circumstances(rates: Mapping[str, float]) -> str:
    """Date, machine, versions and arithmetic in one paragraph."""
    # skgeo is imported from the checkout and has no metadata in the environment.
    versions = ", ".join(
        f"{name} {skgeo.__version__ if name == 'skgeo' else version(name)}"
        for name in DISTRIBUTIONS.values()
    )
    arithmetic = ", ".join(f"{name}: {two_digits(value)}" for name, value in rates.items())
    return (
        f"Taken on {datetime.now(UTC):%Y-%m-%d} on {cpu_model()} ({platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}), one thread. {versions}. "
        f"Arithmetic in the same run: {arithmetic}."
    )


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Comma-separated, with Unix line ends."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def section(text: str) -> str:
    """The part of the page that shows the tables."""
    return f"""{BEGIN}

{text}

.. csv-table:: CPU seconds, and the ratio to skgeo's in parentheses
   :file: benchmarks.csv
   :header-rows: 1
   :class: benchmarks

.. csv-table:: Memory, agreement and reasons
   :file: benchmarks_detail.csv
   :header-rows: 1
   :class: benchmarks

{END}"""


def write(
    folder: Path,
    works: Sequence[Work],
    contestants: Sequence[str],
    records: Records,
    rates: Mapping[str, float],
) -> None:
    """Write both tables into a folder, and show them on the page if that is there."""
    write_csv(folder / "benchmarks.csv", wide_rows(works, contestants, records))
    write_csv(folder / "benchmarks_detail.csv", detail_rows(works, contestants, records))
    page = folder / "benchmarks.rst"
    if page.exists():
        text = page.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        _, after = rest.split(END)
        page.write_text(before + section(circumstances(rates)) + after, encoding="utf-8")
    else:
        (folder / "circumstances.txt").write_text(circumstances(rates) + "\n", encoding="utf-8")


def show(rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True)) for r in rows)
    return "\n".join(line.rstrip() for line in lines)
