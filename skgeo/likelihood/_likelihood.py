r"""The interface of output families: how outputs become a distribution, and its Fisher metric.

A network gives natural outputs :math:`z`; a likelihood turns them into a distribution
:math:`p(\cdot \mid z)` with Fisher metric :math:`F(z) = E[\nabla_z \log p\, \nabla_z \log p^T]`.
Everything else in the package pulls that metric back. Each family writes down a root
:math:`F = R R^T` in closed form, with as many columns as F has rank, so that Gram matrices carry no
structural null rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError


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

    def apply_root(self, outputs: Tensor, vectors: Tensor) -> Tensor:
        """Products ``R u`` with a root of the metric that has at most K columns.

        For random signs u they are random directions of the outputs whose covariance is F.

        Parameters
        ----------
        outputs : Tensor of shape (..., K)
        vectors : Tensor of shape (..., K)
            If the root has fewer columns, the last entries have no part.

        Returns
        -------
        Tensor of shape (..., K), float64
        """
        # R u is the derivative of w -> u . R^T w.
        u = vectors[..., : self.rank(outputs.shape[-1])].double()
        with torch.enable_grad():
            w = torch.zeros_like(outputs, dtype=torch.float64, requires_grad=True)
            weighted = self.pull_rows(outputs.detach(), w.unsqueeze(-1)).squeeze(-1)
            return torch.autograd.grad(weighted, w, u)[0]

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        r"""Derivatives of the log-likelihood, :math:`\nabla_z \log p(y \mid z)`.

        Parameters
        ----------
        outputs : Tensor of shape (..., K)
        targets : Tensor
            As :meth:`draw` gives them.

        Returns
        -------
        Tensor of shape (..., K), float64
        """
        raise SkgeoError(
            f"{type(self).__name__} has no score, which sampled and empirical Fisher matrices "
            "need: write its methods score(outputs, targets) and draw(outputs, generator)."
        )

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Targets drawn from the distributions.

        Parameters
        ----------
        outputs : Tensor of shape (..., K)
        generator : torch.Generator
            Of the device of the outputs.

        Returns
        -------
        Tensor
            Labels of shape (...) for a categorical family; (..., K) for outputs that are
            independent, and (..., K / 2) for means with log-scales.
        """
        raise SkgeoError(
            f"{type(self).__name__} cannot draw targets, which a sampled Fisher matrix needs: "
            "write its methods draw(outputs, generator) and score(outputs, targets)."
        )

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


def sum_tail(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1) if values.ndim > 1 else values
