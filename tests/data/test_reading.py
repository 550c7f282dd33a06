"""Every kind of data gives the same samples, and none of the bad ones a number."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from skgeo.data import Samples, as_samples
from skgeo.exceptions import SkgeoError

X = np.arange(15.0).reshape(5, 3)
Y = np.array(["a", "b", "a", "c", "b"])


class Items(Dataset):
    """Items as they are given."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream(IterableDataset):
    """Rows of X that can only be iterated."""

    def __iter__(self):
        return iter([torch.from_numpy(row) for row in X])


class DuckTyped:
    """What many people hand to a DataLoader: the two methods, and no base class."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[index], index


@pytest.mark.parametrize(
    "data",
    [
        X,
        torch.from_numpy(X),
        X.tolist(),
        list(X),
        list(torch.from_numpy(X)),
        [tuple(row) for row in X.tolist()],
        pd.DataFrame(X, columns=list("abc")),
        pd.DataFrame(X).convert_dtypes(),
        Items(list(X)),
        Items([(row, label) for row, label in zip(X, Y, strict=True)]),
        Items([(row,) for row in X.tolist()]),
        Stream(),
        DuckTyped(),
        TensorDataset(torch.from_numpy(X)),
        DataLoader(torch.from_numpy(X), batch_size=2),
        DataLoader(TensorDataset(torch.from_numpy(X)), batch_size=2),
        DataLoader(Stream(), batch_size=3),
        Samples(torch.from_numpy(X)),
        X[::-1].copy()[::-1],
        np.asfortranarray(X),
        X.astype(">f8"),
        X.astype(np.longdouble),
    ],
    ids=lambda data: type(data).__name__,
)
def test_one_matrix_in_many_forms(data):
    samples = as_samples(data)
    expected = torch.from_numpy(X)
    assert samples.inputs.to(torch.float64).equal(expected)
    assert len(samples) == 5


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "uint8"])
def test_dtype_is_kept(dtype):
    assert as_samples(X.astype(dtype)).inputs.dtype == getattr(torch, dtype)
    assert as_samples(X > 3).inputs.dtype == torch.bool


def test_unsigned_integers_become_signed():
    assert as_samples(X.astype(np.uint16)).inputs.dtype == torch.int64
    with pytest.raises(SkgeoError, match="beyond the range of int64"):
        as_samples(np.array([[2**63]], dtype=np.uint64))


def test_memory_is_shared_unless_read_only():
    writable, locked = X.copy(), X.copy()
    locked.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shared, copied = as_samples(writable).inputs, as_samples(locked).inputs
    assert shared.data_ptr() == writable.ctypes.data
    assert copied.data_ptr() != locked.ctypes.data


def test_any_rank():
    for shape in [(4,), (4, 1), (4, 2, 3), (4, 3, 8, 8)]:
        assert as_samples(np.zeros(shape)).inputs.shape == shape


def test_dicts_and_tuples_are_several_inputs():
    ids = np.arange(10).reshape(5, 2)
    named = as_samples({"ids": ids, "mask": torch.ones(5, 2, dtype=torch.bool)})
    assert set(named.inputs) == {"ids", "mask"}
    assert named.inputs["ids"].dtype == torch.int64
    first, second = as_samples((X, ids)).inputs
    assert first.shape == (5, 3)
    assert second.shape == (5, 2)


def test_nested_items_of_a_dataset():
    pairs = Items([((row, row[:1]), 2.0) for row in X])
    for data in (pairs, DataLoader(pairs, batch_size=2)):
        samples = as_samples(data)
        assert [tuple(part.shape) for part in samples.inputs] == [(5, 3), (5, 1)]
        np.testing.assert_array_equal(np.asarray(samples.targets), np.full(5, 2.0))
    named = Items([{"row": row, "n": index} for index, row in enumerate(X)])
    for data in (named, DataLoader(named, batch_size=2)):
        assert as_samples(data).inputs["n"].tolist() == [0, 1, 2, 3, 4]


def test_targets_of_datasets_keep_their_dtype():
    labelled = Items([(row, label) for row, label in zip(X, Y.tolist(), strict=True)])
    for data in (labelled, DataLoader(labelled, batch_size=2)):
        assert as_samples(data).targets.tolist() == Y.tolist()
    numbers = TensorDataset(torch.from_numpy(X), torch.arange(5))
    for data in (numbers, Items(list(numbers)), DataLoader(numbers, batch_size=3)):
        assert as_samples(data).targets.dtype == torch.int64
    assert as_samples(DuckTyped()).targets.dtype == np.int64


def test_an_explicit_target_wins():
    data = TensorDataset(torch.from_numpy(X), torch.arange(5))
    assert as_samples(data, Y).targets is Y
    assert as_samples(Samples(torch.from_numpy(X), Y)).targets is Y
    assert as_samples(X, pd.Series(Y)).targets.tolist() == Y.tolist()


def test_a_shuffling_loader_is_read_once():
    """Inputs and targets of one sample stay together, and every pass sees one order."""
    data = TensorDataset(torch.arange(50.0), torch.arange(50))
    loader = DataLoader(data, 7, shuffle=True, generator=torch.Generator().manual_seed(0))
    samples = as_samples(loader)
    assert samples.inputs.tolist() == samples.targets.tolist()
    assert samples.inputs.tolist() != list(range(50))
    passes = [torch.cat(list(samples.batches(8))) for _ in range(2)]
    assert passes[0].equal(passes[1])


def test_gradients_do_not_follow():
    tensor = torch.ones(3, 2, requires_grad=True)
    assert not as_samples(tensor).inputs.requires_grad
    assert not as_samples([tensor[0], tensor[1]]).inputs.requires_grad


def test_skorch_containers():
    skorch = pytest.importorskip("skorch")
    from skorch.helper import SliceDataset, SliceDict

    whole = as_samples(SliceDict(a=X, b=X[:, :1])[:3])
    assert whole.inputs["a"].shape == (3, 3)
    assert as_samples(SliceDataset(TensorDataset(torch.from_numpy(X)))).inputs.shape == (5, 3)
    assert as_samples(skorch.dataset.Dataset(X)).targets is None
    assert as_samples(skorch.dataset.Dataset(X, np.arange(5))).targets.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "needs data"),
        (np.zeros((0, 3)), r"0 sample\(s\) \(shape=\(0, 3\)\)"),
        ([], "no samples"),
        (Items([]), "no samples"),
        (np.array(3.0), "single number"),
        ({}, "empty dict"),
        ({1: X}, "must be strings"),
        ({"a": X, "b": X[:2]}, r"unequal numbers of samples \(X\['a'\]: 5, X\['b'\]: 2\)"),
        (X.astype(object), r"\.astype\(float\)"),
        ([["a", "b"]], "expected real numbers"),
        ("weights.npy", "expected real numbers"),
        ([[1.0, 2.0], [3.0]], "could not be read as one array"),
        (X * 1j, "Complex data not supported"),
        (torch.ones(2, 2) * 1j, "Complex data not supported"),
        (sparse.csr_matrix(X), r"X\.toarray\(\)"),
        (sparse.csr_array(X), r"X\.toarray\(\)"),
        (torch.eye(3).to_sparse(), r"X\.to_dense\(\)"),
        (pd.DataFrame({"age": [1.0], "town": ["Bern"]}), "not numeric: town"),
        (pd.DataFrame({"age": pd.array([1, None], dtype="Int64")}), "NaN"),
        ([torch.ones(2), torch.ones(3)], r"different shapes, \(2,\) and \(3,\)"),
        (Items([X[0], X[1, :2]]), r"different shapes, \(2,\) and \(3,\)"),
        (Items([{"a": X[0]}, {"b": X[1]}]), r"different keys: \['a'\] and \['b'\]"),
        (Items([(X[0], 1), (X[1], None)]), "1 of 2 parts"),
        (TensorDataset(torch.ones(2, 1), torch.ones(2, 1), torch.ones(2)), "has 3 entries"),
        ([(X, Y), (X, Y)], "list of tuples .*With a `model`.*Without one"),
        ([(nn.Linear(3, 1), X)], r"list of tuples \(Linear, ndarray\)"),
    ],
)
def test_bad_data(data, message):
    with pytest.raises(SkgeoError, match=message):
        as_samples(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value):
    bad = X.copy()
    bad[3, 1] = value
    with pytest.raises(SkgeoError, match="NaN or inf: 1 of its 15 values, the first in sample 3"):
        as_samples(bad)
    with pytest.raises(SkgeoError, match=r"X\['a'\] holds NaN or inf"):
        as_samples({"a": torch.from_numpy(bad).bfloat16()})
    with pytest.raises(SkgeoError, match="y holds NaN or inf"):
        as_samples(X, bad[:, 1])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(4), r"5 samples and y has shape \(4,\)"),
        (3.0, r"y has shape \(\)"),
        ([[1], [2, 3]], "y could not be read"),
        ({"a": np.zeros(5)}, "y is a dict"),
        (sparse.csr_matrix(X), "y is a csr_matrix"),
        (np.zeros(5) * 1j, "y is complex"),
    ],
)
def test_bad_targets(y, message):
    with pytest.raises(SkgeoError, match=message):
        as_samples(X, y)
