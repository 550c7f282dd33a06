"""Do per-sample features of the geometry tell unfamiliar inputs from familiar ones?

ReLU networks 64-32-32-8 on eight of scikit-learn's digits. Near are images of the two digits that
were left out; far are images of uniform noise, familiar images with shuffled pixels, and negatives.
Five networks, each with another pair of digits left out. Scores, of which larger values are to mean
unfamiliar inputs:

- geometry: the Fisher leverage summed over directions (the linearised Laplace variance), over all
  of them and over those above 1e-4 of the largest eigenvalue, and the trace of the sample's own
  metric; the share of the first and last hidden representations in the null space of the layer's
  quotient (tolerance 1e-4); log volume, largest singular value and effective rank of the Jacobian
  from the input to the last hidden layer;
- baselines: largest softmax probability, energy (minus the logarithm of the sum of exponentials of
  logits), Mahalanobis distance to the nearest class mean and distance to the tenth neighbour, both
  at the last hidden layer, and the last of them at the input.

The number is the area under the ROC curve against familiar test images. Run from the root of the
repository:

    python studies/out_of_distribution.py

It takes two minutes on one core, and writes out_of_distribution.csv beside itself, one row per
network, score and kind of input, and their means over the networks, out_of_distribution_means.csv.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from digits import trained
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from skgeo import FisherRankEstimator, JacobianChainProfiler, LayerQuotientEstimator
from skgeo.exceptions import GeometryWarning

HERE = Path(__file__).parent
LEFT_OUT = ((8, 9), (0, 1), (2, 3), (4, 5), (6, 7))
TOLERANCE = 1e-4
FIRST, LAST = "1", "3"
KINDS = ["near", "shuffled", "noise", "negative"]


def inputs(left_out: tuple[int, int], seed: int):
    """Training images with labels, and images of every kind."""
    images, digits = load_digits(return_X_y=True)
    images = images / 16
    known = ~np.isin(digits, left_out)
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(known))
    train, test = order[:1000], order[1000:]
    labels = np.searchsorted(np.unique(digits[known]), digits[train])
    return (
        images[train],
        labels,
        {
            "familiar": images[test],
            "near": images[~known],
            "noise": rng.uniform(size=(300, 64)),
            "shuffled": rng.permuted(images[test], axis=1),
            "negative": 1 - images[test],
        },
    )


def geometry(net, X: np.ndarray) -> dict:
    """Scores of the geometry, as functions of images."""
    likelihood = {"likelihood": "categorical"}
    fisher = FisherRankEstimator(net, **likelihood).fit(X[:200])
    strong = int((fisher.eigenvalues_ > TOLERANCE * fisher.eigenvalues_[0]).sum())
    few = fisher.eigenvalues_[: len(fisher.components_)]
    quotients = {
        layer: LayerQuotientEstimator(net, layers=[layer], tol=TOLERANCE, **likelihood).fit(X[:300])
        for layer in (FIRST, LAST)
    }
    chain = JacobianChainProfiler(net, layers=[LAST]).fit(X[:200])
    names = list(chain.get_feature_names_out())

    def stretches(name):
        column = names.index(f"chain_{LAST}_{name}")
        return lambda images: np.nan_to_num(chain.transform(images)[:, column], neginf=-1e3)

    def null_share(layer):
        quotient = quotients[layer]

        def share(images):
            away = np.square(hidden(net, layer, images) - quotient.mean_).sum(1)
            return 1 - np.square(quotient.transform(images)).sum(1) / away

        return share

    return {
        "Fisher leverage": lambda images: fisher.transform(images).sum(1),
        "Fisher leverage, leading": lambda images: fisher.transform(images)[:, :strong].sum(1),
        "Fisher trace": lambda images: fisher.transform(images) @ few,
        "null share, first layer": null_share(FIRST),
        "null share, last layer": null_share(LAST),
        "chain log volume": stretches("log_volume"),
        "chain largest stretch": stretches("sigma_max"),
        "chain effective rank": stretches("effective_rank"),
    }


def baselines(net, X: np.ndarray, y: np.ndarray) -> dict:
    """Scores that are usual, as functions of images."""
    H = hidden(net, LAST, X)
    centers = np.stack([H[y == k].mean(0) for k in range(8)])
    precision = LedoitWolf().fit(H - centers[y]).precision_
    near = {"last": NearestNeighbors(n_neighbors=10).fit(H)}
    near["input"] = NearestNeighbors(n_neighbors=10).fit(X)

    def mahalanobis(images):
        away = hidden(net, LAST, images)[:, None] - centers
        return np.einsum("nki,ij,nkj->nk", away, precision, away).min(1)

    def logits(images):
        with torch.no_grad():
            return net(torch.from_numpy(images))

    return {
        "max softmax": lambda images: -logits(images).softmax(1).max(1).values.numpy(),
        "energy": lambda images: -logits(images).logsumexp(1).numpy(),
        "Mahalanobis, last layer": mahalanobis,
        "10th neighbour, last layer": lambda images: near["last"].kneighbors(
            hidden(net, LAST, images)
        )[0][:, -1],
        "10th neighbour, input": lambda images: near["input"].kneighbors(images)[0][:, -1],
    }


def hidden(net, layer: str, images: np.ndarray) -> np.ndarray:
    """Representations at a layer."""
    with torch.no_grad():
        return net[: int(layer) + 1](torch.from_numpy(images)).numpy()


def areas(left_out: tuple[int, int], seed: int) -> pd.DataFrame:
    """Area under the curve of every score and kind of input, for one network."""
    X, y, kinds = inputs(left_out, seed)
    net = trained(
        torch.from_numpy(X),
        torch.from_numpy(y),
        32,
        steps=600,
        weight_decay=0.01,
        seed=seed,
        classes=8,
    )
    rows = []
    for family, scores in (("geometry", geometry(net, X)), ("baseline", baselines(net, X, y))):
        for name, score in scores.items():
            calm = score(kinds["familiar"])
            for kind in list(kinds)[1:]:
                odd = score(kinds[kind])
                truth = np.r_[np.zeros(len(calm)), np.ones(len(odd))]
                area = roc_auc_score(truth, np.r_[calm, odd])
                rows.append((f"{left_out[0]} and {left_out[1]}", family, name, kind, area))
    return pd.DataFrame(rows, columns=["left_out", "family", "score", "kind", "area"])


def main() -> None:
    """Train, score, and compare."""
    warnings.simplefilter("ignore", GeometryWarning)
    torch.set_num_threads(1)
    table = pd.concat([areas(pair, seed) for seed, pair in enumerate(LEFT_OUT)])
    table.to_csv(HERE / "out_of_distribution.csv", index=False, float_format="%.4f")
    found = means(table)
    found.to_csv(HERE / "out_of_distribution_means.csv", float_format="%.2f")
    print(found.round(2).to_string())


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean areas over the networks, by score and kind of input."""
    found = table.groupby(["family", "score", "kind"])["area"].mean().unstack("kind")
    return found[KINDS].sort_values(["family", "near"], ascending=False)


if __name__ == "__main__":
    main()
