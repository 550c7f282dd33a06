import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.exceptions import NotFittedError
from torch import nn

from skgeo import SkgeoError
from skgeo.quotient import LayerQuotientEstimator, RankProfileDisplay

mpl.use("agg")


@pytest.fixture
def fitted():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
        X = torch.randn(30, 4, dtype=torch.float64)
    return LayerQuotientEstimator(net, likelihood="categorical").fit(X)


@pytest.fixture
def axes():
    return Figure().subplots(1, 2)


def test_what_is_drawn_is_what_was_measured(fitted, axes):
    display = RankProfileDisplay.from_estimator(fitted, ax=axes)
    table = fitted.layers_
    band, middle, whole, effective, shade, unseen, never = display.lines_
    np.testing.assert_array_equal(middle.get_ydata(), table["rank_median"])
    np.testing.assert_array_equal(whole.get_ydata(), table["common_rank"])
    np.testing.assert_array_equal(effective.get_ydata(), table["effective_rank"])
    np.testing.assert_allclose(unseen.get_ydata(), table["nullity"] / table["dim"])
    np.testing.assert_allclose(never.get_ydata(), table["common_nullity"] / table["dim"])
    edges = band.get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (table["rank_min"].min(), table["rank_max"].max())
    assert shade.get_paths()[0].vertices[:, 1].min() >= 0
    assert [text.get_text() for text in axes[1].get_xticklabels()] == ["0", "1", "2"]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == [
        "pointwise",
        "common",
        "effective",
    ]


def test_several_networks_share_a_picture(fitted, axes):
    for label, color in (("before", "C0"), ("after", "C1")):
        display = RankProfileDisplay.from_estimator(fitted, ax=axes, label=label, color=color)
        assert {display.lines_[i].get_color() for i in (1, 2, 3, 5, 6)} == {color}
    texts = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert texts[0] == "before: pointwise"
    assert texts[-1] == "after: effective"


def test_a_new_figure_is_made_without_axes(fitted):
    import matplotlib.pyplot as plt

    display = RankProfileDisplay.from_estimator(fitted)
    assert display.figure_ is display.axes_[1].figure
    plt.close(display.figure_)


def test_estimators_without_a_profile_are_refused(fitted):
    with pytest.raises(SkgeoError, match="bind the model"):
        RankProfileDisplay.from_estimator(LayerQuotientEstimator())
    with pytest.raises(NotFittedError):
        RankProfileDisplay.from_estimator(LayerQuotientEstimator(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="expected one row per layer"):
        RankProfileDisplay(layers=fitted.layers_[["layer", "dim"]])
