"""A training run read from a folder, in any layout of its files."""

import numpy as np
import pytest
import torch
from torch import nn

from skgeo import Checkpoint, FisherRankEstimator
from skgeo.exceptions import SkgeoError
from skgeo.training import read_run


def factory():
    return nn.Linear(3, 2)


def save(path, seed=0, wrap=lambda state: state):
    path.parent.mkdir(parents=True, exist_ok=True)
    module = factory()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    torch.save(wrap(module.state_dict()), path)
    return module


X = np.ones((4, 3))


def test_rows_are_in_the_order_of_the_steps(tmp_path):
    for step in (100, 5, 20):
        save(tmp_path / f"epoch3-step{step}.pt", step)
    run = read_run(tmp_path, factory, X, [0, 1, 0, 1])
    assert run["step"].tolist() == [5, 20, 100]
    assert list(run.columns) == ["step", "model", "X", "y"]
    assert all(isinstance(model, Checkpoint) for model in run["model"])
    assert run["X"].iloc[0] is X
    assert [m.load().weight[0, 0].item() for m in run["model"]] == [
        save(tmp_path / "again.pt", step).weight[0, 0].item() for step in (5, 20, 100)
    ]


def test_a_run_is_a_table_of_pairs(tmp_path):
    for step in (1, 2):
        save(tmp_path / f"{step}.pt", step)
    run = read_run(tmp_path, factory, X)
    estimator = FisherRankEstimator(likelihood="gaussian")
    pairs = [(model.load(), X) for model in run["model"]]
    assert np.array_equal(estimator.fit_transform(run), estimator.fit_transform(pairs))
    assert np.array_equal(estimator.fit_transform(run.set_index("step")), estimator.transform(run))


def test_nothing_is_read_before_it_is_measured(tmp_path):
    (tmp_path / "3.pt").write_bytes(b"damaged")
    run = read_run(tmp_path, factory)
    with pytest.raises(SkgeoError, match=r"/3\.pt cannot be read"):
        run["model"].iloc[0].load()


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["epoch=0-step=5.ckpt", "epoch=1-step=10.ckpt"], {"pattern": "*.ckpt"}),
        (["step=5-loss=0.2.pt", "step=10-loss=0.1.pt"], {"step": r"step=(\d+)"}),
        (["5-of-10.pt", "10-of-10.pt"], {"step": r"^\d+"}),
        (["run/checkpoint-5/net.pt", "run/checkpoint-10/net.pt"], {"pattern": "run/*/net.pt"}),
    ],
)
def test_steps_in_names(names, options, tmp_path):
    for name in names:
        save(tmp_path / name)
    assert read_run(tmp_path, factory, X, **options)["step"].tolist() == [5, 10]


def test_options_of_the_checkpoints(tmp_path):
    module = save(
        tmp_path / "1.pt", wrap=lambda s: {"net": {f"m.{n}": v for n, v in s.items()} | {"z": X}}
    )
    torch.save({"net": {f"m.{n}": v for n, v in module.state_dict().items()}}, tmp_path / "1.pt")
    run = read_run(tmp_path, factory, X, key="net", prefix="m.", forward=len, safe_globals=[set])
    (model,) = run["model"]
    assert model.load().weight.equal(module.weight)
    assert (model.key, model.prefix, model.forward) == ("net", "m.", len)
    assert model.safe_globals == (set,)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (
            ["a.bin"],
            {},
            r"no file that fits pattern='\*\.pt'; expected checkpoints\. It holds a\.b",
        ),
        (["a-1.pt", "b-1.pt"], {}, r"Two files have step 1: .*/a-1\.pt and .*/b-1\.pt"),
        (["final.pt"], {}, r"final\.pt has no number"),
        (["1.pt"], {"step": "("}, "not a regular expression"),
        (["1.pt"], {"step": r"step(\d+)"}, "does not occur"),
        (["a1.pt"], {"step": r"(a)\d"}, "finds 'a' in .*expected an integer"),
    ],
)
def test_names_without_a_run(names, options, message, tmp_path):
    for name in names:
        save(tmp_path / name)
    with pytest.raises(SkgeoError, match=message):
        read_run(tmp_path, factory, X, **options)


def test_missing_folder(tmp_path):
    with pytest.raises(SkgeoError, match=r"no folder .*/nowhere"):
        read_run(tmp_path / "nowhere", factory)
