"""``verbose=1`` shows progress and the time left in both readings, and changes no number."""

import re
import sys

import pytest

from helpers.networks import mlp, normal
from skgeo import FisherRankEstimator, JacobianChainProfiler, LayerQuotientEstimator
from skgeo._progress import shown

BOUND = [
    FisherRankEstimator(likelihood="categorical", batch_size=5),
    FisherRankEstimator(likelihood="categorical", solver="gram", batch_size=5),
    LayerQuotientEstimator(likelihood="categorical", batch_size=5),
    JacobianChainProfiler(batch_size=5),
]


@pytest.mark.parametrize("estimator", BOUND, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")
def test_a_fit_shows_its_passes(estimator, rich, capsys, monkeypatch):
    if rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    X = normal(20, 3, seed=0)
    net = mlp(3, 4, 3, seed=0)
    quiet = estimator.set_params(model=net, verbose=0).fit(X).summary()
    assert capsys.readouterr().out == ""
    assert estimator.set_params(verbose=1).fit(X).summary() == quiet
    said = capsys.readouterr().out
    name = type(estimator).__name__
    if rich:
        assert re.search(rf"{name} .* 100% 0:00:\d\d", said)
    else:
        lines = said.splitlines()
        # The inner products of all samples are one pass if they fit in memory.
        assert len(lines) >= (1 if getattr(estimator, "solver", "") == "gram" else 4)
        assert all(re.fullmatch(rf"{name}: \d+ of \d+ in \d s, \d s left", x) for x in lines)


def test_a_table_shows_its_pairs_without_rich(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    pairs = [(mlp(3, 2, seed=seed), normal(20, 3, seed=0)) for seed in range(2)]
    FisherRankEstimator(likelihood="categorical", verbose=1).fit_transform(pairs)
    assert re.fullmatch(
        r"pairs: 1 of 2 in \d s, \d s left\npairs: 2 of 2 in \d s, 0 s left\n",
        capsys.readouterr().out,
    )


def test_the_time_left_is_that_of_the_items_to_come(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    clock = iter([0.0, 10.0, 20.0, 60.0])
    monkeypatch.setattr("skgeo._progress.time.monotonic", lambda: next(clock))
    assert list(shown("abc", 3, "rows")) == ["a", "b", "c"]
    assert capsys.readouterr().out.splitlines() == [
        "rows: 1 of 3 in 10 s, 20 s left",
        "rows: 2 of 3 in 20 s, 10 s left",
        "rows: 3 of 3 in 60 s, 0 s left",
    ]
