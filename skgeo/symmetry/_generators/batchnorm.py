"""BatchNorm in eval mode: two affine maps per channel, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from skgeo.symmetry._generators.candidate import Candidate, Change
from skgeo.symmetry._network import SymmetryNetwork


def batchnorm(network: SymmetryNetwork) -> Iterator[Candidate]:
    r"""Scale and shift of each channel before the normalisation, compensated after it.

    The directions are ``(w, b - mu; gamma: -gamma)`` and
    ``(b: 1; beta: -gamma / sqrt(var + eps))``. If the layer before has no bias, the first becomes
    ``(w; gamma: -gamma; beta: -gamma mu / sqrt(var + eps))``, and there is no second.
    """
    for node, norm in network.layers("batchnorm"):
        (before,) = network.flow.parents(node)[:1]
        if before.kind not in ("linear", "conv") or not network.flow.is_single(before):
            continue
        if len(before.users) != 1 or norm.weight is None:
            continue
        layer: Any = network.flow.layer(before)
        weight, bias = layer.weight, layer.bias
        roots = (norm.running_var + norm.eps).sqrt()
        for unit in range(norm.num_features):
            gamma, mean, root = norm.weight[unit], norm.running_mean[unit], roots[unit]
            change = Change(network).add(weight, unit, weight[unit])
            change.add(norm.weight, unit, -gamma)
            if bias is None:
                change.add(norm.bias, unit, -gamma * mean / root)
            else:
                change.add(bias, unit, bias[unit] - mean)
            yield from change.candidate("batchnorm", before.module, [unit])
            if bias is not None:
                change = Change(network).add(bias, unit, 1.0)
                change.add(norm.bias, unit, -gamma / root)
                yield from change.candidate("batchnorm", before.module, [unit])
