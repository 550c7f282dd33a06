"""Slow, direct answers about single layers. Nothing of skgeo is imported here."""

import copy

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.oracles import output_metric


def _first(result):
    """The first floating tensor of a result, and how to build the result with another."""
    if isinstance(result, torch.Tensor):
        return result, lambda new: new
    if isinstance(result, tuple):
        inner, build = _first(result[0])
        return inner, lambda new: (build(new), *result[1:])
    key = next(iter(result))
    inner, build = _first(result[key])

    def rebuilt(new):
        result[key] = build(new)
        return result

    return inner, rebuilt


def run_from(module, inputs, name, representation=None, forward=None):
    """Outputs, and the representation at one call (``"relu#1"``), of which another may be put in.

    `representation` has the shape that the layer returns.
    """
    layer, _, number = name.partition("#")
    seen = []

    def hook(_, args, result):
        kept, build = _first(result)
        seen.append(kept.clone())
        if len(seen) - 1 != int(number or 0) or representation is None:
            return None
        return build(representation * 1)

    child = dict(module.named_modules()).get(layer, module)
    handle = child.register_forward_hook(hook)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        outputs = module(inputs) if forward is None else forward(module, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        handle.remove()
    return outputs, seen[int(number or 0)]


def one_of(inputs, index):
    if isinstance(inputs, torch.Tensor):
        return inputs[index : index + 1]
    if isinstance(inputs, dict):
        return {key: value[index : index + 1] for key, value in inputs.items()}
    return tuple(value[index : index + 1] for value in inputs)


def dense_tail_jacobian(module, inputs, name, forward=None, dtype=torch.float64):
    """Jacobians of the outputs by one representation, sample by sample: (N, M, n)."""
    net = copy.deepcopy(module).to(dtype).eval().requires_grad_(False)
    tensors = inputs if isinstance(inputs, torch.Tensor) else next(iter(dict(inputs).values()))
    found = []
    for index in range(len(tensors)):
        one = one_of(inputs, index)
        z, h = run_from(net, one, name, forward=forward)

        def tail(h, one=one):
            return run_from(net, one, name, h, forward)[0].reshape(-1)

        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no rule for torch.func
            jacobian = torch.func.jacrev(tail)(h.detach())
        found.append(jacobian.reshape(z.numel(), -1))
    return torch.stack(found).detach().numpy()


def dense_layer_metric(module, inputs, name, likelihood, forward=None):
    """G = B^T F(z) B of each sample at one layer, (N, n, n), for outputs of shape (N, K)."""
    net = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        outputs = (net(inputs) if forward is None else forward(net, inputs)).numpy()
    jacobians = dense_tail_jacobian(module, inputs, name, forward)
    return np.stack(
        [b.T @ output_metric(likelihood, z) @ b for z, b in zip(outputs, jacobians, strict=True)]
    )
