"""Results of the quotient print as one line each."""

import torch
from torch import nn

from skgeo.quotient import layer_spectra, rank_jumps


def test_spectrum():
    net = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        net[1].weight.fill_(1.0)
    (found,) = layer_spectra(net, torch.ones(4, 3), layers=["0"], likelihood="gaussian")
    assert repr(found) == (
        "LayerSpectrum('0', common rank 1 of 2, median pointwise rank 1, 4 samples)"
    )


def test_jump():
    net = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Linear(1, 1)).double()
    _, rank = rank_jumps(net, [-1.0], [3.0], layers=["0"], likelihood="gaussian")
    assert repr(rank) == "RankJump(t=0.25, rank of '0', 0 to 1)"
