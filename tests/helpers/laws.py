"""Laws that every estimator keeps. A test class inherits them by saying what to build.

class TestMyLaws(PairLaws):
    def estimator(self, model=None, **parameters): ...
    def pairs(self): ...            # at least three, of different models
"""

import copy
import pickle
import random
import threading
import warnings
from contextlib import contextmanager

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from threadpoolctl import threadpool_info

from helpers.oracles import assert_untouched
from skgeo import GeometryWarning, NotAModelError, SkgeoError


def assert_same_rows(found, expected):
    """Equal to 1e-10, NaN equal to NaN, whole numbers exactly."""
    found, expected = np.asarray(found), np.asarray(expected)
    whole = expected == np.round(expected)
    np.testing.assert_array_equal(found[whole], expected[whole])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=0, equal_nan=True)


def settings():
    """What a measurement must leave as it was in the process and in the thread that runs it."""
    return {
        "threads": torch.get_num_threads(),
        "BLAS threads": [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"],
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "attention": torch.backends.cuda.flash_sdp_enabled(),
        "random state of torch": torch.get_rng_state().tolist(),
        "random state of numpy": repr(np.random.get_state()),  # noqa: NPY002
        "random state of Python": random.getstate(),
    }


@contextmanager
def assert_nothing_changed(model, *data):
    """The block leaves the model, the data and the settings as they were, also if it raises."""
    before, copies = settings(), copy.deepcopy(data)
    try:
        with assert_untouched(model):
            yield
    finally:
        for now, then in zip(data, copies, strict=True):
            np.testing.assert_array_equal(np.asarray(now), np.asarray(then))
        after = settings()
        assert [name for name in before if before[name] != after[name]] == []


class LockedMLP(torch.nn.Module):
    """A module that deepcopy cannot copy, in float64."""

    def __init__(self, seed=0):
        super().__init__()
        self.lock = threading.Lock()
        generator = torch.Generator().manual_seed(seed)
        sizes = [(5, 4), (3, 5)]
        self.weights = torch.nn.ParameterList(
            [torch.randn(*s, generator=generator, dtype=torch.float64) for s in sizes]
        )

    def forward(self, x):
        return (x @ self.weights[0].T).tanh() @ self.weights[1].T


class PairLaws:
    """What holds for the unbound reading of every estimator, and ties it to the bound one."""

    def estimator(self, model=None, **parameters):
        raise NotImplementedError

    def pairs(self):
        raise NotImplementedError

    @pytest.fixture
    def table(self):
        return self.pairs()

    def test_two_readings_are_one(self, table):
        rows = self.estimator().fit_transform(table)
        for row, (model, *data) in zip(rows, table, strict=True):
            bound = self.estimator(model).fit(*data)
            assert_same_rows(row, list(bound.summary().values()))
            assert list(bound.summary()) == list(self.estimator().get_feature_names_out())

    def test_list_and_frame_are_one(self, table):
        columns = ["model", "X", "y"][: len(table[0])]
        frame = pd.DataFrame(
            {c: pd.Series([r[i] for r in table], dtype=object) for i, c in enumerate(columns)}
        )
        objects = np.empty(len(table), dtype=object)
        objects[:] = table
        expected = self.estimator().fit_transform(table)
        np.testing.assert_array_equal(self.estimator().fit_transform(frame), expected)
        np.testing.assert_array_equal(self.estimator().fit_transform(objects), expected)

    def test_permuted_pairs_permute_rows(self, table):
        order = np.random.default_rng(0).permutation(len(table))
        rows = self.estimator().fit_transform(table)
        np.testing.assert_array_equal(
            self.estimator().fit_transform([table[i] for i in order]), rows[order]
        )

    def test_a_row_does_not_depend_on_the_others(self, table):
        rows = self.estimator().fit_transform(table)
        np.testing.assert_array_equal(self.estimator().fit_transform(table[1:2]), rows[1:2])
        fitted_elsewhere = self.estimator().fit(table[:1], [0])
        np.testing.assert_array_equal(fitted_elsewhere.transform(table[1:]), rows[1:])

    def test_transform_needs_no_fit_without_a_model(self, table):
        rows = self.estimator().transform(table)
        np.testing.assert_array_equal(rows, self.estimator().fit_transform(table))

    def test_jobs_do_not_change_rows(self, table):
        alone = self.estimator(n_jobs=1).fit_transform(table)
        np.testing.assert_array_equal(self.estimator(n_jobs=2).fit_transform(table), alone)

    def test_one_module_in_eight_threads(self, table):
        model, *data = table[0]
        eight = [(model, *data)] * 8
        with assert_untouched(model):
            alone = self.estimator(n_jobs=1).fit_transform(eight)
            together = self.estimator(n_jobs=2).fit_transform(eight)
        np.testing.assert_array_equal(together, alone)
        assert (together == together[0]).all()

    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_batches_do_not_change_rows(self, table, batch_size):
        if "batch_size" not in self.estimator().get_params():
            pytest.skip("no batches")
        assert_same_rows(
            self.estimator(batch_size=batch_size).fit_transform(table),
            self.estimator().fit_transform(table),
        )

    def test_models_data_and_settings_are_untouched_by_both_readings(self, table):
        for model, *data in table:
            with assert_nothing_changed(model, *data):
                self.estimator().fit_transform([(model, *data)])
                self.estimator(model).fit(*data).transform(data[0])

    def test_fits_that_overlap_leave_the_settings_as_they_were(self, table):
        model, *data = table[0]
        together = threading.Barrier(2)
        fits = [threading.Thread(target=self._fit_with, args=(model, data, together))]
        fits[0].start()
        with assert_nothing_changed(model, *data):
            self._fit_with(model, data, together)
            fits[0].join()

    def _fit_with(self, model, data, together):
        together.wait()
        self.estimator(model).fit(*data)

    def test_modules_that_cannot_be_copied_are_measured_and_cloned(self):
        module = LockedMLP()
        X = np.random.default_rng(0).normal(size=(30, 4))
        with pytest.raises(TypeError, match="lock"):
            copy.deepcopy(module)
        bound = clone(self.estimator(module))
        assert bound.model is module
        rows = self.estimator().fit_transform([(module, X)])
        assert_same_rows(rows[0], list(bound.fit(X).summary().values()))

    def test_clone_keeps_parameters_and_drops_the_fit(self, table):
        model, *data = table[0]
        fitted = self.estimator(model).fit(*data)
        copied = clone(fitted)
        assert copied.get_params(deep=False) == fitted.get_params(deep=False)
        with pytest.raises(NotFittedError):
            copied.transform(data[0])

    def test_pickles(self, table):
        model, *data = table[0]
        fitted = pickle.loads(pickle.dumps(self.estimator(model).fit(*data)))
        assert_same_rows(
            list(fitted.summary().values()),
            list(self.estimator(model).fit(*data).summary().values()),
        )
        assert fitted.transform(data[0]).shape[0] == len(data[0])

    def test_names_fit_the_width_in_both_readings(self, table):
        unbound = self.estimator()
        names = list(unbound.get_feature_names_out())
        assert unbound.fit_transform(table).shape == (len(table), len(names))
        assert len(set(names)) == len(names)
        model, *data = table[0]
        bound = self.estimator(model).fit(*data)
        features = bound.transform(data[0])
        assert features.shape == (len(data[0]), len(bound.get_feature_names_out()))
        assert features.dtype == np.float64

    def test_frames_come_out_on_request(self, table):
        framed = self.estimator().set_output(transform="pandas").fit_transform(table)
        assert list(framed.columns) == list(self.estimator().get_feature_names_out())
        np.testing.assert_array_equal(framed, self.estimator().fit_transform(table))

    def test_a_bad_row_is_named(self, table):
        wrong = [*table, (torch.nn.Linear(17, 2), *table[0][1:])]
        with pytest.raises(Exception) as raised:  # noqa: PT011
            self.estimator().fit_transform(wrong)
        assert f"in pair {len(table)}" in raised.value.__notes__
        with pytest.raises(NotAModelError, match="pair 1 starts with an object of type str"):
            self.estimator().fit_transform([table[0], ("model.pt", *table[0][1:])])
        with pytest.raises(SkgeoError, match=r"row 1 is .* not a pair"):
            self.estimator().fit_transform([table[0], table[0][0]])

    def test_a_failing_pair_becomes_nan_on_request(self, table):
        wrong = [(torch.nn.Linear(17, 2), *table[0][1:]), *table]
        with pytest.warns(GeometryWarning, match=r"In 1 of \d+ pairs \(0\)"):
            rows = self.estimator(on_error="nan").fit_transform(wrong)
        assert np.isnan(rows[0]).all()
        np.testing.assert_array_equal(rows[1:], self.estimator().fit_transform(table))

    @pytest.mark.parametrize("rows", [[], pd.DataFrame({"model": [], "X": []})])
    def test_an_empty_table_is_refused(self, rows):
        with pytest.raises(SkgeoError, match="empty"):
            self.estimator().fit(rows)

    def test_each_reading_refuses_the_other_ones_data(self, table):
        for rows in (np.zeros((3, 4)), torch.zeros(3, 4), {"x": torch.zeros(3)}):
            with pytest.raises(SkgeoError, match=r"Estimator\(model=net\)\.fit\(X\)"):
                self.estimator().fit(rows)
        with pytest.raises(SkgeoError, match=r"list of tuples.*without model="):
            self.estimator(table[0][0]).fit(table)
        with pytest.raises(SkgeoError, match="one pair was given bare"):
            self.estimator().fit(table[0])

    def test_cached_rows_are_the_rows(self, table, tmp_path):
        memory = joblib.Memory(tmp_path, verbose=0)
        expected = self.estimator().fit_transform(table)
        for _ in range(2):
            found = self.estimator(memory=memory).fit_transform(table)
            np.testing.assert_array_equal(found, expected)

    def test_a_changed_weight_is_not_read_from_the_cache(self, tmp_path):
        module = LockedMLP()
        X = np.random.default_rng(0).normal(size=(30, 4))
        unbound = self.estimator(memory=str(tmp_path))
        before = unbound.fit_transform([(module, X)])
        with torch.no_grad():
            module.weights[0][0, 0] += 1.0
        after = unbound.fit_transform([(module, X)])
        np.testing.assert_array_equal(after, self.estimator().fit_transform([(module, X)]))
        assert (before != after).any()

    def test_a_model_changed_after_fit_is_refused(self):
        module = LockedMLP()
        X = np.random.default_rng(0).normal(size=(30, 4))
        fitted = self.estimator(module).fit(X)
        with torch.no_grad():
            module.weights[0][0, 0] += 1.0
        with pytest.raises(SkgeoError, match="changed since fit"):
            fitted.transform(X)

    def test_blas_threads_are_restored(self, table):
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            self.estimator(n_jobs=2).fit_transform(table)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)

    def test_no_warnings_on_clean_pairs(self, table):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.estimator().fit_transform(table)
