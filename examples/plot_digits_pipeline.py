r"""
The Fisher rank of a network inside a pipeline
==============================================

A scikit-learn pipeline scales the digits and fits a small network to them. How many of the
network's parameters does its output distribution depend on, near the fitted ones?
"""

# %%
# A pipeline as model
# -------------------
# The estimator is bound to the whole pipeline. Its ``fit`` fits the pipeline, as any meta-estimator
# of scikit-learn would, and measures the network at its end on the scaled images.

import warnings

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from skgeo import FisherRankEstimator
from skgeo.exceptions import RankAmbiguityWarning
from skgeo.fisher import SpectrumDisplay

X, y = load_digits(return_X_y=True)
X_train, y_train = X[:600], y[:600]

network = MLPClassifier(hidden_layer_sizes=(16,), alpha=1e-2, max_iter=1000, random_state=0)
pipeline = make_pipeline(MinMaxScaler(), network)

fisher = FisherRankEstimator(pipeline)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", RankAmbiguityWarning)
    fisher.fit(X_train, y_train)
for warning in caught:
    print(warning.message)

print(f"likelihood  {fisher.likelihood_}")
print(f"parameters  {fisher.n_parameters_}")
print(f"rank        {fisher.fisher_rank_}")
print(f"flat        {fisher.nullity_}")
print(f"tolerance   {fisher.rank_threshold_:.1e}")
print(f"gap         {fisher.spectral_gap_:.3g}")

# %%
# Where the flat directions come from
# -----------------------------------
# Some are known before anything is fitted. A pixel that is zero in every image takes its 16
# weights with it. A class probability does not change when one number is added to all logits, and
# that number may depend on each of the 16 hidden features or be a constant. Each hidden ReLU unit
# can trade the scale of its incoming weights for that of its outgoing ones. These counts add up
# to a lower bound of the nullity; units that respond to few images, and a finite sample, add more.

n_dark = int((X_train == 0).all(axis=0).sum())
dark, shifts, rescalings = 16 * n_dark, 16 + 1, 16
print(f"{n_dark} dark pixels: {dark}; logit shifts: {shifts}; rescalings: {rescalings}")
print(f"accounted for: {dark + shifts + rescalings} of {fisher.nullity_}")

# %%
# The picture
# -----------
# On the left the eigenvalues, on the right the rank that each tolerance would give. A rank is
# decided where the right-hand curve has a plateau; on a slope it is a matter of tolerance, which is
# why the estimator reports the gap and the path beside the number.

SpectrumDisplay.from_estimator(fisher)
plt.show()

# %%
# The same numbers as a table:

print(fisher.rank_path_.iloc[:: max(1, len(fisher.rank_path_) // 12)].to_string(index=False))

# %%
# Which images hold the parameters in place
# -----------------------------------------
# ``transform`` gives each image's leverage on each direction. A column averages to 1, and the row
# sums average to the rank. A row sum far above that average belongs to an image that pins down
# directions which few others see.

leverage = fisher.transform(X_train)
total = leverage.sum(axis=1)
print(f"mean of the row sums: {total.mean():.3f}; rank: {fisher.fisher_rank_}")

order = total.argsort()[::-1][:8]
figure, axes = plt.subplots(1, 8, figsize=(10, 1.7), layout="constrained")
for axis, index in zip(axes, order, strict=True):
    axis.imshow(X_train[index].reshape(8, 8), cmap="gray_r")
    axis.set_title(f"{y_train[index]}\n{total[index] / total.mean():.1f} x mean", fontsize=8)
    axis.set_axis_off()
plt.show()
