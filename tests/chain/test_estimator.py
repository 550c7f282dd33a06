import itertools
import threading

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from helpers.architectures import NETWORKS, build
from helpers.cases import BY_NAME, CASES
from helpers.chain_oracles import dense_between, quantities
from helpers.laws import LockedMLP, PairLaws, assert_same_rows
from helpers.networks import mlp, normal
from skgeo import GeometryWarning, SkgeoError, WrappedModel
from skgeo.chain import JacobianChainProfiler
from skgeo.chain._summaries import QUANTITIES

# Cuts of the real networks, the root of the chain among them where inputs are tokens.
LAYERS = {
    "resnet": ["conv1", "maxpool", "layer1.0", "layer1", "layer2", "avgpool", "fc"],
    "transformer": ["embedding", "blocks.0", "blocks.1", "blocks.2", "head"],
    "lstm": ["embedding", "lstm", "norm", "head"],
    "mlp": ["first", "second", "head"],
}
ROOT = {"transformer": "embedding", "lstm": "embedding"}


class LockedLayers(nn.Module):
    """A module that deepcopy cannot copy, made of layers, unlike the one of the laws."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.first, self.middle, self.last = mlp(4, 5, 5, 3)[::2]
        self.weights = [self.first.weight, self.last.weight]

    def forward(self, x):
        return self.last(self.middle(self.first(x).tanh()).tanh())


class Root(nn.Module):
    """Finite at zero, where its derivative is not."""

    def forward(self, x):
        return x.abs().sqrt()


class ChainLaws(PairLaws):
    chain = "input"

    @pytest.fixture(autouse=True)
    def _locked(self, monkeypatch):
        monkeypatch.setattr("helpers.laws.LockedMLP", LockedLayers)

    def estimator(self, model=None, **parameters):
        return JacobianChainProfiler(model, **{"chain": self.chain, **parameters})

    def pairs(self):
        return [(mlp(4, 5, 3, seed=seed), normal(6, 4, seed=10 + seed)) for seed in range(2)] + [
            (mlp(4, 6, 5, 3, seed=5), normal(7, 4, seed=3))
        ]


class TestInputLaws(ChainLaws):
    pass


class TestLayerLaws(ChainLaws):
    chain = "layer"


class TestOutputLaws(ChainLaws):
    chain = "output"


def expected_ends(chain, layers, cuts, place, root):
    """Names of the source and the target of a layer's Jacobian."""
    before = [name for name in layers[:place] if name in cuts]
    if chain == "layer":
        return (before[-1] if before else root), layers[place]
    return (root, layers[place]) if chain == "input" else (layers[place], None)


def assert_matches_brute_force(fitted, module, inputs, forward=None, root=None, rtol=1e-8):
    table = fitted.profile_
    layers = table["layer"].tolist()
    cuts = table.query("is_cut")["layer"].tolist()
    features = None
    for place, row in enumerate(table.itertuples()):
        source, target = expected_ends(fitted.chain, layers, cuts, place, root)
        jacobians = dense_between(module, inputs, target, source, forward)
        values = np.linalg.svd(jacobians, compute_uv=False)
        found = fitted.singular_values_[row.layer]
        np.testing.assert_allclose(found, values, rtol=rtol, atol=1e-9 * values.max())
        each = [quantities(jacobian) for jacobian in jacobians]
        features = fitted.transform(inputs) if features is None else features
        for number, name in enumerate(QUANTITIES):
            exact = np.array([one[name] for one in each], dtype=np.float64)
            column = features[:, len(QUANTITIES) * place + number]
            # The oracle knows no singular value better than eps relative to the largest.
            rough = 1e-12 * max(1.0, max(one["condition"] for one in each))
            np.testing.assert_allclose(column, exact, rtol=rough, atol=1e-9, err_msg=name)
            assert getattr(row, name) == pytest.approx(exact.mean(), rel=rough, abs=1e-9)
            error = exact.std(ddof=1) / len(exact) ** 0.5
            assert getattr(row, f"{name}_se") == pytest.approx(error, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("chain", ["layer", "input", "output"])
@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks_match_brute_force(name, chain):
    module, inputs = build(name, n=3)
    root = ROOT.get(name)
    fitted = JacobianChainProfiler(
        module, chain=chain, layers=LAYERS[name], n_singular_values="all"
    ).fit(inputs)
    kept = LAYERS[name][:-1] if chain == "output" else LAYERS[name]
    if chain != "output":
        kept = [layer for layer in kept if layer != root]
    assert fitted.layer_names_ == kept
    assert fitted.profile_["is_cut"].all()
    assert_matches_brute_force(fitted, module, inputs, root=root)


@pytest.mark.parametrize("chain", ["layer", "input", "output"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_of_every_kind_of_network_matches_brute_force(case, chain):
    module, inputs = case.module(), case.inputs(3)
    model = module if case.forward is None else WrappedModel(module, case.forward)
    estimator = JacobianChainProfiler(model, chain=chain, n_singular_values="all")
    if chain == "output" and case.name in ("linear", "bare"):
        with pytest.raises(SkgeoError, match="nothing lies between"):
            estimator.fit(inputs)
        return
    # Where inputs are indices, the chain starts behind the first layer.
    root = {"embedding": "0", "embedding_tied": "embedding", "dict": "embedding"}.get(case.name)
    assert_matches_brute_force(estimator.fit(inputs), module, inputs, case.forward, root)


@pytest.mark.parametrize("chain", ["input", "output"])
def test_single_precision_agrees_with_double(chain):
    net, X = mlp(6, 9, 8, 7, 4), normal(5, 6)
    double = JacobianChainProfiler(net, chain=chain).fit(X)
    single = JacobianChainProfiler(net.float(), chain=chain).fit(X.float())
    assert single.profile_["log_volume"].dtype == np.float64
    np.testing.assert_array_equal(single.profile_["rank"], double.profile_["rank"])
    for name in double.layer_names_:
        np.testing.assert_allclose(
            single.singular_values_[name], double.singular_values_[name], rtol=2e-5
        )


def test_exponents_are_those_of_the_whole_chain():
    net, X = mlp(5, 5, 6, 5), normal(4, 5)
    for chain in ("input", "layer"):
        fitted = JacobianChainProfiler(net, chain=chain).fit(X)
        s = np.linalg.svd(dense_between(net, X, None), compute_uv=False)
        np.testing.assert_allclose(fitted.lyapunov_exponents_, (np.log(s) / 5).mean(0), rtol=1e-10)
    fitted = JacobianChainProfiler(net, chain="output").fit(X)
    s = np.linalg.svd(dense_between(net, X, None, "0"), compute_uv=False)
    np.testing.assert_allclose(fitted.lyapunov_exponents_, (np.log(s) / 4).mean(0), rtol=1e-10)


def test_deep_orthogonal_networks_are_isometries():
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(16, 16) for _ in range(50))).double()
    for layer in net:
        nn.init.orthogonal_(layer.weight)
    fitted = JacobianChainProfiler(net).fit(normal(3, 16))
    for values in fitted.singular_values_.values():
        np.testing.assert_allclose(values, 1.0, atol=1e-11)
    assert fitted.profile_["isometry_deviation"].max() < 1e-11
    assert fitted.profile_["log_volume"].abs().max() < 1e-11
    np.testing.assert_allclose(fitted.lyapunov_exponents_, 0.0, atol=1e-12)


class TestLeadingValues:
    net = mlp(40, 300, 280, 3, dtype=torch.float64)
    X = normal(4, 40)

    def test_few_are_the_first_of_all(self):
        every = JacobianChainProfiler(self.net, n_singular_values="all").fit(self.X)
        few = JacobianChainProfiler(self.net, n_singular_values=3).fit(self.X)
        for name in every.layer_names_:
            np.testing.assert_allclose(
                few.singular_values_[name], every.singular_values_[name][:, :3], rtol=1e-8
            )

    def test_large_layers_give_the_leading_ten_and_what_their_structure_gives(self):
        options = {"chain": "layer", "layers": ["1", "3", "4"]}
        every = JacobianChainProfiler(self.net, n_singular_values="all", **options).fit(self.X)
        with pytest.warns(GeometryWarning, match="leading singular values.*'3'.*sigma_min") as w:
            some = JacobianChainProfiler(self.net, **options).fit(self.X)
        assert len(w) == 1
        assert some.singular_values_["3"].shape == (4, 10)
        assert some.singular_values_["1"].shape == (4, 40)
        np.testing.assert_allclose(
            some.singular_values_["3"], every.singular_values_["3"][:, :10], rtol=1e-5
        )
        for name in ("log_volume", "rank", "isometry_deviation"):
            np.testing.assert_allclose(some.profile_[name], every.profile_[name], rtol=1e-9)
        for name in ("sigma_max", "stable_rank"):
            np.testing.assert_allclose(some.profile_[name], every.profile_[name], rtol=1e-5)
        undefined = some.profile_[["sigma_min", "condition", "effective_rank"]].isna()
        assert undefined.to_numpy().tolist() == [[False] * 3, [True] * 3, [False] * 3]
        assert np.isnan(some.lyapunov_exponents_).all()
        assert np.isnan(some.summary()["chain_sigma_min_mean"])
        assert some.summary()["chain_rank_first"] == 40.0

    def test_more_than_there_are_is_refused(self):
        with pytest.raises(SkgeoError, match=r"n_singular_values=5.*layer '4' is 3 x 40 and has 3"):
            JacobianChainProfiler(self.net, n_singular_values=5).fit(self.X)
        for wrong in (0, -1, 2.5, "most", True, None):
            with pytest.raises(SkgeoError, match="'auto', 'all' or a positive integer"):
                JacobianChainProfiler(self.net, n_singular_values=wrong).fit(self.X)


def test_summary_is_of_one_width_for_any_depth():
    X = normal(9, 4)
    pairs = [(mlp(4, *widths, 3), X) for widths in ((5,), (6, 6), (7, 5, 6, 4))]
    estimator = JacobianChainProfiler()
    rows = estimator.fit_transform(pairs)
    assert rows.shape == (3, 32)
    names = list(estimator.get_feature_names_out())
    table = JacobianChainProfiler(pairs[2][0]).fit(X).profile_
    found = dict(zip(names, rows[2], strict=True))
    volume = table["log_volume"].to_numpy()
    assert found["chain_log_volume_first"] == volume[0]
    assert found["chain_log_volume_last"] == volume[-1]
    assert found["chain_log_volume_mean"] == pytest.approx(volume.mean(), rel=1e-14)
    line = np.polyfit(np.linspace(0, 1, len(volume)), volume, 1)
    assert found["chain_log_volume_slope"] == pytest.approx(line[0], rel=1e-10)


def test_one_layer_has_no_slope():
    fitted = JacobianChainProfiler(nn.Linear(4, 3).double()).fit(normal(5, 4))
    with pytest.warns(GeometryWarning, match="Fewer than two layers") as caught:
        summary = fitted.summary()
    assert len(caught) == 1
    assert np.isnan(summary["chain_rank_slope"])
    assert summary["chain_rank_first"] == summary["chain_rank_last"] == 3.0


def test_names_are_those_of_layers_and_quantities():
    fitted = JacobianChainProfiler(mlp(4, 5, 3)).fit(normal(6, 4))
    names = list(fitted.get_feature_names_out())
    assert names == [
        f"chain_{layer}_{name}" for layer, name in itertools.product("012", QUANTITIES)
    ]
    assert not hasattr(fitted, "predict")


def test_pipelines_and_networks_of_scikit_learn():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(
        StandardScaler(),
        MLPClassifier((6, 5), "tanh", max_iter=600, random_state=0, tol=1e-2),
    )
    fitted = JacobianChainProfiler(pipeline).fit(X, y)
    assert fitted.profile_["rank"].max() <= 4
    assert fitted.transform(X[:7]).shape == (7, 8 * len(fitted.layer_names_))


def test_dict_inputs_start_behind_the_tokens():
    case = BY_NAME["dict"]
    fitted = JacobianChainProfiler(case.module()).fit(case.inputs())
    assert fitted.layer_names_ == ["out"]


class TestBadInput:
    def test_products_over_branches_are_undefined(self):
        case = BY_NAME["residual"]
        module, inputs = case.module(), case.inputs()
        layers = ["stem", "block.bn1", "block", "fc"]
        for chain in ("input", "output"):
            with pytest.warns(GeometryWarning, match=r"layer 'block\.bn1'.*NaN") as caught:
                fitted = JacobianChainProfiler(module, chain=chain, layers=layers).fit(inputs)
            assert len(caught) == 1
            table = fitted.profile_.set_index("layer")
            assert not table.is_cut["block.bn1"]
            assert table.loc["block.bn1", ["log_volume", "rank", "sigma_max"]].isna().all()
            assert np.isnan(fitted.singular_values_["block.bn1"]).all()
            others = [name for name in table.index if name != "block.bn1"]
            only = JacobianChainProfiler(
                module, chain=chain, layers=[x for x in layers if x != "block.bn1"]
            ).fit(inputs)
            np.testing.assert_allclose(
                table.loc[others, "log_volume"], only.profile_["log_volume"], rtol=1e-12
            )
            assert_same_rows(list(fitted.summary().values()), list(only.summary().values()))
            with pytest.raises(SkgeoError, match="chain='layer'"):
                JacobianChainProfiler(module, chain=chain, layers=layers, strict=True).fit(inputs)
        own = JacobianChainProfiler(module, chain="layer", layers=layers, strict=True).fit(inputs)
        assert_matches_brute_force(own, module, inputs)

    def test_what_does_not_exist_is_refused(self):
        net, X = mlp(4, 5, 3), normal(6, 4)
        with pytest.raises(SkgeoError, match=r"No layer named 'fc'.*0, 1, 2"):
            JacobianChainProfiler(net, layers=["fc"]).fit(X)
        with pytest.raises(SkgeoError, match=r"chain='up'; expected one of.*'layer', 'input'"):
            JacobianChainProfiler(net, chain="up").fit(X)
        with pytest.raises(SkgeoError, match=r"tol=2.*\[0, 1\)"):
            JacobianChainProfiler(net, tol=2).fit(X)
        with pytest.raises(SkgeoError, match="batch_size=0"):
            JacobianChainProfiler(net, batch_size=0).fit(X)
        with pytest.raises(SkgeoError, match="nothing lies between"):
            JacobianChainProfiler(nn.Linear(4, 3), chain="output").fit(X.float())
        with pytest.raises(SkgeoError, match="no chain"):
            JacobianChainProfiler(BY_NAME["embedding"].module(), layers=["0"]).fit(
                BY_NAME["embedding"].inputs()
            )
        with pytest.raises(SkgeoError, match="Name the layers to look at"):
            JacobianChainProfiler(LockedMLP()).fit(X)

    def test_numbers_that_are_none_are_refused(self):
        net, X = mlp(4, 5, 3), normal(6, 4)
        with pytest.raises(SkgeoError, match="NaN or inf"):
            JacobianChainProfiler(net).fit(X / 0)
        with pytest.raises(SkgeoError, match="cannot be run on this data"):
            JacobianChainProfiler(net).fit(normal(6, 9))
        broken = nn.Sequential(nn.Linear(4, 3), Root(), nn.Linear(3, 2)).double()
        with torch.no_grad():
            broken[0].weight.zero_()
            broken[0].bias.zero_()
        with pytest.raises(SkgeoError, match="not differentiable there"):
            JacobianChainProfiler(broken).fit(X)

    def test_unaffordable_matrices_are_refused_with_their_size(self, monkeypatch):
        monkeypatch.setattr("skgeo.linalg._memory.available_memory", lambda device="cpu": 2**16)
        net, X = mlp(40, 60, 50), normal(3, 40)
        with pytest.raises(SkgeoError, match=r"50 x 40.*KiB.*n_singular_values=10"):
            JacobianChainProfiler(net).fit(X)


@pytest.mark.filterwarnings("error")
def test_a_dead_network_has_no_spread():
    net = nn.Sequential(nn.Linear(4, 3), nn.Threshold(100.0, 0.0), nn.Linear(3, 3)).double()
    with pytest.warns(GeometryWarning, match="'1', '2' is zero.*condition") as caught:
        fitted = JacobianChainProfiler(net).fit(normal(5, 4))
    assert len(caught) == 1
    assert fitted.profile_["rank"].tolist() == [3.0, 0.0, 0.0]
    assert fitted.profile_["log_volume"].tolist()[1:] == [0.0, 0.0]
    assert fitted.profile_["condition"].isna().tolist() == [False, True, True]
    assert np.isneginf(fitted.lyapunov_exponents_).all()
