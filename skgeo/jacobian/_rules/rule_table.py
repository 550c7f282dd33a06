"""Rules by type of layer."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from skgeo.exceptions import SkgeoError
from skgeo.jacobian._rules.convolution import ConvolutionRule
from skgeo.jacobian._rules.embedding import EmbeddingRule
from skgeo.jacobian._rules.float32_norm import Float32NormRule
from skgeo.jacobian._rules.linear import LinearRule
from skgeo.jacobian._rules.normalisation import (
    BatchNormRule,
    GroupNormRule,
    InstanceNormRule,
    LayerNormRule,
    RMSNormRule,
)
from skgeo.jacobian._rules.rule import StructureRule
from skgeo.jacobian._rules.shared_table import SharedTable, SharedTableRule
from skgeo.jacobian._rules.transposed_convolution import TransposedConvolutionRule
from skgeo.jacobian._rules.transposed_linear import TransposedLinearRule

_RULES: dict[type[nn.Module], StructureRule] = {
    nn.Linear: LinearRule(),
    nn.Conv1d: ConvolutionRule(),
    nn.Conv2d: ConvolutionRule(),
    nn.Conv3d: ConvolutionRule(),
    nn.ConvTranspose1d: TransposedConvolutionRule(),
    nn.ConvTranspose2d: TransposedConvolutionRule(),
    nn.ConvTranspose3d: TransposedConvolutionRule(),
    nn.Embedding: EmbeddingRule(),
    nn.BatchNorm1d: BatchNormRule(),
    nn.BatchNorm2d: BatchNormRule(),
    nn.BatchNorm3d: BatchNormRule(),
    nn.InstanceNorm1d: InstanceNormRule(),
    nn.InstanceNorm2d: InstanceNormRule(),
    nn.InstanceNorm3d: InstanceNormRule(),
    nn.GroupNorm: GroupNormRule(),
    nn.LayerNorm: LayerNormRule(),
    nn.RMSNorm: RMSNormRule(),
    SharedTable: SharedTableRule(),
}
# Layers of a package that is not imported here, by patterns of their module and name. Those of the
# same name with another formula do not pass the check before a rule is used.
_TRANSFORMERS: dict[str, StructureRule] = {
    "transformers.pytorch_utils.Conv1D": TransposedLinearRule(),
    "transformers.models.*RMSNorm": Float32NormRule(),
}


def register_structure(module_type: type[nn.Module], rule: StructureRule) -> None:
    """Register the rule of a type of layer.

    Parameters
    ----------
    module_type : type
        A subclass of ``torch.nn.Module``. An earlier rule is replaced. Subclasses that do not
        override ``forward`` share the rule.
    rule : StructureRule

    Raises
    ------
    SkgeoError
        If either has the wrong type.

    See Also
    --------
    check_structure : compares a rule with general differentiation; run it first.

    Examples
    --------
    A layer that scales each feature: the derivative of its result with respect to the scale is the
    input.

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.jacobian import StructureRule, check_structure, register_structure
    >>> class Scale(nn.Module):
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.weight = nn.Parameter(torch.ones(width))
    ...
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> class ScaleRule(StructureRule):
    ...     names = ("weight",)
    ...
    ...     def rows(self, call):
    ...         # (b, m, width) of the gradients, (b, width) of the inputs
    ...         return {"weight": call.gradients * call.inputs.unsqueeze(1)}
    >>> check_structure(ScaleRule(), Scale(3), torch.randn(5, 3))
    >>> register_structure(Scale, ScaleRule())
    """
    if not (isinstance(module_type, type) and issubclass(module_type, nn.Module)):
        raise SkgeoError(
            f"Got {module_type!r} as the type of layer; expected a subclass of torch.nn.Module "
            "(the class, not an instance of it)."
        )
    if not isinstance(rule, StructureRule):
        raise SkgeoError(
            f"Got {rule!r} as the rule of {module_type.__name__}; expected an instance of a "
            "subclass of StructureRule. Write rule=MyRule(), with parentheses."
        )
    _RULES[module_type] = rule


def structure_rule(module: nn.Module) -> StructureRule | None:
    """Find the rule of a layer.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    StructureRule or None
        That of its type, or of the nearest base class whose ``forward`` it uses unchanged; None if
        there is none, or if it does not cover the options of this layer.
    """
    if "forward" in vars(module):
        return None
    for kind in type(module).__mro__:
        rule = _RULES.get(kind) or _by_name(kind)
        if rule is not None:
            same = _forward(type(module)) is _forward(kind)
            return rule if same and rule.covers(module) else None
    return None


def _by_name(kind: type) -> StructureRule | None:
    if not kind.__module__.startswith("transformers."):
        return None
    name = f"{kind.__module__}.{kind.__qualname__}"
    return next((rule for key, rule in _TRANSFORMERS.items() if fnmatchcase(name, key)), None)


def _forward(kind: type) -> Any:
    return getattr(kind, "forward", None)
