"""Does the geometry of a network predict its generalisation gap better than what is known anyway?

Ninety-six ReLU networks 64-w-w-10 on scikit-learn's digits, which differ in the number of training
samples, width, weight decay, label noise and seed. The gap is the accuracy on the network's own
training samples minus that on 597 images that no network has seen, whose labels have the same
noise. Features:

- n: the logarithm of the number of training samples;
- loss: training loss (its logarithm) and training accuracy;
- margins: mean, median and tenth percentile of the margin (logit of the label minus the largest
  other logit) on the training samples, divided by the product of the layers' spectral norms or not;
- norms: Frobenius norm, product of spectral norms, distance from the initial weights, all as
  logarithms, and the number of parameters;
- geometry on all training samples: the features of FisherRankEstimator and LayerQuotientEstimator;
- geometry on 50 training samples: the same, on as many samples for every network.

A ridge regression with standardised features predicts the gap of networks that were held out: ten
times five folds at random, five folds that keep the seeds of one setting together, and whole sizes
of the training set at a time. R^2 is of all held-out predictions of one repetition, then averaged.
The gain is that over all baselines, with the seeds of one setting together, and its 95% interval by
drawing the 48 settings with replacement.
The leak check predicts the logarithm of the number of training samples from each set of features,
with seeds of one setting together, by the same regression and by a forest of extremely randomised
trees, which sees that a rank is a multiple of the number of samples as far as there are parameters
enough. Run from the root of the repository:

    python studies/generalisation_gap.py

It takes some five minutes on one core, and writes generalisation_gap.csv and
generalisation_gap_scores.csv beside itself.
"""

import itertools
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from digits import accuracy, loss, split, trained
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skgeo import FisherRankEstimator, LayerQuotientEstimator
from skgeo.exceptions import RankAmbiguityWarning

HERE = Path(__file__).parent
SIZES = (50, 100, 200, 400)
GRID = tuple(itertools.product(SIZES, (6, 12, 24), (0.0, 0.5), (0.0, 0.2), range(2)))
SETTING = ["n_train", "width", "weight_decay", "label_noise"]
STEPS = 500
DRAWS, RANGE = 9999, (0.025, 0.975)


def margins_and_norms(net, start, X, y) -> dict[str, float]:
    """What is usually compared with the gap."""
    with torch.no_grad():
        logits = net(X)
        own = logits.gather(1, y[:, None])[:, 0]
        others = logits.scatter(1, y[:, None], -torch.inf).max(1).values
        margin = (own - others).numpy()
        weights = [p for p in net.parameters() if p.ndim == 2]
        spectral = np.prod([torch.linalg.matrix_norm(w, 2).item() for w in weights])
        moved = sum(
            (p - q).square().sum().item()
            for p, q in zip(net.parameters(), start.parameters(), strict=True)
        )
        frobenius = sum(w.square().sum().item() for w in weights)
    points = {"mean": margin.mean(), "median": np.median(margin), "p10": np.quantile(margin, 0.1)}
    return {
        **{f"margin_{name}": value for name, value in points.items()},
        **{f"margin_normalised_{name}": value / spectral for name, value in points.items()},
        "norm_log_frobenius": np.log(frobenius) / 2,
        "norm_log_spectral": np.log(spectral),
        "norm_log_moved": np.log(moved) / 2,
        "norm_n_parameters": sum(p.numel() for p in net.parameters()),
    }


def geometry(net, X, prefix: str) -> dict[str, float]:
    """Features of the estimators on some samples; those that count or add are logarithms."""
    estimators = (
        FisherRankEstimator(net, likelihood="categorical", n_components=0),
        LayerQuotientEstimator(net, likelihood="categorical", n_components=0),
    )
    found = {k: v for e in estimators for k, v in e.fit(X).summary().items()}
    found.pop("n_parameters")
    logged = {k for k in found if k.startswith(("fisher", "tangent")) and k != "fisher_nullity"}
    return {f"{prefix}{k}": np.log(v) if k in logged else v for k, v in found.items()}


def network(n_train, width, weight_decay, label_noise, number) -> dict[str, float]:
    """Gap and features of one network."""
    seed = number + 2 * SIZES.index(n_train)
    X, y, X_test, y_test = split(n_train, label_noise, seed, noisy_test=True)
    options = {"weight_decay": weight_decay, "seed": seed}
    start = trained(X, y, width, steps=0, **options)
    net = trained(X, y, width, steps=STEPS, **options)
    train_accuracy = accuracy(net, X, y)
    return {
        **dict(zip(SETTING, (n_train, width, weight_decay, label_noise), strict=True)),
        "number": number,
        "gap": train_accuracy - accuracy(net, X_test, y_test),
        "n_log": np.log(n_train),
        "loss_log": np.log(loss(net, X, y)),
        "loss_accuracy": train_accuracy,
        **margins_and_norms(net, start, X, y),
        **geometry(net, X, "all_"),
        **geometry(net, X[:50], "fifty_"),
    }


def feature_sets(table: pd.DataFrame) -> dict[str, list[str]]:
    """Columns of each set of features."""

    def of(*prefixes):
        return [name for name in table if name.startswith(prefixes)]

    return {
        "n": ["n_log"],
        "loss": of("loss_"),
        "margins": of("margin_"),
        "norms": of("norm_"),
        "all baselines": of("n_log", "loss_", "margin_", "norm_"),
        "geometry, all samples": of("all_"),
        "Fisher rank and nullity, all samples": ["all_fisher_rank", "all_fisher_nullity"],
        "geometry, 50 samples": of("fifty_"),
        "Fisher rank and nullity, 50 samples": ["fifty_fisher_rank", "fifty_fisher_nullity"],
        "n and geometry, 50 samples": ["n_log", *of("fifty_")],
        "all baselines and geometry, 50 samples": of(
            "n_log", "loss_", "margin_", "norm_", "fifty_"
        ),
    }


RIDGE = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))
FOREST = ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0)


def errors(X: np.ndarray, y: np.ndarray, splitters, groups, model=RIDGE) -> np.ndarray:
    """Squared errors of out-of-fold predictions, in units of the variance of y."""
    found = [
        np.square(y - cross_val_predict(model, X, y, cv=splitter, groups=groups)) / y.var()
        for splitter in splitters
    ]
    return np.mean(found, axis=0)


def interval(gains: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """95% interval of a mean over networks, by drawing settings with replacement."""
    sums = pd.Series(gains).groupby(groups).agg(["sum", "size"]).to_numpy()
    drawn = np.random.default_rng(0).integers(0, len(sums), (DRAWS, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) @ [1, 0] / (sums[drawn].sum(1) @ [0, 1]), RANGE)
    return float(low), float(high)


def main() -> None:
    """Train, measure, and predict."""
    warnings.simplefilter("ignore", RankAmbiguityWarning)
    torch.set_num_threads(1)
    table = pd.DataFrame([network(*setting) for setting in GRID])
    table.to_csv(HERE / "generalisation_gap.csv", index=False, float_format="%.6g")
    print(table.groupby("n_train")["gap"].describe().round(3).to_string())
    found = scores(table)
    found.to_csv(HERE / "generalisation_gap_scores.csv", float_format="%.3f")
    print(found.round(3).to_string())


def scores(table: pd.DataFrame) -> pd.DataFrame:
    """R^2 of every set of features, for the gap and for the number of samples."""
    settings = table.groupby(SETTING).ngroup().to_numpy()
    repeats = range(10)
    at_random = [KFold(5, shuffle=True, random_state=seed) for seed in repeats]
    by_setting = [GroupKFold(5, shuffle=True, random_state=seed) for seed in repeats]
    gap, n = table["gap"].to_numpy(), table["n_log"].to_numpy()
    sets = feature_sets(table)
    known = errors(table[sets["all baselines"]].to_numpy(), gap, by_setting, settings)
    rows = {}
    for name, columns in sets.items():
        X = table[columns].to_numpy()
        found = {
            "gap_random_folds": errors(X, gap, at_random, None),
            "gap_by_setting": errors(X, gap, by_setting, settings),
            "gap_by_size": errors(X, gap, [LeaveOneGroupOut()], table["n_train"]),
            "n_by_setting": errors(X, n, by_setting, settings),
            "n_by_setting_forest": errors(X, n, by_setting[:1], settings, FOREST),
        }
        gain = known - found["gap_by_setting"]
        low, high = interval(gain, settings)
        rows[name] = {key: 1 - float(values.mean()) for key, values in found.items()}
        rows[name] |= {"gain": float(gain.mean()), "gain_low": low, "gain_high": high}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("features")


if __name__ == "__main__":
    main()
