"""Bad inputs of all kinds, and the sentence that each gets.

A row is a name, a call and words of its message. Every public estimator and function is called;
none may return, and none may pass on an error of torch, numpy, LAPACK or Python.
"""

import copy
import importlib
import re
import warnings
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from torch import nn

from helpers.networks import linear, mlp, normal
from skgeo import (
    Checkpoint,
    FisherRankEstimator,
    JacobianChainProfiler,
    LayerQuotientEstimator,
    LinearFiberStratifier,
    SkgeoError,
    SymmetryClassifier,
    WrappedModel,
    chain,
    datasets,
    fiber,
    fisher,
    likelihood,
    quotient,
    symmetry,
)
from skgeo.__main__ import main

matplotlib.use("agg")

NET = mlp(3, 4, 2)
X = normal(6, 3)
LINEAR = datasets.linear_network([np.eye(2, 3), np.eye(2)]).double()
GAUSSIAN = {"likelihood": "gaussian"}


class Returns(nn.Module):
    """A layer, and then whatever a function makes of its outputs."""

    def __init__(self, function):
        super().__init__()
        self.layer = linear(3, 2)
        self.function = function

    def forward(self, x):
        return self.function(self.layer(x))


class Scaled(nn.Module):
    """Divides by a buffer."""

    def __init__(self, value):
        super().__init__()
        self.layer = linear(3, 2)
        self.register_buffer("scale", torch.tensor(value))

    def forward(self, x):
        return self.layer(x) * self.scale


class Unread(nn.Module):
    """Has a layer that does not run, and one that the outputs do not read."""

    def __init__(self):
        super().__init__()
        self.idle, self.ignored, self.used = linear(3, 3), linear(3, 3), linear(3, 2)

    def forward(self, x):
        self.ignored(x)
        return self.used(x)


def filled(value, net=NET):
    changed = copy.deepcopy(net)
    with torch.no_grad():
        next(changed.parameters()).view(-1)[0] = value
    return changed


def at(index, value, given=X):
    changed = given.clone()
    changed[index] = value
    return changed


# Every public measurement of a model on data.
MEASURES = {
    "FisherRankEstimator": lambda m, x: FisherRankEstimator(m, **GAUSSIAN).fit(x),
    "JacobianChainProfiler": lambda m, x: JacobianChainProfiler(m).fit(x),
    "LayerQuotientEstimator": lambda m, x: LayerQuotientEstimator(m, **GAUSSIAN).fit(x),
    "SymmetryClassifier": lambda m, x: SymmetryClassifier(m, **GAUSSIAN).fit(x),
    "pair": lambda m, x: FisherRankEstimator(**GAUSSIAN).fit_transform([(m, x)]),
    "fisher_diagonal": lambda m, x: fisher.fisher_diagonal(m, x, **GAUSSIAN),
    "fisher_rank": lambda m, x: fisher.fisher_rank(m, x, **GAUSSIAN),
    "fisher_spectrum": lambda m, x: fisher.fisher_spectrum(m, x, **GAUSSIAN),
    "fisher_trace": lambda m, x: fisher.fisher_trace(m, x, **GAUSSIAN),
    "ntk": lambda m, x: fisher.ntk(m, x),
    "cauchy_green": lambda m, x: chain.cauchy_green(m, x),
    "chain_profile": lambda m, x: chain.chain_profile(m, x),
    "curvature": lambda m, x: chain.curvature(m, x, "sectional"),
    "kink_density": lambda m, x: chain.kink_density(m, x),
    "stability": lambda m, x: chain.stability(m, x),
    "mean_field": lambda m, x: chain.mean_field(m, x),
    "jacobian_penalty": lambda m, x: chain.jacobian_penalty(m, x),
    "isometry_penalty": lambda m, x: chain.isometry_penalty(m, x),
    "curvature_penalty": lambda m, x: chain.curvature_penalty(m, x),
    "layer_spectra": lambda m, x: quotient.layer_spectra(m, x, **GAUSSIAN),
    "leading_eigenvalues": lambda m, x: quotient.leading_eigenvalues(m, x, "0", **GAUSSIAN),
    "fisher_rao_length": lambda m, x: quotient.fisher_rao_length(m, x, **GAUSSIAN),
    "straightness": lambda m, x: quotient.straightness(m, x, **GAUSSIAN),
    "rank_jumps": lambda m, x: quotient.rank_jumps(m, x, x, **GAUSSIAN),
    "generators": lambda m, x: symmetry.generators(m, x, **GAUSSIAN),
    "nullity_account": lambda m, x: symmetry.nullity_account(m, x, **GAUSSIAN),
    "compress": lambda m, x: symmetry.compress(m, X=x, domain="data"),
    "equivalent": lambda m, x: symmetry.equivalent(m, filled(5.0), x),
    "equivalence_classes": lambda m, x: symmetry.equivalence_classes([m, filled(5.0)], x),
}
# Those of a model alone.
MODELS = {
    "LinearFiberStratifier": lambda m: LinearFiberStratifier(m).fit(),
    "apply_symmetry": lambda m: symmetry.apply_symmetry(m),
    "canonical_form": lambda m: symmetry.canonical_form(m),
    "compare_hinges": lambda m: symmetry.compare_hinges(m, m),
    "compress weights": lambda m: symmetry.compress(m),
    "equivalent weights": lambda m: symmetry.equivalent(m, NET),
    "hinge_form": lambda m: symmetry.hinge_form(m),
    "match_networks": lambda m: symmetry.match_networks(m, m),
    "minimal_width": lambda m: symmetry.minimal_width(m),
}
DATA = {
    "text": "a file",
    "number": 3.0,
    "ragged": [[1.0, 2.0, 3.0], [1.0]],
    "nested": torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]),
    "sparse": X.to_sparse(),
    "scipy sparse": sparse.csr_array(X.numpy()),
    "complex": X + 1j,
    "empty": [],
    "no samples": X[:0],
    "wide": normal(6, 5),
    "vector": normal(6),
    "nan": at((2, 1), float("nan")),
    "inf": at((2, 1), float("inf")),
    "words": np.array([["a", "b", "c"]] * 6),
    "objects": np.array([[None, 1, {}]] * 6, dtype=object),
    "tuples": [(X, X)],
    "empty dict": {},
    "uneven dict": {"a": X, "b": X[:2]},
    "set": {1, 2},
    "generator": (row for row in X),
    "function": len,
    "none": None,
    "meta": torch.empty(6, 3, device="meta"),
    "quantized": torch.quantize_per_tensor(X.float(), 0.1, 0, torch.qint8),
    "zero width": X[:, :0],
    "masked": np.ma.masked_greater(X.numpy(), 0.5),
    "dates": np.array([["2020-01-01"] * 3] * 6, dtype="datetime64[D]"),
    "frame of words": pd.DataFrame({"a": ["x"] * 6, "b": 1.0, "c": 2.0}),
}
NETWORKS = {
    "none": None,
    "text": "net.pt",
    "class": nn.Linear,
    "function": len,
    "list": [NET],
    "state": NET.state_dict(),
    "tensor": X,
    "optimizer": torch.optim.SGD(NET.parameters()),
    "SVC": SVC(),
    "no forward": nn.ModuleList([NET]),
    "meta": nn.Linear(3, 2, device="meta"),
    "lazy": nn.LazyLinear(2),
    "nan weight": filled(float("nan")),
    "inf weight": filled(float("inf")),
    "nan buffer": Scaled(float("nan")),
    "complex weight": nn.Linear(3, 2, dtype=torch.complex64),
    "dict": Returns(lambda z: {"logits": z}),
    "tuple": Returns(lambda z: (z, z)),
    "none output": Returns(lambda z: None),
    "int output": Returns(lambda z: 3),
    "text output": Returns(lambda z: "z"),
    "integer output": Returns(lambda z: z.argmax(1)),
    "complex output": Returns(lambda z: z + 1j),
    "mean": Returns(lambda z: z.mean()),
    "first": Returns(lambda z: z[:1]),
    "transposed": Returns(lambda z: z.T),
    "no outputs": Returns(lambda z: z[:, :0]),
    "nan outputs": Returns(lambda z: z.sum() * float("nan") + z),
    "detached": Returns(lambda z: z.detach() + 1),
    "ignores": Returns(torch.zeros_like),
    "numpy": Returns(lambda z: z.detach().numpy()),
    "sparse output": Returns(lambda z: z.to_sparse()),
    "raises": Returns(lambda z: z.no_such_attribute),
    "asserts": Returns(lambda z: [][0]),
    "mixes": Returns(lambda z: z - z.mean(0)),
    "random": Returns(lambda z: z + torch.rand_like(z)),
    "zero width": nn.Sequential(nn.Linear(3, 0), nn.Linear(0, 2)).double(),
    "unfitted": Ridge(),
    "unfitted pipe": make_pipeline(SVC()),
    "jit": torch.jit.script(nn.Linear(3, 2)),
}

FLOW = fiber.flow_bases([np.eye(2, 3), np.eye(2)])
BARCODE = FLOW.barcode
NAN = float("nan")
ROWS = [np.eye(2, 3), np.eye(2)]
FITTED = FisherRankEstimator(NET, **GAUSSIAN).fit(X)
CHAINED = JacobianChainProfiler(NET).fit(X)
ESTIMATORS = {
    "FisherRankEstimator": lambda **o: FisherRankEstimator(NET, **(GAUSSIAN | o)).fit(X),
    "JacobianChainProfiler": lambda **o: JacobianChainProfiler(NET, **o).fit(X),
    "LayerQuotientEstimator": lambda **o: LayerQuotientEstimator(NET, **(GAUSSIAN | o)).fit(X),
    "SymmetryClassifier": lambda **o: SymmetryClassifier(NET, **(GAUSSIAN | o)).fit(X),
    "LinearFiberStratifier": lambda **o: LinearFiberStratifier(LINEAR, **o).fit(),
}
FUNCTIONS = {
    "fisher_diagonal": lambda **o: fisher.fisher_diagonal(NET, X, **(GAUSSIAN | o)),
    "fisher_rank": lambda **o: fisher.fisher_rank(NET, X, **(GAUSSIAN | o)),
    "fisher_spectrum": lambda **o: fisher.fisher_spectrum(NET, X, **(GAUSSIAN | o)),
    "fisher_trace": lambda **o: fisher.fisher_trace(NET, X, **(GAUSSIAN | o)),
    "ntk": lambda **o: fisher.ntk(NET, X, **o),
    "cauchy_green": lambda **o: chain.cauchy_green(NET, X, **o),
    "chain_profile": lambda **o: chain.chain_profile(NET, X, **o),
    "curvature": lambda **o: chain.curvature(NET, X, **({"kind": "sectional", "layer": "0"} | o)),
    "kink_density": lambda **o: chain.kink_density(NET, X, **o),
    "stability": lambda **o: chain.stability(NET, X, **o),
    "mean_field": lambda **o: chain.mean_field(NET, X, **o),
    "jacobian_penalty": lambda **o: chain.jacobian_penalty(NET, X, **o),
    "isometry_penalty": lambda **o: chain.isometry_penalty(NET, X, **o),
    "curvature_penalty": lambda **o: chain.curvature_penalty(NET, X, **o),
    "layer_spectra": lambda **o: quotient.layer_spectra(NET, X, **(GAUSSIAN | o)),
    "leading_eigenvalues": lambda **o: quotient.leading_eigenvalues(
        NET, X, **({"layer": "0", "n_values": 2} | GAUSSIAN | o)
    ),
    "fisher_rao_length": lambda **o: quotient.fisher_rao_length(NET, X, **(GAUSSIAN | o)),
    "straightness": lambda **o: quotient.straightness(NET, X, **(GAUSSIAN | o)),
    "rank_jumps": lambda **o: quotient.rank_jumps(NET, X[0], X[1], **(GAUSSIAN | o)),
    "generators": lambda **o: symmetry.generators(NET, X, **(GAUSSIAN | o)),
    "nullity_account": lambda **o: symmetry.nullity_account(NET, X, **(GAUSSIAN | o)),
    "compress": lambda **o: symmetry.compress(NET, **o),
    "equivalent": lambda **o: symmetry.equivalent(NET, NET, **o),
    "equivalence_classes": lambda **o: symmetry.equivalence_classes([NET, NET], **o),
    "canonical_form": lambda **o: symmetry.canonical_form(NET, **o),
    "hinge_form": lambda **o: symmetry.hinge_form(mlp(3, 4, 2, activation=nn.ReLU), **o),
    "compare_hinges": lambda **o: symmetry.compare_hinges(
        mlp(3, 4, 2, activation=nn.ReLU), mlp(3, 4, 2, activation=nn.ReLU), **o
    ),
    "match_networks": lambda **o: symmetry.match_networks(NET, NET, **o),
    "minimal_width": lambda **o: symmetry.minimal_width(mlp(3, 4, 2, activation=nn.ReLU), **o),
    "apply_symmetry": lambda **o: symmetry.apply_symmetry(NET, **o),
    "annihilating_sets": lambda **o: symmetry.annihilating_sets(
        **({"weights": X, "outputs": X.T} | o)
    ),
    "classify_units": lambda **o: symmetry.classify_units(
        **({"weights": X, "biases": X[:, 0], "outputs": X.T} | o)
    ),
    "one_hidden": lambda **o: symmetry.one_hidden(
        **({"weights": X, "biases": X[:, 0], "outputs": X.T} | o)
    ),
    "mean_field_theory": lambda **o: chain.mean_field_theory(
        **({"activation": "tanh", "sigma_w": 1.5} | o)
    ),
    "flow_bases": lambda **o: fiber.flow_bases(ROWS, **o),
    "numerical_barcode": lambda **o: fiber.numerical_barcode(ROWS, **o),
    "rank_tolerance": lambda **o: fiber.rank_tolerance(ROWS, **o),
    "staircase": lambda **o: fiber.staircase(ROWS, **o),
    "tolerance_path": lambda **o: fiber.tolerance_path(ROWS, **o),
    "input_ranks": lambda **o: fiber.input_ranks(ROWS, **({"inputs": np.ones((5, 3))} | o)),
    "move_up": lambda **o: fiber.move_up(FLOW, **({"move": fiber.up_moves(BARCODE)[0]} | o)),
    "project_tangent": lambda **o: fiber.project_tangent(FLOW, **({"direction": ROWS} | o)),
    "project_normal": lambda **o: fiber.project_normal(FLOW, **({"direction": ROWS} | o)),
    "hasse_diagram": lambda **o: fiber.hasse_diagram(**({"widths": (2, 2), "rank": 1} | o)),
    "strata": lambda **o: fiber.strata(**({"widths": (2, 2), "rank": 1} | o)),
    "digits_run": lambda **o: datasets.digits_run(**o),
}
CALLS = ESTIMATORS | FUNCTIONS
OPTIONS = {
    "tol": [None, -1.0, NAN, "tight", 1.0, True, [1e-3], 2],
    "rank_tol": [None, -1.0, NAN, "tight"],
    "rtol": [None, -1.0, NAN, "tight", 0.0],
    "batch_size": [0, -1, 1.5, "many", True],
    "memory_budget": ["lots", -1, 0, NAN, [1]],
    "device": ["gpu", "mars", "cuda:99", "meta", 3.5],
    "likelihood": ["normal", None, 3, nn.MSELoss(), likelihood.Gaussian],
    "layers": [["nope"], [], "nope", [3], 3, ["2.weight"]],
    "layer": ["nope", 3, ["0"]],
    "source": ["nope", 3],
    "parameters": ["none", [], ["nope"], 3, None],
    "n_components": [-1, 1.5, "all", True, 1000],
    "n_singular_values": [0, -1, "some", 1.5, None, 50],
    "chain": ["up", None, 3],
    "solver": ["fast", None, 3],
    "domain": ["sphere", 3],
    "max_set_size": [1, 9, "x", None],
    "nullity_limit": [-1, "x", None],
    "limit": [-1, "x", None],
    "max_strata": [-1, 0, "x", None],
    "max_sweeps": [-1, "x", None],
    "max_size": [0, 9, "x"],
    "max_iter": [0, "x"],
    "n_values": [0, "x", 100],
    "n_steps": [0, "x"],
    "kind": ["flat", None],
    "velocity": ["x", X[:2], X * NAN, 3.0],
    "acceleration": ["x", X[:2]],
    "t": ["x", 3.0],
    "n_directions": [0, 1.5, "x", 100],
    "radius": [0, -1, "x", NAN],
    "noise": ["loud", None, 3, lambda x, g: None, lambda x, g: x * NAN, lambda x, g: x[:1]],
    "scale": [0, -1, "x", NAN],
    "n_repeats": [0, 1, "x"],
    "floor": [0, 2, "x", NAN],
    "random_state": ["x", 1.5],
    "seed": ["x", 1.5],
    "end": [X[:2], "x", X * NAN],
    "n_projections": [0, 1, "x", 100],
    "generator": ["x"],
    "reduction": ["sum", None],
    "dtype": ["double", torch.int64],

    "ball": ["x", (X[0].float(), 1.0), (X[0], -1.0), (X[0],), (X[0, :2], 1.0), (X[0], NAN)],
    "permutation": ["x", [0], [0, 1, 2, 9], [[0, 1]], 3.0],
    "scales": ["x", [0.0] * 4, [-1.0] * 4, [NAN] * 4, [1.0]],
    "flips": ["x", [2] * 4, [1]],
    "activation": ["nope", None, 3],
    "interval": ["x", 3],
    "weights": ["x", None, X * NAN, X[0], X[:2], X + 1j],
    "biases": ["x", None, X[:2, 0], X * NAN],
    "outputs": ["x", None, X, X.T * NAN],
    "shift": ["x", X],
    "skip": ["x", X],
    "sigma_w": [0, -1, "x", NAN],
    "sigma_b": [-1, "x", NAN],
    "q0": [0, "x"],
    "kinks": ["x", [NAN]],
    "tols": ["x", [-1.0], []],
    "inputs": ["x", None, np.ones((5, 9)), np.ones(3), np.full((5, 3), NAN)],
    "move": ["x", None],
    "copies": ["x", (9, 9)],
    "direction": ["x", None, [np.eye(5)], ROWS[:1], [r * NAN for r in ROWS]],
    "space": ["x", None],
    "widths": ["x", None, (), (2,), (2, -1), (1.5, 2)],
    "rank": ["x", None, -1, 9],
    "hidden": ["x", [0], [-1]],
    "checkpoints": ["x", [], [3, 1], [-1]],
    "n_train": [0, "x", 10**6],
    "n_samples": [0, "x", 10**6],
    "learning_rate": [-1, "x", NAN],
    "weight_decay": [-1, "x", NAN],
    "strict": [],

    "exact": [],
}
