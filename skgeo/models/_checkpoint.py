"""Weights in a file, with the function that builds their module."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.exceptions import NotAModelError, SkgeoError
from skgeo.models._wrapped import function_name

_SHOWN = 5


class Checkpoint:
    """Model whose weights are read from a file each time it is measured.

    A table of many checkpoints then needs memory for one network at a time.

    Parameters
    ----------
    path : str or path-like
        File with a state dict, as written by ``torch.save(module.state_dict(), path)``.
    factory : callable
        ``factory() -> torch.nn.Module`` builds the module the weights belong to. It may be the
        class of the module if that takes no arguments.
    forward : callable, default=None
        ``forward(module, inputs) -> Tensor`` as in :class:`WrappedModel`.

    See Also
    --------
    skgeo.WrappedModel : A module in memory with its own forward function.

    Notes
    -----
    The file is read onto the CPU with ``weights_only=True``, so opening it runs no code. Nothing
    is kept between loads. A Checkpoint can be pickled if `factory` and `forward` can.

    Examples
    --------
    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from skgeo import Checkpoint
    >>> def factory():
    ...     return torch.nn.Linear(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "step10.pt"
    ...     torch.save(factory().state_dict(), path)
    ...     Checkpoint(path, factory).load()
    Linear(in_features=3, out_features=2, bias=True)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        factory: Callable[[], nn.Module],
        forward: Callable[[nn.Module, Any], Tensor] | None = None,
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise NotAModelError(
                f"Checkpoint got {type(path).__name__} as its path; expected the name of a file "
                f"that holds a state dict."
            )
        if isinstance(factory, nn.Module) or not callable(factory):
            raise NotAModelError(
                f"Checkpoint got {type(factory).__name__} as its factory; expected a function "
                f"without arguments that builds the module, such as `lambda: MyNet(width=64)`."
            )
        if forward is not None and not callable(forward):
            raise NotAModelError(
                f"Checkpoint got forward={forward!r}; expected a function forward(module, inputs)."
            )
        self.path = path
        self.factory = factory
        self.forward = forward

    def load(self) -> nn.Module:
        """Build the module and read its weights.

        Returns
        -------
        torch.nn.Module
            A new module in eval mode on the CPU.

        Raises
        ------
        SkgeoError
            If there is no such file, it holds no state dict, or the state dict does not fit the
            module.
        NotAModelError
            If `factory` does not return a module.

        Examples
        --------
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from skgeo import Checkpoint
        >>> net = torch.nn.Linear(3, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "net.pt"
        ...     torch.save(net.state_dict(), path)
        ...     loaded = Checkpoint(path, lambda: torch.nn.Linear(3, 2)).load()
        >>> bool((loaded.weight == net.weight).all())
        True
        """
        state = _read_state(Path(self.path))
        # The initial weights are overwritten, so their draw must not change the global generator.
        with torch.random.fork_rng(devices=[]):
            module = self.factory()
        if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
            raise NotAModelError(
                f"The factory {function_name(self.factory)} of {self.path} returned "
                f"{type(module).__name__}; expected a torch.nn.Module."
            )
        _check_fit(state, module, f"{self.path} does not fit {type(module).__name__}")
        try:
            module.load_state_dict(state)
        except (RuntimeError, TypeError, ValueError) as error:
            raise SkgeoError(
                f"{self.path} does not fit {type(module).__name__}: {error}"
            ) from error
        return module.eval()

    def __sklearn_clone__(self) -> Checkpoint:
        return self

    def __repr__(self) -> str:
        forward = "" if self.forward is None else f", forward={function_name(self.forward)}"
        return f"Checkpoint({str(self.path)!r}, factory={function_name(self.factory)}{forward})"


def _read_state(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise SkgeoError(f"There is no file {path} (working directory: {Path.cwd()}).")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SkgeoError(
            f"{path} cannot be read as a state dict: it is not a torch file, or it holds Python "
            f"objects such as a pickled module, which run code when they are opened. Save "
            f"`module.state_dict()` instead; if you trust the file, pass the module itself: "
            f"model=torch.load(path, weights_only=False)."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise SkgeoError(
            f"{path} cannot be read as a torch file: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise SkgeoError(
            f"{path} holds a {type(state).__name__}; expected a state dict, as written by "
            f"torch.save(module.state_dict(), path)."
        )
    nested = [
        key
        for key, value in state.items()
        if isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values())
    ]
    if nested and not any(isinstance(value, Tensor) for value in state.values()):
        raise SkgeoError(
            f"{path} holds a training state with keys {', '.join(state)}; expected the state "
            f"dict only. Save that entry separately: torch.save(torch.load({path.name!r})"
            f"[{nested[0]!r}], new_path)."
        )
    return state


def _check_fit(state: Mapping[str, Any], module: nn.Module, headline: str) -> None:
    expected = module.state_dict()
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if isinstance(value, Tensor)
        and isinstance(state.get(name), Tensor)
        and state[name].shape != value.shape
    ]
    complaints = [
        f"{what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for what, names in (
            (f"{len(missing)} missing", missing),
            (f"{len(unexpected)} unexpected", unexpected),
            (f"{len(shapes)} of another shape", shapes),
        )
        if names
    ]
    if complaints:
        raise SkgeoError(
            f"{headline}. {'; '.join(complaints)}. The factory must build the network that the "
            f"weights were saved from."
        )
