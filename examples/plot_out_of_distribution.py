r"""
Unfamiliar inputs and the null space of a layer
===============================================

An unfamiliar input may move a representation in directions that no familiar one uses and the rest
of the network does not read. The share of a representation that lies in the null space of the
layer's mean Fisher metric is then large. This example measures how well that share tells unfamiliar
digits from familiar ones, on far and near cases, beside three usual scores.
"""

# %%
# Familiar, far and near
# ----------------------
# Networks learn the digits 0 to 7. *Near* are the digits 8 and 9, images of the same kind that are
# of no known class. *Far* are images of uniform noise, images with shuffled pixels, and negatives.

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import nn

from skgeo.exceptions import RankAmbiguityWarning
from skgeo.quotient import LayerQuotientEstimator

# The mean metric has no gap; a direction is called null below 1e-4 of the largest eigenvalue.
warnings.simplefilter("ignore", RankAmbiguityWarning)
TOLERANCE = 1e-4

images, digits = load_digits(return_X_y=True)
images = images / 16
known = digits < 8


def split(seed):
    """Training images with labels, and test images: familiar, near, and three kinds of far."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(known))
    train, test = order[:1000], order[1000:]
    return (images[train], digits[train]), {
        "familiar": images[test],
        "8 and 9": images[~known],
        "noise": rng.uniform(size=(300, 64)),
        "shuffled": rng.permuted(images[test], axis=1),
        "negative": 1 - images[test],
    }


def trained(X, y, seed):
    """A ReLU network 64-64-64-8."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)
    ).double()
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(40):
        for batch in torch.randperm(len(X)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X[batch]), y[batch]).backward()
            optimizer.step()
    return net.eval()


# %%
# Four scores
# -----------
# All grow with unfamiliarity. The null share and the two distances look at one layer; the largest
# softmax probability looks at the output.


def scores(net, layer, X, y):
    """The scores as functions of images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankAmbiguityWarning)
        quotient = LayerQuotientEstimator(
            net, likelihood="categorical", layers=[layer], tol=TOLERANCE
        ).fit(X[:300])

    def hidden(images):
        with torch.no_grad():
            return net[: int(layer) + 1](torch.from_numpy(images)).numpy()

    def null_share(images):
        total = np.square(hidden(images) - quotient.mean_).sum(1)
        return 1 - np.square(quotient.transform(images)).sum(1) / total

    H = hidden(X)
    centers = np.stack([H[y == k].mean(0) for k in range(8)])
    precision = LedoitWolf().fit(H - centers[y]).precision_
    neighbours = NearestNeighbors(n_neighbors=10).fit(H)

    def mahalanobis(images):
        away = hidden(images)[:, None] - centers
        return np.einsum("nki,ij,nkj->nk", away, precision, away).min(1)

    def nearest(images):
        return neighbours.kneighbors(hidden(images))[0][:, -1]

    def softmax(images):
        with torch.no_grad():
            return -net(torch.from_numpy(images)).softmax(1).max(1).values.numpy()

    return {
        "null share": null_share,
        "Mahalanobis": mahalanobis,
        "10th neighbour": nearest,
        "max softmax": softmax,
    }


# %%
# Areas under the curve
# ---------------------
# 1 is perfect separation from the familiar test images, 0.5 none. Mean over three networks.

rows = []
for seed in range(3):
    (X, y), tests = split(seed)
    net = trained(X, y, seed)
    for layer, place in (("1", "first hidden layer"), ("3", "last hidden layer")):
        for name, score in scores(net, layer, X, y).items():
            calm = score(tests["familiar"])
            for kind in ("8 and 9", "noise", "shuffled", "negative"):
                odd = score(tests[kind])
                truth = np.r_[np.zeros(len(calm)), np.ones(len(odd))]
                area = roc_auc_score(truth, np.r_[calm, odd])
                rows.append((place, name, kind, area))
results = pd.DataFrame(rows, columns=["layer", "score", "kind", "area"])
order = ["null share", "Mahalanobis", "10th neighbour", "max softmax"]
table = results.groupby(["layer", "score", "kind"])["area"].mean().unstack()
table = table.reindex(order, level="score")[["8 and 9", "noise", "shuffled", "negative"]]
print(table.to_string(float_format="{:.2f}".format))

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
for axis, (place, part) in zip(axes, table.groupby(level="layer"), strict=True):
    part.droplevel("layer").T.plot.bar(ax=axis, rot=20, legend=False)
    axis.set(title=place, xlabel="", ylim=(0.4, 1.02))
axes[0].set_ylabel("area under the curve")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()

# %%
# What it is worth
# ----------------
# At the first hidden layer the null share separates the far images well, and needs no labels. It
# does not separate the near ones as well as nearest neighbours or the softmax do, and the two
# distances are at least as good on the far ones. At the last hidden layer, where the head reads
# seven directions and the network has already thrown most of an image away, it is much weaker. As
# a detector it has no advantage here over a distance to the training data; what it adds is where
# the unfamiliar part of an image goes.
