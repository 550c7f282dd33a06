r"""
A circle through a deep network
===============================

Send a circle through a random network. Every layer stretches it, by :math:`\sqrt{\chi_1}` if the
network is wide, and bends it. Mean-field theory gives both as a recursion: with g the squared speed
and :math:`\kappa` the curvature, each for one neuron,

.. math:: g' = \chi_1 g , \qquad \kappa'^2 = 3 \chi_2/\chi_1^2 + \kappa^2/\chi_1 .

Where nearby inputs merge (:math:`\chi_1 < 1`) the circle shrinks and curls up. Where they part, its
length grows exponentially with depth while its curvature settles at a constant: the curve fills
space without becoming rougher.
"""

# %%
# Networks and a circle
# ---------------------
# The circle lies in the space of the first preactivations, and has the radius that the theory says
# a layer leaves as it is, so that the recursion starts from its fixed point.

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from skgeo.chain import curvature, mean_field_theory

WIDTH, DEPTH, SIGMA_B = 400, 10, 0.3


def network(sigma_w, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for _ in range(DEPTH):
        linear = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        nn.init.normal_(linear.weight, std=sigma_w / WIDTH**0.5, generator=generator)
        nn.init.normal_(linear.bias, std=SIGMA_B, generator=generator)
        layers += [nn.Tanh(), linear]
    return nn.Sequential(*layers)


def circle(radius):
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(WIDTH, 2, generator=generator, dtype=torch.float64)
    plane = torch.linalg.qr(drawn).Q.T
    return lambda t: radius * torch.stack([t.cos(), t.sin()], dim=1) @ plane


# %%
# Speed and curvature at every layer
# ----------------------------------
# ``curvature`` pushes velocity and acceleration of the curve through the network. Speed and
# curvature of n neurons are those of one times :math:`\sqrt n` and over :math:`\sqrt n`. Each dot
# is a point of the circle. The theory is that of infinite width; at 400 neurons the points of one
# network scatter about it, the more the deeper, and their mean wanders with them.

times = torch.linspace(0.0, 2 * torch.pi, 9, dtype=torch.float64)[:-1]
depth = np.arange(1, DEPTH + 2)
figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.8), layout="constrained")
for color, sigma_w in zip(("C0", "C2", "C3"), (1.2, 1.6, 2.5), strict=True):
    theory = mean_field_theory("tanh", sigma_w, SIGMA_B)
    speed, kappa = theory.curve(DEPTH + 1)
    net, curve = network(sigma_w), circle((WIDTH * theory.q_star) ** 0.5)
    found = [curvature(net, curve, t=times, layer=str(2 * k + 1)) for k in range(DEPTH)]
    measured = [found[0].input_curvature, *(each.curvature for each in found)]
    label = rf"$\sigma_w$ = {sigma_w}, $\chi_1$ = {theory.chi_1:.2f}"
    axes[0].plot(depth, speed, color=color, label=label)
    axes[1].plot(depth, kappa, color=color)
    speeds = [found[0].speed / found[0].stretch, *(each.speed for each in found)]
    axes[0].plot(depth, np.array(speeds) / WIDTH**0.5, ".", color=color, ms=4, alpha=0.5)
    axes[1].plot(depth, np.array(measured) * WIDTH**0.5, ".", color=color, ms=4, alpha=0.5)
    print(
        f"sigma_w {sigma_w}: last speed {speed[-1]:.3f} in theory, "
        f"{speeds[-1].mean() / WIDTH**0.5:.3f} measured; last curvature {kappa[-1]:.3f} in "
        f"theory, {measured[-1].mean() * WIDTH**0.5:.3f} measured"
    )
axes[0].set(yscale="log", xlabel="layer", ylabel="speed of one neuron", title="Length")
axes[1].set(yscale="log", xlabel="layer", ylabel="curvature of one neuron", title="Curvature")
axes[0].legend(fontsize="small")
plt.show()

# %%
# What becomes of it
# ------------------
# The two leading principal components of the curve at some layers, above in the ordered network,
# below in the chaotic one. A projection can only show so much: the shares say how much of the
# curve's variance the two components hold, and after ten chaotic layers it has left any plane.

fine = torch.linspace(0.0, 2 * torch.pi, 1500, dtype=torch.float64)
figure, axes = plt.subplots(2, 4, figsize=(9.6, 5.0), layout="constrained")
for row, sigma_w in zip(axes, (1.2, 2.5), strict=True):
    theory = mean_field_theory("tanh", sigma_w, SIGMA_B)
    net, h = network(sigma_w), circle((WIDTH * theory.q_star) ** 0.5)(fine)
    for axis, layers in zip(row, (0, 1, 3, 10), strict=True):
        with torch.no_grad():
            points = net[: 2 * layers](h)
        points = points - points.mean(0)
        values, right = torch.linalg.svd(points, full_matrices=False)[1:]
        share = float((values[:2] ** 2).sum() / (values**2).sum())
        flat = (points @ right[:2].T / WIDTH**0.5).numpy()
        axis.scatter(*flat.T, c=fine, cmap="twilight", s=2)
        axis.set(title=f"after {layers} layers ({share:.0%})", aspect="equal")
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(rf"$\sigma_w$ = {sigma_w}")
plt.show()
