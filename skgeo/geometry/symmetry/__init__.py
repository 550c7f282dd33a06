"""Symmetries of network parameters: which changes leave the function as it is.

Forms that networks of one function share (:func:`canonical_form`), whether two networks are one
function (:func:`equivalent`), the moves between them (:func:`apply_symmetry`), how close two
trained networks come to each other under these moves (:func:`match_networks`), the smaller network
of the same function (:func:`compress`), the classes of hidden units (:func:`classify_units`), and
the flat directions that symmetries explain (:func:`generators`, :func:`nullity_account`).
"""

from skgeo.geometry.symmetry.annihilating import AnnihilatingSets, annihilating_sets
from skgeo.geometry.symmetry.apply import apply_symmetry
from skgeo.geometry.symmetry.canonical import CanonicalForm, canonical_form
from skgeo.geometry.symmetry.compress import CompressionReport, compress
from skgeo.geometry.symmetry.equivalence import equivalence_classes, equivalent
from skgeo.geometry.symmetry.generators import Generators, generators
from skgeo.geometry.symmetry.matching import NetworkMatch, match_networks
from skgeo.geometry.symmetry.minimal_width import MinimalWidth, minimal_width
from skgeo.geometry.symmetry.nullity import NullityAccount, nullity_account
from skgeo.geometry.symmetry.report import EquivalenceReport
from skgeo.geometry.symmetry.units import UNIT_CLASSES, UnitClasses, classify_units

__all__ = [
    "UNIT_CLASSES",
    "AnnihilatingSets",
    "CanonicalForm",
    "CompressionReport",
    "EquivalenceReport",
    "Generators",
    "MinimalWidth",
    "NetworkMatch",
    "NullityAccount",
    "UnitClasses",
    "annihilating_sets",
    "apply_symmetry",
    "canonical_form",
    "classify_units",
    "compress",
    "equivalence_classes",
    "equivalent",
    "generators",
    "match_networks",
    "minimal_width",
    "nullity_account",
]
