"""What y says under "auto", and what is refused because it may be read in two ways."""

import inspect
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import skgeo
from helpers.networks import mlp, normal, seeded
from helpers.oracles import dense_fisher
from skgeo import (
    FisherRankEstimator,
    LayerQuotientEstimator,
    SymmetryClassifier,
    WrappedModel,
    fisher_diagonal,
    fisher_rank,
    fisher_spectrum,
    fisher_trace,
)
from skgeo.exceptions import GeometryWarning, SkgeoError
from skgeo.fisher import rank_curve
from skgeo.likelihood import Bernoulli, resolve_likelihood
from skgeo.quotient import (
    fisher_rao_length,
    layer_spectra,
    leading_eigenvalues,
    rank_jumps,
    straightness,
)
from skgeo.symmetry import generators, nullity_account

X = normal(6, 3)
HOT = np.eye(3)[[0, 1, 2, 0, 1, 2]]


def auto(y, n_outputs, n_positions=1):
    return resolve_likelihood("auto", targets=y, n_outputs=n_outputs, n_positions=n_positions).name


class TestFloats:
    @pytest.mark.parametrize(
        ("y", "shape", "said"),
        [
            (np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]]), (3, 1), "'bernoulli' or.*'gaussian'"),
            (torch.tensor([[0.0], [1.0]]), (1, 1), "'bernoulli' or.*'gaussian'"),
            (np.array([0.0, 1.0, 1.0]), (1, 1), "'bernoulli' or.*'gaussian'"),
            (HOT, (3, 1), "'categorical' or.*'gaussian'"),
            (0.8 * HOT + 0.1 * (1 - HOT), (3, 1), "a distribution.*'categorical' or.*'gaussian'"),
            (HOT.reshape(2, 3, 3), (3, 3), "'categorical' or.*'gaussian'"),
            (normal(6, 2).numpy(), (4, 1), "half as many.*half of the log-var.*'gaussian_scale'"),
            (normal(6).numpy(), (2, 1), "half as many.*'gaussian_scale'.*convert y to integers"),
            (normal(6, 3).numpy(), (5, 1), r"shape \(6, 3\), which does not fit the 5 outputs"),
            (np.array([0.0, 2.0, 1.0]), (3, 1), "For classes convert y to integers"),
            (normal(6, 3).numpy(), (2, 4), "4 positions of 2 outputs"),
        ],
    )
    def test_two_readings_are_refused_with_both(self, y, shape, said):
        with pytest.raises(SkgeoError, match=said):
            auto(y, *shape)

    @pytest.mark.parametrize(
        ("y", "shape"),
        [
            (normal(6), (1, 1)),
            (normal(6, 1), (1, 1)),
            (normal(6, 3), (3, 1)),
            (normal(6, 4), (1, 4)),
            (normal(6, 2, 2, 3), (3, 4)),
            (torch.zeros(6, 2), (2, 1)),
            (torch.zeros(6, 2, dtype=torch.bfloat16), (2, 1)),
        ],
    )
    def test_means(self, y, shape):
        assert auto(y, *shape) == "gaussian"

    def test_a_word_of_the_user_ends_it(self):
        net = mlp(3, 4, 3)
        for likelihood in ("gaussian", "categorical", "bernoulli"):
            found = fisher_trace(net, X, HOT, likelihood=likelihood)
            assert found == fisher_trace(net, X, likelihood=likelihood)
            assert found == fisher_trace(WrappedModel(net, likelihood=likelihood), X, HOT)

    def test_log_variances_are_halved(self):
        """In terms of (mean, log-variance) the metric is diag(1 / s^2, 1 / 2)."""

        def halved(module, x):
            mean, log_variance = module(x).chunk(2, -1)
            return torch.cat([mean, log_variance / 2], -1)

        net = mlp(3, 2)
        log_variance = net(X)[:, 1].detach()
        rows = (X**2).sum(1) + 1
        expected = float((rows * ((-log_variance).exp() + 0.5)).mean())
        model = WrappedModel(net, halved)
        assert fisher_trace(model, X, likelihood="gaussian_scale") == pytest.approx(expected)

    @pytest.mark.parametrize(
        "kind", [FisherRankEstimator, LayerQuotientEstimator, SymmetryClassifier]
    )
    def test_estimators_refuse_as_well(self, kind):
        with pytest.raises(SkgeoError, match="'categorical' or"):
            kind(mlp(3, 4, 3)).fit(X, HOT)
        with pytest.raises(SkgeoError, match=r"6 samples and y has shape \(5,\)"):
            kind(mlp(3, 4, 3)).fit(X, np.arange(5))


class TestLabels:
    @pytest.mark.parametrize(
        ("y", "shape", "name"),
        [
            (np.array([0, -100, 2]), (3, 1), "categorical"),
            (np.array([1, -100, 0]), (1, 1), "bernoulli"),
            (np.array([[0, 1, -100, 2]]), (3, 4), "categorical"),
            (np.array([[[0, 1], [1, 1]]]), (2, 2), "bernoulli"),
            (np.array([[[0, 1], [1, 0]]]), (2, 2), "categorical"),
            (np.array([[0], [1], [2]]), (3, 1), "categorical"),
        ],
    )
    def test_readings(self, y, shape, name):
        assert auto(y, *shape) == name

    @pytest.mark.parametrize(
        ("y", "shape"),
        [(np.array([0, 1, 2]), (3, 4)), (np.array([[0, 1], [1, 2]]), (3, 4))],
    )
    def test_labels_of_another_shape(self, y, shape):
        with pytest.raises(SkgeoError, match="does not fit the 4 positions of 3 outputs"):
            auto(y, *shape)


class TestProbabilities:
    def test_a_final_sigmoid_is_seen(self):
        net = nn.Sequential(mlp(3, 4, 2), nn.Sigmoid())
        with pytest.warns(GeometryWarning, match="look like probabilities"):
            fisher_trace(net, X[:1], likelihood="bernoulli")

    @pytest.mark.filterwarnings("ignore:.*is the number of rows")
    def test_and_one_in_a_forward_function(self):
        model = WrappedModel(mlp(3, 4, 2), lambda module, x: module(x).sigmoid())
        with pytest.warns(GeometryWarning, match="look like probabilities"):
            FisherRankEstimator(model, likelihood="bernoulli").fit(X)

    def test_small_logits_are_not_taken_for_them(self):
        net = seeded(lambda: nn.Linear(3, 2))
        nn.init.zeros_(net.weight)
        nn.init.constant_(net.bias, 0.5)
        net.weight.data[:, 0] = 0.1
        Z = normal(30, 3).tanh()
        assert bool(((net(Z) > 0) & (net(Z) < 1)).all())
        fisher_trace(net, Z, likelihood="bernoulli")
        relu = nn.Sequential(net, nn.ReLU())
        fisher_trace(relu, Z, likelihood="bernoulli")

    def test_values_tell_where_the_network_does_not(self):
        with pytest.warns(GeometryWarning, match="look like probabilities"):
            Bernoulli().notice(normal(6, 1, 3).sigmoid())
        Bernoulli().notice(normal(6, 1, 3))
        Bernoulli().notice(torch.full((6, 1, 3), 0.5))
        Bernoulli().notice(normal(1, 1, 3).sigmoid())  # few numbers may lie there by chance


PATH = normal(5, 3)
ASK = {
    "fisher_rank": lambda net: fisher_rank(net, X),
    "fisher_trace": lambda net: fisher_trace(net, X),
    "fisher_diagonal": lambda net: fisher_diagonal(net, X),
    "fisher_spectrum": lambda net: fisher_spectrum(net, X),
    "rank_curve": lambda net: rank_curve(net, X),
    "layer_spectra": lambda net: layer_spectra(net, X),
    "leading_eigenvalues": lambda net: leading_eigenvalues(net, X, "0", n_values=1),
    "fisher_rao_length": lambda net: fisher_rao_length(net, PATH),
    "straightness": lambda net: straightness(net, PATH),
    "rank_jumps": lambda net: rank_jumps(net, PATH[0], PATH[1]),
    "nullity_account": lambda net: nullity_account(net, X),
    "generators": lambda net: generators(net, X),
    "FisherRankEstimator": lambda net: FisherRankEstimator(net).fit(X),
    "LayerQuotientEstimator": lambda net: LayerQuotientEstimator(net).fit(X),
    "SymmetryClassifier": lambda net: SymmetryClassifier(net).fit(X),
}


@pytest.mark.parametrize("name", ASK)
def test_a_guess_is_never_without_a_word(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ASK[name](mlp(3, 4, 2))
    assert any("'gaussian' with unit variance is assumed" in str(w.message) for w in caught)


def test_all_functions_with_a_likelihood_are_asked():
    rooms = (skgeo, skgeo.fisher, skgeo.quotient, skgeo.symmetry, skgeo.chain, skgeo.fiber)
    found = {
        name for room in rooms for name in room.__all__ if _default(getattr(room, name)) == "auto"
    }
    # Of labels, which neural_collapse has, nothing is guessed.
    assert found <= {*ASK, "neural_collapse"}
    assert {"fisher_rank", "straightness", "generators"} <= found


def _default(ask):
    """Default of the parameter `likelihood` of a function or an estimator."""
    if not (inspect.isfunction(ask) or hasattr(ask, "get_params")):
        return None
    parameter = inspect.signature(ask).parameters.get("likelihood")
    return None if parameter is None else parameter.default


@pytest.mark.parametrize(("length", "classes"), [(5, 4), (4, 4), (12, 12)])
def test_token_labels_are_classes_at_each_position(length, classes):
    net = seeded(lambda: nn.Sequential(nn.Embedding(12, 4), nn.Tanh(), nn.Linear(4, classes)))
    draw = torch.Generator().manual_seed(0)
    X = torch.randint(12, (15, length), generator=draw)
    y = torch.randint(classes, (15, length), generator=draw)
    # The positions of a sample add up.
    expected = length * np.trace(dense_fisher(net, X.flatten(), "categorical"))
    said = FisherRankEstimator(net, likelihood="categorical").fit(X)
    assert said.trace_ == pytest.approx(expected, rel=1e-10)
    guess = FisherRankEstimator(net)
    if length == classes:  # the classes may be on either axis
        with pytest.raises(SkgeoError, match="Say which: likelihood=Categorical"):
            guess.fit(X, y)
    else:
        assert guess.fit(X, y).likelihood_ == "categorical"
        assert guess.trace_ == pytest.approx(expected, rel=1e-10)


def test_counts_are_not_yes_and_no():
    net = mlp(3, 4, 3)
    y = np.arange(90).reshape(30, 3) % 8
    with pytest.raises(SkgeoError, match=r"integers from 0 to 7.*'poisson'"):
        FisherRankEstimator(net).fit(normal(30, 3), y)
