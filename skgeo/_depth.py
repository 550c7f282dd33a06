"""Statistics of a quantity along the layers of a network, for any depth."""

from __future__ import annotations

import numpy as np

DEPTH_STATISTICS = ("first", "last", "mean", "slope")


def depth_statistics(profile: np.ndarray) -> list[float]:
    """First, last and mean value of a profile, and its slope with respect to relative depth.

    Returns them in the order of `DEPTH_STATISTICS`. The slope is that of the least squares line
    over relative depth, 0 at the first layer and 1 at the last. It is NaN for a single layer or
    where a value is not finite. All four are NaN without layers.

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
