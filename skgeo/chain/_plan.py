"""Choice of the singular values that are computed at each layer, and how, from shapes alone."""

from __future__ import annotations

import dataclasses
import itertools
from numbers import Integral
from typing import Any, Literal

from skgeo.exceptions import SkgeoError
from skgeo.jacobian._layer import Layer
from skgeo.jacobian._layers import Layers

CHAINS = ("layer", "input", "output")
_LEADING = 10
# Up to these, the decomposition of a matrix takes milliseconds.
_SMALL_SIDE = 256
_SMALL_SIZE = 2**19

# Up to this, a Jacobian that is not decomposed is still formed for its moments.
_FORMED_SIZE = 2**22

Way = Literal["links", "single", "formed", "leading", "none"]


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """How one layer is measured.

    Attributes
    ----------
    layer : Layer
    source, target : Layer
        The two places that the Jacobian connects.
    way : {"links", "single", "formed", "leading", "none"}
        A product of links; one Jacobian, decomposed; its moments and leading values; leading values
        alone, from products with it; nothing, because the layer is not a cut.
    n_values : int
        Number of singular values kept.
    """

    layer: Layer
    source: Layer
    target: Layer
    way: Way
    n_values: int

    @property
    def side(self) -> int:
        """Number of singular values, the smaller side of the Jacobian."""
        return min(self.source.dim, self.target.dim)

    @property
    def is_complete(self) -> bool:
        """Whether all singular values are computed."""
        return self.way in ("links", "single")


def plan_chain(found: Layers, kind: str, n_singular_values: Any) -> tuple[LayerPlan, ...]:
    """Plans of all layers, in the order in which the layers run.

    For ``kind="output"``, without the output unless layers follow it, and with the root if it is
    a layer.
    Raises SkgeoError for an unknown kind, an invalid or too large number of singular values, or if
    no layer is left.
    """
    if kind not in CHAINS:
        raise SkgeoError(f"Got chain={kind!r}; expected one of {CHAINS}.")
    asked = n_singular_values
    whole = isinstance(asked, Integral) and not isinstance(asked, bool)
    if not (asked in ("auto", "all") if isinstance(asked, str) else whole and asked >= 1):
        raise SkgeoError(
            f"Got n_singular_values={asked!r}; expected 'auto', 'all' or a positive integer."
        )
    layers = list(found.after_root)
    if not layers:
        raise SkgeoError(
            f"The only layer, {found.root.name!r}, is where the graph starts, so there is no chain "
            "of layers. Name a later layer too with layers=[...]."
        )
    if kind == "output":
        if found.root.module:  # a layer, and not the input
            layers.insert(0, found.root)
        if layers[-1].is_output:
            layers.pop()
        if not layers:
            raise SkgeoError(
                "The only layer is the output itself, so nothing lies between a layer and the "
                "output. Name earlier layers with layers=[...], or use chain='input'."
            )
    plans = []
    for layer in layers:
        if kind == "output":
            source, target = layer, found.output
        else:
            source = found.root if kind == "input" else found.cut_before(layer)
            target = layer
        way: Way
        side = min(source.dim, target.dim)
        if not layer.is_cut and kind != "layer":
            way, count = "none", side if isinstance(asked, str) else int(asked)
        else:
            small = all(_is_small(a, b) for a, b in path_between(found, source, target))
            single = _is_small(source, target)
            full: Way = "single" if kind == "layer" or (single and not small) else "links"
            if asked == "all" or (asked == "auto" and (small or single)):
                way, count = full, side
            else:
                formed = source.dim * target.dim <= _FORMED_SIZE
                way = "formed" if formed else "leading"
                count = min(_LEADING, side) if asked == "auto" else int(asked)
                if count >= side or small or single:
                    way = full  # all singular values cost no more than the leading ones
        if count > side:
            raise SkgeoError(
                f"Got n_singular_values={asked}; the Jacobian at layer {layer.name!r} is "
                f"{target.dim} x {source.dim} and has {side}. Ask for fewer, or for 'all'."
            )
        plans.append(LayerPlan(layer, source, target, way, count))
    return tuple(plans)


def path_between(found: Layers, source: Layer, target: Layer) -> list[tuple[Layer, Layer]]:
    """Links from a cut to a later place.

    source: the root or a cut.
    target: a later layer, or the output.
    Returns pairs (source, target), in order of application.
    """
    cuts = list(found.cuts)
    if target == found.output:
        places = [*cuts[cuts.index(source) :], target]
    else:
        before = found.cut_before(target)
        places = [*cuts[cuts.index(source) : cuts.index(before) + 1], target]
    return list(itertools.pairwise(places))


def _is_small(source: Layer, target: Layer) -> bool:
    sides = (source.dim, target.dim)
    return min(sides) <= _SMALL_SIDE and sides[0] * sides[1] <= _SMALL_SIZE
