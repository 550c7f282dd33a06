import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from skgeo.__main__ import main


def build():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", X=rng.normal(size=(60, 4)), y=rng.integers(0, 3, 60))
    torch.save(build().state_dict(), tmp_path / "weights.pt")
    torch.save(build(), tmp_path / "whole.pt")
    (tmp_path / "made_for_main.py").write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))\n"
        "def other():\n    return nn.Linear(4, 3)\n"
        "def fails():\n    return 1 / 0\n"
        "def needs(width):\n    return build()\n"
        "number = 3\n"
    )
    torch.save({"state_dict": build().state_dict(), "epoch": 1}, tmp_path / "training.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(build()).save(str(tmp_path / "script.pt"))
    (tmp_path / "junk.pt").write_bytes(b"hello world, not a checkpoint")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:900])
    X = rng.normal(size=(20, 4))
    np.save(tmp_path / "array.npy", X)
    for name, arrays in {
        "strings": {"X": X, "y": np.array(["a", "b", "c", "a"] * 5)},
        "mixed": {"X": X, "y": np.array(["a", None] * 10, dtype=object)},
        "no_x": {"data": X},
        "wide": {"X": np.zeros((5, 9))},
        "nan": {"X": np.full((5, 4), np.nan)},
        "short": {"X": X, "y": np.zeros(19)},
    }.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "objects.npz", X=np.array([{}, []], dtype=object))
    np.savez(tmp_path / "scalar.npz", X=np.array(3.0))
    return tmp_path


@pytest.fixture
def run(files, monkeypatch, capsys):
    monkeypatch.chdir(files)

    def call(*arguments):
        status = main([*arguments, "--picture", "spectra.png"])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_a_state_dict_and_its_factory(run, files):
    status, out, _ = run(
        "--model", "weights.pt", "--factory", "made_for_main:build", "--data", "data.npz"
    )
    assert status == 0
    # 43 parameters less the common shift of the logits: n_last + 1 = 6.
    assert "fisher_rank" in out
    assert (
        dict(line.rsplit(None, 1) for line in out.splitlines() if "fisher_" in line)["fisher_rank"]
        == "37"
    )
    assert str(files / "spectra.png") in out
    assert (files / "spectra.png").read_bytes().startswith(b"\x89PNG")


def test_a_note_says_that_the_samples_limit_the_rank(run):
    own = ("--model", "weights.pt", "--factory", "made_for_main:build", "--data", "data.npz")
    status, out, _ = run(*own, "--samples", "10")
    assert status == 0
    notes = [line for line in out.splitlines() if line.startswith("Note: ")]
    assert sum("Fisher rank 20 is the number of rows" in note for note in notes) == 1
    _, out, _ = run(*own)
    assert "number of rows" not in out


def test_a_whole_module_is_unpickled_only_on_trust(run):
    status, out, _ = run("--model", "whole.pt", "--trust", "--data", "data.npz")
    assert status == 0
    assert "this runs code from the file" in out
    status, _, err = run("--model", "whole.pt", "--data", "data.npz")
    assert status == 2
    assert "--trust" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "weights.pt", "--factory", "made_for_main:build"], "needs --data"),
        (["--data", "data.npz"], "belong to --model"),
        (["--model", "weights.pt", "--factory", "made_for_main", "--data", "data.npz"], "expected"),
        (
            ["--model", "weights.pt", "--factory", "made_for_main:none", "--data", "data.npz"],
            "cannot be imported",
        ),
        (
            ["--model", "weights.pt", "--factory", "made_for_main:other", "--data", "data.npz"],
            "0.weight",
        ),
        (
            ["--model", "none.pt", "--factory", "made_for_main:build", "--data", "data.npz"],
            "none.pt",
        ),
        (
            ["--model", "weights.pt", "--factory", "made_for_main:fails", "--data", "data.npz"],
            "failed: ZeroDivisionError",
        ),
        (
            ["--model", "weights.pt", "--factory", ":build", "--data", "data.npz"],
            "expected package",
        ),
        (["--model", "whole.pt", "--trust", "--data", "damaged.npz"], "cannot be read: BadZipFile"),
        (["--model", "whole.pt", "--trust", "--data", "empty.npz"], "cannot be read: EOFError"),
        (["--model", "whole.pt", "--trust", "--data", "objects.npz"], "arrays of numbers"),
        (["--model", "whole.pt", "--trust", "--data", "scalar.npz"], "X is a single number"),
        (["--model", "damaged.npz", "--trust", "--data", "data.npz"], "cannot be unpickled"),
        (["--samples", "-5"], "--samples=-5"),
    ],
)
def test_what_cannot_be_measured_ends_with_a_sentence(run, arguments, message):
    status, _, err = run(*arguments)
    assert status == 2
    assert err.startswith("skgeo: ")
    assert message in err


def test_the_default_run_measures_every_checkpoint(run):
    status, out, err = run("--samples", "20")
    assert (status, err) == (0, "")
    epochs = next(line for line in out.splitlines() if line.startswith("epoch"))
    assert epochs.split()[1:] == ["0", "1", "3", "10", "30"]
    ranks = next(line for line in out.splitlines() if line.startswith("fisher_rank"))
    assert all(int(rank) <= 20 * 9 for rank in ranks.split()[1:])
    assert "Spectra:" in out


def test_help_shows_how_to_measure_a_network_of_ones_own(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "--model weights.pt --factory package.module:function --data file.npz" in (
        capsys.readouterr().out
    )


WEIGHTS = ("--model", "weights.pt", "--factory", "made_for_main:build")
DATA = ("--data", "data.npz")


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--model", name, "--trust", *DATA) for name in ("junk.pt", "cut.pt", "script.pt")),
        *(("--model", name, "--trust", *DATA) for name in ("weights.pt", "training.pt")),
        *(("--model", name, *WEIGHTS[2:], *DATA) for name in ("junk.pt", "cut.pt", "script.pt")),
        *(("--model", name, *WEIGHTS[2:], *DATA) for name in ("whole.pt", "training.pt")),
        ("--model", "weights.pt", "--factory", "made_for_main:needs", *DATA),
        ("--model", "weights.pt", "--factory", "made_for_main:number", *DATA),
        ("--model", "weights.pt", "--factory", ":", *DATA),
        (*WEIGHTS, "--data", "array.npy"),
        (*WEIGHTS, "--data", "none.npz"),
        (*WEIGHTS, "--data", "mixed.npz"),
        (*WEIGHTS, "--data", "no_x.npz"),
        (*WEIGHTS, "--data", "wide.npz", "--likelihood", "gaussian"),
        (*WEIGHTS, "--data", "nan.npz", "--likelihood", "gaussian"),
        (*WEIGHTS, "--data", "short.npz"),
        (*WEIGHTS, *DATA, "--samples", "0"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
@pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")
def test_files_of_other_kinds_end_with_a_sentence(run, arguments):
    status, _, err = run(*arguments)
    assert status == 2
    assert err.startswith("skgeo: ")
    assert "Traceback" not in err
    assert len(err.strip()) > 30


def test_labels_may_be_words(run):
    status, out, _ = run(*WEIGHTS, "--data", "strings.npz")
    assert status == 0
    assert "fisher_rank" in out


def test_a_module_pickled_by_a_script_needs_its_class(run, files):
    (files / "train.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Sequential):\n    pass\n"
        "torch.save(Net(nn.Linear(4, 3)), 'pickled.pt')\n"
    )
    subprocess.run([sys.executable, "train.py"], check=True, cwd=files)
    status, _, err = run("--model", "pickled.pt", "--trust", *DATA)
    assert status == 2
    assert err.startswith("skgeo: ")


def test_pictures_are_where_they_are_said_to_be(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    assert main([*WEIGHTS, *DATA, "--picture", "picture.xyz"]) == 2
    assert capsys.readouterr().err.startswith("skgeo: ")
    if main([*WEIGHTS, *DATA, "--picture", "picture"]) == 0:
        said = capsys.readouterr().out
        (written,) = [path for path in files.iterdir() if path.name.startswith("picture")]
        assert str(written) in said
    else:
        assert capsys.readouterr().err.startswith("skgeo: ")
