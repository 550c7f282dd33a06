"""Bad inputs of all kinds, and the sentence that each gets.

A row is a name, a call and words of its message. Every public estimator and function is called;
none may return, and none may pass on an error of torch, numpy, LAPACK or Python.
"""

import copy
import inspect
import warnings

import matplotlib
import numpy as np
import pandas as pd
import torch
from scipy import sparse
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


def quietly(make):
    """What torch warns of when it makes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


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
    "FisherOperator": lambda m, x: fisher.FisherOperator(m, x, **GAUSSIAN).trace(2),
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
    "nested": quietly(lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)])),
    "sparse": quietly(X.to_sparse),
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
    "quantized": quietly(lambda: torch.quantize_per_tensor(X.float(), 0.1, 0, torch.qint8)),
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
    "lazy": quietly(lambda: nn.LazyLinear(2)),
    "nan weight": filled(float("nan")),
    "inf weight": filled(float("inf")),
    "nan buffer": Scaled(float("nan")),
    "complex weight": quietly(lambda: nn.Linear(3, 2, dtype=torch.complex64)),
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
    "unfitted": Ridge(),
    "unfitted pipe": make_pipeline(SVC()),
    "jit": quietly(lambda: torch.jit.script(nn.Linear(3, 2))),
}

FLOW = fiber.flow_bases([np.eye(2, 3), np.eye(2)])
NAN = float("nan")
MATRICES = [np.eye(2, 3), np.eye(2)]
FITTED = quietly(lambda: FisherRankEstimator(NET, **GAUSSIAN).fit(X))
CHAINED = quietly(lambda: JacobianChainProfiler(NET).fit(X))
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
    "flow_bases": lambda **o: fiber.flow_bases(MATRICES, **o),
    "numerical_barcode": lambda **o: fiber.numerical_barcode(MATRICES, **o),
    "rank_tolerance": lambda **o: fiber.rank_tolerance(MATRICES, **o),
    "staircase": lambda **o: fiber.staircase(MATRICES, **o),
    "tolerance_path": lambda **o: fiber.tolerance_path(MATRICES, **o),
    "input_ranks": lambda **o: fiber.input_ranks(MATRICES, **({"inputs": np.ones((5, 3))} | o)),
    "project_tangent": lambda **o: fiber.project_tangent(FLOW, **({"direction": MATRICES} | o)),
    "project_normal": lambda **o: fiber.project_normal(FLOW, **({"direction": MATRICES} | o)),
    "hasse_diagram": lambda **o: fiber.hasse_diagram(**({"widths": (2, 2), "rank": 1} | o)),
    "strata": lambda **o: fiber.strata(**({"widths": (2, 2), "rank": 1} | o)),
    "digits_run": lambda **o: datasets.digits_run(**o),
}
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
    "n_components": [-1, 1.5, "all", True],
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
    "t": ["x"],
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
    "reduction": ["sum", None],
    "dtype": ["double", torch.int64],
    "ball": ["x", (X[0], -1.0), (X[0],), (X[0, :2], 1.0), (X[0], NAN)],
    "permutation": ["x", [0], [0, 1, 2, 9], [[0, 1]], 3.0],
    "scales": ["x", [0.0] * 4, [NAN] * 4, [1.0]],
    "flips": ["x", [2] * 4, [1]],
    "activation": ["nope", None, 3],
    "interval": ["x", 3],
    "weights": ["x", None, X * NAN, X[0], X[:2], X + 1j],
    "biases": ["x", X[:2, 0], X * NAN],
    "outputs": ["x", None, X, X.T * NAN],
    "shift": ["x", X],
    "skip": ["x", X],
    "sigma_w": [0, -1, "x", NAN],
    "sigma_b": [-1, "x", NAN],
    "q0": [0, "x"],
    "kinks": ["x", [NAN]],
    "tols": ["x", [-1.0], []],
    "inputs": ["x", None, np.ones((5, 9)), np.ones(3), np.full((5, 3), NAN)],
    "direction": ["x", None, [np.eye(5)], MATRICES[:1], [r * NAN for r in MATRICES]],
    "space": ["x", None],
    "widths": ["x", None, (), (2,), (2, -1), (1.5, 2)],
    "rank": ["x", None, -1, 9],
    "hidden": ["x", [0], [-1]],
    "checkpoints": ["x", [], [3, 1], [-1]],
    "n_train": [0, "x", 10**6],
    "n_samples": [0, "x", 10**6],
    "learning_rate": [-1, "x", NAN],
    "weight_decay": [-1, "x", NAN],
}

# Words of the sentences on data, and on networks.
SAID_OF_DATA = {
    "text": "expected",
    "number": "single number|expected|cannot be run",
    "ragged": "inhomogeneous|tensor of floating",
    "nested": "nested tensor",
    "sparse": "to_dense",
    "scipy sparse": "toarray|tensor of floating",
    "complex": "Complex data not supported",
    "empty": "0 sample|Expected 2D|tensor of floating|no outputs|cannot be run",
    "no samples": "no samples|batch of floating|no outputs",
    "wide": "cannot be run|does not fit|cannot be multiplied",
    "vector": "cannot be run|does not fit",
    "nan": "NaN or inf",
    "inf": "NaN or inf",
    "words": "numeric values|real numbers|tensor of floating",
    "objects": "real number|tensor of floating",
    "empty dict": "empty dict|dict of 0",
    "uneven dict": "unequal numbers|dict of 2|cannot be run",
    "set": "expected",
    "generator": "expected",
    "function": "expected|function of time",
    "none": "None",
    "meta": "meta device",
    "quantized": "dequantize",
    "zero width": "cannot be run|does not fit|batch of floating",
    "masked": "masked array|tensor of floating",
    "dates": "real numbers|tensor of floating",
    "frame of words": "could not convert|not numeric|tensor of floating",
    "tuples": "list of tuples|tensor of floating",
}
SAID_OF_NETWORKS = {
    "none": "None|table of pairs",
    "text": "net.pt|type str",
    "class": "class Linear|type type",
    "function": "function|builtin",
    "list": "list of 1",
    "state": "state dict|OrderedDict",
    "tensor": "tensor|Tensor",
    "optimizer": "optimizer|SGD",
    "SVC": "SVC",
    "no forward": "no forward|ModuleList",
    "meta": "meta device",
    "lazy": "lazy",
    "nan weight": "NaN",
    "inf weight": "NaN or infinite",
    "nan buffer": "NaN",
    "complex weight": "cannot be run|dtype",
    "dict": r"WrappedModel\(module, forward=lambda module, inputs: module\(inputs\)\['logits'\]\)",
    "tuple": r"module\(inputs\)\[0\]\)",
    "none output": "returned None",
    "int output": "type int",
    "text output": "type str",
    "integer output": "int64",
    "complex output": "complex",
    "mean": "samples first|no batch|cannot be",
    "first": "samples first",
    "transposed": "samples first",
    "no outputs": "no outputs",
    "nan outputs": "NaN|No layer",
    "detached": "gradient|depend|differentiate|No layer",
    "ignores": "gradient|depend|same|zero|differentiate|No layer",
    "numpy": "ndarray|numpy",
    "sparse output": "sparse|cannot be run",
    "raises": "no_such_attribute",
    "asserts": "IndexError",
    "mixes": "depend|samples",
    "random": "random|same",
    "unfitted": "fitted|Ridge",
    "unfitted pipe": "SVC|Pipeline",
    "jit": "Script",
}
# A network is not run to read its weights.
UNREADABLE = [*list(NETWORKS)[:14], "unfitted", "unfitted pipe", "jit"]
# What has an answer, or no answer that depends on the sample.
HAS_ANSWER = {
    ("mean_field", "none"),
    ("rank_jumps", "tuples"),
    ("equivalent", "none"),
    ("equivalence_classes", "none"),
    *(
        (name, kind)
        for name in ("fisher_rao_length", "straightness")
        for kind in ("detached", "ignores")
    ),
    *(("generators", kind) for kind in ("nan outputs", "detached", "ignores")),
    *(
        (f"{name}_penalty", kind)
        for name in ("jacobian", "isometry", "curvature")
        for kind in ("mixes", "random")
    ),
}
# Those that read a plain chain, and refuse any other.
READ = ("mean_field", "compress")
COMPARES = ("equivalent", "equivalence_classes")
SAID_OF_OPTIONS = {
    "acceleration": "acceleration|shape|numbers",
    "activation": "activation|nope|None",
    "ball": "ball|centre|radius",
    "biases": "weights|biases",
    "checkpoints": "checkpoint",
    "direction": "direction|W_1|matri",
    "domain": "domain",
    "end": "end|segment|shape|numbers|NaN",
    "flips": "flips|hidden layer",
    "inputs": "inputs",
    "interval": "interval",
    "kinks": "kink",
    "layer": "layer",
    "layers": "layer",
    "likelihood": "likelihood",
    "outputs": "weights|outputs",
    "parameters": "parameter",
    "permutation": "permutation|hidden layer",
    "rank": "rank",
    "scales": "scales|hidden layer",
    "shift": "weights|shift",
    "skip": "weights|skip",
    "source": "source|layer",
    "t": "time|t was|numbers|argument t",
    "tols": "tol",
    "velocity": "velocity|numbers|NaN|shape",
    "weights": "weights",
    "widths": "idths",
}


def table():
    """Rows of names, calls and words."""
    rows = []
    for function, measure in MEASURES.items():
        for kind, x in DATA.items():
            if (function, kind) not in HAS_ANSWER:
                call = lambda measure=measure, x=x: measure(NET, x)  # noqa: E731
                rows.append((f"{function}: X {kind}", call, SAID_OF_DATA[kind]))
        for kind, model in NETWORKS.items():
            if (function, kind) not in HAS_ANSWER and function not in COMPARES:
                call = lambda measure=measure, model=model: measure(model, X)  # noqa: E731
                words = "chain|activation|" * (function in READ) + SAID_OF_NETWORKS[kind]
                rows.append((f"{function}: model {kind}", call, words))
    for function, measure in MODELS.items():
        for kind in UNREADABLE:
            call = lambda measure=measure, kind=kind: measure(NETWORKS[kind])  # noqa: E731
            rows.append((f"{function}: model {kind}", call, SAID_OF_NETWORKS[kind]))
    return rows


def takes(function, option):
    """Whether a call that names its options takes one, from the signature of what it calls."""
    rooms = (chain, fiber, fisher, quotient, symmetry, datasets)
    (room,) = [room for room in rooms if function in room.__all__]
    named = inspect.signature(getattr(room, function)).parameters
    of_chain = option == "weights" and room is fiber  # given as an argument already
    return option in named and not of_chain


def options():
    for function, call in (ESTIMATORS | FUNCTIONS).items():
        for option, values in OPTIONS.items():
            for value in values if takes(function, option) else []:
                yield (
                    f"{function}: {option}={str(value)[:20]!r}",
                    lambda call=call, option=option, value=value: call(**{option: value}),
                    SAID_OF_OPTIONS.get(option, option),
                )


def pairs(rows):
    return FisherRankEstimator(**GAUSSIAN).fit_transform(rows)


OTHERS = [
    ("pairs: none", lambda: pairs(None), "table of pairs"),
    ("pairs: array", lambda: pairs(X.numpy()), "table of pairs"),
    ("pairs: empty", lambda: pairs([]), "empty"),
    ("pairs: one entry", lambda: pairs([(NET,)]), "row 0"),
    ("pairs: four entries", lambda: pairs([(NET, X, None, 1)]), "row 0"),
    ("pairs: bare", lambda: pairs((NET, X)), "put it in a list"),
    ("pairs: no model", lambda: pairs([(X, NET)]), "pair 0"),
    ("pairs: wrong columns", lambda: pairs(pd.DataFrame({"net": [NET], "X": [X]})), "columns"),
    ("pairs: fit alone", lambda: FisherRankEstimator().summary(), "no model of its own"),
    ("y: short", lambda: fisher.fisher_rank(NET, X, [1, 2]), "one target"),
    ("y: nan", lambda: fisher.fisher_rank(NET, X, np.full(6, NAN)), "NaN"),
    ("y: complex", lambda: fisher.fisher_rank(NET, X, torch.ones(6) * 1j), "complex"),
    ("y: dict", lambda: fisher.fisher_rank(NET, X, {"y": 1}), "dict"),
    ("y: masked", lambda: fisher.fisher_rank(NET, X, np.ma.masked_equal([1, 2] * 3, 1)), "masked"),
    ("y: ragged", lambda: fisher.fisher_rank(NET, X, [[1], [1, 2]] * 3), "one array"),
    ("display: of a chain", lambda: fisher.SpectrumDisplay.from_estimator(CHAINED), "draws"),
    ("display: of a Fisher rank", lambda: chain.ProfileDisplay.from_estimator(FITTED), "draws"),
    ("display: quotient", lambda: quotient.RankProfileDisplay.from_estimator(FITTED), "draws"),
    ("display: barcode", lambda: fiber.BarcodeDisplay.from_estimator(FITTED), "draws"),
    ("display: hasse", lambda: fiber.HasseDisplay.from_estimator(NET), "draws"),
    ("display: boundary", lambda: symmetry.BoundaryDisplay.from_estimator(FITTED), "draws"),
    ("display: nullity", lambda: symmetry.NullityDisplay.from_estimator(None), "draws"),
    ("display: axes", lambda: fisher.SpectrumDisplay.from_estimator(FITTED, ax=3), "Axes"),
    (
        "display: unfitted",
        lambda: fisher.SpectrumDisplay.from_estimator(FisherRankEstimator(NET)),
        "not fitted",
    ),
    ("transform: unfitted", lambda: FisherRankEstimator(NET).transform(X), "not fitted"),
    ("transform: wide", lambda: FITTED.transform(normal(6, 5)), "cannot be|features"),
    ("checkpoint: none", lambda: Checkpoint(None, None), "path|factory"),
    ("checkpoint: no file", lambda: Checkpoint("no.pt", lambda: NET).load(), "no.pt"),
    ("wrapped: none", lambda: WrappedModel(None), "None"),
    ("wrapped: forward", lambda: WrappedModel(NET, forward=3), "forward"),
    (
        "integers that are indices",
        lambda: fisher.fisher_rank(Returns(lambda z: z[z.long()[:, 0] * 0]), [["a"]], **GAUSSIAN),
        "real numbers",
    ),
    (
        "integers that skgeo casts",
        lambda: fisher.fisher_rank(Looked(), torch.ones(4, 1, dtype=torch.int64), **GAUSSIAN),
        "skgeo has cast",
    ),
    ("no parameters", lambda: fisher.fisher_rank(nn.Tanh(), X, **GAUSSIAN), "parameter"),
    (
        "frozen",
        lambda: fisher.fisher_rank(copy.deepcopy(NET).requires_grad_(False), X, **GAUSSIAN),
        "parameter",
    ),
    ("a layer that does not run", lambda: chain.cauchy_green(Unread(), X, "idle"), "idle"),
    ("a layer that is not read", lambda: chain.stability(NET, X, layer="0", source="2"), "2|0"),
]


class Looked(nn.Module):
    """A table that is read without nn.Embedding."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(normal(5, 2))

    def forward(self, x):
        return nn.functional.embedding(x[:, 0], self.table)


ROWS = [*table(), *options(), *OTHERS]
