"""Two networks of one architecture, compared part by part.

Networks that are not plain chains contain chains: the hidden channels of a residual block, the
hidden units of a transformer's feed-forward part. Their units may be permuted, scaled and
sign-flipped as those of any chain. Attention heads are compared by their products. All other
weights must agree as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.data import Inputs, Samples
from skgeo.models import ResolvedModel
from skgeo.network._bound import BoundNetwork
from skgeo.network._flow import Flow, read_flow
from skgeo.network._hidden import HiddenUnits, hidden_units_of
from skgeo.network._ranges import measure_ranges
from skgeo.symmetry._equivalence.correspondence import match_forms, relative_distance
from skgeo.symmetry._equivalence.layerwise import canonical_layers
from skgeo.symmetry._equivalence.report import EquivalenceReport
from skgeo.symmetry._equivalence.same_code import IDLE, alike, different_setting, same_weights
from skgeo.symmetry._generators.attention import projections


def compare_parts(
    first: ResolvedModel, second: ResolvedModel, tol: float, X: Inputs | None = None
) -> EquivalenceReport:
    """Compare two networks that run the same code.

    X: a few samples, which tell on which axis layers act; without them, units of linear layers that
        a BatchNorm normalises must agree as they are.
    Returns "equivalent" if all parts agree up to the symmetries of inner chains and of attention
        heads; otherwise "undecided", with the first part that does not agree.

    Networks are compared in eval mode. That the order of attention heads does not matter (it does
    for a network that returns the weights of single heads) is left to a comparison of outputs.
    """
    a, b = first.module, second.module
    place = _different(first, second)
    if place is not None:
        reason = f"the modules differ in their classes, shapes or settings ({place})"
        return EquivalenceReport("undecided", reason, float("nan"), tol)
    if same_weights(a, b):
        reason = "the same code with the same weights"
        return EquivalenceReport("equivalent", reason, 0.0, tol, "layers")
    flow, other_flow = (read_flow(net.module, forward=net.forward) for net in (first, second))
    if flow.nodes != other_flow.nodes:
        reason = "the forward passes take different steps"
        return EquivalenceReport("undecided", reason, float("nan"), tol)
    axes = None if X is None else _axes(first, flow, X)
    ours, others = (inner_chains(each, axes) for each in (flow, other_flow))
    if [_names(chain) for chain in ours] != [_names(chain) for chain in others]:
        reason = "the modules differ in which of their weights are shared"
        return EquivalenceReport("undecided", reason, float("nan"), tol)
    residual = 0.0
    compared: set[str] = set()
    for chain, other in zip(ours, others, strict=True):
        match = match_forms(_chain_form(chain, tol), _chain_form(other, tol), tol=tol)
        residual = max(residual, match.residual)
        names = _names(chain)
        if match.layer is not None:
            reason = f"in the chain of {', '.join(names)} {match.reason}"
            return EquivalenceReport("undecided", reason, residual, tol)
        compared.update(names, (hidden.name for hidden in chain))
    for name in _attentions(flow):
        residual = max(residual, _attention_distance(a, b, name))
        compared.update((name, f"{name}.out_proj" if name else "out_proj"))
        if residual > tol:
            reason = f"products of the attention at {name!r} differ by {residual:.1e}"
            return EquivalenceReport("undecided", reason, residual, tol)
    theirs = dict(b.named_modules())
    for name, module in a.named_modules():
        if name in compared:
            continue
        for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or key == IDLE:
                continue
            residual = max(residual, _distance(tensor, getattr(theirs[name], key)))
            if residual > tol:
                where = f"{name}.{key}" if name else key
                reason = (
                    f"{where!r} differs by {residual:.1e}, and no symmetry is known that changes it"
                )
                if axes is None and any(h.flat_norms for h in hidden_units_of(flow)):
                    reason += (
                        "; whether a BatchNorm normalises units or positions depends on the shape "
                        "of the inputs, so pass X"
                    )
                return EquivalenceReport("undecided", reason, residual, tol)
    reason = "the same modules, equal up to symmetries of the chains and attention heads inside"
    return EquivalenceReport("equivalent", reason, residual, tol, "layers")


def is_copy(first: ResolvedModel, second: ResolvedModel) -> bool:
    """Whether two networks run the same code with the same weights."""
    return _different(first, second) is None and same_weights(first.module, second.module)


def _different(first: ResolvedModel, second: ResolvedModel) -> str | None:
    """Where the code or settings of two networks differ; None if they do not."""
    place = different_setting(first.module, second.module)
    pairs = {id(first.module): second.module}
    if place is None and not alike(first.forward, second.forward, pairs):
        return "the forward function"
    return place


def _axes(model: ResolvedModel, flow: Flow, X: Inputs) -> dict[str, int]:
    """Number of axes of the outputs of each affine layer on some samples."""
    bound = BoundNetwork(model, Samples(X), likelihood=None, parameters="all")
    _ = bound.first_run  # gives copies of what the forward pass writes to
    found = measure_ranges(bound.replica, flow, [bound.inputs()])
    return {name: layer.n_axes for name, layer in found.layers.items()}


def inner_chains(flow: Flow, axes: Mapping[str, int] | None = None) -> list[list[HiddenUnits]]:
    """Chains of consecutive hidden layers, each made and read by one layer.

    axes: number of axes of the outputs of each layer; None if not known.
    """
    axes = {} if axes is None else axes
    owners = Counter(
        id(parameter)
        for module in flow.root.modules()
        for parameter in module._parameters.values()
        if parameter is not None
    )
    links = {
        h.source: h
        for h in hidden_units_of(flow)
        if _is_link(h, owners) and all(axes.get(name) == 2 for name in h.flat_norms)
    }
    starts = set(links) - {_after(hidden) for hidden in links.values()}
    chains = []
    for start in links:
        if start in starts:
            chain = [links[start]]
            while _after(chain[-1]) in links:
                chain.append(links[_after(chain[-1])])
            chains.append(chain)
    return chains


def _after(hidden: HiddenUnits) -> str:
    return str(hidden.consumers[0].node.module)


def _names(chain: list[HiddenUnits]) -> list[str]:
    """Names of the affine layers of a chain, in order."""
    return [chain[0].source, *map(_after, chain)]


def _is_link(hidden: HiddenUnits, owners: Counter[int]) -> bool:
    """Whether units have the symmetries of those of a plain chain."""
    (consumer, *others), activation = hidden.consumers, hidden.activation
    made, read = hidden.makers[-1], consumer.node.kind
    maker = (hidden.normalised or hidden.node).kind
    if others or activation.is_identity or activation.scales == "unknown":
        return False
    if not {maker, read} <= {"linear", "conv"} or not hidden.node.known or not consumer.node.known:
        return False
    kinds = {step.kind for step in hidden.passed}
    # Pooling would mix the units of linear layers, and a maximum does not commute with a change of
    # sign.
    pools = "pool" in kinds and maker == "conv" and activation.scales == "positive"
    if not kinds <= {"identity", "flatten", *(["pool"] if pools else [])}:
        return False
    layers = [*hidden.makers, consumer.layer]
    if any(owners[id(p)] > 1 for m in layers for p in m._parameters.values() if p is not None):
        return False
    # Each unit is read by consecutive columns.
    alike = maker == read and len(made.weight) == consumer.layer.weight.shape[1]
    return alike or (maker == "conv" and read == "linear" and "flatten" in kinds)


def _chain_form(chain: list[HiddenUnits], tol: float) -> Any:
    weights, biases = [], []
    for hidden in chain:
        rows, shifts = hidden.incoming
        weights.append(rows.reshape(hidden.makers[-1].weight.shape))
        biases.append(shifts)
    last = chain[-1].consumers[0].layer
    weights.append(last.weight.detach().to("cpu", torch.float64))
    shift = weights[-1].new_zeros(len(last.weight)) if last.bias is None else last.bias
    biases.append(shift.detach().to("cpu", torch.float64))
    return canonical_layers(
        weights,
        biases,
        [hidden.activation for hidden in chain],
        # A constant unit adds a constant to what the next layer computes.
        foldable=[
            hidden.consumers[0].node.kind == "linear"
            and all(step.kind != "pool" for step in hidden.passed)
            for hidden in chain
        ],
        tol=tol,
    )


def _attentions(flow: Flow) -> list[str]:
    """Attention layers whose heads are determined by their products."""
    found = []
    for node in flow:
        if node.kind == "attention" and node.module is not None:
            if flow.is_read_outside(node.module):
                continue
            layer = flow.layer(node)
            # A key that is added to the data is not shifted by the key bias of the others.
            if getattr(layer, "bias_k", None) is None and not getattr(layer, "add_zero_attn", 0):
                found.append(node.module)
    return list(dict.fromkeys(found))


def _attention_distance(a: nn.Module, b: nn.Module, name: str) -> float:
    """Largest relative difference of two attention layers, with heads in any order."""
    ours, theirs = (_products(net.get_submodule(name)) for net in (a, b))
    heads = ours[0].shape[0]
    left, right = (torch.cat([p[0].flatten(1), p[1].flatten(1)], dim=1) for p in (ours, theirs))
    order = torch.cdist(right, left).argmin(dim=1)
    if len(torch.unique(order)) < heads:
        return float("inf")
    return max(
        *(
            relative_distance(x[order].flatten(1), y.flatten(1))
            for x, y in zip(ours[:2], theirs[:2], strict=True)
        ),
        relative_distance(ours[2][None], theirs[2][None]),
    )


def _products(layer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Per head [W_Q b_Q]^T W_K and W_O W_V, and the constant part of the outputs.

    A key bias adds the same number to all scores of a query, which softmax ignores. A value bias
    adds a constant to the outputs, since attention weights sum to 1.
    """
    found = projections(layer)
    width, heads = layer.embed_dim, layer.num_heads

    def cut(start: tuple[Tensor | None, int]) -> Tensor | None:
        tensor, first = start
        if tensor is None:
            return None
        return tensor.detach().cpu().double()[first : first + width]

    query, key, value = (cut(entry) for entry in found.weights)
    query_bias, _, value_bias = (cut(entry) for entry in found.biases)
    assert query is not None and key is not None and value is not None  # noqa: PT018
    out = layer.out_proj.weight.detach().cpu().double()
    if query_bias is not None:
        query = torch.cat([query, query_bias[:, None]], dim=1)
    constant = out.new_zeros(len(out)) if value_bias is None else out @ value_bias
    if layer.out_proj.bias is not None:
        constant = constant + layer.out_proj.bias.detach().cpu().double()
    per_head = [t.reshape(heads, -1, t.shape[1]) for t in (query, key, value)]
    scores = per_head[0].mT @ per_head[1]
    results = out.reshape(len(out), heads, -1).movedim(1, 0) @ per_head[2]
    return scores, results, constant


def _distance(a: Tensor, b: Tensor) -> float:
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    ours, theirs = (t.detach().cpu().double() for t in (a, b))
    if torch.equal(ours, theirs):
        return 0.0  # also for infinite entries of masks
    rows = (1, -1) if ours.dim() < 2 else (ours.shape[0], -1)
    return relative_distance(ours.reshape(rows), theirs.reshape(rows))
