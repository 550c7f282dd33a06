"""A run on disk, and an estimator that counts its measurements in a file, for tests of track."""

import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from skgeo import track
from skgeo.base import GeometryEstimator
from skgeo.training import read_run

STEPS = (0, 1, 2, 5, 10, 20, 50, 100)


def factory():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def X():
    return np.random.default_rng(0).standard_normal((6, 3))


def write_run(folder, steps=STEPS):
    """Networks of the steps in a folder, with weights drawn from the step."""
    folder.mkdir(exist_ok=True)
    for step in steps:
        module = factory()
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for parameter in module.parameters():
                draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(draw)
        torch.save(module.state_dict(), folder / f"step{step}.pt")


def run_of(folder):
    return read_run(folder, factory, X())


class Counting(GeometryEstimator):
    """Mean of the first layer's weights; a line in a file before and after each measurement."""

    def __init__(
        self,
        model=None,
        log=None,
        seconds=0.0,
        likelihood="categorical",
        memory=None,
        fail_above=np.inf,
    ):
        self.model = model
        self.log = log
        self.seconds = seconds
        self.likelihood = likelihood
        self.memory = memory
        self.fail_above = fail_above

    def _measure(self, network):
        weight = network.model.module[0].weight.detach()
        self.note("begin")
        time.sleep(self.seconds)
        if float(weight.abs().max()) > self.fail_above:
            raise RuntimeError("this estimator does not like the weights")
        self.mean_ = float(weight.mean())
        self.note("end")

    def note(self, word):
        if self.log is not None:
            with Path(self.log).open("a") as file:  # one write, which other processes do not split
                file.write(f"{word} {os.getpid()}\n")

    def _features(self, network):
        return np.zeros((network.n_samples, 1))

    def _feature_names(self):
        return ["zero"]

    def _summary_names(self):
        return ["mean_weight"]

    def summary(self):
        return {"mean_weight": self.mean_}


def count(log, word):
    path = Path(log)
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(line.startswith(word) for line in lines)


def track_to_file(folder, log, memory, where, seconds):
    """Track the run of a folder, and store the table; for a process of its own."""
    torch.set_num_threads(1)
    table = track(run_of(Path(folder)), Counting(log=log, seconds=seconds), memory=memory)
    table.to_pickle(where)
