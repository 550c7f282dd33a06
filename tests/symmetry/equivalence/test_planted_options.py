"""Copies and near misses for all options of activations and all settings of convolutions."""

import pytest
import torch
from torch import nn

from helpers.networks import normal
from helpers.planted import convolutional, moved, planted_cases, planted_copy
from skgeo.symmetry import equivalence_classes, equivalent

CASES = list(planted_cases())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_copies_are_equivalent_and_near_misses_are_not(case):
    _, net, other, misses = case
    x = normal(6, 3) if isinstance(net[0], nn.Linear) else normal(6, 2, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(net(x), other(x))
    report = equivalent(net, other)
    assert report.verdict == "equivalent", str(report)
    for miss in misses:
        assert equivalent(net, miss).verdict != "equivalent"
        assert equivalent(net, miss, 3 * x).verdict == "different"
        labels = equivalence_classes([net, other, miss], x)
        assert labels.tolist() == [0, 0, 1]


def test_groups_are_compared_as_they_are():
    net = convolutional({"groups": 2})
    assert equivalent(net, planted_copy(net, "none", seed=1)).verdict != "different"
    x = normal(6, 2, 9, 9)
    assert equivalent(net, moved(net), x).verdict == "different"
    assert equivalent(net, moved(net)).verdict != "equivalent"
