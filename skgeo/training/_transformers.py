"""A recorder in a training of transformers."""

from __future__ import annotations

from typing import Any

from skgeo.training._recorder import CheckpointRecorder


def transformers_callback(recorder: CheckpointRecorder) -> Any:
    """Callback of ``transformers.Trainer`` that records a network while it trains.

    Parameters
    ----------
    recorder : CheckpointRecorder
        Steps are the trainer's ``global_step``. The model is recorded before the first, after
        those of the schedule, and at the end.

    Returns
    -------
    transformers.TrainerCallback
        For ``Trainer(callbacks=[...])``.

    Raises
    ------
    ImportError
        If transformers is not installed.

    Examples
    --------
    >>> from skgeo.training import CheckpointRecorder, transformers_callback
    >>> callback = transformers_callback(CheckpointRecorder())  # doctest: +SKIP
    """
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise ImportError(
            "transformers_callback needs transformers; install it: python -m pip install "
            "transformers accelerate."
        ) from error

    class Recorded(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Records the model at the trainer's global steps."""

        def on_train_begin(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            recorder(state.global_step, model)

        def on_step_end(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            recorder(state.global_step, model)

        def on_train_end(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            recorder(state.global_step, model, always=True)

    return Recorded()
