"""A quantity down the layers of a network, in four numbers that any depth gives."""

from __future__ import annotations

import numpy as np

DEPTH_STATISTICS = ("first", "last", "mean", "slope")


def depth_statistics(profile: np.ndarray) -> list[float]:
    """First, last and mean value of a profile, and its slope over relative depth.

    Returns: In the order of `DEPTH_STATISTICS`. The slope is that of a least squares line against
        relative depth, 0 at the first layer and 1 at the last; NaN over one layer, and where a
        value is not finite. All four are NaN without a layer.

    >>> [round(value, 12) for value in depth_statistics(np.array([1.0, 2.0, 3.0]))]
    [1.0, 3.0, 2.0, 2.0]
    """
    # profile (n_layers,)
    if not len(profile):
        return [float("nan")] * len(DEPTH_STATISTICS)
    slope = float("nan")
    if len(profile) > 1 and np.isfinite(profile).all():
        depth = np.linspace(-0.5, 0.5, len(profile))
        slope = float(depth @ (profile - profile.mean()) / (depth @ depth))
    return [float(profile[0]), float(profile[-1]), float(profile.mean()), slope]
