"""Geometry and accuracy of twenty-four networks on scikit-learn's digits.

The networks differ in width, weight decay, training time and seed. Each is measured on sixty of its
own training images, at every tolerance of the rank that the example searches over. The table is
written to ``accuracy_from_geometry.csv`` next to this script, one row per network and tolerance;
``examples/plot_features_of_networks.py`` reads it. Run by hand from anywhere::

    python studies/accuracy_from_geometry.py
"""

import itertools
import warnings
from pathlib import Path

import pandas as pd

from skgeo import FisherRankEstimator
from skgeo.datasets import digits_run
from skgeo.exceptions import RankAmbiguityWarning

TOLERANCES = (1e-9, 1e-5, 1e-2)
SETTINGS = tuple(itertools.product((3, 5, 8), (0.0, 0.3), (5, 15), (0, 1)))
TABLE = Path(__file__).with_suffix(".csv")


def measure(seed, width, weight_decay, epochs):
    """Rows of one network, one per tolerance."""
    run = digits_run(
        (width,),
        checkpoints=(epochs,),
        n_train=400,
        n_samples=60,
        weight_decay=weight_decay,
        seed=seed,
    )
    rows = []
    for tol in TOLERANCES:
        estimator = FisherRankEstimator(likelihood="categorical", tol=tol)
        features = estimator.set_output(transform="pandas").fit_transform(run.pairs)
        rows.append(
            {
                "width": width,
                "weight_decay": weight_decay,
                "epochs": epochs,
                "seed": seed,
                "test_accuracy": run.history["test_accuracy"].item(),
                "train_accuracy": run.history["train_accuracy"].item(),
                "tol": tol,
                **features.iloc[0],
            }
        )
    return rows


def main():
    # The spectra of trained networks rarely have a gap; the table holds three tolerances instead.
    warnings.simplefilter("ignore", RankAmbiguityWarning)
    rows = []
    # The last factor of the grid only repeats a setting: every network has a seed of its own.
    for seed, (width, weight_decay, epochs, _) in enumerate(SETTINGS):
        rows += measure(seed, width, weight_decay, epochs)
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(TABLE, index=False)


if __name__ == "__main__":
    main()
