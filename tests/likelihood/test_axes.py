"""Classes on another axis than the last, and positions that are left out."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal, seeded
from helpers.oracles import dense_jacobian
from skgeo import (
    FisherRankEstimator,
    JacobianChainProfiler,
    LayerQuotientEstimator,
    SymmetryClassifier,
    WrappedModel,
    fisher_diagonal,
    fisher_rank,
    fisher_spectrum,
    fisher_trace,
    ntk,
)
from skgeo.chain import jacobian_penalty
from skgeo.exceptions import GeometryWarning, NotAModelError, SkgeoError
from skgeo.fisher._rows import FisherRows
from skgeo.likelihood import Categorical, GaussianScale
from skgeo.models import fingerprint
from skgeo.network import bind
from skgeo.quotient import layer_spectra
from skgeo.symmetry import nullity_account

quiet = pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")

N, C, H, W = 6, 3, 2, 4
X = normal(N, 2, H, W)
Y = torch.arange(N * H * W).reshape(N, H, W) % C
TOKENS = torch.arange(5 * 4).reshape(5, 4) % 7


def segmenter():
    return seeded(lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.Tanh(), nn.Conv2d(3, C, 1)))


def classes_last(module, x):
    return module(x).movedim(1, -1)


def reader(vocabulary=3):
    """Logits of each of four tokens."""
    return seeded(
        lambda: nn.Sequential(
            nn.Embedding(7, 3), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, vocabulary)
        )
    )


ESTIMATORS = [
    FisherRankEstimator,
    LayerQuotientEstimator,
    SymmetryClassifier,
    JacobianChainProfiler,
]


def same(found, expected):
    a, b = found.summary(), expected.summary()
    assert list(a) == list(b)
    np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-9, atol=1e-12)


class TestClassAxis:
    @quiet
    @pytest.mark.parametrize("kind", ESTIMATORS)
    @pytest.mark.parametrize("way", ["likelihood", "negative", "model", "labels"])
    def test_the_numbers_of_a_model_that_moves_them(self, kind, way):
        net = segmenter()
        own = {} if kind is JacobianChainProfiler else {"likelihood": "categorical"}
        by_hand = kind(WrappedModel(net, classes_last), **own).fit(X)
        if way == "model":
            found = kind(WrappedModel(net, class_axis=1), **own).fit(X)
        elif way == "labels":
            found = kind(net).fit(X, Y)
        elif kind is JacobianChainProfiler:
            return
        else:
            axis = 1 if way == "likelihood" else -3
            found = kind(net, likelihood=Categorical(class_axis=axis)).fit(X)
        same(found, by_hand)
        np.testing.assert_allclose(found.transform(X), by_hand.transform(X), atol=1e-9)

    @quiet
    def test_both_readings_agree(self):
        net = segmenter()
        for kind in ESTIMATORS:
            (row,) = kind().fit_transform([(net, X, Y)])
            np.testing.assert_allclose(
                row, list(kind(net).fit(X, Y).summary().values()), rtol=1e-10
            )

    @quiet
    @pytest.mark.parametrize(
        "layers", [[nn.Linear(4, 3)], [nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)]]
    )
    def test_a_softmax_along_positions_shifts_no_units(self, layers):
        net, Z = seeded(lambda: nn.Sequential(*copy.deepcopy(layers))), normal(9, 5, 4)
        found = nullity_account(net, Z, likelihood=Categorical(class_axis=1))
        by_hand = nullity_account(WrappedModel(net, classes_last), Z, likelihood="categorical")
        assert found.generators.dimensions == by_hand.generators.dimensions
        assert (found.explained, found.unexplained) == (by_hand.explained, by_hand.unexplained)
        last = nullity_account(net, Z, likelihood="categorical")
        assert last.generators.dimensions["softmax_shift"] == 5

    def test_halves_of_means_and_log_scales(self):
        net = seeded(lambda: nn.Conv2d(2, 4, 1))
        expected = fisher_trace(WrappedModel(net, classes_last), X, likelihood="gaussian_scale")
        found = fisher_trace(net, X, likelihood=GaussianScale(class_axis=1))
        assert found == pytest.approx(expected, rel=1e-12)
        y = normal(N, 2, H, W)
        assert fisher_trace(net, X, y, likelihood="gaussian_scale") == pytest.approx(expected)
        with pytest.warns(GeometryWarning, match="4 means and log-scales on the last axis"):
            fisher_trace(net, X, likelihood="gaussian_scale")

    def test_without_a_clue_the_last_axis_is_read_with_a_word(self):
        with pytest.warns(GeometryWarning, match="classes on the last axis"):
            fisher_trace(segmenter(), X, likelihood="categorical")
        for likelihood in (Categorical(class_axis=-1), Categorical(class_axis=1)):
            fisher_trace(segmenter(), X, likelihood=likelihood)

    def test_labels_that_fit_both_readings_are_refused(self):
        net, Z = seeded(lambda: nn.Linear(2, 4)), normal(5, 4, 2)
        y = torch.arange(20).reshape(5, 4) % 4
        for likelihood in ("auto", "categorical"):
            with pytest.raises(SkgeoError, match=r"4 classes on axis 1 and with 4 on the last"):
                fisher_trace(net, Z, y, likelihood=likelihood)
        last = fisher_trace(net, Z, y, likelihood=Categorical(class_axis=-1))
        assert last == fisher_trace(net, Z, likelihood="categorical")
        first = fisher_trace(WrappedModel(net, class_axis=1), Z, y)
        assert first == pytest.approx(
            fisher_trace(WrappedModel(net, classes_last), Z, likelihood="categorical")
        )

    def test_one_hot_labels_tell_the_axis(self):
        hot = nn.functional.one_hot(Y, C).movedim(-1, 1)
        assert fisher_trace(segmenter(), X, hot) == fisher_trace(segmenter(), X, Y)

    def test_one_channel_is_yes_or_no_per_pixel(self):
        net = seeded(lambda: nn.Conv2d(2, 1, 1))
        expected = fisher_trace(net, X, likelihood="bernoulli")
        assert fisher_trace(net, X, Y % 2) == pytest.approx(expected)

    @pytest.mark.parametrize("axis", [0, 4, -4, 7])
    def test_axes_that_are_none_of_the_classes(self, axis):
        with pytest.raises(SkgeoError, match=r"expected an axis from 1 to 3, or from -3 to -1"):
            fisher_trace(segmenter(), X, likelihood=Categorical(class_axis=axis))

    def test_a_likelihood_comes_before_its_model(self):
        net = segmenter()
        found = fisher_trace(
            WrappedModel(net, class_axis=2), X, likelihood=Categorical(class_axis=1)
        )
        assert found == fisher_trace(net, X, Y)

    @quiet
    def test_what_is_read_from_labels_holds_for_other_data(self):
        fitted = FisherRankEstimator(segmenter()).fit(X, Y)
        expected = FisherRankEstimator(
            WrappedModel(segmenter(), class_axis=1), likelihood="categorical"
        )
        np.testing.assert_allclose(
            abs(fitted.transform(X[:2])), abs(expected.fit(X).transform(X[:2])), atol=1e-9
        )


def masked_by_hand(module, inputs):
    """Logits with zeros at positions that do not count; none depend on parameters there."""
    z = module(inputs["ids"])
    return z * inputs["mask"].unsqueeze(-1).to(z.dtype)


def fisher_of_counted(net, ids, mask, forward=None):
    """Fisher matrix: sum over counted positions, mean over samples."""
    z, J = dense_jacobian(net, ids, forward)
    n, p = mask.shape
    z, J = z.reshape(n, p, -1), J.reshape(n, p, z.shape[1] // p, -1)
    total = np.zeros((J.shape[-1],) * 2)
    for i in range(n):
        for t in range(p):
            if mask[i, t]:
                q = np.exp(z[i, t]) / np.exp(z[i, t]).sum()
                total += J[i, t].T @ (np.diag(q) - np.outer(q, q)) @ J[i, t]
    return total / n


MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
LABELS = torch.where(MASK.bool(), TOKENS % 3, -100)


class TestLeftOut:
    def expected(self):
        return fisher_of_counted(reader(), TOKENS, MASK)

    def test_functions_drop_ignored_positions(self):
        net, G = reader(), self.expected()
        for likelihood in ("auto", "categorical"):
            how = {"likelihood": likelihood}
            assert fisher_trace(net, TOKENS, LABELS, **how) == pytest.approx(np.trace(G))
            found = fisher_diagonal(net, TOKENS, LABELS, **how)
            found = (
                torch.cat([v.flatten() for v in found.values()])
                if isinstance(found, dict)
                else found
            )
            np.testing.assert_allclose(np.asarray(found).ravel(), np.diag(G), rtol=1e-9, atol=1e-14)
            values = fisher_spectrum(net, TOKENS, LABELS, **how).eigenvalues.numpy()
            expected = np.linalg.eigvalsh(G)[::-1][: len(values)]
            np.testing.assert_allclose(values, expected, atol=1e-12)
        rank = np.linalg.matrix_rank(G, tol=1e-10, hermitian=True)
        assert fisher_rank(net, TOKENS, LABELS).rank == rank

    @pytest.mark.parametrize("batch_size", [1, 2, None])
    def test_batches_carry_the_mask(self, batch_size):
        found = fisher_trace(reader(), TOKENS, LABELS, batch_size=batch_size)
        assert found == pytest.approx(np.trace(self.expected()))

    def test_first_samples_that_are_left_out_certify_nothing(self):
        ids = TOKENS.repeat(4, 1)
        mask = torch.cat([torch.zeros(9, 4), torch.ones(11, 4)]).long()
        y = torch.where(mask.bool(), ids % 3, -100)
        G = fisher_of_counted(reader(), ids, mask)
        assert fisher_trace(reader(), ids, y) == pytest.approx(np.trace(G))

    @quiet
    @pytest.mark.parametrize(
        ("kind", "own"),
        [
            (FisherRankEstimator, {"likelihood": "categorical"}),
            (LayerQuotientEstimator, {"likelihood": "categorical", "layers": ["1", "2"]}),
            (JacobianChainProfiler, {"chain": "output", "layers": ["1", "2"]}),
        ],
    )
    def test_estimators_drop_them_by_labels_and_by_mask(self, kind, own):
        net = reader()
        both = {"ids": TOKENS, "mask": MASK}
        by_hand = kind(WrappedModel(net, masked_by_hand), **own).fit(both)
        same(kind(net, **own).fit(TOKENS, LABELS), by_hand)
        model = WrappedModel(net, lambda m, x: m(x["ids"]), mask=lambda x: x["mask"])
        found = kind(model, **own).fit(both)
        same(found, by_hand)
        np.testing.assert_allclose(found.transform(both), by_hand.transform(both), atol=1e-9)

    @quiet
    def test_the_softmax_shift_stays_a_symmetry(self):
        net = reader()
        by_hand = SymmetryClassifier(WrappedModel(net, masked_by_hand), likelihood="categorical")
        a = SymmetryClassifier(net).fit(TOKENS, LABELS)
        b = by_hand.fit({"ids": TOKENS, "mask": MASK})
        assert a.fisher_rank_ == b.fisher_rank_
        # The product by hand is a step that the graph does not know.
        assert a.explained_nullity_ == b.explained_nullity_ + 4

    def test_an_attention_mask_is_not_used_silently(self):
        net = reader()
        batch = {"input_ids": TOKENS, "attention_mask": MASK}

        def forward(module, inputs):
            return module(inputs["input_ids"])

        plain = fisher_trace(WrappedModel(net, forward), batch, likelihood="categorical")
        assert plain == pytest.approx(fisher_trace(net, TOKENS, likelihood="categorical"))
        model = WrappedModel(net, forward, mask=lambda inputs: inputs["attention_mask"])
        found = fisher_trace(model, batch, likelihood="categorical")
        assert found == pytest.approx(np.trace(self.expected()))

    def test_mask_and_labels_together(self):
        other = torch.tensor([[1, 0, 1, 1]]).expand(5, 4)
        model = WrappedModel(reader(), mask=lambda ids: other[: len(ids)].bool())
        G = fisher_of_counted(reader(), TOKENS, MASK * other)
        assert fisher_trace(model, TOKENS, LABELS) == pytest.approx(np.trace(G))

    def test_pixels_with_classes_on_axis_1(self):
        y = Y.clone()
        y[:, 0, 1:3] = -100
        net = segmenter()
        G = fisher_of_counted(net, X, (y.flatten(1) >= 0).long(), classes_last)
        assert fisher_trace(net, X, y) == pytest.approx(np.trace(G))
        (found,) = layer_spectra(net, X, y, layers=["0"])
        (every,) = layer_spectra(net, X, Y, layers=["0"])
        # Pixels of a 1 x 1 convolution are independent, and each has rank C - 1.
        assert (found.ranks.tolist(), every.ranks.tolist()) == ([12] * N, [16] * N)

    def test_a_label_of_ones_own(self):
        y = torch.where(MASK.bool(), TOKENS % 3, 255)
        found = fisher_trace(reader(), TOKENS, y, likelihood=Categorical(ignore_index=255))
        assert found == pytest.approx(np.trace(self.expected()))
        kept = fisher_trace(reader(), TOKENS, LABELS, likelihood=Categorical(ignore_index=None))
        assert kept == fisher_trace(reader(), TOKENS, likelihood="categorical")

    def test_rows_that_count(self):
        rows = FisherRows(bind(reader(), TOKENS, LABELS, likelihood="auto"))
        assert (rows.n_rows, rows.network.counted_rows()) == (5 * 4 * 2, int(MASK.sum()) * 2)
        dense = rows.rows(range(5)).reshape(20, 2, -1).abs().amax((1, 2))
        assert (dense > 0).tolist() == MASK.flatten().bool().tolist()
        rows = FisherRows(bind(reader(), TOKENS, likelihood="categorical"))
        assert rows.n_rows == rows.network.counted_rows()

    def test_whole_samples(self):
        net, Z = mlp(3, 4, 2), normal(5, 3)
        y = np.array([0, 1, -100, 1, -100])
        kept = fisher_trace(net, Z[[0, 1, 3]], likelihood="categorical")
        assert fisher_trace(net, Z, y) == pytest.approx(3 / 5 * kept)
        kernel = np.asarray(ntk(WrappedModel(net, mask=lambda x: x[:, 0] != Z[0, 0]), Z))
        expected = np.asarray(ntk(net, Z)).copy()
        expected[:2], expected[:, :2] = 0, 0  # both outputs of the first sample
        np.testing.assert_allclose(kernel, expected, atol=1e-12)

    def test_nothing_left(self):
        every = torch.full((5, 4), -100)
        with pytest.raises(SkgeoError, match="Every label in y is -100"):
            fisher_trace(reader(), TOKENS, every)
        none = WrappedModel(reader(), mask=torch.zeros_like)
        with pytest.raises(SkgeoError, match="No position of any sample counts"):
            fisher_trace(none, TOKENS, likelihood="categorical")

    def test_labels_of_another_shape(self):
        y = torch.tensor([0, -100, 1, 2, 0])
        with pytest.raises(SkgeoError, match=r"4 positions per sample"):
            fisher_trace(reader(), TOKENS, y, likelihood="categorical")

    @pytest.mark.parametrize(
        ("mask", "said"),
        [
            (lambda ids: ids[:, :2] > 0, r"shape \(5, 2\).*each of 4 positions of 5 samples"),
            (lambda ids: ids, "other than 0 and 1"),
            (lambda ids: None, "returned NoneType"),
        ],
    )
    def test_masks_that_are_none(self, mask, said):
        with pytest.raises(SkgeoError, match=said):
            fisher_trace(WrappedModel(reader(), mask=mask), TOKENS, likelihood="categorical")

    def test_integers_to_regress_are_no_labels(self):
        y = np.array([3, -100, 2, 8, 1])
        net, Z = mlp(3, 4, 1), normal(5, 3)
        assert fisher_trace(net, Z, y, likelihood="gaussian") == fisher_trace(
            net, Z, likelihood="gaussian"
        )


def only_tokens(inputs):
    return inputs["mask"]


def test_penalties_do_not_pass_a_mask_by():
    model = WrappedModel(mlp(3, 2), mask=lambda x: x[:, 0] > 0)
    with pytest.raises(SkgeoError, match="penalties take every position"):
        jacobian_penalty(model, normal(4, 3))


class TestWrapped:
    def test_repr_and_pickle(self):
        model = WrappedModel(nn.ReLU(), class_axis=1, mask=only_tokens)
        assert repr(model) == "WrappedModel(ReLU, class_axis=1, mask=only_tokens)"
        copied = pickle.loads(pickle.dumps(model))
        assert (copied.class_axis, copied.mask) == (1, only_tokens)

    def test_the_cache_tells_them_apart(self):
        net = nn.ReLU()
        found = {
            fingerprint(WrappedModel(net, **own))
            for own in ({}, {"class_axis": 1}, {"class_axis": 2}, {"mask": only_tokens})
        }
        assert len(found) == 4

    @pytest.mark.parametrize("own", [{"class_axis": 0}, {"class_axis": "1"}, {"class_axis": True}])
    def test_misuse(self, own):
        with pytest.raises(NotAModelError, match="got class_axis="):
            WrappedModel(nn.ReLU(), **own)
        with pytest.raises(NotAModelError, match="got mask=Tensor"):
            WrappedModel(nn.ReLU(), mask=torch.ones(3))
