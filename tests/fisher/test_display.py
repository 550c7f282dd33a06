import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.exceptions import NotFittedError
from torch import nn

from helpers.networks import normal
from skgeo import FisherRankEstimator, SkgeoError
from skgeo.fisher import SpectrumDisplay

mpl.use("agg")


@pytest.fixture
def fitted():
    X = normal(12, 4)
    net = nn.Linear(4, 3).double()
    return FisherRankEstimator(net, likelihood="categorical").fit(X)


@pytest.fixture
def axes():
    return Figure().subplots(1, 2)


def test_what_is_drawn_is_what_was_measured(fitted, axes):
    display = SpectrumDisplay.from_estimator(fitted, ax=axes)
    line, rest, tolerance, mark, steps, chosen = display.lines_
    values = np.r_[line.get_ydata(), rest.get_ydata()]
    shown = fitted.eigenvalues_ > 1e-6 * fitted.rank_threshold_
    np.testing.assert_array_equal(values, fitted.eigenvalues_[shown])
    assert len(line.get_ydata()) == fitted.fisher_rank_ == 10
    assert tolerance.get_ydata()[0] == fitted.rank_threshold_
    assert mark.get_xdata()[0] == 10.5
    np.testing.assert_array_equal(steps.get_ydata(), fitted.rank_path_["rank"])
    assert chosen.get_xdata()[0] == pytest.approx(fitted.rank_threshold_ / fitted.eigenvalues_[0])
    assert display.axes_[0].get_yscale() == display.axes_[1].get_xscale() == "log"
    (entry, _) = display.axes_[0].get_legend().get_texts()
    assert entry.get_text().startswith("rank 10 of 15, gap ")


def test_several_networks_share_a_picture(fitted, axes):
    for label, color in (("before", "C0"), ("after", "C1")):
        display = SpectrumDisplay.from_estimator(fitted, ax=axes, label=label, color=color)
        assert display.lines_[0].get_color() == display.lines_[4].get_color() == color
    texts = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert [text.split(":")[0] for text in texts] == ["before", "after"]


def test_a_new_figure_is_made_without_axes(fitted):
    import matplotlib.pyplot as plt

    display = SpectrumDisplay.from_estimator(fitted)
    assert display.figure_ is display.axes_[1].figure
    plt.close(display.figure_)


def test_estimators_without_a_spectrum_are_refused(fitted):
    with pytest.raises(SkgeoError, match="bind the model"):
        SpectrumDisplay.from_estimator(FisherRankEstimator())
    with pytest.raises(NotFittedError):
        SpectrumDisplay.from_estimator(FisherRankEstimator(nn.Linear(2, 2)))
    fitted.eigenvalues_ = np.zeros(3)
    with pytest.raises(SkgeoError, match="nothing to draw"):
        SpectrumDisplay.from_estimator(fitted)
