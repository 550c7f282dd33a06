import subprocess
import sys

import pytest
import torch
from sklearn.base import clone

from helpers.networks import normal
from skgeo import FisherRankEstimator, _sklearn


class Recorder:
    """A scikit-learn callback that writes down the tasks it is told of."""

    def __init__(self):
        self.begun, self.ended, self.open = [], [], 0

    def setup(self, estimator, context):
        self.open += 1

    def teardown(self, estimator, context):
        self.open -= 1

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(context.task_name)

    def on_fit_task_end(self, estimator, context):
        self.ended.append(context.task_name)


@pytest.fixture
def data():
    X = normal(9, 3, dtype=torch.float32)
    return torch.nn.Linear(3, 2), X


@pytest.mark.skipif(not _sklearn.HAS_CALLBACKS, reason="this scikit-learn has no callbacks")
class TestCallbacks:
    def test_each_pass_of_a_fit_is_a_task(self, data):
        net, X = data
        recorder = Recorder()
        estimator = FisherRankEstimator(
            net, likelihood="gaussian", solver="parameter", batch_size=2
        ).set_callbacks(recorder)
        estimator.fit(X)
        assert recorder.begun == ["fit", *["pass"] * 5]
        assert recorder.ended == [*["pass"] * 5, "fit"]
        assert recorder.open == 0

    def test_they_are_torn_down_after_an_error(self, data):
        net, X = data
        recorder = Recorder()
        estimator = FisherRankEstimator(net, likelihood="categoric").set_callbacks(recorder)
        with pytest.raises(ValueError, match="categoric"):
            estimator.fit(X)
        assert recorder.open == 0

    def test_they_survive_clone_and_stay_out_of_the_rows(self, data):
        recorder = Recorder()
        estimator = FisherRankEstimator(likelihood="gaussian").set_callbacks(recorder)
        clone(estimator).fit([data])
        assert recorder.begun == ["fit"]
        estimator.transform([data, data])
        assert recorder.begun == ["fit"]


def test_estimators_work_where_callbacks_cannot_be_imported():
    code = """
import sys
import torch
# scikit-learn reads its own callbacks: load what it needs before they are taken away.
import sklearn.datasets, sklearn.frozen, sklearn.linear_model, sklearn.neural_network
import sklearn.pipeline
sys.modules["sklearn.callback"] = None
from skgeo import FisherRankEstimator, _sklearn
assert not _sklearn.HAS_CALLBACKS
fitted = FisherRankEstimator(torch.nn.Linear(3, 2), likelihood="gaussian").fit(torch.randn(9, 3))
assert fitted.fisher_rank_ == 8
try:
    fitted.set_callbacks(object())
except NotImplementedError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Callbacks need sklearn.callback" in done.stdout
