"""One BLAS thread for the length of a measurement."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import ThreadpoolController  # scikit-learn itself requires threadpoolctl

_lock = threading.Lock()
_inside = 0
_torch_threads = 1
_limits: Any = None
_controller: tuple[int, ThreadpoolController] = (0, ThreadpoolController())


def _blas_libraries() -> ThreadpoolController:
    """The libraries in the process, looked up again once modules have been loaded since.

    The look-up takes milliseconds, which would show in the smallest measurements.
    """
    global _controller
    if _controller[0] != len(sys.modules):
        _controller = (len(sys.modules), ThreadpoolController())
    return _controller[1]


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Run a block with one BLAS thread, and restore the setting afterwards.

    Sums are split between threads, so that the last digits of a matrix product depend on their
    number. With one thread a measurement gives the same digits alone and inside a pool of
    workers, and workers do not oversubscribe the processor.

    The block may be nested and may be entered by several threads at once. The settings belong to
    the process, which gets them back when the last thread leaves. Of BLAS libraries other than
    torch's, threadpoolctl lets one thread of a process change the setting: a pool of workers
    should be started inside the block, not enter it on its own.
    """
    global _inside, _torch_threads, _limits
    with _lock:
        if _inside == 0:
            _torch_threads = torch.get_num_threads()
            _limits = _blas_libraries().limit(limits=1, user_api="blas")
            torch.set_num_threads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                torch.set_num_threads(_torch_threads)
                _limits.restore_original_limits()
                _limits = None
