"""Symmetries of network parameters: changes that leave the function unchanged.

Canonical forms of networks (:func:`canonical_form`), whether two networks compute the same function
(:func:`equivalent`), symmetries between them (:func:`apply_symmetry`), the distance of two trained
networks up to symmetry (:func:`match_networks`), smaller networks of the same function
(:func:`compress`), classes of hidden units (:func:`classify_units`), and flat directions that
symmetries explain (:func:`generators`, :func:`nullity_account`).
"""

from skgeo.symmetry._compression.annihilating import AnnihilatingSets, annihilating_sets
from skgeo.symmetry._compression.compress import CompressionReport, compress
from skgeo.symmetry._compression.minimal_width import MinimalWidth, minimal_width
from skgeo.symmetry._equivalence.apply import apply_symmetry
from skgeo.symmetry._equivalence.canonical import CanonicalForm, canonical_form
from skgeo.symmetry._equivalence.equivalence import equivalence_classes, equivalent
from skgeo.symmetry._equivalence.hinge_equivalence import compare_hinges
from skgeo.symmetry._equivalence.hinges import HingeForm, hinge_form
from skgeo.symmetry._equivalence.matching import NetworkMatch, match_networks
from skgeo.symmetry._equivalence.report import EquivalenceReport
from skgeo.symmetry._generators.nullity import NullityAccount, nullity_account
from skgeo.symmetry._generators.operator import Generators, generators
from skgeo.symmetry._hidden_layer import HiddenLayer, one_hidden
from skgeo.symmetry._units import UNIT_CLASSES, UnitClasses, classify_units
from skgeo.symmetry.display import BoundaryDisplay, NullityDisplay
from skgeo.symmetry.estimator import SymmetryClassifier

__all__ = [
    "UNIT_CLASSES",
    "AnnihilatingSets",
    "BoundaryDisplay",
    "CanonicalForm",
    "CompressionReport",
    "EquivalenceReport",
    "Generators",
    "HiddenLayer",
    "HingeForm",
    "MinimalWidth",
    "NetworkMatch",
    "NullityAccount",
    "NullityDisplay",
    "SymmetryClassifier",
    "UnitClasses",
    "annihilating_sets",
    "apply_symmetry",
    "canonical_form",
    "classify_units",
    "compare_hinges",
    "compress",
    "equivalence_classes",
    "equivalent",
    "generators",
    "hinge_form",
    "match_networks",
    "minimal_width",
    "nullity_account",
    "one_hidden",
]
