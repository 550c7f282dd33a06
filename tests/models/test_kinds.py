import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from skgeo.exceptions import NotAModelError, SkgeoError
from skgeo.models import Checkpoint, WrappedModel, is_model, resolve_model

NET = nn.Linear(2, 1)


@pytest.mark.parametrize(
    "model",
    [
        NET,
        WrappedModel(NET),
        Checkpoint("weights.pt", nn.Identity),
        Ridge(),
        make_pipeline(StandardScaler(), Ridge()),
        FrozenEstimator(make_pipeline(StandardScaler(), Ridge())),
        make_pipeline(StandardScaler(), FrozenEstimator(Ridge())),
        make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), Ridge())),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models(model):
    assert is_model(model)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (None, "None is not a model"),
        (nn.Linear, r"The class Linear is not a model. Pass an instance: Linear\("),
        (Ridge, r"Pass an instance: Ridge\("),
        (NET.state_dict(), r"A state dict \(OrderedDict of 2 tensors\).*load_state_dict"),
        ("weights.pt", r"'weights.pt' is not a model.*Checkpoint\(path, factory\)"),
        (torch.optim.SGD(NET.parameters()), "The optimizer SGD"),
        ([NET, NET], r"A list of 2 is not a model.*\(model, X\) pairs"),
        ((NET, np.ones(2)), "A tuple of 2 is not a model"),
        (torch.ones(2), "A tensor is not a model"),
        (NET.forward, r"The function forward is not a model.*WrappedModel\(module"),
        (np.ones(2), "ndarray is not a model"),
        (nn.ModuleList([NET]), "ModuleList has no forward method"),
        (SVC(), "SVC has no parameters with a likelihood"),
        (make_pipeline(StandardScaler(), SVC()), "SVC has no"),
        (FrozenEstimator(SVC()), "SVC has no"),
        (Pipeline([("scale", StandardScaler()), ("net", NET)]), "ends in Linear, which cannot"),
        (make_pipeline(StandardScaler(), "passthrough"), "ends in 'passthrough'"),
        (Pipeline([]), "ends in None"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_others_are_told_what_to_pass(given, advice):
    assert not is_model(given)
    with pytest.raises(NotAModelError, match=advice):
        resolve_model(given, np.ones((2, 2)), np.ones(2), refit=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused():
    scripted = torch.jit.trace(NET, torch.ones(1, 2))
    assert not is_model(scripted)
    with pytest.raises(NotAModelError, match="TorchScript"):
        resolve_model(scripted, refit=False)
    with pytest.raises(NotAModelError, match="got TopLevelTracedModule as its module"):
        WrappedModel(scripted)


def test_forward_on_the_instance_counts():
    module = nn.Module()
    module.forward = lambda x: x
    assert is_model(module)


def test_parameters_without_values():
    with pytest.raises(SkgeoError, match="run one batch"):
        resolve_model(nn.LazyLinear(2), refit=False)
    with pytest.raises(SkgeoError, match="Parameter weight of Linear is on the meta device"):
        resolve_model(nn.Linear(2, 1, device="meta"), refit=False)
