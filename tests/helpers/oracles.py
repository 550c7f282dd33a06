"""Slow, direct answers to lay beside those of the package. Nothing of skgeo is imported here."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Forward = Callable[[nn.Module, Any], Tensor]


def _map(function: Callable[[Tensor], Tensor], inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, dict):
        return {key: function(value) for key, value in inputs.items()}
    return tuple(function(value) for value in inputs)


def _count(inputs: Any) -> int:
    if isinstance(inputs, Tensor):
        return len(inputs)
    return len(next(iter(inputs.values() if isinstance(inputs, dict) else inputs)))


def dense_jacobian(
    module: nn.Module,
    inputs: Any,
    forward: Forward | None = None,
    names: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (N, M) and their Jacobian (N, M, P): one backward pass a sample and output.

    `names` are parameter names in ``named_parameters()`` order; by default all trainable ones.
    """
    net = copy.deepcopy(module).to(dtype).eval()
    parameters = [
        p
        for name, p in net.named_parameters()
        if (p.requires_grad if names is None else name in names)
    ]
    for parameter in parameters:
        parameter.requires_grad_(True)
    inputs = _map(lambda t: t.to(dtype) if t.is_floating_point() else t, inputs)
    outputs, rows = [], []
    for n in range(_count(inputs)):
        one = _map(operator.itemgetter(slice(n, n + 1)), inputs)
        z = (net(one) if forward is None else forward(net, one)).reshape(-1)
        outputs.append(z.detach())
        for value in z:
            gradients = torch.autograd.grad(
                value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([g.reshape(-1) for g in gradients]))
    z = torch.stack(outputs)
    return z.numpy(), torch.stack(rows).reshape(*z.shape, -1).numpy()


def output_metric(likelihood: str, z: np.ndarray) -> np.ndarray:
    """The Fisher metric F(z) of one sample's outputs, entry by entry from the output family."""
    z = np.asarray(z, dtype=np.float64)
    k = len(z)
    metric = np.zeros((k, k))
    if likelihood == "categorical":
        weights = [np.exp(v - z.max()) for v in z]
        p = [w / sum(weights) for w in weights]
        for i in range(k):
            for j in range(k):
                metric[i, j] = (p[i] if i == j else 0.0) - p[i] * p[j]
    elif likelihood == "bernoulli":
        for i in range(k):
            metric[i, i] = np.exp(-abs(z[i])) / (1.0 + np.exp(-abs(z[i]))) ** 2
    elif likelihood == "gaussian":
        metric = np.eye(k)
    elif likelihood == "gaussian_scale":
        for i in range(k // 2):
            metric[i, i] = np.exp(-2.0 * z[k // 2 + i])
            metric[k // 2 + i, k // 2 + i] = 2.0
    elif likelihood == "poisson":
        for i in range(k):
            metric[i, i] = np.exp(z[i])
    else:
        raise ValueError(likelihood)
    return metric


def dense_fisher(
    module: nn.Module,
    inputs: Any,
    likelihood: str,
    forward: Forward | None = None,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """G = (1/N) sum_n J_n^T F(z_n) J_n, a P x P matrix, for outputs of shape (N, K)."""
    outputs, jacobians = dense_jacobian(module, inputs, forward, names)
    total = np.zeros((jacobians.shape[2],) * 2)
    for z, jacobian in zip(outputs, jacobians, strict=True):
        total += jacobian.T @ output_metric(likelihood, z) @ jacobian
    return total / len(outputs)


def spectrum(matrix: np.ndarray) -> np.ndarray:
    """Eigenvalues of a symmetric matrix, descending."""
    return np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1]


def _state(module: nn.Module) -> list[tuple[str, Any, Any]]:
    """Everything a measurement must leave alone: objects by identity, contents by value."""
    state: list[tuple[str, Any, Any]] = []
    for name, child in module.named_modules(remove_duplicate=False):
        state.append((f"{name} training", child.training, None))
        for key, value in vars(child).items():
            state.append((f"{name}.{key}", value, None))
            if isinstance(value, (dict, list, set)):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                state.extend((f"{name}.{key}[{k}]", v, None) for k, v in items)
                state.append((f"{name}.{key} length", len(value), None))
    tensors = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    for name, tensor in tensors.items():
        facts = (tensor.requires_grad, tensor.device, tensor.dtype, tensor.data_ptr())
        state.append((f"{name} facts", facts, None))
        state.append((f"{name} version", tensor._version, None))
        state.append((f"{name} hooks", len(tensor._backward_hooks or ()), None))
        state.append((f"{name} value", tensor, tensor.detach().clone()))
        grad = tensor.grad if tensor.is_leaf else None
        state.append((f"{name} grad", grad, None if grad is None else grad.clone()))
    return state


@contextmanager
def assert_untouched(*modules: nn.Module) -> Iterator[None]:
    """Assert that the block leaves every module as it was: objects, tensors, flags and hooks.

    A block that raises is checked too.
    """
    before = [_state(module) for module in modules]
    rng = torch.get_rng_state()
    try:
        yield
    finally:
        _check_untouched(modules, before, rng)


def _check_untouched(
    modules: Sequence[nn.Module], before: list[list[tuple[str, Any, Any]]], rng: Tensor
) -> None:
    assert torch.equal(rng, torch.get_rng_state()), "the global random state was advanced"
    for module, old in zip(modules, before, strict=True):
        new = _state(module)
        assert [entry[0] for entry in new] == [entry[0] for entry in old]
        for (name, was, copied), (_, now, _) in zip(old, new, strict=True):
            if isinstance(was, (bool, int, float, str, tuple)):
                assert was == now, f"{name} changed from {was} to {now}"
            else:
                assert was is now, f"{name} is another object"
            if copied is not None:
                same = torch.equal(was.detach(), copied)
                assert same, f"{name} was overwritten"
