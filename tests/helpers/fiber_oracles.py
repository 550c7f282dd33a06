"""Slow, independent answers about linear fibers: exact elimination and brute-force counting."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np
from hypothesis import strategies as st

from skgeo.fiber import Barcode, representative


def exact_rank(matrix) -> int:
    """Rank over the rationals, by elimination."""
    rows = [[Fraction(int(x)) for x in row] for row in np.asarray(matrix, dtype=object)]
    rank = 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((k for k in range(rank, len(rows)) if rows[k][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for k in range(rank + 1, len(rows)):
            factor = rows[k][column] / rows[rank][column]
            if factor:
                rows[k] = [x - factor * y for x, y in zip(rows[k], rows[rank], strict=True)]
        rank += 1
    return rank


def partial_product(weights, j, i):
    """W_j ... W_{i+1}, in whatever arithmetic the entries bring."""
    width = weights[i].shape[1] if i < len(weights) else weights[-1].shape[0]
    result = np.eye(width, dtype=int).astype(weights[0].dtype)
    for weight in weights[i:j]:
        result = weight @ result
    return result


def exact_rank_list(weights) -> np.ndarray:
    depth = len(weights)
    weights = [np.asarray(w, dtype=object) for w in weights]
    widths = [weights[0].shape[1]] + [w.shape[0] for w in weights]
    table = np.zeros((depth + 1, depth + 1), dtype=int)
    for i in range(depth + 1):
        table[i, i] = widths[i]
        for j in range(i + 1, depth + 1):
            table[j, i] = exact_rank(partial_product(weights, j, i))
    return table


@cache
def brute_force_strata(widths: tuple[int, ...], rank: int) -> tuple[Barcode, ...]:
    """All omega >= 0 with these widths and omega[L, 0] = rank, one interval at a time."""
    depth = len(widths) - 1
    intervals = [(i, j) for i in range(depth + 1) for j in range(i, depth + 1)]
    intervals.remove((0, depth))

    def fill(k: int, left: tuple[int, ...]) -> Iterator[list[tuple[int, int, int]]]:
        if k == len(intervals):
            if not any(left):
                yield []
            return
        i, j = intervals[k]
        # the intervals come by birth: what begins before i can no longer be covered
        if any(left[:i]):
            return
        for count in range(min(left[i : j + 1]) + 1):
            rest = tuple(n - count * (i <= p <= j) for p, n in enumerate(left))
            for tail in fill(k + 1, rest):
                yield [(i, j, count), *tail]

    start = tuple(width - rank for width in widths)
    return tuple(Barcode(depth, [(0, depth, rank), *bars]) for bars in fill(0, start))


def all_widths(depth: int, most: int) -> Iterator[tuple[int, ...]]:
    yield from product(range(1, most + 1), repeat=depth + 1)


def some_widths(depth: int, most: int, count: int) -> list[tuple[int, ...]]:
    """Widths drawn without repetition, of which none is the reverse of another."""
    found = [widths for widths in all_widths(depth, most) if widths <= widths[::-1]]
    drawn = np.random.default_rng(depth).permutation(len(found))[:count]
    return [found[k] for k in sorted(drawn)]


def differential(weights) -> np.ndarray:
    """Matrix of d mu at a point: (d_L d_0, P), weights flattened row by row, layer by layer."""
    depth = len(weights)
    blocks = [
        np.kron(partial_product(weights, depth, k + 1), partial_product(weights, k, 0).T)
        for k in range(depth)
    ]
    return np.hstack(blocks)


def orbit_tangents(weights) -> np.ndarray:
    """Tangents X_l W_l - W_l X_{l-1} of the orbit of all base changes, one row for each entry."""
    widths = [weights[0].shape[1]] + [w.shape[0] for w in weights]
    rows = []
    for layer, width in enumerate(widths):
        for entry in range(width * width):
            x = np.zeros((width, width))
            x.flat[entry] = 1
            step = [np.zeros(np.shape(w)) for w in weights]
            if layer > 0:
                step[layer - 1] = x @ weights[layer - 1]
            if layer < len(weights):
                step[layer] = -np.asarray(weights[layer]) @ x
            rows.append(np.concatenate([s.ravel() for s in step]))
    return np.array(rows)


def brute_force_order(strata) -> np.ndarray:
    """Entry (s, t): no rank of s exceeds that of t."""
    ranks = np.array([code.rank_list() for code in strata])
    return (ranks[:, None] <= ranks[None]).all(axis=(2, 3))


def transitive_reduction(below: np.ndarray) -> set[tuple[int, int]]:
    """Covering pairs of an order given by its reflexive table."""
    strict = below & ~np.eye(len(below), dtype=bool)
    # float32 counts exactly to 2^24, and its product is a fast one
    steps = strict.astype(np.float32)
    return {(int(s), int(t)) for s, t in np.argwhere(strict & ~(steps @ steps > 0))}


def planted(barcode: Barcode, rng: np.random.Generator, condition: float = 2.0):
    """A random network with given bars: a random change of basis at each layer."""
    frames = []
    for width in barcode.widths:
        left, _ = np.linalg.qr(rng.normal(size=(width, width)))
        right, _ = np.linalg.qr(rng.normal(size=(width, width)))
        spread = np.log(condition) / 2
        frames.append((left * np.exp(rng.uniform(-spread, spread, width))) @ right)
    return [
        frames[layer + 1] @ matrix @ np.linalg.inv(frames[layer])
        for layer, matrix in enumerate(representative(barcode))
    ]


def product_of(weights) -> np.ndarray:
    return partial_product(weights, len(weights), 0)


@st.composite
def barcodes(draw, max_depth: int = 8, max_bars: int = 8, max_copies: int = 2):
    depth = draw(st.integers(1, max_depth))
    layer = st.integers(0, depth)
    bars = draw(
        st.lists(st.tuples(layer, layer, st.integers(1, max_copies)), min_size=1, max_size=max_bars)
    )
    bars = [(min(i, j), max(i, j), count) for i, j, count in bars]
    bare = [k for k in range(depth + 1) if not any(i <= k <= j for i, j, _ in bars)]
    return Barcode(depth, [*bars, *((k, k, 1) for k in bare)])
