"""Every measurement gives the same numbers on every device.

On any machine with a device that only claims to be one, which finds tensors left on the CPU; with
CUDA where there is such a device (marked ``gpu``; ``benchmarks/gpu_parity.py`` runs the same).
"""

import inspect

import pytest
import torch

import skgeo
from helpers import architectures, cases
from helpers.elsewhere import WrongDevice, elsewhere
from helpers.measurements import (
    ESTIMATORS,
    MEASUREMENTS,
    difference,
    network_for,
    numbers,
    parity,
)
from helpers.networks import normal
from skgeo import chain, fisher, quotient, symmetry

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
ARCHITECTURES = ("prelu", "residual", "embedding", "lstm", "transformer")


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_every_measurement_on_another_device(name):
    net, X = network_for(name)
    with elsewhere() as device:
        assert parity(MEASUREMENTS[name], net, X, device) < TOLERANCE[X.dtype]
    assert next(net.parameters()).device.type == "cpu"


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_of_float32_networks_on_another_device(name):
    net, X = network_for(name, torch.float32)
    with elsewhere() as device:
        assert parity(ESTIMATORS[name], net, X, device) < TOLERANCE[X.dtype]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "name",
    ["FisherRankEstimator", "LayerQuotientEstimator", "JacobianChainProfiler"],
)
def test_architectures_on_another_device(name, architecture):
    if architecture in architectures.NETWORKS:
        net, X = architectures.build(architecture, n=3)
    else:
        net, X = cases.BY_NAME[architecture].module(), cases.BY_NAME[architecture].inputs(n=3)
    with elsewhere() as device:
        assert parity(ESTIMATORS[name], net, X, device) < 1e-9


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", MEASUREMENTS)
def test_every_measurement_on_cuda(name, dtype):
    net, X = network_for(name, dtype)
    assert parity(MEASUREMENTS[name], net, X, "cuda") < TOLERANCE[dtype]
    assert next(net.parameters()).device.type == "cpu"


def _takes_device(public):
    measures = inspect.isfunction(public) or hasattr(public, "get_params")
    return measures and "device" in inspect.signature(public).parameters


def test_everything_that_takes_a_device_is_in_the_table():
    known = {name.split(" ")[0] for name in MEASUREMENTS}
    for subject in (skgeo, fisher, quotient, chain, symmetry):
        for name in subject.__all__:
            public = getattr(subject, name)
            takes = _takes_device(public)
            assert not takes or name in known, f"{name} takes device="


def test_the_other_device_has_the_rule_of_a_real_one():
    x = normal(3, 4)
    with elsewhere() as device:
        there = x.to(device)
        assert there.device.type == device
        torch.testing.assert_close((there @ there.T).cpu(), x @ x.T)
        assert float(there.sum()) == pytest.approx(float(x.sum()))
        with pytest.raises(WrongDevice, match="two devices"):
            there + x
        with pytest.raises(WrongDevice, match="generator of the CPU"):
            torch.randn(3, generator=torch.Generator(), device=device)
        with pytest.raises((TypeError, RuntimeError), match="numpy"):
            there.numpy()


def test_differences_are_seen():
    one = numbers({"rank": 3, "gap": 1e9, "values": torch.tensor([4.0, 2.0])})
    assert (
        difference(numbers({"rank": 3, "gap": 2e9, "values": torch.tensor([4.0, 2.0])}), one) == 0
    )
    assert (
        difference(numbers({"rank": 3, "gap": 1.0, "values": torch.tensor([4.0, 1.0])}), one)
        == 0.25
    )
    assert (
        difference(numbers({"rank": 4, "gap": 1.0, "values": torch.tensor([4.0, 2.0])}), one) > 0.3
    )
    assert difference(numbers([3, [float("nan")]]), numbers([3, [1.0]])) == float("inf")
    assert difference([], one) == float("inf")
