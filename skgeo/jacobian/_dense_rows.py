"""Dense rows of the Jacobian with respect to the parameters, sample by sample."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.func import vjp, vmap

from skgeo.exceptions import SkgeoError
from skgeo.network._agreement import agree
from skgeo.network._batch import Inputs, batch_size, map_inputs, plain, take
from skgeo.network._finite import check_outputs, not_differentiable
from skgeo.network._noise import with_noise
from skgeo.network._replica import Replica
from skgeo.network._switches import differentiating

# Samples, outputs, their values and their Jacobian rows, for one piece of the work.
_Piece = tuple[slice, slice, Tensor, dict[str, Tensor]]


def output_jacobian(
    replica: Replica,
    inputs: Inputs,
    *,
    path: str = "auto",
    max_bytes: int = 2**25,
    directions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Outputs z of shape (b, \*out_shape) and their Jacobian J of shape (b, M, P).

    directions: (b, m, M), of which the derivatives are taken instead of the M outputs: (b, m, P).

    Implements :meth:`~skgeo.jacobian.ParameterJacobian.rows`. Each sample keeps a batch axis of
    length one, which layers such as ``nn.Flatten`` expect. The result is checked against one
    forward and one backward pass of the whole batch.
    """
    if path not in ("auto", "vmap", "loop"):
        raise SkgeoError(f"Got path={path!r}; expected 'auto', 'vmap' or 'loop'.")
    size = batch_size(inputs)
    if size == 0:
        raise SkgeoError("The batch has no samples; expected at least one.")
    with differentiating():
        inputs = map_inputs(plain, inputs)
        together, check = _outputs_together(replica, inputs, directions)
        if path != "loop":
            try:
                jacobian = _assemble(replica, together, check, _vmap_pieces, inputs, max_bytes)
                return together, jacobian
            except SkgeoError:
                raise
            except Exception as error:
                if path == "vmap":
                    raise SkgeoError(
                        f"The forward pass cannot run under torch.func.vmap: {error} "
                        "Use path='loop' or path='auto'."
                    ) from error
        try:
            return together, _assemble(replica, together, check, _loop_pieces, inputs, max_bytes)
        except _DisagreementError as error:
            raise SkgeoError(
                f"The Jacobian cannot be trusted: {error} Outputs of one sample must not depend on "
                "others, and custom backward passes must treat each sample separately."
            ) from error


@dataclasses.dataclass
class _Check:
    """A plain backward pass of the whole batch, which the Jacobian is compared with.

    Rules of ``torch.func`` may be wrong, and samples may be coupled without an effect on their
    outputs; either would give a wrong Jacobian without an error.
    """

    cotangent: Tensor
    expected: dict[str, Tensor]
    dtype: torch.dtype
    directions: Tensor | None
    again: Callable[[], dict[str, Tensor]]

    @property
    def count(self) -> int:
        """Rows per sample."""
        return self.cotangent.shape[1]

    def compare(self, found: dict[str, Tensor], norm: float) -> None:
        """Raise RuntimeError if J^T v differs by more than rounding.

        The scale of rounding is |J|, or where terms cancel, as behind a normalisation, what errors
        of the arithmetic change.
        """
        noisy: dict[str, Tensor] | None = None
        for name, expected in self.expected.items():
            if not agree(found[name], expected, self.dtype, norm):
                noisy = with_noise(self.again) if noisy is None else noisy
                difference = float(torch.linalg.vector_norm(found[name] - expected))
                if name in noisy and difference <= float((noisy[name] - expected).norm()):
                    continue
                raise _DisagreementError(
                    f"derivatives with respect to {name!r} of samples one by one and of the whole "
                    f"batch differ by {difference:.3g}."
                )


class _DisagreementError(RuntimeError):
    pass


def _outputs_together(
    replica: Replica, inputs: Inputs, directions: Tensor | None
) -> tuple[Tensor, _Check]:
    outputs = replica(inputs)
    check_outputs(outputs)
    replica.check_reached(outputs)
    generator = torch.Generator().manual_seed(0)  # the same signs on every device
    flat = outputs.detach().reshape(len(outputs), -1)
    shape = flat.shape if directions is None else directions.shape[:2]
    signs = (2 * torch.randint(0, 2, shape, generator=generator) - 1).to(outputs)
    mixed = signs if directions is None else torch.einsum("bm,bmk->bk", signs, directions)
    chosen = {name: replica.parameters[name] for name in replica.selected}
    mixed = mixed.reshape(outputs.shape)

    def again() -> dict[str, Tensor]:
        return _backward(replica(inputs), chosen, mixed, batched=False)

    expected = _backward(outputs, chosen, mixed, batched=False)
    return outputs.detach(), _Check(signs, expected, replica.arithmetic, directions, again)


def _assemble(
    replica: Replica,
    together: Tensor,
    check: _Check,
    pieces: Callable[[Replica, Inputs, Tensor, _Check, int, int], Iterator[_Piece]],
    inputs: Inputs,
    max_bytes: int,
) -> Tensor:
    """Fill the Jacobian piece by piece, and compare the outputs of all pieces."""
    size, width = len(together), check.count
    row_bytes = replica.n_parameters * replica.dtype.itemsize
    rows = max(1, max_bytes // row_bytes)
    samples, outputs = max(1, min(size, rows // width)), min(width, rows)
    jacobian = torch.empty(
        (size, width, replica.n_parameters), dtype=replica.dtype, device=replica.device
    )
    flat = together.reshape(size, -1)
    found = {name: torch.zeros_like(gradient) for name, gradient in check.expected.items()}
    squares = 0.0
    for where, which, alone, gradients in pieces(replica, inputs, flat, check, samples, outputs):
        _check_apart(alone, flat[where], flat, replica.arithmetic)
        start = 0
        for name in replica.selected:
            stop = start + replica.parameters[name].numel()
            gradient = gradients[name]
            # In half precision the norm itself would overflow.
            wide = torch.promote_types(gradient.dtype, torch.float32)
            square = float(torch.linalg.vector_norm(gradient, dtype=wide)) ** 2
            if not math.isfinite(square):
                raise not_differentiable(f"the outputs with respect to {name!r}")
            jacobian[where, which, start:stop] = gradient.reshape(*gradient.shape[:2], -1)
            squares += square
            signs = check.cotangent[where, which].to(gradient.dtype)
            found[name] += torch.tensordot(signs, gradient, 2)
            start = stop
    check.compare(found, math.sqrt(squares))
    return jacobian


def _vmap_pieces(
    replica: Replica, inputs: Inputs, together: Tensor, check: _Check, samples: int, outputs: int
) -> Iterator[_Piece]:
    parameters = {name: replica.parameters[name].detach() for name in replica.selected}

    def one(sample: Inputs, cotangents: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        alone = map_inputs(lambda tensor: tensor.unsqueeze(0), sample)
        z, pull = vjp(lambda p: replica.call(p, alone).reshape(-1), parameters)[:2]
        return z, vmap(pull)(cotangents)[0]

    for where in _slices(len(together), samples):
        some = take(inputs, where)
        for which in _slices(check.count, outputs):
            if check.directions is None:
                z, gradients = vmap(one, in_dims=(0, None))(some, _basis(which, together))
            else:
                z, gradients = vmap(one)(some, check.directions[where, which])
            yield where, which, z, gradients


def _loop_pieces(
    replica: Replica, inputs: Inputs, together: Tensor, check: _Check, samples: int, outputs: int
) -> Iterator[_Piece]:
    chosen = {name: replica.parameters[name] for name in replica.selected}
    batched = True
    for index in range(len(together)):
        where = slice(index, index + 1)
        alone = take(inputs, where)
        z = replica(alone).reshape(-1)
        for which in _slices(check.count, outputs):
            given = check.directions
            rows = _basis(which, together) if given is None else given[index, which]
            if batched:
                try:
                    found = _backward(z, chosen, rows, batched=True)
                except RuntimeError:
                    batched = False
            if not batched:
                each = [_backward(z, chosen, row, batched=False) for row in rows]
                found = {name: torch.stack([g[name] for g in each]) for name in chosen}
            yield where, which, z.detach()[None], {n: g[None] for n, g in found.items()}


def _backward(
    z: Tensor, chosen: Mapping[str, Tensor], cotangents: Tensor, *, batched: bool
) -> dict[str, Tensor]:
    lead = cotangents.shape[:1] if batched else ()
    found: tuple[Tensor | None, ...] = (None,) * len(chosen)
    if z.requires_grad:
        found = torch.autograd.grad(
            z,
            list(chosen.values()),
            cotangents,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=batched,
        )
    return {
        name: parameter.new_zeros((*lead, *parameter.shape)) if gradient is None else gradient
        for (name, parameter), gradient in zip(chosen.items(), found, strict=True)
    }


def _basis(which: slice, like: Tensor) -> Tensor:
    """Rows (m, M) of the identity on the outputs, in their dtype."""
    index = torch.arange(which.start, which.stop, device=like.device)
    return torch.nn.functional.one_hot(index, like.shape[1]).to(like.dtype)


def _slices(length: int, step: int) -> Iterator[slice]:
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _check_apart(alone: Tensor, together: Tensor, every: Tensor, dtype: torch.dtype) -> None:
    """Raise SkgeoError if outputs of a batch and of its single samples differ."""
    if alone.shape != together.shape:
        raise SkgeoError(
            f"A sample alone gives {alone.shape[1]} outputs and {together.shape[1]} within its "
            "batch. The outputs of one sample must not depend on the others."
        )
    if not agree(alone, together, dtype, float(every.abs().max()), by_entry=True):
        difference = float((alone.detach() - together).abs().max())
        raise SkgeoError(
            f"Outputs of one sample depend on others: computed alone and within its batch they "
            f"differ by {difference:.3g}. Does the forward pass normalise over the batch, mix "
            "samples, or draw random numbers? Each sample's outputs must be a fixed function of "
            "that sample."
        )
