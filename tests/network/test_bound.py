"""A model on data is read at most once, and never touched."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.networks import normal
from helpers.oracles import assert_untouched
from skgeo import SkgeoError, WrappedModel
from skgeo.data import as_samples
from skgeo.models import resolve_model
from skgeo.network import BoundNetwork, bind
from skgeo.network._running import batch_ranges, check_batch_size, running


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(0.2), nn.Linear(5, 3)).eval()


@pytest.fixture
def X():
    return normal(7, 4, seed=1, dtype=torch.float32)


def read_everything(network):
    return (
        network.replica,
        network.graph,
        network.stack,
        network.first_run,
        network.likelihood,
        network.outputs(),
        network.inputs(),
        network.batches(),
    )


def test_everything_is_read_from_one_copy(net, X, copies):
    with assert_untouched(net):
        network = bind(net, X, likelihood="categorical")
        assert not copies  # nothing before it is asked for
        read_everything(network)
        read_everything(network)
    assert len(copies) == 1


def test_float64_takes_one_copy_more_and_none_where_it_is_there(net, X, copies):
    network = bind(net, X)
    read_everything(network)
    double = network.double
    read_everything(double)
    assert len(copies) == 2
    assert network.double is double
    assert double.double is double
    assert double.dtype == torch.float64
    assert double.inputs().dtype == torch.float64
    assert net[0].weight.dtype == torch.float32
    wide = bind(net.double(), X)
    assert wide.double is wide


def test_float64_sees_data_that_float32_rounds(net):
    X = np.full((2, 4), 1 / 3)
    assert bind(net, X).inputs().dtype == torch.float32
    assert bool((bind(net, X).double.inputs() == 1 / 3).all())


def test_what_it_says_of_outputs_and_samples(net, X):
    network = bind(net, X, likelihood="categorical")
    assert (network.n_samples, network.n_positions, network.n_outputs) == (7, 1, 3)
    with torch.no_grad():
        torch.testing.assert_close(network.outputs()[:, 0], net(X))
    assert network.likelihood.name == "categorical"
    # Leaf modules return 5 + 5 + 5 + 3 numbers.
    assert network.first_run.n_activations == 18
    maps = bind(
        WrappedModel(nn.Conv2d(2, 3, 1), forward=lambda m, x: m(x).movedim(1, -1)),
        torch.zeros(2, 2, 4, 5),
    )
    assert (maps.n_positions, maps.n_outputs) == (20, 3)


def test_batches_hold_every_sample_once_within_the_budget(net, X):
    for count, size in [(None, 7), (3, 3), (100, 7)]:
        network = bind(net, X, batch_size=count)
        assert network.affordable(1) == size
        assert [i for b in network.batches() for i in b] == list(range(7))
    # A quarter of the budget for one batch.
    assert bind(net, X, memory_budget=4 * 2**20).affordable(2**19) == 2
    assert bind(net, X, memory_budget=4 * 2**20, batch_size=5).affordable(2**19) == 2
    assert bind(net, X, memory_budget=4).affordable(2**40) == 1


def test_the_model_is_asked_for_the_likelihood(net, X):
    model = resolve_model(WrappedModel(net, likelihood="poisson"), refit=False)
    network = BoundNetwork(model, as_samples(X), likelihood="auto")
    assert network.likelihood.name == "poisson"
    labels = BoundNetwork(resolve_model(net, refit=False), as_samples(X, [0, 1, 2, 0, 1, 2, 0]))
    assert labels.likelihood.name == "gaussian"
    by_y = BoundNetwork(
        resolve_model(net, refit=False), as_samples(X, [0, 1, 2, 0, 1, 2, 0]), likelihood="auto"
    )
    assert by_y.likelihood.name == "categorical"


def test_no_parameter_need_be_selected(X):
    network = bind(nn.Tanh(), X, parameters=None)
    assert network.replica.selected == ()
    assert network.dtype == torch.float32
    torch.testing.assert_close(network.outputs()[:, 0], X.tanh())


def test_a_model_that_does_not_fit_the_data(net, X):
    with pytest.raises(SkgeoError, match=r"A batch of it is \(1, 3\) of torch.float32"):
        _ = bind(net, X[:, :3]).n_outputs
    with pytest.raises(SkgeoError, match="needs data"):
        _ = bind(net, None).n_samples
    bad = nn.Linear(4, 1)
    with torch.no_grad():
        bad.weight.fill_(3e38)
    with pytest.raises(SkgeoError, match=r"NaN or infinite for 2 of 5 samples \(first: sample 3\)"):
        bind(bad, torch.cat([torch.zeros(3, 4), torch.ones(2, 4)])).outputs()


def test_a_failing_forward_pass_says_what_it_was_given():
    net = nn.Linear(3, 2)
    for inputs, said in [
        (torch.ones(1, 4), r"A batch of it is \(1, 4\) of torch.float32"),
        ({"x": torch.ones(1, 4)}, r"A batch of it is x: \(1, 4\) of torch.float32"),
        ((torch.ones(1, 4), torch.ones(1)), r"0: \(1, 4\) of torch.float32, 1: \(1,\)"),
    ]:
        with pytest.raises(SkgeoError, match=said) as raised, running(inputs):
            net(inputs)
        assert raised.value.__cause__ is not None


def test_errors_that_teach_already_are_left_alone():
    original = SkgeoError("no")
    with pytest.raises(SkgeoError) as raised, running(torch.ones(1)):
        raise original
    assert raised.value is original


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "3"])
def test_what_is_not_a_batch_size_is_refused(net, X, size):
    with pytest.raises(SkgeoError, match=r"batch_size=.*expected a positive integer or None"):
        bind(net, X, batch_size=size)


def test_ranges():
    check_batch_size(None)
    check_batch_size(4)
    for count in range(1, 12):
        for size in range(1, 13):
            batches = batch_ranges(count, size)
            assert [i for batch in batches for i in batch] == list(range(count))
            assert {len(batch) for batch in batches[:-1]} <= {size}
