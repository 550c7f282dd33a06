"""Networks of the same function with hidden units permuted, scaled and sign-flipped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.exceptions import SkgeoError
from skgeo.network._activation import Activation, Scales, as_activation
from skgeo.network._stack import read_stack
from skgeo.symmetry._equivalence.layerwise import layer_blocks

# How far reversed units may be from annihilating, in roundings of the sum of their terms.
_ROUNDINGS = 32.0


def apply_symmetry(
    model: Any, *, permutation: Any = None, scales: Any = None, flips: Any = None
) -> nn.Module:
    r"""Network of other parameters that computes the same function.

    Unit j of a hidden layer of the new network is unit ``permutation[j]`` of the old one. Its
    incoming weights and bias are multiplied by ``flips[j] * scales[j]``, and its outgoing weights
    compensate:

    .. math::

        (w_j, b_j) \mapsto \epsilon_j a_j (w, b)_{\pi(j)},\qquad q_j \mapsto q_{\pi(j)} / a_j .

    An :class:`EquivalenceReport` `r` holds these arrays:
    ``apply_symmetry(a, permutation=r.permutation, scales=r.scales, flips=r.flips)`` is b.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        A chain of linear or convolutional layers with pointwise activations, or none, between
        them; only read.
    permutation : list, dict or array, default=None
        One array per hidden layer, or None for a layer that is left unchanged; or a dict from
        numbers of hidden layers (from 0) to arrays; or, with one hidden layer, the array itself.
        Entry j is the number of the old unit.
    scales : list, dict or array, default=None
        As `permutation`. Entries are positive under rectifiers, 1 or -1 under odd activations such
        as tanh, and nonzero without an activation. There an invertible matrix M is allowed too:
        (W, b) becomes M (W, b), and the next weights are multiplied by its inverse.
    flips : list, dict or array, default=None
        As `permutation`. Entries are 1 or -1. Under odd activations and without an activation the
        outgoing weights change sign too. Under rectifiers they do not, and the next bias is
        shifted.

    Returns
    -------
    torch.nn.Module
        A network of the same classes, dtype and device that shares no memory with `model`.

    Raises
    ------
    SkgeoError
        If the network is not such a chain, an array has the wrong shape or entries that the
        activation does not allow, or sign-flipped rectifiers do not annihilate: their
        :math:`\sum_i q_i w_i^\top` must be zero.

    See Also
    --------
    skgeo.symmetry.annihilating_sets : Units that can be sign-flipped together.
    skgeo.symmetry.equivalent : The symmetry between two networks.

    Notes
    -----
    Since relu(-z) = relu(z) - z, sign-flipped units differ from the original ones by
    :math:`\sum_i q_i (\langle w_i, x\rangle + b_i)`, which is constant only if the weights
    annihilate. The cost is one copy of the weights.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    >>> new = apply_symmetry(net, permutation=[1, 0], scales=[10.0, 0.1])
    >>> x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    >>> bool(torch.allclose(net(x), new(x), atol=1e-14)), torch.equal(net[0].bias, new[0].bias)
    (True, False)
    """
    stack = read_stack(model, convolutions=True)
    depth = len(stack.activations)
    weights, biases = transform_layers(
        stack.weights,
        stack.biases,
        stack.activations,
        permutation=per_layer(permutation, depth, "permutation"),
        scales=per_layer(scales, depth, "scales"),
        flips=per_layer(flips, depth, "flips"),
        precision=torch.finfo(stack.dtype).eps,
    )
    return stack.rebuild(weights, biases)


def transform_layers(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activations: Sequence[Activation | str],
    *,
    permutation: Sequence[Any],
    scales: Sequence[Any],
    flips: Sequence[Any],
    precision: float = torch.finfo(torch.float64).eps,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Weights and biases of a chain after a symmetry of its hidden units.

    weights, biases, activations: as in
        :func:`~skgeo.symmetry._equivalence.layerwise.canonical_layers`.
    permutation, scales, flips: one array or None per hidden layer, as in :func:`apply_symmetry`.
    precision: machine epsilon of the weights, for the test of annihilation.
    Returns weights and biases in float64, of the given shapes; a bias that was None stays None
        where it is zero.
    Raises SkgeoError as :func:`apply_symmetry`.
    """
    shapes = [weight.shape for weight in weights]
    blocks = layer_blocks(weights)
    shifts = [
        block.new_zeros(len(block)) if bias is None else bias.double()
        for block, bias in zip(blocks, biases, strict=True)
    ]
    for index, activation in enumerate(map(as_activation, activations)):
        group = activation.scales
        width = len(shifts[index])
        if permutation[index] is None and scales[index] is None and flips[index] is None:
            continue
        order = _order(permutation[index], width, index)
        turn = _signs(flips[index], width, index)
        scale = _scale(scales[index], group, width, index)
        kept = bool((scale == 1).all() and (turn == 1).all())
        if group == "unknown" and not (kept and torch.equal(order, torch.arange(width))):
            raise SkgeoError(
                f"Hidden layer {index} has the activation {activation}, with a slope of its own "
                "for each unit. Their symmetries are not supported: pass None for this layer."
            )
        if group == "none" and not kept:
            raise SkgeoError(
                f"Hidden layer {index} has the activation {activation}, whose units can be "
                "permuted, but not scaled or sign-flipped. Pass a permutation only."
            )
        flipped = turn < 0
        if group == "positive" and activation.slopes is not None and bool(flipped.any()):
            # phi(-z) = phi(z) - r z, where r is the sum of both slopes.
            reversal = sum(activation.slopes)
            units = order[flipped]
            _check_dense(shapes[index : index + 2], index)
            shift = _annihilated(
                blocks[index][units][:, :, 0],
                shifts[index][units],
                blocks[index + 1][:, units, 0],
                index,
                precision if reversal else math.inf,
            )
            shifts[index + 1] = shifts[index + 1] + reversal * shift
            back = torch.ones_like(turn)
        else:
            back = turn
        rows, following = blocks[index][order], blocks[index + 1][:, order]
        if scale.dim() == 2:
            matrix = turn[:, None] * scale
            blocks[index] = (matrix @ rows.flatten(1)).reshape(rows.shape)
            shifts[index] = matrix @ shifts[index][order]
            # The inverse of a single matrix, applied from the right.
            moved = torch.linalg.solve(matrix.T, following.movedim(1, 0).flatten(1))
            shape = (width, following.shape[0], following.shape[2])
            blocks[index + 1] = moved.reshape(shape).movedim(0, 1)
        else:
            blocks[index] = (turn * scale)[:, None, None] * rows
            shifts[index] = turn * scale * shifts[index][order]
            blocks[index + 1] = following * (back / scale)[None, :, None]
    return (
        [block.reshape(shape) for block, shape in zip(blocks, shapes, strict=True)],
        [
            None if old is None and not bool(new.any()) else new
            for old, new in zip(biases, shifts, strict=True)
        ],
    )


def per_layer(value: Any, depth: int, name: str) -> list[Any]:
    """One entry per hidden layer of an argument that may be a list, a dict, or a single array.

    name: name of the argument in messages.
    Returns arrays, and None for layers that are left unchanged.
    Raises SkgeoError if a layer does not exist, or the number of entries is wrong.
    """
    if value is None:
        return [None] * depth
    if isinstance(value, Mapping):
        unknown = [key for key in value if key not in range(depth)]
        if unknown:
            raise SkgeoError(
                f"{name} names the hidden layers {unknown}; this network has {depth}, numbered "
                "from 0."
            )
        return [value.get(index) for index in range(depth)]
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise SkgeoError(f"Got {name}={value!r}; expected an array for each hidden layer, or None.")
    entries = list(value)
    nested = any(entry is None or _axes(entry) > 0 for entry in entries)
    if depth == 1 and (not nested or (hasattr(value, "shape") and len(entries) > 1)):
        return [value]
    if not nested or len(entries) != depth:
        raise SkgeoError(
            f"{name} has {len(entries)} entries{'' if nested else ' that are numbers'}; expected "
            f"one array (or None) for each of the {depth} hidden layers, or a dict from layer "
            "numbers to arrays."
        )
    return entries


def _axes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.dim()
    if isinstance(value, (list, tuple)):
        return 1 + max((_axes(item) for item in value), default=0)
    return len(getattr(value, "shape", ()))


def _tensor(value: Any, name: str, index: int) -> Tensor:
    tensor = torch.as_tensor(value).detach().cpu().double()
    if not bool(torch.isfinite(tensor).all()):
        raise SkgeoError(
            f"The {name} of hidden layer {index} contain NaN or infinity; expected finite numbers."
        )
    return tensor


def _order(value: Any, width: int, index: int) -> Tensor:
    if value is None:
        return torch.arange(width)
    order = torch.as_tensor(value).detach().cpu()
    order = order.to(torch.int64) if order.shape == (0,) else order  # torch takes [] for floats
    if (
        order.is_floating_point()
        or order.shape != (width,)
        or not torch.equal(order.sort().values, torch.arange(width))
    ):
        raise SkgeoError(
            f"The permutation of hidden layer {index} has shape {tuple(order.shape)} and type "
            f"{order.dtype}; "
            f"expected {f'each of 0, ..., {width - 1} once' if width else 'an empty array'}."
        )
    return order


def _signs(value: Any, width: int, index: int) -> Tensor:
    if value is None:
        return torch.ones(width, dtype=torch.float64)
    signs = _tensor(value, "flips", index)
    if signs.shape != (width,) or not bool((signs.abs() == 1).all()):
        raise SkgeoError(
            f"The flips of hidden layer {index} have shape {tuple(signs.shape)} and values "
            f"{sorted(set(signs.flatten().tolist()))[:5]}; expected {width} numbers, each 1, or -1 "
            "for a sign-flipped unit."
        )
    return signs


def _scale(value: Any, group: Scales, width: int, index: int) -> Tensor:
    if value is None:
        return torch.ones(width, dtype=torch.float64)
    scale = _tensor(value, "scales", index)
    if group == "linear" and scale.shape == (width, width) and width > 1:
        if torch.linalg.matrix_rank(scale) < width:
            raise SkgeoError(
                f"The matrix for hidden layer {index} is not invertible; expected full rank."
            )
        return scale
    if scale.shape != (width,):
        raise SkgeoError(
            f"The scales of hidden layer {index} have shape {tuple(scale.shape)}; expected "
            f"({width},), one per unit"
            + (f", or an invertible ({width}, {width}) matrix." if group == "linear" else ".")
        )
    allowed = {
        "positive": (scale > 0, "greater than 0 under a rectifier"),
        "sign": (scale.abs() == 1, "that is 1 or -1 under an odd activation"),
        "linear": (scale != 0, "other than 0"),
    }
    if group in allowed:
        right, what = allowed[group]
        if not bool(right.all()):
            wrong = int(torch.nonzero(~right)[0, 0])
            raise SkgeoError(
                f"The scale of unit {wrong} in hidden layer {index} is {float(scale[wrong]):g}; "
                f"expected a number {what}."
            )
    return scale


def _check_dense(shapes: Sequence[torch.Size], index: int) -> None:
    if any(len(shape) != 2 for shape in shapes) or shapes[1][1] != shapes[0][0]:
        raise SkgeoError(
            f"Hidden layer {index} is a convolution or feeds one. Its units can be permuted and "
            "scaled; flips are supported between linear layers only."
        )


def _annihilated(
    weights: Tensor, biases: Tensor, outputs: Tensor, index: int, precision: float
) -> Tensor:
    """Shift of the next bias by sign-flipped units; SkgeoError if they do not annihilate."""
    left = torch.linalg.matrix_norm(outputs @ weights)
    norm = torch.linalg.vector_norm
    gross = (norm(outputs, dim=0) * norm(weights, dim=1)).sum()
    if left > _ROUNDINGS * precision * gross:
        raise SkgeoError(
            f"The {len(weights)} sign-flipped units of hidden layer {index} do not annihilate: the "
            f"norm of sum_i q_i w_i^T is {float(left):.3g}, {float(left / gross):.1e} relative to "
            "its terms; expected 0. Under ReLU only sets of units with this property can be "
            "reversed. See annihilating_sets."
        )
    return outputs @ biases
