"""Array-likes as tensors of real numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from skgeo._arguments import described
from skgeo.exceptions import SkgeoError, said


def as_tensor(value: Any, name: str) -> Tensor:
    """Read an array-like as a tensor of real numbers of the same dtype.

    The tensor shares memory with `value` unless that is read-only or of a dtype that torch lacks.

    name: for messages.
    Raises SkgeoError if the entries are not real numbers or do not form one array.
    """
    if isinstance(value, list) and value and all(isinstance(row, Tensor) for row in value):
        value = join_tensors([row.detach() for row in value], torch.stack, name)
    subject = _subject(name)
    if isinstance(value, Tensor):
        if value.is_nested:
            raise SkgeoError(
                f"{subject} is a nested tensor, whose samples have different shapes: pad or crop "
                "them to one shape and pass a plain tensor."
            )
        if value.is_meta:
            raise SkgeoError(
                f"{subject} is on the meta device, so it has a shape but no values. Pass data."
            )
        if value.is_quantized:
            raise SkgeoError(f"{subject} is a quantized tensor: pass {name}.dequantize().")
        if value.layout != torch.strided:
            raise SkgeoError(f"{subject} is a sparse tensor: pass {name}.to_dense().")
        if value.is_complex():
            raise _complex(name)
        return value.detach()
    check_unmasked(value, subject)
    if sparse.issparse(value):
        raise SkgeoError(
            f"{subject} is a sparse {type(value).__name__}; expected a dense array: pass "
            f"{name}.toarray()."
        )
    if isinstance(value, pd.DataFrame | pd.Series):
        return as_tensor(_numbers(value, name), name)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise SkgeoError(
            f"{subject} could not be read as one array of numbers: {said(error)}"
        ) from error
    if array.dtype.kind == "c":
        raise _complex(name)
    if array.dtype.kind not in "biuf":
        raise SkgeoError(
            f"{subject} is {described(value)} with dtype {array.dtype}; expected real numbers. "
            f"Encode text and categories as numbers first; convert an object array of numbers "
            f"with .astype(float)."
        )
    return torch.from_numpy(_supported(array, name))


def is_frame(value: Any) -> bool:
    """Whether `value` is a table with named columns, of pandas, polars or another library."""
    return hasattr(value, "columns") and hasattr(value, "__array__")


def check_unmasked(value: Any, name: str) -> None:
    """Raise SkgeoError for a masked array, whose masked entries would be read as values."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        raise SkgeoError(
            f"{name} is a masked array with {int(np.ma.getmaskarray(value).sum())} masked entries, "
            "which have no values. Remove these samples, or pass an array with filled(...) values."
        )


def _subject(name: str) -> str:
    """An array at the beginning of a sentence."""
    return name if name[:1].isupper() else f"The array {name}"


def _complex(name: str) -> SkgeoError:
    return SkgeoError(
        f"Complex data not supported: {name} is complex. Pass real and imaginary parts as two "
        f"features."
    )


def _supported(array: np.ndarray, name: str) -> np.ndarray:
    """The same numbers in a dtype and memory layout that torch supports."""
    dtype = array.dtype
    if dtype.kind == "u" and dtype.itemsize > 1:
        if array.size and array.max() > np.iinfo(np.int64).max:
            raise SkgeoError(f"{name} holds integers beyond the range of int64.")
        dtype = np.dtype(np.int64)
    elif dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    array = np.ascontiguousarray(array, dtype=dtype.newbyteorder("=")).reshape(array.shape)
    return array if array.flags.writeable else array.copy()


def _numbers(frame: pd.DataFrame | pd.Series, name: str) -> np.ndarray:
    columns = frame.to_frame() if isinstance(frame, pd.Series) else frame
    wrong = [
        str(label)
        for label, dtype in columns.dtypes.items()
        if not (pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype))
    ]
    if wrong:
        raise SkgeoError(
            f"{_subject(name)} has columns that are not numeric: {', '.join(wrong)}. Encode them "
            f"first, for example with a ColumnTransformer in a Pipeline that ends in the model."
        )
    array: np.ndarray = frame.to_numpy()
    if array.dtype == object:  # booleans next to numbers, or nullable columns
        array = frame.to_numpy(dtype=float, na_value=np.nan)
    return array


def check_finite(tensor: Tensor, name: str) -> None:
    """Raise SkgeoError if a value is NaN or infinite, with the first such sample."""
    if not tensor.is_floating_point() or tensor.device.type == "meta":
        return
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        wrong = ~finite.reshape(len(tensor), -1)
        first = int(wrong.any(dim=1).nonzero()[0])
        raise SkgeoError(
            f"{_subject(name)} holds NaN or inf: {int(wrong.sum())} of its {tensor.numel()} "
            f"values, the first in sample {first}. Remove or impute them, for "
            "example with SimpleImputer."
        )


def join_tensors(
    tensors: list[Tensor], join: Callable[[list[Tensor]], Tensor], name: str
) -> Tensor:
    """Stack samples or concatenate batches; raise SkgeoError if their shapes differ.

    join: `torch.stack` or `torch.cat`.
    name: for messages.
    """
    whole = 0 if join is torch.stack else 1
    shapes = {tuple(tensor.shape[whole:]) for tensor in tensors}
    if len(shapes) > 1:
        some = " and ".join(map(str, sorted(shapes)[:2]))
        raise SkgeoError(
            f"Samples of {name} have different shapes, {some}: pad or crop them to one shape."
        )
    return join(tensors)
