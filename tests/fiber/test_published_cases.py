"""Twelve networks with integer weights whose every number is known exactly."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from helpers.fiber_oracles import brute_force_strata, exact_rank_list
from skgeo import fiber
from skgeo.fiber._learning_coefficient import linear_network_coefficient

CASES = json.loads((Path(__file__).parents[1] / "data" / "linear_fiber.json").read_text())["cases"]


@pytest.fixture(params=CASES, ids=[case["name"] for case in CASES])
def case(request):
    return request.param


@pytest.fixture
def weights(case):
    return [np.array(matrix) for matrix in case["weights"]]


@pytest.fixture
def code(weights):
    return fiber.barcode_from_rank_list(exact_rank_list(weights))


def test_ranks_and_bars(case, weights, code):
    expected = case["expected"]
    bars = tuple(sorted(tuple(bar) for bar in expected["bars"]))
    assert np.tril(code.rank_list()).tolist() == np.tril(expected["ranks"]).tolist()
    assert code.bars == bars
    assert fiber.numerical_barcode(weights).barcode == code
    assert (code.widths, code.rank) == (tuple(case["widths"]), case["rank_W"])


def test_numbers_of_the_point(case, code):
    expected = case["expected"]
    assert code.n_parameters == expected["n_params"]
    assert code.orbit_dimension == expected["dim_orbit"]
    assert code.dimension == expected["dim_stratum"]
    assert code.codimension == expected["normal_dim"]
    assert fiber.differential_rank(code) == expected["rank_dmu"]
    assert fiber.local_codimension(code) == expected["local_codim"]
    assert code.is_smooth is expected["is_smooth_point"]
    assert code.is_maximal is expected["is_maximal"]
    assert code.is_closed is expected["is_closed"]
    assert fiber.n_components(code) == expected["n_components_real"]


def test_bases_have_the_dimensions(case, weights):
    expected = case["expected"]
    flow = fiber.flow_bases(weights)
    for space, tangent, normal in (
        ("stratum", expected["tangent_dim"], expected["normal_dim"]),
        ("kernel", expected["kernel_dmu_dim"], expected["rank_dmu"]),
        ("orbit", expected["dim_orbit"], expected["n_params"] - expected["dim_orbit"]),
    ):
        assert len(fiber.tangent_basis(flow, space)) == tangent
        assert len(fiber.normal_basis(flow, space)) == normal


def test_moves_up(case, code):
    expected = case["expected"]
    assert len(fiber.up_moves(code)) == expected["n_up_moves"]
    covers = fiber.up_covers(code)
    assert len(covers) == expected["n_up_covers"]
    bars = sorted(tuple(sorted(map(tuple, cover))) for cover in expected["up_cover_bars"])
    assert sorted(cover.bars for cover in covers) == bars


def test_fiber(case, code):
    expected = case["expected"]["fiber"]
    widths, rank = code.widths, code.rank
    diagram = fiber.hasse_diagram(widths, rank)
    assert fiber.count_strata(widths, rank) == len(diagram.nodes) == expected["n_strata"]
    assert set(diagram.nodes) == set(brute_force_strata(widths, rank))
    assert fiber.fiber_dimension(widths, rank) == expected["dim_fiber"]
    assert fiber.fiber_codimension(widths, rank) == expected["codim_fiber"]
    assert max(diagram.dimensions) == expected["dim_fiber"]
    assert diagram.dimensions.count(expected["dim_fiber"]) == expected["n_top_dim_strata"]
    assert len(diagram.maximal) == expected["n_maximal_strata"]
    assert len(diagram.edges) == expected["n_hasse_edges"]
    assert diagram.n_moves == expected["n_moves"]
    closed = fiber.closed_stratum(widths, rank)
    assert closed.dimension == min(diagram.dimensions) == expected["min_dim"]
    assert closed.is_smooth is expected["fiber_is_manifold"]
    smooth = [node.is_smooth for node in diagram.nodes]
    assert sum(smooth) == expected["n_smooth_strata"]
    assert all(smooth) is expected["fiber_is_manifold"]
    coefficient = linear_network_coefficient(widths, rank)
    assert coefficient.value == Fraction(expected["rlct_aoyagi"])
    assert coefficient.multiplicity == expected["aoyagi_multiplicity"]
