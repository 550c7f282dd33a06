"""Results of this subject print what matters, in one line."""

import torch

from helpers.networks import mlp
from skgeo.datasets import symmetric_hinges
from skgeo.symmetry import (
    annihilating_sets,
    canonical_form,
    classify_units,
    compress,
    equivalent,
    generators,
    hinge_form,
    match_networks,
    minimal_width,
    nullity_account,
)
from skgeo.symmetry._hidden_layer import one_hidden


def test_forms_and_units():
    absolute = one_hidden([[1.0], [2.0], [-1.0], [-1.0]], None, [[0.5, 0.25, 0.5, 0.5]])
    form = "HingeForm(1 live of 1 boundaries, 4 units, a linear part)"
    assert repr(hinge_form(absolute)) == form
    assert repr(minimal_width(absolute)) == "MinimalWidth(2 of 4 units, 1 live boundaries, optimal)"
    classes = classify_units(absolute.weights, absolute.biases, absolute.outputs)
    assert repr(classes) == "UnitClasses(4 units: 4 duplicate)"
    w = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    sets = annihilating_sets(w, torch.ones(1, 4, dtype=torch.float64))
    assert repr(sets) == "AnnihilatingSets((0, 2), (1, 3); all)"


def test_networks():
    net = mlp(2, 3, 3, 1)
    kind = "CanonicalForm(layers, hidden units 3 3, not complete, tol 1.0e-10)"
    assert repr(canonical_form(net)) == kind
    report = equivalent(net, net)
    assert str(report).startswith("equivalent (residual 0.0e+00, tol 1.0e-10): ")
    assert repr(report) == f"EquivalenceReport({report})"
    assert repr(match_networks(net, net)).startswith("NetworkMatch(distance 0, 0 before; ")
    smaller = compress(net)
    assert repr(smaller) == f"CompressionReport({smaller})"


def test_flat_directions():
    case = symmetric_hinges()
    account = nullity_account(case.module, case.inputs, likelihood="gaussian")
    line = "NullityAccount(nullity 4 of 17 parameters: 4 explained, 0 unexplained)"
    assert repr(account) == line
    found = generators(case.module, case.inputs, likelihood="gaussian")
    assert repr(found) == "Generators(4 of 17 dimensions: scaling 4)"
    assert found._repr_html_().count("<td>scaling</td>") == 4
