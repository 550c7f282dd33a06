"""The picture of a tracked run."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from skgeo.exceptions import SkgeoError
from skgeo.training import TrajectoryDisplay

matplotlib.use("agg")

STEPS = pd.Index([0, 1, 10, 100], name="step")


def table(shift=0.0):
    columns = {
        "f__fisher_effective_rank": [24.0, 27.5, 20.0, 11.0],
        "f__tangent_effective_rank": [26.0, 28.0, 31.0, 33.0],
        "f__fisher_rank": [40.0, 41.0, 42.0, 43.0],
        "q__quotient_common_nullity[0]": [3.0, 5.0, 8.0, 9.0],
        "q__quotient_common_nullity[1]": [1.0, 1.0, 2.0, 2.0],
        "jump__kl": [np.nan, 0.1, 0.2, 0.1],
    }
    return pd.DataFrame(columns, index=STEPS) + shift


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_effective_ranks_and_null_dimensions_by_default():
    display = TrajectoryDisplay.from_track(table())
    ranks, layers = display.axes_
    assert [line.get_label() for line in ranks.lines] == [
        "Fisher effective rank",
        "Tangent effective rank",
    ]
    assert [line.get_label() for line in layers.lines] == ["layer 0", "layer 1"]
    assert (ranks.get_title(), layers.get_title()) == (
        "Effective ranks",
        "Null dimensions of each layer",
    )
    line = display.lines_["f__fisher_effective_rank"]
    assert line.get_xdata().tolist() == STEPS.tolist()
    assert line.get_ydata().tolist() == table()["f__fisher_effective_rank"].tolist()
    assert ranks.get_xscale() == "symlog"
    assert ranks.get_xlabel() == "step"
    display.figure_.draw_without_rendering()
    assert all(tick == round(tick) for tick in layers.get_yticks())


def test_integers_have_integer_ticks():
    flat = table()
    flat["f__fisher_rank"] = [2.0, 3.0, 3.0, 2.0]
    (axis,) = TrajectoryDisplay.from_track(flat, ["fisher_rank"]).axes_
    assert all(tick == round(tick) for tick in axis.get_yticks())
    flat["f__fisher_rank"] += 0.5
    (axis,) = TrajectoryDisplay.from_track(flat, ["fisher_rank"]).axes_
    assert any(tick != round(tick) for tick in axis.get_yticks())


def test_features_are_columns_parts_of_their_names_or_groups():
    features = ["f__fisher_rank", "kl", ("fisher_rank", "quotient_common_nullity")]
    display = TrajectoryDisplay.from_track(table(), features)
    assert display.panels == [
        ("f__fisher_rank",),
        ("jump__kl",),
        ("f__fisher_rank", "q__quotient_common_nullity[0]", "q__quotient_common_nullity[1]"),
    ]
    assert display.titles[:2] == ["Fisher rank", "KL divergence of the jump"]
    two = table().join(table().add_prefix("other-"))
    (axis,) = TrajectoryDisplay.from_track(two, ["fisher_rank"]).axes_
    assert [line.get_label() for line in axis.lines] == ["f: Fisher rank", "other-f: Fisher rank"]


def test_bands_over_seeds():
    tables = [table(), table(1.0), table(5.0)]
    level = pd.concat(dict(enumerate(tables)), names=["seed"])
    for given in (tables, level, level.swaplevel()):
        display = TrajectoryDisplay.from_track(given, ["fisher_rank"])
        (axis,) = display.axes_
        line = display.lines_["f__fisher_rank"]
        assert line.get_ydata().tolist() == (table()["f__fisher_rank"] + 1).tolist()
        (band,) = axis.collections
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (40.0, 48.0)


def test_given_axes():
    _, axes = plt.subplots(1, 2)
    display = TrajectoryDisplay.from_track(table(), ax=axes, lw=3)
    assert display.axes_ == list(axes)
    assert display.lines_["f__fisher_effective_rank"].get_linewidth() == 3
    with pytest.raises(SkgeoError, match="2 matplotlib Axes"):
        TrajectoryDisplay.from_track(table(), ax=axes[0])


def test_few_steps_stay_linear():
    short = table().iloc[:2]
    assert TrajectoryDisplay.from_track(short).axes_[0].get_xscale() == "linear"


@pytest.mark.parametrize(
    ("given", "features", "message"),
    [
        (table(), ["rank"], "has no column 'rank'; it has"),
        (table()[["jump__kl"]], None, "neither effective ranks nor null dimensions"),
        ([], None, "Expected a table of skgeo.track"),
        (table().iloc[:0], None, "with a row or more"),
        (table().reset_index(drop=True), None, "expected 'step'"),
        ([table(), table().iloc[:2]], None, "differ in their steps or columns"),
        (pd.concat({0: table().rename_axis("epoch")}), None, "none is 'step'"),
    ],
)
def test_misuse(given, features, message):
    with pytest.raises(SkgeoError, match=message):
        TrajectoryDisplay.from_track(given, features)
