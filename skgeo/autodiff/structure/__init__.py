"""What each type of layer knows about its own per-sample gradients."""

from __future__ import annotations

from skgeo.autodiff.structure.admission import Certificate
from skgeo.autodiff.structure.parameter_side import parameter_block
from skgeo.autodiff.structure.rule import LayerGradients, StructureRule
from skgeo.autodiff.structure.selfcheck import check_structure
from skgeo.autodiff.structure.structured import Structured
from skgeo.autodiff.structure.symmetric import mirror
from skgeo.autodiff.structure.table import register_structure, structure_rule

__all__ = [
    "Certificate",
    "LayerGradients",
    "StructureRule",
    "Structured",
    "check_structure",
    "mirror",
    "parameter_block",
    "register_structure",
    "structure_rule",
]
