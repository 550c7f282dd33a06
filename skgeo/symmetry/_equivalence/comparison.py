"""Certificates of equivalence for two chains, complete for one hidden layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from skgeo.network._stack import Stack
from skgeo.symmetry._equivalence.apply import transform_layers
from skgeo.symmetry._equivalence.canonical import stack_form
from skgeo.symmetry._equivalence.correspondence import match_forms, relative_distance
from skgeo.symmetry._equivalence.hinge_equivalence import compare_hinges
from skgeo.symmetry._equivalence.layerwise import LayerForm, layer_blocks
from skgeo.symmetry._equivalence.linear_maps import linear_maps
from skgeo.symmetry._equivalence.report import EquivalenceReport
from skgeo.symmetry._hidden_layer import one_hidden_of


def compare_stacks(a: Stack, b: Stack, tol: float) -> EquivalenceReport:
    """Compare two chains by their weights.

    a, b: with the same inputs and outputs.
    Returns "different", with a witness, only for at most one hidden layer of rectifiers;
        "undecided" for others without a certificate.
    """
    # Linear layers may differ in number, as where some have no activation between them.
    kernels = [[each for each in net.settings if each] for net in (a, b)]
    if len(kernels[0]) != len(kernels[1]):
        reason = f"the networks have {len(kernels[0])} and {len(kernels[1])} convolutions"
        return EquivalenceReport("undecided", reason, float("inf"), tol)
    if kernels[0] != kernels[1]:
        names = [name for name, kind in zip(a.names, a.kinds, strict=True) if kind == "conv"]
        pairs = zip(names, *kernels, strict=True)
        name, ours, theirs = next(each for each in pairs if each[1] != each[2])
        reason = f"the convolution {name!r} has the settings {ours} and {theirs}"
        return EquivalenceReport("undecided", reason, float("inf"), tol)
    networks = one_hidden_of(a), one_hidden_of(b)
    if networks[0] is not None and networks[1] is not None:
        found = compare_hinges(networks[0], networks[1], tol=tol)
        if found.verdict != "equivalent":
            return found
        if all(each.is_identity for each in (*a.activations, *b.activations)):
            return _linear_certificate(a, b, found, tol)
        if a.activations == b.activations and len(a.activations) == 1:
            return replace(found, bias_shift=_last_bias(b) - _last_bias(a))
        # With layers without an activation, or other slopes, units are not those of the chain.
        return replace(
            found,
            reason="equal jumps on all activation boundaries, linear parts and constants",
            matched="boundaries",
            permutation=None,
            scales=None,
            flips=None,
            bias_shift=None,
        )
    return _compare_layers(a, b, tol)


def _linear_certificate(
    a: Stack, b: Stack, found: EquivalenceReport, tol: float
) -> EquivalenceReport:
    """Equal products, with the matrices that map the hidden layers where there are any."""
    found = replace(
        found,
        reason="equal products of the matrices",
        matched="layers",
        permutation=None,
        scales=None,
        flips=None,
        bias_shift=None,
    )
    maps = linear_maps(a, b, tol)
    if maps is None:
        return found
    return replace(
        found,
        reason="invertible matrices map the hidden layers of one network to those of the other",
        residual=max(found.residual, maps[1]),
        scales=maps[0],
        permutation=tuple(torch.arange(width) for width in a.widths[1:-1]),
        flips=tuple(torch.ones(width, dtype=torch.int64) for width in a.widths[1:-1]),
        bias_shift=_last_bias(b) - _last_bias(a),
    )


def _compare_layers(a: Stack, b: Stack, tol: float) -> EquivalenceReport:
    # First with all units, since a certificate names a partner for each of them.
    for drop_off in (False, True):
        ours, theirs = (stack_form(stack, tol, drop_off=drop_off) for stack in (a, b))
        match = match_forms(ours, theirs, tol=tol)
        if match.layer is None:
            break
    if match.layer is not None:
        return EquivalenceReport("undecided", match.reason, match.residual, tol)
    found = EquivalenceReport(
        "equivalent",
        "normal forms agree layer by layer",
        match.residual,
        tol,
        "layers",
    )
    whole = ours.is_whole and theirs.is_whole
    if not whole or len(ours.layers) < len(a.activations) or a.widths != b.widths:
        return found
    permutation, scales, flips = _unit_maps(ours, theirs, match.partners, match.signs)
    residual = _residual(a, b, theirs, (permutation, scales, flips))
    if residual > tol:
        reason = f"after matching units, a differs from b by {residual:.1e}"
        return replace(found, verdict="undecided", reason=reason, residual=residual, matched=None)
    return replace(
        found,
        reason="permutations, scales and signs map the units of one network to those of the other",
        residual=residual,
        permutation=permutation,
        scales=scales,
        flips=flips,
        bias_shift=_last_bias(b) - _last_bias(a),
    )


def _unit_maps(
    a: LayerForm, b: LayerForm, partners: Sequence[Tensor], signs: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Permutation, scales and flips of the units of two chains, from the match of their forms."""
    permutation, scales, flips = [], [], []
    for index, (partner, sign) in enumerate(zip(partners, signs, strict=True)):
        ours, theirs = a.units[index][partner], b.units[index]
        ratio = sign * b.scales[index] / a.scales[index][partner]
        order = torch.empty_like(ours)
        order[theirs] = ours
        factor = torch.empty_like(ratio)
        factor[theirs] = ratio
        permutation.append(order)
        scales.append(factor.abs())
        flips.append(factor.sign().to(torch.int64))
    return tuple(permutation), tuple(scales), tuple(flips)


def _residual(a: Stack, b: Stack, form: LayerForm, maps: tuple[tuple[Tensor, ...], ...]) -> float:
    """Largest relative distance of a row of b from that of the transformed a.

    Columns are weighted by the scales of the units that they read, so the result does not depend
    on these scales, which are arbitrary.
    """
    permutation, scales, flips = maps
    weights, biases = transform_layers(
        a.weights,
        a.biases,
        a.activations,
        permutation=permutation,
        scales=scales,
        flips=flips,
    )
    found = []
    for index, (ours, theirs) in enumerate(
        zip(layer_blocks(weights), layer_blocks(b.weights), strict=True)
    ):
        size = theirs.new_ones(theirs.shape[1])
        if index:
            size[form.units[index - 1]] = form.scales[index - 1].abs()
        found.append(
            relative_distance(
                _rows(ours * size[None, :, None], biases[index]),
                _rows(theirs * size[None, :, None], b.biases[index]),
            )
        )
    return max(found)


def _rows(block: Tensor, bias: Tensor | None) -> Tensor:
    column = block.new_zeros(len(block)) if bias is None else bias
    return torch.cat([block.flatten(1), column[:, None]], dim=1)


def _last_bias(stack: Stack) -> Tensor:
    bias = stack.biases[-1]
    return stack.weights[-1].new_zeros(stack.widths[-1]) if bias is None else bias
