"""Linear layers whose weight has its inputs first, such as ``Conv1D`` of transformers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from skgeo.jacobian._rules.linear import LinearRule
from skgeo.jacobian._rules.rule import LayerGradients


class TransposedLinearRule(LinearRule):
    """Rule of ``x @ weight + bias`` on the last axis, with a weight of shape (i, o)."""

    transposed = True

    def push(self, call: LayerGradients, vectors: Mapping[str, Tensor]) -> Tensor:
        return super().push(call, _turned(vectors))

    def pull(self, call: LayerGradients, weights: Tensor) -> dict[str, Tensor]:
        return _turned(super().pull(call, weights))


def _turned(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {local: part.mT if local == "weight" else part for local, part in parts.items()}
