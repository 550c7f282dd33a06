"""Real trainings of skorch, Lightning and transformers, recorded by callbacks and read back."""

import numpy as np
import pytest
import torch
from torch import nn

from skgeo import Checkpoint, FisherRankEstimator, track
from skgeo.exceptions import SkgeoError
from skgeo.training import (
    CheckpointRecorder,
    lightning_callback,
    read_run,
    skorch_callback,
    transformers_callback,
)

pytestmark = pytest.mark.integration

N = 48


def data():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(N, 3, generator=generator)
    return X, (X[:, 0] > 0).long()


def factory():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def check_run(run, last, steps):
    """The run has these steps, ends with these weights, and can be tracked."""
    assert run["step"].tolist() == steps
    first = run["model"].iloc[0].load()
    assert first[0].weight.equal(factory()[0].weight)
    end = run["model"].iloc[-1].load()
    assert all(end.state_dict()[name].equal(value) for name, value in last.items())
    table = track(run, FisherRankEstimator(likelihood="categorical", n_components=0))
    assert table.index.tolist() == steps
    assert (table["jump__kl"].iloc[1:] > 0).all()


def test_skorch(tmp_path):
    skorch = pytest.importorskip("skorch")
    X, y = data()
    recorder = CheckpointRecorder(tmp_path)
    net = skorch.NeuralNetClassifier(
        factory,
        criterion=nn.CrossEntropyLoss,
        lr=0.1,
        batch_size=8,
        max_epochs=2,
        train_split=None,
        callbacks=[("record", skorch_callback(recorder))],
        verbose=0,
    )
    net.fit(X.numpy(), y.numpy())
    steps = [0, 1, 2, 5, 10, 12]
    check_run(recorder.run(X, y), net.module_.state_dict(), steps)
    check_run(read_run(tmp_path, factory, X, y), net.module_.state_dict(), steps)
    net.partial_fit(X.numpy(), y.numpy())
    assert recorder.steps_ == [*steps, 20, 24]
    with pytest.raises(SkgeoError, match="another training"):
        net.fit(X.numpy(), y.numpy())


@pytest.fixture
def lightning():
    return pytest.importorskip("lightning.pytorch")


@pytest.mark.filterwarnings("ignore")  # of Lightning, about loaders and loggers
def test_lightning(lightning, tmp_path):
    X, y = data()

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = factory()

        def training_step(self, batch, _):
            inputs, targets = batch
            return nn.functional.cross_entropy(self.net(inputs), targets)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    task = Task()
    recorder = CheckpointRecorder(tmp_path / "run")
    whole = CheckpointRecorder(steps=1)
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        accumulate_grad_batches=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            lightning_callback(recorder, lambda task: task.net),
            lightning_callback(whole),
        ],
    )
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, y), batch_size=8)
    trainer.fit(task, loader)
    last = task.net.state_dict()
    check_run(recorder.run(X, y), last, [0, 1, 2, 5, 6])
    assert whole.steps_ == list(range(7))
    # Its own checkpoint, with the names of the whole task.
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    found = Checkpoint(tmp_path / "last.ckpt", factory).load()
    assert all(found.state_dict()[name].equal(value) for name, value in last.items())


@pytest.mark.filterwarnings("ignore")  # of transformers, about devices
def test_transformers(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    # The folder tests/datasets is on the path, and is not the package of that name.
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = factory()

        def forward(self, inputs, labels=None):
            logits = self.net(inputs)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    X, y = data()
    samples = [{"inputs": x, "labels": label} for x, label in zip(X, y, strict=True)]
    recorder = CheckpointRecorder(tmp_path / "run")
    model = Model()
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(
            output_dir=str(tmp_path / "trainer"),
            num_train_epochs=2,
            per_device_train_batch_size=8,
            learning_rate=0.05,
            report_to=[],
            save_strategy="steps",
            save_steps=6,
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=samples,
        callbacks=[transformers_callback(recorder)],
    )
    trainer.train()
    last = model.net.state_dict()
    # The attribute of the model before every name is taken off.
    check_run(recorder.run(X, y, factory=factory), last, [0, 1, 2, 5, 10, 12])
    # What the trainer itself saved: a folder of safetensors per step.
    run = read_run(tmp_path / "trainer", factory, X, y, pattern="checkpoint-*/model.safetensors")
    assert run["step"].tolist() == [6, 12]
    end = run["model"].iloc[-1].load().state_dict()
    assert all(np.array_equal(end[name], value) for name, value in last.items())


@pytest.mark.parametrize(
    ("callback", "package"),
    [
        (skorch_callback, "skorch.callbacks"),
        (lightning_callback, "lightning.pytorch"),
        (transformers_callback, "transformers"),
    ],
)
def test_missing_packages_are_named(callback, package, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    with pytest.raises(ImportError, match=r"needs \w+; install it: python -m pip install"):
        callback(CheckpointRecorder())
