"""Training runs: repeatable, independent of their checkpoints, and free of side effects."""

import numpy as np
import pytest
import torch

from skgeo.datasets import digits_run
from skgeo.exceptions import SkgeoError


def state(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_one_pair_and_one_row_a_checkpoint():
    pairs, history = digits_run((8,), checkpoints=(0, 1, 4), n_samples=30)
    assert history["epoch"].tolist() == [0, 1, 4]
    assert len(pairs) == 3
    for module, X, y in pairs:
        assert X.shape == (30, 64)
        assert X.dtype == np.float64
        assert X.max() <= 1
        assert y.dtype == np.int64
        assert not module.training
        assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert history["train_loss"].is_monotonic_decreasing
    assert history["test_accuracy"].iloc[-1] > 0.8


def test_copies_differ_and_training_leaves_them():
    pairs, history = digits_run((8,), checkpoints=(0, 1), n_samples=30)
    before, after = (state(module) for module, _, _ in pairs)
    assert not torch.equal(before, after)
    # The loss a copy has now is the loss its row recorded when it was made.
    full, _ = digits_run((8,), checkpoints=(0, 1), n_samples=1200)
    for (module, X, y), loss in zip(full, history["train_loss"], strict=True):
        logits = module(torch.as_tensor(X))
        actual = torch.nn.functional.cross_entropy(logits, torch.as_tensor(y)).item()
        assert actual == pytest.approx(loss, rel=1e-12)


def test_seed_decides_the_run_and_checkpoints_do_not():
    last = [
        state(digits_run((4,), checkpoints=epochs, seed=seed).pairs[-1][0])
        for epochs, seed in (((0, 1, 2), 0), ((2,), 0), ((2,), 1))
    ]
    assert torch.equal(last[0], last[1])
    assert not torch.equal(last[1], last[2])


def test_global_random_state_is_neither_read_nor_moved():
    torch.manual_seed(0)
    first = state(digits_run((4,), checkpoints=(1,)).pairs[0][0])
    torch.manual_seed(1)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    second = state(digits_run((4,), checkpoints=(1,)).pairs[0][0])
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_single_precision_starts_at_the_rounded_double_precision_weights():
    single = digits_run((4,), checkpoints=(0,), dtype=torch.float32).pairs[0]
    double = digits_run((4,), checkpoints=(0,)).pairs[0]
    assert single[1].dtype == np.float32
    assert torch.equal(state(single[0]), state(double[0]).float())


@pytest.mark.parametrize("checkpoints", [(), (1, 1), (3, 2), (-1, 2)])
def test_checkpoints_must_increase(checkpoints):
    with pytest.raises(SkgeoError, match=r"increasing|non-negative"):
        digits_run(checkpoints=checkpoints)


@pytest.mark.parametrize("sizes", [{"n_train": 1797}, {"n_samples": 0}, {"n_samples": 1201}])
def test_sizes_must_fit_the_digits(sizes):
    with pytest.raises(SkgeoError, match=r"1797|positive"):
        digits_run(**sizes)
