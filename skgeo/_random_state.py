"""States of the global random generators, read and restored by one thread at a time.

torch reads a generator's state under a lock of the generator and makes a Python object before it
releases the lock. The interpreter may then switch to another thread, and if that thread asks for
the same state, each waits for the other for ever. A lock of ours around torch's prevents this.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_one_at_a_time = threading.RLock()


def random_states(device: torch.device) -> list[Any]:
    """States of the global generators that a forward pass on this device may draw from."""
    with _one_at_a_time:
        states = [random.getstate(), np.random.get_state(False), torch.get_rng_state()]  # noqa: NPY002
        if device.type == "cuda":
            states.append(torch.cuda.get_rng_state(device))
    return states


def _restore(states: list[Any], device: torch.device) -> None:
    python, numpy, cpu, *cuda = states
    with _one_at_a_time:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        for state in cuda:
            torch.cuda.set_rng_state(state, device)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Restore the global generators on exit."""
    states = random_states(device)
    try:
        yield
    finally:
        _restore(states, device)
