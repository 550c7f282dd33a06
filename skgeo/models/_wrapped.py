"""A module together with the way to call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.exceptions import NotAModelError


class WrappedModel:
    r"""A module whose outputs are not simply ``module(X)``.

    For models that take keyword arguments, return a dataclass or a tuple, or keep categories on
    another axis than the last: `forward` turns inputs into one tensor of natural outputs. With
    it, parameters :math:`\theta` of `module` are mapped to :math:`z = f_\theta(x)`.

    Parameters
    ----------
    module : torch.nn.Module
        Holds the parameters. It is referred to, never copied.
    forward : callable, default=None
        ``forward(module, inputs) -> Tensor`` of shape (n_samples, ...). It must call the module
        that it is given, since measurements run on replicas. None stands for ``module(inputs)``.
    likelihood : str, default=None
        The distribution that the outputs parametrise, such as ``"categorical"``. None leaves
        the decision to the estimator.

    See Also
    --------
    Checkpoint : Weights on disk, loaded when they are needed.

    Notes
    -----
    :func:`sklearn.base.clone` hands the same object on; :func:`copy.deepcopy` copies the
    weights. It pickles when `forward` does: a function of a module does, a lambda does not.
    Integer inputs reach `forward` as integers.

    Examples
    --------
    >>> import torch
    >>> from skgeo.models import WrappedModel
    >>> def channels_last(module, images):
    ...     return module(images).movedim(1, -1)
    >>> conv = torch.nn.Conv2d(3, 10, kernel_size=1)
    >>> model = WrappedModel(conv, forward=channels_last, likelihood="categorical")
    >>> model
    WrappedModel(Conv2d, forward=channels_last, likelihood='categorical')
    >>> model(torch.zeros(5, 3, 8, 8)).shape
    torch.Size([5, 8, 8, 10])
    """

    def __init__(
        self,
        module: nn.Module,
        forward: Callable[[nn.Module, Any], Tensor] | None = None,
        likelihood: str | None = None,
    ) -> None:
        if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
            raise NotAModelError(
                f"WrappedModel got {type(module).__name__} as its module; expected a "
                f"torch.nn.Module. Scikit-learn and skorch models need no wrapper."
            )
        if forward is not None and not callable(forward):
            raise NotAModelError(
                f"WrappedModel got forward={forward!r}; expected a function "
                f"forward(module, inputs) that returns a tensor."
            )
        if likelihood is not None and not isinstance(likelihood, str):
            raise NotAModelError(
                f"WrappedModel got likelihood={likelihood!r}; expected a name such as "
                f"'categorical', or None."
            )
        self.module = module
        self.forward = forward
        self.likelihood = likelihood

    def __call__(self, inputs: Any) -> Tensor:
        """Outputs on `inputs`, as `forward` computes them."""
        return self.module(inputs) if self.forward is None else self.forward(self.module, inputs)

    def __sklearn_clone__(self) -> WrappedModel:
        return self

    def __repr__(self) -> str:
        parts = [type(self.module).__name__]
        if self.forward is not None:
            parts.append(f"forward={function_name(self.forward)}")
        if self.likelihood is not None:
            parts.append(f"likelihood={self.likelihood!r}")
        return f"WrappedModel({', '.join(parts)})"


def function_name(function: Any) -> str:
    """What a reader calls a function, a class, a partial or a callable object."""
    inner = getattr(function, "func", function)
    name = getattr(inner, "__name__", type(inner).__name__)
    return name if inner is function else f"partial({name})"
