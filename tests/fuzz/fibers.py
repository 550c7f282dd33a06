"""Deep linear networks of small integers against exact elimination over the rationals."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn

from fuzz.draw import Draw
from fuzz.verdicts import Trial, Verdict
from helpers.fiber_oracles import differential, exact_rank, exact_rank_list, orbit_tangents
from skgeo import LinearFiberStratifier, fiber


def make_chain(draw: Draw) -> list[np.ndarray]:
    """Integer matrices whose partial products lose rank here and there."""
    widths = [draw.integer(1, 4) for _ in range(draw.integer(2, 5))]
    chain = []
    for before, after in itertools.pairwise(widths):
        inner = draw.integer(0, min(before, after)) if draw.chance(0.6) else min(before, after)
        left = draw.integers(5, after, inner).numpy() - 2
        right = draw.integers(5, inner, before).numpy() - 2
        chain.append(left @ right if inner else np.zeros((after, before), dtype=int))
    draw.note(f"linear chain of widths {widths}: {[w.tolist() for w in chain]}")
    return chain


def examine_fiber(seed: int) -> tuple[str, list[Verdict]]:
    """Bars, dimensions and ranks of one chain."""
    draw, trial = Draw(seed), Trial()
    chain = make_chain(draw)
    scale = 10.0 ** draw.integer(-4, 4) if draw.chance(0.3) else 1.0
    weights = [w.astype(np.float64) * scale for w in chain]
    draw.note(f"times {scale:g}")
    ranks = exact_rank_list(chain)
    integers = [w.astype(np.float64) for w in chain]
    moves = exact_rank(np.rint(differential(integers)).astype(int))
    orbit = exact_rank(np.rint(orbit_tangents(integers)).astype(int))

    found, notes = trial.run("fiber barcode", lambda: fiber.numerical_barcode(weights).barcode)
    if found is not None:
        given = found.rank_list()
        wrong = "" if np.array_equal(given, ranks) else f"{given.tolist()} for {ranks.tolist()}"
        trial.judge("fiber barcode", wrong, notes)
    module = _module(weights)
    x = np.eye(weights[0].shape[1])
    fitted, notes = trial.run("fiber of a module", lambda: LinearFiberStratifier(module).fit(x))
    if fitted is None:
        return str(draw), trial.verdicts
    right = {
        "rank list": (fitted.rank_list_, ranks),
        "differential rank": (fitted.differential_rank_, moves),
        # The stratum is the part of the orbit on which the product stays: base changes of the
        # hidden layers only.
        "stratum dimension": (fitted.stratum_dim_, _hidden_orbit(integers)),
    }
    for name, (given, wanted) in right.items():
        wrong = "" if np.array_equal(given, wanted) else f"{given} for {wanted}"
        trial.judge(f"fiber {name}", wrong, notes)
    if orbit < _hidden_orbit(integers):
        raise AssertionError("The orbit of all base changes is smaller than that of some.")
    return str(draw), trial.verdicts


def _hidden_orbit(weights: list[np.ndarray]) -> int:
    """Dimension of the orbit tangents that leave the product as it is, by elimination."""
    tangents = np.rint(orbit_tangents(weights)).astype(int)
    # Those in the kernel of the differential: rank of both less the rank of the images.
    images = tangents @ np.rint(differential(weights)).astype(int).T
    return exact_rank(tangents) - exact_rank(images)


def _module(weights: list[np.ndarray]) -> nn.Sequential:
    layers = []
    for weight in weights:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
        layers.append(layer)
    return nn.Sequential(*layers)
