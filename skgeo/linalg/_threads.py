"""One BLAS thread during a measurement."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import scipy.linalg  # noqa: F401  scipy has a BLAS of its own, which must be there to be found
import torch
from threadpoolctl import ThreadpoolController  # scikit-learn itself requires threadpoolctl

# Reentrant: inside it, the garbage collector may close a generator that leaves the block.
_lock = threading.RLock()
_inside = 0
_torch_threads = 1
_limits: Any = None
_depth = threading.local()
# Searched once, at import: the search holds the lock of the dynamic loader and needs the
# interpreter meanwhile, so it must not meet an import in another thread.
_libraries = ThreadpoolController()


def _restore_this_thread() -> None:
    """Give torch in this thread its number of threads back, and change no other thread's.

    ``torch.set_num_threads`` sets the number of the calling thread and that of torch's BLAS in all
    threads; OpenMP's own function sets the first alone.
    """
    found = [lib for lib in _libraries.lib_controllers if lib.user_api == "openmp"]
    home = Path(torch.__file__).parent
    bundled = [lib for lib in found if home in Path(lib.filepath).parents]
    for library in bundled or found:
        library.set_num_threads(_torch_threads)


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Run a block with one BLAS thread, and restore the setting afterwards.

    Sums are split between threads, so the last digits of a matrix product depend on their number.
    With one thread, a measurement gives the same digits alone and in a pool of workers, and workers
    do not oversubscribe the processor.

    The block may be nested and entered by several threads at once: each thread that leaves has its
    number of threads back, and the settings of the process are restored when the last one leaves.
    For BLAS libraries other than torch's, threadpoolctl lets one thread of a process change the
    setting, so a pool of workers should be started inside the block.
    """
    global _inside, _torch_threads, _limits
    depth = getattr(_depth, "value", 0)
    with _lock:
        _inside += 1
        if _inside == 1:
            _torch_threads = torch.get_num_threads()
            _limits = _libraries.limit(limits=1, user_api="blas")
        if depth == 0:
            torch.set_num_threads(1)
    _depth.value = depth + 1
    try:
        yield
    finally:
        _depth.value = depth
        with _lock:
            _inside -= 1
            if _inside == 0:
                torch.set_num_threads(_torch_threads)
                _limits.restore_original_limits()
                _limits = None
            elif depth == 0:
                _restore_this_thread()
