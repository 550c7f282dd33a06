"""A tracked run is the same table on dask and on ray."""

import os
import sys

import joblib
import pandas as pd
import pytest

from helpers.tracking import Counting, run_of, write_run
from skgeo import FisherRankEstimator, track

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore"),  # of the schedulers, about ports, processes and files
]


@pytest.fixture
def folder(tmp_path):
    write_run(tmp_path / "run")
    return tmp_path / "run"


def check_same(folder, backend, memory):
    run = run_of(folder)
    estimators = {
        "count": Counting(),
        "fisher": FisherRankEstimator(likelihood="categorical", n_components=0),
    }
    alone = track(run, estimators)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        kept = track(run, estimators, memory=memory, verbose=1)
    pd.testing.assert_frame_equal(kept, alone, check_exact=True)
    pd.testing.assert_frame_equal(track(run, estimators, memory=memory), alone, check_exact=True)


def test_dask(folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        check_same(folder, "dask", tmp_path / "kept")


def test_ray(folder, tmp_path):
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}},
    )
    try:
        register_ray()
        check_same(folder, "ray", tmp_path / "kept")
    finally:
        ray.shutdown()
