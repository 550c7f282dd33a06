r"""
Ranks down a trained network
============================

Ten classes give nine directions of output distributions. Whatever the width of a layer, one
image's representation there can change the output in nine directions at most: the pointwise rank.
Which nine they are differs from image to image, so that more directions are used by some image:
the common rank. This example follows both down a network, before and after training.
"""

# %%
# A network at two times
# ----------------------

import warnings

import matplotlib.pyplot as plt

from skgeo.datasets import digits_run
from skgeo.exceptions import RankAmbiguityWarning
from skgeo.quotient import LayerQuotientEstimator, RankProfileDisplay

# Spectra of mean metrics decay without a gap. The tables show the effective rank beside the rank,
# and the last section the rank at every tolerance.
warnings.simplefilter("ignore", RankAmbiguityWarning)

run = digits_run((48, 32, 24), checkpoints=(0, 30), n_samples=150)
print(run.history[["epoch", "train_loss", "test_accuracy"]].to_string(index=False))

# %%
# What each layer shows to the next
# ---------------------------------
# Every image sees nine directions of every layer, before and after training. The common rank counts
# the directions that any image uses, however little: all of a linear layer, and no more than the
# next linear layer lets through after an activation. The effective rank weighs them: of 24 to 48
# directions a handful carries most of the information, and training changes that number less than
# one might think.

columns = ["layer", "dim", "rank_min", "rank_max", "common_rank", "effective_rank"]
fitted = {}
for (network, X, _), when in zip(run.pairs, ("before", "after"), strict=True):
    fitted[when] = LayerQuotientEstimator(network, likelihood="categorical").fit(X)
    print(f"{when} training")
    print(fitted[when].layers_[columns].to_string(index=False, float_format="{:.2f}".format))

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for color, (when, estimator) in zip(("C0", "C1"), fitted.items(), strict=True):
    RankProfileDisplay.from_estimator(estimator, ax=axes, label=when, color=color)
plt.show()

# %%
# A task-aware principal component analysis
# -----------------------------------------
# ``transform`` projects the last hidden representation on the leading eigenvectors of its mean
# metric. The layer has 24 units; the head is linear, so nine coordinates carry all that it reads.
# ``inverse_transform`` puts everything else at its mean, and the divergence of the outputs says
# what that costs.

network, X, y = run.pairs[1]
quotient = fitted["after"]
coordinates = quotient.transform(X)
print(f"layer {quotient.layer_}: {coordinates.shape[1]} coordinates of {quotient.mean_.size}")
print(f"divergence of the outputs: {quotient.quotient_fidelity_:.1e} nats")

for count in (2, 4, 6, 8):
    fewer = LayerQuotientEstimator(network, likelihood="categorical", n_components=count).fit(X)
    print(f"with {count} coordinates:      {fewer.quotient_fidelity_:.1e} nats")

# %%
figure, axis = plt.subplots(figsize=(4.8, 4.2), layout="constrained")
points = axis.scatter(coordinates[:, 0], coordinates[:, 1], c=y, cmap="tab10", s=14)
figure.colorbar(points, label="digit")
axis.set(xlabel="first quotient coordinate", ylabel="second")
plt.show()

# %%
# Rank against tolerance
# ----------------------
# Where a spectrum has no gap, its rank is a curve.

figure, axis = plt.subplots(figsize=(4.8, 3.6), layout="constrained")
for layer, path in quotient.rank_path_.groupby("layer", sort=False):
    if layer in ("1", "3", "5"):
        axis.step(path["tol"], path["rank"], where="post", label=f"after layer {layer}")
axis.set(xscale="log", xlabel="relative tolerance", ylabel="common rank")
axis.legend()
plt.show()
