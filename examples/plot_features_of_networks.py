r"""
Predicting accuracy from geometry
=================================

Without a model, the estimator reads a table of trained networks and gives one row of features a
network. A ridge regression on those rows tries to predict each network's accuracy on images that
neither it nor the measurement has seen. The features are learnt from nothing, so cross-validation
over the networks is free of leakage.
"""

# %%
# A set of networks
# -----------------
# Twenty-four networks on scikit-learn's digits differ in width, weight decay, training time and
# seed. Each pair holds a network and the same number of its own training images.

import itertools
import tempfile
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skgeo import FisherRankEstimator
from skgeo.datasets import digits_run
from skgeo.exceptions import RankAmbiguityWarning

# Networks trained on images rarely have a gap in their spectra. The table below says so once, in
# the form of ranks at two tolerances; a warning a row would say nothing more.
warnings.simplefilter("ignore", RankAmbiguityWarning)

pairs, accuracies, seen_accuracies = [], [], []
settings = itertools.product((3, 5, 8), (0.0, 0.3), (5, 15), (0, 1))
for seed, (width, weight_decay, n_epochs, _) in enumerate(settings):
    run = digits_run(
        (width,),
        checkpoints=(n_epochs,),
        n_train=400,
        n_samples=60,
        weight_decay=weight_decay,
        seed=seed,
    )
    pairs += run.pairs
    accuracies += run.history["test_accuracy"].tolist()
    seen_accuracies += run.history["train_accuracy"].tolist()
accuracies = np.array(accuracies)
print(f"{len(pairs)} networks, accuracies from {accuracies.min():.2f} to {accuracies.max():.2f}")

# %%
# Their features
# --------------

estimator = FisherRankEstimator(likelihood="categorical").set_output(transform="pandas")
features = estimator.fit_transform(pairs)
print(features.describe().loc[["min", "50%", "max"]].T.to_string(float_format="{:.3g}".format))

# %%
# A grid over tolerance and penalty
# ---------------------------------
# The tolerance of the rank is a parameter of the pipeline like any other. ``memory`` keeps the
# features of each pair, so a fold or a penalty that comes back to a pair does not measure it again.
# The outer cross-validation judges the search as a whole, choice of tolerance included.

cache = tempfile.TemporaryDirectory()
search = GridSearchCV(
    make_pipeline(
        FisherRankEstimator(likelihood="categorical", memory=cache.name),
        StandardScaler(),
        Ridge(),
    ),
    {"fisherrankestimator__tol": [1e-9, 1e-5, 1e-2], "ridge__alpha": [0.3, 3.0]},
    cv=KFold(3, shuffle=True, random_state=0),
    scoring="neg_mean_absolute_error",
)
outer = KFold(4, shuffle=True, random_state=1)
predicted = cross_val_predict(search, pairs, accuracies, cv=outer)

search.fit(pairs, accuracies)
print("chosen on all networks:", search.best_params_)

# %%
# How good is it?
# ---------------
# Twenty-four networks are few, and their accuracy is to a large part a matter of width and
# training time. So geometry meets three opponents: the mean accuracy, a ridge regression on the
# number of parameters, and one on the accuracy over the images that the network was trained on.
# Geometry is measured without labels and does better than size does. It does not do better than the
# training accuracy, which for networks as small as these is close to the accuracy on unseen images:
# who has the labels should use them.

ridge = make_pipeline(StandardScaler(), Ridge())
size = features[["n_parameters"]].to_numpy()
opponents = {
    "mean accuracy": (DummyRegressor(), size),
    "number of parameters": (ridge, size),
    "training accuracy": (ridge, np.array(seen_accuracies)[:, None]),
}
errors = {
    name: np.abs(cross_val_predict(model, rows, accuracies, cv=outer) - accuracies)
    for name, (model, rows) in opponents.items()
}
errors["geometry"] = np.abs(predicted - accuracies)
for name, values in errors.items():
    deviation = values.std(ddof=1) / np.sqrt(len(values))
    print(f"mean absolute error, {name:<21}{values.mean():.3f} +- {deviation:.3f}")

# %%
figure, axis = plt.subplots(figsize=(4.5, 4.5))
axis.scatter(accuracies, predicted, c=size[:, 0])
limits = [min(accuracies.min(), predicted.min()), max(accuracies.max(), predicted.max())]
axis.plot(limits, limits, color="gray", linewidth=1)
axis.set(xlabel="accuracy on unseen images", ylabel="predicted out of fold")
plt.show()

cache.cleanup()
