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
    )
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
