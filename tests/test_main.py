import json
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from skgeo import FisherRankEstimator, __version__
from skgeo.__main__ import main

OWN = ["--model", "weights.pt", "--factory", "made_for_main:build", "--data", "data.npz"]
FACTORY = ["--factory", "made_for_main:build"]


def build(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    np.savez(tmp_path / "data.npz", X=X, y=y)
    np.save(tmp_path / "data.npy", X)
    frame = pd.DataFrame(X, columns=list("abcd"))
    frame.assign(y=y).to_csv(tmp_path / "data.csv", index=False)
    frame.assign(y=y, name="word").to_csv(tmp_path / "words.csv", index=False)
    frame.assign(y=y)[["y"]].to_csv(tmp_path / "bare.csv", index=False)
    (tmp_path / "none.csv").write_text("")
    (tmp_path / "data.txt").write_text("1 2 3")
    torch.save(build().state_dict(), tmp_path / "weights.pt")
    torch.save(build(), tmp_path / "whole.pt")
    for folder, names in (("run", ("net-1", "net-10", "net-100")), ("twice", ("a1", "b1"))):
        (tmp_path / folder).mkdir()
        for seed, name in enumerate(names):
            torch.save(build(seed).state_dict(), tmp_path / folder / f"{name}.pt")
    (tmp_path / "nameless").mkdir()
    for name in ("a", "b"):
        torch.save(build().state_dict(), tmp_path / "nameless" / f"{name}.pt")
    (tmp_path / "made_for_main.py").write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))\n"
        "def other():\n    return nn.Linear(4, 3)\n"
        "def fails():\n    return 1 / 0\n"
        "def number():\n    return 3\n"
        "def needs(width):\n    return build()\n"
    )
    torch.save({"state_dict": build().state_dict(), "epoch": 1}, tmp_path / "training.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(build()).save(str(tmp_path / "script.pt"))
    (tmp_path / "junk.pt").write_bytes(b"hello world, not a checkpoint")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:900])
    np.savez(tmp_path / "strings.npz", X=X, y=np.array(["a", "b", "c"] * 20))
    np.savez(tmp_path / "mixed.npz", X=X, y=np.array(["a", None] * 30, dtype=object))
    (tmp_path / "broken_for_main.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "objects.npz", X=np.array([{}, []], dtype=object))
    np.savez(tmp_path / "scalar.npz", X=np.array(3.0))
    np.savez(tmp_path / "no_samples.npz", X=np.zeros((0, 4)))
    np.savez(tmp_path / "lengths.npz", X=np.zeros((5, 4)), y=np.zeros(4))
    np.savez(tmp_path / "names.npz", inputs=np.zeros((5, 4)))
    np.savez(tmp_path / "wide.npz", X=rng.normal(size=(60, 7)), y=y)
    np.savez(tmp_path / "nan.npz", X=np.full((5, 4), np.nan), y=np.zeros(5, int))
    return tmp_path


@pytest.fixture
def run(files, monkeypatch, capsys):
    monkeypatch.chdir(files)

    def call(*arguments):
        status = main(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def numbers(out, name):
    line = next(line for line in out.splitlines() if line.startswith(name))
    return [float(value) for value in line.split()[1:]]


def test_a_state_dict_and_its_factory(run, files):
    status, out, err = run(*OWN, "--picture", "picture.png")
    assert (status, err) == (0, "")
    # 43 parameters less the common shift of the logits: n_last + 1 = 6.
    assert numbers(out, "fisher__fisher_rank") == [37]
    assert numbers(out, "symmetry__symmetry_explained_nullity") == [6]
    assert str(files / "picture.png") in out
    assert (files / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert not (files / ".skgeo-unfinished").exists()


@pytest.mark.parametrize(
    "given", [["run/*.pt"], ["run/net-100.pt", "run/net-1.pt", "run/net-10.pt"]]
)
def test_a_run_is_measured_in_the_order_of_its_steps(run, files, given):
    status, out, err = run(
        "--model", *given, *FACTORY, "--data", "data.npz", "--estimators", "fisher",
        "--output", "table.csv", "--jobs", "2",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert numbers(out, "step") == [1, 10, 100]
    table = pd.read_csv(files / "table.csv", index_col="step")
    arrays = np.load(files / "data.npz")
    for seed, step in enumerate((1, 10, 100)):
        fisher = FisherRankEstimator(build(seed)).fit(arrays["X"], arrays["y"])
        assert table.loc[step, "fisher__fisher_trace"] == pytest.approx(fisher.trace_, rel=1e-9)
    assert (files / "skgeo-run.png").is_file()


def test_tables_in_json_and_data_in_csv(run, files):
    arguments = [*OWN[:-1], "data.csv", "--estimators", "fisher,chain", "--output", "table.json"]
    status, out, _ = run(*arguments)
    assert status == 0
    (row,) = json.loads((files / "table.json").read_text())
    assert row["step"] == 0
    assert row["fisher__fisher_rank"] == 37
    assert any(key.startswith("chain__") for key in row)
    assert numbers(out, "fisher__fisher_trace") == [
        pytest.approx(numbers(run(*OWN)[1], "fisher__fisher_trace")[0], rel=1e-4)
    ]


def test_an_array_without_targets(run):
    status, out, _ = run(*OWN[:-1], "data.npy", "--likelihood", "gaussian")
    assert status == 0
    assert numbers(out, "fisher__fisher_rank") == [43]


def test_a_note_says_that_the_samples_limit_the_rank(run, files):
    status, out, _ = run(*OWN, "--samples", "10")
    assert status == 0
    assert out.splitlines()[-1] == f"Picture: {files / 'skgeo-run.png'}"
    notes = [line for line in out.splitlines() if line.startswith("Note: ")]
    assert sum("Fisher rank 20 is the number of rows" in note for note in notes) == 1
    _, out, _ = run(*OWN)
    assert "number of rows" not in out


def test_a_whole_module_is_unpickled_only_on_trust(run):
    status, out, _ = run("--model", "whole.pt", "--trust", "--data", "data.npz")
    assert status == 0
    assert "this runs code from the file" in out
    status, _, err = run("--model", "whole.pt", "--data", "data.npz")
    assert status == 2
    assert "--trust" in err


WRONG = [
    (["--model", "weights.pt", *FACTORY], "needs --data"),
    (["--data", "data.npz"], "--data belongs to --model"),
    ([*FACTORY], "--factory belongs to --model"),
    (["--trust"], "--trust belongs to --model"),
    ([*OWN, "--trust"], "Say how to read"),
    (["--model", "weights.pt", "--factory", "made_for_main", "--data", "data.npz"], "expected"),
    (["--model", "weights.pt", "--factory", ":build", "--data", "data.npz"], "expected package"),
    (
        ["--model", "weights.pt", "--factory", "made_for_main:none", "--data", "data.npz"],
        "cannot be imported",
    ),
    (
        ["--model", "weights.pt", "--factory", "broken_for_main:f", "--data", "data.npz"],
        "nothing_of_this_name",
    ),
    (
        ["--model", "weights.pt", "--factory", "made_for_main:other", "--data", "data.npz"],
        "0.weight",
    ),
    (
        ["--model", "weights.pt", "--factory", "made_for_main:fails", "--data", "data.npz"],
        "failed: ZeroDivisionError",
    ),
    (
        ["--model", "weights.pt", "--factory", "made_for_main:number", "--data", "data.npz"],
        "returned int",
    ),
    (["--model", "none.pt", *FACTORY, "--data", "data.npz"], "none.pt: there is no such file"),
    (["--model", "none/*.pt", *FACTORY, "--data", "data.npz"], "there is no such file"),
    (["--model", "run", *FACTORY, "--data", "data.npz"], "run is a folder"),
    (["--model", "twice/*.pt", *FACTORY, "--data", "data.npz"], "Two files have step 1"),
    (["--model", "nameless/*.pt", *FACTORY, "--data", "data.npz"], "no number in its name"),
    (["--model", "data.txt", *FACTORY, "--data", "data.npz"], "data.txt"),
    (["--model", "damaged.npz", "--trust", "--data", "data.npz"], "cannot be unpickled"),
    ([*OWN[:-1], "no.npz"], "no.npz: there is no such file"),
    ([*OWN[:-1], "data.txt"], "expected a name that ends with"),
    ([*OWN[:-1], "damaged.npz"], "cannot be read: BadZipFile"),
    ([*OWN[:-1], "empty.npz"], "cannot be read"),
    ([*OWN[:-1], "objects.npz"], "cannot be read"),
    ([*OWN[:-1], "scalar.npz"], "X is a single number"),
    ([*OWN[:-1], "no_samples.npz"], "X is empty"),
    ([*OWN[:-1], "lengths.npz"], "X has 5 samples and y has 4"),
    ([*OWN[:-1], "names.npz"], "holds ['inputs']; expected an array X"),
    ([*OWN[:-1], "words.csv"], "column 'name' does not hold numbers"),
    ([*OWN[:-1], "bare.csv"], "no column of features"),
    ([*OWN[:-1], "none.csv"], "none.csv cannot be read"),
    ([*OWN[:-1], "wide.npz"], "cannot be run on this data"),
    ([*OWN[:-1], "nan.npz"], "NaN"),
    ([*OWN, "--samples", "-5"], "--samples=-5"),
    ([*OWN, "--samples", "0"], "--samples=0"),
    ([*OWN, "--jobs", "0"], "--jobs=0"),
    (["--seed", "-1"], "--seed=-1"),
    ([*OWN, "--estimators", "fisher,rank"], "'rank' is not one of"),
    ([*OWN, "--estimators", ""], "is not one of"),
    ([*OWN, "--estimators", "fisher,fisher"], "named twice"),
    ([*OWN, "--output", "table.txt"], "expected a name that ends with"),
    ([*OWN, "--output", "no/table.csv"], "there is no folder"),
    ([*OWN, "--output", "run"], "expected a name"),
    ([*OWN, "--picture", "no/picture.png"], "there is no folder"),
    ([*OWN, "--picture", "picture.xyz"], "matplotlib writes"),
    ([*OWN, "--picture", "run"], "is a folder"),
    ([*OWN, "--device", "tpu"], "tpu"),
    ([*OWN, "--memory", "data.txt"], "is a file; expected a folder"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_cannot_be_measured_ends_with_a_sentence(run, files, arguments, message):
    status, _, err = run(*arguments)
    assert status == 2
    last = err.splitlines()[-1]
    assert last.startswith("skgeo: ")
    assert message in last
    assert last.endswith(".")
    assert not (files / "skgeo-run.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "many"], "invalid int value"),
        (["--nothing"], "unrecognized arguments"),
        (["--likelihood", "cauchy"], "invalid choice"),
        (["--model"], "expected at least one argument"),
    ],
)
def test_what_is_not_an_argument(run, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--model", name, "--trust"] for name in ("junk.pt", "cut.pt", "script.pt")),
        *(["--model", name, "--trust"] for name in ("weights.pt", "training.pt")),
        *(["--model", name, *FACTORY] for name in ("junk.pt", "cut.pt", "script.pt", "whole.pt")),
        ["--model", "weights.pt", "--factory", "made_for_main:needs"],
        [*OWN[:-2], "--data", "mixed.npz"],
    ],
    ids=" ".join,
)
def test_files_of_other_kinds_end_with_a_sentence(run, arguments):
    status, _, err = run("--data", "data.npz", *arguments)
    assert status == 2
    last = err.splitlines()[-1]
    assert last.startswith("skgeo: ")
    assert len(last) > 30


def test_a_training_state_and_labels_in_words(run):
    for arguments in ([*OWN[:-1], "strings.npz"], ["--model", "training.pt", *OWN[2:]]):
        status, out, _ = run(*arguments)
        assert status == 0
        assert numbers(out, "fisher__fisher_rank") == [37]


def test_a_module_pickled_by_a_script_needs_its_class(run, files):
    (files / "train.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Sequential):\n    pass\n"
        "torch.save(Net(nn.Linear(4, 3)), 'pickled.pt')\n"
    )
    subprocess.run([sys.executable, "train.py"], check=True, cwd=files)
    status, _, err = run("--model", "pickled.pt", "--trust", "--data", "data.npz")
    assert status == 2
    assert "move it into a module" in err


def test_a_folder_that_cannot_be_written(run, files):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (files / "closed").mkdir(mode=0o500)
    status, _, err = run(*OWN, "--output", "closed/table.csv")
    assert status == 2
    assert "permission denied" in err


def test_the_default_run_measures_every_checkpoint(run, files):
    status, out, err = run("--samples", "60", "--estimators", "fisher,quotient")
    assert (status, err) == (0, "")
    assert numbers(out, "step") == [0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    loss = numbers(out, "train_loss")
    assert loss[-1] < 0.1 * loss[0]
    assert max(numbers(out, "fisher__fisher_rank")) <= 60 * 9
    assert (files / "skgeo-run.png").is_file()


def test_an_interrupted_run_keeps_what_was_finished_and_says_how_to_go_on(files):
    slow = (
        "import time\nfrom torch import nn\n"
        "class Slow(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n        self.layer = nn.Linear(4, 3)\n"
        "    def forward(self, x):\n        time.sleep(0.02)\n        return self.layer(x)\n"
        "def build():\n    return Slow()\n"
    )
    (files / "slow_for_main.py").write_text(slow)
    (files / "slow").mkdir()
    for step in range(1, 40):
        state = {"layer.weight": torch.randn(3, 4), "layer.bias": torch.zeros(3)}
        torch.save(state, files / "slow" / f"{step}.pt")
    command = [
        sys.executable, "-m", "skgeo", "--model", *(f"slow/{i}.pt" for i in range(1, 40)),
        "--factory", "slow_for_main:build", "--data", "data.npz", "--estimators", "fisher",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=files, stderr=subprocess.PIPE, text=True)
    kept = files / ".skgeo-unfinished"
    for _ in range(600):
        if sum(1 for _ in kept.rglob("output.pkl")) >= 3:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("skgeo: Interrupted. What was finished is kept in")
    assert sum(1 for _ in kept.rglob("output.pkl")) >= 3


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.strip() == f"skgeo {__version__}"


def test_help_shows_how_to_measure_a_network_of_ones_own(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "--model weights.pt --factory package.module:function --data file.npz" in (
        capsys.readouterr().out
    )
