import pickle

import pytest
import torch
from sklearn.base import clone
from torch import nn

from skgeo.exceptions import NotAModelError, SkgeoError
from skgeo.models import Checkpoint, fingerprint, resolve_model


def factory():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def doubled(module, inputs):
    return 2 * module(inputs)


@pytest.fixture
def trained():
    torch.manual_seed(0)
    module = factory()
    module(torch.randn(20, 3))  # moves the running statistics away from where they start
    return module


@pytest.fixture
def path(trained, tmp_path):
    path = tmp_path / "step.pt"
    torch.save(trained.state_dict(), path)
    return path


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_load_gives_the_saved_weights(path, trained, kind):
    loaded = Checkpoint(kind(path), factory).load()
    assert not loaded.training
    for name, value in trained.state_dict().items():
        assert loaded.state_dict()[name].equal(value), name


def test_load_leaves_the_random_state_alone(path):
    before = torch.get_rng_state()
    Checkpoint(path, factory).load()
    assert torch.get_rng_state().equal(before)


def test_nothing_is_kept(path, trained):
    checkpoint = Checkpoint(path, factory)
    first = checkpoint.load()
    assert checkpoint.load() is not first
    with torch.no_grad():
        trained[0].weight.add_(1)
    torch.save(trained.state_dict(), path)
    assert checkpoint.load()[0].weight.equal(trained[0].weight)


def test_shared_by_clone_and_pickled_without_weights(path):
    checkpoint = Checkpoint(path, factory, forward=doubled)
    assert clone(checkpoint) is checkpoint
    again = pickle.loads(pickle.dumps(checkpoint))
    assert (again.path, again.factory, again.forward) == (path, factory, doubled)
    assert fingerprint(again) == fingerprint(checkpoint)
    assert repr(checkpoint) == f"Checkpoint({str(path)!r}, factory=factory, forward=doubled)"


def test_resolves(path):
    resolved = resolve_model(Checkpoint(path, factory, doubled), refit=True)
    assert resolved.forward is doubled
    assert resolved.keep_integers
    assert not resolve_model(Checkpoint(path, factory), refit=True).keep_integers


def saved(value):
    def write(path):
        torch.save(value, path)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no file .*working directory"),
        (lambda path: path.write_bytes(b"not a torch file"), "cannot be read as a state dict"),
        (lambda path: path.write_bytes(b""), "cannot be read as a torch file"),
        (saved(nn.Linear(3, 2)), r"a pickled module.*weights_only=False"),
        (saved([torch.ones(2)]), "holds a list"),
        (saved({0: torch.ones(2)}), "holds a dict"),
        (
            saved({"epoch": 3, "model": factory().state_dict()}),
            r"keys epoch, model.*\['model'\], new_path",
        ),
        (
            saved(nn.Sequential(nn.Linear(3, 4)).state_dict()),
            r"7 missing: 1\.weight, 1\.bias, 1\.running_mean, 1\.running_var, "
            r"1\.num_batches_tracked, \.\.\.\.",
        ),
        (saved(factory().state_dict() | {"head": torch.ones(1)}), "1 unexpected: head"),
        (
            saved(factory().state_dict() | {"0.bias": torch.ones(5)}),
            r"1 of another shape: 0\.bias \(5,\) instead of \(4,\)",
        ),
        (saved(factory().state_dict() | {"0.bias": 1}), "does not fit Sequential"),
    ],
)
def test_files_that_do_not_fit(write, message, tmp_path):
    path = tmp_path / "weights.pt"
    write(path)
    with pytest.raises(SkgeoError, match=message):
        Checkpoint(path, factory).load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.Linear(1, 1), factory), "got Linear as its path"),
        (("weights.pt", nn.Linear(1, 1)), "got Linear as its factory"),
        (("weights.pt", "factory"), "got str as its factory"),
        (("weights.pt", factory, "f"), "got forward='f'"),
    ],
)
def test_misuse(arguments, message):
    with pytest.raises(NotAModelError, match=message):
        Checkpoint(*arguments)


def test_factory_must_build_a_module(path):
    with pytest.raises(NotAModelError, match=r"dict of .* returned dict"):
        Checkpoint(path, dict).load()
