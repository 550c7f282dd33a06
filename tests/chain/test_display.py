import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.exceptions import NotFittedError
from torch import nn

from helpers.networks import mlp, normal
from skgeo import GeometryWarning, SkgeoError
from skgeo.chain import JacobianChainProfiler, ProfileDisplay

mpl.use("agg")


@pytest.fixture
def fitted():
    return JacobianChainProfiler(mlp(4, 6, 5, 3)).fit(normal(20, 4))


@pytest.fixture
def axes():
    return Figure().subplots(1, 3)


def test_what_is_drawn_is_what_was_measured(fitted, axes):
    display = ProfileDisplay.from_estimator(fitted, ax=axes)
    table = fitted.profile_
    assert list(display.lines_) == ["log_volume", "sigma_max", "sigma_min", "isometry_deviation"]
    for name, line in display.lines_.items():
        np.testing.assert_array_equal(line.get_ydata(), table[name])
    band = axes[0].collections[0].get_paths()[0].vertices[:, 1]
    edge = (table["log_volume"] + 2 * table["log_volume_se"]).max()
    assert band.max() == pytest.approx(edge)
    assert axes[1].get_yscale() == "log"
    assert [text.get_text() for text in axes[1].get_xticklabels()] == list("01234")
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["largest", "smallest"]
    assert axes[0].get_legend() is None


def test_densities_span_the_singular_values(fitted, axes):
    display = ProfileDisplay.from_estimator(fitted, ax=axes)
    # Of the first layer all samples have the same four values.
    assert list(display.densities_) == list("01234")
    for place, (layer, drawn) in enumerate(display.densities_.items()):
        corners = drawn.get_paths()[0].vertices
        values = fitted.singular_values_[layer]
        np.testing.assert_allclose(corners[:, 1].min(), values.min(), rtol=1e-9)
        np.testing.assert_allclose(corners[:, 1].max(), values.max(), rtol=1e-9)
        assert corners[:, 0].min() == place
        assert place < corners[:, 0].max() < place + 0.5
    alone = ProfileDisplay(profile=fitted.profile_).plot(ax=Figure().subplots(1, 3))
    assert alone.densities_ == {}


def test_several_networks_share_a_picture(fitted, axes):
    for label, color in (("before", "C0"), ("after", "C1")):
        display = ProfileDisplay.from_estimator(fitted, ax=axes, label=label, color=color)
        assert {line.get_color() for line in display.lines_.values()} == {color}
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["before", "after"]
    assert axes[1].get_legend().get_texts()[-1].get_text() == "after: smallest"


def test_zeros_and_undefined_numbers_leave_gaps(axes):
    dead = nn.Sequential(nn.Linear(4, 3), nn.Threshold(9.0, 0.0), nn.Linear(3, 3)).double()
    with pytest.warns(GeometryWarning, match="zero"):
        fitted = JacobianChainProfiler(dead).fit(normal(5, 4))
    display = ProfileDisplay.from_estimator(fitted, ax=axes)
    assert list(display.densities_) == ["0"]
    assert np.isfinite(display.lines_["sigma_max"].get_ydata()).tolist() == [True, False, False]
    with pytest.warns(GeometryWarning, match="leading"):
        few = JacobianChainProfiler(mlp(300, 300, 300)).fit(normal(2, 300))
    display = ProfileDisplay.from_estimator(few, ax=Figure().subplots(1, 3))
    assert "sigma_min" not in display.lines_
    display.figure_.canvas.draw()


def test_isometries_are_drawn(axes):
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3))).double()
    for layer in net:
        with torch.no_grad():
            layer.weight.copy_(torch.eye(3))
    display = ProfileDisplay.from_estimator(JacobianChainProfiler(net).fit(normal(4, 3)), ax=axes)
    display.figure_.canvas.draw()
    np.testing.assert_allclose(display.lines_["sigma_max"].get_ydata(), 1.0)


def test_a_new_figure_is_made_without_axes(fitted):
    import matplotlib.pyplot as plt

    display = ProfileDisplay.from_estimator(fitted)
    assert display.figure_ is display.axes_[2].figure
    plt.close(display.figure_)


def test_estimators_without_a_profile_are_refused(fitted):
    with pytest.raises(SkgeoError, match="bind the model"):
        ProfileDisplay.from_estimator(JacobianChainProfiler())
    with pytest.raises(NotFittedError):
        ProfileDisplay.from_estimator(JacobianChainProfiler(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="expected one row per layer"):
        ProfileDisplay(profile=fitted.profile_[["layer", "dim"]])
