import copy
import sys

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skgeo import SymmetryClassifier, fisher_trace
from skgeo.exceptions import NotAModelError
from skgeo.likelihood import Categorical
from skgeo.models import fingerprint, is_model, needs_y, resolve_model, share_or_clone
from skgeo.models._skorch_models import is_skorch
from skgeo.network import bind

skorch = pytest.importorskip("skorch")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3)).astype(np.float32)
CLASSES = np.digitize(X[:, 0] - X[:, 1], [-0.5, 0.5])
TWO = (X[:, 0] > 0).astype(np.float32)
SCORE = (X[:, :1] - X[:, 1:2]).astype(np.float32)


class Classifier(nn.Module):
    """Probabilities or logits of three classes, the way `ending` says."""

    def __init__(self, ending=nn.Identity, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 3))
        self.ending = ending() if ending is nn.Identity else ending(dim=-1)

    def forward(self, x):
        return self.ending(self.body(x))


class OneOutput(nn.Module):
    """One output a sample, as a vector or as a column, the first of a tuple or alone."""

    def __init__(self, column=True, first=False, sigmoid=False):
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.column, self.first, self.sigmoid = column, first, sigmoid

    def forward(self, x):
        z = self.line(x)
        z = torch.sigmoid(z) if self.sigmoid else z
        z = z if self.column else z.squeeze(-1)
        return (z, x) if self.first else z


class Named(nn.Module):
    """Two named inputs."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 1)

    def forward(self, x, shift):
        return self.line(x) + shift


def net(kind, module, **parameters):
    settings = {"max_epochs": 2, "lr": 0.05, "train_split": None, "verbose": 0}
    torch.manual_seed(0)
    return kind(module, **settings | parameters)


def outputs(resolved, X):
    found = bind(resolved, X).outputs()  # (n_samples, n_positions, n_outputs)
    return (found[:, 0] if found.shape[1] == 1 else found).numpy()


@pytest.mark.parametrize(
    ("ending", "criterion"),
    [(nn.Softmax, nn.NLLLoss), (nn.Identity, nn.CrossEntropyLoss)],
)
def test_classifier_outputs_are_logits_whatever_the_criterion(ending, criterion):
    model = net(
        skorch.NeuralNetClassifier, Classifier, module__ending=ending, criterion=criterion
    ).fit(X, CLASSES)
    resolved = resolve_model(model, X, refit=False)
    assert resolved.likelihood == "categorical"
    assert resolved.module is model.module_
    np.testing.assert_allclose(
        softmax(outputs(resolved, X), axis=1), model.predict_proba(X), rtol=1e-5
    )


def test_plain_net_takes_log_probabilities():
    model = net(
        skorch.NeuralNet, Classifier, module__ending=nn.LogSoftmax, criterion=nn.NLLLoss
    ).fit(X, CLASSES)
    resolved = resolve_model(model, X, refit=False)
    assert resolved.likelihood == "categorical"
    np.testing.assert_array_equal(outputs(resolved, X), model.predict(X))


@pytest.mark.parametrize("column", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_binary_classifier(column, first):
    model = net(
        skorch.NeuralNetBinaryClassifier, OneOutput, module__column=column, module__first=first
    )
    model = model.initialize() if first else model.fit(X, TWO)
    resolved = resolve_model(model, X, refit=False)
    assert resolved.likelihood == "bernoulli"
    z = outputs(resolved, X)
    assert z.shape == (30, 1)
    np.testing.assert_allclose(expit(z[:, 0]), model.predict_proba(X)[:, 1], rtol=1e-5)


def test_probabilities_of_one_class_become_logits():
    model = net(
        skorch.NeuralNetBinaryClassifier,
        OneOutput,
        module__sigmoid=True,
        module__column=False,
        criterion=nn.BCELoss,
    ).fit(X, TWO)
    resolved = resolve_model(model, X, refit=False)
    assert resolved.likelihood == "bernoulli"
    expected = model.module_.line(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(outputs(resolved, X), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "likelihood"),
    [
        ({}, "gaussian"),
        ({"criterion": nn.L1Loss}, "gaussian"),
        ({"criterion": nn.PoissonNLLLoss}, "poisson"),
    ],
)
def test_regressor(parameters, likelihood):
    model = net(skorch.NeuralNetRegressor, OneOutput, **parameters).fit(X, SCORE**2)
    resolved = resolve_model(model, X, refit=False)
    assert resolved.likelihood == likelihood
    np.testing.assert_allclose(outputs(resolved, X), model.predict(X), rtol=1e-6)


def test_rates_become_log_rates():
    criterion = nn.PoissonNLLLoss(log_input=False)
    model = net(skorch.NeuralNetRegressor, OneOutput, module__sigmoid=True, criterion=criterion)
    model.initialize()
    resolved = resolve_model(model, X, refit=False)
    assert resolved.likelihood == "poisson"
    np.testing.assert_allclose(np.exp(outputs(resolved, X)), model.predict(X), rtol=1e-5)


def test_a_criterion_without_likelihood_says_nothing():
    model = net(skorch.NeuralNet, OneOutput, criterion=nn.SoftMarginLoss).initialize()
    assert resolve_model(model, X, refit=False).likelihood is None


def test_classes_move_to_the_last_axis():
    model = net(skorch.NeuralNet, nn.Conv2d(1, 3, 1), criterion=nn.CrossEntropyLoss).initialize()
    images = RNG.normal(size=(2, 1, 4, 5)).astype(np.float32)
    z = outputs(resolve_model(model, images, refit=False), images)
    np.testing.assert_array_equal(z, model.forward(images).movedim(1, -1).flatten(1, 2))


def test_a_probability_that_underflows_has_finite_derivatives():
    model = net(skorch.NeuralNetClassifier, Classifier, module__ending=nn.Softmax).initialize()
    resolved = resolve_model(model, refit=False)
    x = torch.full((1, 3), 1e4)
    with torch.no_grad():
        resolved.module.body[2].weight.mul_(1e4)
    z = resolved.forward(resolved.module, x)
    assert torch.isfinite(z).all()
    (gradient,) = torch.autograd.grad(z.sum(), resolved.module.body[0].weight)
    assert torch.isfinite(gradient).all()


def test_named_inputs():
    data = {"x": X, "shift": np.ones((30, 1), dtype=np.float32)}
    model = net(skorch.NeuralNetRegressor, Named).fit(data, SCORE)
    resolved = resolve_model(model, data, refit=False)
    np.testing.assert_allclose(outputs(resolved, data), model.predict(data), rtol=1e-6)


def test_bound_fits_a_clone_and_leaves_the_module_instance():
    module = OneOutput()
    before = fingerprint(module)
    model = net(skorch.NeuralNetRegressor, module)
    resolved = resolve_model(model, X, SCORE, refit=True)
    assert not hasattr(model, "module_")
    assert fingerprint(module) == before
    assert resolved.module is resolved.estimator.module_
    assert fingerprint(resolved.module) != before


def test_datasets():
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(SCORE))
    model = net(skorch.NeuralNetRegressor, OneOutput())
    weights = {
        fingerprint(resolve_model(model, data, y, refit=True).module)
        for data, y in [(X, SCORE), (tensors, None), (DataLoader(tensors, 8), None)]
    }
    assert len(weights) == 1


def test_at_the_end_of_a_pipeline():
    model = make_pipeline(StandardScaler(), net(skorch.NeuralNetRegressor, OneOutput))
    resolved = resolve_model(model, X, SCORE, refit=True)
    np.testing.assert_allclose(outputs(resolved, X), resolved.estimator.predict(X), rtol=1e-5)


def test_clone_forgets_the_weights_unless_frozen():
    model = net(skorch.NeuralNetRegressor, OneOutput).fit(X, SCORE)
    assert not hasattr(share_or_clone(model), "module_")
    frozen = FrozenEstimator(model)
    assert share_or_clone(frozen) is frozen
    assert resolve_model(frozen, X, refit=True).module is model.module_


def test_fingerprint_follows_weights_and_criterion():
    model = net(skorch.NeuralNetRegressor, OneOutput).fit(X, SCORE)
    base = fingerprint(model)
    model.module_.eval()
    assert fingerprint(model) == base
    assert fingerprint(copy.deepcopy(model)) == base
    with torch.no_grad():
        model.module_.line.bias.add_(1)
    assert fingerprint(model) != base
    unfitted = net(skorch.NeuralNetRegressor, OneOutput)
    other = net(skorch.NeuralNetRegressor, OneOutput, criterion=nn.PoissonNLLLoss)
    assert fingerprint(unfitted) == fingerprint(net(skorch.NeuralNetRegressor, OneOutput))
    assert fingerprint(unfitted) != fingerprint(other)


def test_nets_that_cannot_be_followed():
    class Custom(skorch.NeuralNetRegressor):
        def infer(self, x, **fit_params):
            return 2 * super().infer(x, **fit_params)

    with pytest.raises(NotAModelError, match=r"its own `infer`.*WrappedModel\(net.module_"):
        resolve_model(net(Custom, OneOutput).initialize(), refit=False)


def test_recognised_without_importing_skorch(monkeypatch):
    model = net(skorch.NeuralNetRegressor, OneOutput)
    assert is_model(model)
    assert needs_y(model)
    monkeypatch.delitem(sys.modules, "skorch")
    assert not is_skorch(model)
    assert "skorch" not in sys.modules


@pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")
def test_a_classifier_has_the_symmetries_of_its_module():
    model = net(skorch.NeuralNetClassifier, Classifier, criterion=nn.CrossEntropyLoss)
    model = FrozenEstimator(model.fit(X, CLASSES))
    found = SymmetryClassifier(model).fit(X, CLASSES)
    expected = SymmetryClassifier(model.module_, likelihood="categorical").fit(X)
    np.testing.assert_allclose(
        list(found.summary().values()), list(expected.summary().values()), rtol=1e-9
    )
    assert found.minimal_width_ == expected.minimal_width_
    assert found.explained_nullity_ > 0


@pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")
def test_pixels_are_read_as_by_the_criterion():
    images = RNG.normal(size=(6, 1, 3, 2)).astype(np.float32)
    y = np.arange(36).reshape(6, 3, 2) % 3
    model = net(skorch.NeuralNet, nn.Conv2d(1, 3, 1), criterion=nn.CrossEntropyLoss)
    model = FrozenEstimator(model.fit(images, y))
    expected = fisher_trace(model.module_, images, likelihood=Categorical(class_axis=1))
    assert fisher_trace(model, images) == fisher_trace(model, images, y) == expected
