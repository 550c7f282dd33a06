"""Functions and estimators take any kind of model, and any family of outputs, alike."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from helpers.networks import mlp, normal
from skgeo import (
    FisherRankEstimator,
    JacobianChainProfiler,
    LayerQuotientEstimator,
    LinearFiberStratifier,
    SkgeoError,
    SymmetryClassifier,
    WrappedModel,
    fisher_diagonal,
    fisher_rank,
    fisher_spectrum,
    fisher_trace,
    ntk,
)
from skgeo.chain import ProfileDisplay, chain_profile, curvature
from skgeo.fiber import BarcodeDisplay, HasseDisplay
from skgeo.fisher import SpectrumDisplay
from skgeo.likelihood import Likelihood
from skgeo.quotient import RankProfileDisplay, layer_spectra, leading_eigenvalues
from skgeo.symmetry import (
    BoundaryDisplay,
    NullityDisplay,
    apply_symmetry,
    canonical_form,
    compress,
    equivalent,
    generators,
    nullity_account,
)

matplotlib.use("agg")


def fitted_pipeline():
    X = normal(60, 2).numpy() * [10, 1] + [100, 0]
    y = (X[:, 0] > 100).astype(int)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((4,), random_state=0, max_iter=2000))
    return pipeline.fit(X, y), X, y


class TestPipelines:
    def test_velocities_are_not_taken_through_the_first_steps(self):
        pipeline, X, _ = fitted_pipeline()
        with pytest.raises(SkgeoError, match="Pass its last step"):
            curvature(pipeline, X, velocity=np.ones_like(X))

    @pytest.mark.parametrize("ask", [canonical_form, compress, apply_symmetry])
    def test_weights_alone_leave_them_out_and_are_refused(self, ask):
        pipeline, *_ = fitted_pipeline()
        with pytest.raises(SkgeoError, match="Pass its last step"):
            ask(pipeline)

    def test_two_scalers_are_two_functions(self):
        pipeline, *_ = fitted_pipeline()
        with pytest.raises(SkgeoError, match="Pass its last step"):
            equivalent(pipeline, pipeline)

    @pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")
    def test_boundaries_in_the_plane_of_the_inputs(self):
        pipeline, X, y = fitted_pipeline()
        fitted = SymmetryClassifier(pipeline).fit(X, y)
        with pytest.raises(SkgeoError, match="Pass its last step"):
            BoundaryDisplay.from_estimator(fitted, X)

    def test_the_last_step_of_a_linear_one_is_stratified(self):
        X = normal(20, 4).numpy()
        pipeline = make_pipeline(PCA(2), LinearRegression())
        fitted = LinearFiberStratifier(pipeline).fit(X, X[:, :3])
        assert fitted.widths_ == (3, 3)  # two components and the intercept
        assert fitted.transform(X).shape == (20, 3)


class TestUnfitted:
    @pytest.mark.parametrize("ask", [canonical_form, compress, lambda m: equivalent(m, m)])
    def test_without_data(self, ask):
        with pytest.raises(SkgeoError, match="Fit it first"):
            ask(Ridge())

    @pytest.mark.parametrize("ask", [ntk, chain_profile])
    def test_without_targets(self, ask):
        with pytest.raises(SkgeoError, match="fit it first"):
            ask(Ridge(), np.ones((4, 2)))


class TestSkorch:
    def nets(self):
        skorch = pytest.importorskip("skorch")
        X = normal(40, 3, dtype=torch.float32).numpy()
        module = mlp(3, 4, 2, activation=nn.ReLU, dtype=torch.float32)
        options = {"max_epochs": 1, "verbose": 0, "train_split": None}
        net = skorch.NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, **options)
        return net.fit(X, (X[:, 0] > 0).astype(np.int64)), X

    def test_weights_are_read_as_those_of_the_module(self):
        net, _ = self.nets()
        assert canonical_form(net).matches(canonical_form(net.module_))
        assert equivalent(net, net.module_).verdict == "equivalent"
        assert compress(net).widths == compress(net.module_).widths
        assert (
            equivalent(apply_symmetry(net, permutation=[1, 0, 2, 3]), net).verdict == "equivalent"
        )

    @pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")
    def test_the_softmax_shift_is_known(self):
        net, X = self.nets()
        found = nullity_account(net, X)
        expected = nullity_account(net.module_, X, likelihood="categorical")
        assert (found.explained, found.unexplained) == (expected.explained, expected.unexplained)
        assert found.generators.dimensions["softmax_shift"] > 0


class Plain(Likelihood):
    """Only what has to be written: the metric of a Gaussian."""

    name = "plain"

    def pull_rows(self, outputs, rows):
        return rows


class TestFamilies:
    def test_one_method_is_enough(self):
        net, X = mlp(3, 4, 2), normal(20, 3)
        for kind in (FisherRankEstimator, LayerQuotientEstimator, SymmetryClassifier):
            own = kind(net, likelihood=Plain()).fit(X).summary()
            gaussian = kind(net, likelihood="gaussian").fit(X).summary()
            np.testing.assert_allclose(list(own.values()), list(gaussian.values()), rtol=1e-9)
        assert np.isnan(LayerQuotientEstimator(net, likelihood=Plain()).fit(X).quotient_fidelity_)

    @pytest.mark.parametrize(
        "pull",
        [
            lambda r: r.sum(-2),
            lambda r: None,
            lambda r: r[..., :1, :],
            lambda r: torch.cat([r, r], -2),
        ],
    )
    def test_roots_of_another_shape(self, pull):
        class Wrong(Plain):
            def pull_rows(self, outputs, rows):
                return pull(rows)

        for ask in (fisher_rank, fisher_trace, layer_spectra):
            with pytest.raises(SkgeoError, match=r"Wrong\.pull_rows gives"):
                ask(mlp(3, 4, 2), normal(20, 3), likelihood=Wrong())

    def test_a_family_without_a_name(self):
        class Nameless(Likelihood):
            def pull_rows(self, outputs, rows):
                return rows

        with pytest.raises(SkgeoError, match="Nameless has no name"):
            fisher_rank(mlp(3, 2), normal(5, 3), likelihood=Nameless())

    def test_the_cache_reads_the_code_of_a_family(self, tmp_path):
        net, X = mlp(3, 4, 2), normal(20, 3)

        def family(factor):
            class Scaled(Plain):
                def pull_rows(self, outputs, rows):
                    return factor * rows

            return Scaled()

        def trace(family):
            estimator = FisherRankEstimator(likelihood=family, memory=str(tmp_path))
            names = list(estimator.get_feature_names_out())
            return estimator.fit_transform([(net, X)])[0, names.index("fisher_trace")]

        once = trace(family(1.0))
        assert trace(family(2.0)) == pytest.approx(4 * once)
        assert trace(family(1.0)) == once

    def test_wrapped_models_carry_objects(self):
        net, X = mlp(3, 4, 2), normal(20, 3)
        expected = fisher_rank(net, X, likelihood="gaussian").rank
        assert fisher_rank(WrappedModel(net, likelihood=Plain()), X).rank == expected
        with pytest.raises(SkgeoError, match="expected a name"):
            WrappedModel(net, likelihood="auto")

    @pytest.mark.parametrize(
        "ask", [fisher_rank, fisher_spectrum, fisher_trace, fisher_diagonal, layer_spectra]
    )
    def test_metrics_that_overflow_have_no_number(self, ask):
        net = mlp(3, 4, 2)
        net[2].bias.data.fill_(1500.0)
        with pytest.raises(SkgeoError, match="infinite"):
            ask(net, normal(10, 3), likelihood="poisson")
        with pytest.raises(SkgeoError, match="infinite"):
            leading_eigenvalues(net, normal(10, 3), "0", n_values=1, likelihood="poisson")


@pytest.mark.parametrize(
    ("outputs", "bias", "scale", "likelihood"),
    [(1, 750.0, 1.0, "poisson"), (2, -400.0, 1.0, "gaussian_scale"), (2, 0.0, 1e160, "gaussian")],
)
@pytest.mark.parametrize("kind", [FisherRankEstimator, LayerQuotientEstimator])
def test_metrics_out_of_range_are_refused(kind, outputs, bias, scale, likelihood):
    net = mlp(3, 4, outputs) if kind is LayerQuotientEstimator else mlp(3, outputs)
    with torch.no_grad():
        net[-1].bias.fill_(bias)
        net[-1].weight.mul_(scale if kind is LayerQuotientEstimator else 1.0)
    with pytest.raises(SkgeoError, match=r"infinite|overflow"):
        kind(net, likelihood=likelihood).fit(scale * normal(20, 3))


def test_integers_are_numbers_where_nothing_looks_them_up():
    net, X = mlp(3, 2), np.arange(12).reshape(4, 3)
    expected = fisher_trace(net, X, likelihood="categorical")
    assert fisher_trace(WrappedModel(net, likelihood="categorical"), X) == expected


class TestAxes:
    @pytest.fixture
    def drawn(self):
        X = normal(20, 2)
        net = mlp(2, 4, 2, activation=nn.ReLU)
        fisher = FisherRankEstimator(net, likelihood="gaussian").fit(X)
        symmetry = SymmetryClassifier(net, likelihood="gaussian").fit(X)
        linear = LinearFiberStratifier(nn.Linear(3, 2).double()).fit()
        return [
            (SpectrumDisplay, fisher, 2),
            (RankProfileDisplay, LayerQuotientEstimator(net, likelihood="gaussian").fit(X), 2),
            (ProfileDisplay, JacobianChainProfiler(net).fit(X), 3),
            (BoundaryDisplay, symmetry, 1),
            (NullityDisplay, symmetry, 1),
            (BarcodeDisplay, linear, 1),
            (HasseDisplay, linear, 1),
        ]

    @pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")
    def test_as_many_as_the_picture_has(self, drawn):
        for display, estimator, count in drawn:
            grid = Figure().subplots(1, count, squeeze=False)
            for ax in (grid, grid[0], list(grid[0]), *([grid[0, 0]] if count == 1 else [])):
                display.from_estimator(estimator, ax=ax)
            for ax in (Figure().subplots(1, count + 1), 3, "ax"):
                with pytest.raises(SkgeoError, match=f"{display.__name__} got ax="):
                    display.from_estimator(estimator, ax=ax)


class Overwritten(nn.Module):
    """A network whose backward pass needs what was overwritten in place."""

    def __init__(self, hinges):
        super().__init__()
        self.first, self.last = nn.Linear(2, 4), nn.Linear(4, 1)
        self.bend = nn.ReLU() if hinges else nn.Tanh()

    def forward(self, x):
        h = torch.sigmoid(self.last(self.bend(self.first(x))))
        square = h * h
        h.add_(1.0)
        return square + h


@pytest.mark.parametrize("hinges", [True, False])
def test_networks_without_a_backward_pass_are_refused_in_words(hinges):
    net, X = Overwritten(hinges), normal(20, 2)
    said = "an operation in place overwrites a tensor"
    for measure in (generators, nullity_account, fisher_rank, fisher_trace):
        with pytest.raises(SkgeoError, match=said):
            measure(net, X, likelihood="gaussian")
    for measure in (ntk, chain_profile):
        with pytest.raises(SkgeoError, match=said):
            measure(net, X)
    for estimator in (SymmetryClassifier, LayerQuotientEstimator, FisherRankEstimator):
        with pytest.raises(SkgeoError, match=said):
            estimator(model=net, likelihood="gaussian").fit(X)
    with pytest.raises(SkgeoError, match=said):
        JacobianChainProfiler(model=net).fit(X)
