"""Every public function and every estimator leaves all that is not its own as it was."""

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from helpers.laws import assert_nothing_changed
from helpers.measurements import ESTIMATORS, MEASUREMENTS, network_for, quietly
from helpers.networks import mlp, normal
from skgeo import FisherRankEstimator, SkgeoError, chain, fiber, fisher, quotient, symmetry

OF_WEIGHTS = {
    "apply_symmetry": lambda net: symmetry.apply_symmetry(net, permutation=[1, 0, 2, 4, 3]),
    "canonical_form": symmetry.canonical_form,
    "compress": symmetry.compress,
    "equivalence_classes": lambda net: symmetry.equivalence_classes([net, net]),
    "equivalent": lambda net: symmetry.equivalent(net, mlp(3, 5, 2, activation=nn.ReLU, seed=1)),
    "hinge_form": symmetry.hinge_form,
    "match_networks": lambda net: symmetry.match_networks(net, mlp(3, 5, 2, activation=nn.ReLU)),
    "minimal_width": lambda net: symmetry.minimal_width(net),
    "jacobian_penalty": lambda net: chain.jacobian_penalty(net, normal(6, 3)),
    "isometry_penalty": lambda net: chain.isometry_penalty(net, normal(6, 3)),
}
OF_SMOOTH_WEIGHTS = {
    "curvature_penalty": lambda net: chain.curvature_penalty(net, normal(6, 3)),
}
FIRST = {"model", "models", "a"}


class Stops(nn.Module):
    """A network whose forward pass raises after so many calls, counted for all its copies."""

    def __init__(self, net, calls):
        super().__init__()
        self.net, self.left = net, iter(range(calls))

    def forward(self, x):
        if next(self.left, None) is None:
            raise ZeroDivisionError
        return self.net(x)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_measurements(name, three_threads):
    net, X = network_for(name)
    with assert_nothing_changed(net, X):
        quietly(lambda: MEASUREMENTS[name](net, X))


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_functions_of_weights(name, three_threads):
    net = mlp(3, 5, 2, activation=nn.ReLU)
    with assert_nothing_changed(net):
        OF_WEIGHTS[name](net)


@pytest.mark.parametrize("name", OF_SMOOTH_WEIGHTS)
def test_functions_of_smooth_networks(name, three_threads):
    net = mlp(3, 5, 2)
    with assert_nothing_changed(net):
        OF_SMOOTH_WEIGHTS[name](net)


@pytest.mark.parametrize("calls", [0, 1, 6])
@pytest.mark.parametrize("name", ["FisherRankEstimator", "LayerQuotientEstimator", "fisher_trace"])
def test_measurements_that_fail(name, calls, three_threads):
    net, X = network_for(name)
    stops = Stops(net, calls)
    with assert_nothing_changed(net, X), pytest.raises((SkgeoError, ZeroDivisionError)):
        MEASUREMENTS[name](stops, X)


@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_in_any_gradient_mode(name, grad):
    net, X = network_for(name)
    with grad(), assert_nothing_changed(net, X):
        quietly(lambda: ESTIMATORS[name](net, X))


def test_every_function_of_a_model_is_in_the_tables():
    known = {name.split(" ")[0] for name in {**MEASUREMENTS, **OF_WEIGHTS, **OF_SMOOTH_WEIGHTS}}
    for subject in (fisher, quotient, chain, symmetry, fiber):
        for name in subject.__all__:
            public = getattr(subject, name)
            if (
                inspect.isfunction(public)
                and next(iter(inspect.signature(public).parameters)) in FIRST
            ):
                assert name in known or name == "compare_hinges", name


class MeetsTheOther(nn.Module):
    """Its forward pass waits until that of the other one has begun."""

    entered = (threading.Event(), threading.Event())

    def __init__(self, number):
        super().__init__()
        self.layer, self.number = nn.Linear(3, 4).double(), number

    def forward(self, x):
        self.entered[self.number].set()
        assert self.entered[1 - self.number].wait(60)
        return self.layer(x).tanh()


def test_two_fits_that_overlap_run_side_by_side_and_leave_no_trace():
    X, nets = normal(40, 3), [MeetsTheOther(number) for number in range(2)]
    before = torch.get_num_threads(), torch.get_rng_state(), torch.get_default_dtype()

    def fit(net):
        found = FisherRankEstimator(net, likelihood="gaussian").fit(X)
        return found.fisher_rank_, torch.get_num_threads(), torch.is_grad_enabled()

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(fit, nets))
    assert found == [(16, before[0], True)] * 2
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.get_default_dtype() == before[2]
