import argparse
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from helpers.networks import normal, seeded
from skgeo import FisherRankEstimator, WrappedModel
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
    resolved = resolve_model(Checkpoint(path, factory, forward=doubled), refit=True)
    assert resolved.forward is doubled
    assert resolved.keep_integers
    assert not resolve_model(Checkpoint(path, factory), refit=True).keep_integers


def segmenter():
    return nn.Conv2d(2, 3, 1)


def test_classes_on_another_axis(tmp_path):
    """A row of a table of pairs: softmax over axis 1 at every pixel, as for a WrappedModel."""
    net = seeded(segmenter)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    checkpoint = Checkpoint(tmp_path / "net.pt", segmenter, class_axis=1)
    X = normal(4, 2, 3, 3, dtype=torch.float32)
    wrapped = WrappedModel(net, class_axis=1)
    found = FisherRankEstimator(likelihood="categorical").fit_transform(
        [(checkpoint, X), (wrapped, X)]
    )
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    # 2 of 3 logits are free, on each of 3 coordinates of a pixel (1 and its two channels).
    assert FisherRankEstimator(checkpoint, likelihood="categorical").fit(X).fisher_rank_ == 6
    assert fingerprint(checkpoint) != fingerprint(Checkpoint(tmp_path / "net.pt", segmenter))
    assert repr(checkpoint).endswith("factory=segmenter, class_axis=1)")
    for wrong in (0, "1", True):
        with pytest.raises(NotAModelError, match="class_axis="):
            Checkpoint(tmp_path / "net.pt", segmenter, class_axis=wrong)


def saved(value):
    def write(path):
        torch.save(value, path)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, r"no file /.*weights\.pt\."),
        (lambda path: path.mkdir(), "is a folder.*read_run"),
        (lambda path: path.write_bytes(b"not a torch file"), "weights.pt cannot be read"),
        (lambda path: path.write_bytes(b""), "weights.pt cannot be read.*incomplete"),
        (saved(nn.Linear(3, 2)), r"holds Python objects \(torch\.nn.*safe_globals=\[torch\.nn"),
        (saved([torch.ones(2)]), "holds a list"),
        (saved({0: torch.ones(2)}), "holds a dict"),
        (saved({"epoch": 3, "lr": 0.1}), "holds epoch, lr, and no state dict"),
        (
            saved({"epoch": 3, "model": nn.Linear(3, 2).state_dict()}),
            r"does not fit Sequential in its entry 'model'\. 9 missing",
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
        (saved(factory().state_dict() | {"0.bias": 1}), r"0\.bias a int instead of \(4,\)"),
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
    ],
)
def test_misuse(arguments, message):
    with pytest.raises(NotAModelError, match=message):
        Checkpoint(*arguments)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"forward": "f"}, "got forward='f'"),
        ({"key": 3}, "got key=3; expected a string"),
        ({"prefix": nn.Identity}, "got prefix="),
        ({"safe_globals": "argparse.Namespace"}, "expected a list of classes"),
    ],
)
def test_misuse_of_options(option, message):
    with pytest.raises(NotAModelError, match=message):
        Checkpoint("weights.pt", factory, **option)


def test_factory_must_build_a_module(path):
    with pytest.raises(NotAModelError, match=r"dict of .* returned dict"):
        Checkpoint(path, dict).load()


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def compiled_inside(state):
    return {name.replace(".", "._orig_mod.", 1): value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "model": state, "optimizer": {"state": {}, "groups": [1]}},
        lambda state: {"model": state, "ema": nn.Linear(2, 2).state_dict()},
        lambda state: {"model": state, "mean": torch.zeros(3)},
        lambda state: under("module.", state),
        lambda state: under("_orig_mod.", state),
        lambda state: under("module._orig_mod.", state),
        lambda state: under("module.", state) | {"n_averaged": torch.tensor(3)},
        lambda state: {"state_dict": under("net._orig_mod.", state), "loops": {}},
        compiled_inside,
    ],
)
def test_wrappings_are_taken_off_where_the_rest_fits(wrap, trained, tmp_path):
    path = tmp_path / "state.pt"
    torch.save(wrap(trained.state_dict()), path)
    loaded = Checkpoint(path, factory).load().state_dict()
    assert all(loaded[name].equal(value) for name, value in trained.state_dict().items())


def test_the_wrappers_of_torch(trained, tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(trained)
    compiled = torch.compile(trained, backend="eager")
    for wrapper in (averaged, compiled, nn.DataParallel(trained)):
        torch.save(wrapper.state_dict(), tmp_path / "state.pt")
        loaded = Checkpoint(tmp_path / "state.pt", factory).load()
        assert loaded[0].weight.equal(trained[0].weight)


def test_two_entries_that_fit_are_named(trained, tmp_path):
    path = tmp_path / "both.pt"
    other = factory().state_dict()
    torch.save({"model": trained.state_dict(), "ema": under("module.", other)}, path)
    with pytest.raises(SkgeoError, match=r"2 entries that fit Sequential: .model., .ema.\..*key="):
        Checkpoint(path, factory).load()
    for key, state in (("model", trained.state_dict()), ("ema", other)):
        assert Checkpoint(path, factory, key=key).load()[0].weight.equal(state["0.weight"])
    with pytest.raises(SkgeoError, match=r"no entry key='net'; it holds model, ema\."):
        Checkpoint(path, factory, key="net").load()


def test_prefix_is_given_as_it_stands(trained, tmp_path):
    path = tmp_path / "lightning.ckpt"
    state = under("model.", trained.state_dict()) | {"loss.weight": torch.ones(2)}
    torch.save({"state_dict": state}, path)
    # Something beside the network: leaving it out is for the user to say.
    with pytest.raises(SkgeoError, match=r"begin with 'model\.' do: prefix='model\.'\."):
        Checkpoint(path, factory).load()
    loaded = Checkpoint(path, factory, prefix="model.").load()
    assert loaded[0].weight.equal(trained[0].weight)
    for wrong in ("model", "net."):
        with pytest.raises(SkgeoError, match="prefix"):
            Checkpoint(path, factory, prefix=wrong).load()


def test_a_prefix_that_leaves_a_misfit_stays(tmp_path):
    path = tmp_path / "state.pt"
    torch.save(under("module.", nn.Linear(3, 2).state_dict()), path)
    with pytest.raises(SkgeoError, match="does not fit Sequential"):
        Checkpoint(path, factory).load()


class Setting:
    """What a training script keeps beside its weights."""


def test_safe_globals_name_what_may_be_read(trained, tmp_path):
    path = tmp_path / "state.pt"
    arguments = argparse.Namespace(lr=0.1)
    torch.save({"model": trained.state_dict(), "arguments": arguments, "s": Setting()}, path)
    with pytest.raises(SkgeoError, match=r"Python objects.*argparse\.Namespace.*safe_globals=\["):
        Checkpoint(path, factory, safe_globals=[Setting]).load()
    allowed = Checkpoint(path, factory, safe_globals=[Setting, argparse.Namespace])
    assert allowed.load()[0].weight.equal(trained[0].weight)
    with pytest.raises(SkgeoError, match="Python objects"):  # nothing stays allowed
        Checkpoint(path, factory).load()


def test_damaged_files_are_named(path):
    whole = path.read_bytes()
    for size in (10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        with pytest.raises(SkgeoError, match=r"/step\.pt cannot be read.*damaged or incomplete"):
            Checkpoint(path, factory).load()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_safetensors(trained, tmp_path):
    files = pytest.importorskip("safetensors.torch")
    path = tmp_path / "net.safetensors"
    files.save_file(under("module.", trained.state_dict()), path)
    assert Checkpoint(path, factory).load()[0].weight.equal(trained[0].weight)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(SkgeoError, match=r"net\.safetensors cannot be read"):
        Checkpoint(path, factory).load()
    tied = Tied()
    files.save_model(tied, tmp_path / "tied.safetensors")  # which leaves the second name out
    loaded = Checkpoint(tmp_path / "tied.safetensors", Tied).load()
    assert loaded.head.weight.equal(tied.head.weight)


def test_safetensors_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    (tmp_path / "net.safetensors").write_bytes(b"")
    with pytest.raises(SkgeoError, match="needs the package safetensors"):
        Checkpoint(tmp_path / "net.safetensors", factory).load()
