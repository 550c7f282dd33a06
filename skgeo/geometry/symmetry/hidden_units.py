"""All hidden units of a network: their classes, their responses, and the distance to a kink."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from skgeo.autodiff.replica import Replica
from skgeo.data import Inputs
from skgeo.exceptions import SkgeoError
from skgeo.geometry.symmetry.activations import KINKS, responds
from skgeo.geometry.symmetry.annihilating import AnnihilatingSets
from skgeo.geometry.symmetry.domains import Domain, read_domain
from skgeo.geometry.symmetry.generators.hidden import HiddenLayer, hidden_layers
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork
from skgeo.geometry.symmetry.units import (
    Interval,
    UnitClasses,
    box_interval,
    classify_units,
)
from skgeo.network.flow import FlowNode
from skgeo.network.stack import Stack, read_stack

__all__ = ["LayerClasses", "classify_network", "unit_responses"]

DomainName = Literal["box", "data"] | None


@dataclass(frozen=True, eq=False)
class LayerClasses:
    """Units of one hidden layer and their classes.

    Attributes
    ----------
    name : str
        Dotted name of the layer that makes the units.
    activation : str
    classes : UnitClasses
    """

    name: str
    activation: str
    classes: UnitClasses


def classify_network(
    network: SymmetryNetwork,
    *,
    domain: DomainName = None,
    tol: float = 1e-10,
    max_size: int = 4,
) -> list[LayerClasses]:
    """Classes of the hidden units of all layers that are covered, in the order in which they run.

    Parameters
    ----------
    network : SymmetryNetwork
    domain : {None, "box", "data"}, default=None
        Where a unit must be off, or on, to be called dead, or always on: nowhere by default, since
        on all of space no unit with incoming weights is; on the smallest box around the data; or
        on the data.
    tol, max_size
        As in :func:`~skgeo.geometry.symmetry.units.classify_units`.

    Returns
    -------
    list of LayerClasses
        Of layers with an activation whose units are read by linear layers, convolutions or
        BatchNorm alone. A BatchNorm before the activation is multiplied into the layer before it.

    Notes
    -----
    A box is followed through plain chains; in other architectures through the first layer only.
    """
    if domain not in (None, "box", "data"):
        raise SkgeoError(f"domain={domain!r}: expected None, 'box' or 'data'.")
    box = _read_box(network) if domain == "box" else None
    found = []
    for hidden in _layers(network):
        name, weights, biases = _incoming(hidden)
        interval: Interval | None = None
        if domain == "data":
            seen = network.seen[hidden.name].outputs
            interval = seen.low, seen.high
        elif domain == "box":
            interval = _box_interval(network, hidden, name, weights, biases, box)
        classes = classify_units(
            weights,
            biases,
            hidden.all_outgoing().cpu(),
            activation=hidden.activation,
            interval=interval,
            tol=tol,
            max_size=max_size,
        )
        if hidden.is_pooled:
            classes = _without_reversal(classes)
        found.append(LayerClasses(name, hidden.activation, classes))
    return found


def _layers(network: SymmetryNetwork) -> list[HiddenLayer]:
    return [
        hidden
        for hidden in hidden_layers(network)
        if hidden.activation != "identity" and hidden.node.kind in ("linear", "conv", "batchnorm")
    ]


def _incoming(hidden: HiddenLayer) -> tuple[str, Tensor, Tensor]:
    """Weights in rows and biases of a layer's units, with a BatchNorm multiplied in."""
    if hidden.node.kind != "batchnorm":
        return hidden.name, *_affine(hidden.layer)
    norm = hidden.layer
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().cpu()
    shift = norm.bias.detach().cpu() - gain * norm.running_mean.cpu()
    (before,) = hidden.network.flow.parents(hidden.node)
    if not _is_layer(hidden.network, before):
        return hidden.name, torch.diag(gain), shift
    weights, biases = _affine(hidden.network.flow.layer(before))
    return str(before.module), gain[:, None] * weights, gain * biases + shift


def _is_layer(network: SymmetryNetwork, node: FlowNode) -> bool:
    return node.kind in ("linear", "conv") and len(node.users) == 1 and network.calls(node) == 1


def _affine(layer: Any) -> tuple[Tensor, Tensor]:
    weights = layer.weight.detach().flatten(1).cpu()
    bias = layer.bias
    return weights, weights.new_zeros(len(weights)) if bias is None else bias.detach().cpu()


def _read_box(network: SymmetryNetwork) -> tuple[Stack, Domain] | None:
    try:
        stack = read_stack(network.flow.root, forward=network.forward)
    except SkgeoError:
        return None
    inputs = network.inputs
    if not isinstance(inputs, Tensor) or inputs[0].numel() != stack.widths[0]:
        return None
    return stack, read_domain(stack, "box", inputs.to("cpu", torch.float64))


def _box_interval(
    network: SymmetryNetwork,
    hidden: HiddenLayer,
    name: str,
    weights: Tensor,
    biases: Tensor,
    box: tuple[Stack, Domain] | None,
) -> Interval | None:
    if box is not None:
        stack, domain = box
        offsets = [
            torch.zeros(len(w), dtype=torch.float64) if b is None else b
            for w, b in zip(stack.weights, stack.biases, strict=True)
        ]
        here = domain.at(stack.weights, offsets, stack.names.index(name))
        return here.interval(weights, biases)
    node = hidden.node
    while node.kind in ("batchnorm", "linear", "flatten", "identity") and len(node.parents) == 1:
        if node.kind == "linear" and str(node.module) != name:
            return None
        (node,) = network.flow.parents(node)
    inputs = network.seen[name].inputs if name in network.seen else None
    if (
        node.kind != "input"
        or not node.known
        or inputs is None
        or weights.shape[1] != len(inputs.low)
    ):
        return None
    return box_interval(weights, biases, inputs.low, inputs.high)


def _without_reversal(classes: UnitClasses) -> UnitClasses:
    """A maximum over positions is not linear in a unit, so that sets of units do not reverse."""
    labels = tuple("generic" if name == "reversible" else name for name in classes.labels)
    gone = torch.tensor([name == "reversible" for name in classes.labels], dtype=torch.bool)
    return replace(
        classes,
        labels=labels,
        group=torch.where(gone, -1, classes.group),
        residual=torch.where(gone, torch.nan, classes.residual),
        reversible=AnnihilatingSets((), len(labels), True),
    )


def unit_responses(
    network: SymmetryNetwork, *, distances: bool = True
) -> tuple[Tensor, Tensor | None]:
    r"""Which hidden units respond at each sample, and the distance to the nearest kink of one.

    Within one linear region a unit's argument is affine in the input, so that the distance to the
    nearest place where the region ends is :math:`\min_i |a_i(x)| / \|\nabla a_i(x)\|`.

    Parameters
    ----------
    network : SymmetryNetwork
        On the samples in question.
    distances : bool, default=True

    Returns
    -------
    responses : Tensor of shape (N, n_units), bool
        Whether the derivative of the activation is not zero (smooth: above 1e-3), at any position
        of the sample. Units in the order of :func:`classify_network`.
    distance : Tensor of shape (N,) or None
        Exact for piecewise linear networks, to first order for others. NaN where no unit has a
        kink, or the inputs are not one floating tensor.
    """
    layers = _layers(network)
    responses, nearest = [], []
    copy = network.bound.replica
    for batch in network.batches():
        with torch.enable_grad():
            inputs = batch
            if distances and isinstance(batch, Tensor) and batch.is_floating_point():
                inputs = batch.detach().clone().requires_grad_(True)
            arguments, size = _arguments(copy, layers, inputs)
        parts = [torch.zeros((size, 0), dtype=torch.bool)]
        least = torch.full((size,), torch.inf, dtype=torch.float64)
        for hidden, values in zip(layers, arguments, strict=True):
            active = responds(hidden.activation, hidden.slope, values.detach())
            parts.append(active.any(-1).cpu())
            if distances and isinstance(inputs, Tensor) and inputs.requires_grad:
                least = torch.minimum(least, _distance(hidden, values, inputs))
        responses.append(torch.cat(parts, dim=1))
        nearest.append(torch.where(torch.isinf(least), torch.nan, least))
    return torch.cat(responses), torch.cat(nearest) if distances else None


def _arguments(
    copy: Replica, layers: list[HiddenLayer], inputs: Inputs
) -> tuple[list[Tensor], int]:
    """Arguments of the activations of each layer, (b, units, positions), and b."""
    found: dict[str, Tensor] = {}
    handles = []
    for hidden in layers:
        layer = copy.module.get_submodule(hidden.name) if hidden.name else copy.module
        axis = -1 if hidden.node.kind == "linear" else 1

        def note(_: Any, __: Any, out: Tensor, name: str = hidden.name, axis: int = axis) -> None:
            out = out.clone().movedim(axis, 1)  # an activation may overwrite its argument
            found[name] = out.reshape(*out.shape[:2], -1)

        handles.append(layer.register_forward_hook(note))
    outputs = copy(inputs)
    for handle in handles:
        handle.remove()
    return [found[hidden.name] for hidden in layers], len(outputs)


def _distance(hidden: HiddenLayer, values: Tensor, inputs: Tensor) -> Tensor:
    """Distance to the nearest kink of a unit of one layer, (b,)."""
    least = torch.full((len(inputs),), torch.inf, dtype=torch.float64)
    kinks = KINKS.get(hidden.activation)
    if kinks is None:
        return least
    first = _reads_inputs(hidden)
    for unit, arguments in enumerate(values.unbind(1)):
        for argument in arguments.unbind(1):
            if first:
                norms = torch.linalg.vector_norm(hidden.layer.weight[unit].detach())
                norms = norms.to(inputs.device).expand(len(inputs))
            else:
                (slopes,) = torch.autograd.grad(
                    argument.sum(), inputs, retain_graph=True, materialize_grads=True
                )
                norms = torch.linalg.vector_norm(slopes.flatten(1), dim=1)
            gaps = torch.stack([(argument.detach() - kink).abs() for kink in kinks]).amin(0)
            far = torch.where(norms > 0, gaps / norms.clamp(min=1e-300), torch.inf)
            least = torch.minimum(least, far.cpu())
    return least


def _reads_inputs(hidden: HiddenLayer) -> bool:
    """Whether a linear layer reads the inputs of the network themselves: no backward pass then."""
    if hidden.node.kind != "linear":
        return False
    (node,) = hidden.network.flow.parents(hidden.node)
    while node.kind in ("flatten", "identity") and len(node.parents) == 1:
        (node,) = hidden.network.flow.parents(node)
    return node.kind == "input" and node.known
