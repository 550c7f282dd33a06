import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from helpers.architectures import build
from helpers.laws import LockedMLP, PairLaws, assert_same_rows
from helpers.networks import mlp, normal
from helpers.oracles import dense_jacobian
from skgeo import (
    GeometryWarning,
    LayerQuotientEstimator,
    RankAmbiguityWarning,
    SkgeoError,
    WrappedModel,
)
from skgeo.datasets import planted_relu, switched_off, symmetric_hinges, two_hinges
from skgeo.symmetry import UNIT_CLASSES, SymmetryClassifier, compress


def classify(case, **options):
    return SymmetryClassifier(case.module, likelihood=case.likelihood, **options).fit(case.inputs)


class TestSymmetryLaws(PairLaws):
    def estimator(self, model=None, **parameters):
        return SymmetryClassifier(model, **{"likelihood": "categorical", **parameters})

    def pairs(self):
        return [
            (mlp(4, 5, 3, activation=nn.ReLU, seed=0), normal(60, 4, seed=10)),
            (mlp(4, 6, 3, seed=5), normal(40, 4, seed=3)),
            (mlp(4, 4, 4, 3, activation=nn.ReLU, seed=2), 3 * normal(60, 4, seed=4)),
        ]


@pytest.mark.parametrize("domain", ["box", "data"])
def test_two_readings_are_one_on_a_domain(domain):
    pairs = [(mlp(4, 5, 3, activation=nn.ReLU, seed=seed), normal(60, 4)) for seed in range(2)]
    rows = SymmetryClassifier(domain=domain, likelihood="gaussian").fit_transform(pairs)
    for row, (module, X) in zip(rows, pairs, strict=True):
        bound = SymmetryClassifier(module, domain=domain, likelihood="gaussian").fit(X)
        assert_same_rows(row, list(bound.summary().values()))


def test_opposite_hinges():
    fitted = classify(symmetric_hinges())
    assert fitted.labels_.tolist() == ["reversible"] * 4
    assert fitted.classes_.tolist() == ["reversible"]
    assert fitted.reversible_sets_ == [(0, 2), (1, 3), (0, 1, 2, 3)]
    assert fitted.reversible_sets_complete_
    assert (fitted.fisher_rank_, fitted.n_parameters_) == (13, 17)
    assert fitted.explained_nullity_ == 4
    assert fitted.unexplained_nullity_ == 0
    assert (fitted.minimal_width_, fitted.minimal_width_is_optimal_) == (4, True)
    assert fitted.rank_threshold_ > 0
    assert fitted.spectral_gap_ > 1e6
    assert fitted.not_covered_ == ()


@pytest.mark.parametrize(
    ("kind", "label", "rank"),
    [
        ("generic", "generic", 13),
        ("duplicate", "duplicate", 10),
        ("antiparallel", "antiparallel", 12),
        ("no_output", "q_degenerate", 11),
        ("constant_off", "w_degenerate", 10),
        ("constant_on", "w_degenerate", 12),
    ],
)
def test_planted_degeneracies(kind, label, rank):
    fitted = classify(planted_relu(kind))
    assert fitted.labels_[0] == label
    assert set(fitted.labels_[2:]) == {"generic"}
    assert fitted.fisher_rank_ == rank
    assert fitted.unexplained_nullity_ == 0
    assert fitted.explained_nullity_ == 17 - rank
    assert fitted.minimal_width_ <= 4 - (kind in ("duplicate", "no_output", "constant_off"))
    row = fitted.symmetries_.iloc[1]
    if kind in ("duplicate", "antiparallel"):
        sign = 1 if kind == "duplicate" else -1
        assert (row["partner"], row["scale"]) == (0, pytest.approx(sign * 2.0))
        assert row["residual"] < 1e-15


def test_the_table_has_a_row_a_unit():
    fitted = SymmetryClassifier(mlp(3, 5, 4, 2, activation=nn.ReLU), likelihood="gaussian").fit(
        normal(80, 3)
    )
    table = fitted.symmetries_
    assert list(table) == ["layer", "unit", "class", "group", "partner", "scale", "residual"]
    assert table["layer"].tolist() == ["0"] * 5 + ["2"] * 4
    assert table["unit"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert table["class"].tolist() == fitted.labels_.tolist()
    assert len(pd.DataFrame(fitted.generators_.table)) == fitted.generators_.matrix.shape[1]


@pytest.mark.parametrize("domain", [None, "box", "data"])
def test_units_that_are_off_or_on_somewhere(domain):
    fitted = classify(switched_off(), domain=domain)
    assert fitted.labels_.tolist() == ["generic" if domain is None else "dead"]
    assert fitted.fisher_rank_ == 1
    assert fitted.unexplained_nullity_ == 0
    assert fitted.minimal_width_ == (1 if domain is None else 0)
    assert fitted.minimal_width_is_optimal_


def test_boxes_are_wider_than_data():
    module = mlp(2, 1, 1, activation=nn.ReLU)
    with torch.no_grad():
        module[0].weight[:] = torch.tensor([[1.0, 1.0]])
        module[0].bias[:] = -1.5
    X = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    labels = {
        domain: SymmetryClassifier(module, domain=domain, likelihood="gaussian").fit(X).labels_[0]
        for domain in (None, "box", "data")
    }
    assert labels == {None: "generic", "box": "generic", "data": "dead"}


def test_shares_of_responding_units():
    module = planted_relu("duplicate").module
    X = normal(50, 2)
    fitted = SymmetryClassifier(module, likelihood="gaussian").fit(3 * normal(200, 2, seed=1))
    features = fitted.transform(X)
    assert list(fitted.get_feature_names_out()) == [
        "symmetry_generic_active",
        "symmetry_duplicate_active",
        "symmetry_boundary_distance",
    ]
    arguments = (X @ module[0].weight.T + module[0].bias).detach()
    active = (arguments > 0).numpy()
    np.testing.assert_array_equal(features[:, 0], active[:, 2:].mean(1))
    np.testing.assert_array_equal(features[:, 1], active[:, :2].mean(1))
    distances = (arguments / torch.linalg.vector_norm(module[0].weight, dim=1)).abs().amin(1)
    np.testing.assert_allclose(features[:, 2], distances.detach(), rtol=1e-12)


def test_distances_in_deep_networks_are_to_the_end_of_the_region():
    module = mlp(2, 6, 5, 1, activation=nn.ReLU, seed=3)
    X = normal(20, 2)
    fitted = SymmetryClassifier(module, likelihood="gaussian").fit(3 * normal(200, 2, seed=1))
    distances = fitted.transform(X)[:, -1]

    def pattern(points):
        first = module[0](points)
        return torch.cat([first > 0, module[2](first.relu()) > 0], dim=-1)

    angles = torch.linspace(0, 2 * torch.pi, 721, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    for x, distance in zip(X, torch.from_numpy(distances), strict=True):
        inside = pattern(x + 0.999 * distance * circle) == pattern(x)
        assert bool(inside.all())
        outside = pattern(x + 1.001 * distance * circle) == pattern(x)
        assert not bool(outside.all())


def test_smooth_units_respond_above_a_thousandth():
    module = mlp(1, 2, 1, seed=1)
    with torch.no_grad():
        module[0].weight[:] = torch.tensor([[1.0], [10.0]])
        module[0].bias[:] = 0.0
    fitted = SymmetryClassifier(module, likelihood="gaussian").fit(normal(50, 1))
    found = fitted.transform(torch.tensor([[0.1], [1.0], [9.0]]).double())
    np.testing.assert_array_equal(found[:, 0], [1.0, 0.5, 0.0])
    assert np.isnan(found[:, 1]).all()


def test_convolutions_respond_at_any_position():
    module = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
    )
    module = module.double().eval()
    X = normal(6, 1, 3, 3)
    fitted = SymmetryClassifier(module, likelihood="gaussian").fit(normal(60, 1, 3, 3, seed=1))
    assert fitted.symmetries_["layer"].tolist() == ["0", "0"]
    arguments = module[1](module[0](X))
    active = (arguments > 0).flatten(2).any(2)
    features = fitted.transform(X)
    np.testing.assert_array_equal(features[:, 0], active.double().mean(1))
    weight = module[0].weight * (module[1].weight / (1 + module[1].eps) ** 0.5)[:, None, None, None]
    norms = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    expected = (arguments.abs() / norms[:, None, None]).flatten(1).amin(1)
    np.testing.assert_allclose(features[:, -1], expected.detach(), rtol=1e-10)


def test_generators_are_null_directions():
    case = planted_relu("antiparallel")
    fitted = classify(case)
    _, jacobian = dense_jacobian(case.module, case.inputs)
    rows = jacobian.reshape(-1, 17)
    columns = fitted.generators_.matrix.toarray()
    bound = 1e-10 * np.linalg.norm(rows, 2) * np.linalg.norm(columns, axis=0)
    assert (np.linalg.norm(rows @ columns, axis=0) <= bound).all()


def test_calls_without_data_work_before_fit():
    a, b = two_hinges().module, two_hinges(reversed_orientation=True).module
    symmetry = SymmetryClassifier(a)
    assert symmetry.equivalent(b).verdict == "equivalent"
    assert symmetry.equivalent(SymmetryClassifier(b)).verdict == "equivalent"
    assert symmetry.equivalent(mlp(1, 2, 1, activation=nn.ReLU)).verdict == "different"
    assert symmetry.canonical().complete
    assert symmetry.canonical().matches(SymmetryClassifier(b).canonical())
    duplicate = planted_relu("duplicate").module
    report = SymmetryClassifier(duplicate).compress()
    assert report.widths == (3,)
    assert report.error < 1e-10
    assert not hasattr(symmetry, "model_")
    curve = SymmetryClassifier(duplicate).compress(normal(50, 2), exact=False).curve
    assert len(curve) > 0
    off = switched_off()
    assert SymmetryClassifier(off.module).compress(off.inputs, domain="data").widths == (0,)


def test_calls_need_one_model():
    for call in ("canonical", "compress"):
        with pytest.raises(SkgeoError, match="expected a bound one"):
            getattr(SymmetryClassifier(), call)()
    with pytest.raises(SkgeoError, match="expected a bound one"):
        SymmetryClassifier().equivalent(mlp(2, 3, 1))
    wrapped = WrappedModel(mlp(2, 3, 1), forward=lambda module, x: module(x) + 1)
    with pytest.raises(SkgeoError, match="not a plain chain"):
        SymmetryClassifier(wrapped).canonical()
    plain = WrappedModel(mlp(2, 3, 1), forward=lambda module, x: module(x))
    assert SymmetryClassifier(plain).equivalent(plain.module).verdict == "equivalent"
    assert not hasattr(SymmetryClassifier(), "predict")


def test_sklearn_models():
    X, y = load_iris(return_X_y=True)
    model = MLPClassifier((5,), max_iter=30, random_state=0)
    with pytest.warns(match="Maximum iterations"):
        model.fit(X, y)
    symmetry = SymmetryClassifier(FrozenEstimator(model)).fit(X, y)
    assert symmetry.likelihood_ == "categorical"
    assert len(symmetry.labels_) == 5
    dimensions = symmetry.generators_.dimensions
    assert dimensions["scaling"] == 5
    assert dimensions["softmax_shift"] == 6
    assert symmetry.equivalent(model).verdict == "equivalent"
    assert symmetry.transform(X).shape == (150, len(symmetry.classes_) + 1)


@pytest.mark.parametrize("model", [Ridge(), LogisticRegression(), LockedMLP()])
def test_models_without_classified_units(model):
    X, y = load_iris(return_X_y=True)
    X = X / 4  # within reach of a tanh
    symmetry = SymmetryClassifier(model, likelihood="gaussian").fit(X, y % 2)
    assert symmetry.labels_.shape == symmetry.classes_.shape == (0,)
    assert symmetry.symmetries_.empty
    summary = symmetry.summary()
    shares = [summary[f"symmetry_{name}_share"] for name in UNIT_CLASSES]
    assert np.isnan(shares).all()
    assert np.isnan(summary["symmetry_minimal_width_ratio"])
    assert summary["symmetry_unexplained_nullity"] == 0
    features = symmetry.transform(X)
    assert features.shape == (150, 1)
    assert np.isnan(features).all()
    assert (symmetry.not_covered_ == ()) == (not isinstance(model, LockedMLP))


def test_residual_networks_are_covered_in_part():
    module, inputs = build("resnet", 8)
    with pytest.warns(RankAmbiguityWarning, match="number of rows"):
        symmetry = SymmetryClassifier(module, likelihood="categorical").fit(inputs)
    # Units before a residual sum are not classified.
    assert symmetry.symmetries_["layer"].unique().tolist() == [
        "layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1",
    ]  # fmt: skip
    assert np.isnan(symmetry.minimal_width_)
    assert symmetry.explained_nullity_ > 0
    assert symmetry.transform(inputs).shape == (8, len(symmetry.classes_) + 1)


def test_token_models_have_no_distances():
    module, inputs = build("transformer", 8)
    with pytest.warns(RankAmbiguityWarning, match="number of rows"):
        symmetry = SymmetryClassifier(
            WrappedModel(module), likelihood="categorical", nullity_limit=5000
        ).fit(inputs)
    assert len(symmetry.not_covered_) == 1
    assert {"query_key", "value_output", "unused_entry"} & set(symmetry.generators_.dimensions)
    features = symmetry.transform(inputs)
    assert np.isnan(features[:, -1]).all()


@pytest.mark.parametrize(("n_samples", "account"), [(20, (21, 0, 222)), (200, (21, 0, 0))])
def test_directions_that_lack_data_are_counted_apart(n_samples, account):
    """20 tanh units under a softmax: 21 shifts of the logits are flat, and no other direction."""
    symmetry = SymmetryClassifier(mlp(10, 20, 3), likelihood="categorical")
    X = normal(n_samples, 10)
    if account[2]:
        with pytest.warns(RankAmbiguityWarning, match="Fisher rank 40 is the number of rows"):
            symmetry.fit(X)
    else:
        symmetry.fit(X)
    assert np.isnan(symmetry.spectral_gap_) == (account[2] > 0)
    assert symmetry.sample_limited_nullity_ == account[2]
    summary = symmetry.summary()
    parts = ("explained", "unexplained", "sample_limited")
    assert tuple(summary[f"symmetry_{part}_nullity"] for part in parts) == account
    assert sum(account) == symmetry.n_parameters_ - symmetry.fisher_rank_


def test_large_accounts_are_skipped_and_the_rest_answers():
    case = symmetric_hinges()
    with pytest.warns(GeometryWarning, match="above the limit of 10"):
        symmetry = classify(case, nullity_limit=10)
    assert np.isnan(symmetry.unexplained_nullity_)
    assert np.isnan(symmetry.sample_limited_nullity_)
    assert np.isnan(symmetry.fisher_rank_)
    assert symmetry.explained_nullity_ == 4
    assert symmetry.summary()["symmetry_reversible_share"] == 1.0


def test_preprocessing_comes_first():
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    symmetry = SymmetryClassifier(model).fit(X, y)
    assert symmetry.generators_.dimensions == {"softmax_shift": 5}
    assert symmetry.unexplained_nullity_ == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domain": "ball"}, "expected None, 'box' or 'data'"),
        ({"tol": -1.0}, "expected a finite number greater than 0 and less than 1 or 'auto'"),
        ({"max_set_size": 9}, "expected 2, 3 or 4"),
        ({"nullity_limit": -1}, "expected a non-negative integer"),
        ({"likelihood": "poison"}, "likelihood"),
    ],
)
def test_bad_parameters(options, message):
    with pytest.raises(SkgeoError, match=message):
        SymmetryClassifier(mlp(2, 3, 1), **{"likelihood": "gaussian", **options}).fit(normal(9, 2))


def test_a_tolerance_below_the_precision_warns():
    module = mlp(2, 3, 1, activation=nn.ReLU, dtype=torch.float32)
    with pytest.warns(GeometryWarning, match="below the precision of the weights"):
        SymmetryClassifier(module, tol=1e-12, likelihood="gaussian").fit(
            3 * normal(200, 2, dtype=torch.float32)
        )


def test_weights_that_are_not_finite_are_refused():
    module = mlp(2, 3, 1)
    with torch.no_grad():
        module[0].weight[0, 0] = torch.inf
    with pytest.raises(SkgeoError, match="NaN or infinite"):
        SymmetryClassifier(module, likelihood="gaussian").fit(normal(9, 2))
    with pytest.raises(SkgeoError, match="NaN or infinite"):
        SymmetryClassifier(module).canonical()


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
def test_a_network_without_hidden_units():
    net = nn.Sequential(nn.Linear(2, 0), nn.ReLU(), nn.Linear(0, 3)).double()
    X = normal(6, 2)
    fitted = SymmetryClassifier(net, likelihood="gaussian").fit(X)
    # Three biases and nothing else.
    assert (fitted.fisher_rank_, fitted.n_parameters_, fitted.minimal_width_) == (3, 3, 0)
    assert fitted.unexplained_nullity_ == 0
    assert len(fitted.labels_) == 0
    with pytest.raises(SkgeoError, match="'0' has no units"):
        LayerQuotientEstimator(net, likelihood="gaussian").fit(X)


@pytest.mark.parametrize("domain", ["box", "data"])
@pytest.mark.parametrize("beta", [0.3, 1.0, 3.0])
def test_a_unit_that_softplus_turns_on_is_not_dead(beta, domain):
    net = nn.Sequential(
        *(nn.Linear(1, 1), nn.Softplus(beta), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    ).double()
    top = np.log1p(np.exp(beta)) / beta  # softplus at the largest input, 1
    X = torch.linspace(-1, 1, 21, dtype=torch.float64)[:, None]
    for bias, labels in ((0.1 - top, ["generic", "generic"]), (-0.1 - top, ["generic", "dead"])):
        with torch.no_grad():
            for value, p in zip((1.0, 0.0, 1.0, bias, 1.0, 0.0), net.parameters(), strict=True):
                p.fill_(value)
        fitted = SymmetryClassifier(net, domain=domain, likelihood="gaussian").fit(X)
        assert fitted.labels_.tolist() == labels
        alive = labels[1] == "generic"
        assert fitted.minimal_width_ == (2 if alive else 0)
        report = compress(net, domain=domain, X=X)
        torch.testing.assert_close(report.module(X), net(X), rtol=0, atol=1e-12)


def test_a_clamp_by_hand():
    net = nn.Sequential(nn.Linear(1, 1), nn.Hardtanh(-5, 5), nn.Linear(1, 1)).double()
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.zero_()
    X = torch.linspace(-8, 8, 33, dtype=torch.float64)[:, None]
    fitted = SymmetryClassifier(net, likelihood="gaussian").fit(X)
    names = list(fitted.get_feature_names_out())
    found = fitted.transform(torch.tensor([[0.0], [3.0], [4.5], [7.0]], dtype=torch.float64))
    active = found[:, names.index("symmetry_generic_active")]
    distance = found[:, names.index("symmetry_boundary_distance")]
    assert active.tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(distance, [5, 2, 0.5, 2], rtol=1e-14)


@pytest.mark.parametrize(
    ("spoil", "domain"),
    [("off", "data"), ("off", "box"), ("unread", None), ("zero", None)],
)
def test_deep_networks_of_which_a_whole_layer_does_nothing(spoil, domain):
    net = mlp(1, 2, 2, 1, activation=nn.ReLU)
    with torch.no_grad():
        if spoil == "off":
            net[0].bias.fill_(-100.0)
        elif spoil == "unread":
            net[4].weight.zero_()
        else:
            net[0].weight.zero_()
            net[0].bias.fill_(-1.0)
    fitted = SymmetryClassifier(net, likelihood="gaussian", domain=domain).fit(normal(30, 1))
    assert fitted.minimal_width_ == 0
    assert fitted.minimal_width_is_optimal_


def test_what_is_left_of_a_constant_network_is_measured():
    net = mlp(1, 1, 1, activation=nn.ReLU)
    with torch.no_grad():
        for value, parameter in zip((0.0, 1.0, 1.0, 0.0), net.parameters(), strict=True):
            parameter.fill_(value)
    small = compress(net).module
    fitted = SymmetryClassifier(small, likelihood="gaussian").fit(normal(5, 1))
    assert (fitted.minimal_width_, len(fitted.labels_)) == (0, 0)


def test_a_fitted_skorch_classifier_is_its_module_under_a_softmax():
    skorch = pytest.importorskip("skorch")
    X, y = normal(100, 6, dtype=torch.float32).numpy(), np.arange(100) % 3
    module = mlp(6, 5, 3, activation=nn.ReLU, dtype=torch.float32)
    options = {"criterion": nn.CrossEntropyLoss, "max_epochs": 1, "verbose": 0}
    net = skorch.NeuralNetClassifier(module, train_split=None, **options).fit(X, y)
    found = SymmetryClassifier(FrozenEstimator(net)).fit(X, y)
    expected = SymmetryClassifier(net.module_, likelihood="categorical").fit(X)
    for name in ("likelihood_", "fisher_rank_", "explained_nullity_", "unexplained_nullity_"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.minimal_width_ == expected.minimal_width_ == 5
