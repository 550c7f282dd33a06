import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.exceptions import NotFittedError

from skgeo import SkgeoError
from skgeo.datasets.linear import linear_network
from skgeo.fiber import (
    Barcode,
    BarcodeDisplay,
    HasseDisplay,
    LinearFiberStratifier,
    closed_stratum,
    representative,
    strata,
)

mpl.use("agg")


def fitted(code):
    return LinearFiberStratifier(linear_network(representative(code))).fit()


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.mark.parametrize("code", strata([3, 2, 4, 2], 1)[::4])
def test_every_bar_is_drawn_where_it_lives(code, ax):
    display = BarcodeDisplay.from_estimator(fitted(code), ax=ax)
    drawn = sorted(tuple(line.get_xdata()) for line in display.lines_)
    assert drawn == [(birth, death) for birth, death, _ in code.bars]
    heights = [line.get_ydata()[0] for line in display.lines_]
    assert heights == list(range(len(code.bars)))
    counts = sorted(text.get_text() for text in ax.texts)
    assert counts == sorted(rf"$\times${n}" for _, _, n in code.bars if n > 1)
    # The bars of the product come first, from the bottom.
    assert tuple(display.lines_[0].get_xdata()) == (0, 3)
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == [f"{k}\n({width})" for k, width in enumerate(code.widths)]
    assert display.figure_ is ax.figure


def test_lines_take_options(ax):
    display = BarcodeDisplay.from_estimator(fitted(Barcode(1, [(0, 1, 2)])), ax=ax, linewidth=2.0)
    assert [line.get_linewidth() for line in display.lines_] == [2.0]


def test_strata_stand_at_their_dimension(ax):
    estimator = fitted(strata([5, 4, 6, 4], 2)[7])
    display = HasseDisplay.from_estimator(estimator, ax=ax, alpha=0.5)
    diagram = estimator.hasse()
    np.testing.assert_array_equal(display.positions_[:, 1], diagram.dimensions)
    assert len(np.unique(display.positions_.round(9), axis=0)) == len(diagram.nodes)
    (covers,) = (c for c in ax.collections if hasattr(c, "get_segments"))
    ends = display.positions_[np.array(diagram.edges)]
    np.testing.assert_allclose(covers.get_segments(), ends)
    assert (ends[:, 1, 1] > ends[:, 0, 1]).all()
    ring = display.positions_[diagram.index(estimator.barcode_)]
    np.testing.assert_array_equal(display.own_.get_offsets(), [ring])
    assert ring[1] == estimator.stratum_dim_
    points = {c.get_label(): len(c.get_offsets()) for c in ax.collections if c is not covers}
    smooth = sum(node.is_smooth for node in diagram.nodes)
    assert points == {
        "open in the fiber": len(diagram.maximal),
        "smooth points": smooth - len(diagram.maximal),
        "singular points": len(diagram.nodes) - smooth,
        "the network's": 1,
    }


def test_no_cover_runs_through_another_stratum(ax):
    display = HasseDisplay.from_estimator(fitted(closed_stratum([5, 4, 6, 4], 2)), ax=ax)
    places = display.positions_
    for low, high in display.diagram.edges:
        along = places[high] - places[low]
        for node in set(range(len(places))) - {low, high}:
            share = (places[node, 1] - places[low, 1]) / along[1]
            if 0 < share < 1:
                assert abs(places[low, 0] + share * along[0] - places[node, 0]) > 1e-3


def test_a_fiber_of_one_stratum(ax):
    display = HasseDisplay.from_estimator(fitted(Barcode(1, [(0, 1, 2)])), ax=ax)
    assert display.positions_[:, 1].tolist() == [0.0]


def test_a_diagram_without_a_network(ax):
    display = HasseDisplay(diagram=fitted(closed_stratum([2, 2, 2], 0)).hasse()).plot(ax=ax)
    assert display.own_ is None
    assert len(display.positions_) == 6


def test_a_new_figure_is_made_without_axes():
    import matplotlib.pyplot as plt

    for display in (BarcodeDisplay, HasseDisplay):
        drawn = display.from_estimator(fitted(closed_stratum([2, 2], 1)))
        assert drawn.figure_ is drawn.ax_.figure
        plt.close(drawn.figure_)


@pytest.mark.parametrize("display", [BarcodeDisplay, HasseDisplay])
def test_what_cannot_be_drawn(display, monkeypatch):
    with pytest.raises(SkgeoError, match="bind the model"):
        display.from_estimator(LinearFiberStratifier())
    with pytest.raises(NotFittedError):
        display.from_estimator(LinearFiberStratifier(linear_network([np.eye(2)])))
    estimator = fitted(closed_stratum([2, 2], 1))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=rf"{display.__name__} needs matplotlib"):
        display.from_estimator(estimator)


def test_too_many_strata_to_draw():
    with pytest.raises(SkgeoError, match="has 27 strata, and max_strata is 20"):
        HasseDisplay.from_estimator(fitted(closed_stratum([2, 2, 2, 2], 0)), max_strata=20)
