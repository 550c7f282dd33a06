"""Both readings of every kind of model."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers.laws import assert_same_rows
from helpers.oracles import dense_fisher, spectrum
from skgeo import Checkpoint, FisherRankEstimator, WrappedModel

pytestmark = pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")

X, y = (a[::10] for a in load_iris(return_X_y=True))
X = X.astype(np.float32)


def build():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))


def doubled(net, inputs):
    return 2 * net(inputs)


def skorch_net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = NeuralNetClassifier(
            build, criterion=nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0
        )
        return net.fit(X, y)


def checkpoint(folder):
    torch.save(build().state_dict(), folder / "weights.pt")
    return Checkpoint(folder / "weights.pt", build)


KINDS = {
    "module": lambda folder: build(),
    "wrapped": lambda folder: WrappedModel(build(), doubled, likelihood="categorical"),
    "checkpoint": checkpoint,
    "ridge": lambda folder: FrozenEstimator(Ridge().fit(X, y)),
    "pipeline": lambda folder: FrozenEstimator(
        make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    ),
    "skorch": lambda folder: FrozenEstimator(skorch_net()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_both_readings_agree(kind, tmp_path):
    model = KINDS[kind](tmp_path)
    (row,) = FisherRankEstimator().fit_transform([(model, X, y)])
    bound = FisherRankEstimator(model).fit(X, y)
    assert_same_rows(row, list(bound.summary().values()))
    assert bound.transform(X).shape == (len(X), bound.fisher_rank_)
    assert bound.likelihood_ == ("gaussian" if kind == "ridge" else "categorical")


@pytest.mark.parametrize("kind", ["ridge", "pipeline"])
def test_an_unfitted_model_is_fitted_alike_in_both(kind, tmp_path):
    model = KINDS[kind](tmp_path).estimator.__sklearn_clone__()
    (row,) = FisherRankEstimator().fit_transform([(model, X, y)])
    assert_same_rows(row, list(FisherRankEstimator(model).fit(X, y).summary().values()))


def test_a_wrapped_module_is_called_as_its_forward_says():
    model = KINDS["wrapped"](None)
    found = FisherRankEstimator(model).fit(X).eigenvalues_
    inputs = torch.from_numpy(X)
    expected = spectrum(dense_fisher(model.module, inputs, "categorical", doubled))[: len(found)]
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected[0])


def test_kinds_of_data_agree():
    inputs, targets = torch.from_numpy(X), torch.from_numpy(y)
    dataset = TensorDataset(inputs, targets)
    expected = FisherRankEstimator(build()).fit(X, y)
    for data in (
        (inputs, targets),
        (X.tolist(), y.tolist()),
        (pd.DataFrame(X), pd.Series(y)),
        (dataset,),
        (DataLoader(dataset, batch_size=4),),
    ):
        found = FisherRankEstimator(build()).fit(*data)
        assert found.likelihood_ == "categorical"
        np.testing.assert_allclose(
            found.eigenvalues_, expected.eigenvalues_, rtol=1e-10, atol=1e-14
        )
        if len(data) == 1:
            (row,) = FisherRankEstimator().fit_transform([(build(), *data)])
            assert_same_rows(row, list(found.summary().values()))


def test_inputs_may_be_a_dict_of_tensors():
    def forward(net, inputs):
        return net(inputs["left"] + inputs["right"])

    inputs = torch.from_numpy(X)
    parts = {"left": inputs / 4, "right": inputs * 3 / 4}
    found = FisherRankEstimator(WrappedModel(build(), forward, "categorical")).fit(parts)
    expected = FisherRankEstimator(build(), likelihood="categorical").fit(inputs)
    np.testing.assert_allclose(found.eigenvalues_, expected.eigenvalues_, rtol=1e-5, atol=1e-9)
    assert found.transform(parts).shape == (len(X), found.fisher_rank_)


def test_feature_names_and_widths_are_those_of_scikit_learn():
    frame = pd.DataFrame(X, columns=list("abcd"))
    fitted = FisherRankEstimator(build(), likelihood="categorical").fit(frame)
    assert list(fitted.feature_names_in_) == list("abcd")
    assert fitted.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.transform(frame[["a", "b", "c"]])
    with pytest.raises(ValueError, match="expecting 4 features"):
        FisherRankEstimator(build(), likelihood="categorical").fit(X).transform(X[:, :3])
