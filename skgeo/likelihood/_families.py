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
from skgeo.likelihood._divergence import excess, root_step, softmax_step

# Products of a few probabilities above exp of this are far from the ends of the floating range.
_LEAST_LOG = -200.0
# Outputs that all lie in [0, 1] by chance are few.
_TELLING = 10
PROBABILITIES = (
    "the outputs are all between 0 and 1: they look like probabilities, and are read as logits. "
    "Remove the final sigmoid, or wrap the model so that it returns logits."
)


class Likelihood(ABC):
    r"""One output family: the distribution :math:`p(\cdot \mid z)` that outputs z parametrise.

    A family of one's own has a ``name`` and writes :meth:`pull_rows`, from which Fisher ranks,
    spectra, layer quotients and symmetries follow. :meth:`kl` and :meth:`squared_distance` are
    needed only where distributions are compared (Fisher-Rao lengths, quotient fidelity). Outputs
    come with their categories or components on the last axis: those of a model that has them
    elsewhere are moved there before, if the family has a ``class_axis``.

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
    class_axis: int | None = None

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

    def root_rows(self, outputs: Tensor, which: slice) -> Tensor:
        """Some rows of ``R^T``, without the others where the family knows how.

        Parameters
        ----------
        outputs : Tensor of shape (..., K)
        which : slice
            The rows, by their numbers.

        Returns
        -------
        Tensor of shape (..., n_chosen, K), float64
        """
        return self.transposed_root(outputs)[..., which, :]

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

    def root_rows(self, outputs: Tensor, which: slice) -> Tensor:
        diagonal = self.root_diagonal(outputs.double())[..., which]
        rows = diagonal.new_zeros(*diagonal.shape, outputs.shape[-1])
        rows[..., which].diagonal(dim1=-2, dim2=-1).copy_(diagonal)
        return rows

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

    def notice(self, outputs: Tensor) -> None:
        seen = outputs[(outputs != 0).any(-1)]
        within = bool(((seen >= 0) & (seen <= 1)).all())
        if within and seen.numel() >= _TELLING and bool((seen != seen.flatten()[0]).any()):
            warn(PROBABILITIES)

    def root_diagonal(self, outputs: Tensor) -> Tensor:
        # sqrt(p (1 - p)) in logarithms: neither factor rounds to one or to zero.
        half = functional.logsigmoid(outputs) + functional.logsigmoid(-outputs)
        return (0.5 * half).exp()

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        # Two categories, with logits z and 0.
        pairs = [torch.stack([z, torch.zeros_like(z)], -1) for z in (outputs, others)]
        return _sum_tail(softmax_step(*pairs)[2])

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        # arctan(exp(z/2)) - arctan(exp(w/2)) = arctan(sinh((z - w)/4) / cosh((z + w)/4)), with
        # the exponentials taken out of both.
        z, w = outputs.double(), others.double()
        u, v = (z - w).abs() / 4, (z + w).abs() / 4
        ratio = (u - v).exp() * -(-2 * u).expm1() / (1 + (-2 * v).exp())
        return _sum_tail((2 * ratio.atan()).square())


@dataclass(frozen=True)
class Poisson(_Diagonal):
    """Logarithms of Poisson rates: ``F = exp(z)``."""

    name: ClassVar[str] = "poisson"

    def root_diagonal(self, outputs: Tensor) -> Tensor:
        return (outputs / 2).exp()

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        z, w = outputs.double(), others.double()
        return _sum_tail(excess(z, w - z))

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        z = outputs.double()
        return _sum_tail((2 * root_step(z, others.double() - z)).square())


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

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        (m, a), (k, b) = outputs.double().chunk(2, -1), others.double().chunk(2, -1)
        spread = 0.5 * excess(torch.zeros_like(a), 2 * (a - b))
        return _sum_tail(spread + 0.5 * ((m - k) * (-b).exp()).square())

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        (m, a), (k, b) = outputs.double().chunk(2, -1), others.double().chunk(2, -1)
        # cosh d' = 1 + 2 sinh^2(d'/2): the half-angle form keeps the digits of small distances.
        half = torch.hypot((m - k) / 8**0.5 * (-(a + b) / 2).exp(), ((a - b) / 2).sinh())
        return _sum_tail(2 * (2 * half.asinh()).square())


@dataclass(frozen=True)
class Categorical(Likelihood):
    r"""Logits of a softmax: :math:`F = \mathrm{diag}(p) - p p^T`, of rank K - 1.

    The root used is the K x (K-1) lower trapezoidal factor T: with the tail sums
    :math:`q_k = \sum_{i \ge k} p_i`, :math:`T_{kk} = \sqrt{p_k q_{k+1} / q_k}` and
    :math:`T_{jk} = -p_j \sqrt{p_k / (q_k q_{k+1})}` below. Read as an operation, row k of
    :math:`T^T J` compares output k with the mean of the outputs after it.

    Parameters
    ----------
    class_axis : int, default=None
        Axis of the outputs over which the softmax is taken, as in ``torch.softmax(outputs, dim)``:
        1 for logits (N, C, H, W). By default the shape of y decides, and otherwise it is the last.
    ignore_index : int, default=-100
        Integer label in y that leaves its position out, as in :class:`torch.nn.CrossEntropyLoss`.
        None for a family in which every label is a class.

    Examples
    --------
    >>> import torch
    >>> from skgeo import fisher_trace
    >>> net, X = torch.nn.Conv2d(1, 2, 1), torch.zeros(5, 1, 4, 4)
    >>> _ = torch.nn.init.zeros_(net.bias)
    >>> fisher_trace(net, X, likelihood=Categorical(class_axis=1))
    8.0

    Each of 16 pixels adds 1/2, the trace of the metric of two classes with equal probabilities.
    Without the half of them whose label is -100:

    >>> y = torch.zeros(5, 4, 4, dtype=torch.long)
    >>> y[:, :2] = -100
    >>> fisher_trace(net, X, y)
    4.0
    """

    class_axis: int | None = None
    ignore_index: int | None = -100
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
        outputs = outputs[(outputs != 0).any(-1)]  # positions left out are zero
        total = outputs.detach().double().sum(-1)
        if total.numel() and bool((outputs >= 0).all()) and bool(((total - 1).abs() < 1e-3).all()):
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
        return self._columns(outputs, slice(0, outputs.shape[-1] - 1))

    def _columns(self, outputs: Tensor, which: slice) -> Tensor:
        """Some columns of T."""
        # -> (..., K, n_chosen)
        start = which.start
        log_p = outputs.double().log_softmax(-1)
        if bool(log_p.min() > _LEAST_LOG):
            p = log_p.exp()
            q = p.flip(-1).cumsum(-1).flip(-1)
            head, tail, first = (v[..., which] for v in (q[..., :-1], q[..., 1:], p[..., :-1]))
            root = p.unsqueeze(-1) * -(first / (head * tail)).sqrt().unsqueeze(-2)
            diagonal = (first * tail / head).sqrt()
            root.tril_(-start).diagonal(-start, dim1=-2, dim2=-1).copy_(diagonal)
            return root
        # The same in logarithms, where the factors would leave the floating range.
        log_q = log_p.flip(-1).logcumsumexp(-1).flip(-1)
        head, tail, first = (
            v[..., which] for v in (log_q[..., :-1], log_q[..., 1:], log_p[..., :-1])
        )
        root = log_p.unsqueeze(-1) + 0.5 * (first - head - tail).unsqueeze(-2)
        # Masked before exp: above the diagonal the expression overflows for far logits.
        above = torch.ones(root.shape[-2:], dtype=torch.bool, device=root.device).triu(-start)
        root = root.masked_fill_(above, -torch.inf).exp_().neg_()
        diagonal = (0.5 * (first + tail - head)).exp()
        root.diagonal(-start, dim1=-2, dim2=-1).copy_(diagonal)
        return root

    def root_rows(self, outputs: Tensor, which: slice) -> Tensor:
        return self._columns(outputs, which).mT

    def transposed_root(self, outputs: Tensor) -> Tensor:
        return self.root(outputs).mT

    def pull_rows(self, outputs: Tensor, rows: Tensor) -> Tensor:
        return self.root(outputs).mT @ rows

    def apply_fisher(self, outputs: Tensor, vectors: Tensor) -> Tensor:
        p = outputs.double().softmax(-1)
        return p * (vectors - (p * vectors).sum(-1, keepdim=True))

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        return _sum_tail(softmax_step(outputs, others)[2])

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        log_p, step, _ = softmax_step(outputs, others)
        chord = root_step(log_p, step).square().sum(-1).sqrt()
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
