"""Calls that share a parameter, as one call, against sums of their dense gradients."""

import pytest
import torch
from torch import nn

from helpers.networks import normal
from helpers.rule_oracles import assert_near
from skgeo.jacobian import LayerGradients, structure_rule
from skgeo.jacobian._rules.sharing import can_share, combined

B, M, V, D = 4, 3, 7, 5


def assert_is_the_sum(calls):
    """Every product of the combined call against those of the sum of dense gradients."""
    call = combined(calls)
    rule = structure_rule(call.module)
    parts = [structure_rule(each.module).rows(each) for each in calls]
    rows = {local: sum(part[local] for part in parts) for local in calls[0].names}
    for local, found in rule.rows(call).items():
        assert_near(found, rows[local])
    flat = torch.cat([each.flatten(2) for each in rows.values()], 2)
    long = flat.flatten(0, 1)
    assert_near(rule.gram(call, call), long @ long.T)
    other = call.take(slice(1, 3))
    assert_near(rule.gram(call, other), long @ flat[1:3].flatten(0, 1).T)
    assert_near(rule.gram(other, call), flat[1:3].flatten(0, 1) @ long.T)
    assert_near(rule.trace(call), flat.square().sum())
    weights = normal(B, 2, M, seed=9)
    assert_near(rule.trace(call.weighted(weights)), (weights @ flat).square().sum())
    for local, found in rule.diagonal(call).items():
        assert_near(found, rows[local].square().sum((0, 1)))
    for local, found in rule.total(call).items():
        assert_near(found, rows[local].sum((0, 1)))
    vectors = {local: normal(2, *each.shape[2:], seed=8) for local, each in rows.items()}
    pushed = sum(rows[n].flatten(2) @ v.flatten(1).T for n, v in vectors.items())
    assert_near(rule.push(call, vectors), pushed)
    for local, found in rule.pull(call, pushed).items():
        expected = pushed.flatten(0, 1).T @ rows[local].flatten(2).flatten(0, 1)
        assert_near(found.flatten(1), expected)
    return call


def linear_call(layer, positions, seed, names):
    inputs = normal(B, *positions, D, seed=seed)
    return LayerGradients(layer, inputs, normal(B, M, *positions, V, seed=seed + 1), names)


def table_call(layer, positions, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(V, (B, *positions), generator=generator)
    gradients = normal(B, M, *positions, D, seed=seed + 1)
    return LayerGradients(layer, tokens, gradients, {"weight": "table"})


def layers(padding=None, bias=False):
    torch.manual_seed(0)
    table = nn.Embedding(V, D, padding_idx=padding).double()
    head = nn.Linear(D, V, bias=bias).double()
    head.weight = table.weight
    return table, head


@pytest.mark.parametrize("positions", [((4,), (4,)), ((6,), ()), ((), (3,)), ((2, 3), (2, 2))])
@pytest.mark.parametrize("padding", [None, 2])
def test_a_table_that_also_multiplies(positions, padding):
    table, head = layers(padding)
    calls = [
        table_call(table, positions[0], 1),
        linear_call(head, positions[1], 3, {"weight": "table"}),
    ]
    assert can_share([table, head])
    assert_is_the_sum(calls)


def test_a_table_looked_up_twice_that_also_multiplies_twice():
    table, head = layers(bias=True)
    names = {"weight": "table"}
    assert_is_the_sum(
        [
            linear_call(head, (2,), 5, names),
            table_call(table, (3,), 1),
            linear_call(head, (), 3, names),
            table_call(table, (2, 2), 7),
        ]
    )


def test_cross_terms_in_small_pieces(monkeypatch):
    from skgeo.jacobian._rules import rule, shared_table

    def one_by_one(count, *_):
        return rule.sample_slices(count, 1, 1)

    monkeypatch.setattr(shared_table, "sample_slices", one_by_one)
    table, head = layers()
    assert_is_the_sum([table_call(table, (4,), 1), linear_call(head, (4,), 3, {"weight": "table"})])


@pytest.mark.parametrize("names", [{"weight": "w", "bias": "b"}, {"weight": "w"}, {"bias": "b"}])
def test_one_linear_layer_called_twice(names):
    _, head = layers(bias=True)
    call = assert_is_the_sum([linear_call(head, (2,), 1, names), linear_call(head, (), 3, names)])
    assert call.inputs.shape == (B, 3, D)


def test_a_float32_network():
    table, head = layers()
    calls = [table_call(table, (4,), 1), linear_call(head, (4,), 3, {"weight": "table"})]
    call = combined(calls).to(torch.float32)
    rule = structure_rule(call.module)
    expected = structure_rule(combined(calls).module).gram(combined(calls), combined(calls))
    assert_near(rule.gram(call, call), expected, 1e-6)
    assert rule.trace(call).dtype == torch.float64


def test_what_cannot_be_combined():
    linear, table = nn.Linear(2, 2), nn.Embedding(2, 2)
    other = nn.Embedding(2, 2, padding_idx=0)
    conv = nn.Conv1d(2, 2, 1)

    assert can_share([linear, linear])
    assert can_share([table, table, linear])
    assert not can_share([table, other])
    assert not can_share([conv, conv])
    assert not can_share([linear, conv])
