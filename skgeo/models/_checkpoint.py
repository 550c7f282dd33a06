"""Weights in a file, with the function that builds their module."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skgeo._random_state import random_state_kept
from skgeo.exceptions import NotAModelError, SkgeoError
from skgeo.models._state_file import fitting_state, read_file
from skgeo.models._wrapped import check_class_axis, function_name

# The generator of the process is put back after a factory has drawn from it, by one thread at a
# time: another's draw would be kept.
_factory_lock = threading.RLock()


class Checkpoint:
    """Model whose weights are read from a file each time it is measured.

    A table of many checkpoints then needs memory for one network at a time.

    Parameters
    ----------
    path : str or path-like
        File of weights: of ``torch.save``, a ``.ckpt`` of Lightning, or ``.safetensors``.
    factory : callable
        ``factory() -> torch.nn.Module`` builds the module the weights belong to. It may be the
        class of the module if that takes no arguments.
    key : str, default=None
        Entry of the file that holds the state dict, such as ``"model"`` in
        ``{"epoch": 3, "model": ..., "optimizer": ...}``. By default the file itself, or the one
        entry that fits the module exactly.
    prefix : str, default=None
        Beginning of the names to take off, as it stands in the file, dot included, such as
        ``"model."``; entries that do not begin with it are left out. By default, what all names
        begin with is taken off where the rest then fits the module exactly, in names and shapes:
        the ``module.`` of ``DistributedDataParallel`` and of ``AveragedModel``, the ``_orig_mod.``
        of ``torch.compile``, the attribute of a Lightning module.
    safe_globals : sequence of class or function, default=()
        What else than tensors and plain containers may be read from the file, as in
        :func:`torch.serialization.safe_globals`. The message for a file that needs it names them.
    forward : callable, default=None
        ``forward(module, inputs) -> Tensor`` as in :class:`WrappedModel`.
    class_axis : int, default=None
        Axis of the outputs that holds the classes, as in :class:`WrappedModel`: 1 for logits
        (n_samples, n_classes, height, width).

    See Also
    --------
    skgeo.WrappedModel : A module in memory with its own forward function.
    skgeo.training.read_run : A folder of checkpoints as a table.

    Notes
    -----
    The file is read onto the CPU with ``weights_only=True``, so opening it runs no code but that
    of `safe_globals`. Nothing is kept between loads. A Checkpoint can be pickled if `factory` and
    `forward` can.

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
        *,
        key: str | None = None,
        prefix: str | None = None,
        safe_globals: Sequence[Any] = (),
        forward: Callable[[nn.Module, Any], Tensor] | None = None,
        class_axis: int | None = None,
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
        check_class_axis("Checkpoint", class_axis)
        for name, value in (("key", key), ("prefix", prefix)):
            if value is not None and not isinstance(value, str):
                raise NotAModelError(
                    f"Checkpoint got {name}={value!r}; expected a string, such as "
                    f"{'model' if name == 'key' else 'model.'}."
                )
        if isinstance(safe_globals, str) or not isinstance(safe_globals, Sequence):
            raise NotAModelError(
                f"Checkpoint got safe_globals={safe_globals!r}; expected a list of classes or "
                f"functions that may be read."
            )
        self.path = path
        self.factory = factory
        self.key = key
        self.prefix = prefix
        self.safe_globals = tuple(safe_globals)
        self.forward = forward
        self.class_axis = class_axis

    def load(self) -> nn.Module:
        """Build the module and read its weights.

        Returns
        -------
        torch.nn.Module
            A new module in eval mode on the CPU.

        Raises
        ------
        SkgeoError
            If there is no such file, it is damaged, or it holds no state dict, or not exactly one,
            that fits the module.
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
        path = Path(self.path)
        stored = read_file(path, self.safe_globals)
        # The initial weights are overwritten, so their draw must not change the global generator.
        with _factory_lock, random_state_kept(torch.device("cpu")):
            module = self.factory()
        if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
            raise NotAModelError(
                f"The factory {function_name(self.factory)} of {self.path} returned "
                f"{type(module).__name__}; expected a torch.nn.Module."
            )
        state = fitting_state(stored, module, path, key=self.key, prefix=self.prefix)
        try:
            module.load_state_dict(state)
        except (RuntimeError, TypeError, ValueError) as error:
            raise SkgeoError(
                f"{path.absolute()} does not fit {type(module).__name__}: {error}"
            ) from error
        return module.eval()

    def __sklearn_clone__(self) -> Checkpoint:
        return self

    def __repr__(self) -> str:
        parts = [repr(str(self.path)), f"factory={function_name(self.factory)}"]
        parts += [f"key={self.key!r}"] if self.key is not None else []
        parts += [f"prefix={self.prefix!r}"] if self.prefix is not None else []
        parts += [f"forward={function_name(self.forward)}"] if self.forward is not None else []
        parts += [f"class_axis={self.class_axis}"] if self.class_axis is not None else []
        return f"Checkpoint({', '.join(parts)})"
