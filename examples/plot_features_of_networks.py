r"""
Predicting accuracy from geometry
=================================

Without a model, the estimator reads a table of trained networks and gives one row of features per
network. A ridge regression on those rows tries to predict each network's accuracy on images that
neither it nor the measurement has seen. The features are learnt from nothing, so cross-validation
over the networks is free of leakage.
"""

# %%
# How a table is made
# -------------------
# Each pair holds a network and some of its own training images. Three networks on scikit-learn's
# digits, which differ in width and seed, become three rows.

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skgeo import FisherRankEstimator
from skgeo.datasets import digits_run
from skgeo.exceptions import RankAmbiguityWarning

# Networks trained on images rarely have a gap in their spectra. The table below
# gives their ranks at three tolerances; a warning per row would say nothing more.
warnings.simplefilter("ignore", RankAmbiguityWarning)

pairs = []
for width, seed in ((3, 2), (5, 10), (8, 18)):
    pairs += digits_run((width,), checkpoints=(15,), n_train=400, n_samples=60, seed=seed).pairs

estimator = FisherRankEstimator(likelihood="categorical", tol=1e-5)
measured = estimator.set_output(transform="pandas").fit_transform(pairs)
print(measured.T.to_string(float_format="{:.3g}".format))

# %%
# Twenty-four networks
# --------------------
# ``studies/accuracy_from_geometry.py`` trains twenty-four such networks, which differ in width,
# weight decay, training time and seed, measures each at three tolerances of the rank, and writes
# ``studies/accuracy_from_geometry.csv``. The rest of this example reads that file; run the
# script to make it again. The three networks above are among its rows.

table = pd.read_csv(Path("..") / "studies" / "accuracy_from_geometry.csv")
names = list(estimator.get_feature_names_out())
networks = table.drop_duplicates("seed").set_index("seed")
accuracies = networks["test_accuracy"].to_numpy()
print(f"{len(networks)} networks, accuracies from {accuracies.min():.2f} to {accuracies.max():.2f}")

described = table.loc[table["tol"] == 1e-5, names].describe().loc[["min", "50%", "max"]]
print(described.T.to_string(float_format="{:.3g}".format))

# %%
# A grid over tolerance and penalty
# ---------------------------------
# The tolerance of the rank is a parameter of the pipeline like any other. Here the first step looks
# the features of a network up in the table; with pairs in place of numbers, it would be the
# estimator itself, and its ``memory`` would keep the features of each pair, so that a fold or a
# penalty that comes back to a pair does not measure it again. The outer cross-validation judges the
# search as a whole, choice of tolerance included.

rows = table.set_index(["tol", "seed"])[names]


def look_up(seeds, tol):
    return rows.loc[tol].loc[seeds[:, 0]].to_numpy()


tolerances = [{"tol": tol} for tol in (1e-9, 1e-5, 1e-2)]
search = GridSearchCV(
    make_pipeline(FunctionTransformer(look_up, kw_args=tolerances[0]), StandardScaler(), Ridge()),
    {"functiontransformer__kw_args": tolerances, "ridge__alpha": [0.3, 3.0]},
    cv=KFold(3, shuffle=True, random_state=0),
    scoring="neg_mean_absolute_error",
)
outer = KFold(4, shuffle=True, random_state=1)
seeds = networks.index.to_numpy()[:, None]
predicted = cross_val_predict(search, seeds, accuracies, cv=outer)

search.fit(seeds, accuracies)
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
size = networks[["n_parameters"]].to_numpy()
opponents = {
    "mean accuracy": (DummyRegressor(), size),
    "number of parameters": (ridge, size),
    "training accuracy": (ridge, networks[["train_accuracy"]].to_numpy()),
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
