"""Skorch nets as modules; their criterion determines the likelihood."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from skgeo.exceptions import NotAModelError


def is_skorch(obj: object) -> bool:
    """Whether `obj` is a skorch net, without importing skorch."""
    net = getattr(sys.modules.get("skorch"), "NeuralNet", None)
    return net is not None and isinstance(obj, net)


@dataclass(frozen=True)
class SkorchForward:
    """Natural outputs of a module, called as skorch calls it.

    link: function from the module's outputs to natural outputs: identity, log or logit.
    """

    link: str = "identity"

    def __call__(self, module: nn.Module, inputs: Any) -> Tensor:
        """Natural outputs, of the shape that the module gives them."""
        outputs = module(**inputs) if isinstance(inputs, Mapping) else module(inputs)
        if isinstance(outputs, tuple):
            outputs = outputs[0]
        if self.link == "log":
            # A probability that underflows has neither a finite logarithm nor a derivative.
            outputs = torch.log(outputs.clamp_min(torch.finfo(outputs.dtype).tiny))
        elif self.link == "logit":
            outputs = torch.logit(outputs, eps=torch.finfo(outputs.dtype).eps)
        return cast(Tensor, outputs)


def skorch_module(net: Any) -> tuple[nn.Module, SkorchForward, str | None]:
    """The module of a net itself, its forward function and its likelihood.

    The likelihood follows from the criterion, or is None. A `NeuralNetRegressor` is gaussian under
    any criterion but a Poisson one. With `NLLLoss`, a `NeuralNetClassifier` takes the outputs of
    its module as probabilities; natural outputs are their logarithms.

    net: initialised or fitted.
    Raises NotAModelError if the net has no ``module_`` or defines its own ``infer``.
    """
    import skorch

    name = type(net).__name__
    module = getattr(net, "module_", None)
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise NotAModelError(
            f"{name} holds no torch.nn.Module in `module_`; pass the module that computes its "
            f"outputs, or WrappedModel(module, forward=f)."
        )
    known = (skorch.NeuralNet.infer, skorch.NeuralNetBinaryClassifier.infer)
    if type(net).infer not in known:
        raise NotAModelError(
            f"{name} defines its own `infer`, which skgeo cannot follow; pass "
            f"WrappedModel(net.module_, forward=f) with f(module, inputs) doing the same."
        )
    criterion = getattr(net, "criterion_", None)
    criterion = getattr(criterion, "_orig_mod", criterion)
    if isinstance(criterion, nn.CrossEntropyLoss):
        return module, SkorchForward(), "categorical"
    if isinstance(criterion, nn.NLLLoss):
        probabilities = isinstance(net, skorch.NeuralNetClassifier)
        link = "log" if probabilities else "identity"
        return module, SkorchForward(link), "categorical"
    if isinstance(criterion, nn.BCEWithLogitsLoss):
        return module, SkorchForward(), "bernoulli"
    if isinstance(criterion, nn.BCELoss):
        return module, SkorchForward("logit"), "bernoulli"
    if isinstance(criterion, nn.PoissonNLLLoss):
        return module, SkorchForward("identity" if criterion.log_input else "log"), "poisson"
    if isinstance(criterion, nn.MSELoss) or isinstance(net, skorch.NeuralNetRegressor):
        return module, SkorchForward(), "gaussian"
    return module, SkorchForward(), None
