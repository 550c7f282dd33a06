"""Flat directions in closed form: what each symmetry says of the Fisher null space.

Every symmetry is one small rule that proposes null vectors; each vector is checked against the
Jacobian on the data before it counts.
"""

from skgeo.geometry.symmetry.generators.network import SymmetryNetwork
from skgeo.geometry.symmetry.generators.operator import (
    Generator,
    Generators,
    generators,
    measure_generators,
)

__all__ = [
    "Generator",
    "Generators",
    "SymmetryNetwork",
    "generators",
    "measure_generators",
]
