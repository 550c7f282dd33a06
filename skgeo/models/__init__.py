"""Kinds of models, and their common form."""

from skgeo.models._checkpoint import Checkpoint
from skgeo.models._digest import fingerprint
from skgeo.models._kinds import is_model
from skgeo.models._resolve import (
    ResolvedModel,
    bare_model,
    needs_fit,
    needs_y,
    resolve_model,
    share_or_clone,
)
from skgeo.models._wrapped import WrappedModel

__all__ = [
    "Checkpoint",
    "ResolvedModel",
    "WrappedModel",
    "bare_model",
    "fingerprint",
    "is_model",
    "needs_fit",
    "needs_y",
    "resolve_model",
    "share_or_clone",
]
