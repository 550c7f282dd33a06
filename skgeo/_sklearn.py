"""Private or experimental names of scikit-learn that the package uses.

The callbacks of scikit-learn 1.9 are experimental. Estimators work without them where they cannot
be imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

__all__ = ["HAS_CALLBACKS", "CallbackSupportMixin", "FitProgress", "with_callbacks"]

Method = TypeVar("Method", bound=Callable[..., Any])

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks

    HAS_CALLBACKS = True
except ImportError:
    HAS_CALLBACKS = False

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Replacement for scikit-learn's mixin that accepts no callbacks."""

        def set_callbacks(self, *callbacks: Any) -> Any:
            """Raise NotImplementedError if there are callbacks."""
            if callbacks:
                raise NotImplementedError(
                    "Callbacks need sklearn.callback, which this version of scikit-learn does not "
                    "have. Install scikit-learn 1.9 or later."
                )
            return self

    def _with_callbacks(method: Method) -> Method:
        return method


def with_callbacks(method: Method) -> Method:
    """Decorate ``fit`` as scikit-learn does if it has callbacks."""
    return cast(Method, _with_callbacks(method))


class FitProgress:
    """Reports the passes over the data in one ``fit`` to the estimator's callbacks."""

    def __init__(self, estimator: Any, X: Any, y: Any) -> None:
        self._estimator = estimator
        self._context = None
        if HAS_CALLBACKS:
            # The number of passes is not known yet.
            self._context = estimator._init_callback_context(max_subtasks=None)
            self._context.call_on_fit_task_begin(estimator=estimator, X=X, y=y)

    def __call__(self, passes: Sequence[Any]) -> Iterable[Any]:
        """Iterate over passes, each as a task."""
        return iter(passes) if self._context is None else self._tasks(passes)

    def _tasks(self, passes: Sequence[Any]) -> Iterator[Any]:
        assert self._context is not None
        for item in passes:
            task = self._context.subcontext(task_name="pass", max_subtasks=0)
            task.call_on_fit_task_begin(estimator=self._estimator)
            yield item
            task.call_on_fit_task_end(estimator=self._estimator)

    def end(self) -> None:
        """Report the end of the fit."""
        if self._context is not None:
            self._context.call_on_fit_task_end(estimator=self._estimator)
