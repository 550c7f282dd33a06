"""Equal for what computes the same, different for what may not."""

import contextlib
import copy
import functools
import io
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from skgeo.exceptions import NotAModelError
from skgeo.models import WrappedModel, fingerprint, resolve_model

SCALE = 2.0


def network(activation=nn.ReLU):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), activation(), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)
    )


class Scaled(nn.Module):
    """A plain number and a function take part in the outputs, and no extra_repr says so."""

    def __init__(self, scale=1.0, function=torch.tanh):
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(2, 2)
        self.scale = scale
        self.function = function

    def forward(self, x):
        return self.scale * self.function(self.line(x))


class Holder(Scaled):
    """Holds what neither pickles nor is a tensor, and refers to itself."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.myself = [self]


EXAMPLES = [
    network(),
    Scaled(),
    nn.LSTM(2, 3, num_layers=2, bidirectional=True),
    nn.TransformerEncoderLayer(4, 2, 8),
    nn.MultiheadAttention(4, 2),
    weight_norm(nn.Linear(2, 2)),
    nn.Conv2d(2, 4, 3, groups=2),
    nn.Embedding(5, 2).bfloat16(),
    nn.Identity(),
]


@pytest.mark.parametrize("module", EXAMPLES, ids=lambda module: type(module).__name__)
def test_copies_are_equal(module):
    base = fingerprint(module)
    assert fingerprint(copy.deepcopy(module)) == base
    if not hasattr(module, "parametrizations"):  # torch refuses to pickle these
        assert fingerprint(pickle.loads(pickle.dumps(module))) == base
    assert fingerprint(module) == base


def test_mode_and_gradients_do_not_count():
    module = network().eval()
    base = fingerprint(module)
    module(torch.randn(5, 3)).sum().backward()
    assert fingerprint(module) == base
    assert fingerprint(module.train()) == base


def test_every_bit_of_every_tensor_counts():
    base = fingerprint(network())
    for name, tensor in network().state_dict().items():
        module = network()
        with torch.no_grad():
            target = module.state_dict()[name].view(-1)
            step = torch.nextafter(target[-1], target[-1] + 1) if tensor.is_floating_point() else 7
            target[-1] = step
        assert fingerprint(module) != base, name


def changed(change):
    module = network()
    change(module)
    return fingerprint(module)


def test_structure_counts():
    digests = [
        fingerprint(network()),
        fingerprint(network(nn.Tanh)),
        fingerprint(network(lambda: nn.LeakyReLU(0.1))),
        fingerprint(network(lambda: nn.LeakyReLU(0.2))),
        fingerprint(network().double()),
        changed(lambda m: m[0].weight.requires_grad_(False)),
        changed(lambda m: m[4].bias.requires_grad_(False)),
        changed(lambda m: setattr(m[3], "p", 0.4)),
        changed(lambda m: m[4].register_parameter("bias", None)),
        changed(lambda m: m.append(nn.Identity())),
        changed(lambda m: m[4].register_forward_hook(lambda module, args, out: 2 * out)),
        changed(lambda m: m[4].register_forward_hook(lambda module, args, out: 3 * out)),
    ]
    assert len(set(digests)) == len(digests)


def test_ties_count():
    tied, apart = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
    apart.load_state_dict(tied.state_dict())
    with torch.no_grad():
        apart[1].weight.copy_(apart[0].weight)
    tied.load_state_dict(apart.state_dict())
    assert fingerprint(tied) == fingerprint(apart)
    tied[1].weight = tied[0].weight
    assert fingerprint(tied) != fingerprint(apart)


def test_plain_attributes_count():
    digests = [
        fingerprint(Scaled()),
        fingerprint(Scaled(1)),
        fingerprint(Scaled(2.0)),
        fingerprint(Scaled(function=torch.sin)),
        fingerprint(Scaled(function=lambda x: x + 1)),
        fingerprint(Scaled(function=lambda x: x + 2)),
        fingerprint(nn.TransformerEncoderLayer(4, 2, 8, activation="gelu")),
    ]
    assert len(set(digests)) == len(digests)


def test_code_of_a_redefined_class_counts():
    def define(constant):
        source = (
            "from torch import nn\n"
            "class Net(nn.Module):\n"
            "    def forward(self, x):\n"
            f"        return self.scaled(x)\n"
            "    def scaled(self, x):\n"
            f"        return {constant} * x\n"
        )
        names = {"__name__": "__main__"}
        exec(source, names)
        return names["Net"]()

    assert fingerprint(define(2)) == fingerprint(define(2))
    assert fingerprint(define(2)) != fingerprint(define(3))


def test_objects_that_do_not_pickle_and_cycles():
    torch.manual_seed(0)
    assert fingerprint(Holder()) == fingerprint(Holder())


def make_forward(scale, default=1.0):
    def forward(module, inputs, shift=default):
        return scale * module(inputs) + shift

    return forward


def globally_scaled(module, inputs):
    return SCALE * module(inputs)


def test_forward_counts_by_what_it_computes(monkeypatch):
    module = nn.Linear(2, 1)

    def digest(forward, likelihood=None):
        return fingerprint(WrappedModel(module, forward, likelihood))

    assert digest(make_forward(2.0)) == digest(make_forward(2.0))
    forwards = [
        None,
        make_forward(2.0),
        make_forward(3.0),
        make_forward(2.0, default=0.0),
        lambda module, inputs: 2.0 * module(inputs),
        lambda module, inputs: 3.0 * module(inputs),
        lambda module, inputs: 2.0 * module(inputs) + (lambda x: x + 1)(0),
        lambda module, inputs: 2.0 * module(inputs) + (lambda x: x + 2)(0),
        functools.partial(make_forward(2.0), shift=5.0),
        functools.partial(make_forward(2.0), shift=6.0),
        globally_scaled,
    ]
    digests = [digest(forward) for forward in forwards]
    assert len(set(digests)) == len(digests)
    assert digest(None, "gaussian") != digest(None, "bernoulli")
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 3.0)
    assert digest(globally_scaled) != digests[-1]


def test_resolved_models():
    module = nn.Linear(2, 1)
    plain = resolve_model(module, refit=False)
    wrapped = resolve_model(WrappedModel(module, likelihood="gaussian"), refit=False)
    assert fingerprint(plain) == fingerprint(resolve_model(module, refit=False))
    assert fingerprint(plain) != fingerprint(wrapped)


def test_scikit_learn_models():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 2)), rng.integers(0, 2, 30).astype(str)
    mlp = MLPClassifier((3,), max_iter=2, solver="lbfgs", random_state=np.random.RandomState(0))
    for model in (
        LogisticRegression().fit(X, y),
        mlp,
        make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y),
    ):
        base = fingerprint(model)
        assert fingerprint(copy.deepcopy(model)) == base
        assert fingerprint(pickle.loads(pickle.dumps(model))) == base
        assert fingerprint(FrozenEstimator(model)) != base
    fitted = LogisticRegression().fit(X, y)
    base = fingerprint(fitted)
    assert fingerprint(clone(fitted)) != base
    fitted.coef_[0, 0] = np.nextafter(fitted.coef_[0, 0], 9.0)
    assert fingerprint(fitted) != base
    assert fingerprint(Ridge(alpha=1.0)) != fingerprint(Ridge(alpha=2.0))


def test_steps_that_do_not_pickle_still_count():
    digests = {
        fingerprint(make_pipeline(FunctionTransformer(function), Ridge()))
        for function in (lambda x: x + 1, lambda x: x + 2)
    }
    assert len(digests) == 2


def test_same_in_another_process():
    """Where sets come in another order."""
    code = (
        "import torch; from torch import nn; from skgeo.models import WrappedModel, fingerprint\n"
        "torch.manual_seed(0)\n"
        "names = {'b', 'a', 'c', 'd'}\n"
        "net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())\n"
        "model = WrappedModel(net, lambda m, x: [m(x), names, 'x' in {'x', 'y', 'z'}])\n"
        "print(fingerprint(model))"
    )
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code, {"__name__": "__main__"})
    there = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": "12"},
    )
    assert there.stdout == output.getvalue()


@pytest.mark.parametrize("thing", [None, nn.Linear, "weights.pt", {}])
def test_only_models(thing):
    with pytest.raises(NotAModelError):
        fingerprint(thing)


@pytest.mark.parametrize(
    "settings", [{"scale": 1.0}, [1.0, 2.0], np.ones(3), torch.ones(2), {"nested": [{"a": (1, 2)}]}]
)
def test_content_of_class_attributes_counts(settings):
    def build(settings):
        class Reads(nn.Linear):
            table = settings

        Reads.__qualname__ = "Reads"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Reads(2, 1)

    changed = copy.deepcopy(settings)
    if isinstance(changed, dict):
        changed["more"] = 1
    elif isinstance(changed, list):
        changed.append(0)
    else:
        changed[0] = 7.0
    assert fingerprint(build(settings)) == fingerprint(build(copy.deepcopy(settings)))
    assert fingerprint(build(settings)) != fingerprint(build(changed))
