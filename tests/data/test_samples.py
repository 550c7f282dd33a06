import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skgeo.data import Samples, as_samples, cast_inputs
from skgeo.exceptions import SkgeoError


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 12), size=st.integers(1, 15))
def test_batches_partition_the_samples_in_order(n, size):
    samples = as_samples({"a": np.arange(n), "b": np.ones((n, 2))})
    batches = list(samples.batches(size))
    assert torch.cat([batch["a"] for batch in batches]).tolist() == list(range(n))
    assert [len(batch["b"]) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert len(batches) == -(-n // size)


def test_batches_are_views():
    samples = as_samples(np.zeros((4, 2)))
    first = next(samples.batches(3))
    assert first.data_ptr() == samples.inputs.data_ptr()


@pytest.mark.parametrize("size", [0, -1])
def test_batch_size_is_positive(size):
    with pytest.raises(SkgeoError, match="positive integer"):
        next(as_samples([[1.0]]).batches(size))


def test_cast_tells_indices_from_quantities():
    samples = as_samples(
        {
            "x": np.ones((2, 1)),
            "ids": np.array([[1], [2]]),
            "mask": np.array([[True], [False]]),
        },
        y=["a", "b"],
    )
    cast = samples.to(torch.float32)
    kept = samples.to(torch.float32, keep_integers=True)
    assert {name: t.dtype for name, t in cast.inputs.items()} == {
        "x": torch.float32,
        "ids": torch.float32,
        "mask": torch.bool,
    }
    assert kept.inputs["ids"] is samples.inputs["ids"]
    assert kept.inputs["x"].dtype == torch.float32
    assert cast.targets is samples.targets


def test_cast_keeps_the_form():
    pair = (torch.ones(2, 1), torch.zeros(2, 1))
    result = cast_inputs(pair, dtype=torch.float64)
    assert isinstance(result, tuple)
    assert [part.dtype for part in result] == [torch.float64] * 2
    assert cast_inputs(pair[0]) is pair[0]


def test_overflow_is_no_infinity():
    with pytest.raises(SkgeoError, match=r"overflow in torch\.float32"):
        as_samples([[1e300]]).to(torch.float32)


def test_fingerprint_follows_the_content():
    array = np.arange(6.0).reshape(3, 2)
    base = as_samples(array, [0, 1, 1]).fingerprint()
    assert as_samples(torch.from_numpy(array.copy()), [0, 1, 1]).fingerprint() == base
    assert as_samples(np.asfortranarray(array), [0, 1, 1]).fingerprint() == base
    touched = array.copy()
    touched[2, 1] = np.nextafter(5.0, 6.0)
    others = [
        as_samples(touched, [0, 1, 1]),
        as_samples(array, [0, 1, 0]),
        as_samples(array, ["0", "1", "1"]),
        as_samples(array, np.array(["0", "1", "1"], dtype=object)),
        as_samples(array),
        as_samples(array.astype(np.float32), [0, 1, 1]),
        as_samples(array.reshape(3, 1, 2), [0, 1, 1]),
        as_samples({"x": array}, [0, 1, 1]),
        as_samples({"y": array}, [0, 1, 1]),
        as_samples((array,), [0, 1, 1]),
    ]
    assert len({base, *(other.fingerprint() for other in others)}) == 1 + len(others)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.uint8])
def test_fingerprint_of_any_dtype(dtype):
    zeros, ones = torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)
    assert Samples(zeros).fingerprint() != Samples(ones).fingerprint()
