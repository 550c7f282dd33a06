"""State dicts in files, as training scripts leave them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.exceptions import SkgeoError

_SHOWN = 5
# What torch.compile puts before the names of a module, also of one inside another.
_COMPILED = "_orig_mod."
# Counter of an averaged model, beside the entries of `module.`.
_AVERAGED = "n_averaged"
# What else may be read is a setting of the process, so one thread at a time changes it.
_safe_globals_lock = threading.Lock()

State = Mapping[str, Any]


def read_file(path: Path, safe_globals: Sequence[Any]) -> State:
    """What a file holds, read onto the CPU without running code of the file."""
    path = path.absolute()
    if path.is_dir():
        raise SkgeoError(
            f"{path} is a folder; expected a file of weights. A folder of checkpoints is read by "
            "skgeo.training.read_run."
        )
    if not path.is_file():
        raise SkgeoError(f"There is no file {path}.")
    stored = _safetensors(path) if path.suffix == ".safetensors" else _torch(path, safe_globals)
    if not isinstance(stored, Mapping) or not all(isinstance(key, str) for key in stored):
        raise SkgeoError(
            f"{path} holds a {type(stored).__name__}; expected a state dict, as written by "
            f"torch.save(module.state_dict(), path), or a dict that holds one."
        )
    return stored


def _torch(path: Path, safe_globals: Sequence[Any]) -> Any:
    try:
        if not safe_globals:
            return torch.load(path, map_location="cpu", weights_only=True)
        with _safe_globals_lock, torch.serialization.safe_globals(list(safe_globals)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        unsafe = _unsafe_globals(path)
        if unsafe:
            raise SkgeoError(
                f"{path} holds Python objects ({_listed(unsafe)}), which may run code when they "
                f"are opened. If you trust the file, pass the classes or functions: "
                f"safe_globals=[{', '.join(unsafe[:_SHOWN])}]. A file that holds "
                f"`module.state_dict()` alone needs none."
            ) from error
        said = str(error).partition("\n")[0]
        raise SkgeoError(
            f"{path} cannot be read as a state dict: it is not a torch file, or it is damaged or "
            f"incomplete ({type(error).__name__}: {said})."
        ) from error


def _unsafe_globals(path: Path) -> list[str]:
    """Names that a file refers to and that may not be read; none if it is no torch file."""
    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # of a damaged file, there is nothing to say
        return []


def _safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise SkgeoError(
            f"{path} needs the package safetensors to be read; install it: python -m pip install "
            "'skgeo[safetensors]'."
        ) from error
    try:
        return load_file(path, device="cpu")
    except Exception as error:  # its error class is no OSError, and has no public base
        raise SkgeoError(
            f"{path} cannot be read as a safetensors file: {type(error).__name__}: {error}."
        ) from error


def fitting_state(
    stored: State, module: nn.Module, path: Path, *, key: str | None, prefix: str | None
) -> State:
    """The state dict of `module` among what a file holds.

    key: entry of the file that is meant; by default the one that fits.
    prefix: beginning of the names, with its dot; entries without it are left out. By default, what
        all names begin with is taken off if the rest then fits exactly.
    Raises SkgeoError if none fits exactly, or if several do.
    """
    path = path.absolute()
    entries = _entries(stored, path, key)
    fits: dict[str | None, State] = {}
    faults: dict[str | None, tuple[int, str]] = {}
    for name, entry in entries.items():
        given = entry if prefix is None else _under(entry, prefix)
        for form in [given] if prefix is not None else _forms(given):
            state = _with_tied(form, module)
            count, complaint = _complaints(state, module)
            if not count:
                fits.setdefault(name, state)
                break
            if name not in faults or count < faults[name][0]:
                faults[name] = (count, complaint)
    if len(fits) > 1:
        names = [repr(name) for name in fits]
        raise SkgeoError(
            f"{path} holds {len(fits)} entries that fit {type(module).__name__}: "
            f"{', '.join(names)}. Say which one: key={names[0]}."
        )
    if fits:
        return next(iter(fits.values()))
    if prefix is not None and not any(_under(entry, prefix) for entry in entries.values()):
        found = sorted({name.partition(".")[0] + "." for e in entries.values() for name in e})
        raise SkgeoError(
            f"{path} has no entry that begins with prefix={prefix!r}; the names begin with "
            f"{_listed(found)}. The prefix is given with its dot."
        )
    best = min(faults, key=lambda name: faults[name][0])
    where = "" if best is None else f" in its entry {best!r}"
    raise SkgeoError(
        f"{path} does not fit {type(module).__name__}{where}. {faults[best][1]}. The factory must "
        f"build the network that the weights were saved from.{_advice(entries[best], module)}"
    )


def _entries(stored: State, path: Path, key: str | None) -> dict[str | None, State]:
    """What may be a state dict: the file itself (None), or entries of it by name."""
    if key is not None:
        if key not in stored:
            raise SkgeoError(f"{path} has no entry key={key!r}; it holds {_listed(list(stored))}.")
        entry = stored[key]
        if not isinstance(entry, Mapping) or not all(isinstance(name, str) for name in entry):
            raise SkgeoError(
                f"The entry {key!r} of {path} is a {type(entry).__name__}; expected a state dict."
            )
        return {key: entry}
    found: dict[str | None, State] = {}
    if any(isinstance(value, Tensor) for value in stored.values()):
        found[None] = stored
    for name, value in stored.items():
        if (
            isinstance(value, Mapping)
            and all(isinstance(inner, str) for inner in value)
            and any(isinstance(v, Tensor) for v in value.values())
        ):
            found[name] = value
    if not found and stored:
        raise SkgeoError(
            f"{path} holds {_listed(list(stored))}, and no state dict among them. Save "
            f"`module.state_dict()`, alone or as an entry of its own."
        )
    return found or {None: stored}


def _forms(state: State) -> Iterator[State]:
    """A state dict as it is, and without what wrappers put before all of its names."""
    yield state
    if any(_COMPILED in name for name in state):
        state = {name.replace(_COMPILED, ""): value for name, value in state.items()}
        yield state
    while True:
        rest = {name: value for name, value in state.items() if name != _AVERAGED}
        heads = {name.partition(".")[0] for name in rest}
        if len(heads) != 1 or not all("." in name for name in rest):
            return
        state = _under(rest, f"{heads.pop()}.")
        yield state


def _under(state: State, prefix: str) -> State:
    return {n.removeprefix(prefix): value for n, value in state.items() if n.startswith(prefix)}


def _with_tied(state: State, module: nn.Module) -> State:
    """A state dict with the second names of shared tensors, which safetensors leaves out."""
    expected = module.state_dict(keep_vars=True)
    known = {id(expected[name]): value for name, value in state.items() if name in expected}
    missing = {name: id(value) for name, value in expected.items() if name not in state}
    return {**state, **{name: known[i] for name, i in missing.items() if i in known}}


def _complaints(state: State, module: nn.Module) -> tuple[int, str]:
    """Number of entries that do not fit, and a text that names some."""
    expected = module.state_dict()
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    other = [
        f"{name} {_shape(state[name])} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if isinstance(value, Tensor)
        and name in state
        and (not isinstance(state[name], Tensor) or state[name].shape != value.shape)
    ]
    groups = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    text = "; ".join(
        f"{len(names)} {what}: {_listed(names)}" for what, names in groups.items() if names
    )
    return sum(map(len, groups.values())), text


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _advice(state: State, module: nn.Module) -> str:
    """Which prefix would do, if the names of other things beside the network are the reason."""
    prefixes = {n[: i + 1] for n in state for i, letter in enumerate(n) if letter == "."}
    for prefix in sorted(prefixes, key=lambda prefix: (len(prefix), prefix)):
        rest = _with_tied(_under(state, prefix), module)
        if not _complaints(rest, module)[0]:
            return f" The entries that begin with {prefix!r} do: prefix={prefix!r}."
    return ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
