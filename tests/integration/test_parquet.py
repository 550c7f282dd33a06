"""The command reads samples from parquet files, and writes its table as one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from skgeo import FisherRankEstimator
from skgeo.__main__ import main

pytestmark = pytest.mark.integration

COMMAND = ["--model", "run/*.pt", "--factory", "made_for_parquet:build", "--data", "data.parquet"]


def build(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.fixture
def frame(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made_for_parquet.py").write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))\n"
    )
    (tmp_path / "run").mkdir()
    for step in (1, 10):
        torch.save(build(step).state_dict(), tmp_path / "run" / f"net-{step}.pt")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 4)), columns=list("abcd"))
    return frame.assign(y=rng.integers(0, 3, 60))


def test_samples_and_table_in_parquet(frame, capsys):
    frame.to_parquet("data.parquet")
    assert main([*COMMAND, "--estimators", "fisher", "--output", "table.parquet"]) == 0
    table = pd.read_parquet("table.parquet")
    assert (table.index.name, table.index.tolist()) == ("step", [1, 10])
    for step in (1, 10):
        features = frame.drop(columns="y").to_numpy()
        fisher = FisherRankEstimator(build(step)).fit(features, frame["y"].to_numpy())
        assert table.loc[step, "fisher__fisher_trace"] == pytest.approx(fisher.trace_, rel=1e-9)
    # The same numbers as from and to text.
    frame.to_csv("data.csv", index=False)
    arguments = [*COMMAND[:-1], "data.csv", "--estimators", "fisher", "--output", "table.csv"]
    assert main(arguments) == 0
    text = pd.read_csv("table.csv", index_col="step")
    pd.testing.assert_frame_equal(text, table, check_index_type=False, rtol=1e-12)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: f.assign(name="word").to_parquet("data.parquet"), "does not hold numbers"),
        (lambda f: f[["y"]].to_parquet("data.parquet"), "no column of features"),
        (lambda f: f[:0].to_parquet("data.parquet"), "is empty"),
        (lambda _: Path("data.parquet").touch(), "data.parquet cannot be read"),
    ],
)
def test_files_that_hold_no_samples(frame, damage, words, capsys):
    damage(frame)
    assert main(COMMAND) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
