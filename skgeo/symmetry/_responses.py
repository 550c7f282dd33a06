"""Responses of hidden units at each sample, and distances to the nearest kink."""

from __future__ import annotations

import torch
from torch import Tensor

from skgeo.data import Inputs
from skgeo.network._hidden import HiddenUnits
from skgeo.network._replica import Replica
from skgeo.symmetry._hidden_units import classified_layers
from skgeo.symmetry._network import SymmetryNetwork


def unit_responses(network: SymmetryNetwork) -> tuple[Tensor, Tensor]:
    r"""Whether units respond at any position (N, n_units), and distances to the nearest kink (N,).

    Units are in the order of ``classify_network``. Within a linear region the argument a_i of a
    unit is affine in the input, so the distance to the boundary of the region is
    :math:`\min |a_i(x) - t| / \|\nabla a_i(x)\|` over units and kinks t. This is exact for
    piecewise linear networks and first-order for others. NaN if no unit has a kink, or the inputs
    are not a single floating tensor.
    """
    layers = classified_layers(network)
    bound = network.bound
    responses, nearest = [], []
    # Twice the outputs of leaf modules, since the backward pass needs as much memory again.
    for samples in bound.batches(2 * 8 * bound.first_run.n_activations):
        inputs = bound.inputs(samples)
        far = torch.full((len(samples),), torch.inf, dtype=torch.float64)
        active = [torch.zeros((len(samples), 0), dtype=torch.bool)]
        with torch.enable_grad():
            if isinstance(inputs, Tensor) and inputs.is_floating_point():
                inputs = inputs.detach().clone().requires_grad_(True)
            for hidden, values in zip(
                layers, _arguments(bound.replica, layers, inputs), strict=True
            ):
                active.append(hidden.activation.responds(values.detach()).any(-1).cpu())
                if isinstance(inputs, Tensor) and inputs.requires_grad:
                    far = torch.minimum(far, _distance(hidden, values, inputs))
        responses.append(torch.cat(active, dim=1))
        nearest.append(torch.where(torch.isinf(far), torch.nan, far))
    return torch.cat(responses), torch.cat(nearest)


def _arguments(replica: Replica, layers: list[HiddenUnits], inputs: Inputs) -> list[Tensor]:
    """Arguments of the activations of each layer, (b, units, positions)."""
    found: dict[str, Tensor] = {}
    handles = []
    for hidden in layers:
        layer = replica.module.get_submodule(hidden.name)
        axis = -1 if hidden.node.kind == "linear" else 1

        def note(
            _: object, __: object, out: Tensor, name: str = hidden.name, axis: int = axis
        ) -> None:
            out = out.clone().movedim(axis, 1)  # an activation may overwrite its argument
            found[name] = out.reshape(*out.shape[:2], -1)

        handles.append(layer.register_forward_hook(note))
    try:
        replica(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [found[hidden.name] for hidden in layers]


def _distance(hidden: HiddenUnits, values: Tensor, inputs: Tensor) -> Tensor:
    """Distance to the nearest kink of any unit of one layer, (b,)."""
    least = torch.full((len(inputs),), torch.inf, dtype=torch.float64)
    if not hidden.activation.kinks:
        return least
    kinks = values.new_tensor(hidden.activation.kinks)
    gaps = (values.detach()[..., None] - kinks).abs().amin(-1)  # (b, units, positions)
    lengths = torch.linalg.vector_norm(hidden.incoming[0], dim=1).to(values)
    first = _reads_inputs(hidden)
    for unit, arguments in enumerate(values.unbind(1)):
        for position, argument in enumerate(arguments.unbind(1)):
            norms = lengths[unit].expand(len(inputs))
            if not first:
                (slopes,) = torch.autograd.grad(
                    argument.sum(), inputs, retain_graph=True, materialize_grads=True
                )
                norms = torch.linalg.vector_norm(slopes.flatten(1), dim=1)
            far = torch.where(norms > 0, gaps[:, unit, position] / norms, torch.inf)
            least = torch.minimum(least, far.cpu())
    return least


def _reads_inputs(hidden: HiddenUnits) -> bool:
    """Whether a linear layer reads the inputs of the network, so gradients are its weights."""
    (node,) = hidden.flow.parents(hidden.node)
    while node.kind in ("flatten", "identity") and len(node.parents) == 1:
        (node,) = hidden.flow.parents(node)
    return hidden.node.kind == "linear" and node.kind == "input" and node.known
