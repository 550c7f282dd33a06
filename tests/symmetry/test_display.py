from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.exceptions import NotFittedError
from torch import nn

from helpers.networks import mlp, normal
from skgeo import SkgeoError
from skgeo.models import bare_model
from skgeo.symmetry import BoundaryDisplay, NullityDisplay, SymmetryClassifier

mpl.use("agg")


@pytest.fixture
def ax():
    return Figure().subplots()


def cross():
    """Boundaries x_1 = 0, twice, x_2 = 0, and a constant unit."""
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        net[0].bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    return net


LABELS = ["duplicate", "duplicate", "generic", "w_degenerate"]


# Stands for a fitted one with the given attributes.
Fitted = type("SymmetryClassifier", (SimpleNamespace,), {})


def fitted(net, labels):
    return Fitted(
        _check_measured=lambda: None,
        model_=bare_model(net),
        labels_=np.array(labels),
    )


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_boundaries_are_where_units_turn_on(ax):
    display = BoundaryDisplay.from_estimator(fitted(cross(), LABELS), ax=ax, extent=(-1, 1, -2, 2))
    assert sorted(display.lines_) == [0, 1, 2]
    vertical = display.lines_[0].get_paths()[0].vertices
    np.testing.assert_allclose(vertical[:, 0], 0, atol=1e-12)
    assert (vertical[:, 1].min(), vertical[:, 1].max()) == (-2, 2)
    assert display.n_regions_ == 4
    assert texts(ax) == ["generic (1)", "duplicate (2)"]
    colors = [display.lines_[unit].get_edgecolor() for unit in (0, 1, 2)]
    np.testing.assert_array_equal(colors[0], colors[1])
    assert not np.array_equal(colors[0], colors[2])


def test_later_layers_bend_at_those_before(ax):
    net = mlp(2, 5, 4, 1, activation=nn.ReLU)
    display = BoundaryDisplay(model=net).plot(normal(30, 2), ax=ax)
    last = [unit for unit in display.lines_ if unit >= 5]
    assert last
    for unit in last:
        points = torch.from_numpy(
            np.concatenate([path.vertices for path in display.lines_[unit].get_paths()])
        )
        # On the boundary up to the spacing of the grid.
        assert net[:3](points)[:, unit - 5].abs().max() < 1e-2
    assert display.n_regions_ > 5
    assert texts(ax)[-2:] == ["layer 0", "layer 2"]


def test_smooth_units_have_zero_sets_and_no_regions(ax):
    display = BoundaryDisplay(model=mlp(2, 5, 3, 1)).plot(ax=ax)
    assert display.n_regions_ is None
    assert display.lines_


def test_boundaries_are_at_the_kinks_of_the_activation(ax):
    net = nn.Sequential(nn.Linear(2, 1), nn.Hardtanh(-2, 3), nn.Linear(1, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
        net[0].bias.zero_()
    display = BoundaryDisplay(model=net).plot(ax=ax, extent=(-5, 5, -1, 1))
    vertices = np.concatenate([path.vertices for path in display.lines_[0].get_paths()])
    np.testing.assert_allclose(np.unique(vertices[:, 0].round(9)), [-2, 3])
    assert display.n_regions_ == 3
    assert "1 activation boundaries" in ax.get_title()


def test_any_activation_is_drawn_behind_any_other(ax):
    net = nn.Sequential(
        nn.Linear(2, 3), nn.GELU("tanh"), nn.Linear(3, 3), nn.ELU(2.0), nn.Linear(3, 1)
    ).double()
    display = BoundaryDisplay(model=net).plot(ax=ax, extent=(-3, 3, -3, 3))
    for unit, lines in display.lines_.items():
        points = torch.from_numpy(np.concatenate([path.vertices for path in lines.get_paths()]))
        values = net[0](points) if unit < 3 else net[:3](points)
        assert values[:, unit % 3].abs().max() < 1e-3
    assert display.n_regions_ is None


def test_layers_without_activation_have_no_boundary(ax):
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    display = BoundaryDisplay(model=net).plot(ax=ax, extent=(-20, 20, -20, 20))
    assert set(display.lines_) <= {0, 1}
    linear = BoundaryDisplay(model=nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))).plot()
    assert (linear.n_regions_, linear.lines_) == (1, {})


def test_networks_that_are_not_of_the_plane():
    with pytest.raises(SkgeoError, match="3 inputs"):
        BoundaryDisplay(model=mlp(3, 4, 1))
    with pytest.raises(SkgeoError, match=r"3 labels for hidden layers of \[4\]"):
        BoundaryDisplay(model=mlp(2, 4, 1), labels=["generic"] * 3)


def account(unexplained=2, lacking=0, **dimensions):
    return Fitted(
        _check_measured=lambda: None,
        generators_=SimpleNamespace(dimensions=dimensions, n_parameters=40),
        unexplained_nullity_=unexplained,
        sample_limited_nullity_=lacking,
    )


def test_the_bar_is_the_null_space(ax):
    display = NullityDisplay.from_estimator(account(scaling=6, dead=0, duplicate=3), ax=ax)
    assert list(display.bars_) == ["scaling", "duplicate", "unexplained"]
    starts = [bar[0].get_x() for bar in display.bars_.values()]
    widths = [bar[0].get_width() for bar in display.bars_.values()]
    assert (starts, widths) == ([0, 6, 9], [6, 3, 2])
    red, green, blue, _ = display.bars_["unexplained"][0].get_facecolor()
    assert red == green == blue
    text = "9 flat directions of 40 parameters explained, 2 not"
    assert text in [text.get_text() for text in ax.texts]


def test_what_lacks_data_has_a_bar_of_its_own(ax):
    display = NullityDisplay.from_estimator(account(0, lacking=5, scaling=6), ax=ax)
    assert list(display.bars_) == ["scaling", "lack of data"]
    assert (display.bars_["lack of data"][0].get_x(), ax.texts[-1].get_text()) == (
        6,
        "6 flat directions of 40 parameters explained, 0 not, 5 for lack of data",
    )


def test_several_networks_share_the_axes(ax):
    NullityDisplay.from_estimator(account(scaling=6), ax=ax, label="before")
    after = NullityDisplay.from_estimator(
        account(scaling=5, linear=4, unexplained=0), ax=ax, label="after"
    )
    assert "unexplained" not in after.bars_
    assert [text.get_text() for text in ax.get_yticklabels()] == ["before", "after"]
    assert texts(ax) == ["scaling", "unexplained", "linear"]
    colors = {
        container[0].get_facecolor()
        for container in ax.containers
        if container.get_label() == "scaling"
    }
    assert len(colors) == 1


def test_a_rank_that_was_not_taken_is_said(ax):
    NullityDisplay.from_estimator(account(float("nan"), scaling=6), ax=ax)
    assert any("rank not taken" in text.get_text() for text in ax.texts)
    missing = account()
    missing.generators_ = None
    with pytest.raises(SkgeoError, match="no generators"):
        NullityDisplay.from_estimator(missing, ax=ax)


def test_a_fitted_classifier(ax):
    net = mlp(2, 6, 5, 2, activation=nn.ReLU)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = 2 * net[0].weight[0], 2 * net[0].bias[0]
        net[4].weight[:, 3] = 0
    symmetry = SymmetryClassifier(net, likelihood="gaussian").fit(normal(60, 2))
    display = BoundaryDisplay.from_estimator(symmetry, normal(60, 2), ax=ax)
    assert display.labels[:2] == ["duplicate", "duplicate"]
    assert display.labels[9] == "q_degenerate"
    bar = NullityDisplay.from_estimator(symmetry, ax=Figure().subplots())
    total = sum(container[0].get_width() for container in bar.bars_.values())
    assert total == symmetry.n_parameters_ - symmetry.fisher_rank_
    assert {"scaling", "duplicate", "no_output"} <= set(bar.bars_)


def test_estimators_that_are_not_fitted_are_refused():
    for display in (BoundaryDisplay, NullityDisplay):
        with pytest.raises(NotFittedError):
            display.from_estimator(SymmetryClassifier(mlp(2, 3, 1)))
        with pytest.raises(SkgeoError, match="bind the model"):
            display.from_estimator(SymmetryClassifier())


def test_a_new_figure_is_made_without_axes():
    import matplotlib.pyplot as plt

    for display in (
        BoundaryDisplay(model=cross()).plot(),
        NullityDisplay(dimensions={"scaling": 1}, unexplained=0).plot(),
    ):
        assert display.figure_ is display.ax_.figure
        plt.close(display.figure_)
