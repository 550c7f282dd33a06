r"""
At the edge of chaos, and off it
================================

A wide network with random weights multiplies the square of a small step by
:math:`\chi_1 = \sigma_w^2 E \phi'^2` in every layer. Below one, nearby inputs merge and gradients
vanish; above one, they part and gradients explode. Mean-field theory says where one is. This
example lays its predictions beside what networks of finite width do.
"""

# %%
# Where the edge is
# -----------------
# For tanh units with biases of standard deviation 0.1, the weights at which :math:`\chi_1 = 1`.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.optimize import brentq
from torch import nn

from skgeo.chain import JacobianChainProfiler, mean_field, mean_field_theory

sigma_b = 0.1
edge = brentq(lambda s: mean_field_theory("tanh", s, sigma_b).chi_1 - 1.0, 0.9, 1.3, xtol=1e-6)
print(f"edge of chaos at sigma_w = {edge:.4f}")

grid = np.linspace(0.7, 2.0, 19)
theories = [mean_field_theory("tanh", sigma_w, sigma_b) for sigma_w in grid]

# %%
# Networks to measure
# -------------------
# A hundred units a layer, twenty layers, and inputs of the length that the theory says a layer
# leaves as it is.

WIDTH, DEPTH = 100, 20


def network(sigma_w, seed):
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for _ in range(DEPTH):
        linear = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        nn.init.normal_(linear.weight, std=sigma_w / WIDTH**0.5, generator=generator)
        nn.init.normal_(linear.bias, std=sigma_b, generator=generator)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers)


def inputs(sigma_w, n, seed=0):
    q_star = mean_field_theory("tanh", sigma_w, sigma_b).q_star
    X = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    X *= ((q_star - sigma_b**2) ** 0.5 / sigma_w) / X.square().mean(1, keepdim=True) ** 0.5
    return X


# %%
# One step of one layer
# ---------------------
# ``mean_field`` measures :math:`\chi_1` from the Jacobians of every layer. Its mean over layers
# agrees with the theory to a few hundredths for every network drawn.

measured = {}
for sigma_w in (0.8, edge, 1.3, 1.6, 1.9):
    found = [mean_field(network(sigma_w, seed), inputs(sigma_w, 20)) for seed in range(3)]
    measured[sigma_w] = [each.chi_measured[1:].mean() for each in found]

# %%
# A chain of twenty
# -----------------
# Over depth the factors multiply: the mean squared singular value of the Jacobian from the input to
# layer l is :math:`\sigma_w^2 \chi_1^{l-1}`. Errors of finite width multiply as well, and one
# network's chain wanders off the line by more than one layer does.

linears = [str(2 * layer) for layer in range(DEPTH)]
chains = {}
for sigma_w in (0.8, edge, 1.9):
    squares = []
    for seed in range(3):
        profiler = JacobianChainProfiler(
            network(sigma_w, seed), layers=linears, n_singular_values="all"
        ).fit(inputs(sigma_w, 3))
        squares.append([(profiler.singular_values_[name] ** 2).mean() for name in linears])
    chains[sigma_w] = np.array(squares)

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3.7), layout="constrained")
axes[0].plot(grid, [theory.chi_1 for theory in theories], color="0.4", label="theory")
for sigma_w, values in measured.items():
    axes[0].plot([sigma_w] * len(values), values, "C0.", label="measured" if sigma_w > 1.8 else "")
axes[0].axhline(1.0, color="0.8", lw=1, zorder=0)
axes[0].axvline(edge, color="0.8", lw=1, zorder=0)
axes[0].set(xlabel=r"$\sigma_w$", ylabel=r"$\chi_1$", title="One layer")
axes[0].legend()

depth = np.arange(1, DEPTH + 1)
for color, (sigma_w, values) in zip(("C0", "C2", "C3"), chains.items(), strict=True):
    theory = mean_field_theory("tanh", sigma_w, sigma_b)
    label = rf"$\sigma_w$ = {sigma_w:.2f}"
    axes[1].plot(depth, sigma_w**2 * theory.chi_1 ** (depth - 1), color=color, label=label)
    for row in values:
        axes[1].plot(depth, row, ".", color=color, ms=4, alpha=0.6)
axes[1].set(yscale="log", xlabel="layer", title="The chain from the input")
axes[1].set_ylabel("mean squared singular value")
axes[1].legend()

for name, label in (("xi_q", r"length, $\xi_q$"), ("xi_c", r"correlation, $\xi_c$")):
    axes[2].plot(grid, [getattr(theory, name) for theory in theories], ".-", ms=4, label=label)
axes[2].axvline(edge, color="0.8", lw=1, zorder=0)
axes[2].set(yscale="log", xlabel=r"$\sigma_w$", ylabel="layers", title="Depth scales")
axes[2].legend()
plt.show()

# %%
# How far the numbers are apart
# -----------------------------

for sigma_w, values in chains.items():
    theory = mean_field_theory("tanh", sigma_w, sigma_b)
    last = sigma_w**2 * theory.chi_1 ** (DEPTH - 1)
    print(
        f"sigma_w {sigma_w:.3f}: chi_1 {theory.chi_1:.3f}, after {DEPTH} layers {last:.2e} in "
        f"theory, {values[:, -1].min():.2e} to {values[:, -1].max():.2e} measured"
    )
