import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skgeo.exceptions import SkgeoError
from skgeo.models import (
    Checkpoint,
    WrappedModel,
    needs_fit,
    needs_y,
    resolve_model,
    share_or_clone,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = X @ [1.0, 2.0, -1.0] + 0.1 * RNG.normal(size=40)
LABELS = np.where(Y > 0, "up", "down")


def outputs(resolved, X):
    with torch.no_grad():
        return resolved.module(resolved.samples(X).inputs).numpy()


@pytest.mark.parametrize("refit", [True, False])
def test_a_module_is_used_as_it_is(refit):
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout())
    state = dict(vars(module[1]))
    resolved = resolve_model(module, X, Y, refit=refit)
    assert resolved.module is module
    assert (resolved.forward, resolved.preprocess, resolved.likelihood) == (None, None, None)
    assert vars(module[1]) == state
    assert module.training


@pytest.mark.parametrize(
    ("module", "keeps"),
    [
        (nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 1)), True),
        (nn.EmbeddingBag(5, 2), True),
        (nn.Linear(2, 1), False),
        (WrappedModel(nn.Linear(2, 1)), False),
        (WrappedModel(nn.Linear(2, 1), forward=lambda m, x: m(x)), True),
    ],
)
def test_integers_are_indices_where_something_looks_them_up(module, keeps):
    resolved = resolve_model(module, refit=False)
    assert resolved.keep_integers is keeps
    dtype = resolved.samples(np.array([[1, 2]])).inputs.dtype
    assert dtype == (torch.int64 if keeps else torch.float32)


def test_a_compiled_module_is_unwrapped():
    """A stand-in for the class that torch.compile returns, whose import takes seconds."""

    class Compiled(nn.Module):
        def __init__(self, module):
            super().__init__()
            self._orig_mod = module

        def forward(self, x):
            return self._orig_mod(x)

    module = nn.Linear(3, 1)
    assert resolve_model(Compiled(module), refit=False).module is module


def test_bound_fits_a_clone():
    model = make_pipeline(StandardScaler(), Ridge())
    resolved = resolve_model(model, X, Y, refit=True)
    assert not hasattr(model[-1], "coef_")
    assert resolved.estimator is not model
    expected = clone(model).fit(X, Y).predict(X)
    np.testing.assert_allclose(outputs(resolved, X)[:, 0], expected, rtol=1e-12)


def test_bound_refits_a_fitted_model_and_leaves_it():
    model = Ridge().fit(X, -Y)
    coef = model.coef_.copy()
    resolved = resolve_model(model, X, Y, refit=True)
    np.testing.assert_array_equal(model.coef_, coef)
    np.testing.assert_allclose(
        resolved.module[0].weight.detach().numpy()[0], Ridge().fit(X, Y).coef_, rtol=1e-12
    )


def test_a_pair_uses_a_fitted_model_as_it_is():
    model = make_pipeline(StandardScaler(), Ridge()).fit(X, Y)
    resolved = resolve_model(model, X, -Y, refit=False)
    assert resolved.estimator is model
    np.testing.assert_allclose(outputs(resolved, X)[:, 0], model.predict(X), rtol=1e-12)


def test_a_pair_fits_an_unfitted_model_on_its_own_data():
    model = Ridge()
    resolved = resolve_model(model, X, Y, refit=False)
    assert not hasattr(model, "coef_")
    np.testing.assert_array_equal(resolved.estimator.coef_, Ridge().fit(X, Y).coef_)


@pytest.mark.parametrize(
    ("refit", "advice"), [(True, r"pass fit\(X, y\)"), (False, r"or pass y as well")]
)
def test_a_fit_without_targets(refit, advice):
    message = f"Ridge requires y to be passed, but the target y is None: .*{advice}"
    with pytest.raises(SkgeoError, match=message):
        resolve_model(Ridge(), X, None, refit=refit)
    with pytest.raises(SkgeoError, match="X is None"):
        resolve_model(Ridge(), None, None, refit=refit)


@pytest.mark.parametrize("refit", [True, False])
def test_frozen_is_used_as_fitted(refit):
    model = Ridge().fit(X, Y)
    resolved = resolve_model(FrozenEstimator(model), X, -Y, refit=refit)
    assert resolved.estimator.estimator is model
    np.testing.assert_allclose(outputs(resolved, X)[:, 0], model.predict(X), rtol=1e-12)
    whole = make_pipeline(StandardScaler(), Ridge()).fit(X, Y)
    resolved = resolve_model(FrozenEstimator(whole), X, None, refit=refit)
    np.testing.assert_allclose(outputs(resolved, X)[:, 0], whole.predict(X), rtol=1e-12)
    with pytest.raises(SkgeoError, match="FrozenEstimator holds Ridge that is not fitted"):
        resolve_model(FrozenEstimator(Ridge()), X, Y, refit=refit)


@pytest.mark.parametrize("refit", [True, False])
def test_steps_before_a_frozen_model_are_fitted(refit):
    """scikit-learn calls such a Pipeline fitted, for its last step is."""
    frozen = FrozenEstimator(Ridge().fit(X, Y))
    model = make_pipeline(StandardScaler(), frozen)
    resolved = resolve_model(model, 3 * X, None, refit=refit)
    assert not hasattr(model[0], "mean_")
    expected = frozen.predict(StandardScaler().fit_transform(X))
    np.testing.assert_allclose(outputs(resolved, 3 * X)[:, 0], expected, rtol=1e-10)


def test_nested_pipelines_transform_in_order():
    model = make_pipeline(
        StandardScaler(), make_pipeline(SelectKBest(f_regression, k=2), Ridge())
    ).fit(X, Y)
    resolved = resolve_model(model, X, refit=False)
    np.testing.assert_allclose(outputs(resolved, X)[:, 0], model.predict(X), rtol=1e-12)
    again = pickle.loads(pickle.dumps(resolved))
    np.testing.assert_array_equal(outputs(again, X), outputs(resolved, X))


def test_data_frames_reach_the_column_transformer():
    frame = pd.DataFrame({"town": ["a", "b", "a", "c"], "age": [1.0, 2.0, 3.0, 5.0]})
    encode = make_column_transformer((OneHotEncoder(), ["town"]), remainder="passthrough")
    encode.sparse_threshold = 1.0  # a sparse result on the way to the model is made dense
    model = make_pipeline(encode, Ridge()).fit(frame, [1.0, 2.0, 3.0, 4.0])
    resolved = resolve_model(model, frame, refit=False)
    np.testing.assert_allclose(outputs(resolved, frame)[:, 0], model.predict(frame), rtol=1e-12)


@pytest.mark.parametrize("model", [Ridge(), make_pipeline(StandardScaler(), Ridge())])
def test_datasets_and_tensors_fit_scikit_learn_models(model):
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    expected = clone(model).fit(X, Y).predict(X)
    for data, y in [
        (tensors, None),
        (DataLoader(tensors, 7), None),
        (torch.from_numpy(X), torch.from_numpy(Y)),
        (X.tolist(), Y.tolist()),
    ]:
        resolved = resolve_model(model, data, y, refit=True)
        np.testing.assert_allclose(outputs(resolved, data)[:, 0], expected, rtol=1e-10)
    assert resolved.samples(tensors).targets.shape == (40,)


def test_a_dict_is_no_table():
    with pytest.raises(SkgeoError, match="X is a dict of tensors"):
        resolve_model(Ridge(), {"a": torch.ones(4, 1)}, np.ones(4), refit=True)


def test_width_of_new_data():
    with pytest.raises(SkgeoError, match="X has 2 features, but Ridge is expecting 3 features"):
        resolve_model(Ridge().fit(X, Y), X[:, :2], refit=False)


@pytest.mark.parametrize(
    ("X", "y"),
    [
        (X[:, :1], Y),
        (X[:1], Y[:1]),
        (X.astype(np.float32), Y),
        (np.round(3 * X).astype(np.int64), Y),
        (X, Y.reshape(-1, 1)),
        (X, np.round(Y).astype(int)),
    ],
    ids=["1 feature", "1 sample", "float32", "integers", "column", "integer targets"],
)
@pytest.mark.parametrize(
    "model", [Ridge(), LinearRegression(), MLPRegressor(hidden_layer_sizes=(4,), max_iter=3)]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_regression_on_small_and_odd_data(model, X, y):
    resolved = resolve_model(model, X, y, refit=True)
    expected = np.asarray(resolved.estimator.predict(X)).reshape(len(X), -1)
    tolerance = 1e-4 if X.dtype == np.float32 else 1e-10
    np.testing.assert_allclose(outputs(resolved, X), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "y", [LABELS, LABELS == "up", (LABELS == "up") * 1.0, LABELS.astype(object)]
)
@pytest.mark.parametrize(
    "model", [LogisticRegression(), MLPClassifier((4,), max_iter=3, random_state=0)]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_labels_of_any_kind(model, y):
    resolved = resolve_model(model, X[:, :1], y, refit=True)
    p = 1 / (1 + np.exp(-outputs(resolved, X[:, :1])[:, 0]))
    np.testing.assert_allclose(p, resolved.estimator.predict_proba(X[:, :1])[:, 1], rtol=1e-10)
    assert resolved.likelihood == "bernoulli"


@pytest.mark.parametrize(
    ("model", "fit", "y"),
    [
        (nn.Linear(1, 1), False, False),
        (WrappedModel(nn.Linear(1, 1)), False, False),
        (Checkpoint("weights.pt", nn.Identity), False, False),
        (None, False, False),
        (Ridge(), True, True),
        (MLPClassifier(), True, True),
        (FrozenEstimator(Ridge()), False, False),
        (make_pipeline(StandardScaler(), Ridge()), True, True),
        (make_pipeline(StandardScaler(), FrozenEstimator(Ridge())), True, False),
        (make_pipeline(TargetEncoder(), FrozenEstimator(Ridge())), True, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_bound_fit_needs(model, fit, y):
    assert needs_fit(model) is fit
    assert needs_y(model) is y


def test_clones_share_points_and_copy_recipes():
    module, frozen = nn.Linear(1, 1), FrozenEstimator(Ridge().fit(X, Y))
    for shared in (module, WrappedModel(module), Checkpoint("w.pt", nn.Identity), frozen, None):
        assert share_or_clone(shared) is shared
    fitted = Ridge(alpha=3.0).fit(X, Y)
    copied = share_or_clone(fitted)
    assert copied.alpha == 3.0
    assert not hasattr(copied, "coef_")
    pipeline = share_or_clone(make_pipeline(StandardScaler(), frozen))
    assert pipeline[-1] is frozen
    assert share_or_clone("no model at all") == "no model at all"
