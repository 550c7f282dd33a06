r"""
Lossless compression, and where it is lossless
==============================================

A trained network is hardly ever degenerate: no two of its units are exactly alike and none is
exactly zero. Training can be asked to make it so. A group lasso penalises the norm of each unit's
incoming weights and bias and drives whole units to exact zero, and compression then takes them out
without changing the function at all. On a bounded domain still more units can go. This example
trains a classifier of digits in this way, compresses it, and measures the difference on the data
it was trained on, on other digits, and far from any digit.
"""

# %%
# A network with units that are exactly zero
# ------------------------------------------
# After each gradient step the proximal step of the penalty shortens every row (w, b) by a constant,
# and to zero where it was shorter than that.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skgeo.symmetry import compress

images, digits = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = (
    torch.from_numpy(part)
    for part in train_test_split(images / 16, digits, test_size=0.3, random_state=0)
)


def train(penalty, steps=400, rate=0.01):
    """Two hidden layers of ReLU, trained by Adam with a proximal step on each unit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 10)
        ).double()
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(X_train), y_train).backward()
        optimiser.step()
        with torch.no_grad():
            for layer in (network[0], network[2]):
                norm = torch.hypot(layer.weight.norm(dim=1), layer.bias)
                factor = (1 - rate * penalty / norm.clamp(min=1e-12)).clamp(min=0)
                layer.weight.mul_(factor[:, None])
                layer.bias.mul_(factor)
    return network


def accuracy(network, X, y):
    with torch.no_grad():
        return float((network(X).argmax(1) == y).double().mean())


networks = {"no penalty": train(0.0), "group lasso": train(4.0)}
for name, network in networks.items():
    zero = [int((network[i].weight.norm(dim=1) == 0).sum()) for i in (0, 2)]
    print(
        f"{name}: accuracy {accuracy(network, X_train, y_train):.3f} on the training data, "
        f"{accuracy(network, X_test, y_test):.3f} on the others; zero units {zero}"
    )

# %%
# Compression
# -----------
# With ``domain=None`` the two networks agree on every input. On the box around the training data,
# units go that cannot be on there, and those that are always on are replaced by as few as their
# linear part takes; on the data alone, those that no training sample switches. What is exact there
# need not be elsewhere, and the table says how much it is not.

noise = torch.rand(500, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
places = {"train": X_train, "test": X_test, "noise": noise, "noise x 4": 4 * noise - 1.5}


def differences(network, other):
    """Largest difference of the logits in each place."""
    with torch.no_grad():
        return {k: float((network(X) - other(X)).abs().max()) for k, X in places.items()}


rows = []
for name, network in networks.items():
    for domain in (None, "box", "data"):
        report = compress(network, domain=domain, X=X_train)
        rows.append(
            {
                "network": name,
                "domain": domain or "everywhere",
                "units": " + ".join(map(str, report.widths)),
                **differences(network, report.module),
                "accuracy": accuracy(report.module, X_test, y_test),
            }
        )
table = pd.DataFrame(rows)
print(table.to_string(index=False, float_format="{:.1e}".format))

# %%
# The penalty has taken most units out, to the benefit of accuracy, and compression removes them
# without a trace: to rounding, on every input. Without a penalty no unit can go everywhere. A
# quarter of them is never on at any training image; without those the network is the same on other
# digits and on weak noise, but far from the data some of them were needed.

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
for name, network in networks.items():
    norms = torch.hypot(network[0].weight.norm(dim=1), network[0].bias).detach()
    axes[0].plot(np.sort(norms.numpy())[::-1], ".-", ms=4, lw=1, label=name)
axes[0].set(xlabel="unit of the first layer", ylabel="norm of (w, b)")
axes[0].legend()
shown = [("group lasso", "everywhere"), ("no penalty", "data")]
for i, (name, domain) in enumerate(shown):
    row = table[(table["network"] == name) & (table["domain"] == domain)].iloc[0]
    heights = [max(row[place], 1e-16) for place in places]
    label = f"{name}, {domain}: {row['units']} units"
    axes[1].bar(
        np.arange(len(places)) + 0.36 * (i - 0.5), heights, 0.36, color=f"C{1 - i}", label=label
    )
axes[1].set_yscale("log")
axes[1].set_ylim(1e-16, 1e3)
axes[1].set_xticks(np.arange(len(places)), list(places))
axes[1].set(ylabel="largest difference of a logit", title="after compression from 96 + 48 units")
axes[1].legend(fontsize=8, loc="upper left")
plt.show()

# %%
# Beyond lossless
# ---------------
# Below the lossless width there is a price, and ``exact=False`` gives a bound on it: units are
# taken away greedily, and what reads the others is fitted anew. Both curves have an edge: with the
# penalty where its units end, without it where those end that some training image switches on. From
# there on every unit costs something.

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained", sharey=True)
for axis, layer, title in zip(axes, ("0", "2"), ("first layer", "second layer"), strict=True):
    for name, network in networks.items():
        curve = compress(network, exact=False, X=X_train).curve
        points = [(p.width, p.rms_error) for p in curve if p.layer == layer]
        axis.plot(*np.array(points).T, ".-", ms=4, label=name)
    axis.set(xlabel="units kept", title=title, yscale="log", ylim=(1e-9, 30))
axes[0].set_ylabel("rms error of the logits")
axes[0].legend()
plt.show()
