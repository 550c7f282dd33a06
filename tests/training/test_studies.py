"""What the documentation says of the studies is in the tables beside them."""

from pathlib import Path

import pandas as pd

STUDIES = Path(__file__).parents[2] / "studies"


def test_null_dimensions_at_the_input_grow():
    study = pd.read_csv(
        STUDIES / "effective_rank_in_training.csv", index_col=["label_noise", "seed", "step"]
    )
    for name, first, last in (("quotient", (35, 36), (40, 42)), ("coarse", (37, 40), (52, 53))):
        clean = study.loc[0.0][f"{name}__quotient_common_nullity[0]"]
        for step, (low, high) in ((0, first), (2000, last)):
            assert clean.xs(step, level="step").between(low, high).all()


def test_nullity_goes_with_nothing_within_width_and_noise():
    found = pd.read_csv(STUDIES / "barriers_and_nullity_correlations.csv")
    assert found["p_width_and_noise"].min() > 0.07
    pairs = pd.read_csv(STUDIES / "barriers_and_nullity.csv")
    assert len(pairs) == 36
    assert pairs["barrier_matched"].mean() < 0.4 * pairs["barrier"].mean()


def test_geometry_loses_to_baselines_and_leaks_the_number_of_samples():
    scores = pd.read_csv(STUDIES / "generalisation_gap_scores.csv", index_col="features")
    assert len(pd.read_csv(STUDIES / "generalisation_gap.csv")) == 96
    gap = scores["gap_by_setting"]
    assert gap["geometry, all samples"] < min(gap["n"], gap["margins"]) < gap["all baselines"]
    both = scores.loc["all baselines and geometry, 50 samples"]
    assert both["gain_low"] < 0 < both["gain_high"]
    leak = scores["n_by_setting_forest"]
    assert leak["Fisher rank and nullity, all samples"] > 0.5
    assert leak["Fisher rank and nullity, 50 samples"] < 0.1


def test_no_rank_is_ahead_of_the_test_accuracy():
    addition = pd.read_csv(STUDIES / "grokking.csv", index_col=["weight_decay", "seed", "step"])
    last = addition.xs(1500, level="step")["test_accuracy"]
    assert (last.loc[1.0] > 0.9).sum() == 2
    assert (last.loc[0.0] < 0.1).all()
    found = pd.read_csv(STUDIES / "grokking_summary.csv").set_index(
        ["weight_decay", "feature", "seed"]
    )
    half = found["half_way"].loc[1.0].unstack("seed")
    accuracy = half.loc["test_accuracy"]
    ranks = half[half.index.str.contains("rank") & ~half.index.str.contains("slope")].dropna()
    assert len(ranks) > 5
    assert not (ranks < accuracy).all(axis=1).any()
    assert (half.loc["test_loss"] < accuracy).all()


def test_leverage_is_beside_the_softmax_and_behind_a_distance():
    areas = pd.read_csv(STUDIES / "out_of_distribution.csv")
    assert areas["left_out"].nunique() == 5
    near = areas[areas["kind"] == "near"].pivot(index="left_out", columns="score", values="area")
    assert (near["Fisher leverage"] - near["max softmax"]).between(0.002, 0.035).all()
    means = pd.read_csv(STUDIES / "out_of_distribution_means.csv", index_col="score")
    kinds = ["near", "shuffled", "noise", "negative"]
    leverage, softmax = means.loc["Fisher leverage", kinds], means.loc["max softmax", kinds]
    assert (leverage[1:] - softmax[1:]).between(0.065, 0.135).all()
    assert (means[kinds].max() == means.loc["10th neighbour, input", kinds]).all()
