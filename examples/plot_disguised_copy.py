r"""
A disguised copy, and an independent network
============================================

Permute the hidden units of a trained network, turn the signs of some, and nothing is left of its
weights that one could recognise. It computes what it did before. Another network, trained from
another seed to the same accuracy, has weights no more different than that, and is another function.
This example tells the two apart, with evidence either way.
"""

# %%
# Three networks
# --------------
# Two are trained on digits from different seeds. The third is the first with its units in another
# order and about half of them turned round: under tanh, a unit whose incoming and outgoing weights
# both change sign does what it did.

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from skgeo.datasets import digits_run
from skgeo.symmetry import (
    apply_symmetry,
    equivalence_classes,
    equivalent,
    match_networks,
)

runs = [digits_run((24, 16), checkpoints=(0, 20, 30), seed=seed) for seed in (0, 1)]
original, independent = (run.pairs[-1][0] for run in runs)
images, digits = runs[0].pairs[-1][1:]
for run in runs:
    print(run.history[["epoch", "test_loss", "test_accuracy"]].tail(1).to_string(index=False))


def disguise(network: nn.Sequential, seed: int) -> nn.Module:
    generator = np.random.default_rng(seed)
    widths = [24, 16]
    return apply_symmetry(
        network,
        permutation=[generator.permutation(width) for width in widths],
        flips=[generator.choice([-1, 1], size=width) for width in widths],
    )


copy = disguise(original, seed=4)

# %%
# Weights do not tell
# -------------------
# The distance of the copy's weights from the original's is that of the independent network.


def vector(network: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach()


for name, other in (("copy", copy), ("independent", independent)):
    apart = (vector(other) - vector(original)).norm() / vector(original).norm()
    print(f"{name:<12} relative distance of the weights {apart:.2f}")

# %%
# A certificate, and a witness
# ----------------------------
# ``equivalent`` finds for each unit of the original which one of the copy it is, and with what
# sign: enough to take the disguise off. For the independent network it finds an input at which the
# outputs differ.

report = equivalent(copy, original)
print(report)
print("first units of the original are units", report.permutation[0][:6].tolist(), "of the copy")
print("with signs                           ", report.flips[0][:6].tolist())

restored = apply_symmetry(copy, permutation=report.permutation, flips=report.flips)
apart = (vector(restored) - vector(original)).abs().max()
print(f"largest difference of a restored weight {apart:.1e}")

report = equivalent(original, independent, images)
print(report.verdict, f"- outputs at the witness differ by {report.difference:.1f}")

# %%
# A shelf of networks is sorted by what they compute. A perturbation of a single weight by a
# billionth makes another function of a network.

nudged = disguise(original, seed=3)
with torch.no_grad():
    nudged[0].weight[0, 20] += 1e-9
shelf = [original, independent, copy, disguise(independent, seed=2), nudged]
print("classes:", equivalence_classes(shelf))

# %%
# Incoming weights of the first units, as pictures of 8 by 8 pixels: the original's, the copy's, and
# those of the copy restored by its certificate.

figure, axes = plt.subplots(3, 8, figsize=(8, 3.4), layout="constrained")
for row, (name, network) in enumerate(
    (("original", original), ("copy", copy), ("restored", restored))
):
    for unit, axis in enumerate(axes[row]):
        weights = network[0].weight[unit].detach().numpy().reshape(8, 8)
        limit = np.abs(weights).max()
        axis.imshow(weights, cmap="RdBu", vmin=-limit, vmax=limit)
        axis.set(xticks=[], yticks=[])
    axes[row, 0].set_ylabel(name)
plt.show()

# %%
# Relatives
# ---------
# An earlier checkpoint of the original, disguised, is not equal to it, but is closer kin than the
# independent network. ``match_networks`` looks for the order and signs of units that bring one
# network as near to another as it can.

earlier = disguise(runs[0].pairs[1][0], seed=1)
others = {"copy": copy, "earlier checkpoint": earlier, "independent": independent}
matches = {name: match_networks(other, original) for name, other in others.items()}
for name, match in matches.items():
    print(f"{name:<20} distance {match.before:.2f} as given, {match.distance:.2f} matched")

# %%
# On the straight line from one network to another lie networks that classify worse than both ends.
# Between matched relatives they do not. Matching lowers the barrier to the independent network too,
# though its distance stays that of a stranger.


def accuracy_between(start: nn.Module, end: nn.Module, share: float) -> float:
    middle = apply_symmetry(start)
    nn.utils.vector_to_parameters(
        (1 - share) * vector(start) + share * vector(end), middle.parameters()
    )
    with torch.no_grad():
        found = middle(torch.from_numpy(images)).argmax(1).numpy()
    return float((found == digits).mean())


shares = np.linspace(0, 1, 21)
figure, axis = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
for color, (name, other) in zip(("C0", "C1", "C2"), others.items(), strict=True):
    for style, start in ((":", other), ("-", matches[name].apply(other))):
        path = [accuracy_between(start, original, share) for share in shares]
        label = f"{name}, {'matched' if style == '-' else 'as given'}"
        axis.plot(shares, path, style, color=color, label=label)
axis.set(xlabel="share of the original", ylabel="accuracy", ylim=(0, 1.03))
axis.legend(fontsize="small", loc="lower left")
plt.show()
