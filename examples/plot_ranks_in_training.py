r"""
Effective ranks in two trainings
================================

Two trainings, followed step by step with :func:`skgeo.track`: digits, where effective ranks of the
Fisher metric and of the tangent kernel part, and modular addition, where a transformer memorises
first and generalises much later. The tables are those of ``studies/effective_rank_in_training.py``
and ``studies/grokking.py``; :doc:`/evidence` says what else they show.
"""

# %%
# Digits
# ------
# ReLU networks 64-32-32-10 over three seeds: the line is the median and the band the range. The
# null dimensions are those of the input, of 64, where directions below a thousandth of the largest
# eigenvalue count as null.

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from skgeo.training import TrajectoryDisplay

studies = Path("..") / "studies"
digits = pd.read_csv(
    studies / "effective_rank_in_training.csv", index_col=["label_noise", "seed", "step"]
)
names = {
    "fisher__fisher_effective_rank": "Fisher effective rank",
    "fisher__tangent_effective_rank": "Tangent effective rank",
    "coarse__quotient_common_nullity[0]": "Null dimensions at the input",
}
figure, axes = plt.subplots(2, 3, figsize=(11, 6.2), layout="constrained", sharex=True)
for row, (noise, words) in zip(
    axes, ((0.0, "clean labels"), (0.4, "40% of labels replaced")), strict=True
):
    part = digits.loc[noise][list(names)]
    TrajectoryDisplay.from_track(part, features=list(names), ax=list(row))
    for axis, name in zip(row, names.values(), strict=True):
        axis.set(title=f"{name},\n{words}", ylim=(0, None), xlabel="")
for axis in axes[1]:
    axis.set_xlabel("step")
plt.show()

# %%
# Modular addition
# ----------------
# The accuracy on the training pairs is 1 from step 200 on. With weight decay, that on the other
# pairs follows a thousand steps later, in two of three seeds. The effective rank of the tangent
# kernel falls while it rises, and so does the norm of the weights. Without weight decay neither
# falls, and no seed generalises.

addition = pd.read_csv(studies / "grokking.csv", index_col=["weight_decay", "seed", "step"])
panels = {
    "test_accuracy": "Test accuracy",
    "fisher__tangent_effective_rank": "Tangent effective rank",
    "weights__norm": "Norm of the weights",
}
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
for axis, (column, title) in zip(axes, panels.items(), strict=True):
    for (decay, seed), run in addition.groupby(level=["weight_decay", "seed"]):
        label = f"weight decay {decay:g}" if seed == 0 else None
        axis.plot(
            run.index.get_level_values("step"),
            run[column],
            color="C0" if decay else "C1",
            linestyle=("-", "--", ":")[seed],
            label=label,
        )
    axis.set(title=title, xlabel="step")
axes[0].legend(frameon=False)
plt.show()
