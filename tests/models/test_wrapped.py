import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from skgeo.exceptions import NotAModelError
from skgeo.models import WrappedModel, resolve_model


def doubled(module, inputs):
    return 2 * module(inputs)


def test_calls_its_forward():
    module = nn.Linear(2, 1)
    x = torch.ones(3, 2)
    assert WrappedModel(module, forward=doubled)(x).equal(2 * module(x))
    assert WrappedModel(module)(x).equal(module(x))


def test_clone_shares_and_deepcopy_copies():
    model = WrappedModel(nn.Linear(2, 1), forward=doubled, likelihood="gaussian")
    assert clone(model) is model
    copied = copy.deepcopy(model)
    assert copied.module is not model.module
    assert copied.module.weight.equal(model.module.weight)


def test_pickles_with_its_function():
    model = pickle.loads(pickle.dumps(WrappedModel(nn.Linear(2, 1), doubled, "gaussian")))
    assert model.forward is doubled
    assert model.likelihood == "gaussian"


def test_resolves_to_its_own_parts():
    module = nn.Linear(2, 1)
    resolved = resolve_model(WrappedModel(module, doubled, "gaussian"), refit=False)
    assert resolved.module is module
    assert resolved.forward is doubled
    assert resolved.likelihood == "gaussian"
    assert resolved.samples(np.array([[1, 2]])).inputs.dtype == torch.int64


def test_repr_is_one_line():
    partial = functools.partial(doubled)
    assert repr(WrappedModel(nn.ReLU(), partial)) == "WrappedModel(ReLU, forward=partial(doubled))"
    assert repr(WrappedModel(nn.ReLU())) == "WrappedModel(ReLU)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.Linear,), "got type as its module"),
        ((doubled,), "got function"),
        ((WrappedModel(nn.ReLU()),), "got WrappedModel"),
        ((nn.ReLU(), "doubled"), "got forward='doubled'"),
        ((nn.ReLU(), None, 3), "got likelihood=3"),
    ],
)
def test_misuse(arguments, message):
    with pytest.raises(NotAModelError, match=message):
        WrappedModel(*arguments)
