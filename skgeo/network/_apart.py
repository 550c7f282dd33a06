"""Whether a network's outputs are a fixed function of each sample, judged on whole batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from skgeo._random_state import random_state_kept, random_states
from skgeo.exceptions import SkgeoError
from skgeo.network._agreement import agree
from skgeo.network._batch import Inputs, batch_size, pick

# Runs of a network that drew random numbers, of which none may differ: where each draw changes the
# outputs with probability 1/10, all would agree with probability 0.2 %.
_RUNS = 60


def check_apart(
    run: Callable[[Inputs], Tensor], inputs: Inputs, dtype: torch.dtype, device: torch.device
) -> None:
    """Refuse a forward pass that is random, or whose samples depend on each other.

    The batch is run again, in another order, and in part.

    run: forward pass without gradients.
    dtype: of the coarsest arithmetic in it, whose rounding is allowed for.
    Raises SkgeoError that says which of the two it is, and the usual causes.
    """
    with random_state_kept(device):
        before = random_states(device)
        first = run(inputs)
        runs = 1 if _same(before, random_states(device)) else _RUNS
        scale = float(first.abs().nan_to_num(0.0, 0.0, 0.0).max()) if first.numel() else 0.0

        def differs(found: Tensor, expected: Tensor) -> float:
            """Largest difference beyond rounding; 0 where there is none."""
            if found.shape != expected.shape:
                return float("inf")
            both = torch.isfinite(found) & torch.isfinite(expected)
            a, b = found[both].double(), expected[both].double()
            if not a.numel() or agree(a, b, dtype, scale, by_entry=True):
                return 0.0
            return float((a - b).abs().max())

        for _ in range(runs):
            difference = differs(run(inputs), first)
            if difference:
                raise SkgeoError(
                    "The outputs are random: one batch, run twice in eval mode, gives outputs "
                    f"that differ by {difference:.3g}. Usual causes are F.dropout(x) without "
                    "training=self.training, stochastic depth, and noise drawn in forward. Each "
                    "sample's outputs must be a fixed function of that sample: switch the draws "
                    "off in eval mode."
                )
        n = batch_size(inputs)
        if n == 1:
            return
        order = torch.from_numpy(np.random.default_rng(0).permutation(n)).to(device)
        order = order.flip(0) if bool((order == torch.arange(n, device=device)).all()) else order
        for part in (order, order[: (n + 1) // 2]):
            difference = differs(run(pick(inputs, part)), first[part])
            if difference:
                raise SkgeoError(
                    "Outputs of one sample depend on others: in another order, or in a smaller "
                    f"batch, the outputs of a sample differ by {difference:.3g}. Usual causes are "
                    "recurrent or attention layers that read (time, samples, features) where "
                    "samples come first (batch_first=True), normalisation over the batch, and "
                    "means or shifts along axis 0. Each sample's outputs must be a fixed function "
                    "of that sample."
                )


def _same(before: list[object], after: list[object]) -> bool:
    for one, other in zip(before, after, strict=True):
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            if not torch.equal(one, other):
                return False
        elif isinstance(one, dict) and isinstance(other, dict):
            if not _same(list(one.values()), list(other.values())):
                return False
        elif isinstance(one, np.ndarray):
            if not np.array_equal(one, other):  # type: ignore[arg-type]
                return False
        elif one != other:
            return False
    return True
