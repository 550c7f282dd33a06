import numpy as np
import pytest
from scipy import sparse

from skgeo.symmetry._generators import span
from skgeo.symmetry._generators.span import nested_dimensions, sparse_rank


@pytest.mark.parametrize("density", [0.02, 0.05, 0.2, 0.6])
@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_those_of_the_dense_matrix(density, seed):
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(60, 25)) * (rng.random((60, 25)) < density)
    mix = rng.normal(size=(25, 15)) * (rng.random((25, 15)) < 3 / 25)
    columns = np.concatenate([left, left @ mix, np.eye(60)[:, :3]], axis=1)
    columns = columns[:, np.abs(columns).sum(0) > 0]
    columns = columns[:, rng.permutation(columns.shape[1])]
    scaled = columns / np.linalg.norm(columns, axis=0) * 10 ** rng.uniform(-3, 3, columns.shape[1])
    normed = columns / np.linalg.norm(columns, axis=0)
    expected = np.linalg.matrix_rank(normed, tol=1e-9)
    assert sparse_rank(sparse.csc_array(scaled)) == expected
    groups = np.sort(rng.integers(0, 4, columns.shape[1]))
    groups[-1] = 3
    found = nested_dimensions(sparse.csc_array(scaled), groups)
    nested = [np.linalg.matrix_rank(normed[:, groups <= g], tol=1e-9) for g in range(4)]
    np.testing.assert_array_equal(np.cumsum(found), nested)


def test_large_components_are_counted_by_their_gram_matrix(monkeypatch):
    monkeypatch.setattr(span, "_MOST_ENTRIES", 10)
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(40, 12)) @ rng.normal(size=(12, 20))
    assert sparse_rank(sparse.csc_array(columns)) == 12


def test_many_unit_vectors_take_no_dense_matrix():
    n = 50_000
    ones = sparse.csc_array(sparse.eye_array(n))
    total = sparse.csc_array(np.ones((n, 1)))
    assert sparse_rank(sparse.hstack([ones, total, ones], format="csc")) == n


def test_nothing_spans_nothing():
    assert nested_dimensions(sparse.csc_array((5, 0)), np.zeros(0, dtype=int)).shape == (0,)
