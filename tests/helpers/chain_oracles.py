"""Slow, direct answers about chains of Jacobians. Nothing of skgeo is imported here."""

import copy

import mpmath
import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.layer_oracles import one_of, run_from


def dense_between(module, inputs, target, source=None, forward=None):
    """Jacobians of one place by another, sample by sample and entry by entry: (N, m, n).

    `target` None is the output; `source` None the first floating input.
    """
    net = copy.deepcopy(module).double().eval().requires_grad_(False)
    tensors = inputs if isinstance(inputs, torch.Tensor) else next(iter(dict(inputs).values()))
    found = []
    for index in range(len(tensors)):
        one = one_of(inputs, index)
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no rule for torch.func
            if source is None:
                h, place = _first_float(one)
            else:
                (_, h), place = run_from(net, one, source, forward=forward), None

            def tail(h, one=one, place=place):
                given, put = (one, h) if source is not None else (place(h), None)
                z, seen = _run(net, given, source, put, target, forward)
                return (z if target is None else seen).reshape(-1)

            jacobian = torch.func.jacrev(tail)(h.detach())
        found.append(jacobian.reshape(jacobian.shape[0], -1))
    return torch.stack(found).detach().numpy()


def _first_float(inputs):
    if isinstance(inputs, torch.Tensor):
        return inputs.double(), lambda h: h
    if isinstance(inputs, dict):
        key = next(k for k, v in inputs.items() if v.is_floating_point())
        return inputs[key].double(), lambda h: {**inputs, key: h}
    place = next(i for i, v in enumerate(inputs) if v.is_floating_point())
    return inputs[place].double(), lambda h: (*inputs[:place], h, *inputs[place + 1 :])


def _run(net, inputs, source, representation, target, forward):
    """Outputs, and what `target` returns, with a representation put in at `source`."""
    seen = []
    layer, _, number = (target or "").partition("#")
    child = dict(net.named_modules()).get(layer, net)

    def watch(_, args, result):
        kept = result
        while not isinstance(kept, torch.Tensor):
            kept = kept[0] if isinstance(kept, tuple) else kept[next(iter(kept))]
        seen.append(kept * 1)

    handle = child.register_forward_hook(watch) if target is not None else None
    try:
        if source is None:
            before = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
            try:
                z = net(inputs) if forward is None else forward(net, inputs)
            finally:
                torch.backends.mha.set_fastpath_enabled(before)
        else:
            z, _ = run_from(net, inputs, source, representation, forward)
    finally:
        if handle is not None:
            handle.remove()
    return z, seen[int(number or 0)] if target is not None else None


def quantities(jacobian, floor=1e-13):
    """The eight numbers of one Jacobian, from their definitions."""
    m, n = jacobian.shape
    s = np.linalg.svd(jacobian, compute_uv=False)
    alive = s[s > floor * s[0]]
    gram = jacobian.T @ jacobian
    mean = np.trace(gram) / n
    shares = alive / alive.sum()
    return {
        "log_volume": np.log(alive).sum(),
        "rank": len(alive),
        "sigma_max": s[0],
        "sigma_min": alive[-1] if len(alive) == min(m, n) else 0.0,
        "condition": s[0] / alive[-1],
        "effective_rank": np.exp(-(shares * np.log(shares)).sum()),
        "stable_rank": (jacobian**2).sum() / s[0] ** 2,
        "isometry_deviation": np.linalg.norm(gram / mean - np.eye(n)) / np.sqrt(n),
    }


def exact_log_singular_values(factors, digits=900):
    """Logarithms of the singular values of J_L ... J_1, multiplied out with many digits."""
    with mpmath.workdps(digits):
        product = None
        for factor in factors:
            matrix = mpmath.matrix(factor.tolist())
            product = matrix if product is None else matrix * product
        values = mpmath.svd_r(product, compute_uv=False)
        zero = mpmath.mpf(10) ** -(digits // 2)
        logs = [float(mpmath.log(v)) if v > zero * max(values) else -np.inf for v in values]
    return np.array(sorted(logs, reverse=True))
