"""Features of every network of a run: what they are, where they are kept, and what fails."""

import multiprocessing
import os
import signal
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from helpers.tracking import STEPS, Counting, X, count, factory, run_of, track_to_file, write_run
from skgeo import FisherRankEstimator, LayerQuotientEstimator, WrappedModel, track
from skgeo.datasets import training_run
from skgeo.exceptions import GeometryWarning, SkgeoError
from skgeo.likelihood import Likelihood

pytestmark = pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")


@pytest.fixture
def folder(tmp_path):
    write_run(tmp_path / "run")
    return tmp_path / "run"


def fisher():
    return FisherRankEstimator(likelihood="categorical", n_components=0)


def test_columns_are_those_of_the_pairs(folder):
    run = run_of(folder)
    quotient = LayerQuotientEstimator(likelihood="categorical")
    table = track(run, {"f": fisher(), "q": quotient})
    assert table.index.name == "step"
    assert table.index.tolist() == list(STEPS)
    for name, estimator in (("f", fisher()), ("q", quotient)):
        columns = [f"{name}__{key}" for key in estimator.get_feature_names_out()]
        assert np.array_equal(table[columns], estimator.fit_transform(run), equal_nan=True)
    layers = quotient.set_params(model=run["model"].iloc[3]).fit(X()).layers_
    own = [c for c in table.columns if c.startswith("q__quotient_common_nullity[")]
    assert own == [f"q__quotient_common_nullity[{layer}]" for layer in layers["layer"]]
    assert table[own].iloc[3].tolist() == layers["common_nullity"].tolist()
    assert list(table.columns[-2:]) == ["jump__kl", "jump__fisher_rao_length"]
    assert set(table.dtypes) == {np.dtype(np.float64)}


def test_names_of_estimators(folder):
    run = run_of(folder).iloc[:1]
    one = track(run, Counting())
    assert one.columns[0] == "counting__mean_weight"
    two = track(run, [Counting(), fisher(), Counting()])
    kinds = list(dict.fromkeys(column.partition("__")[0] for column in two.columns))
    assert kinds == ["counting-1", "fisherrankestimator", "counting-2", "signature", "jump"]


def test_jumps_in_closed_form():
    a, b = (torch.nn.Linear(1, 1).double() for _ in range(2))
    with torch.no_grad():
        for net, weight in ((a, 1.0), (b, 1.5)):
            net.weight.fill_(weight)
            net.bias.zero_()
    inputs = np.array([[1.0], [2.0], [-3.0]])
    run = [(a, inputs), (b, inputs)]
    # Unit normal distributions whose means are x apart by 0.5 x.
    squares = 0.25 * (inputs**2).mean()
    table = track(run, FisherRankEstimator(likelihood="gaussian"))
    assert table["jump__kl"].isna().tolist() == [True, False]
    assert table["jump__kl"].iloc[1] == pytest.approx(squares / 2, rel=1e-12)
    assert table["jump__fisher_rao_length"].iloc[1] == pytest.approx(squares**0.5, rel=1e-12)
    # Logits: from the first to the second, not the other way round.
    table = track(run, FisherRankEstimator(likelihood="bernoulli"))
    p, q = (1 / (1 + np.exp(-weight * inputs)) for weight in (1.0, 1.5))
    kl = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    assert table["jump__kl"].iloc[1] == pytest.approx(kl, rel=1e-10)
    length = np.sqrt(((2 * np.arcsin(np.sqrt(p)) - 2 * np.arcsin(np.sqrt(q))) ** 2).mean())
    assert table["jump__fisher_rao_length"].iloc[1] == pytest.approx(length, rel=1e-10)


def test_jumps_do_not_depend_on_batches(folder):
    run = run_of(folder)
    whole, parts = (
        track(run, FisherRankEstimator(likelihood="categorical", batch_size=size))
        for size in (None, 2)
    )
    columns = ["jump__kl", "jump__fisher_rao_length"]
    np.testing.assert_allclose(whole[columns], parts[columns], rtol=1e-12)


class NoDistances(Likelihood):
    name = "own"

    def pull_rows(self, outputs, rows):
        return rows


def test_a_family_without_distances_has_no_jumps(folder):
    run = run_of(folder).iloc[:2]
    with pytest.warns(GeometryWarning, match="NoDistances has no divergence of its own"):
        table = track(run, FisherRankEstimator(likelihood=NoDistances()))
    assert table["jump__kl"].isna().all()
    assert table["fisherrankestimator__fisher_rank"].notna().all()


def test_runs_of_every_form(folder):
    run = run_of(folder)
    expected = track(run, Counting())
    for other in (run.iloc[::-1], run.set_index("step"), run.sample(frac=1, random_state=0)):
        pd.testing.assert_frame_equal(track(other, Counting()), expected)
    listed = track(list(zip(run["model"], run["X"], strict=True)), Counting())
    assert listed.index.tolist() == list(range(len(STEPS)))
    assert np.array_equal(listed, expected, equal_nan=True)
    seeded = training_run("moons", hidden=(3,), steps=(0, 4), n_samples=8)
    found = track(seeded, FisherRankEstimator())
    assert found.index.tolist() == [0, 4]
    assert found["jump__kl"].iloc[1] > 0


def test_networks_are_read_once_a_row_and_once_for_the_jump(folder, monkeypatch):
    from skgeo import Checkpoint

    loads = []
    original = Checkpoint.load
    monkeypatch.setattr(Checkpoint, "load", lambda self: loads.append(self) or original(self))
    track(run_of(folder), {"a": Counting(), "b": Counting(), "c": fisher()})
    # All rows, all jumps, and the names and shapes of the first.
    assert len(loads) == 2 * len(STEPS)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_parallel_rows_give_the_same_table(folder, backend, tmp_path):
    run = run_of(folder)
    estimators = {"count": Counting(), "fisher": fisher()}
    alone = track(run, estimators)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        pd.testing.assert_frame_equal(track(run, estimators), alone, check_exact=True)
        kept = track(run, estimators, memory=tmp_path / "kept")
    pd.testing.assert_frame_equal(kept, alone, check_exact=True)
    pd.testing.assert_frame_equal(track(run, estimators, n_jobs=2), alone, check_exact=True)


def test_what_is_kept_is_not_computed_again(folder, tmp_path):
    log = tmp_path / "log"
    run = run_of(folder)
    first = track(run, Counting(log=str(log)), memory=tmp_path / "kept")
    again = track(run, Counting(log=str(log)), memory=str(tmp_path / "kept"))
    pd.testing.assert_frame_equal(again, first, check_exact=True)
    assert count(log, "begin") == len(STEPS)
    # Content counts: other weights are measured, a renamed file is not.
    (folder / "step0.pt").rename(folder / "step3.pt")
    write_run(folder, steps=[7])
    moved = track(run_of(folder), Counting(log=str(log)), memory=tmp_path / "kept")
    assert count(log, "begin") == len(STEPS) + 1
    assert moved.loc[3, "counting__mean_weight"] == first.loc[0, "counting__mean_weight"]


def process(target, *arguments):
    """Start a function of this suite in a process that has the library imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["skgeo", "pandas"])
    started = context.Process(target=target, args=arguments)
    started.start()
    return started


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_tracker_that_is_killed_goes_on_where_it_was(folder, tmp_path):
    log, where = str(tmp_path / "log"), tmp_path / "table.pkl"
    write_run(folder, range(14))
    arguments = (str(folder), log, str(tmp_path / "kept"), str(where), 0.1)
    random = np.random.default_rng(0)
    kills = 0
    for _ in range(5):
        before = count(log, "end")
        child = process(track_to_file, *arguments)
        goal = before + int(random.integers(0, 2))  # how many rows it may finish
        while child.is_alive() and count(log, "end") < goal:
            child.join(0.002)
        child.join(float(random.uniform(0.0, 0.1)))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.join()
    assert kills == 5
    child = process(track_to_file, *arguments)
    child.join(60)
    assert child.exitcode == 0
    # Each measurement that ended is one that was not begun again, but for those cut off between
    # their end and the file.
    rows = len(run_of(folder))
    assert count(log, "begin") <= rows + kills
    expected = track(run_of(folder), Counting())
    pd.testing.assert_frame_equal(pd.read_pickle(where), expected, check_exact=True)
    # Rows, signatures and jumps.
    assert len(list((tmp_path / "kept").rglob("output.pkl"))) == rows + rows + rows - 1


def test_two_processes_share_what_they_keep(folder, tmp_path):
    arguments = (str(folder), str(tmp_path / "log"), str(tmp_path / "kept"))
    tables = [tmp_path / "a.pkl", tmp_path / "b.pkl"]
    children = [process(track_to_file, *arguments, str(where), 0.02) for where in tables]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    expected = track(run_of(folder), Counting())
    for where in tables:
        pd.testing.assert_frame_equal(pd.read_pickle(where), expected, check_exact=True)


def test_damaged_files_are_named_and_the_rest_goes_on(folder):
    (folder / "step10.pt").write_bytes(b"half")
    (folder / "step50.pt").unlink()
    run = run_of(folder)
    write_run(folder, steps=[50])
    complete = run_of(folder)
    (folder / "step50.pt").unlink()
    with pytest.raises(SkgeoError, match=r"^At step 10: .*/step10\.pt cannot be read"):
        track(run, Counting())
    with pytest.warns(GeometryWarning) as noted:
        table = track(complete, Counting(), on_error="nan")
    said = " ".join(str(warning.message) for warning in noted)
    assert "step10.pt cannot be read" in said
    assert "step50.pt" in said
    assert table["counting__mean_weight"].isna().tolist() == [s in (10, 50) for s in STEPS]
    # After a gap there is no jump.
    assert table["jump__kl"].isna().tolist() == [s in (0, 10, 20, 50, 100) for s in STEPS]


def test_one_estimator_that_fails_leaves_the_others(folder):
    run = run_of(folder)
    largest = [float(model.load()[0].weight.detach().abs().max()) for model in run["model"]]
    limit = float(np.median(largest))
    estimators = {"picky": Counting(fail_above=limit), "count": Counting()}
    with pytest.raises(RuntimeError, match="does not like") as raised:
        track(run, estimators)
    first = STEPS[next(i for i, value in enumerate(largest) if value > limit)]
    assert f"At step {first}, picky" in raised.value.__notes__
    with pytest.warns(GeometryWarning, match=r"In 4 of 8 pairs.*NaN for what failed, picky"):
        table = track(run, estimators, on_error="nan")
    assert table["picky__mean_weight"].isna().tolist() == [v > limit for v in largest]
    assert table["count__mean_weight"].notna().all()
    assert table["jump__kl"].notna().sum() == len(STEPS) - 1


def test_a_run_has_one_architecture():
    small, wide = nn.Linear(3, 2).double(), nn.Linear(3, 4).double()
    run = [(small, X()), (wide, X()), (small, X())]
    estimator = FisherRankEstimator(likelihood="gaussian")
    message = r"At step 1: .*another architecture.*\(weight: \(4, 3\) instead of \(2, 3\)\)"
    with pytest.raises(SkgeoError, match=message):
        track(run, estimator)
    with pytest.warns(GeometryWarning, match=message):
        table = track(run, estimator, on_error="nan")
    assert table.isna().all(axis=1).tolist() == [False, True, False]
    assert table["jump__kl"].isna().all()


def test_where_nothing_can_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(SkgeoError, match=r"memory=.*nothing can be written there"):
        track(run_of(folder), Counting(), memory=tmp_path / "file" / "kept")
    # A disk that fills up: the table is there all the same.
    kept = tmp_path / "kept"
    expected = track(run_of(folder), Counting(), memory=kept)
    write_run(folder, steps=[7])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("joblib.numpy_pickle.dump", full)
    with pytest.warns(Warning, match="Unable to cache to disk.*No space left"):
        table = track(run_of(folder), Counting(), memory=kept)
    assert table.index.tolist() == sorted([*STEPS, 7])
    old = ["counting__mean_weight"]
    pd.testing.assert_frame_equal(table.loc[list(STEPS), old], expected[old], check_exact=True)


def test_progress_is_shown(folder, capsys):
    track(run_of(folder), Counting(), verbose=1)
    assert "100%" in capsys.readouterr().out


def test_nothing_is_changed(folder):
    modules = [model.load().train() for model in run_of(folder)["model"]]
    states = [{n: v.clone() for n, v in module.state_dict().items()} for module in modules]
    random = torch.get_rng_state()
    estimator = fisher()
    track([(module, X()) for module in modules], estimator, memory=folder / "kept")
    assert torch.get_rng_state().equal(random)
    assert estimator.memory is None
    for module, state in zip(modules, states, strict=True):
        assert module.training
        assert all(module.state_dict()[name].equal(value) for name, value in state.items())


def test_models_of_other_kinds(folder):
    data = X()
    targets = data[:, 0]
    run = [(Ridge(alpha), data, targets) for alpha in (0.1, 1.0)]
    assert track(run, FisherRankEstimator())["jump__kl"].iloc[1] > 0
    wrapped = [
        (WrappedModel(factory(), likelihood="categorical"), data),
        (WrappedModel(factory(), likelihood="categorical"), data),
    ]
    assert track(wrapped, FisherRankEstimator(likelihood="auto")).shape[0] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": []}, "table of pairs is empty"),
        ({"run": pd.DataFrame({"step": [], "model": [], "X": []})}, "is empty"),
        ({"run": 3}, "expected a table of pairs"),
        ({"run": lambda run: run.drop(columns="step")}, "expected 'step' among them"),
        ({"run": lambda run: pd.concat([run, run])}, "step 0 more than once"),
        ({"run": lambda run: run.assign(step=[np.nan, *STEPS[1:]])}, "has step nan"),
        ({"run": lambda run: run.assign(step=list("abcdefgh"))}, "has step 'a'"),
        ({"estimators": []}, "No estimators"),
        ({"estimators": Ridge()}, "'ridge' is Ridge; expected an estimator of skgeo"),
        ({"estimators": {"a": Counting}}, "'a' is Counting; expected an estimator"),
        ({"estimators": Counting(nn.Linear(1, 1))}, "'counting' is bound to a model"),
        ({"estimators": {"a__b": Counting()}}, "without '__'"),
        ({"estimators": {"jump": Counting()}}, "not 'signature' or 'jump'"),
        ({"estimators": {"signature": Counting()}}, "not 'signature' or 'jump'"),
        ({"estimators": {"net": nn.Linear(3, 2)}}, "'net' is Linear; expected an estimator"),
        ({"on_error": "skip"}, "on_error='skip'"),
        ({"memory": 3}, "memory=3; expected the name of a folder"),
    ],
)
def test_misuse(folder, change, message):
    arguments = {"run": run_of(folder), "estimators": Counting()} | change
    if callable(arguments["run"]):
        arguments["run"] = arguments["run"](run_of(folder))
    with pytest.raises(SkgeoError, match=message):
        track(arguments.pop("run"), arguments.pop("estimators"), **arguments)
