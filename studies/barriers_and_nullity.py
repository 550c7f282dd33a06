"""Does the nullity of a network go with loss barriers, neural collapse and what can be pruned?

Thirty-six pairs of ReLU networks 64-w-w-10 on scikit-learn's digits. The two of a pair differ in
their seed alone; pairs differ in width, weight decay, label noise and seeds. Of each pair:

- the barrier: the largest excess of the training loss on the straight line between the two over
  the line between their losses, as they are and with the units of the first matched to the second;
- neural collapse at the last hidden layer, and the largest share of weights that can be set to
  zero, smallest first, at a loss of one point of test accuracy, both averaged over the pair;
- the share of null directions among the parameters (300 samples, 2700 rows, more than there are
  parameters) and among the coordinates of the layers, averaged over the pair.

Rank correlations over the pairs have permutation p-values: over all pairs, of ranks among the
twelve pairs of one width and permuted within them, and among the six of one width and label noise.
Run from the root of the repository:

    python studies/barriers_and_nullity.py

It takes some five minutes on one core, and writes barriers_and_nullity.csv and
barriers_and_nullity_correlations.csv beside itself.
"""

import copy
import itertools
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from digits import accuracy, loss, split, trained
from scipy.stats import rankdata
from torch import nn

from skgeo import FisherRankEstimator, LayerQuotientEstimator
from skgeo.exceptions import RankAmbiguityWarning
from skgeo.quotient import neural_collapse
from skgeo.symmetry import apply_symmetry, match_networks

HERE = Path(__file__).parent
GRID = tuple(itertools.product((8, 16, 24), (0.0, 0.3), (0.0, 0.2), range(3)))
NULLITY = ["parameter_null_share", "layer_null_share", "fisher_effective_rank"]
FATES = ["barrier", "barrier_matched", "nc1", "prunable"]
PERMUTATIONS = 9999


@torch.no_grad()
def barrier(a: nn.Module, b: nn.Module, X: torch.Tensor, y: torch.Tensor) -> float:
    """Largest excess of the loss between two networks, at eleven points."""
    between = copy.deepcopy(a)
    excess = []
    for t in np.linspace(0, 1, 11):
        parts = zip(between.parameters(), a.parameters(), b.parameters(), strict=True)
        for mixed, first, second in parts:
            mixed.copy_((1 - t) * first + t * second)
        ends = (1 - t) * loss(a, X, y) + t * loss(b, X, y)
        excess.append(loss(between, X, y) - ends)
    return max(excess)


@torch.no_grad()
def prunable(net: nn.Module, X: torch.Tensor, y: torch.Tensor) -> float:
    """Largest share of the weights that go, smallest first, before accuracy falls by a point."""
    whole = accuracy(net, X, y)
    sizes = torch.cat([p.abs().flatten() for p in net.parameters() if p.ndim == 2]).sort().values
    found = 0.0
    for share in np.arange(0.02, 1.0, 0.02):
        threshold = sizes[int(share * len(sizes)) - 1]
        pruned = copy.deepcopy(net)
        for parameter in pruned.parameters():
            if parameter.ndim == 2:
                parameter[parameter.abs() <= threshold] = 0.0
        if accuracy(pruned, X, y) < whole - 0.01:
            break
        found = share
    return found


def measured(net: nn.Module, X: torch.Tensor, y: torch.Tensor, test: tuple) -> dict[str, float]:
    """Geometry of one network on 300 training images, its collapse, and what can be pruned."""
    fisher = FisherRankEstimator(net, likelihood="categorical", n_components=0).fit(X[:300])
    quotient = LayerQuotientEstimator(net, likelihood="categorical", n_components=0).fit(X[:300])
    layers = quotient.layers_
    return {
        "parameter_null_share": fisher.nullity_ / fisher.n_parameters_,
        "layer_null_share": (layers["common_nullity"] / layers["dim"]).mean(),
        "fisher_effective_rank": fisher.effective_rank_,
        "nc1": neural_collapse(net, X, y).layers.set_index("layer").loc["3", "nc1"],
        "prunable": prunable(net, *test),
        "test_accuracy": accuracy(net, *test),
    }


def pair(width: int, weight_decay: float, label_noise: float, number: int) -> dict[str, float]:
    """Barriers of a pair of networks, and the means of what they are."""
    X, y, *test = split(1000, label_noise, number)
    seeds = (2 * number, 2 * number + 1)
    a, b = (trained(X, y, width, steps=1000, weight_decay=weight_decay, seed=s) for s in seeds)
    matched = apply_symmetry(a, permutation=match_networks(a, b).permutation)
    own = pd.DataFrame([measured(net, X, y, tuple(test)) for net in (a, b)])
    setting = {"width": width, "weight_decay": weight_decay, "label_noise": label_noise}
    return {
        **setting,
        "number": number,
        **own.mean(),
        "barrier": barrier(a, b, X, y),
        "barrier_matched": barrier(matched, b, X, y),
    }


def correlation(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Rank correlation within groups, and its p-value by permutations within groups."""
    ranks = []
    for values in (x, y):
        found = np.empty(len(values))
        for group in np.unique(groups):
            inside = groups == group
            found[inside] = rankdata(values[inside])
            found[inside] -= found[inside].mean()
        ranks.append(found)
    one, two = ranks
    observed = float(one @ two / np.sqrt((one @ one) * (two @ two)))
    rng = np.random.default_rng(0)
    as_large = 0
    for _ in range(PERMUTATIONS):
        order = np.empty(len(groups), dtype=int)
        for group in np.unique(groups):
            inside = np.flatnonzero(groups == group)
            order[inside] = rng.permutation(inside)
        as_large += abs(one @ two[order]) >= abs(one @ two) - 1e-9
    return observed, (as_large + 1) / (PERMUTATIONS + 1)


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Correlations of every share with every fate, over all pairs and within groups."""
    groups = {
        "all": np.zeros(len(table)),
        "width": table["width"].to_numpy(),
        "width_and_noise": table.groupby(["width", "label_noise"]).ngroup().to_numpy(),
    }
    rows = []
    for nullity, fate in itertools.product(NULLITY, FATES):
        row: dict[str, object] = {"geometry": nullity, "fate": fate}
        for name, group in groups.items():
            found = correlation(table[nullity].to_numpy(), table[fate].to_numpy(), group)
            row[f"r_{name}"], row[f"p_{name}"] = found
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    """Train, measure, and correlate."""
    warnings.simplefilter("ignore", RankAmbiguityWarning)
    torch.set_num_threads(1)
    table = pd.DataFrame([pair(*setting) for setting in GRID])
    path = HERE / "barriers_and_nullity.csv"
    table.to_csv(path, index=False, float_format="%.6g")
    table = pd.read_csv(path)  # equal numbers are ties, whatever their rounding
    print(table.round(3).to_string())
    found = correlations(table)
    path = HERE / "barriers_and_nullity_correlations.csv"
    found.to_csv(path, index=False, float_format="%.4g")
    print(found.round(4).to_string())


if __name__ == "__main__":
    main()
