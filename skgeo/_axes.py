"""New matplotlib axes for a picture; matplotlib is imported when one is drawn, not before."""

from __future__ import annotations

from typing import Any


def new_axes(name: str, size: tuple[float, float], columns: int = 1) -> Any:
    """One axis, or several in a row, of a new figure; `name` is that of the Display."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{name} needs matplotlib: python -m pip install 'skgeo[plot]'"
        ) from error
    _, axes = plt.subplots(1, columns, figsize=size, layout="constrained")
    return axes
