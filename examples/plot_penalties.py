r"""
Training with a penalty on the geometry
=======================================

Three penalties can be added to a training loss: on the size of the Jacobian, on its distance from
an isometry, and on the second derivative. This example trains the same network without and with
each, on scikit-learn's digits, and reports what changed, for better and for worse.
"""

# %%
# The data and the network
# ------------------------
# 600 digits to train on, the other 1197 to test. The network has two hidden layers of tanh units.
# Its first weights and the order of the batches are the same in every run, so that a difference
# between runs is one of the penalty, or of the seed of the projections.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from skgeo.chain import (
    cauchy_green,
    curvature,
    curvature_penalty,
    isometry_penalty,
    jacobian_penalty,
)

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
X = torch.tensor(images[order] / 16)
y = torch.tensor(labels[order])
X_train, y_train, X_test, y_test = X[:600], y[:600], X[600:], y[600:]


def train(penalty=None, weight=0.0, epochs=40, seed=0):
    """The network after AdamW on cross-entropy plus a penalty."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 10)
        ).double()
    batches = torch.Generator().manual_seed(seed)
    draws = torch.Generator().manual_seed(seed + 1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.005, weight_decay=0.0)
    for _ in range(epochs):
        for batch in torch.randperm(len(X_train), generator=batches).split(60):
            optimizer.zero_grad()
            loss = cross_entropy(net(X_train[batch]), y_train[batch])
            if penalty is not None:
                loss = loss + weight * penalty(net, X_train[batch], draws)
            loss.backward()
            optimizer.step()
    return net.eval()


# %%
# Each penalty is estimated from one or two random directions a step, drawn from a generator that is
# made once, before the loop.

penalties = {
    "none": (None, 0.0),
    "Jacobian": (lambda net, x, g: jacobian_penalty(net, x, n_projections=1, generator=g), 0.01),
    "isometry": (lambda net, x, g: isometry_penalty(net, x, n_projections=2, generator=g), 0.3),
    "curvature": (lambda net, x, g: curvature_penalty(net, x, n_directions=1, generator=g), 0.01),
}
networks = {
    name: [train(*choice, seed=seed) for seed in (0, 1, 2)] for name, choice in penalties.items()
}

# %%
# What changed
# ------------
# Test loss, accuracy with and without noise on the pixels, the squared norm of the Jacobian, its
# condition number, the isometry penalty, and the curvature that straight lines through the images
# take on. Each entry is a mean over three seeds; condition and curvature are medians over images.

noise = torch.randn(X_test.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
lines = torch.randn(200, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def accuracy(net, inputs):
    with torch.no_grad():
        return float((net(inputs).argmax(1) == y_test).double().mean())


def loss(net):
    with torch.no_grad():
        return float(cross_entropy(net(X_test), y_test))


def measure(net):
    stretches = cauchy_green(net, X_test[:200]).stretches
    return {
        "test loss": loss(net),
        "accuracy": accuracy(net, X_test),
        "noise 0.2": accuracy(net, X_test + 0.2 * noise),
        "noise 0.4": accuracy(net, X_test + 0.4 * noise),
        "|J|^2": (stretches**2).sum(1).mean(),
        "condition": np.median(stretches[:, 0] / stretches[:, -1]),
        "isometry": isometry_penalty(net, X_test[:200]).item(),
        "curvature": np.median(curvature(net, X_test[:200], velocity=lines).curvature),
    }


table = pd.DataFrame(
    {name: pd.DataFrame([measure(net) for net in group]).mean() for name, group in networks.items()}
).T
print(table.to_string(float_format="{:.3f}".format))

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
levels = np.linspace(0.0, 0.6, 13)
for name, group in networks.items():
    values = [[accuracy(net, X_test + level * noise) for level in levels] for net in group]
    axes[0].plot(levels, np.mean(values, axis=0), label=name)
    stretches = cauchy_green(group[0], X_test[:200]).stretches
    axes[1].plot(np.arange(1, 11), np.median(stretches, axis=0), ".-", label=name)
axes[0].set(xlabel="noise on the pixels", ylabel="test accuracy", title="Robustness")
axes[1].set(yscale="log", xlabel="index", ylabel="singular value", title="Stretches (median)")
axes[0].legend()
plt.show()

# %%
# How to read it
# --------------
# - Each penalty lowers what it penalises. That is all that any of them promises.
# - The Jacobian and the curvature penalty buy robustness to noise. They charge for it in the test
#   loss, since smaller logits are less sure of themselves, right or wrong.
# - The isometry penalty brings the singular values together, all but the last: the softmax does not
#   see a shift of all logits, and the loss leaves that direction alone. It makes nothing smaller,
#   and this network is no more robust for it, rather less.
# - Curvature at the outputs is an inverse length there. The Jacobian penalty shrinks the images of
#   all lines, and smaller circles bend more: its curvature is the largest of all.
#
# The weights of the penalties were chosen by hand so that their effects show. They say nothing
# about which penalty is best when each is tuned.
