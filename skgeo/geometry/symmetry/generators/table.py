"""Which rules propose null vectors, in the order in which they are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from skgeo.geometry.symmetry.generators.affine import affine
from skgeo.geometry.symmetry.generators.attention import attention
from skgeo.geometry.symmetry.generators.batchnorm import batchnorm
from skgeo.geometry.symmetry.generators.candidate import Candidate
from skgeo.geometry.symmetry.generators.degenerate import constant_unit, dead, no_output
from skgeo.geometry.symmetry.generators.duplicates import duplicate
from skgeo.geometry.symmetry.generators.inputs import constant_input, unused_entry
from skgeo.geometry.symmetry.generators.linear import linear
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork
from skgeo.geometry.symmetry.generators.normalisation import (
    norm_gain,
    norm_hyperplane,
    norm_scale,
    norm_shift,
)
from skgeo.geometry.symmetry.generators.scaling import scaling
from skgeo.geometry.symmetry.generators.softmax import softmax_shift
from skgeo.geometry.symmetry.generators.streams import stream_scaling

__all__ = ["Rule", "propose"]

Rule = Callable[[SymmetryNetwork], Iterator[Candidate]]

_RULES: tuple[Rule, ...] = (
    scaling,
    stream_scaling,
    linear,
    attention,
    batchnorm,
    norm_gain,
    norm_shift,
    norm_scale,
    norm_hyperplane,
    softmax_shift,
    no_output,
    duplicate,
    constant_unit,
    dead,
    constant_input,
    unused_entry,
    affine,
)


def propose(network: SymmetryNetwork) -> list[Candidate]:
    """Collect what all rules say is flat; nothing is checked yet."""
    return [candidate for rule in _RULES for candidate in rule(network)]
