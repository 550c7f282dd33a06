"""Settings of torch for measurements, safe to change from several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from skgeo.exceptions import SkgeoError


class _SharedSwitch:
    """Process-wide setting that the first holder changes and the last one restores.

    torch keeps these settings in globals. If two threads save and restore them independently, the
    setting may stay changed; counting the holders prevents this.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        # Reentrant: inside it, the garbage collector may close a generator that holds the switch.
        self._lock = threading.RLock()
        self._holders = 0
        self._active: AbstractContextManager[object] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                self._active = self._make()
                self._active.__enter__()
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0 and self._active is not None:
                    self._active.__exit__(None, None, None)
                    self._active = None


@contextmanager
def _fast_path_off() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _fallback_warnings_off() -> Iterator[None]:
    # Private in torch, and its value cannot be read; ignored if it is ever renamed.
    switch = getattr(torch._C._functorch, "_set_vmap_fallback_warning_enabled", lambda _: None)
    switch(False)
    try:
        yield
    finally:
        switch(True)


_fast_path = _SharedSwitch(_fast_path_off)
_fallback_warnings = _SharedSwitch(_fallback_warnings_off)
_math = _SharedSwitch(lambda: sdpa_kernel(SDPBackend.MATH))


def no_fast_path() -> AbstractContextManager[None]:
    """Context in which attention layers do not use their fused inference path.

    In eval mode ``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer`` may compute a block in
    one kernel, which has no derivative and skips the hooks of the layers inside.
    """
    return _fast_path.held()


@contextmanager
def math_attention() -> Iterator[None]:
    """Context for derivatives, in which attention is computed from plain matrix products.

    The fused CPU kernels have no rule for ``torch.func`` transforms, forward-mode derivatives or
    second derivatives. The plain formula has all of them, but needs one (T, T) matrix per head.

    Raises SkgeoError for a backward pass that an operation in place prevents.
    """
    with _math.held():
        try:
            yield
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            raise SkgeoError(
                "The network has no derivatives: an operation in place overwrites a tensor that "
                "the backward pass of another needs, as ReLU(inplace=True) after x.amax(1) does. "
                f"Use inplace=False there. (torch: {str(error).split(';')[0]})"
            ) from error


def silent_vmap() -> AbstractContextManager[None]:
    """Context in which ``torch.func.vmap`` does not warn of operations without a batching rule.

    torch runs such operations, for example weight normalisation, in a loop.
    """
    return _fallback_warnings.held()


@contextmanager
def differentiating() -> Iterator[None]:
    """Context for derivatives of all kinds, whatever the mode of the caller.

    Raises SkgeoError as :func:`math_attention` does.
    """
    with ExitStack() as stack:
        for each in (torch.inference_mode(False), torch.enable_grad(), math_attention()):
            stack.enter_context(each)
        stack.enter_context(silent_vmap())
        yield
