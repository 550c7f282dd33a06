r"""
How many samples a rank needs
=============================

N samples cannot show a Fisher rank above the number of their rows, N (K - 1) under a softmax over K
classes. Where the measured rank equals that number it says how much was measured, not what the
network is. The rank against the number of samples tells the two apart: it grows with the rows at
first, and levels at the rank of the network.
"""

# %%
# A network with a known rank
# ---------------------------
# A hidden layer of 20 tanh units under a softmax over three classes has 283 parameters. A shift
# that all logits share changes no probability. There is one for each hidden unit and one for the
# bias, so that the rank is 283 - 21 = 262. With 40 samples it is 80, and a warning says so.

import warnings

import matplotlib.pyplot as plt
import torch
from torch import nn

from skgeo import FisherRankEstimator
from skgeo.exceptions import RankAmbiguityWarning
from skgeo.fisher import RankCurveDisplay, rank_curve

make = torch.Generator().manual_seed(0)
X = torch.randn(640, 10, generator=make, dtype=torch.float64)
torch.manual_seed(0)
smooth = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 3)).double()

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", RankAmbiguityWarning)
    few = FisherRankEstimator(smooth, likelihood="categorical", n_components=0).fit(X[:40])
print(f"rank {few.fisher_rank_}, gap {few.spectral_gap_}, limited: {few.sample_limited_}")
print(caught[0].message)

# %%
# The rank against the number of samples
# --------------------------------------
# Each set of samples contains the one before, so the rank cannot fall. A curve has levelled if the
# last doubling of the samples added nothing. With ReLU each unit has two scales that trade against
# each other, and the curve levels lower, at 242.

rectified = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 3)).double()
rectified.load_state_dict(smooth.state_dict())

figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for label, network in (("tanh", smooth), ("ReLU", rectified)):
    curve = rank_curve(network, X, likelihood="categorical")
    print(f"{label}: {curve}")
    RankCurveDisplay.from_curve(curve, ax=ax, label=label)
plt.show()
