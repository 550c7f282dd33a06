"""A recorder in a Lightning training."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

from skgeo.training._recorder import CheckpointRecorder


def _callback() -> Any:
    """Lightning's class of callbacks, under the name of either of its packages."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return importlib.import_module(name).Callback
        except ImportError:
            continue
    raise ImportError(
        "lightning_callback needs Lightning; install it: python -m pip install lightning."
    )


def lightning_callback(
    recorder: CheckpointRecorder, module: Callable[[Any], nn.Module] | None = None
) -> Any:
    """Callback of Lightning that records a network while it trains.

    Parameters
    ----------
    recorder : CheckpointRecorder
        Steps are the trainer's ``global_step``. The network is recorded before the first, after
        those of the schedule, and at the end.
    module : callable, default=None
        ``module(lightning_module) -> torch.nn.Module`` gives the network to record, such as
        ``lambda lightning_module: lightning_module.net``. By default the Lightning module.

    Returns
    -------
    lightning.pytorch.Callback
        For ``Trainer(callbacks=[...])``.

    Raises
    ------
    ImportError
        If neither ``lightning`` nor ``pytorch_lightning`` is installed.

    Examples
    --------
    >>> from skgeo.training import CheckpointRecorder, lightning_callback
    >>> callback = lightning_callback(CheckpointRecorder())  # doctest: +SKIP
    """
    base = _callback()

    def network(whole: Any) -> Any:
        return whole if module is None else module(whole)

    class Recorded(base):  # type: ignore[misc, valid-type]
        """Records the network at the trainer's global steps."""

        def __init__(self) -> None:
            self.last = -1

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.last = trainer.global_step
            recorder(self.last, network(pl_module))

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            # Where gradients are accumulated, several batches have one step.
            if trainer.global_step > self.last:
                self.last = trainer.global_step
                recorder(self.last, network(pl_module))

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            recorder(trainer.global_step, network(pl_module), always=True)

    return Recorded()
