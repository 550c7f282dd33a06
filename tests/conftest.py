import os

# scikit-learn runs its array-API checks only where scipy was imported with this.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Tests run side by side, one process per core: each keeps to one.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

# Assertions of the helpers fail with their values, as those of the tests do.
pytest.register_assert_rewrite("helpers")

from skgeo import exceptions  # noqa: E402
from skgeo.network._copytree import TreeCopy  # noqa: E402

# No test is about time.
hypothesis.settings.register_profile("skgeo", deadline=None)
hypothesis.settings.load_profile("skgeo")


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def given_warnings():
    """Each test sees the warning that a process gives once."""
    exceptions._given.clear()


@pytest.fixture
def copies(monkeypatch):
    """Every copy of a module tree that was made."""
    made = []
    original = TreeCopy.__init__

    def counted(self, *args, **kwargs):
        made.append(self)
        original(self, *args, **kwargs)

    monkeypatch.setattr(TreeCopy, "__init__", counted)
    return made
