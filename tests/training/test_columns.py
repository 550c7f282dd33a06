"""What a tracked run has beside its estimators: functions of a network, and its signature."""

import copy
import functools
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from helpers.tracking import STEPS, Counting, X, run_of, write_run
from skgeo import FisherRankEstimator, SymmetryClassifier, WrappedModel, fisher_rank, track
from skgeo.datasets import training_run
from skgeo.exceptions import GeometryWarning, SkgeoError
from skgeo.quotient import neural_collapse

pytestmark = pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")


@pytest.fixture
def folder(tmp_path):
    write_run(tmp_path / "run")
    return tmp_path / "run"


def labelled(folder):
    """The run with targets, which say what the outputs mean."""
    run = run_of(folder)
    return run.assign(y=[np.arange(6) % 2] * len(run))


def fisher(**options):
    return FisherRankEstimator(likelihood="categorical", n_components=0, **options)


def size(model, X, y):
    squares = sum(p.square().sum() for p in model.parameters())
    return {"norm": squares.sqrt(), "n": len(X)}


def test_columns_of_a_function(folder):
    run = labelled(folder)
    table = track(run, {"fisher": fisher(), "size": size})
    assert list(table.columns[8:10]) == ["size__norm", "size__n"]
    norms = [float(size(c.load(), X(), None)["norm"].detach()) for c in run["model"]]
    assert table["size__norm"].tolist() == norms
    assert table["size__n"].tolist() == [6.0] * len(STEPS)
    pd.testing.assert_frame_equal(
        table.drop(columns=table.columns[8:10]), track(run, {"fisher": fisher()})
    )
    assert track(run, [size, functools.partial(size)]).columns[0] == "size-1__norm"


def test_collapse_by_construction():
    # At the last step the two samples of a class are one point before the head, the class means
    # an equiangular frame, and the head is proportional to them; at the first step nothing is.
    classes = np.array([0, 0, 1, 1, 2, 2])
    inputs = np.eye(6)
    nets = []
    for spread in (0.3, 0.0):
        net = nn.Sequential(
            nn.Linear(6, 3, bias=False), nn.Identity(), nn.Linear(3, 3, bias=False)
        ).double()
        frame = np.eye(3) - 1 / 3
        points = frame[classes] + spread * np.array([1, -1, 1, -1, 1, -1])[:, None] * frame[0]
        with torch.no_grad():
            net[0].weight.copy_(torch.from_numpy(points.T))
            net[2].weight.copy_(torch.from_numpy(frame))
        nets.append(net)
    run = [(net, inputs, classes) for net in nets]
    table = track(run, {"nc": functools.partial(neural_collapse, likelihood="categorical")})
    measures = [f"nc__collapse_{m}[1]" for m in ("nc1", "nc2_norms", "nc2_angles", "nc3", "nc4")]
    np.testing.assert_allclose(table[measures].iloc[1], 0.0, atol=1e-12)
    # Half the squared distance within a class is the same for all: 0.09 |u_0|^2 against means
    # with tr(W B^+) / C = 0.09 u_0^T (sum_c u_c u_c^T / 3)^+ u_0 / 3, where sum u u^T is the frame.
    assert table[measures[0]].iloc[0] == pytest.approx(0.09 * 2 / 3, rel=1e-10)
    assert table["nc__collapse_common_rank[1]"].tolist() == [2.0, 2.0]
    # The same numbers as the function's own table and summary.
    alone = neural_collapse(nets[0], inputs, classes, likelihood="categorical")
    of_layers = alone.layers.set_index("layer")
    for name in ("nc1", "nc4", "within_rank", "rank_median"):
        assert table[f"nc__collapse_{name}[1]"].iloc[0] == of_layers.loc["1", name]
    for key, value in alone.summary().items():
        assert np.array_equal(table[f"nc__{key}"].iloc[0], value, equal_nan=True)


def note(folder):
    """A call, as a file: a list that a function names would be part of its content."""
    folder.mkdir(exist_ok=True)
    Path(folder, uuid.uuid4().hex).touch()


def calls(folder):
    found = list(folder.iterdir()) if folder.exists() else []
    for path in found:
        path.unlink()
    return len(found)


def scaled(by, log):
    def function(model, X, y):
        note(log)
        return {"first": by * model[0].weight[0, 0]}

    return function


def test_results_of_functions_are_kept_by_their_code(folder, tmp_path):
    run, log, kept = labelled(folder), tmp_path / "log", tmp_path / "kept"
    first = track(run, {"f": scaled(2.0, log)}, memory=kept)
    assert calls(log) == len(STEPS)
    again = track(run, {"f": scaled(2.0, log)}, memory=kept)
    assert calls(log) == 0
    pd.testing.assert_frame_equal(again, first, check_exact=True)
    # What the code refers to counts, and so do weights.
    other = track(run, {"f": scaled(3.0, log)}, memory=kept)
    assert calls(log) == len(STEPS)
    np.testing.assert_allclose(other["f__first"], 1.5 * first["f__first"], rtol=1e-15)
    write_run(folder, steps=[7])
    more = track(labelled(folder), {"f": scaled(2.0, log)}, memory=kept)
    assert calls(log) == 1
    assert more["f__first"].drop(7).tolist() == first["f__first"].tolist()


def test_a_run_that_was_interrupted_goes_on(folder, tmp_path):
    run, log, kept = labelled(folder), tmp_path / "log", tmp_path / "kept"

    def stops(model, X, y):
        note(log)
        if len(list(log.iterdir())) == 4 and not (tmp_path / "on").exists():
            raise KeyboardInterrupt
        return {"n": len(X)}

    with pytest.raises(KeyboardInterrupt):
        track(run, {"f": stops}, memory=kept)
    (tmp_path / "on").touch()
    table = track(run, {"f": stops}, memory=kept)
    assert calls(log) == len(STEPS) + 1  # the one that was cut off ran twice
    assert table["f__n"].tolist() == [6.0] * len(STEPS)


def measured_once(log, model, X, y):
    with open(log, "a") as file:
        file.write("x")
    return {"n": len(X)}


def test_code_that_cannot_be_followed_is_not_kept(folder, tmp_path):
    run = labelled(folder).iloc[:2]
    log = str(tmp_path / "log")
    function = functools.partial(measured_once, log)
    for _ in range(2):
        with pytest.warns(GeometryWarning, match=r"'f' are not cached: .*open in measured_once"):
            track(run, {"f": function}, memory=tmp_path / "kept")
    assert (tmp_path / "log").read_text() == "xxxx"


def test_functions_in_parallel(folder):
    run = labelled(folder)
    alone = track(run, [neural_collapse, fisher()])
    found = track(run, [neural_collapse, fisher()], n_jobs=2)
    pd.testing.assert_frame_equal(found, alone, check_exact=True)


def test_a_function_is_given_the_model_as_it_was(folder):
    module = nn.Linear(3, 2).double()
    wrapped = WrappedModel(module, forward=lambda m, x: m(x), likelihood="categorical")
    seen = []

    def look(model, X, y):
        seen.append(model)
        return pd.Series({"one": 1.0})

    assert track([(module, X(), [0, 1] * 3)], look)["look__one"].tolist() == [1.0]
    track([(wrapped, X())], look)
    assert seen[0] is module
    assert isinstance(seen[1], WrappedModel)
    assert (seen[1].module, seen[1].forward) == (module, wrapped.forward)


def test_a_function_that_fails_leaves_the_others(folder):
    run = labelled(folder)

    def picky(model, X, y):
        if model[0].weight[0, 0] > 0:
            raise RuntimeError("too large")
        return {"n": 1.0}

    with pytest.raises(RuntimeError, match="too large"):
        track(run, {"picky": picky})
    with pytest.warns(GeometryWarning, match="NaN for what failed, picky"):
        table = track(run, {"picky": picky, "count": Counting()}, on_error="nan")
    assert 0 < table["picky__n"].isna().sum() < len(STEPS)
    assert table["count__mean_weight"].notna().all()


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (3.0, "returned an object of type float; expected a dict"),
        ({1: 2.0}, "returned a dict of 1; expected a dict of names"),
        ({"a": "3"}, "an object of type str as 'a'; expected a number"),
        ({"a": np.ones(2)}, r"ndarray of shape \(2,\) as 'a'; expected a number"),
        (None, "returned None; expected a dict"),
    ],
)
def test_what_is_no_number_by_name(returned, words):
    with pytest.raises(SkgeoError, match=rf"At step 0, f: The function 'f' .*{words}"):
        track([(nn.Linear(3, 2).double(), X())], {"f": lambda model, X, y: returned})


SIGNATURE = ["signature__rank", "signature__negative", "signature__nullity"]


def test_signature_in_closed_form():
    # Softmax regression: rank (K - 1)(n + 1) of K (n + 1) parameters.
    inputs = np.random.default_rng(0).standard_normal((20, 3))
    run = [(nn.Linear(3, 4).double(), inputs), (nn.Linear(3, 4).double(), inputs)]
    for estimators in (Counting(), fisher()):
        if isinstance(estimators, Counting):
            estimators = {"n": lambda model, X, y: {"n": 1.0}}
            run = [(WrappedModel(m, likelihood="categorical"), x) for m, x in run]
        table = track(run, estimators)
        assert table[SIGNATURE].to_numpy().tolist() == [[12.0, 0.0, 4.0]] * 2


def test_signature_does_not_depend_on_the_parametrisation():
    # One unit's incoming weights times c, its outgoing ones divided by c.
    run = training_run("moons", hidden=(4,), steps=(0, 50), n_samples=30)
    net, X, y = run.pairs[1]
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[0].weight[0] *= 8.0
        other[0].bias[0] *= 8.0
        other[2].weight[:, 0] /= 8.0
    table = track([(net, X, y), (other, X, y)], {"fisher": FisherRankEstimator()})
    assert table[SIGNATURE].iloc[0].tolist() == table[SIGNATURE].iloc[1].tolist()
    assert table["fisher__fisher_trace"].iloc[1] > 2 * table["fisher__fisher_trace"].iloc[0]


def test_the_rank_is_measured_once(folder, monkeypatch):
    ranks = []

    def counted(*args, **options):
        ranks.append(options)
        return fisher_rank(*args, **options)

    monkeypatch.setattr("skgeo.training._signature.fisher_rank", counted)
    run = run_of(folder)
    table = track(run, {"fisher": fisher(tol=0.1)})
    assert not ranks
    assert table["signature__rank"].tolist() == table["fisher__fisher_rank"].tolist()
    table = track(run, Counting())
    assert [options["likelihood"] for options in ranks] == ["categorical"] * len(STEPS)
    expected = track(run, fisher())
    assert table[SIGNATURE].to_numpy().tolist() == expected[SIGNATURE].to_numpy().tolist()


def test_the_rank_of_symmetries_is_taken_too(folder, monkeypatch):
    expected = track(run_of(folder), fisher())
    monkeypatch.setattr("skgeo.training._signature.fisher_rank", None)
    symmetry = SymmetryClassifier(likelihood="categorical")
    table = track(run_of(folder), {"symmetry": symmetry})
    assert table[SIGNATURE].to_numpy().tolist() == expected[SIGNATURE].to_numpy().tolist()
    # Where it has no rank, none is measured in its place.
    with pytest.warns(GeometryWarning, match="above the limit of 0"):
        table = track(run_of(folder), {"symmetry": symmetry.set_params(nullity_limit=0)})
    assert table[SIGNATURE].isna().all(axis=None)


def test_a_large_rank_is_not_measured_unasked(folder, monkeypatch):
    monkeypatch.setattr("skgeo.training._signature.NULLITY_LIMIT", 5)
    with pytest.warns(GeometryWarning, match="6 rows on its smaller side, above the limit of 5"):
        table = track(run_of(folder), Counting())
    assert table[SIGNATURE].isna().all(axis=None)
    asked = track(run_of(folder), fisher())
    assert asked[SIGNATURE].notna().all(axis=None)


def test_signatures_are_kept(folder, tmp_path, monkeypatch):
    first = track(run_of(folder), Counting(), memory=tmp_path)

    def never(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr("skgeo.training._signature.fisher_rank", never)
    pd.testing.assert_frame_equal(track(run_of(folder), Counting(), memory=tmp_path), first)


def test_a_network_without_a_fisher_metric_has_no_signature():
    frozen = nn.Linear(3, 2).double().requires_grad_(False)
    with pytest.warns(GeometryWarning, match="NaN for the signature, which no estimator measures"):
        table = track([(frozen, X())], {"n": lambda model, X, y: {"n": len(X)}})
    assert table[SIGNATURE].isna().all(axis=None)
    assert table["n__n"].tolist() == [6.0]
