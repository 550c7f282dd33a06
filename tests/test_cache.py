"""What a cached row depends on, and what it keeps."""

import functools
import sys
import types
from typing import ClassVar

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from helpers.networks import linear, normal
from skgeo import FisherRankEstimator, GeometryWarning, SkgeoError, WrappedModel
from skgeo.models import fingerprint
from skgeo.models._digest import read_content

X = normal(6, 3)


def forward_that_imports(name):
    space = {"__name__": "__main__"}
    exec(f"import {name}\ndef forward(m, x):\n    return {name}.scaled(m(x))", space)
    return space["forward"]


@pytest.fixture
def helper(monkeypatch):
    module = types.ModuleType("my_helper")
    exec("FACTOR = 2.0\ndef scaled(z):\n    return FACTOR * z", vars(module))
    monkeypatch.setitem(sys.modules, "my_helper", module)
    return module


def test_functions_and_constants_of_a_helper_module_count(helper):
    net = linear(3, 2)
    before = fingerprint(WrappedModel(net, forward=forward_that_imports("my_helper")))
    assert before == fingerprint(WrappedModel(net, forward=forward_that_imports("my_helper")))
    helper.FACTOR = 3.0
    assert before != fingerprint(WrappedModel(net, forward=forward_that_imports("my_helper")))


def test_a_row_changes_with_the_helper_module(helper, tmp_path):
    net, estimator = linear(3, 2), FisherRankEstimator(likelihood="gaussian", memory=tmp_path)
    model = WrappedModel(net, forward=forward_that_imports("my_helper"))
    (first,) = estimator.fit_transform([(model, X)])
    helper.FACTOR = 3.0
    (second,) = estimator.fit_transform([(model, X)])
    trace = list(estimator.get_feature_names_out()).index("fisher_trace")
    assert second[trace] == pytest.approx(first[trace] * 9 / 4)


class Tool:
    """An object with code, which holds another one."""

    def __init__(self, inner=None):
        self.inner = inner


def test_code_of_objects_within_objects_counts():
    def made(factor):
        class Inner:
            def scale(self, z):
                return factor * z

        Inner.__qualname__ = "Inner"
        net = linear(3, 2)
        net.tool = Tool(Tool(Inner()))
        return net

    assert fingerprint(made(2.0)) != fingerprint(made(3.0))
    assert fingerprint(made(2.0)) == fingerprint(made(2.0))


def test_what_cannot_be_followed_is_not_cached_and_says_so(tmp_path):
    model = WrappedModel(linear(3, 2), forward=lambda m, x: eval("m(x)"))
    assert read_content(model)[1]
    estimator = FisherRankEstimator(likelihood="gaussian", memory=tmp_path)
    with pytest.warns(GeometryWarning, match="not cached.*eval"):
        estimator.fit_transform([(model, X)])
    assert not list(tmp_path.rglob("output.pkl"))


def test_warnings_are_kept_with_the_row(tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    estimator = FisherRankEstimator(memory=memory)
    found = []
    for _ in range(2):
        with pytest.warns(GeometryWarning) as caught:
            estimator.fit_transform([(nn.Sequential(linear(3, 2)), torch.ones(4, 3))])
        found.append(sorted(str(warning.message) for warning in caught))
    assert found[0] == found[1]


class OfNumber(nn.Module):
    gain = 1.0

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2).double()

    def forward(self, x):
        return self.read() * self.layer(x)

    def read(self):
        return self.gain


class OfDict(OfNumber):
    table: ClassVar = {"gain": 1.0}

    def read(self):
        return self.table["gain"]


class OfList(OfNumber):
    gains: ClassVar = [1.0]

    def read(self):
        return self.gains[0]


class OfTensor(OfNumber):
    gain = torch.tensor(1.0)


def gained(module, x, gain):
    return gain * module(x)


@pytest.mark.parametrize("kind", [OfNumber, OfDict, OfList, OfTensor])
def test_class_attributes_are_followed_by_the_cache_and_after_a_fit(kind, tmp_path, monkeypatch):
    cached = FisherRankEstimator(likelihood="gaussian", memory=tmp_path)
    fresh = FisherRankEstimator(likelihood="gaussian")
    model = kind()
    fitted = FisherRankEstimator(model, likelihood="gaussian").fit(X)
    (before,) = cached.fit_transform([(model, X)])
    if kind is OfDict:
        monkeypatch.setitem(OfDict.table, "gain", 6.0)
    elif kind is OfList:
        monkeypatch.setattr(OfList, "gains", [3.0])
    else:
        monkeypatch.setattr(kind, "gain", torch.tensor(6.0) if kind is OfTensor else 8.0)
    (after,) = cached.fit_transform([(model, X)])
    assert (after != before).any()
    np.testing.assert_array_equal(after, fresh.fit_transform([(model, X)])[0])
    with pytest.raises(SkgeoError, match="changed since fit"):
        fitted.transform(X)


def test_forward_functions_hooks_and_data_are_followed_by_the_cache(tmp_path):
    cached = FisherRankEstimator(likelihood="gaussian", memory=tmp_path)
    fresh = FisherRankEstimator(likelihood="gaussian")
    net = nn.Sequential(linear(3, 2))

    def times(gain):
        return lambda module, x: gain * module(x)

    def same(model, data=X):
        found = cached.fit_transform([(model, data)])
        np.testing.assert_array_equal(found, fresh.fit_transform([(model, data)]))

    for gain in (2.0, 5.0):
        same(WrappedModel(net, times(gain)))
        same(WrappedModel(net, functools.partial(gained, gain=gain)))
    same(net)
    handle = net.register_forward_hook(lambda module, inputs, output: 5 * output)
    same(net)
    handle.remove()
    same(net)
    same(net, 2 * X)
