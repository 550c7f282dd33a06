"""Networks whose Fisher rank is known by proof, with inputs on which it is attained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from skgeo._results import Result
from skgeo.datasets._modules import seeded_linear, seeded_mlp

__all__ = [
    "KnownNetwork",
    "known_networks",
    "linear_regression",
    "one_hidden_relu",
    "planted_relu",
    "scaling_pair",
    "smooth_network",
    "softmax_regression",
    "softmax_relu",
    "switched_off",
    "symmetric_hinges",
    "two_hinges",
    "two_layer_linear",
]

Smooth = Literal["tanh", "gelu", "silu"]
Planted = Literal[
    "generic", "duplicate", "antiparallel", "no_output", "constant_off", "constant_on"
]

_SMOOTH: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


@dataclass(frozen=True, repr=False)
class KnownNetwork(Result):
    """A network, data, and the rank of its Fisher metric there.

    Attributes
    ----------
    module : torch.nn.Module
        The network, in float64.
    inputs : torch.Tensor of shape (n_samples, n_inputs)
        Samples on which the rank is attained, in float64.
    likelihood : {"gaussian", "categorical"}
        Likelihood of the outputs.
    fisher_rank : int
        Rank of the Fisher metric with respect to all parameters.
    why : str
        How the rank is counted.

    See Also
    --------
    skgeo.fisher.fisher_rank : Measures the rank.
    """

    module: nn.Module
    inputs: Tensor
    likelihood: str
    fisher_rank: int
    why: str

    def _line(self) -> str:
        return (
            f"rank {self.fisher_rank} of {self.n_parameters}, {self.likelihood}, "
            f"{len(self.inputs)} samples"
        )

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the network."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def fisher_nullity(self) -> int:
        """Number of flat directions, ``n_parameters - fisher_rank``."""
        return self.n_parameters - self.fisher_rank


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(n_samples: int, n_inputs: int, generator: torch.Generator, scale: float = 1) -> Tensor:
    draw = torch.randn(n_samples, n_inputs, generator=generator, dtype=torch.float64)
    return scale * draw


def _relu_layer(weights: Tensor, biases: Tensor, outputs: Tensor, shift: Tensor) -> nn.Sequential:
    """Network ``x -> shift + outputs @ relu(weights @ x + biases)`` with these very numbers."""
    generator = _generator(0)
    hidden = seeded_linear(weights.shape[1], weights.shape[0], generator)
    readout = seeded_linear(outputs.shape[1], outputs.shape[0], generator)
    with torch.no_grad():
        hidden.weight.copy_(weights)
        hidden.bias.copy_(biases)
        readout.weight.copy_(outputs)
        readout.bias.copy_(shift)
    return nn.Sequential(hidden, nn.ReLU(), readout)


def linear_regression(n_inputs: int = 4, n_outputs: int = 3, *, seed: int = 0) -> KnownNetwork:
    """Affine map with Gaussian outputs, a regular model.

    Its K (n + 1) parameters are all identified: the Fisher metric has full rank.

    Parameters
    ----------
    n_inputs : int, default=4
        Number of inputs n.
    n_outputs : int, default=3
        Number of outputs K.
    seed : int, default=0
        Seed of the weights and the inputs.

    Returns
    -------
    KnownNetwork

    See Also
    --------
    two_layer_linear : The same functions, written with a redundant layer.

    Examples
    --------
    >>> from skgeo.datasets import linear_regression
    >>> case = linear_regression(n_inputs=4, n_outputs=3)
    >>> case.fisher_rank, case.n_parameters
    (15, 15)
    """
    generator = _generator(seed)
    return KnownNetwork(
        module=seeded_mlp([n_inputs, n_outputs], None, generator),
        inputs=_normal(4 * n_inputs + 4, n_inputs, generator),
        likelihood="gaussian",
        fisher_rank=n_outputs * (n_inputs + 1),
        why="K (n + 1): every parameter is identified",
    )


def two_layer_linear(
    n_inputs: int = 5, n_hidden: int = 2, n_outputs: int = 4, *, bias: bool = False, seed: int = 0
) -> KnownNetwork:
    """Two linear layers in a row with Gaussian outputs.

    Their product is a matrix of rank at most ``m = min(n, d, K)``. At generic weights the rank of
    the Fisher metric is the dimension ``m (n + K - m)`` of the matrices of that rank, plus K where
    there are biases.

    Parameters
    ----------
    n_inputs : int, default=5
        Number of inputs n.
    n_hidden : int, default=2
        Number of hidden units d.
    n_outputs : int, default=4
        Number of outputs K.
    bias : bool, default=False
        Whether the layers have biases.
    seed : int, default=0
        Seed of the weights and the inputs.

    Returns
    -------
    KnownNetwork

    See Also
    --------
    linear_network : Linear layers with given matrices.

    Examples
    --------
    >>> from skgeo.datasets import two_layer_linear
    >>> two_layer_linear(5, 2, 4).fisher_rank  # 2 * (5 + 4 - 2)
    14
    """
    generator = _generator(seed)
    m = min(n_inputs, n_hidden, n_outputs)
    return KnownNetwork(
        module=seeded_mlp([n_inputs, n_hidden, n_outputs], None, generator, bias=bias),
        inputs=_normal(4 * n_inputs + 4, n_inputs, generator),
        likelihood="gaussian",
        fisher_rank=m * (n_inputs + n_outputs - m) + n_outputs * bias,
        why="m (n + k - m), the matrices of rank m" + ", and k for the shift" * bias,
    )


def one_hidden_relu(
    n_inputs: int = 3, n_hidden: int = 4, n_outputs: int = 2, *, seed: int = 0
) -> KnownNetwork:
    """Generic ReLU network with one hidden layer and Gaussian outputs.

    Each hidden unit has one flat direction, ``(w, b, -q)``: its incoming weights and bias grow,
    its outgoing weights shrink. The rank of the Fisher metric is ``K + d (n + K)``.

    Parameters
    ----------
    n_inputs : int, default=3
        Number of inputs n.
    n_hidden : int, default=4
        Number of hidden units d.
    n_outputs : int, default=2
        Number of outputs K.
    seed : int, default=0
        Seed of the weights and the inputs.

    Returns
    -------
    KnownNetwork

    See Also
    --------
    planted_relu : The same with one degenerate unit.
    softmax_relu : The same with class probabilities as outputs.

    Examples
    --------
    >>> from skgeo.datasets import one_hidden_relu
    >>> case = one_hidden_relu(3, 4, 2)
    >>> case.fisher_rank, case.fisher_nullity
    (22, 4)
    """
    generator = _generator(seed)
    return KnownNetwork(
        module=seeded_mlp([n_inputs, n_hidden, n_outputs], nn.ReLU, generator),
        # Wide inputs reach both sides of every unit's boundary.
        inputs=_normal(400, n_inputs, generator, scale=3),
        likelihood="gaussian",
        fisher_rank=n_outputs + n_hidden * (n_inputs + n_outputs),
        why="K + d (n + K): one rescaling per hidden unit is flat",
    )


def smooth_network(
    activation: Smooth = "tanh",
    n_inputs: int = 3,
    n_hidden: int = 4,
    n_outputs: int = 2,
    *,
    seed: int = 0,
) -> KnownNetwork:
    """Generic network with one hidden layer, a smooth activation and Gaussian outputs.

    Its only symmetries are discrete, so the Fisher metric has full rank.

    Parameters
    ----------
    activation : {"tanh", "gelu", "silu"}, default="tanh"
        Activation of the hidden layer.
    n_inputs : int, default=3
        Number of inputs n.
    n_hidden : int, default=4
        Number of hidden units d.
    n_outputs : int, default=2
        Number of outputs K.
    seed : int, default=0
        Seed of the weights and the inputs.

    Returns
    -------
    KnownNetwork

    See Also
    --------
    one_hidden_relu : The same with an activation that is not smooth.

    Examples
    --------
    >>> from skgeo.datasets import smooth_network
    >>> case = smooth_network("tanh", 3, 4, 2)
    >>> case.fisher_rank, case.fisher_nullity
    (26, 0)
    """
    generator = _generator(seed)
    widths = [n_inputs, n_hidden, n_outputs]
    return KnownNetwork(
        module=seeded_mlp(widths, _SMOOTH[activation], generator),
        inputs=_normal(400, n_inputs, generator, scale=3),
        likelihood="gaussian",
        fisher_rank=(n_inputs + 1) * n_hidden + (n_hidden + 1) * n_outputs,
        why="P: no continuous symmetry",
    )


def softmax_regression(n_inputs: int = 4, n_classes: int = 3, *, seed: int = 0) -> KnownNetwork:
    """Multinomial logistic regression with one logit per class.

    Probabilities determine the logits up to a common shift. This shift may be any affine function
    of the inputs, so ``n + 1`` directions are flat.

    Parameters
    ----------
    n_inputs : int, default=4
        Number of inputs n.
    n_classes : int, default=3
        Number of classes K.
    seed : int, default=0
        Seed of the weights and the inputs.

    Returns
    -------
    KnownNetwork

    See Also
    --------
    softmax_relu : The same with a hidden layer.

    Examples
    --------
    >>> from skgeo.datasets import softmax_regression
    >>> case = softmax_regression(n_inputs=4, n_classes=3)
    >>> case.fisher_rank, case.fisher_nullity
    (10, 5)
    """
    generator = _generator(seed)
    return KnownNetwork(
        module=seeded_mlp([n_inputs, n_classes], None, generator),
        inputs=_normal(60, n_inputs, generator),
        likelihood="categorical",
        fisher_rank=(n_classes - 1) * (n_inputs + 1),
        why="(K - 1)(n + 1): a shift common to all logits is flat",
    )


def softmax_relu(
    n_inputs: int = 3, n_hidden: int = 4, n_classes: int = 3, *, seed: int = 0
) -> KnownNetwork:
    """Generic ReLU network with one hidden layer and class probabilities as outputs.

    Besides one rescaling per hidden unit, a shift common to all logits is flat: one direction for
    each hidden unit and one for the bias.

    Parameters
    ----------
    n_inputs : int, default=3
        Number of inputs n.
    n_hidden : int, default=4
        Number of hidden units d.
    n_classes : int, default=3
        Number of classes K.
    seed : int, default=0
        Seed of the weights and the inputs.

    Returns
    -------
    KnownNetwork

    See Also
    --------
    one_hidden_relu : The same with Gaussian outputs.

    Examples
    --------
    >>> from skgeo.datasets import softmax_relu
    >>> case = softmax_relu(3, 4, 3)
    >>> case.fisher_rank, case.n_parameters
    (22, 31)
    """
    generator = _generator(seed)
    case = one_hidden_relu(n_inputs, n_hidden, n_classes, seed=seed)
    return KnownNetwork(
        module=case.module,
        inputs=_normal(400, n_inputs, generator, scale=3),
        likelihood="categorical",
        fisher_rank=case.fisher_rank - (n_hidden + 1),
        why="the ReLU count, less d + 1: one shift of the logits for each feature and the bias",
    )


def planted_relu(kind: Planted = "generic", *, seed: int = 0) -> KnownNetwork:
    """ReLU network of widths 2, 4, 1 (17 parameters) with one planted degeneracy.

    Parameters
    ----------
    kind : str, default="generic"
        The degeneracy:

        - ``"generic"``: none;
        - ``"duplicate"``: two units have the same hinge and are active on the same side of it;
        - ``"antiparallel"``: two units have the same hinge and are active on opposite sides;
        - ``"no_output"``: the outgoing weight of a unit is zero;
        - ``"constant_off"``: the incoming weights of a unit are zero, its bias is negative;
        - ``"constant_on"``: the incoming weights of a unit are zero, its bias is positive.

    seed : int, default=0
        Seed of all other weights and of the inputs.

    Returns
    -------
    KnownNetwork

    Examples
    --------
    >>> from skgeo.datasets import planted_relu
    >>> [planted_relu(kind).fisher_rank for kind in ("generic", "duplicate", "no_output")]
    [13, 10, 11]
    """
    generator = _generator(seed)
    weights = _normal(4, 2, generator)
    biases, outputs, shift = (_normal(1, size, generator)[0] for size in (4, 4, 1))
    if kind == "duplicate":
        weights[1], biases[1] = 2 * weights[0], 2 * biases[0]
    elif kind == "antiparallel":
        weights[1], biases[1] = -2 * weights[0], -2 * biases[0]
    elif kind == "no_output":
        outputs[0] = 0
    elif kind in ("constant_off", "constant_on"):
        weights[0] = 0
        biases[0] = 1 if kind == "constant_on" else -1
    rank, why = {
        "generic": (13, "four boundaries of 3, and the shift"),
        "duplicate": (10, "three boundaries of 3, and the shift"),
        "antiparallel": (12, "three boundaries of 3, and the affine functions"),
        "no_output": (11, "three boundaries of 3, the shift, and the outgoing weight"),
        "constant_off": (10, "three boundaries of 3, and the shift"),
        "constant_on": (12, "three boundaries of 3, and the affine functions"),
    }[kind]
    module = _relu_layer(weights, biases, outputs[None], shift)
    return KnownNetwork(module, _normal(2000, 2, generator, scale=3), "gaussian", rank, why)


def symmetric_hinges(*, seed: int = 0) -> KnownNetwork:
    r"""Sum of four ReLU units in the plane, two along each axis.

    It computes :math:`(x_1 - 1)_+ + (x_2 - 1)_+ + (-x_1 - 1)_+ + (-x_2 - 1)_+`.

    Parameters
    ----------
    seed : int, default=0
        Seed of the inputs.

    Returns
    -------
    KnownNetwork

    Examples
    --------
    >>> import torch
    >>> from skgeo.datasets import symmetric_hinges
    >>> x = torch.tensor([[3.0, -2.0]], dtype=torch.float64)
    >>> symmetric_hinges().module(x).item()  # (3 - 1) + (2 - 1)
    3.0
    """
    weights = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    ones = torch.ones(4, dtype=torch.float64)
    return KnownNetwork(
        module=_relu_layer(weights, -ones, ones[None], torch.zeros(1, dtype=torch.float64)),
        inputs=_normal(2000, 2, _generator(seed), scale=3),
        likelihood="gaussian",
        fisher_rank=13,
        why="four boundaries of 3, and the shift",
    )


def two_hinges(*, reversed_orientation: bool = False, seed: int = 0) -> KnownNetwork:
    r"""One function on the line, with either orientation of its two ReLU units.

    :math:`(x - 1)_+ + (-x - 1)_+ + 2` equals :math:`(-x + 1)_+ + (x + 1)_+` for every x: two
    parameters far apart with the same function and the same rank.

    Parameters
    ----------
    reversed_orientation : bool, default=False
        Whether to return the second form instead of the first.
    seed : int, default=0
        Seed of the inputs.

    Returns
    -------
    KnownNetwork

    Examples
    --------
    >>> import torch
    >>> from skgeo.datasets import two_hinges
    >>> x = torch.tensor([[3.0]], dtype=torch.float64)
    >>> [two_hinges(reversed_orientation=r).module(x).item() for r in (False, True)]
    [4.0, 4.0]
    """
    sign = -1.0 if reversed_orientation else 1.0
    weights = sign * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    biases = torch.full((2,), -sign, dtype=torch.float64)
    shift = torch.full((1,), 1 + sign, dtype=torch.float64)
    return KnownNetwork(
        module=_relu_layer(weights, biases, torch.ones(1, 2, dtype=torch.float64), shift),
        inputs=_normal(400, 1, _generator(seed), scale=3),
        likelihood="gaussian",
        fisher_rank=5,
        why="two boundaries of 2, and the shift",
    )


def scaling_pair(weight: float = 0.5, output: float = 2.0, *, seed: int = 0) -> KnownNetwork:
    r"""Network :math:`q (w x)_+`, which for w > 0 depends on the product q w only.

    The direction (w, -q) is flat.

    Parameters
    ----------
    weight : float, default=0.5
        Incoming weight w.
    output : float, default=2.0
        Outgoing weight q.
    seed : int, default=0
        Seed of the inputs.

    Returns
    -------
    KnownNetwork

    Examples
    --------
    >>> import torch
    >>> from skgeo.datasets import scaling_pair
    >>> x = torch.tensor([[3.0]], dtype=torch.float64)
    >>> scaling_pair(0.5, 2.0).module(x).item(), scaling_pair(0.25, 4.0).module(x).item()
    (3.0, 3.0)
    """
    generator = _generator(seed)
    module = seeded_mlp([1, 1, 1], nn.ReLU, generator, bias=False)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), (weight, output), strict=True):
            parameter.fill_(value)
    inputs = _normal(100, 1, generator)
    return KnownNetwork(module, inputs, "gaussian", 1, "the product q w; (w, -q) is flat")


def switched_off(*, seed: int = 0) -> KnownNetwork:
    r"""Network :math:`c + 5 (-x - 3)_+` on inputs in (-2, 2), where its unit is never active.

    Parameters
    ----------
    seed : int, default=0
        Seed of the inputs.

    Returns
    -------
    KnownNetwork

    Examples
    --------
    >>> from skgeo.datasets import switched_off
    >>> case = switched_off()
    >>> case.fisher_rank, case.fisher_nullity
    (1, 3)
    """
    draw = torch.rand(100, 1, generator=_generator(seed), dtype=torch.float64)
    numbers = ([[-1.0]], [-3.0], [[5.0]], [0.0])
    module = _relu_layer(*(torch.tensor(values, dtype=torch.float64) for values in numbers))
    return KnownNetwork(module, 4 * draw - 2, "gaussian", 1, "the shift alone reaches the output")


def known_networks() -> dict[str, KnownNetwork]:
    """Every network of known rank by name, in sizes small enough for brute force.

    Returns
    -------
    dict of str to KnownNetwork
        New modules at each call.

    Examples
    --------
    >>> from skgeo.datasets import known_networks
    >>> known_networks()["symmetric_hinges"].fisher_rank
    13
    """
    cases = {
        "linear_regression": linear_regression(),
        "two_layer_linear_narrow": two_layer_linear(5, 2, 4),
        "two_layer_linear_wide": two_layer_linear(3, 6, 2),
        "two_layer_linear_bias": two_layer_linear(5, 2, 4, bias=True),
        "one_hidden_relu": one_hidden_relu(),
        "softmax_regression": softmax_regression(),
        "softmax_relu": softmax_relu(),
        "symmetric_hinges": symmetric_hinges(),
        "two_hinges": two_hinges(),
        "two_hinges_reversed": two_hinges(reversed_orientation=True),
        "scaling_pair": scaling_pair(),
        "switched_off": switched_off(),
    }
    smooth: tuple[Smooth, ...] = ("tanh", "gelu", "silu")
    cases.update({f"smooth_{name}": smooth_network(name) for name in smooth})
    planted: tuple[Planted, ...] = (
        "generic",
        "duplicate",
        "antiparallel",
        "no_output",
        "constant_off",
        "constant_on",
    )
    cases.update({f"planted_{kind}": planted_relu(kind) for kind in planted})
    return cases
