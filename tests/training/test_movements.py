"""On digits, the Fisher effective rank falls in training while that of the tangent kernel rises."""

from pathlib import Path

import pandas as pd
import pytest

from skgeo import FisherRankEstimator, track
from skgeo.datasets import training_run

STUDY = Path(__file__).parents[2] / "studies" / "effective_rank_in_training.csv"
FISHER, TANGENT = "fisher__fisher_effective_rank", "fisher__tangent_effective_rank"


@pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")
@pytest.mark.parametrize("seed", range(3))
def test_both_movements(seed):
    run = training_run(hidden=(32, 32), steps=(0, 500), n_samples=60, seed=seed)
    table = track(run, {"fisher": FisherRankEstimator(n_components=0)})
    assert table[FISHER].iloc[-1] < 0.7 * table[FISHER].iloc[0]
    assert table[TANGENT].iloc[-1] > 1.3 * table[TANGENT].iloc[0]


def test_the_study_shows_them_and_that_label_noise_turns_the_first_around():
    study = pd.read_csv(STUDY, index_col=["label_noise", "seed", "step"])
    ratio = study.xs(2000, level="step") / study.xs(0, level="step")
    clean, noisy = (ratio.xs(noise, level="label_noise") for noise in (0.0, 0.4))
    assert len(clean) == len(noisy) == 3
    assert (clean[FISHER] < 0.85).all()
    assert (noisy[FISHER] > 2).all()
    assert (clean[TANGENT] > 1.5).all()
