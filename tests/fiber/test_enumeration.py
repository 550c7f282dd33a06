import sys

import pytest

from helpers.fiber_oracles import all_widths, brute_force_strata
from skgeo import fiber
from skgeo.exceptions import SkgeoError
from skgeo.fiber import _enumeration as enumeration


@pytest.mark.parametrize(("depth", "most"), [(1, 4), (2, 4), (3, 3), (4, 2)])
def test_enumeration_and_count_agree_with_brute_force(depth, most):
    for widths in all_widths(depth, most):
        for rank in range(min(widths) + 1):
            found = fiber.strata(widths, rank)
            expected = brute_force_strata(widths, rank)
            assert len(found) == len(expected) == fiber.count_strata(widths, rank)
            assert set(found) == set(expected)


def test_large_fibers():
    assert fiber.count_strata([8] * 9, 0) == 672_079_463_735
    assert fiber.count_strata([8] * 9, 6) == 20_994
    assert len(set(fiber.strata([8] * 9, 6))) == 20_994


def test_count_of_two_layers_of_any_width():
    # bars [0,0], [0,1], [1,1], [1,2], [2,2] of widths n - r: what W_1 and W_2 keep of the middle
    width, rank = 300, 100
    n = width - rank
    assert fiber.count_strata([width] * 3, rank) == (n + 1) * (n + 2) // 2


def test_count_is_symmetric():
    assert fiber.count_strata([5, 4, 6, 3], 1) == fiber.count_strata([3, 6, 4, 5], 1)


def test_too_many_strata_are_refused_before_any_is_built(monkeypatch):
    monkeypatch.setattr(enumeration, "_grow", None)
    with pytest.raises(SkgeoError, match="672,079,463,735 strata, and max_strata is 100,000"):
        fiber.strata([8] * 9, 0)
    with pytest.raises(SkgeoError, match="39 strata, and max_strata is 38"):
        fiber.hasse_diagram([5, 4, 6, 4], 2, max_strata=38)
    with pytest.raises(SkgeoError, match=r"more than \d{1,3}(,\d{3})+ strata"):
        fiber.strata([256] * 9, 3)


def test_count_that_would_take_too_long_is_refused():
    with pytest.raises(SkgeoError, match="counting them exactly would take too long"):
        fiber.count_strata([256] * 9, 3)


def test_lower_bound_is_one():
    excess = (9, 7, 8, 9)
    exact = fiber.count_strata(excess, 0)
    assert 1 < enumeration._count((4, 4, 4, 4)) < exact


@pytest.mark.parametrize(
    ("widths", "rank", "message"),
    [([3, 2, 3], 3, "rank 3"), ([3, 2], -1, "rank -1"), ([3], 1, "L >= 1"), ([2, 0, 2], 0, "1;")],
)
def test_fibers_that_do_not_exist(widths, rank, message):
    for function in (fiber.strata, fiber.count_strata, fiber.fiber_dimension, fiber.closed_stratum):
        with pytest.raises(SkgeoError, match=message):
            function(widths, rank)


def test_diagram_finds_a_stratum():
    diagram = fiber.hasse_diagram([2, 2, 2], 1)
    for k, code in enumerate(diagram.nodes):
        assert diagram.index(code) == k
    with pytest.raises(SkgeoError, match="No stratum"):
        diagram.index(fiber.closed_stratum([2, 2, 2], 0))


def test_every_edge_raises_the_dimension():
    diagram = fiber.hasse_diagram([3, 3, 3, 3], 1)
    assert all(diagram.dimensions[low] < diagram.dimensions[high] for low, high in diagram.edges)
    covered = {low for low, _ in diagram.edges}
    assert set(range(len(diagram.nodes))) - covered == set(diagram.maximal)


def test_diagrams_as_graphs(monkeypatch):
    networkx = pytest.importorskip("networkx")
    diagram = fiber.hasse_diagram([5, 4, 6, 4], 2)
    graph = diagram.to_networkx()
    assert set(graph.edges) == set(diagram.edges)
    assert networkx.is_directed_acyclic_graph(graph)
    assert networkx.transitive_reduction(graph).edges == graph.edges
    tops = {node for node in graph if graph.nodes[node]["maximal"]}
    assert tops == {node for node in graph if graph.out_degree(node) == 0}
    assert [graph.nodes[k]["dimension"] for k in range(39)] == list(diagram.dimensions)
    assert graph.nodes[3]["bars"] == diagram.nodes[3].bars
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match=r"skgeo\[graph\]"):
        diagram.to_networkx()
