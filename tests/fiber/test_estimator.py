import copy
import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from helpers.fiber_oracles import differential, exact_rank_list, planted, product_of
from helpers.laws import PairLaws, assert_same_rows
from helpers.networks import moved, normal
from helpers.oracles import assert_untouched
from skgeo import Checkpoint, FisherRankEstimator, GeometryWarning, RankAmbiguityWarning, SkgeoError
from skgeo.datasets.linear import linear_network
from skgeo.fiber import (
    Barcode,
    FactoredNormals,
    LinearFiberStratifier,
    Move,
    differential_rank,
    representative,
    strata,
)

CASES = json.loads((Path(__file__).parents[1] / "data" / "linear_fiber.json").read_text())["cases"]


def fit(weights, X=None, **parameters):
    return LinearFiberStratifier(linear_network(weights), **parameters).fit(X)


def random_strata(count, seed=0, point=planted):
    """Networks on random strata of random fibers, with their barcodes."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        widths = rng.integers(1, 5, size=rng.integers(2, 6))
        codes = strata(widths, int(rng.integers(0, widths.min() + 1)))
        code = codes[rng.integers(len(codes))]
        yield code, point(code, rng)


def integer_point(code, rng):
    """A point of a stratum in integers: what cancels is zero and not rounding."""
    frames, inverses = [], []
    for width in code.widths:
        lower = np.tril(rng.integers(-1, 2, (width, width)), -1) + np.eye(width)
        upper = np.triu(rng.integers(-1, 2, (width, width)), 1) + np.eye(width)
        frames.append(lower @ upper)
        inverses.append(np.linalg.inv(frames[-1]).round())
        np.testing.assert_array_equal(frames[-1] @ inverses[-1], np.eye(width))
    return [
        frames[layer + 1] @ matrix @ inverses[layer]
        for layer, matrix in enumerate(representative(code))
    ]


class LockedChain(nn.Sequential):
    """A linear network that deepcopy cannot copy, of rank 2 and one step from rank 3."""

    def __init__(self):
        rng = np.random.default_rng(0)
        first, second = rng.normal(size=(5, 4)), rng.normal(size=(3, 5))
        first[3:] = 0.0
        second[0] = 0.0
        super().__init__(*linear_network([first, second]))
        self.lock = threading.Lock()

    def change(self):
        with torch.no_grad():
            self[1].weight[0, 0] += 1.0


class TestLinearFiberLaws(PairLaws):
    def estimator(self, model=None, **parameters):
        return LinearFiberStratifier(model, **parameters)

    def pairs(self):
        rng = np.random.default_rng(1)
        networks = [linear_network(planted(code, rng)) for code in strata([4, 3, 5, 2], 1)[::5]]
        assert len(networks) >= 3
        return [(network, rng.normal(size=(6, 4))) for network in networks]

    # Their module has a nonlinearity; the same is asked of a linear one below.
    test_modules_that_cannot_be_copied_are_measured_and_cloned = None
    test_a_changed_weight_is_not_read_from_the_cache = None
    test_a_model_changed_after_fit_is_refused = None

    def test_chains_that_cannot_be_copied_are_measured_and_cloned(self):
        module, X = LockedChain(), np.random.default_rng(0).normal(size=(6, 4))
        with pytest.raises(TypeError, match="lock"):
            copy.deepcopy(module)
        bound = clone(self.estimator(module))
        assert bound.model is module
        rows = self.estimator().fit_transform([(module, X)])
        assert_same_rows(rows[0], list(bound.fit(X).summary().values()))

    def test_a_changed_matrix_is_not_read_from_the_cache(self, tmp_path):
        module = LockedChain()
        unbound = self.estimator(memory=str(tmp_path))
        before = unbound.fit_transform([(module, None)])
        module.change()
        after = unbound.fit_transform([(module, None)])
        np.testing.assert_array_equal(after, self.estimator().fit_transform([(module, None)]))
        assert (before != after).any()

    def test_a_chain_changed_after_fit_is_refused(self):
        module, X = LockedChain(), np.random.default_rng(0).normal(size=(6, 4))
        fitted = self.estimator(module).fit(X)
        module.change()
        with pytest.raises(SkgeoError, match="changed since fit"):
            fitted.transform(X)


class TestWithoutData:
    @pytest.fixture
    def networks(self):
        return [linear_network(weights) for _, weights in random_strata(6)]

    def test_two_readings_are_one(self, networks):
        rows = LinearFiberStratifier().fit_transform([(network, None) for network in networks])
        for row, network in zip(rows, networks, strict=True):
            for fitted in (
                LinearFiberStratifier(network).fit(),
                LinearFiberStratifier(network).fit(None),
                LinearFiberStratifier(network).fit(X=None, y=None),
            ):
                assert_same_rows(row, list(fitted.summary().values()))

    def test_tables_of_any_kind(self, networks):
        pairs = [(network, None) for network in networks]
        rows = LinearFiberStratifier().fit_transform(pairs)
        frame = pd.DataFrame(
            {
                "model": pd.Series(networks, dtype=object),
                "X": pd.Series([None] * len(networks), dtype=object),
            }
        )
        for table, order in (
            (frame, slice(None)),
            ([(network, None, None) for network in networks], slice(None)),
            (pairs[::-1], slice(None, None, -1)),
        ):
            found = LinearFiberStratifier(n_jobs=2).fit_transform(table)
            np.testing.assert_array_equal(found, rows[order])

    def test_rows_with_and_without_data_share_a_cache(self, networks, tmp_path):
        network = networks[0]
        blind = np.zeros((3, network[0].in_features))
        for _ in range(2):
            rows = LinearFiberStratifier(memory=str(tmp_path)).fit_transform(
                [(network, None), (network, blind)]
            )
            names = list(LinearFiberStratifier().get_feature_names_out())
            column = names.index("fiber_differential_rank")
            assert rows[1, column] == 0
            assert rows[0, column] == LinearFiberStratifier(network).fit().differential_rank_

    def test_transform_needs_data_all_the_same(self, networks):
        fitted = LinearFiberStratifier(networks[0]).fit()
        with pytest.raises(SkgeoError, match="X is None"):
            fitted.transform(None)
        assert fitted.transform(np.ones((2, networks[0][0].in_features))).shape[0] == 2

    def test_models_that_are_fitted_need_data(self):
        with pytest.raises(SkgeoError, match="X is None"):
            LinearFiberStratifier(Ridge(fit_intercept=False)).fit()


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_published_cases(case):
    fitted = fit([np.array(matrix) for matrix in case["weights"]])
    expected, whole = case["expected"], case["expected"]["fiber"]
    np.testing.assert_array_equal(fitted.rank_list_, np.tril(expected["ranks"]))
    bars = sorted(map(tuple, expected["bars"]))
    assert list(fitted.bars_.itertuples(index=False, name=None)) == bars
    assert fitted.stratum_dim_ == expected["dim_stratum"]
    assert fitted.fiber_dim_ == whole["dim_fiber"]
    assert fitted.codimension_ == whole["codim_fiber"]
    assert fitted.n_strata_ == len(fitted.strata()) == whole["n_strata"]
    assert fitted.is_smooth_ is expected["is_smooth_point"]
    assert fitted.is_maximal_ is expected["is_maximal"]
    assert fitted.differential_rank_ == expected["rank_dmu"]
    assert 2 * fitted.learning_coefficient_ == fitted.codimension_
    assert fitted.multiplicity_ == whole["aoyagi_multiplicity"]
    lower, upper = fitted.learning_coefficient_bounds_
    assert expected["rank_dmu"] <= 2 * lower <= 2 * upper == expected["local_codim"]
    assert not fitted.is_ambiguous_
    diagram = fitted.hasse()
    assert len(diagram.edges) == whole["n_hasse_edges"]
    assert diagram.nodes[diagram.index(fitted.barcode_)] == fitted.barcode_
    tangent, normal = fitted.tangent_basis(), fitted.normal_basis()
    assert (len(tangent), len(normal)) == (expected["tangent_dim"], expected["normal_dim"])
    assert (np.abs(tangent @ normal.T) < 1e-10).all()
    assert np.linalg.matrix_rank(tangent) == len(tangent)
    assert np.linalg.matrix_rank(normal) == len(normal)
    assert len(fitted.up_moves()) == expected["n_up_moves"]


class TestFisherRank:
    def assert_matches_fisher(self, weights, X):
        fitted = fit(weights, X)
        fisher = FisherRankEstimator(
            linear_network(weights), likelihood="gaussian", n_components=0, tol=1e-13
        )
        if fitted.differential_rank_ == 0:
            with pytest.warns(GeometryWarning, match="within rounding of zero"):
                fisher.fit(X)
        else:
            fisher.fit(X)
            assert fisher.spectral_gap_ > 1e3
        assert fisher.fisher_rank_ == fitted.differential_rank_
        return fitted.differential_rank_

    def test_random_points_of_random_strata(self):
        rng = np.random.default_rng(2)
        zero = 0
        for code, weights in random_strata(20, seed=2, point=integer_point):
            n_inputs = code.widths[0]
            X = rng.integers(-3, 4, size=(n_inputs + 6, n_inputs)).astype(float)
            assert np.linalg.matrix_rank(X) == n_inputs
            rank = self.assert_matches_fisher(weights, X)
            assert rank == np.linalg.matrix_rank(differential(weights))
            zero += rank == 0
        assert zero > 0

    def test_random_points_in_floating_point(self):
        rng = np.random.default_rng(3)
        # Where the differential vanishes its entries are rounding, and have no rank of their own.
        points = [(c, w) for c, w in random_strata(40, seed=3) if differential_rank(c) > 0]
        assert len(points) >= 20
        assert any(code.rank == 0 for code, _ in points)
        for code, weights in points:
            self.assert_matches_fisher(
                weights, rng.normal(size=(code.widths[0] + 4, code.widths[0]))
            )

    def test_inputs_that_span_a_subspace(self):
        rng = np.random.default_rng(4)
        smaller = 0
        for code, weights in random_strata(20, seed=4, point=integer_point):
            n_inputs = code.widths[0]
            span = int(rng.integers(1, n_inputs + 1))
            directions = rng.integers(-1, 2, size=(span, n_inputs)).astype(float)
            X = rng.integers(-2, 3, size=(n_inputs + 4, span)) @ directions
            if X.any():
                smaller += self.assert_matches_fisher(weights, X) < fit(weights).differential_rank_
        assert smaller >= 5

    def test_a_bias_is_a_constant_input(self):
        rng = np.random.default_rng(4)
        net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4, bias=False)).double()
        X = rng.normal(size=(9, 3))
        fitted = LinearFiberStratifier(net).fit(X)
        assert fitted.widths_ == (4, 2, 4)
        fisher = FisherRankEstimator(net, likelihood="gaussian").fit(X)
        assert fisher.fisher_rank_ == fitted.differential_rank_ == 2 * (4 + 4 - 2)
        # The normals of the kernel span the row space of the Fisher metric, in the same order.
        rows = fitted.normal_basis(space="kernel")
        assert (np.abs(fisher.null_projector(rows)) < 1e-9).all()
        one = LinearFiberStratifier(net).fit(X[:1])
        with pytest.warns(RankAmbiguityWarning, match="number of rows"):
            fisher = FisherRankEstimator(net, likelihood="gaussian").fit(X[:1])
        assert one.differential_rank_ == fisher.fisher_rank_


class TestSpaces:
    @pytest.fixture
    def biased(self):
        rng = np.random.default_rng(5)
        weights = planted(Barcode(3, [(0, 0, 2), (0, 1, 1), (0, 3, 1), (1, 2, 1), (2, 3, 1)]), rng)
        net = nn.Sequential(nn.Linear(3, 3), *linear_network(weights[1:])).double()
        with torch.no_grad():
            net[0].weight.copy_(torch.from_numpy(weights[0][:, :-1]))
            net[0].bias.copy_(torch.from_numpy(weights[0][:, -1]))
        return net

    def test_bases_are_in_the_order_of_the_parameters(self, biased):
        """Along the kernel of the differential the outputs change to second order only."""
        fitted = LinearFiberStratifier(biased).fit()
        X = normal(5, 3)
        with torch.no_grad():
            before = biased(X)
            for row in fitted.tangent_basis(space="kernel"):
                change = (moved(biased, 1e-6 * row)(X) - before).abs().max()
                assert change < 1e-10
            rows = fitted.normal_basis(space="kernel")
            changes = [(moved(biased, 1e-6 * row)(X) - before).abs().max() for row in rows]
            assert min(changes) > 1e-8

    @pytest.mark.parametrize("space", ["stratum", "orbit", "kernel"])
    def test_projections(self, biased, space):
        fitted = LinearFiberStratifier(biased).fit()
        rng = np.random.default_rng(6)
        steps = rng.normal(size=(2, 3, fitted.n_parameters_))
        tangent = fitted.project_tangent(steps, space=space)
        normal = fitted.project_normal(steps, space=space)
        np.testing.assert_allclose(tangent + normal, steps, atol=1e-12)
        assert (np.abs(tangent @ fitted.normal_basis(space=space).T) < 1e-10).all()
        assert (np.abs(normal @ fitted.tangent_basis(space=space).T) < 1e-10).all()

    def test_gradients_as_they_come(self, biased):
        """A loss is a function of the product, so its gradient is normal to the kernel."""
        fitted = LinearFiberStratifier(biased).fit()
        biased(torch.ones(1, 3, dtype=torch.float64)).square().sum().backward()
        gradients = [p.grad for p in biased.parameters()]
        parts = fitted.project_normal(gradients, space="kernel")
        for part, gradient in zip(parts, gradients, strict=True):
            assert part.shape == tuple(gradient.shape)
            np.testing.assert_allclose(part, gradient, atol=1e-10)
        for part in fitted.project_tangent(tuple(gradients)):
            np.testing.assert_allclose(part, 0, atol=1e-10)

    def test_shapes_are_checked(self, biased):
        fitted = LinearFiberStratifier(biased).fit()
        for wrong in (np.ones(5), 3.0, [np.ones((3, 4)), np.ones((2, 3))]):
            with pytest.raises(SkgeoError, match=r"shapes"):
                fitted.project_tangent(wrong)

    def test_factors_are_the_normals(self):
        for _, weights in random_strata(5, seed=7):
            fitted = fit(weights)
            factors = fitted.normal_basis(factored=True)
            assert isinstance(factors, FactoredNormals)
            np.testing.assert_allclose(factors.dense(), fitted.normal_basis(), atol=1e-13)

    def test_bases_too_large_point_to_the_projector(self):
        rng = np.random.default_rng(8)
        fitted = fit([rng.normal(size=(60, 60)) for _ in range(3)])
        for method in (fitted.tangent_basis, fitted.normal_basis):
            with pytest.raises(SkgeoError, match=r"GB|MB|MiB|GiB"):
                method()
        step = rng.normal(size=fitted.n_parameters_)
        tangent = fitted.project_tangent(step)
        assert 0 < np.linalg.norm(tangent) < np.linalg.norm(step)

    def test_moves_keep_the_product(self, biased):
        fitted = LinearFiberStratifier(biased).fit()
        X = normal(5, 3)
        assert fitted.up_moves()
        for move in fitted.up_moves():
            other = copy.deepcopy(biased)
            with torch.no_grad():
                for p, new in zip(other.parameters(), fitted.move_up(move, t=0.3), strict=True):
                    p.copy_(torch.from_numpy(new))
                np.testing.assert_allclose(other(X), biased(X), atol=1e-12)
            above = LinearFiberStratifier(other).fit()
            assert above.stratum_dim_ > fitted.stratum_dim_
            assert (above.rank_list_ >= fitted.rank_list_).all()

    def test_a_move_by_its_bars(self):
        fitted = fit([[[0.0]], [[0.0]]])
        expected = [np.array([[2.0]]), np.array([[0.0]])]
        for move in (Move((0, 0), (1, 1)), ((0, 0), (1, 1))):
            for found, matrix in zip(fitted.move_up(move, 2.0), expected, strict=True):
                np.testing.assert_array_equal(found, matrix)

    def test_distances(self):
        table = fit([[[3.0]], [[4.0]]]).distance_to_strata()
        assert table[["start", "stop", "rank", "layer"]].to_numpy().tolist() == [
            [0, 1, 1, 1],
            [0, 2, 1, 1],
            [1, 2, 1, 2],
        ]
        assert table["upper"].tolist() == pytest.approx([3.0, 3.0, 4.0])
        assert (table["lower"] <= table["upper"] + 1e-12).all()
        assert fit([[[0.0]], [[0.0]]]).distance_to_strata().empty


class TestTransform:
    def test_flow_coordinates(self):
        """Bars pass through a layer unchanged, and those that end are read off as zero after it."""
        rng = np.random.default_rng(9)
        code = Barcode(3, [(0, 0, 1), (0, 1, 2), (0, 3, 1), (1, 2, 1), (2, 2, 1), (3, 3, 2)])
        weights = planted(code, rng)
        X = rng.normal(size=(7, 4))
        columns = {}
        for layer in range(4):
            fitted = fit(weights, X, layer=layer)
            features = fitted.transform(X)
            names = fitted.get_feature_names_out()
            assert features.shape == (7, code.widths[layer]) == (7, len(names))
            columns[layer] = dict(zip(names, features.T, strict=True))
        activations = X
        for layer, weight in enumerate(weights, start=1):
            activations = activations @ weight.T
            basis = fitted.flow_bases_.bases[layer]
            back = np.column_stack(list(columns[layer].values())) @ basis.T
            np.testing.assert_allclose(back, activations, atol=1e-12)
        through = [columns[layer]["fiber_bar_0_3_0"] for layer in range(4)]
        np.testing.assert_allclose(through, [through[0]] * 4, rtol=1e-9)
        np.testing.assert_allclose(columns[2]["fiber_bar_1_2_0"], 0, atol=1e-12)
        np.testing.assert_allclose(columns[3]["fiber_bar_3_3_1"], 0, atol=1e-12)

    def test_default_is_the_last_hidden_layer(self):
        rng = np.random.default_rng(10)
        assert fit([rng.normal(size=s) for s in ((3, 4), (2, 3), (5, 2))]).layer_ == 2
        assert fit([rng.normal(size=(3, 4))]).layer_ == 0

    @pytest.mark.parametrize("layer", [-1, 3, 1.0, True, "0"])
    def test_layers_out_of_range(self, layer):
        with pytest.raises(SkgeoError, match="layer="):
            fit([np.eye(2), np.eye(2)], layer=layer)

    def test_features_of_pairs_do_not_depend_on_the_layer(self):
        shallow, deep = linear_network([np.eye(2)]), linear_network([np.eye(2)] * 4)
        rows = LinearFiberStratifier(layer=3).fit_transform([(shallow, None), (deep, None)])
        np.testing.assert_array_equal(
            rows, LinearFiberStratifier().fit_transform([(shallow, None), (deep, None)])
        )


class TestModels:
    def test_linear_models_of_scikit_learn(self):
        rng = np.random.default_rng(11)
        X, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 3))
        fitted = LinearFiberStratifier(Ridge(fit_intercept=False)).fit(X, y)
        assert fitted.widths_ == (4, 3)
        assert fitted.differential_rank_ == 12
        with_intercept = LinearFiberStratifier(
            make_pipeline(StandardScaler(), LinearRegression())
        ).fit(X, y)
        assert with_intercept.widths_ == (5, 3)
        assert with_intercept.transform(X).shape == (20, 5)
        row = LinearFiberStratifier().fit_transform([(Ridge(fit_intercept=False), X, y)])
        assert_same_rows(row[0], list(fitted.summary().values()))

    def test_checkpoints(self, tmp_path):
        net = linear_network([np.eye(3), np.ones((1, 3))])
        path = tmp_path / "net.pt"
        torch.save(net.state_dict(), path)
        blank = lambda: linear_network([np.zeros((3, 3)), np.zeros((1, 3))])  # noqa: E731
        assert LinearFiberStratifier(Checkpoint(path, blank)).fit().barcode_.rank == 1

    def test_float32_keeps_its_own_tolerance(self):
        rng = np.random.default_rng(12)
        weights = planted(Barcode(2, [(0, 0, 2), (0, 2, 2), (1, 1, 1), (1, 2, 1)]), rng)
        low = LinearFiberStratifier(linear_network(weights).float()).fit(rng.normal(size=(9, 4)))
        high = LinearFiberStratifier(linear_network(weights)).fit(rng.normal(size=(9, 4)))
        assert low.barcode_ == high.barcode_
        assert low.tol_ == pytest.approx(2.0 ** (-23 * 0.6))
        assert high.tol_ == pytest.approx(2.0 ** (-52 * 0.6))
        # Rounding to float32 is rank noise of 1e-8, which the coarser tolerance does not see.
        assert low.tolerance_path_["tol_low"].min() < low.tol_
        assert low.differential_rank_ == high.differential_rank_

    def test_dropout_in_train_mode_is_warned_about(self):
        net = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Dropout(), nn.Linear(2, 1, bias=False))
        with assert_untouched(net), pytest.warns(GeometryWarning, match="train mode") as caught:
            fitted = LinearFiberStratifier(net).fit()
        assert len(caught) == 1
        assert fitted.widths_ == (3, 2, 1)

    def test_batches_of_maps_are_flattened_where_the_module_does(self):
        net = nn.Sequential(nn.Flatten(), *linear_network([np.eye(4)[:2]]))
        X = np.random.default_rng(13).normal(size=(5, 2, 2))
        fitted = LinearFiberStratifier(net, layer=1).fit(X)
        coordinates = fitted.transform(X) @ fitted.flow_bases_.bases[1].T
        np.testing.assert_allclose(coordinates, X.reshape(5, 4)[:, :2], atol=1e-12)
        with pytest.raises(SkgeoError, match="expecting 4 features"):
            LinearFiberStratifier(linear_network([np.eye(4)])).fit(X)


class TestPath:
    def near(self):
        return [np.diag([1.0, 1e-2, 1e-5]), np.diag([1.0, 1.0, 1e-3])]

    def test_tolerances(self):
        path = fit(self.near()).tolerance_path_
        assert list(path["tol_low"]) == pytest.approx([1e-2, 1e-3, 1e-5, 0.0])
        assert list(path["tol_high"]) == pytest.approx([1.0, 1e-2, 1e-3, 1e-5])
        assert list(path["rank"]) == [1, 2, 2, 3]
        assert list(path["distance"]) == pytest.approx(
            [np.sqrt(1e-4 + 1e-6 + 1e-10), np.sqrt(1e-6 + 1e-10), 1e-5, 0.0], rel=1e-6
        )
        for tol, row in zip([0.1, 5e-3, 1e-4], path.itertuples(), strict=False):
            fitted = fit(self.near(), tol=tol)
            assert (fitted.stratum_dim_, fitted.fiber_dim_) == (row.stratum_dim, row.fiber_dim)
            assert fitted.barcode_.bars == row.bars

    def test_the_path_is_of_the_last_fit(self):
        network = linear_network(self.near())
        fitted = LinearFiberStratifier(network).fit()
        assert fitted.tolerance_path_ is fitted.tolerance_path_
        with torch.no_grad():
            network[0].weight.copy_(torch.eye(3))
        assert len(fitted.fit().tolerance_path_) < 4
        again = pickle.loads(pickle.dumps(fitted))
        pd.testing.assert_frame_equal(again.tolerance_path_, fitted.tolerance_path_)

    def test_ambiguous_ranks_warn_with_the_gap(self):
        with pytest.warns(RankAmbiguityWarning, match="gap 2.0"):
            fitted = fit([np.diag([1.0, 2e-3, 1e-3])], tol=1.5e-3)
        assert fitted.is_ambiguous_
        assert fitted.rank_gap_ == pytest.approx(2.0)
        assert fitted.summary()["fiber_is_ambiguous"] == 1.0

    @pytest.mark.parametrize("tol", [0.0, 1.0, -1.0, "small"])
    def test_tolerances_out_of_range(self, tol):
        with pytest.raises(SkgeoError, match="tol="):
            fit([np.eye(2)], tol=tol)


class TestStrata:
    def test_counting_comes_before_listing(self):
        assert fit([np.eye(5, 6), np.eye(7, 5), np.eye(5, 7)]).n_strata_ == 1
        zero = fit([np.zeros((4, 5)), np.zeros((6, 4)), np.zeros((4, 6))], max_strata=271)
        assert zero.n_strata_ == 272
        for method in (zero.strata, zero.hasse):
            with pytest.raises(SkgeoError, match="has 272 strata, and max_strata is 271"):
                method()
            with pytest.raises(SkgeoError, match="max_strata is 5"):
                method(max_strata=5)
        assert len(zero.hasse(max_strata=300).nodes) == len(zero.strata(max_strata=272)) == 272

    def test_what_cannot_be_counted_is_nan_with_one_warning(self):
        net = linear_network([np.eye(40)[:, :39], *[np.zeros((40, 40))] * 6])
        with pytest.warns(
            GeometryWarning, match=r"more than .* strata.*n_strata_ is NaN"
        ) as caught:
            fitted = LinearFiberStratifier(net).fit()
        assert len(caught) == 1
        assert np.isnan(fitted.n_strata_)
        assert np.isnan(fitted.summary()["fiber_log10_n_strata"])
        finite = {name for name, value in fitted.summary().items() if np.isfinite(value)}
        assert len(finite) == len(fitted.summary()) - 1
        with pytest.warns(GeometryWarning, match=r"In 2 of 2 pairs") as caught:
            LinearFiberStratifier().fit_transform([(net, None)] * 2)
        assert len(caught) == 1


def test_nothing_is_fitted_before_fit():
    for fresh in (LinearFiberStratifier(linear_network([np.eye(2)])), LinearFiberStratifier()):
        assert not hasattr(fresh, "tolerance_path_")
    with pytest.raises(NotFittedError):
        LinearFiberStratifier(linear_network([np.eye(2)])).strata()
    unbound = LinearFiberStratifier().fit([(linear_network([np.eye(2)]), None)])
    for name in ("strata", "hasse", "tangent_basis", "distance_to_strata", "summary", "up_moves"):
        with pytest.raises(SkgeoError, match="bind the model"):
            getattr(unbound, name)()


@pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")
def test_exact_ranks_of_integer_networks():
    rng = np.random.default_rng(14)
    for _ in range(10):
        widths = rng.integers(1, 6, size=rng.integers(2, 6))
        weights = [
            rng.integers(-1, 2, size=shape) for shape in zip(widths[1:], widths, strict=False)
        ]
        fitted = fit(weights)
        np.testing.assert_array_equal(fitted.rank_list_, exact_rank_list(weights))
        product = product_of(weights)
        assert fitted.summary()["fiber_product_rank"] == np.linalg.matrix_rank(product)
