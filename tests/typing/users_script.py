"""What a user writes, checked by mypy and pyright and never run: attributes have their types."""

from typing import assert_type

import numpy as np
import pandas as pd
import torch

from skgeo import (
    FisherRankEstimator,
    JacobianChainProfiler,
    LayerQuotientEstimator,
    LinearFiberStratifier,
    SymmetryClassifier,
    fisher_rank,
    track,
)
from skgeo.chain import curvature
from skgeo.fiber import Barcode
from skgeo.fisher import RankCurve, rank_curve
from skgeo.symmetry import EquivalenceReport, equivalent
from skgeo.training import CheckpointRecorder, TrajectoryDisplay, read_run

net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
X = torch.randn(40, 3)

fisher = FisherRankEstimator(net, likelihood="categorical").fit(X)
assert_type(fisher, FisherRankEstimator)
assert_type(fisher.fisher_rank_, int | float)  # NaN under solver="lanczos"
assert_type(fisher.sample_limited_, bool)
assert_type(fisher.eigenvalues_, np.ndarray)
assert_type(fisher.rank_path_, pd.DataFrame)
assert_type(fisher.summary(), dict[str, float])

quotient = LayerQuotientEstimator(net, likelihood="categorical").fit(X)
assert_type(quotient.layers_, pd.DataFrame)

profiler = JacobianChainProfiler(net, chain="input").fit(X)
assert_type(profiler.profile_, pd.DataFrame)

symmetry = SymmetryClassifier(net, likelihood="categorical").fit(X)
assert_type(symmetry.labels_, np.ndarray)
assert_type(symmetry.equivalent(net), EquivalenceReport)

fiber = LinearFiberStratifier(torch.nn.Linear(3, 2)).fit()
assert_type(fiber.barcode_, Barcode)

assert_type(fisher_rank(net, X, likelihood="categorical").rank, int)
assert_type(rank_curve(net, X, likelihood="categorical"), RankCurve)
assert_type(equivalent(net, net), EquivalenceReport)

recorder = CheckpointRecorder()
assert_type(recorder(0, net), bool)
assert_type(recorder.run(X), pd.DataFrame)
table = track(read_run("run", lambda: net, X), {"fisher": FisherRankEstimator()}, n_jobs=2)
assert_type(table, pd.DataFrame)
assert_type(TrajectoryDisplay.from_track(table, ["fisher_rank"]), TrajectoryDisplay)
print(curvature(net, X, velocity=X))
