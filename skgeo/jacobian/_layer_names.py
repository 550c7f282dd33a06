"""Names of the layers of a network, and its default layers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from skgeo.exceptions import SkgeoError


def named(module: nn.Module) -> dict[str, nn.Module]:
    """Every module by name; the name of the outermost one is its class."""
    return {name or type(child).__name__: child for name, child in module.named_modules()}


def leaves(module: nn.Module) -> dict[str, nn.Module]:
    """The modules that own parameters, have a parametrised one, or have no children."""
    inside = tuple(
        f"{name}.parametrizations." if name else "parametrizations."
        for name, child in module.named_modules()
        if is_parametrized(child)
    )
    return {
        name or type(child).__name__: child
        for name, child in module.named_modules()
        if not f"{name}.".startswith(inside)
        and (child._parameters or not child._modules or is_parametrized(child))
    }


def default_groups(module: nn.Module) -> tuple[list[list[str]], bool]:
    """Groups of names to take layers from, and whether the layers are the whole first group.

    They are if the network is one ``Sequential``. Otherwise layers are the cuts of the first group
    that has any: members of a ``ModuleList``, the longest first, and then direct children.
    """
    prefix, core = _core(module)
    start = f"{prefix}." if prefix else ""
    # A shared module is known by its first name, as its hook is.
    known = {id(child): name for name, child in named(module).items()}
    children = [known[id(child)] for child in core.children()]
    if not children:
        return [[known[id(core)]]], False
    if _is_chain(core):
        return [children], not prefix
    lists = [
        child
        for name, child in module.named_modules()
        if name.startswith(start)
        and isinstance(child, nn.ModuleList)
        and "parametrizations." not in f"{name}."
    ]
    # Modules of the longest list may never be called themselves; then the next list is used.
    lists.sort(key=len, reverse=True)
    members = [[known[id(child)] for child in each] for each in lists if len(each) > 1]
    return [*members, children], False


def resolve(
    everything: dict[str, nn.Module], names: str | Sequence[str]
) -> list[tuple[str, int | None]]:
    """Read layer names as modules and call numbers: all calls for ``"relu"``, one for ``"relu#1"``.

    Raises SkgeoError if the list is empty or a name is unknown.
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise SkgeoError(
            f"Got layers={names!r}; expected None or a list of names such as [{str(names)!r}]."
        )
    if len(names) == 0:
        raise SkgeoError("Got layers=[], which names no layer; pass None for the default ones.")
    return [_resolve_one(everything, name) for name in names]


def _resolve_one(everything: dict[str, nn.Module], name: str) -> tuple[str, int | None]:
    if isinstance(name, str) and name in everything:
        return name, None
    layer, _, number = str(name).rpartition("#")
    if layer in everything and number.isdecimal():
        return layer, int(number)
    close = difflib.get_close_matches(str(name), everything, n=3)
    hint = f"Did you mean {', '.join(map(repr, close))}? " if close else ""
    raise SkgeoError(f"No layer named {name!r}. {hint}The module has: {', '.join(everything)}.")


def _is_chain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _core(module: nn.Module) -> tuple[str, nn.Module]:
    """Descend through modules that only contain one other."""
    name = ""
    while len(module._modules) == 1 and not module._parameters and not _is_chain(module):
        ((key, child),) = module._modules.items()
        if child is None or isinstance(child, nn.ModuleList) or not child._modules:
            break
        name, module = f"{name}.{key}" if name else key, child
    return name, module
