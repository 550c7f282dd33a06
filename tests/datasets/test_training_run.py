"""Training runs of every problem and network: they learn, are repeatable, and draw nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from skgeo import fisher_trace
from skgeo.datasets import digits_run, training_run
from skgeo.exceptions import SkgeoError

# Problem, network, options, inputs of the pairs, share of the training set that is learned.
CASES = [
    ("digits", "mlp", {"hidden": (16,)}, (20, 64)),
    ("digits", "conv", {"hidden": (4, 4)}, (20, 64)),
    ("moons", "mlp", {"hidden": (8,)}, (20, 2)),
    ("linear", "mlp", {"hidden": (4,), "activation": None}, (20, 8)),
    ("modular", "mlp", {"modulus": 7}, (20, 14)),
    ("modular", "transformer", {"modulus": 7, "hidden": (16, 16)}, (20, 2)),
]


def state(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize(("problem", "network", "options", "shape"), CASES)
def test_networks_learn_and_nothing_global_is_drawn(problem, network, options, shape):
    torch.manual_seed(0)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    steps = (0, 1, 60)
    pairs, history = training_run(problem, network, steps=steps, n_samples=20, **options)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert history["step"].tolist() == list(steps)
    assert list(history.columns[1:]) == [
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
    ]
    assert history["train_loss"].iloc[-1] < 0.7 * history["train_loss"].iloc[0]
    assert history["train_accuracy"].isna().all() == (problem == "linear")
    for module, X, y in pairs:
        assert X.shape == shape
        assert len(y) == 20
        assert not module.training
        assert all(p.grad is None for p in module.parameters())
    assert fisher_trace(*pairs[-1][:2], likelihood="gaussian") > 0
    torch.manual_seed(1)
    again = training_run(problem, network, steps=(60,), n_samples=20, **options)
    assert torch.equal(state(again.pairs[0][0]), state(pairs[-1][0]))
    assert again.history["test_loss"].iloc[0] == history["test_loss"].iloc[-1]
    other = training_run(problem, network, steps=(0,), n_samples=20, seed=1, **options)
    assert not torch.equal(state(other.pairs[0][0]), state(pairs[0][0]))


def test_the_linear_teacher_has_the_best_loss_of_its_noise():
    run = training_run("linear", hidden=(6,), activation=None, steps=(600,), learning_rate=0.02)
    # Mean squared error: the variance of the noise, 0.01, and little of the 46 fitted numbers.
    assert 0.008 < run.history["test_loss"].iloc[0] < 0.012
    with torch.no_grad():
        first, last = run.pairs[0][0]
        values = torch.linalg.svdvals(last.weight @ first.weight)
    assert values[1] > 10 * values[2]


def test_label_noise_changes_its_share_of_the_training_labels():
    clean, noisy = (
        training_run(steps=(0,), n_samples=1200, label_noise=share) for share in (0.0, 0.25)
    )
    (_, X, y), (_, X_noisy, y_noisy) = clean.pairs[0], noisy.pairs[0]
    assert np.array_equal(X, X_noisy)
    assert (y != y_noisy).mean() == 0.25
    assert set(y_noisy) == set(range(10))


def test_smoothing_and_decay_change_the_training_only():
    options = {"hidden": (8,), "steps": (0, 200), "n_samples": 20}
    plain = training_run(**options)
    for change in ({"label_smoothing": 0.3}, {"weight_decay": 1.0}):
        other = training_run(**options, **change)
        assert torch.equal(state(other.pairs[0][0]), state(plain.pairs[0][0]))
        assert other.history["train_loss"].iloc[0] == plain.history["train_loss"].iloc[0]
        assert other.history["train_loss"].iloc[1] > plain.history["train_loss"].iloc[1]


def test_epochs_are_steps():
    by_epoch = digits_run((6,), checkpoints=(0, 2), n_train=130, n_samples=20)
    by_step = training_run(hidden=(6,), activation=nn.Tanh, steps=(0, 6), n_train=130, n_samples=20)
    for (a, _, _), (b, _, _) in zip(by_epoch.pairs, by_step.pairs, strict=True):
        assert torch.equal(state(a), state(b))
    assert by_epoch.history["epoch"].tolist() == [0, 2]


def test_the_run_as_a_table():
    run = training_run("moons", hidden=(4,), steps=(0, 3), n_samples=10)
    table = run.table
    assert list(table.columns) == ["step", "model", "X", "y"]
    assert table["step"].tolist() == [0, 3]
    assert [tuple(row) for row in table[["model", "X", "y"]].itertuples(index=False)] == run.pairs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"problem": "iris"}, "problem='iris'; expected 'digits'"),
        ({"network": "lstm"}, "network='lstm'; expected 'mlp'"),
        ({"network": "transformer"}, "is for problem='modular', not for 'digits'"),
        ({"problem": "moons", "network": "conv"}, "is for problem='digits'"),
        ({"network": "conv", "hidden": (3,)}, "expected two numbers of channels"),
        (
            {"problem": "modular", "network": "transformer", "hidden": (6, 8)},
            "a residual stream that 4 heads",
        ),
        ({"problem": "modular", "modulus": 1}, "modulus=1"),
        ({"steps": (3, 1)}, "increasing steps"),
        ({"n_train": 1797}, "1797, the number of images"),
        ({"n_samples": 1201}, "n_samples=1201, n_train=1200"),
        ({"label_noise": 1.0}, "label_noise=1.0"),
        ({"problem": "linear", "label_noise": 0.1}, "needs classes"),
    ],
)
def test_misuse(arguments, message):
    with pytest.raises(SkgeoError, match=message):
        training_run(**arguments)
