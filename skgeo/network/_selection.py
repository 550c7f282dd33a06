"""Parameters of a module with respect to which derivatives are taken."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from torch import nn

from skgeo.exceptions import SkgeoError


def select(
    root: nn.Module, trainable: set[str], parameters: str | Sequence[str]
) -> tuple[str, ...]:
    """Names of the parameters with respect to which derivatives are taken.

    A tied parameter has its first name; the order is that of ``named_parameters()``.

    trainable: first names of the parameters with ``requires_grad`` in the user's module.
    Raises SkgeoError if nothing is selected, a name is unknown, or a parameter is not real and
    floating.
    """
    own = dict(root.named_parameters())
    first_name = {id(p): name for name, p in own.items()}
    # A tied parameter may be selected by any of its names.
    aliases = {name: first_name[id(p)] for name, p in root.named_parameters(remove_duplicate=False)}
    asked: set[str]
    if parameters == "trainable":
        asked = trainable
    elif parameters == "all":
        asked = {name for name, p in own.items() if p.is_floating_point() or p.is_complex()}
    elif isinstance(parameters, str):
        raise SkgeoError(
            f"Got parameters={parameters!r}; expected 'trainable', 'all' or a list of names such "
            f"as [{parameters!r}]."
        )
    else:
        if not isinstance(parameters, Iterable):
            raise SkgeoError(
                f"Got parameters={parameters!r}; expected 'trainable', 'all' or a list of names."
            )
        unknown = [name for name in parameters if name not in aliases]
        if unknown:
            raise SkgeoError(unknown_names(unknown, tuple(own)))
        asked = {aliases[name] for name in parameters}
    if not asked:
        have = f"It has {len(own)} parameters, none trainable" if own else "It has none at all"
        raise SkgeoError(
            f"No parameter of {type(root).__name__} is selected by parameters={parameters!r}. "
            f"{have}. Set requires_grad, or pass parameters='all' or a list of names."
        )
    for name in own:
        if name in asked and not own[name].is_floating_point():
            raise SkgeoError(
                f"Parameter {name!r} has dtype {own[name].dtype}; derivatives are taken "
                "with respect to real floating parameters only. Leave it out with a list of names."
            )
    return tuple(name for name in own if name in asked)


def unknown_names(unknown: Sequence[str], known: Sequence[str]) -> str:
    """Error message for parameter names that do not exist."""
    close = difflib.get_close_matches(str(unknown[0]), known, n=3)
    hint = f"Did you mean {', '.join(map(repr, close))}? " if close else ""
    shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    return f"No parameter named {', '.join(map(repr, unknown))}. {hint}The module has: {shown}."
