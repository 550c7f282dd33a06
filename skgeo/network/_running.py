"""Batches of samples, devices, and the error message of a failing forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from skgeo._arguments import check_integer
from skgeo.exceptions import SkgeoError, raised, said
from skgeo.network._batch import Inputs


def check_batch_size(batch_size: Any) -> None:
    """Raise SkgeoError unless `batch_size` is a positive integer or None."""
    if batch_size is not None:
        check_integer("batch_size", batch_size, also="None")


def batch_ranges(n_samples: int, size: int) -> list[range]:
    """Split samples into batches of one size; the last may be shorter.

    >>> batch_ranges(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    starts = range(0, n_samples, size)
    return [range(start, min(start + size, n_samples)) for start in starts]


def check_device(device: Any) -> None:
    """Raise SkgeoError unless `device` is None or a device that is there."""
    if device is None:
        return
    try:
        torch.zeros((), device=device).item()  # the device "meta" holds no values
    except Exception as error:  # torch raises errors of many types
        raise SkgeoError(
            f"Got device={device!r}; expected None, 'cpu', or 'cuda' or 'cuda:i' where torch finds "
            f"such a device. {said(error)}"
        ) from error


@contextmanager
def running(inputs: Inputs, note: str = "") -> Iterator[None]:
    """Raise SkgeoError, with the shapes of the inputs, if a forward pass in the block fails.

    note: what else the message says.
    """
    try:
        yield
    except SkgeoError:
        raise
    except Exception as error:
        raise SkgeoError(
            f"The model cannot be run on this data. A batch of it is {_described(inputs)}. The "
            f"forward pass stops: {raised(error)}{note}"
        ) from error


def _described(inputs: Inputs) -> str:
    if isinstance(inputs, Tensor):
        return f"{tuple(inputs.shape)} of {inputs.dtype}"
    items = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
    return ", ".join(f"{name}: {tuple(t.shape)} of {t.dtype}" for name, t in items)
