"""Tables of polars are read as those of pandas are."""

import numpy as np
import pytest

from helpers.networks import mlp, normal
from skgeo import FisherRankEstimator, SkgeoError, fisher_trace

polars = pytest.importorskip("polars")

NET, X = mlp(3, 4, 2), normal(40, 3).numpy()


def frame(columns="abc"):
    return polars.DataFrame(dict(zip(columns, X.T, strict=True)))


def test_column_names_are_seen_and_checked():
    fitted = FisherRankEstimator(NET, likelihood="gaussian").fit(frame())
    assert fitted.feature_names_in_.tolist() == ["a", "b", "c"]
    plain = FisherRankEstimator(NET, likelihood="gaussian").fit(X)
    np.testing.assert_allclose(fitted.eigenvalues_, plain.eigenvalues_)
    with pytest.raises(SkgeoError, match="feature names should match"):
        fitted.transform(frame("xyz"))


def test_functions_read_them():
    assert fisher_trace(NET, frame(), likelihood="gaussian") == pytest.approx(
        fisher_trace(NET, X, likelihood="gaussian")
    )


def test_a_table_of_pairs():
    rows = [(NET, X), (mlp(3, 2), X)]
    models, data = (
        polars.Series(list(column), dtype=polars.Object) for column in zip(*rows, strict=True)
    )
    table = polars.DataFrame({"model": models, "X": data})
    estimator = FisherRankEstimator(likelihood="gaussian")
    np.testing.assert_array_equal(estimator.fit_transform(table), estimator.fit_transform(rows))
    with pytest.raises(SkgeoError, match="columns"):
        estimator.fit_transform(table.rename({"model": "net"}))
