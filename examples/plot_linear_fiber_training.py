r"""
Where the training of a linear network ends
===========================================

Three linear layers of widths 5-4-6-4 learn a matrix of rank 2. The fiber of that matrix, all
weights that compute it, has dimension 50 among 68 parameters, and 39 strata. Near which of them
training ends depends on the scale of the initial weights. A trained network lies near a stratum
rather than on it, so the answer is a path over tolerances and a distance, and no single rank.
"""

# %%
# Training from several scales
# ----------------------------
# The target has the singular values 2 and 1. Plain gradient descent on the squared distance to it,
# from normal weights of three standard deviations, until the loss is negligible.

import itertools
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from skgeo import LinearFiberStratifier
from skgeo.datasets import linear_network
from skgeo.exceptions import RankAmbiguityWarning
from skgeo.fiber import BarcodeDisplay, HasseDisplay

rng = np.random.default_rng(0)
widths = [5, 4, 6, 4]
left, _ = np.linalg.qr(rng.normal(size=(4, 4)))
right, _ = np.linalg.qr(rng.normal(size=(5, 5)))
target = torch.from_numpy(2.0 * np.outer(left[0], right[0]) + np.outer(left[1], right[1]))


def train(scale, n_steps=8000, every=200, rate=0.02, seed=1):
    """Networks along a run of gradient descent, and their losses."""
    draw = np.random.default_rng(seed)
    matrices = [scale * draw.normal(size=(b, a)) for a, b in itertools.pairwise(widths)]
    weights = [torch.from_numpy(matrix).requires_grad_() for matrix in matrices]
    networks, losses = {}, {}
    for step in range(n_steps + 1):
        loss = (weights[2] @ weights[1] @ weights[0] - target).square().sum()
        if step % every == 0:
            networks[step], losses[step] = linear_network(weights), loss.item()
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= rate * gradient
    return networks, pd.Series(losses)


scales = (0.01, 0.1, 0.5)
runs = {scale: train(scale) for scale in scales}
print({scale: f"{losses.iloc[-1]:.1e}" for scale, (_, losses) in runs.items()})

# %%
# The tolerance path
# ------------------
# At a coarse tolerance a network shows the stratum that it is near, at a fine one its own. The
# smaller the initial weights, the wider the plateau at dimension 32. That is the closed stratum of
# the target's fiber, where all that the target does not need is zero. At the fine end the networks
# from small weights have products of rank 4, in which two singular values are merely tiny:
# dimension 48 is that of their own stratum, in the fiber of another matrix. From large weights
# descent converges to the target to rounding, at a stratum of dimension 50, open in its fiber.

fitted = {
    scale: LinearFiberStratifier(list(networks.values())[-1]).fit()
    for scale, (networks, _) in runs.items()
}
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for scale, stratifier in fitted.items():
    path = stratifier.tolerance_path_[::-1]
    edges = np.append(stratifier.tol_, path["tol_high"])
    axis.stairs(path["stratum_dim"], edges, baseline=None, linewidth=2, label=f"{scale}")
axis.set(
    xscale="log",
    xlim=(1, 1e-6),
    xlabel="tolerance, relative to the norm of each matrix",
    ylabel="dimension of the stratum",
)
axis.legend(title="initial scale")
print(fitted[0.01].tolerance_path_.drop(columns="bars").to_string(float_format="{:.1e}".format))

# %%
# The stratum it approaches
# -------------------------
# Read at a tolerance of 0.1, the network from the smallest weights has two bars from input to
# output, one for each singular value of the target, and all others last for one layer. In the Hasse
# diagram that is the lowest point: the most singular place of the fiber.

near = LinearFiberStratifier(list(runs[0.01][0].values())[-1], tol=0.1).fit()
print(near.stratum_dim_, near.fiber_dim_, near.is_smooth_, near.learning_coefficient_bounds_)
BarcodeDisplay.from_estimator(near)
HasseDisplay.from_estimator(near)

# %%
# The distance to it over training
# --------------------------------
# What a tolerance of 0.1 drops is the distance to weights that have the bars exactly. From small
# weights the two singular values are learnt one after the other. In between the product has rank 1,
# a saddle of the loss, and the distance to its stratum grows as the second singular value does.
# Once both are there the distance stays where it is, about half the norm of the initial weights:
# what is left over hardly enters the product, so that no gradient moves it. From large weights the
# stratum is one of smooth points, and the distance falls to rounding.

# Half-learnt networks have no gap at any tolerance, as this picture shows better than a warning.
warnings.simplefilter("ignore", RankAmbiguityWarning)

figure, axes = plt.subplots(3, 1, figsize=(7, 7), sharex=True, layout="constrained")
for scale, (networks, losses) in runs.items():
    seen = [LinearFiberStratifier(net, tol=0.1).fit() for net in networks.values()]
    distances = [np.linalg.norm(one.flow_bases_.dropped_norms) for one in seen]
    axes[0].plot(losses.index, losses, label=f"{scale}")
    axes[1].plot(losses.index, [one.barcode_.rank for one in seen])
    axes[2].plot(losses.index, distances)
    print(f"{scale}: stratum of dimension {seen[-1].stratum_dim_} at distance {distances[-1]:.3f}")
axes[0].set(yscale="log", ylabel="loss", ylim=(1e-14, 20))
axes[1].set(ylabel="rank of the product\nat tolerance 0.1")
axes[2].set(ylabel="distance to the stratum\nat tolerance 0.1", xlabel="step")
axes[1].yaxis.get_major_locator().set_params(integer=True)
axes[0].legend(title="initial scale")
plt.show()
