"""Checks for outputs and derivatives that are NaN or infinite."""

from __future__ import annotations

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError


def not_differentiable(what: str) -> SkgeoError:
    """Error for derivatives of `what` ("'a' with respect to 'b'") that are not finite."""
    return SkgeoError(
        f"Derivatives of {what} are NaN or infinite although the outputs are finite: the network "
        "is not differentiable there (for example a norm or a square root at zero). Add a small "
        "constant, or leave those samples out."
    )


def check_derivatives(derivatives: Tensor, what: str) -> None:
    """Raise SkgeoError if a derivative is NaN or infinite."""
    # A norm needs one pass and no memory, and keeps NaN.
    if derivatives.numel() and not bool(
        torch.isfinite(torch.linalg.vector_norm(derivatives, torch.inf))
    ):
        raise not_differentiable(what)


def check_metric(values: Tensor, family: str) -> None:
    """Raise SkgeoError if entries of a metric, such as its diagonal, overflow or are NaN."""
    if not bool(torch.isfinite(values).all()):
        raise SkgeoError(
            f"The Fisher metric under likelihood={family!r} is NaN or infinite, although outputs "
            "and derivatives are finite: it is too large for floating-point numbers, as for rates "
            "beyond exp(700). Rescale the outputs, or the data."
        )


def check_outputs(outputs: Tensor, start: int = 0) -> None:
    """Raise SkgeoError if outputs (b, ...) are NaN or infinite; `start` is the first sample."""
    bad = ~torch.isfinite(outputs.detach())
    if bad.any():
        samples = bad.reshape(len(bad), -1).any(1).nonzero().flatten().tolist()
        raise SkgeoError(
            f"The model's outputs are NaN or infinite for {len(samples)} of {len(bad)} samples "
            f"(first: sample {start + samples[0]}). Look for exploding weights, inputs outside the "
            "model's range, a division by zero or a logarithm of zero in the forward pass."
        )
