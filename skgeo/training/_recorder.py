"""Copies of a network during its training."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from skgeo._random_state import random_state_kept
from skgeo.exceptions import SkgeoError
from skgeo.models import Checkpoint
from skgeo.models._kinds import unwrap
from skgeo.training._files import writable_folder, write_whole
from skgeo.training._manifest import Manifest, architecture, weights_digest
from skgeo.training._run import run_table
from skgeo.training._schedule import check_step, schedule


class CheckpointRecorder:
    """Record a network at some steps of its training.

    Call it in the training loop, ``recorder(step, module)``, after each step; it keeps the weights
    at the steps of its schedule. The training is not changed: nothing is drawn, and the module is
    only read.

    Parameters
    ----------
    path : str or path-like, default=None
        Folder for the weights, made if it does not exist. By default they are kept in memory.
    steps : "log", int, collection of int or callable, default="log"
        Steps to keep: ``"log"`` for 0, 1, 2, 5, 10, 20, 50, 100, ...; k for every k-th step,
        0 included; a list of steps; or a function ``steps(step) -> bool``.

    Attributes
    ----------
    steps_ : list of int
        Steps recorded so far.

    See Also
    --------
    skgeo.training.read_run : A run from files that something else wrote.
    skgeo.training.lightning_callback : The same in a Lightning training.
    skgeo.training.skorch_callback : The same in a skorch training.
    skgeo.training.transformers_callback : The same in a transformers training.

    Notes
    -----
    In a folder, each step is a file with a state dict, and ``manifest.json`` lists them with an
    identifier of the run and a digest of the network's names and shapes. Every file is written
    beside its place and moved there, so a training that is killed leaves whole files. A new
    recorder on the folder goes on with the run: a step that comes again is written again. It
    refuses a network of another architecture, and a training that begins again from other
    weights. Under ``torch.distributed``, the process of rank 0 records.

    Examples
    --------
    >>> import torch
    >>> from skgeo.training import CheckpointRecorder
    >>> net = torch.nn.Linear(3, 2)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> recorder = CheckpointRecorder()
    >>> _ = recorder(0, net)
    >>> for step in range(1, 31):
    ...     optimizer.zero_grad()
    ...     net(torch.ones(4, 3)).square().sum().backward()
    ...     optimizer.step()
    ...     _ = recorder(step, net)
    >>> recorder.run(torch.ones(4, 3))["step"].tolist()
    [0, 1, 2, 5, 10, 20]
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, steps: Any = "log") -> None:
        self.path = path
        self.steps = steps
        self._schedule = schedule(steps)
        self._folder: Path | None = None
        self._manifest = Manifest()
        self._states: dict[int, dict[str, Any]] = {}
        self._module: nn.Module | None = None
        self._last = -1
        if path is not None:
            self._folder = writable_folder("path", path)
            self._manifest = Manifest.read(self._folder)

    @property
    def steps_(self) -> list[int]:
        """Steps recorded so far, in order."""
        return sorted(self._states if self._folder is None else self._manifest.files)

    def __call__(self, step: int, module: nn.Module, *, always: bool = False) -> bool:
        """Record the module if its schedule has this step.

        Parameters
        ----------
        step : int
            Number of steps trained so far; 0 before the first.
        module : torch.nn.Module
            The network. A wrapper of ``torch.compile`` or of data parallelism is taken off.
        always : bool, default=False
            Record it whatever the schedule says, as at the end of a training.

        Returns
        -------
        bool
            Whether it was recorded.

        Raises
        ------
        SkgeoError
            If the step comes before the last one that this recorder saw, the network or the run
            is another than that of the folder, or nothing can be written.
        """
        step = check_step(step)
        if not isinstance(module, nn.Module):
            raise SkgeoError(
                f"The recorder got {type(module).__name__}; expected recorder(step, module) with a "
                "torch.nn.Module."
            )
        if step < self._last:
            raise SkgeoError(
                f"Step {step} comes after step {self._last}: another training needs a recorder of "
                "its own."
            )
        self._last = step
        if not (always or self._schedule(step)) or not _is_first_process():
            return False
        module = unwrap(module)
        self._module = module
        state = module.state_dict()
        self._manifest.check(step, architecture(state), functools.partial(weights_digest, state))
        if self._folder is None:
            self._states[step] = {name: _kept(value) for name, value in state.items()}
            return True
        name = f"step_{step:09d}.pt"
        on_cpu = {name: _on_cpu(value) for name, value in state.items()}
        write_whole(self._folder / name, functools.partial(torch.save, on_cpu))
        self._manifest.files[step] = name
        self._manifest.write(self._folder)
        return True

    def run(
        self, X: Any = None, y: Any = None, *, factory: Callable[[], nn.Module] | None = None
    ) -> pd.DataFrame:
        """The networks recorded so far, as a training run.

        Parameters
        ----------
        X : array, Tensor, dict, Dataset or DataLoader, default=None
            Data on which the networks are measured.
        y : array-like of shape (n_samples, ...), default=None
            Targets.
        factory : callable, default=None
            Builds the network. By default, copies of the module that was recorded last in this
            process.

        Returns
        -------
        pandas.DataFrame
            Columns ``step``, ``model``, ``X`` and, if given, ``y``. Models are
            :class:`skgeo.Checkpoint`, or modules if the weights are in memory.

        Raises
        ------
        SkgeoError
            If nothing was recorded, or there is no module to copy and no `factory`.
        """
        if not self.steps_:
            where = "" if self._folder is None else f" in {self._folder}"
            raise SkgeoError(
                f"No step was recorded{where}. Call recorder(step, module) in the training loop."
            )
        build = factory or self._copies()
        if self._folder is None:
            return run_table({s: _module(build, self._states[s]) for s in self.steps_}, X, y)
        files = self._manifest.files
        return run_table({s: Checkpoint(self._folder / files[s], build) for s in self.steps_}, X, y)

    def _copies(self) -> Callable[[], nn.Module]:
        if self._module is None:
            raise SkgeoError(
                f"No module was recorded in this process, only before, in {self._folder}: pass "
                "factory=, a function that builds it."
            )
        try:
            one = copy.deepcopy(self._module).cpu().eval()
        except Exception as error:  # whatever copying the user's module raises
            raise SkgeoError(
                f"{type(self._module).__name__} cannot be copied ({error}): pass factory=, a "
                "function that builds it."
            ) from error
        one.zero_grad(set_to_none=True)
        return functools.partial(copy.deepcopy, one)

    def __repr__(self) -> str:
        where = "" if self.path is None else f"{str(self.path)!r}, "
        return f"CheckpointRecorder({where}steps={self.steps!r})"


def _kept(value: Any) -> Any:
    return value.detach().cpu().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _module(build: Callable[[], nn.Module], state: dict[str, Any]) -> nn.Module:
    with random_state_kept(torch.device("cpu")):
        module = build()
    module.load_state_dict(state)
    return module.eval()


def _is_first_process() -> bool:
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return True
    return bool(distributed.get_rank() == 0)
