"""Which submodules count as the layers of a network."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from skgeo.exceptions import SkgeoError

__all__ = ["candidates", "leaves", "named", "pick", "resolve"]


class _Call(Protocol):
    @property
    def layer(self) -> str: ...
    @property
    def is_cut(self) -> bool | None: ...


C = TypeVar("C", bound=_Call)


def named(module: nn.Module) -> dict[str, nn.Module]:
    """Name every module of a tree; the tree itself goes by its class.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    dict of str to torch.nn.Module
    """
    return {name or type(child).__name__: child for name, child in module.named_modules()}


def leaves(module: nn.Module) -> dict[str, nn.Module]:
    """Name the modules that compute something themselves.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    dict of str to torch.nn.Module
        Those that own parameters, have a parametrised one, or have no children.
    """
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


def candidates(module: nn.Module) -> dict[str, nn.Module]:
    """Name all submodules that may be default layers.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    dict of str to torch.nn.Module
        Of every group that :func:`pick` chooses from.
    """
    everything = named(module)
    return {name: everything[name] for group in _groups(module) for name in group}


def pick(module: nn.Module, calls: Sequence[C], test: Callable[[Sequence[C]], list[C]]) -> list[C]:
    """Choose the default layers among the calls of all candidates.

    Parameters
    ----------
    module : torch.nn.Module
    calls : sequence of LayerCall
    test : callable
        Applies the cut test to some of them.

    Returns
    -------
    list of LayerCall
        The children of a ``Sequential``, else the cuts of the first group that has any.

    Raises
    ------
    SkgeoError
        If no layer qualifies.
    """
    prefix, core = _core(module)
    if not prefix and _is_chain(core):
        return test(calls)
    for group in _groups(module):
        chosen = [call for call in test([c for c in calls if c.layer in group]) if call.is_cut]
        if chosen:
            return chosen
    raise SkgeoError(
        "No layer was found that the whole computation passes through. Name the layers to look at: "
        f"layers=[...], of {', '.join(named(module))}."
    )


def resolve(
    everything: dict[str, nn.Module], names: str | Sequence[str]
) -> list[tuple[str, int | None]]:
    """Read layer names as modules and call numbers.

    Parameters
    ----------
    everything : dict of str to torch.nn.Module
    names : list of str
        ``"name"`` means all calls, ``"name#k"`` the call numbered k, from 0.

    Returns
    -------
    list of (str, int or None)

    Raises
    ------
    SkgeoError
        If the list is empty or a name is unknown.
    """
    if isinstance(names, str):
        raise SkgeoError(
            f"layers={names!r} is not understood; expected None, 'leaves' or a list of names "
            f"such as [{names!r}]."
        )
    if len(names) == 0:
        raise SkgeoError("layers=[] names no layer; pass None for the default ones.")
    return [_resolve_one(everything, name) for name in names]


def _resolve_one(everything: dict[str, nn.Module], name: str) -> tuple[str, int | None]:
    if name in everything:
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
    """Step through modules that only hold one other."""
    name = ""
    while len(module._modules) == 1 and not module._parameters and not _is_chain(module):
        ((key, child),) = module._modules.items()
        if child is None or isinstance(child, nn.ModuleList) or not child._modules:
            break
        name, module = f"{name}.{key}" if name else key, child
    return name, module


def _groups(module: nn.Module) -> list[list[str]]:
    """Groups of names to take layers from, the preferred one first."""
    prefix, core = _core(module)
    start = f"{prefix}." if prefix else ""
    # A shared module goes by its first name, as its hook does.
    known = {id(child): name for name, child in named(module).items()}
    children = [known[id(child)] for child in core.children()]
    if not children:
        return [[known[id(core)]]]
    if _is_chain(core):
        return [children]
    lists = [
        child
        for name, child in module.named_modules()
        if name.startswith(start)
        and isinstance(child, nn.ModuleList)
        and "parametrizations." not in f"{name}."
    ]
    # The longest list may hold what is never called itself; then the next one is looked at.
    lists.sort(key=len, reverse=True)
    members = [[known[id(child)] for child in each] for each in lists if len(each) > 1]
    return [*members, children]
