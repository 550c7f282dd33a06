"""Effective ranks and null dimensions while a network learns digits.

ReLU networks 64-32-32-10 on scikit-learn's digits, three seeds, with clean labels and with 40% of
the labels drawn anew. Run from the root of the repository:

    python studies/effective_rank_in_training.py

It takes a minute on one core, and writes effective_rank_in_training.csv and .png beside itself.
An identity stands before the network, so that the layer "0" of the quotients is the input. They are
measured at two tolerances: that of the arithmetic, and 1e-3 of the largest eigenvalue.
"""

from pathlib import Path

import pandas as pd
from torch import nn

from skgeo import FisherRankEstimator, LayerQuotientEstimator, track
from skgeo.datasets import training_run
from skgeo.training import TrajectoryDisplay

HERE = Path(__file__).parent
STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


def tracked(label_noise: float, seed: int) -> pd.DataFrame:
    """Table of one training, beside its losses and accuracies."""
    run = training_run(
        "digits", hidden=(32, 32), steps=STEPS, n_samples=200, label_noise=label_noise, seed=seed
    )
    estimators = {
        "fisher": FisherRankEstimator(n_components=0),
        "quotient": LayerQuotientEstimator(),
        "coarse": LayerQuotientEstimator(tol=1e-3),
    }
    table = run.table
    table["model"] = [nn.Sequential(nn.Identity(), *net) for net in table["model"]]
    return track(table, estimators).join(run.history.set_index("step"))


def main() -> None:
    """Train, track, write the table, and draw the clean runs."""
    tables = {(noise, seed): tracked(noise, seed) for noise in (0.0, 0.4) for seed in range(3)}
    whole = pd.concat(tables, names=["label_noise", "seed"])
    whole.to_csv(HERE / "effective_rank_in_training.csv", float_format="%.6g")
    shown = ["fisher__fisher_effective_rank", "fisher__tangent_effective_rank", "test_accuracy"]
    shown += ["quotient__quotient_common_nullity[0]", "coarse__quotient_common_nullity[0]"]
    print(whole[shown].round(3).to_string())
    clean = [tables[0.0, seed].filter(regex="^(?!coarse)") for seed in range(3)]
    display = TrajectoryDisplay.from_track(clean)
    display.figure_.savefig(HERE / "effective_rank_in_training.png", dpi=150)


if __name__ == "__main__":
    main()
