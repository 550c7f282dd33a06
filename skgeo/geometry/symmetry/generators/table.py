"""Which rules propose null vectors, in the order in which they are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from skgeo.exceptions import SkgeoError
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

__all__ = ["Rule", "propose", "register_generators"]

Rule = Callable[[SymmetryNetwork], Iterator[Candidate]]

_RULES: dict[str, Rule] = {
    "scaling": scaling,
    "stream_scaling": stream_scaling,
    "linear": linear,
    "attention": attention,
    "batchnorm": batchnorm,
    "norm_gain": norm_gain,
    "norm_shift": norm_shift,
    "norm_scale": norm_scale,
    "norm_hyperplane": norm_hyperplane,
    "softmax_shift": softmax_shift,
    "no_output": no_output,
    "duplicate": duplicate,
    "constant_unit": constant_unit,
    "dead": dead,
    "constant_input": constant_input,
    "unused_entry": unused_entry,
    "affine": affine,
}


def propose(network: SymmetryNetwork) -> list[Candidate]:
    """Collect what all rules say is flat; nothing is checked yet.

    Parameters
    ----------
    network : SymmetryNetwork

    Returns
    -------
    list of Candidate
    """
    return [candidate for rule in _RULES.values() for candidate in rule(network)]


def register_generators(name: str, rule: Rule) -> None:
    """Teach the package the null vectors of a symmetry.

    Parameters
    ----------
    name : str
        A rule of this name is replaced; a new one is counted after those before it.
    rule : callable
        ``rule(network)`` yields a :class:`Candidate` for each null vector. None is believed: each
        is checked against the Jacobian on the data.

    Raises
    ------
    SkgeoError
        If the rule is not callable.
    """
    if not callable(rule):
        raise SkgeoError(
            f"Got {rule!r} as the rule {name!r}; expected a function that takes a network and "
            "yields candidates."
        )
    _RULES[name] = rule
