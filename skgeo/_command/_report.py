"""The table and the picture of a tracked run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from skgeo.exceptions import SkgeoError, raised
from skgeo.training import TrajectoryDisplay

_PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Loss", ("train_loss", "test_loss")),
    ("Effective rank", ("fisher_effective_rank", "tangent_effective_rank")),
    ("Null dimensions of each layer", ("quotient_common_nullity",)),
    ("Nullity of the parameters", ("fisher_nullity", "symmetry_explained_nullity")),
    ("Log volume", ("chain_log_volume_mean",)),
)


def show(table: pd.DataFrame) -> None:
    """Print one column per step."""
    shown = table.drop(columns=[name for name in table if "[" in str(name)])
    print(shown.T.to_string(float_format="{:.5g}".format))


def write(table: pd.DataFrame, path: Path) -> None:
    """Write the table in the format that the name says, whole or not at all."""
    handle, name = tempfile.mkstemp(suffix=path.suffix, dir=path.absolute().parent)
    os.close(handle)
    try:
        if path.suffix == ".csv":
            table.to_csv(name)
        elif path.suffix == ".json":
            table.reset_index().to_json(name, orient="records", indent=1)
        else:
            table.to_parquet(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    print(f"Table: {path.resolve()}")


def draw(table: pd.DataFrame, path: Path) -> str:
    """Draw what was measured against the step; returns the line that says where."""
    from matplotlib.figure import Figure

    features = {column: str(column).partition("__")[2] or str(column) for column in table}
    panels: list[tuple[str, tuple[str, ...]]] = []
    for title, wanted in _PANELS:
        found = tuple(
            name
            for name in wanted
            if any(feature.partition("[")[0] == name for feature in features.values())
        )
        if found:
            panels.append((title, found))
    if not panels:
        return ""
    across = min(len(panels), 2)
    down = -(-len(panels) // across)
    figure = Figure(figsize=(5.4 * across, 3.7 * down), layout="constrained")
    axes: list[Any] = list(figure.subplots(down, across, squeeze=False).flat)
    for spare in axes[len(panels) :]:
        spare.remove()
    TrajectoryDisplay.from_track(table, [names for _, names in panels], ax=axes[: len(panels)])
    for axis, (title, _) in zip(axes, panels, strict=False):
        axis.set_title(title)
    try:
        figure.savefig(path, dpi=150)
    except (ValueError, OSError) as error:
        raise SkgeoError(f"--picture {path}: {raised(error)}") from error
    return f"Picture: {path.resolve()}"
