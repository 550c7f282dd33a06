r"""
A walk between strata that never changes the product
====================================================

The fiber of a linear network, all weights that compute one matrix, is glued from strata of
different dimension. A move joins two bars, or swaps their ends, by a change of a single weight
matrix. It leads from a stratum to a larger one whose closure holds it, and what the network
computes stays the same. This walk climbs from the most singular point of a fiber to a stratum that
is open in it.
"""

# %%
# The most singular point
# -----------------------
# Widths 5-4-6-4 and a product of rank 2. On the closed stratum, the smallest one, there are two
# bars from input to output, and every other bar lives in a single layer. The network is a random
# change of bases away from matrices of zeros and ones.

import copy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from skgeo import FisherRankEstimator, LinearFiberStratifier
from skgeo.datasets import linear_network
from skgeo.fiber import BarcodeDisplay, HasseDisplay, closed_stratum, representative

rng = np.random.default_rng(0)
frames = [np.linalg.qr(rng.normal(size=(width, width)))[0] for width in (5, 4, 6, 4)]
start = [
    after @ matrix @ before.T
    for before, after, matrix in zip(
        frames, frames[1:], representative(closed_stratum([5, 4, 6, 4], 2)), strict=False
    )
]
network = linear_network(start)
X = torch.from_numpy(rng.normal(size=(40, 5)))
with torch.no_grad():
    outputs = network(X)

# %%
# The walk
# --------
# Any move keeps the product: at each step one is drawn at random, with a random step size. On the
# way the rank of the Fisher metric under Gaussian outputs never falls and equals the closed form at
# each point. The fiber becomes smooth one step before the stratum becomes open, where no move is
# left.

rows, visited = [], []
while True:
    here = LinearFiberStratifier(network).fit(X)
    fisher = FisherRankEstimator(network, likelihood="gaussian", n_components=0).fit(X)
    moves = here.up_moves()
    with torch.no_grad():
        change = float((network(X) - outputs).abs().max())
    rows.append(
        {
            "stratum_dim": here.stratum_dim_,
            "smooth": here.is_smooth_,
            "differential rank": here.differential_rank_,
            "Fisher rank": fisher.fisher_rank_,
            "moves": len(moves),
            "change of outputs": change,
        }
    )
    visited.append(here)
    if not moves:
        break
    move = moves[rng.integers(len(moves))]
    matrices = here.move_up(move, t=rng.choice([-1, 1]) * rng.uniform(0.5, 1.5))
    network = linear_network(matrices)

walk = pd.DataFrame(rows)
print(walk.to_string(float_format="{:.0e}".format))

# %%
# Where it went
# -------------
# The path in the Hasse diagram, and the bars at its two ends. A step of the walk need not be a
# cover: some moves pass over strata in between.

display = HasseDisplay.from_estimator(visited[0])
places = np.array([display.positions_[display.diagram.index(here.barcode_)] for here in visited])
display.ax_.plot(*places.T, color="C3", linewidth=1.5, marker=".", zorder=2.5)
display.ax_.set_title("From the closed stratum to an open one")

for here, title in ((visited[0], "first"), (visited[-1], "last")):
    BarcodeDisplay.from_estimator(here).ax_.set_title(f"Bars of the {title} network")

# %%
# Neither a gradient nor a loss sees the walk
# -------------------------------------------
# The gradient of any loss of the outputs is normal to the fiber. Its projection onto the tangent
# space of the stratum vanishes at each point of the walk.

for here in visited:
    module = copy.deepcopy(here.model)
    module(X).cosh().mean().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    tangent = here.project_tangent(gradients)
    along, whole = (
        np.linalg.norm(np.concatenate([np.ravel(part) for part in parts]))
        for parts in (tangent, gradients)
    )
    print(f"dimension {here.stratum_dim_}: share of the gradient along it {along / whole:.0e}")
plt.show()
