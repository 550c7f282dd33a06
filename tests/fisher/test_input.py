"""What FisherRankEstimator says of input that it cannot measure."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal
from skgeo import FisherRankEstimator, GeometryWarning, SkgeoError, WrappedModel

no_gap = pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")


class TestBadInput:
    def fit(self, net, X, **parameters):
        return FisherRankEstimator(net, **{"likelihood": "gaussian", **parameters}).fit(X)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_data_weights_and_outputs_must_be_finite(self, value):
        net, X = mlp(3, 4, 2), normal(5, 3)
        spoilt = X.clone()
        spoilt[1, 1] = value
        with pytest.raises(ValueError, match=r"(?i)nan|infin"):
            self.fit(net, spoilt)
        with pytest.raises(ValueError, match=r"(?i)nan|infin"):
            self.fit(net, spoilt.numpy())
        broken = copy.deepcopy(net)
        with torch.no_grad():
            broken[0].weight[0, 0] = value
        with pytest.raises(SkgeoError, match=r"0\.weight"):
            self.fit(broken, X)
        exploding = WrappedModel(net, lambda m, x: m(x) * torch.tensor(value))
        with pytest.raises(SkgeoError, match="sample 0"):
            self.fit(exploding, X)

    def test_infinite_derivatives_of_finite_outputs(self):
        root = WrappedModel(nn.Linear(1, 1, bias=False).double(), lambda m, x: m(x).abs().sqrt())
        with pytest.raises(SkgeoError, match="not differentiable"):
            self.fit(root, torch.zeros(2, 1, dtype=torch.float64))

    def test_a_model_that_ignores_its_parameters(self):
        deaf = WrappedModel(mlp(3, 2), lambda m, x: x * 2)
        with pytest.raises(SkgeoError, match="do not depend on any"):
            self.fit(deaf, normal(5, 3))

    def test_no_parameters_of_the_asked_kind(self):
        frozen = mlp(3, 2).requires_grad_(False)
        with pytest.raises(SkgeoError, match=r"(?i)parameters"):
            self.fit(frozen, normal(5, 3))
        assert self.fit(frozen, normal(5, 3), parameters="all").fisher_rank_ == 8

    def test_outputs_that_do_not_fit_the_likelihood(self):
        with pytest.raises(SkgeoError, match="at least two logits"):
            self.fit(mlp(3, 1), normal(5, 3), likelihood="categorical")
        with pytest.raises(SkgeoError, match="even number"):
            self.fit(mlp(3, 3), normal(5, 3), likelihood="gaussian_scale")
        with pytest.raises(SkgeoError, match="'softmax', which is not known"):
            self.fit(mlp(3, 3), normal(5, 3), likelihood="softmax")

    @no_gap
    def test_probabilities_under_categorical_warn(self):
        net = nn.Sequential(mlp(3, 3), nn.Softmax(-1))
        with pytest.warns(GeometryWarning, match="look like probabilities"):
            self.fit(net, normal(5, 3), likelihood="categorical")

    def test_a_shape_mismatch_names_the_pair(self):
        pairs = [(mlp(3, 2), normal(5, 3))] * 7 + [(mlp(4, 2), normal(5, 3))]
        with pytest.raises(SkgeoError) as raised:
            FisherRankEstimator(likelihood="gaussian").fit_transform(pairs)
        assert raised.value.__notes__ == ["in pair 7"]

    def test_pairs_read_differently_warn_once_with_counts(self):
        pairs = [(mlp(3, 3), normal(5, 3), [0, 1, 2, 0, 1])] * 2
        pairs += [(mlp(3, 3), normal(5, 3), normal(5, 3, seed=1))]
        with pytest.warns(GeometryWarning, match="categorical in 2, gaussian in 1"):
            FisherRankEstimator().fit_transform(pairs)

    def test_pairs_without_a_clue_warn_once(self):
        pairs = [(mlp(3, 3), normal(5, 3))] * 3
        with pytest.warns(GeometryWarning, match=r"In 3 of 3 pairs \(0, 1, 2\)") as caught:
            FisherRankEstimator().fit_transform(pairs)
        assert len(caught) == 1

    @no_gap  # and as many rows as rank
    def test_what_would_not_fit_is_refused_before_it_is_made(self):
        net, X = mlp(30, 40, 10), normal(40, 30)

        def fit(budget, **parameters):
            options = {"likelihood": "categorical", "n_components": None, **parameters}
            return self.fit(net, X, memory_budget=budget, **options)

        with pytest.raises(SkgeoError, match=r"Gram matrices of 400 x 400 .*fewer samples"):
            fit("1 MiB")
        with pytest.raises(SkgeoError, match=r"1650 x 1650 .*parameters=\[.*solver='gram'"):
            fit("20 MiB", solver="parameter")
        with pytest.raises(SkgeoError, match=r"360 directions .* n_components=k"):
            fit("9 MiB")
        fitted = fit("40 MiB")
        with pytest.raises(SkgeoError, match=r"null space of \d+ x 1650 .*null_projector"):
            fitted.null_space()
        assert np.abs(fitted.null_projector(fitted.components_)).max() < 1e-12
        lstm = WrappedModel(nn.LSTM(3, 40, batch_first=True), lambda m, x: m(x)[0][:, -1])
        with pytest.raises(SkgeoError, match=r"Jacobian of one sample .* layer rule"):
            self.fit(lstm, normal(2, 5, 3), memory_budget="1 MiB", n_components=None)

    @pytest.mark.parametrize("budget", [0, -5, True, "lots", 1.5])
    def test_a_budget_is_a_number_of_bytes(self, budget):
        with pytest.raises(SkgeoError, match="memory_budget"):
            self.fit(mlp(3, 2), normal(5, 3), memory_budget=budget)

    @pytest.mark.parametrize(
        "parameters",
        [{"tol": -1.0}, {"solver": "qr"}, {"n_components": -1}, {"batch_size": 0}],
    )
    def test_parameters_out_of_range(self, parameters):
        (name,) = parameters
        with pytest.raises(SkgeoError, match=name):
            self.fit(mlp(3, 2), normal(5, 3), **parameters)

    def test_projector_wants_one_entry_a_parameter(self):
        fitted = self.fit(mlp(3, 2), normal(9, 3))
        assert fitted.null_projector(np.ones((2, 5, 8))).shape == (2, 5, 8)
        with pytest.raises(SkgeoError, match=r"expected \(\.\.\., 8\)"):
            fitted.null_projector(np.ones(7))

    def test_unbound_estimators_have_no_geometry_of_their_own(self):
        with pytest.raises(SkgeoError, match="bind the model"):
            FisherRankEstimator().fit([(mlp(3, 2), normal(5, 3))]).summary()

    def test_extra_columns_are_not_ignored(self):
        frame = pd.DataFrame({"model": [mlp(3, 2)], "X": [normal(5, 3)], "labels": [0]})
        with pytest.raises(SkgeoError, match=r"\['labels'\] not expected"):
            FisherRankEstimator().fit(frame)
