"""Factors of every layer from one forward and one batched backward pass."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from skgeo.exceptions import SkgeoError
from skgeo.jacobian._calls import Call, CallRecorder
from skgeo.jacobian._cotangents import unit_cotangents
from skgeo.jacobian._dense_rows import output_jacobian
from skgeo.jacobian._rules.factored import FactoredJacobian
from skgeo.jacobian._rules.opened import opened
from skgeo.jacobian._rules.rule import LayerGradients
from skgeo.jacobian._rules.rule_check import (
    Certificate,
    RuleCheck,
    edges,
    watched,
)
from skgeo.jacobian._rules.sharing import Use, uses
from skgeo.network._agreement import agree
from skgeo.network._batch import Inputs, batch_size, map_inputs, plain, take
from skgeo.network._replica import Replica
from skgeo.network._switches import differentiating

Cotangents = Callable[[Tensor], Tensor]
_MAX_BYTES = 2**27
# Entries of a layer's result below which one backward pass is mostly overhead.
_VMAPPED = 2**15


def structured_gradients(
    replica: Replica,
    inputs: Inputs,
    *,
    cotangents: Cotangents | None = None,
    certificate: Certificate | None = None,
    max_bytes: int = _MAX_BYTES,
) -> FactoredJacobian:
    r"""The Jacobian of a batch in factored form.

    The implementation of :meth:`~skgeo.jacobian.ParameterJacobian.factors`. Costs one forward pass,
    a backward pass per direction for the batch as a whole, and without a certificate one more
    backward pass that every layer's factors are checked against. A parameter is differentiated
    densely (:func:`output_jacobian`, M backward passes per sample) if it belongs to no
    layer with a rule, if the forward pass uses it outside its layers, if several calls use it and
    cannot be combined (:mod:`~skgeo.jacobian._rules.sharing`), if its layer has hooks or
    parametrisations, or if the check fails.
    """
    with differentiating():
        inputs = _plain(inputs)
        z, calls, changed = _forward(replica, inputs)
        if not replica.reached(z) or not _trustworthy(replica, inputs, z):
            # The dense computation reports what is wrong.
            output_jacobian(replica, inputs)
            raise SkgeoError(
                "Outputs of the same samples differ from one forward pass to the next. Each "
                "sample's outputs must be a fixed function of that sample."
            )
        again = functools.partial(replica, inputs) if changed else None
        directions, used, found = _factors(
            replica, z, calls, again, cotangents, certificate, max_bytes
        )
        z = z.detach()
        del calls  # and the graph with it
        covered = {name for call in found for name in call.names.values()}
        rest = tuple(name for name in used if name not in covered)
        return FactoredJacobian(
            outputs=z,
            calls=tuple(found),
            rest=rest,
            rest_rows=_rest_rows(replica, inputs, rest, z, directions),
            shapes={name: replica.parameters[name].shape for name in replica.selected},
            dtype=replica.dtype,
        )


def certify_structure(
    replica: Replica, inputs: Inputs, *, cotangents: Cotangents | None = None
) -> Certificate:
    """Check on some samples which layers' rules reproduce a plain backward pass.

    The certificate does not detect a network that mixes samples, or uses weights outside their
    layers, for some inputs only, with the same shapes of its layers' inputs and the same number of
    uses of each parameter. Outputs are checked with each batch, not here.
    """
    certificate = Certificate()
    with differentiating():
        inputs = _plain(inputs)
        z, calls, changed = _forward(replica, inputs)
        again = functools.partial(replica, inputs) if changed else None
        _factors(replica, z, calls, again, cotangents, certificate, _MAX_BYTES)
    return certificate


def _plain(inputs: Inputs) -> Inputs:
    if batch_size(inputs) == 0:
        raise SkgeoError("The batch has no samples; at least one is needed for a Jacobian.")
    return map_inputs(plain, inputs)


def _factors(
    replica: Replica,
    z: Tensor,
    calls: Sequence[Call],
    again: Callable[[], Tensor] | None,
    cotangents: Cotangents | None,
    certificate: Certificate | None,
    max_bytes: int,
) -> tuple[Tensor | None, list[str], list[LayerGradients]]:
    """Directions of the outputs, parameters that the outputs depend on, and covered layers.

    again: a forward pass to check against, if that of `z` was changed.
    """
    directions = None if cotangents is None else _checked(cotangents(z.detach()), z)
    counts = edges(z)
    selected = {id(replica.parameters[name]): name for name in replica.selected}
    covered = uses([call for call in calls if len(call.inputs) == 1], selected, counts)
    found = _admitted(z, covered, again, replica, directions, certificate, max_bytes)
    return directions, [name for key, name in selected.items() if counts[key]], found


def _forward(replica: Replica, inputs: Inputs) -> tuple[Tensor, list[Call], bool]:
    """Outputs, calls of the layers, and whether the forward pass was changed to see them.

    Embeddings without samples get a result for each, and attention and recurrent layers call linear
    layers over their weights, where that leaves the outputs as they are.
    """
    try:
        with opened(replica) as layers:
            recorder, z = _recorded(replica, inputs, layers, batch_size(inputs))
        if not recorder.repeated and not layers:
            return z, recorder.calls, False
        with torch.no_grad():
            expected = replica(inputs)
        scale = float(expected.abs().max())
        if agree(z.detach(), expected, replica.arithmetic, scale, by_entry=True):
            return z, recorder.calls, True
    except Exception:  # what follows the embedding may expect another shape
        pass
    recorder, z = _recorded(replica, inputs, {}, None)
    return z, recorder.calls, False


def _recorded(
    replica: Replica, inputs: Inputs, layers: Mapping[str, nn.Module], n_samples: int | None
) -> tuple[CallRecorder, Tensor]:
    """One forward pass with the calls of all layers with a rule, and of others that are given."""
    recorder = CallRecorder(keep_inputs=True, n_samples=n_samples)
    with ExitStack() as stack:
        for name, module in {**watched(replica), **layers}.items():
            recorder.watch(name, module, stack)
        z = replica(inputs)
    return recorder, z


def _trustworthy(replica: Replica, inputs: Inputs, z: Tensor) -> bool:
    """Whether outputs are finite, and those of the first sample do not depend on the others.

    Whole batches are judged once in a measurement, but only some: a single sample far from the
    others may couple any batch that it is in. One sample of each costs little.
    """
    if not bool(torch.isfinite(z).all()):
        return False
    with torch.no_grad():
        alone = replica(take(inputs, slice(0, 1)))
    if alone.shape != z[:1].shape:
        return False
    scale = float(z.detach().abs().max())
    return agree(alone, z[:1], replica.arithmetic, scale, by_entry=True)


def _checked(directions: Tensor, z: Tensor) -> Tensor:
    if directions.dim() < 2 or directions[:, 0].shape != z.shape:
        raise SkgeoError(
            f"Cotangents have shape {tuple(directions.shape)} for outputs of shape "
            f"{tuple(z.shape)}; expected (b, m, *out_shape), m directions per sample."
        )
    return directions.detach().to(z.dtype)


def _admitted(
    z: Tensor,
    covered: Sequence[Use],
    again: Callable[[], Tensor] | None,
    replica: Replica,
    directions: Tensor | None,
    certificate: Certificate | None,
    max_bytes: int,
) -> list[LayerGradients]:
    if not covered:
        return []
    calls = list(dict.fromkeys(call for use in covered for call in use.calls))
    found = _backward(z, [call.output for call in calls], directions, max_bytes)
    by_call = dict(zip(calls, found, strict=True))
    gradients = [[by_call[call] for call in use.calls] for use in covered]
    if certificate:
        read = [
            certificate.read(use, each, len(z))
            for use, each in zip(covered, gradients, strict=True)
        ]
        if all(known for known, _ in read):
            return [one for _, one in read if one is not None]
    names = [name for use in covered for name in use.names.values()]
    admission = RuleCheck(replica, z if again is None else again(), directions, names)
    admitted = []
    for use, each in zip(covered, gradients, strict=True):
        arrangement, one = admission.admit(use, each)
        if certificate is not None:
            certificate.note(use, arrangement, one)
        if one is not None:
            admitted.append(one)
    return admitted


def _backward(
    z: Tensor, by: Sequence[Tensor], directions: Tensor | None, max_bytes: int
) -> list[Tensor | None]:
    """Gradients of every direction, of shape (m, ...) each."""
    if sum(y.numel() for y in by) < _VMAPPED * len(by):
        try:
            return _batched(z, by, directions, max_bytes)
        except RuntimeError:  # an operation without a rule for torch.func.vmap
            pass
    return _one_by_one(z, by, directions)


def _one_by_one(z: Tensor, by: Sequence[Tensor], directions: Tensor | None) -> list[Tensor | None]:
    """One backward pass per direction, efficient for many samples."""
    total = _count(z, directions)
    kept: list[Tensor | None] = [None] * len(by)
    for index in range(total):
        (cotangent,) = _cotangents(z, directions, slice(index, index + 1))
        for place, gradient in enumerate(_grad(z, by, cotangent, batched=False)):
            if gradient is not None:
                into = kept[place]
                if into is None:
                    into = kept[place] = gradient.new_empty((total, *gradient.shape))
                into[index] = gradient
    return kept


def _batched(
    z: Tensor, by: Sequence[Tensor], directions: Tensor | None, max_bytes: int
) -> list[Tensor | None]:
    """Many directions per backward pass."""
    total = _count(z, directions)
    step = max(1, max_bytes // (3 * sum(y.numel() * y.element_size() for y in by)))
    parts: list[list[Tensor]] = [[] for _ in by]
    for start in range(0, total, step):
        some = _cotangents(z, directions, slice(start, min(start + step, total)))
        for part, gradient in zip(parts, _grad(z, by, some, batched=True), strict=True):
            if gradient is not None:
                part.append(gradient)
    return [torch.cat(part) if len(part) > 1 else part[0] if part else None for part in parts]


def _count(z: Tensor, directions: Tensor | None) -> int:
    return z[0].numel() if directions is None else directions.shape[1]


def _grad(
    z: Tensor, by: Sequence[Tensor], cotangents: Tensor, *, batched: bool
) -> list[Tensor | None]:
    return list(
        torch.autograd.grad(
            z,
            list(by),
            cotangents,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=batched,
        )
    )


def _cotangents(z: Tensor, directions: Tensor | None, which: slice) -> Tensor:
    """Cotangents of the batch for some directions, of shape (m, b, *out_shape)."""
    if directions is not None:
        return directions[:, which].movedim(1, 0)
    return unit_cotangents(z)(which)


def _rest_rows(
    replica: Replica,
    inputs: Inputs,
    rest: tuple[str, ...],
    z: Tensor,
    directions: Tensor | None,
) -> Tensor:
    size, width = len(z), z[0].numel()
    if directions is not None:
        directions = directions.reshape(size, -1, width)
    if rest:
        with _only(replica, rest) as part:
            return output_jacobian(part, inputs, directions=directions)[1].to(replica.dtype)
    count = width if directions is None else directions.shape[1]
    return torch.zeros(size, count, 0, dtype=replica.dtype, device=replica.device)


@contextmanager
def _only(replica: Replica, names: tuple[str, ...]) -> Iterator[Replica]:
    """The same replica, with derivatives with respect to fewer parameters."""
    part = copy.copy(replica)
    part.selected = names
    part.n_parameters = sum(replica.parameters[name].numel() for name in names)
    others = [replica.parameters[name] for name in replica.selected if name not in names]
    try:
        for parameter in others:
            parameter.requires_grad_(False)
        yield part
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
