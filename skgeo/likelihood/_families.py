"""The families with independent outputs, and the table of all families."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from skgeo.exceptions import SkgeoError, warn
from skgeo.likelihood._categorical import Categorical
from skgeo.likelihood._divergence import excess, root_step, softmax_step
from skgeo.likelihood._likelihood import Likelihood, sum_tail

# Outputs that all lie in [0, 1] by chance are few.
_TELLING = 10
PROBABILITIES = (
    "the outputs are all between 0 and 1: they look like probabilities, and are read as logits. "
    "Remove the final sigmoid, or wrap the model so that it returns logits."
)


class _Diagonal(Likelihood):
    """A family of independent outputs: the metric is diagonal."""

    @abstractmethod
    def root_diagonal(self, outputs: Tensor) -> Tensor:
        """Square roots of the metric's diagonal: (..., K) to (..., K)."""

    def fisher(self, outputs: Tensor) -> Tensor:
        return torch.diag_embed(self.root_diagonal(outputs.double()).square())

    def pull_rows(self, outputs: Tensor, rows: Tensor) -> Tensor:
        return self.root_diagonal(outputs.double()).unsqueeze(-1) * rows

    def root_rows(self, outputs: Tensor, which: slice) -> Tensor:
        diagonal = self.root_diagonal(outputs.double())[..., which]
        rows = diagonal.new_zeros(*diagonal.shape, outputs.shape[-1])
        rows[..., which].diagonal(dim1=-2, dim2=-1).copy_(diagonal)
        return rows

    def apply_fisher(self, outputs: Tensor, vectors: Tensor) -> Tensor:
        return self.root_diagonal(outputs.double()).square() * vectors

    def apply_root(self, outputs: Tensor, vectors: Tensor) -> Tensor:
        return self.root_diagonal(outputs.double()) * vectors


@dataclass(frozen=True)
class Gaussian(_Diagonal):
    """Means of normal distributions with one fixed standard deviation.

    Parameters
    ----------
    scale : float, default=1.0
        The standard deviation s. The metric is ``1/s^2``.
    """

    scale: float = 1.0
    name: ClassVar[str] = "gaussian"

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise SkgeoError(f"Gaussian(scale={self.scale!r}): the scale must be positive.")

    def root_diagonal(self, outputs: Tensor) -> Tensor:
        return torch.full_like(outputs, 1.0 / self.scale)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (targets.double() - outputs.double()) / self.scale**2

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        return outputs + self.scale * normal_like(outputs, generator)

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        return sum_tail(((outputs.double() - others.double()) / self.scale).square())

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        return 0.5 * self.squared_distance(outputs, others)


@dataclass(frozen=True)
class Bernoulli(_Diagonal):
    """Logits of independent yes-or-no variables: ``F = p (1 - p)``."""

    name: ClassVar[str] = "bernoulli"

    def notice(self, outputs: Tensor) -> None:
        seen = outputs[(outputs != 0).any(-1)]
        within = bool(((seen >= 0) & (seen <= 1)).all())
        if within and seen.numel() >= _TELLING and bool((seen != seen.flatten()[0]).any()):
            warn(PROBABILITIES)

    def root_diagonal(self, outputs: Tensor) -> Tensor:
        # sqrt(p (1 - p)) in logarithms: neither factor rounds to one or to zero.
        half = functional.logsigmoid(outputs) + functional.logsigmoid(-outputs)
        return (0.5 * half).exp()

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        # y - p, without the rounding of a probability near one.
        z, y = outputs.double(), targets.double()
        return y * torch.sigmoid(-z) - (1 - y) * torch.sigmoid(z)

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        return torch.bernoulli(torch.sigmoid(outputs), generator=generator)

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        # Two categories, with logits z and 0.
        pairs = [torch.stack([z, torch.zeros_like(z)], -1) for z in (outputs, others)]
        return sum_tail(softmax_step(*pairs)[2])

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        # arctan(exp(z/2)) - arctan(exp(w/2)) = arctan(sinh((z - w)/4) / cosh((z + w)/4)), with
        # the exponentials taken out of both.
        z, w = outputs.double(), others.double()
        u, v = (z - w).abs() / 4, (z + w).abs() / 4
        ratio = (u - v).exp() * -(-2 * u).expm1() / (1 + (-2 * v).exp())
        return sum_tail((2 * ratio.atan()).square())


@dataclass(frozen=True)
class Poisson(_Diagonal):
    """Logarithms of Poisson rates: ``F = exp(z)``."""

    name: ClassVar[str] = "poisson"

    def root_diagonal(self, outputs: Tensor) -> Tensor:
        return (outputs / 2).exp()

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return targets.double() - outputs.double().exp()

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        return torch.poisson(outputs.exp(), generator=generator)

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        z, w = outputs.double(), others.double()
        return sum_tail(excess(z, w - z))

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        z = outputs.double()
        return sum_tail((2 * root_step(z, others.double() - z)).square())


@dataclass(frozen=True)
class GaussianScale(_Diagonal):
    """Means and log-scales of normal distributions.

    The first half of the last axis holds the means, the second half the logarithms of the
    standard deviations: ``F = diag(1/s^2, 2)``. A network that gives log-variances is read
    through a :class:`~skgeo.WrappedModel` that halves them.

    Parameters
    ----------
    class_axis : int, default=None
        Axis of the outputs that holds means and log-scales, as in ``torch.chunk(outputs, 2, dim)``.
        By default the shape of y decides, and otherwise it is the last.
    """

    class_axis: int | None = None
    name: ClassVar[str] = "gaussian_scale"

    def check(self, outputs: Tensor) -> None:
        if outputs.shape[-1] % 2:
            raise SkgeoError(
                f"gaussian_scale reads means and log-scales, an even number of outputs; the model "
                f"gives {outputs.shape[-1]}. For means alone say likelihood='gaussian'."
            )

    def root_diagonal(self, outputs: Tensor) -> Tensor:
        _, log_scale = outputs.chunk(2, dim=-1)
        return torch.cat([(-log_scale).exp(), torch.full_like(log_scale, 2.0).sqrt()], dim=-1)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        mean, log_scale = outputs.double().chunk(2, -1)
        step = (targets.double() - mean) * (-log_scale).exp()
        return torch.cat([step * (-log_scale).exp(), step.square() - 1], -1)

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        mean, log_scale = outputs.chunk(2, -1)
        return mean + log_scale.exp() * normal_like(mean, generator)

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        (m, a), (k, b) = outputs.double().chunk(2, -1), others.double().chunk(2, -1)
        spread = 0.5 * excess(torch.zeros_like(a), 2 * (a - b))
        return sum_tail(spread + 0.5 * ((m - k) * (-b).exp()).square())

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        (m, a), (k, b) = outputs.double().chunk(2, -1), others.double().chunk(2, -1)
        # cosh d' = 1 + 2 sinh^2(d'/2): the half-angle form keeps the digits of small distances.
        half = torch.hypot((m - k) / 8**0.5 * (-(a + b) / 2).exp(), ((a - b) / 2).sinh())
        return sum_tail(2 * (2 * half.asinh()).square())


LIKELIHOODS: dict[str, Likelihood] = {
    family.name: family
    for family in (Categorical(), Bernoulli(), Gaussian(), GaussianScale(), Poisson())
}


def as_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """The output family of a name.

    Parameters
    ----------
    likelihood : str or Likelihood
        A key of :data:`LIKELIHOODS`, or a family, returned as it is.

    Returns
    -------
    Likelihood

    Examples
    --------
    >>> as_likelihood("gaussian")
    Gaussian(scale=1.0)
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    try:
        return LIKELIHOODS[likelihood]
    except (KeyError, TypeError):
        names = ", ".join(repr(name) for name in sorted(LIKELIHOODS))
        raise SkgeoError(
            f"Got likelihood={likelihood!r}, which is not known. Expected 'auto', one of {names}, "
            "or a Likelihood such as Gaussian(scale=0.1)."
        ) from None


def check_family(family: Likelihood, outputs: Tensor) -> None:
    """Refuse a family whose root does not have the shape that it promises.

    outputs: (..., K), a few.
    """
    if type(family) in {type(known) for known in LIKELIHOODS.values()}:
        return  # right, and its root takes K^2 numbers
    name = type(family).__name__
    if not isinstance(getattr(family, "name", None), str):
        raise SkgeoError(f"{name} has no name: set the class attribute `name`.")
    K = outputs.shape[-1]
    shape = (*outputs.shape[:-1], family.rank(K), K)
    root = family.transposed_root(outputs)
    if not isinstance(root, Tensor) or tuple(root.shape) != shape:
        given = tuple(root.shape) if isinstance(root, Tensor) else type(root).__name__
        raise SkgeoError(
            f"{name}.pull_rows gives {given} for the {K} rows of an identity matrix at each of "
            f"{outputs[..., 0].numel()} outputs; expected {shape}: rank(K) = {family.rank(K)} "
            "rows, in the columns that it was given."
        )


def normal_like(values: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the shape, dtype and device of others."""
    return torch.randn(values.shape, generator=generator, dtype=values.dtype, device=values.device)
