r"""
Volume and condition before and after training
==============================================

What does training do to the map from images to representations? The Jacobian from the input to
each layer has singular values: how much the layer stretches small moves of an image. Their
logarithms add up to the log-volume, their ratio is the condition number, and an isometry would have
them all equal.
"""

# %%
# A network at two times
# ----------------------
# Four hidden layers of 40 tanh units on scikit-learn's digits.

import matplotlib.pyplot as plt

from skgeo.chain import JacobianChainProfiler, ProfileDisplay
from skgeo.datasets import digits_run

run = digits_run((40, 40, 40, 40), checkpoints=(0, 30), n_samples=100)
print(run.history[["epoch", "train_loss", "test_accuracy"]].to_string(index=False))

# %%
# The chain from the input
# ------------------------
# The layers are the linear maps, so that each row of the table is one more activation and one more
# linear map. Images have 64 pixels and the hidden layers 40 units: volumes are those of the 40
# directions that reach a layer, and of ten at the last.

layers = ["0", "2", "4", "6", "8"]
columns = ["layer", "log_volume", "sigma_max", "sigma_min", "condition", "effective_rank"]
profilers = {}
for (network, X, _), when in zip(run.pairs, ("before", "after"), strict=True):
    profilers[when] = JacobianChainProfiler(network, layers=layers, chain="input").fit(X)
    print(f"\n{when} training")
    print(profilers[when].profile_[columns].to_string(index=False, float_format="{:.3g}".format))

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.9), layout="constrained")
for color, (when, profiler) in zip(("C0", "C1"), profilers.items(), strict=True):
    ProfileDisplay.from_estimator(profiler, ax=axes, label=when, color=color)
plt.show()

# %%
# Training stretches and collapses at the same time. The largest stretch is several times larger at
# every layer: some moves of an image are blown up. The smallest falls by orders of magnitude, and
# with it the volume: the others are pressed flat, a little more in every layer, and the effective
# rank says that a handful of directions is left. Depth alone does some of that to random weights
# already; no layer of either network is near an isometry.
#
# Layer by layer
# --------------
# Is this the work of single layers, or of their product? The Jacobian of each layer by the one
# before shows the first. No single layer's condition number comes near that of the chain, and the
# product is what compounds them; but training makes the later layers worse by a factor of hundreds
# on their own.

for when, (network, X, _) in zip(("before", "after"), run.pairs, strict=True):
    own = JacobianChainProfiler(network, layers=layers, chain="layer").fit(X)
    print(f"\n{when} training, each layer on its own")
    print(own.profile_[columns].to_string(index=False, float_format="{:.3g}".format))

# %%
# The exponents of the whole chain
# --------------------------------
# ``lyapunov_exponents_`` are the mean growth rates of the ten directions that reach the output, for
# each link of the chain.

figure, axis = plt.subplots(figsize=(4.8, 3.6), layout="constrained")
for when, profiler in profilers.items():
    exponents = profiler.lyapunov_exponents_
    axis.plot(range(1, len(exponents) + 1), exponents, "o-", label=when)
axis.axhline(0.0, color="0.8", lw=1, zorder=0)
axis.set(xlabel="direction", ylabel="exponent (nats a link)")
axis.legend()
plt.show()
