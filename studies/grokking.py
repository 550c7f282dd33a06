"""Does a rank move before the test accuracy does, where a network first memorises?

Transformers of one layer learn addition modulo 29 from 500 of the 841 pairs of integers, with full
batches of AdamW: with weight decay 1, under which the test accuracy rises long after the training
accuracy (grokking), and without, three seeds each. Followed on 40 training samples: ranks and
effective ranks of the Fisher metric and of the tangent kernel and the effective ranks of the layer
quotients; beside them the norm of the weights and the losses, which cost nothing.

For each feature, the summary has the step at which it has gone half of the way from its value when
the training accuracy first is 0.99 to its last value, for good (by linear interpolation between
recorded steps), and how much it changed. It moves before the test accuracy if this step is the
smaller one. Run from the root of the repository:

    python studies/grokking.py

It takes some six minutes on one core, and writes grokking.csv and grokking_summary.csv beside
itself.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from skgeo import FisherRankEstimator, LayerQuotientEstimator, track
from skgeo.datasets import training_run
from skgeo.exceptions import GeometryWarning

HERE = Path(__file__).parent
STEPS = (0, 20, 50, *range(100, 1501, 100))


def weights(model, X, y):
    """Euclidean norm of all parameters."""
    return {"norm": sum(p.detach().square().sum() for p in model.parameters()) ** 0.5}


def followed(weight_decay: float, seed: int) -> pd.DataFrame:
    """Table of one training."""
    run = training_run(
        "modular",
        "transformer",
        hidden=(32, 64),
        steps=STEPS,
        n_train=500,
        n_samples=40,
        modulus=29,
        learning_rate=0.003,
        weight_decay=weight_decay,
        batch_size=500,
        seed=seed,
    )
    estimators = {
        "fisher": FisherRankEstimator(n_components=0),
        "quotient": LayerQuotientEstimator(),
        "weights": weights,
    }
    return track(run, estimators).join(run.history.set_index("step"))


def half_way(values: pd.Series, start: float) -> float:
    """Step from which on a feature is in the second half of its way since `start`."""
    later = values[values.index >= start]
    way = (later - later.iloc[0]) / (later.iloc[-1] - later.iloc[0])
    before = np.flatnonzero(way.to_numpy() < 0.5)[-1]
    steps, shares = later.index[before : before + 2], way.iloc[before : before + 2].to_numpy()
    return float(steps[0] + (0.5 - shares[0]) / (shares[1] - shares[0]) * (steps[1] - steps[0]))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """When each feature of one training moves."""
    memorised = table.index[table["train_accuracy"] >= 0.99][0]
    rows = {}
    for name in table:
        values = table[name]
        if name.startswith("jump") or not np.isfinite(values).all():
            continue
        first, last = values[memorised], values.iloc[-1]
        if first == last:
            continue
        rows[name] = {
            "memorised": memorised,
            "at_memorisation": first,
            "at_end": last,
            "half_way": half_way(values, memorised),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("feature")


def main() -> None:
    """Train, follow, and say what moves first."""
    warnings.simplefilter("ignore", GeometryWarning)
    torch.set_num_threads(1)
    tables = {(decay, seed): followed(decay, seed) for decay in (1.0, 0.0) for seed in range(3)}
    names = ["weight_decay", "seed"]
    pd.concat(tables, names=names).to_csv(HERE / "grokking.csv", float_format="%.6g")
    found = pd.concat({key: summary(table) for key, table in tables.items()}, names=names)
    found.to_csv(HERE / "grokking_summary.csv", float_format="%.6g")
    half = found["half_way"].unstack(names)
    print(half.loc[[n for n in half.index if "slope" not in n]].round(0).to_string())


if __name__ == "__main__":
    main()
