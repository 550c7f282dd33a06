"""Reading of all accepted kinds of data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from skgeo.data._arrays import as_tensor, check_finite, check_unmasked, join_tensors
from skgeo.data._samples import Inputs, Samples, leaves
from skgeo.exceptions import SkgeoError, said

_READINGS = (
    "With a `model`, the rows of X are samples: pass fit(X, y) with one array, tensor, dict, "
    "Dataset or DataLoader. Without one (`model=None`), pass a list of (model, X) or "
    "(model, X, y) pairs to fit_transform."
)


def as_samples(X: Any, y: Any = None) -> Samples:
    """Read data of any accepted kind into memory, once and in order.

    X: the first axis is that of the samples. A dict or a tuple of arrays is one input with several
        parts of equal length; a list has one entry per sample. Items of a Dataset and batches of a
        DataLoader may be ``x``, ``(x, y)`` or a dict.
    y: targets, one per sample; used instead of those of a Dataset or a DataLoader.

    Dtypes are kept. Tensors share memory with the arrays where torch allows it.

    >>> from skgeo.data import as_samples
    >>> samples = as_samples([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], y=["a", "b", "a"])
    >>> len(samples), [tuple(batch.shape) for batch in samples.batches(2)]
    (3, [(2, 2), (1, 2)])
    """
    found: Any = None
    if X is None:
        raise SkgeoError(
            "This estimator needs data, and X is None: pass an array, a tensor, a dict of them, "
            "a Dataset or a DataLoader."
        )
    if isinstance(X, Samples):
        inputs, found = X.inputs, X.targets
    elif isinstance(X, DataLoader):
        inputs, found = _read(X, "A batch of the DataLoader", torch.cat, _join_target_batches)
    elif type(X) is TensorDataset:
        inputs, found = _read([X.tensors], "X", torch.cat, _join_target_batches)
    elif _is_dataset(X):
        inputs, found = _read(_items(X), "An item of the Dataset", torch.stack, _join_targets)
        if type(X).__module__.startswith("skorch.") and getattr(X, "y", found) is None:
            found = None  # skorch puts zeros in place of missing targets
    else:
        inputs = _convert(X, "X")
    n_samples = _check_inputs(inputs)
    return Samples(inputs, _targets(found if y is None else y, n_samples))


def _is_parts(value: Any) -> bool:
    """Whether a tuple holds several inputs, instead of a row of numbers."""
    return (
        isinstance(value, tuple)
        and len(value) > 0
        and all(isinstance(part, Tensor | np.ndarray) for part in value)
    )


def _is_row(value: tuple[Any, ...]) -> bool:
    return all(np.isscalar(part) for part in value)


def _convert(X: Any, name: str) -> Inputs:
    if isinstance(X, Mapping):
        return {_key(key): as_tensor(X[key], f"{name}[{key!r}]") for key in X}
    if _is_parts(X):
        return tuple(as_tensor(part, f"{name}[{i}]") for i, part in enumerate(X))
    if isinstance(X, list) and X and isinstance(X[0], tuple) and not _is_row(X[0]):
        kinds = ", ".join(type(part).__name__ for part in X[0])
        raise SkgeoError(f"X is a list of tuples ({kinds}). {_READINGS}")
    return as_tensor(X, name)


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise SkgeoError(f"X has the key {key!r}; the keys of a dict of inputs must be strings.")
    return key


def _is_dataset(X: Any) -> bool:
    """Whether X is a torch Dataset, or has its two methods and is not an array."""
    if isinstance(X, Dataset):
        return True
    array_like = isinstance(X, Mapping | Sequence) or hasattr(X, "__array__")
    return (
        not (array_like or sparse.issparse(X))
        and hasattr(X, "__getitem__")
        and hasattr(X, "__len__")
    )


def _items(dataset: Any) -> Iterable[Any]:
    if isinstance(dataset, IterableDataset):
        return dataset
    return (dataset[index] for index in range(len(dataset)))


def _read(
    parts: Iterable[Any],
    kind: str,
    join: Callable[[list[Tensor]], Tensor],
    join_targets: Callable[[list[Any]], Any],
) -> tuple[Inputs, Any]:
    inputs, targets = [], []
    for part in parts:
        x, y = _split(part, kind)
        inputs.append(x)
        targets.append(y)
    if not inputs:
        raise SkgeoError("X holds no samples: the Dataset or DataLoader is empty.")
    without = sum(target is None for target in targets)
    if without not in (0, len(targets)):
        raise SkgeoError(
            f"{without} of {len(targets)} parts of X have no target; expected all or none."
        )
    return _combine(inputs, join), None if without else join_targets(targets)


def _split(part: Any, kind: str) -> tuple[Any, Any]:
    if not isinstance(part, tuple | list):
        return part, None
    if len(part) == 1:
        return part[0], None
    if len(part) == 2:
        return part[0], part[1]
    raise SkgeoError(
        f"{kind} has {len(part)} entries; expected x, (x, y) or a dict. Name the inputs in a "
        f"dict, or nest them: ((x1, x2), y)."
    )


def _combine(parts: list[Any], join: Callable[[list[Tensor]], Tensor]) -> Inputs:
    first = parts[0]
    if isinstance(first, Mapping):
        for part in parts:
            if set(part) != set(first):
                raise SkgeoError(
                    f"Parts of X have different keys: {sorted(first)} and {sorted(part)}."
                )
        return {
            _key(key): join_tensors(
                [as_tensor(part[key], key) for part in parts], join, f"X[{key!r}]"
            )
            for key in first
        }
    # A DataLoader turns the tuple (x1, x2) of an item into a list of two tensors.
    if isinstance(first, list | tuple) and _is_parts(tuple(first)):
        return tuple(
            join_tensors([as_tensor(part[i], f"X[{i}]") for part in parts], join, f"X[{i}]")
            for i in range(len(first))
        )
    return join_tensors([as_tensor(part, "X") for part in parts], join, "X")


def _join_targets(targets: list[Any]) -> Any:
    if all(isinstance(target, Tensor) for target in targets):
        return join_tensors([target.detach() for target in targets], torch.stack, "y")
    return targets


def _join_target_batches(targets: list[Any]) -> Any:
    if all(isinstance(target, Tensor) for target in targets):
        return join_tensors([target.detach() for target in targets], torch.cat, "y")
    return [target for batch in targets for target in batch]


def _check_inputs(inputs: Inputs) -> int:
    parts = list(leaves(inputs))
    if not parts:
        raise SkgeoError("X is an empty dict: it holds no inputs.")
    for name, tensor in parts:
        if tensor.ndim == 0:
            raise SkgeoError(
                f"{name} is a single number; expected one row per sample, at least shape (1,)."
            )
    lengths = {name: len(tensor) for name, tensor in parts}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise SkgeoError(f"The parts of X have unequal numbers of samples ({listed}).")
    n_samples = len(parts[0][1])
    if n_samples == 0:
        shape = tuple(parts[0][1].shape)
        raise SkgeoError(f"X holds no samples: Found array with 0 sample(s) (shape={shape}).")
    for name, tensor in parts:
        check_finite(tensor, name)
    return n_samples


def _targets(y: Any, n_samples: int) -> np.ndarray | Tensor | None:
    if y is None:
        return None
    targets: np.ndarray | Tensor
    check_unmasked(y, "The target y")
    if isinstance(y, Tensor):
        targets = as_tensor(y, "y")
    elif isinstance(y, Mapping) or sparse.issparse(y):
        raise SkgeoError(
            f"The target y is a {type(y).__name__}; expected an array with one row per sample."
        )
    else:
        try:
            targets = np.asarray(y)
        except (ValueError, TypeError) as error:
            raise SkgeoError(
                f"The target y could not be read as one array: {said(error)}"
            ) from error
    if targets.ndim == 0 or len(targets) != n_samples:
        raise SkgeoError(
            f"X holds {n_samples} samples and y has shape {tuple(targets.shape)}; expected one "
            f"target per sample."
        )
    if isinstance(targets, Tensor):
        check_finite(targets, "y")
    elif targets.dtype.kind in "fc":
        check_finite(as_tensor(targets, "y"), "y")
    return targets
