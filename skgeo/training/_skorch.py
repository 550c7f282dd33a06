"""A recorder in a skorch training."""

from __future__ import annotations

from typing import Any

from skgeo.training._recorder import CheckpointRecorder


def skorch_callback(recorder: CheckpointRecorder) -> Any:
    """Callback of skorch that records a net while it trains.

    Parameters
    ----------
    recorder : CheckpointRecorder
        Steps are batches. The module is recorded before the first, after those of the schedule,
        and at the end.

    Returns
    -------
    skorch.callbacks.Callback
        For ``NeuralNet(..., callbacks=[...])``. A second ``fit`` is another training and needs
        another recorder; ``partial_fit`` goes on.

    Raises
    ------
    ImportError
        If skorch is not installed.

    Examples
    --------
    >>> from skgeo.training import CheckpointRecorder, skorch_callback
    >>> callback = skorch_callback(CheckpointRecorder())  # doctest: +SKIP
    """
    try:
        from skorch.callbacks import Callback
    except ImportError as error:
        raise ImportError(
            "skorch_callback needs skorch; install it: python -m pip install 'skgeo[skorch]'."
        ) from error

    class Recorded(Callback):  # type: ignore[misc, unused-ignore]
        """Records the module of a net; the step is counted from ``initialize``."""

        def __init__(self, recorder: CheckpointRecorder) -> None:
            self.recorder = recorder

        def initialize(self) -> Any:
            self.step_ = 0
            return self

        def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
            self.recorder(self.step_, net.module_)

        def on_batch_end(
            self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any
        ) -> None:
            if training:
                self.step_ += 1
                self.recorder(self.step_, net.module_)

        def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
            self.recorder(self.step_, net.module_, always=True)

    return Recorded(recorder)
