"""Flat directions in closed form: what each symmetry says of the Fisher null space.

Every symmetry is one small rule that proposes null vectors; each vector is checked against the
Jacobian on the data before it counts.
"""

from skgeo.geometry.symmetry.generators.candidate import Candidate, Change
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork
from skgeo.geometry.symmetry.generators.operator import (
    CHECK_TOL,
    Generator,
    Generators,
    generators,
    measure_generators,
)
from skgeo.geometry.symmetry.generators.table import register_generators

__all__ = [
    "CHECK_TOL",
    "Candidate",
    "Change",
    "Generator",
    "Generators",
    "SymmetryNetwork",
    "generators",
    "measure_generators",
    "register_generators",
]
