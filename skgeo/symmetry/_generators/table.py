"""The rules that propose null vectors, in the order in which they are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from skgeo.symmetry._generators.affine import affine
from skgeo.symmetry._generators.attention import attention
from skgeo.symmetry._generators.batchnorm import batchnorm
from skgeo.symmetry._generators.candidate import Candidate
from skgeo.symmetry._generators.degenerate import constant_unit, dead, no_output
from skgeo.symmetry._generators.duplicates import duplicate
from skgeo.symmetry._generators.inputs import constant_input, unused_entry
from skgeo.symmetry._generators.linear import linear
from skgeo.symmetry._generators.normalisation import (
    norm_gain,
    norm_hyperplane,
    norm_scale,
    norm_shift,
)
from skgeo.symmetry._generators.scaling import scaling
from skgeo.symmetry._generators.softmax import softmax_shift
from skgeo.symmetry._generators.streams import stream_scaling
from skgeo.symmetry._network import SymmetryNetwork

Rule = Callable[[SymmetryNetwork], Iterator[Candidate]]

# Each rule with the names of its symmetries.
_RULES: dict[Rule, tuple[str, ...]] = {
    scaling: ("scaling",),
    stream_scaling: ("stream_scaling",),
    linear: ("linear",),
    attention: ("query_key", "value_output", "key_bias", "value_bias"),
    batchnorm: ("batchnorm",),
    norm_gain: ("norm_gain",),
    norm_shift: ("norm_shift",),
    norm_scale: ("norm_scale",),
    norm_hyperplane: ("norm_hyperplane",),
    softmax_shift: ("softmax_shift",),
    no_output: ("no_output",),
    duplicate: ("duplicate",),
    constant_unit: ("constant_unit",),
    dead: ("dead",),
    constant_input: ("constant_input",),
    unused_entry: ("unused_entry",),
    affine: ("affine",),
}
SYMMETRIES = tuple(name for names in _RULES.values() for name in names)


def propose(network: SymmetryNetwork) -> list[Candidate]:
    """Candidates of all rules, not checked yet."""
    return [candidate for rule in _RULES for candidate in rule(network)]
