"""One BLAS thread during a measurement."""

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
    """The BLAS libraries of the process, searched again only after further imports.

    Finding them takes milliseconds, which matters for small measurements.
    """
    global _controller
    if _controller[0] != len(sys.modules):
        _controller = (len(sys.modules), ThreadpoolController())
    return _controller[1]


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Run a block with one BLAS thread, and restore the setting afterwards.

    Sums are split between threads, so the last digits of a matrix product depend on their number.
    With one thread, a measurement gives the same digits alone and in a pool of workers, and workers
    do not oversubscribe the processor.

    The block may be nested and entered by several threads at once; the settings of the process are
    restored when the last thread leaves. For BLAS libraries other than torch's, threadpoolctl lets
    one thread of a process change the setting, so a pool of workers should be started inside the
    block.
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
