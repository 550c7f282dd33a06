"""Symmetries of network parameters: which changes leave the function as it is.

Forms that networks of one function share (:func:`canonical_form`), whether two networks are one
function (:func:`equivalent`), the moves between them (:func:`apply_symmetry`), and how close two
trained networks come to each other under these moves (:func:`match_networks`).
"""

from skgeo.geometry.symmetry.apply import apply_symmetry
from skgeo.geometry.symmetry.canonical import CanonicalForm, canonical_form
from skgeo.geometry.symmetry.equivalence import equivalence_classes, equivalent
from skgeo.geometry.symmetry.matching import NetworkMatch, match_networks
from skgeo.geometry.symmetry.report import EquivalenceReport

__all__ = [
    "CanonicalForm",
    "EquivalenceReport",
    "NetworkMatch",
    "apply_symmetry",
    "canonical_form",
    "equivalence_classes",
    "equivalent",
    "match_networks",
]
