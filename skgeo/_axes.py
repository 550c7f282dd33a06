"""New matplotlib axes; matplotlib is imported only when they are made."""

from __future__ import annotations

from typing import Any


def new_axes(name: str, size: tuple[float, float], columns: int = 1) -> Any:
    """Axes of a new figure, several in a row if `columns` > 1; `name` is that of the Display."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{name} needs matplotlib; install it: python -m pip install 'skgeo[plot]'."
        ) from error
    _, axes = plt.subplots(1, columns, figsize=size, layout="constrained")
    return axes
