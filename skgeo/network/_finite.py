"""Outputs and derivatives that are not numbers, and what to tell the user about them."""

from __future__ import annotations

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError


def not_differentiable(what: str) -> SkgeoError:
    """The error for derivatives of `what` ("'a' with respect to 'b'") that are not numbers."""
    return SkgeoError(
        f"Derivatives of {what} are NaN or infinite although the outputs are finite: the network "
        "is not differentiable there (for example a norm or a square root at zero). Add a small "
        "constant, or leave those samples out."
    )


def check_derivatives(derivatives: Tensor, what: str) -> None:
    """Refuse derivatives that are NaN or infinite."""
    # A norm reads everything once and stores nothing; a NaN anywhere survives it.
    if derivatives.numel() and not bool(
        torch.isfinite(torch.linalg.vector_norm(derivatives, torch.inf))
    ):
        raise not_differentiable(what)


def check_outputs(outputs: Tensor, start: int = 0) -> None:
    """Refuse outputs (b, ...) that are NaN or infinite; `start` numbers the first sample."""
    bad = ~torch.isfinite(outputs.detach())
    if bad.any():
        samples = bad.reshape(len(bad), -1).any(1).nonzero().flatten().tolist()
        raise SkgeoError(
            f"The model's outputs are NaN or infinite for {len(samples)} of {len(bad)} samples "
            f"(first: sample {start + samples[0]}). Look for exploding weights, inputs outside the "
            "model's range, a division by zero or a logarithm of zero in the forward pass."
        )
