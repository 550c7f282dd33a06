"""Two networks of one architecture, compared part by part.

Networks that are no plain chains still have chains inside: the hidden channels of a residual block,
the hidden units of a transformer's feed-forward part. Units of these may be permuted, scaled and
signed as those of any chain, attention heads by the linear groups that their products leave free;
everything else has to agree as it stands.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType

import torch
from torch import Tensor, nn

from skgeo.geometry.symmetry.correspondence import match_forms, relative_distance
from skgeo.geometry.symmetry.generators.attention import projections
from skgeo.geometry.symmetry.layerwise import canonical_layers
from skgeo.geometry.symmetry.report import EquivalenceReport
from skgeo.network.activation import Activation
from skgeo.network.flow import Flow, FlowNode, read_flow

__all__ = ["compare_parts", "inner_chains"]

# Counters that do nothing in eval mode.
_IDLE = "num_batches_tracked"


@dataclass(frozen=True)
class Link:
    """A hidden layer inside a network.

    Attributes
    ----------
    before, after : str
        Modules that make its units and that read them.
    activation : Activation
    batchnorm : str or None
        Module between the first and the activation.
    foldable : bool
        Whether a constant unit adds a constant to what the second computes.
    """

    before: str
    after: str
    activation: Activation
    batchnorm: str | None
    foldable: bool


def compare_parts(a: nn.Module, b: nn.Module, tol: float) -> EquivalenceReport:
    """Compare two networks that run the same code.

    Parameters
    ----------
    a, b : torch.nn.Module
        Of any architecture.
    tol : float

    Returns
    -------
    EquivalenceReport
        "equivalent" if all parts agree up to symmetries of chains and of attention heads inside;
        otherwise "undecided", with the first part that does not agree.

    Notes
    -----
    In eval mode. Heads of one attention layer may come in another order, which changes the
    function of a network that returns the attention weights of single heads, and a BatchNorm after
    a linear layer is taken to normalise its units, as it does for inputs of two axes. Outputs on
    data tell where this is otherwise.
    """
    if not _same_code(a, b):
        reason = "the modules differ in their classes, shapes or settings"
        return EquivalenceReport("undecided", reason, float("nan"), tol)
    flow = read_flow(a)
    chains = inner_chains(flow)
    residual = 0.0
    compared: set[str] = set()
    for chain in chains:
        forms = [_chain_form(net, chain, tol) for net in (a, b)]
        match = match_forms(forms[0], forms[1], tol=tol)
        residual = max(residual, match.residual)
        names = [chain[0].before, *(link.after for link in chain)]
        if match.layer is not None:
            reason = f"in the chain of {', '.join(names)} {match.reason}"
            return EquivalenceReport("undecided", reason, residual, tol)
        compared.update(names, (link.batchnorm for link in chain if link.batchnorm))
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
            other = getattr(theirs[name], key)
            if tensor is None or key == _IDLE:
                continue
            residual = max(residual, _distance(tensor, other))
            if residual > tol:
                where = f"{name}.{key}" if name else key
                reason = f"{where!r} differs by {residual:.1e}, beyond what is known to be free"
                return EquivalenceReport("undecided", reason, residual, tol)
    reason = "the same modules, equal up to symmetries of the chains and attention heads inside"
    return EquivalenceReport("equivalent", reason, residual, tol, "layers")


def _same_code(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks differ in the values of their weights and buffers at most."""
    ours, theirs = dict(a.named_modules()), dict(b.named_modules())
    if any(m._forward_hooks or m._forward_pre_hooks for m in (*a.modules(), *b.modules())):
        return False
    return ours.keys() == theirs.keys() and all(
        _settings(ours[name]) == _settings(theirs[name]) for name in ours
    )


def _settings(module: nn.Module) -> list[Any]:
    """Class, attributes and shapes of one module."""
    found: list[Any] = [type(module)]
    for key, value in sorted(vars(module).items()):
        if key in ("_parameters", "_buffers"):
            shapes = {k: None if t is None else (t.shape, t.dtype) for k, t in value.items()}
            found.append((key, shapes))
        elif key == "_modules" or key == "training" or (key.startswith("_") and not value):
            continue  # children are looked at by themselves
        else:
            found.append((key, _plain(value)))
    return found


def _plain(value: Any) -> Any:
    """A value to compare: what is no plain data counts by identity."""
    if isinstance(value, (bool, int, float, str, type(None), torch.dtype)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return value
    # Parameters are compared where they are registered; recurrent layers keep lists of them.
    return type(value) if isinstance(value, (nn.Parameter, ReferenceType)) else id(value)


def inner_chains(flow: Flow) -> list[list[Link]]:
    """Chains of layers inside a network whose hidden units nothing else reads.

    Parameters
    ----------
    flow : Flow

    Returns
    -------
    list of list of Link
        Each chain as its hidden layers in a row.
    """
    owners = Counter(
        id(parameter)
        for module in flow.root.modules()
        for parameter in module._parameters.values()
        if parameter is not None
    )
    links = {}
    for node in flow:
        link = _link(flow, node, owners) if _is_layer(flow, node, owners) else None
        if link is not None:
            links[link.before] = link
    starts = set(links) - {link.after for link in links.values()}
    chains = []
    for start in links:
        if start in starts:
            chain = [links[start]]
            while chain[-1].after in links:
                chain.append(links[chain[-1].after])
            chains.append(chain)
    return chains


def _is_layer(flow: Flow, node: FlowNode, owners: Counter[int]) -> bool:
    """Whether a step is a layer of units that is called once and shares no weight."""
    if node.kind not in ("linear", "conv", "batchnorm") or not node.known or node.module is None:
        return False
    layer = flow.layer(node)
    alone = all(owners[id(p)] == 1 for p in layer._parameters.values() if p is not None)
    return alone and flow.calls(node.module) == 1 and getattr(layer, "groups", 1) == 1


def _link(flow: Flow, node: FlowNode, owners: Counter[int]) -> Link | None:
    """The hidden layer that starts at a step, if what follows is understood."""
    if node.kind == "batchnorm":
        return None
    first, batchnorm, activation = node, None, None
    flat = pooled = False
    while True:
        users = flow.users(node)
        if len(users) != 1 or len(users[0].parents) != 1 or not users[0].known:
            return None
        node = users[0]
        if node.kind == "batchnorm" and activation is None and batchnorm is None:
            if not _is_layer(flow, node, owners):
                return None
            batchnorm = node
        elif node.activation is not None and activation is None:
            if node.activation.scales == "unknown":
                return None
            activation = node.activation
        elif node.kind == "pool" and activation is not None:
            # Of linear layers pooling would mix the units; and the largest of some values is not
            # that of their negatives.
            if first.kind != "conv" or activation.scales != "positive":
                return None
            pooled = True
        elif node.kind == "flatten":
            flat = True
        elif node.kind != "identity":
            break
    if activation is None or node.kind not in ("linear", "conv"):
        return None
    if not _is_layer(flow, node, owners) or not _fits(flow, first, node, flat):
        return None
    assert first.module is not None
    assert node.module is not None
    return Link(
        first.module,
        node.module,
        activation,
        None if batchnorm is None else batchnorm.module,
        node.kind == "linear" and not pooled,
    )


def _fits(flow: Flow, first: FlowNode, last: FlowNode, flat: bool) -> bool:
    """Whether each unit of one layer is a run of input columns of another."""
    made, read = (flow.layer(node).weight for node in (first, last))
    assert isinstance(made, Tensor)
    assert isinstance(read, Tensor)
    if first.kind == last.kind:
        return made.shape[0] == read.shape[1]
    return first.kind == "conv" and flat and read.shape[1] % made.shape[0] == 0


def _chain_form(net: nn.Module, chain: list[Link], tol: float) -> Any:
    weights, biases = [], []
    for name, batchnorm in [
        *((link.before, link.batchnorm) for link in chain),
        (chain[-1].after, None),
    ]:
        layer: Any = net.get_submodule(name)
        weight = layer.weight.detach().to("cpu", torch.float64)
        bias = layer.bias
        shift = weight.new_zeros(len(weight)) if bias is None else bias.detach().cpu().double()
        if batchnorm is not None:
            weight, shift = _folded(net.get_submodule(batchnorm), weight, shift)
        weights.append(weight)
        biases.append(shift)
    return canonical_layers(
        weights,
        biases,
        [link.activation for link in chain],
        foldable=[link.foldable for link in chain],
        tol=tol,
    )


def _folded(norm: Any, weight: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """A layer and the BatchNorm after it as one layer, in eval mode."""
    mean, variance = (t.detach().cpu().double() for t in (norm.running_mean, norm.running_var))
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().cpu().double()
    shift = (shift - mean) * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().cpu().double()
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), shift


def _attentions(flow: Flow) -> list[str]:
    """Attention layers whose heads are known by their products."""
    found = []
    for node in flow:
        if node.kind == "attention" and node.module is not None:
            layer = flow.layer(node)
            # Keys that are added to the data meet the bias of the others.
            if getattr(layer, "bias_k", None) is None and not getattr(layer, "add_zero_attn", 0):
                found.append(node.module)
    return list(dict.fromkeys(found))


def _attention_distance(a: nn.Module, b: nn.Module, name: str) -> float:
    """Largest relative difference of two attention layers, heads in any order."""
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

    A bias of the keys adds one number to all scores of a query, which softmax ignores; one of the
    values comes out as it is, since attention weights sum to 1.
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
        return 0.0  # infinite entries of masks among them
    rows = (1, -1) if ours.dim() < 2 else (ours.shape[0], -1)
    return relative_distance(ours.reshape(rows), theirs.reshape(rows))
