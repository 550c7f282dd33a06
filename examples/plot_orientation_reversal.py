r"""
Turning units around
====================

A ReLU unit may be scaled, and any two units exchanged, without a change of the function. There is
a third symmetry that takes several units together: if the weights of a set of units annihilate,
:math:`\sum q_i w_i^T = 0`, all of them may be turned around,
:math:`(w_i, b_i) \to -(w_i, b_i)`, and only the output bias moves. This example shows it on the
smallest networks that have it, what the Fisher metric sees of it, and a family of networks that owe
it to a rotation.
"""

# %%
# Two networks, one function
# --------------------------
# With r for the ReLU, :math:`r(x - 1) + r(-x - 1) + 2 = r(-x + 1) + r(x + 1)`. The comparison finds
# the certificate: both units flipped, and -2 added to the output bias.

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from skgeo.symmetry import (
    classify_units,
    compress,
    equivalent,
    minimal_width,
    nullity_account,
    one_hidden,
)


def relu_network(weights, biases, outputs, shift):
    """The module with these very numbers."""
    w, q = torch.tensor(weights, dtype=torch.float64), torch.tensor(outputs, dtype=torch.float64)
    module = nn.Sequential(nn.Linear(w.shape[1], len(w)), nn.ReLU(), nn.Linear(len(w), len(q)))
    values = (w, torch.tensor(biases), q, torch.tensor(shift))
    with torch.no_grad():
        for parameter, value in zip(module.double().parameters(), values, strict=True):
            parameter.copy_(value)
    return module


outwards = relu_network([[1.0], [-1.0]], [-1.0, -1.0], [[1.0, 1.0]], [2.0])
inwards = relu_network([[-1.0], [1.0]], [1.0, 1.0], [[1.0, 1.0]], [0.0])
report = equivalent(outwards, inwards)
print(report)
print("flips", report.flips[0].tolist(), "  added to the bias", report.bias_shift.tolist())

# %%
# One unit turned alone is another function, and the report says where to look.

alone = relu_network([[-1.0], [-1.0]], [1.0, -1.0], [[1.0, 1.0]], [2.0])
shifted = relu_network([[-1.0], [-1.0]], [1.0, -1.0], [[1.0, 1.0]], [1.0])
grid = torch.linspace(-3, 3, 601, dtype=torch.float64)[:, None]
for name, other in (("as it was", alone), ("shifted", shifted)):
    report = equivalent(outwards, other)
    with torch.no_grad():
        largest = float((outwards(grid) - other(grid)).abs().max())
    print(f"bias {name}: {report.verdict}, by up to {largest:.1f} on [-3, 3]")

# %%


def draw_units(axis, module, title):
    """The function and its units, each from the output bias up."""
    w, b = module[0].weight.detach(), module[0].bias.detach()
    q, c = module[2].weight.detach()[0], module[2].bias.item()
    for i in range(len(w)):
        unit = q[i] * torch.relu(grid[:, 0] * w[i] + b[i])
        axis.plot(grid, c + unit, lw=1.2, ls="--", label=f"unit {i + 1} above the bias")
    with torch.no_grad():
        axis.plot(grid, module(grid), color="black", lw=2, label="network")
    axis.set(title=title, xlabel="x", ylim=(-0.3, 6.3))


figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained", sharey=True)
draw_units(axes[0], outwards, "both outwards, c = 2")
draw_units(axes[1], inwards, "both inwards, c = 0")
draw_units(axes[2], shifted, "one turned alone, c = 1")
with torch.no_grad():
    axes[2].plot(grid, outwards(grid), color="0.7", lw=2, zorder=0)
axes[0].legend(fontsize=8)
plt.show()

# %%
# Four units in the plane
# -----------------------
# Four units with boundaries on the sides of a square: opposite ones annihilate. Reversal is a
# discrete symmetry, so that it brings no flat direction. The null space of the Fisher metric has
# one direction for each unit, its scaling :math:`(w_i, b_i, -q_i)`, and nothing else: rank 13 of
# 17.

square = relu_network(
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], [-1.0] * 4, [[1.0] * 4], [0.0]
)
parameters = [p.detach() for p in square.parameters()]
classes = classify_units(*parameters[:3])
print("classes:", classes.labels)
for units in classes.reversible.unions():
    chosen = list(units)
    shift = float(parameters[2][0, chosen] @ parameters[1][chosen])
    print(f"units {[i + 1 for i in units]} may be turned; c changes by {shift:+.0f}")

generator = torch.Generator().manual_seed(0)
X = 3 * torch.randn(4000, 2, generator=generator, dtype=torch.float64)
account = nullity_account(square, X, likelihood="gaussian")
print(f"Fisher rank {account.fisher_rank} of {account.n_parameters}")
print("explained:", account.generators.dimensions, "  unexplained:", account.unexplained)

# %%
# Where units add up
# ------------------
# :math:`\mathrm{relu}(w_1 x) + \mathrm{relu}(w_2 x) = \mathrm{relu}(x)` for all
# :math:`w_1, w_2 \ge 0` with :math:`w_1 + w_2 = 1`: two units on one boundary. With x uniform on
# :math:`[-\sqrt 6, \sqrt 6]` the Fisher matrix of :math:`(w_1, w_2)` is all ones inside that
# segment and loses a row at its end, where a unit dies. At weights of opposite sign, which give
# another function, the two units share no sample and it is the identity.

edge = np.sqrt(6)
x = torch.linspace(-edge, edge, 200_001, dtype=torch.float64)
for w1, w2 in ((0.3, 0.7), (1.0, 0.0), (1.2, -0.2)):
    slopes = torch.stack([x * (w1 * x > 0), x * (w2 * x > 0)])
    fisher = (slopes @ slopes.T / len(x)).round(decimals=3).tolist()
    one = relu_network([[1.0]], [0.0], [[1.0]], [0.0])
    two = relu_network([[w1], [w2]], [0.0, 0.0], [[1.0, 1.0]], [0.0])
    print(f"w = ({w1}, {w2}): {equivalent(two, one).verdict}, Fisher matrix {fisher}")

# %%
# A unit that never switches on where the inputs are makes a network singular too, and can go there.

dead = relu_network([[-1.0]], [-3.0], [[5.0]], [0.0])
report = compress(dead, domain="box", X=torch.tensor([[-2.0], [2.0]], dtype=torch.float64))
print(report)
print(f"difference outside the box: up to {report.error_outside:.0f}")

# %%
# Networks with an m-fold symmetry
# --------------------------------
# Weights rotated by :math:`2\pi/m` sum to zero. With equal outgoing weights all m units may be
# turned around: the same function, its units now active on the inner side of their boundaries.
# For m = 6 opposite pairs and triangles annihilate by themselves.


def rotated(m):
    angle = 2 * np.pi * np.arange(m) / m + np.pi / 2
    weights = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return weights, relu_network(weights.tolist(), [-1.0] * m, [[1.0] * m], [0.0])


side = torch.linspace(-3, 3, 241, dtype=torch.float64)
plane = torch.cartesian_prod(side, side)
figure, axes = plt.subplots(2, 3, figsize=(9.5, 6.6), layout="constrained", sharey=True)
for column, m in zip(axes.T, (3, 5, 6), strict=True):
    weights, network = rotated(m)
    turned = relu_network((-weights).tolist(), [1.0] * m, [[1.0] * m], [-float(m)])
    report = equivalent(network, turned)
    w, b, q, c = (p.detach() for p in network.parameters())
    sets = classify_units(w, b, q).reversible.minimal
    width = minimal_width(one_hidden(w, b, q, c))
    print(
        f"m = {m}: {report.verdict}, minimal reversible sets {sets}, "
        f"least width {width.width} (proved: {width.optimal})"
    )
    for axis, module, sign in zip(column, (network, turned), (1, -1), strict=True):
        with torch.no_grad():
            values = module(plane).reshape(len(side), len(side)).T
        axis.contourf(
            side, side, values, levels=np.arange(-0.2, 6.3, 0.4), cmap="Blues", extend="max"
        )
        for direction in weights:
            along = np.array([-direction[1], direction[0]])
            ends = np.stack([direction - 5 * along, direction + 5 * along])
            axis.plot(*ends.T, color="C1", lw=1.2)
            axis.annotate(
                "",
                direction * (1 + 0.6 * sign),
                direction,
                arrowprops={"arrowstyle": "-|>", "color": "C3", "lw": 1.5},
            )
        bias = module[2].bias.item()
        axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title=f"m = {m}, c = {bias:.0f}")
axes[0, 0].set_ylabel("active on the outside")
axes[1, 0].set_ylabel("active on the inside")
plt.show()
