r"""Output families: how a network's outputs become a distribution, and its Fisher metric.

A network gives natural outputs :math:`z`; a likelihood turns them into a distribution
:math:`p(\cdot \mid z)` with Fisher metric :math:`F(z) = E[\nabla_z \log p\, \nabla_z \log p^T]`.
Everything else in the package pulls that metric back. Each family writes down a root
:math:`F = R R^T` in closed form, with as many columns as F has rank, so that Gram matrices carry no
structural null rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from skgeo.exceptions import SkgeoError, warn

# Products of a few probabilities above exp of this are far from the ends of the floating range.
_LEAST_LOG = -200.0


class Likelihood(ABC):
    r"""One output family: the distribution :math:`p(\cdot \mid z)` that outputs z parametrise.

    A family of one's own has a ``name`` and writes :meth:`pull_rows`, from which Fisher ranks,
    spectra, layer quotients and symmetries follow. :meth:`kl` and :meth:`squared_distance` are
    needed only where distributions are compared (Fisher-Rao lengths, quotient fidelity). Outputs
    carry their categories or components on the last axis.

    See Also
    --------
    skgeo.likelihood.Categorical : The family of classifiers.

    Examples
    --------
    Exponential waiting times, with the logarithm of their rate as the output, have metric 1:

    >>> import torch
    >>> from skgeo import fisher_trace
    >>> class Exponential(Likelihood):
    ...     name = "exponential"
    ...
    ...     def pull_rows(self, outputs, rows):
    ...         return rows
    >>> fisher_trace(torch.nn.Linear(2, 1), torch.ones(4, 2), likelihood=Exponential())
    3.0
    """

    name: ClassVar[str]

    @abstractmethod
    def pull_rows(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Rows in the outputs weighted by a root ``R`` of the metric, ``R^T rows``.

        Parameters
        ----------
        outputs : Tensor of shape (..., K)
        rows : Tensor of shape (..., K, P)
            Derivatives of the K outputs with respect to P coordinates.

        Returns
        -------
        Tensor of shape (..., rank, P)
            In the dtype of `rows` or float64: its Gram matrix is the pullback of the metric.
        """

    def transposed_root(self, outputs: Tensor) -> Tensor:
        """The root ``R^T`` itself.

        Parameters
        ----------
        outputs : Tensor of shape (..., K)

        Returns
        -------
        Tensor of shape (..., rank, K), float64
        """
        eye = torch.eye(outputs.shape[-1], dtype=torch.float64, device=outputs.device)
        return self.pull_rows(outputs, eye.expand(*outputs.shape, outputs.shape[-1]))

    def fisher(self, outputs: Tensor) -> Tensor:
        """Fisher metric in the outputs, ``F = R R^T``.

        Parameters
        ----------
        outputs : Tensor of shape (..., K)

        Returns
        -------
        Tensor of shape (..., K, K), float64
        """
        root = self.transposed_root(outputs)
        return root.mT @ root

    def apply_fisher(self, outputs: Tensor, vectors: Tensor) -> Tensor:
        """Products ``F(z) v``, without forming F where the family knows how.

        Parameters
        ----------
        outputs, vectors : Tensor of shape (..., K)

        Returns
        -------
        Tensor of shape (..., K)
        """
        return (self.fisher(outputs) @ vectors.double().unsqueeze(-1)).squeeze(-1)

    @property
    def has_kl(self) -> bool:
        """Whether the family has a Kullback-Leibler divergence."""
        return type(self).kl is not Likelihood.kl

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the second distributions from the first.

        Parameters
        ----------
        outputs, others : Tensor of shape (n, ..., K)

        Returns
        -------
        Tensor of shape (n,)
            In nats, summed over all axes but the first.
        """
        raise SkgeoError(
            f"{type(self).__name__} has no Kullback-Leibler divergence, which this quantity "
            "needs: write its method kl(outputs, others)."
        )

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        """Squared Fisher-Rao distance between the distributions.

        Parameters
        ----------
        outputs, others : Tensor of shape (n, ..., K)

        Returns
        -------
        Tensor of shape (n,)
            Summed over all axes but the first.
        """
        raise SkgeoError(
            f"{type(self).__name__} has no Fisher-Rao distance in closed form, which this "
            "quantity needs: write its method squared_distance(outputs, others)."
        )

    def rank(self, n_outputs: int) -> int:
        """Rank of the metric: rows that :meth:`pull_rows` returns per position.

        Parameters
        ----------
        n_outputs : int
            K.

        Returns
        -------
        int
            K unless a family says otherwise.
        """
        return n_outputs

    def check(self, outputs: Tensor) -> None:  # noqa: B027  (most families take any outputs)
        """Refuse outputs of the wrong shape.

        Parameters
        ----------
        outputs : Tensor of shape (n, n_positions, K)

        Raises
        ------
        SkgeoError
            If they do not fit the family.
        """

    def notice(self, outputs: Tensor) -> None:  # noqa: B027
        """Warn of outputs that do not look like those of the family.

        Parameters
        ----------
        outputs : Tensor of shape (n, n_positions, K)
            Of the first batch.
        """

    def distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        """Fisher-Rao distance between the distributions.

        Parameters
        ----------
        outputs, others : Tensor of shape (n, ..., K)

        Returns
        -------
        Tensor of shape (n,)
        """
        return self.squared_distance(outputs, others).sqrt()


def _sum_tail(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1) if values.ndim > 1 else values


class _Diagonal(Likelihood):
    """A family of independent outputs: the metric is diagonal."""

    @abstractmethod
    def root_diagonal(self, outputs: Tensor) -> Tensor:
        """Square roots of the metric's diagonal: (..., K) to (..., K)."""

    def fisher(self, outputs: Tensor) -> Tensor:
        return torch.diag_embed(self.root_diagonal(outputs.double()).square())

    def pull_rows(self, outputs: Tensor, rows: Tensor) -> Tensor:
        return self.root_diagonal(outputs.double()).unsqueeze(-1) * rows

    def apply_fisher(self, outputs: Tensor, vectors: Tensor) -> Tensor:
        return self.root_diagonal(outputs.double()).square() * vectors


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

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        return _sum_tail(((outputs.double() - others.double()) / self.scale).square())

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        return 0.5 * self.squared_distance(outputs, others)


@dataclass(frozen=True)
class Bernoulli(_Diagonal):
    """Logits of independent yes-or-no variables: ``F = p (1 - p)``."""

    name: ClassVar[str] = "bernoulli"

    def root_diagonal(self, outputs: Tensor) -> Tensor:
        # sqrt(p (1 - p)) in logarithms: neither factor rounds to one or to zero.
        half = functional.logsigmoid(outputs) + functional.logsigmoid(-outputs)
        return (0.5 * half).exp()

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        z, w = outputs.double(), others.double()
        p = z.sigmoid()
        yes = p * (functional.logsigmoid(z) - functional.logsigmoid(w))
        no = (1 - p) * (functional.logsigmoid(-z) - functional.logsigmoid(-w))
        return _sum_tail(yes + no)

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        # arcsin(sqrt(sigmoid z)) = arctan(exp(z / 2)), accurate at both ends.
        angle = (outputs.double() / 2).exp().atan() - (others.double() / 2).exp().atan()
        return _sum_tail((2 * angle).square())


@dataclass(frozen=True)
class Poisson(_Diagonal):
    """Logarithms of Poisson rates: ``F = exp(z)``."""

    name: ClassVar[str] = "poisson"

    def root_diagonal(self, outputs: Tensor) -> Tensor:
        return (outputs / 2).exp()

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        z, w = outputs.double(), others.double()
        return _sum_tail(z.exp() * (z - w + (w - z).expm1()))

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        roots = (outputs.double() / 2).exp() - (others.double() / 2).exp()
        return _sum_tail((2 * roots).square())


@dataclass(frozen=True)
class GaussianScale(_Diagonal):
    """Means and log-scales of normal distributions.

    The first half of the last axis holds the means, the second half the logarithms of the
    standard deviations: ``F = diag(1/s^2, 2)``.
    """

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

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        (m, a), (k, b) = outputs.double().chunk(2, -1), others.double().chunk(2, -1)
        spread = 0.5 * (2 * (a - b)).expm1() - (a - b)
        return _sum_tail(spread + 0.5 * ((m - k) * (-b).exp()).square())

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        (m, a), (k, b) = outputs.double().chunk(2, -1), others.double().chunk(2, -1)
        # cosh d' = 1 + 2 sinh^2(d'/2): the half-angle form keeps the digits of small distances.
        excess = ((m - k).square() / 2 + (a.exp() - b.exp()).square()) / (2 * (a + b).exp())
        return _sum_tail(2 * (2 * (excess / 2).sqrt().asinh()).square())


@dataclass(frozen=True)
class Categorical(Likelihood):
    r"""Logits of a softmax: :math:`F = \mathrm{diag}(p) - p p^T`, of rank K - 1.

    The root used is the K x (K-1) lower trapezoidal factor T: with the tail sums
    :math:`q_k = \sum_{i \ge k} p_i`, :math:`T_{kk} = \sqrt{p_k q_{k+1} / q_k}` and
    :math:`T_{jk} = -p_j \sqrt{p_k / (q_k q_{k+1})}` below. Read as an operation, row k of
    :math:`T^T J` compares output k with the mean of the outputs after it.
    """

    name: ClassVar[str] = "categorical"

    def rank(self, n_outputs: int) -> int:
        return n_outputs - 1

    def check(self, outputs: Tensor) -> None:
        if outputs.shape[-1] < 2:
            raise SkgeoError(
                "categorical needs at least two logits on the last axis; the model gives one. "
                "For a single logit say likelihood='bernoulli'."
            )

    def notice(self, outputs: Tensor) -> None:
        total = outputs.detach().double().sum(-1)
        if bool((outputs >= 0).all()) and bool(((total - 1).abs() < 1e-3).all()):
            warn(
                "the outputs are non-negative and sum to one in every sample: they look like "
                "probabilities, and are read as logits. Remove the final softmax, or wrap the "
                "model so that it returns logarithms of probabilities."
            )

    def fisher(self, outputs: Tensor) -> Tensor:
        p = outputs.double().softmax(-1)
        return torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)

    def root(self, outputs: Tensor) -> Tensor:
        """The factor T.

        Parameters
        ----------
        outputs : Tensor of shape (..., K)

        Returns
        -------
        Tensor of shape (..., K, K - 1), float64
        """
        log_p = outputs.double().log_softmax(-1)
        if bool(log_p.min() > _LEAST_LOG):
            p = log_p.exp()
            q = p.flip(-1).cumsum(-1).flip(-1)
            head, tail, first = q[..., :-1], q[..., 1:], p[..., :-1]
            root = p.unsqueeze(-1) * -(first / (head * tail)).sqrt().unsqueeze(-2)
            root.tril_().diagonal(dim1=-2, dim2=-1).copy_((first * tail / head).sqrt())
            return root
        # The same in logarithms, where the factors would leave the floating range.
        log_q = log_p.flip(-1).logcumsumexp(-1).flip(-1)
        head, tail = log_q[..., :-1], log_q[..., 1:]
        root = log_p.unsqueeze(-1) + 0.5 * (log_p[..., :-1] - head - tail).unsqueeze(-2)
        # Masked before exp: above the diagonal the expression overflows for far logits.
        above = torch.ones(root.shape[-2:], dtype=torch.bool, device=root.device).triu()
        root = root.masked_fill_(above, -torch.inf).exp_().neg_()
        root.diagonal(dim1=-2, dim2=-1).copy_((0.5 * (log_p[..., :-1] + tail - head)).exp())
        return root

    def transposed_root(self, outputs: Tensor) -> Tensor:
        return self.root(outputs).mT

    def pull_rows(self, outputs: Tensor, rows: Tensor) -> Tensor:
        return self.root(outputs).mT @ rows

    def apply_fisher(self, outputs: Tensor, vectors: Tensor) -> Tensor:
        p = outputs.double().softmax(-1)
        return p * (vectors - (p * vectors).sum(-1, keepdim=True))

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        a, b = outputs.double().log_softmax(-1), others.double().log_softmax(-1)
        return _sum_tail((a.exp() * (a - b)).sum(-1))

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        a, b = outputs.double().log_softmax(-1), others.double().log_softmax(-1)
        chord = ((a / 2).exp() - (b / 2).exp()).square().sum(-1).sqrt()
        return _sum_tail((4 * (chord / 2).clamp(max=1.0).asin()).square())


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
