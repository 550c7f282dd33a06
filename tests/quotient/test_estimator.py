import threading

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from helpers.cases import BY_NAME, CASES
from helpers.laws import LockedMLP, PairLaws
from helpers.layer_oracles import dense_layer_metric
from helpers.networks import mlp, normal
from helpers.oracles import spectrum
from skgeo import GeometryWarning, RankAmbiguityWarning, SkgeoError, WrappedModel
from skgeo.quotient import LayerQuotientEstimator

# Small networks on few samples rarely have a clear gap, and these tests ask other things of them.
no_gap = pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")
limited_by_samples = pytest.warns(RankAmbiguityWarning, match="number of rows that the samples")


class LockedLayers(nn.Module):
    """A module that deepcopy cannot copy, made of layers, unlike the one of the laws."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.first, self.last = mlp(4, 5, 3)[::2]
        self.weights = [self.first.weight, self.last.weight]

    def forward(self, x):
        return self.last(self.first(x).tanh())


class TestLayerQuotientLaws(PairLaws):
    @pytest.fixture(autouse=True)
    def _locked(self, monkeypatch):
        monkeypatch.setattr("helpers.laws.LockedMLP", LockedLayers)

    def estimator(self, model=None, **parameters):
        return LayerQuotientEstimator(model, **{"likelihood": "categorical", **parameters})

    def pairs(self):
        return [(mlp(4, 5, 3, seed=seed), normal(6, 4, seed=10 + seed)) for seed in range(2)] + [
            (mlp(4, 6, 5, 3, seed=5), normal(7, 4, seed=3))
        ]


class TestLayerQuotientLawsWithTargets(PairLaws):
    def estimator(self, model=None, **parameters):
        return LayerQuotientEstimator(model, **parameters)

    def pairs(self):
        X, y = load_iris(return_X_y=True)
        X, y = X[::25] / 4, y[::25]
        return [(mlp(4, 5, 3, seed=seed), X, y) for seed in range(3)]

    test_modules_that_cannot_be_copied_are_measured_and_cloned = None
    test_a_changed_weight_is_not_read_from_the_cache = None
    test_a_model_changed_after_fit_is_refused = None


@no_gap
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_of_every_kind_of_network_matches_brute_force(case):
    module, inputs = case.module(), case.inputs()
    model = module if case.forward is None else WrappedModel(module, case.forward)
    fitted = LayerQuotientEstimator(model, likelihood="categorical").fit(inputs)
    for row in fitted.layers_.itertuples():
        metrics = dense_layer_metric(module, inputs, row.layer, "categorical", case.forward)
        expected = np.stack([spectrum(metric) for metric in metrics])
        found = fitted.eigenvalues_[row.layer]
        np.testing.assert_allclose(found, expected[:, : found.shape[1]], rtol=1e-9, atol=1e-13)
        ranks = (expected > 1e-13 * expected[:, :1]).sum(1)
        assert (row.rank_min, row.rank_median, row.rank_max) == (
            ranks.min(),
            np.median(ranks),
            ranks.max(),
        )
        assert row.dim == metrics.shape[1]
        assert row.nullity == row.dim - row.rank_median
        assert row.common_nullity == row.dim - row.common_rank
        mean = fitted.mean_eigenvalues_[row.layer]
        np.testing.assert_allclose(
            mean, spectrum(metrics.mean(0))[: len(mean)], rtol=1e-9, atol=1e-14
        )
        assert row.common_rank == (mean > row.tol * mean[0]).sum()
        path = fitted.rank_path_.query("layer == @row.layer")
        assert (np.diff(path["rank"]) <= 0).all()


def test_coordinates_are_projections_on_the_mean_metric():
    net, X = mlp(4, 9, 7, 3), normal(12, 4)
    fitted = LayerQuotientEstimator(net, likelihood="categorical", layer="1").fit(X)
    h = net[:2](X).detach().numpy()
    mean = dense_layer_metric(net, X, "1", "categorical").mean(0)
    _values, vectors = np.linalg.eigh(mean)
    expected = (h - h.mean(0)) @ vectors[:, ::-1]
    found = fitted.transform(X)
    assert found.shape == (12, fitted.layers_.set_index("layer").common_rank["1"])
    np.testing.assert_allclose(np.abs(found), np.abs(expected[:, : found.shape[1]]), atol=1e-6)
    np.testing.assert_allclose(found[:, :3].mean(0), 0.0, atol=1e-12)
    new = normal(5, 4, seed=9)
    np.testing.assert_allclose(
        fitted.transform(new),
        (net[:2](new).detach().numpy() - h.mean(0)) @ fitted.components_.T,
        atol=1e-12,
    )
    assert list(fitted.get_feature_names_out())[:2] == ["quotient_0", "quotient_1"]


def test_inverse_transform_collapses():
    net, X = mlp(4, 12, 3), 2 * normal(30, 4)
    fitted = LayerQuotientEstimator(net, likelihood="categorical").fit(X)
    assert fitted.layer_ == "1"
    assert fitted.components_.shape == (2, 12)
    assert fitted.quotient_fidelity_ < 1e-10
    Z = fitted.transform(X)
    back = fitted.inverse_transform(Z)
    assert back.shape == (30, 12)
    # The head is linear: what was thrown away, the softmax did not see.
    p, q = (
        net[2](torch.from_numpy(h)).softmax(1).detach() for h in (net[:2](X).detach().numpy(), back)
    )
    torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)
    h = torch.from_numpy(back)
    torch.testing.assert_close(torch.from_numpy(fitted.mean_ + Z @ fitted.components_), h)
    with pytest.raises(SkgeoError, match=r"\(n_samples, 2\)"):
        fitted.inverse_transform(Z[:, :1])


def test_components_are_clipped_to_the_common_rank():
    net, X = mlp(4, 6, 3), normal(20, 4)
    with pytest.warns(GeometryWarning, match="n_components=5 exceeds the common rank 2"):
        fitted = LayerQuotientEstimator(net, likelihood="categorical", n_components=5).fit(X)
    assert fitted.transform(X).shape == (20, 2)
    one = LayerQuotientEstimator(net, likelihood="categorical", n_components=1).fit(X)
    np.testing.assert_allclose(one.components_, fitted.components_[:1], atol=1e-12)
    assert one.quotient_fidelity_ > fitted.quotient_fidelity_
    none = LayerQuotientEstimator(net, likelihood="categorical", n_components=0).fit(X)
    assert np.isnan(none.quotient_fidelity_)
    with pytest.raises(SkgeoError, match="n_components=0"):
        none.transform(X)
    for wrong in (-1, 1.5, True):
        with pytest.raises(SkgeoError, match="non-negative integer"):
            LayerQuotientEstimator(net, likelihood="gaussian", n_components=wrong).fit(X)


def test_null_projectors_of_any_measured_layer():
    net, X = mlp(4, 6, 5, 3), normal(10, 4)
    fitted = LayerQuotientEstimator(net, likelihood="categorical").fit(X)
    new = normal(3, 4, seed=8)
    projectors = fitted.null_projector("1", new)
    metrics = dense_layer_metric(net, new, "1", "categorical")
    assert np.abs(metrics @ projectors).max() < 1e-14
    np.testing.assert_allclose(np.trace(projectors, axis1=1, axis2=2), 4.0)
    v = np.ones(6)
    np.testing.assert_allclose(fitted.null_projector("1", new, v), projectors @ v, atol=1e-14)
    with pytest.raises(SkgeoError, match="there are: 0, 1, 2, 3, 4"):
        fitted.null_projector("9", new)


def test_rank_jumps_are_a_table():
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-2.0]]))
        net[0].bias.copy_(torch.tensor([-0.3, 1.4]))
    X = np.array([[0.0], [1.0], [0.1]])
    fitted = LayerQuotientEstimator(net, likelihood="gaussian").fit(X)
    found = fitted.rank_jumps(X[0], X[1])
    assert list(found.columns) == ["t", "layer", "what", "before", "after"]
    np.testing.assert_allclose(found["t"], [0.3, 0.7], atol=1e-10)
    assert found["layer"].tolist() == ["1", "1"]
    assert list(fitted.rank_jumps(X[0], X[2]).columns) == list(found.columns)
    assert len(fitted.rank_jumps(X[0], X[2])) == 0
    tensors = fitted.rank_jumps(torch.zeros(1), torch.ones(1))
    np.testing.assert_array_equal(tensors["t"], found["t"])


def test_summary_is_of_one_width_for_any_depth():
    X = normal(9, 4)
    pairs = [(mlp(4, *widths, 3), X) for widths in ((5,), (6, 6), (7, 5, 6, 4))]
    estimator = LayerQuotientEstimator(likelihood="categorical")
    rows = estimator.fit_transform(pairs)
    assert rows.shape == (3, 16)
    names = list(estimator.get_feature_names_out())
    table = LayerQuotientEstimator(pairs[2][0], likelihood="categorical").fit(X).layers_
    share = (table["nullity"] / table["dim"]).to_numpy()
    found = dict(zip(names, rows[2], strict=True))
    assert found["quotient_nullity_share_first"] == share[0]
    assert found["quotient_nullity_share_last"] == share[-1]
    assert found["quotient_nullity_share_mean"] == pytest.approx(share.mean(), rel=1e-14)
    line = np.polyfit(np.linspace(0, 1, len(share)), share, 1)
    assert found["quotient_nullity_share_slope"] == pytest.approx(line[0], rel=1e-10)
    assert found["quotient_rank_mean"] == table["rank_median"].mean()


def test_one_layer_has_no_slope():
    fitted = LayerQuotientEstimator(nn.Linear(4, 3).double(), likelihood="gaussian")
    fitted.fit(normal(5, 4))
    with pytest.warns(GeometryWarning, match="One layer") as caught:
        summary = fitted.summary()
    assert len(caught) == 1
    assert np.isnan(summary["quotient_rank_slope"])
    assert summary["quotient_rank_first"] == summary["quotient_rank_last"] == 3.0


def test_pipelines_and_networks_of_scikit_learn():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(
        StandardScaler(), MLPClassifier((6, 5), max_iter=300, random_state=0, tol=1e-3)
    )
    fitted = LayerQuotientEstimator(pipeline).fit(X, y)
    assert fitted.likelihood_ == "categorical"
    assert fitted.layers_["rank_max"].max() <= 2
    assert fitted.transform(X).shape[0] == len(X)
    jumps = fitted.rank_jumps(X[0], X[100])
    assert set(jumps["what"]) <= {"pattern", "rank"}
    assert jumps["t"].between(0, 1).all()


def test_dict_inputs_and_integer_tokens():
    case = BY_NAME["dict"]
    module, inputs = case.module(), case.inputs()
    fitted = LayerQuotientEstimator(module, likelihood="categorical").fit(inputs)
    assert fitted.layers_["layer"].tolist() == ["embedding", "out"]
    assert fitted.transform(inputs).shape == (5, len(fitted.components_))
    same = {key: value[0] for key, value in inputs.items()}
    assert len(fitted.rank_jumps(same, same)) == 0
    with pytest.raises(SkgeoError, match="differ in integers"):
        fitted.rank_jumps(same, {key: value[1] for key, value in inputs.items()})


class TestBadInput:
    def fit(self, net, X, **parameters):
        return LayerQuotientEstimator(net, **{"likelihood": "categorical", **parameters}).fit(X)

    def test_layers_that_do_not_exist_are_refused_with_those_that_do(self):
        net, X = mlp(4, 5, 3), normal(6, 4)
        with pytest.raises(SkgeoError, match=r"No layer named 'fc'.*0, 1, 2"):
            self.fit(net, X, layers=["fc"])
        with pytest.raises(SkgeoError, match=r"No layer '2' among those looked at: 0, 1"):
            self.fit(net, X, layers=["0", "1"], layer="2")
        for name in ("1", "leaves"):
            with pytest.raises(SkgeoError, match=f"layers='{name}'; expected None or a list"):
                self.fit(net, X, layers=name)

    def test_branches_warn(self):
        case = BY_NAME["residual"]
        with pytest.warns(GeometryWarning, match="partial"), limited_by_samples:
            fitted = self.fit(case.module(), case.inputs(), layers=["block.bn1", "pool"])
        assert fitted.layers_["sample_limited"].tolist() == [True, False]
        assert fitted.layers_["is_cut"].tolist() == [False, True]
        assert fitted.layer_ == "pool"

    def test_networks_without_layers_are_refused(self):
        with pytest.raises(SkgeoError, match="Name the layers to look at"):
            self.fit(LockedMLP(), normal(6, 4))
        found = self.fit(LockedMLP(), normal(6, 4), layers=["LockedMLP"])
        assert found.layers_["common_rank"].tolist() == [2]

    def test_a_model_changed_after_fit_is_refused_by_every_method(self):
        net, X = mlp(4, 5, 3), normal(6, 4)
        fitted = self.fit(net, X)
        with torch.no_grad():
            net[0].bias += 1.0
        for method in (
            lambda: fitted.null_projector("1", X),
            lambda: fitted.rank_jumps(X[0], X[1]),
        ):
            with pytest.raises(SkgeoError, match="changed since fit"):
                method()

    def test_unbound_and_unfitted_estimators_have_no_geometry(self):
        unbound = LayerQuotientEstimator().fit([(mlp(4, 5, 3), normal(5, 4))])
        for method in (
            unbound.summary,
            lambda: unbound.inverse_transform(np.zeros((1, 1))),
            lambda: unbound.null_projector("0", normal(5, 4)),
            lambda: unbound.rank_jumps(normal(4), normal(4)),
        ):
            with pytest.raises(SkgeoError, match="bind the model"):
                method()
        with pytest.raises(NotFittedError):
            LayerQuotientEstimator(mlp(4, 5, 3)).null_projector("0", normal(5, 4))

    def test_a_dead_network_has_no_coordinates(self):
        net = nn.Sequential(nn.Linear(4, 3), nn.Threshold(100.0, 0.0), nn.Linear(3, 3)).double()
        with pytest.warns(GeometryWarning, match="within rounding of zero"):
            fitted = self.fit(net, normal(5, 4), layer="0")
        with pytest.raises(SkgeoError, match="common rank at layer '0' is 0"):
            fitted.transform(normal(5, 4))


@pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")
def test_probabilities_read_as_logits_warn():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(6, 3, generator=generator)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Softmax(-1))
    with pytest.warns(GeometryWarning, match="look like probabilities"):
        LayerQuotientEstimator(net, likelihood="categorical").fit(X)
