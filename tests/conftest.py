import os

# scikit-learn runs its array-API checks only where scipy was imported with this.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import pytest
import torch


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
