"""Networks recorded in a training loop."""

import errno
import json
import os

import pytest
import torch
from torch import nn

from skgeo.exceptions import SkgeoError
from skgeo.training import CheckpointRecorder, read_run
from skgeo.training._schedule import schedule


def factory():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def train(recorder, steps, seed=0):
    """A small training whose weights depend on seed and step only."""
    torch.manual_seed(seed)
    module = factory()
    states = {}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    inputs = torch.randn(8, 3)
    for step in range(max(steps) + 1):
        if step > 0:
            optimizer.zero_grad()
            module(inputs).square().sum().backward()
            optimizer.step()
        states[step] = {name: value.clone() for name, value in module.state_dict().items()}
        if step in steps:
            recorder(step, module)
    return module, states


def same(module, state):
    return all(module.state_dict()[name].equal(value) for name, value in state.items())


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("log", [0, 1, 2, 5, 10, 20, 50, 100]),
        (40, [0, 40, 80, 120]),
        ([3, 7], [3, 7]),
        (range(5, 8), [5, 6, 7]),
        (lambda step: step in (4, 9), [4, 9]),
    ],
)
def test_schedules(steps, expected):
    chosen = schedule(steps)
    assert [step for step in range(121) if chosen(step)] == expected
    assert schedule("log")(2_000_000)
    assert not schedule("log")(2_500_000)


@pytest.mark.parametrize("steps", ["linear", 0, -3, True, 2.5, [], [1, -1], None])
def test_schedules_that_are_none(steps):
    with pytest.raises(SkgeoError, match=r"steps=.*expected 'log'"):
        CheckpointRecorder(steps=steps)


@pytest.mark.parametrize("in_memory", [True, False])
def test_recorded_weights_are_those_of_their_steps(in_memory, tmp_path):
    recorder = CheckpointRecorder(None if in_memory else tmp_path / "run")
    module, states = train(recorder, range(11))
    assert recorder.steps_ == [0, 1, 2, 5, 10]
    X = torch.ones(4, 3)
    for options in ({}, {"factory": factory}):
        run = recorder.run(X, **options)
        assert list(run.columns) == ["step", "model", "X"]
        for step, model in zip(run["step"], run["model"], strict=True):
            loaded = model if in_memory else model.load()
            assert same(loaded, states[step])
            assert not loaded.training
    assert module.training
    assert module[0].weight.grad is not None


def test_recording_draws_nothing_and_changes_nothing(tmp_path):
    module = factory()
    before = torch.get_rng_state()
    for recorder in (CheckpointRecorder(), CheckpointRecorder(tmp_path)):
        recorder(0, module)
        recorder.run(factory=factory)
        recorder.run()
    assert torch.get_rng_state().equal(before)
    assert module.training


def test_always_records(tmp_path):
    recorder = CheckpointRecorder(tmp_path)
    module = factory()
    assert recorder(2, module)
    assert not recorder(3, module)
    assert recorder(3, module, always=True)
    assert recorder.steps_ == [2, 3]


def test_a_new_recorder_goes_on_with_the_folder(tmp_path):
    train(CheckpointRecorder(tmp_path), range(6))
    run_id = json.loads((tmp_path / "manifest.json").read_text())["run"]
    again = CheckpointRecorder(tmp_path)
    assert again.steps_ == [0, 1, 2, 5]
    with pytest.raises(SkgeoError, match=r"No module was recorded in this process.*factory="):
        again.run()
    _, states = train(again, range(2, 21))  # from a checkpoint: some steps come again
    assert again.steps_ == [0, 1, 2, 5, 10, 20]
    assert json.loads((tmp_path / "manifest.json").read_text())["run"] == run_id
    for found in (again.run(factory=factory), read_run(tmp_path, factory)):
        assert found["step"].tolist() == [0, 1, 2, 5, 10, 20]
        assert all(
            same(model.load(), states[s])
            for s, model in zip(*map(found.get, ("step", "model")), strict=True)
        )


def test_another_run_or_network_is_refused(tmp_path):
    train(CheckpointRecorder(tmp_path), range(3))
    with pytest.raises(SkgeoError, match=r"manifest\.json is of another run: it begins at step 0"):
        train(CheckpointRecorder(tmp_path), range(3), seed=1)
    with pytest.raises(SkgeoError, match=r"other names or shapes than the one at step 5"):
        CheckpointRecorder(tmp_path)(5, nn.Linear(3, 2))
    train(CheckpointRecorder(tmp_path), range(3))  # the same one again
    recorder = CheckpointRecorder()
    train(recorder, range(3))
    with pytest.raises(SkgeoError, match="Step 0 comes after step 2: another training"):
        train(recorder, range(3))


def test_foreign_and_damaged_manifests(tmp_path):
    for content in (
        "{",
        "[]",
        '{"run": 3}',
        '{"run": "a", "network": "b", "first": 1, "files": {}}',
    ):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(SkgeoError, match=r"manifest\.json is not a manifest of a Checkpoint"):
            CheckpointRecorder(tmp_path)


def test_an_unwritable_folder_is_told_before_the_training(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SkgeoError, match="nothing can be written there"):
        CheckpointRecorder(tmp_path / "file" / "run")


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    recorder = CheckpointRecorder(tmp_path, steps=1)
    train(recorder, range(3))
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(state, file):
        file.write(b"half of")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(
            SkgeoError, match=r"step_000000003\.pt cannot be written: No space left"
        ):
            recorder(3, factory())
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert read_run(tmp_path, factory)["step"].tolist() == [0, 1, 2]
    recorder(3, factory())
    assert recorder.steps_ == [0, 1, 2, 3]


def test_wrappers_are_taken_off(tmp_path):
    module = factory()
    recorder = CheckpointRecorder(tmp_path)
    recorder(0, torch.compile(module, backend="eager"))
    recorder(1, nn.DataParallel(module))
    for model in recorder.run(factory=factory)["model"]:
        assert same(model.load(), module.state_dict())


def test_misuse():
    recorder = CheckpointRecorder()
    with pytest.raises(SkgeoError, match=r"No step was recorded\. Call recorder\(step, module\)"):
        recorder.run()
    with pytest.raises(SkgeoError, match="step=-1"):
        recorder(-1, factory())
    with pytest.raises(SkgeoError, match=r"got dict; expected recorder\(step, module\)"):
        recorder(0, {})
    assert repr(CheckpointRecorder("run", 5)) == "CheckpointRecorder('run', steps=5)"


class Uncopied(nn.Linear):
    def __deepcopy__(self, memo):
        raise RuntimeError("one of a kind")


def test_a_module_that_cannot_be_copied_needs_a_factory():
    recorder = CheckpointRecorder()
    recorder(0, Uncopied(3, 2))
    with pytest.raises(SkgeoError, match=r"one of a kind.*factory="):
        recorder.run()
    assert len(recorder.run(factory=lambda: nn.Linear(3, 2))) == 1
