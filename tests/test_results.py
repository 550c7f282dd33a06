"""Results print as one line that says what matters."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch

from skgeo._results import Result, shown

SUBJECTS = ("chain", "fiber", "fisher", "quotient", "symmetry")


def results():
    for subject in SUBJECTS:
        module = importlib.import_module(f"skgeo.{subject}")
        for name in module.__all__:
            if dataclasses.is_dataclass(getattr(module, name)):
                yield getattr(module, name)


@pytest.mark.parametrize("kind", list(results()))
def test_every_public_result_prints_as_one_line(kind):
    assert issubclass(kind, Result)
    assert "__repr__" not in vars(kind), "dataclass(repr=False), and say it in _line"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (3, "3"),
        (0.123456, "0.1235"),
        (np.float64(2.0), "2"),
        (torch.tensor(1.5), "1.5"),
        (np.zeros((2, 3)), "<2 x 3>"),
        ((1, 2), "(1, 2)"),
        (list(range(100)), "<100>"),
    ],
)
def test_shown(value, text):
    assert shown(value) == text
