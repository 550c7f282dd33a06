"""The Fisher information matrix in products with vectors, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from skgeo._arguments import check_integer, check_option
from skgeo.exceptions import SkgeoError
from skgeo.fisher._diagonal import exact_trace
from skgeo.fisher._kinds import KINDS, output_metric
from skgeo.fisher._passes import Passes
from skgeo.fisher._probes import Probes
from skgeo.fisher._rows import FisherRows
from skgeo.likelihood import Likelihood
from skgeo.linalg import _sketches as sketches
from skgeo.linalg._estimate import Estimate, mean_of
from skgeo.linalg._memory import require_memory
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind
from skgeo.network._finite import check_metric
from skgeo.network._switches import differentiating


class FisherOperator:
    r"""The Fisher information matrix as a linear operator, and estimates of its sums.

    .. math::
        G = \frac1N \sum_{n=1}^N J_n^T F(z_n) J_n

    for networks of any size: nothing of size P x P or N K x P is formed, and the graph of one
    micro-batch is held at a time. Products are exact. Traces, the diagonal and norms are estimated
    from random probes, with their standard errors.

    Parameters
    ----------
    model : object
        Anything that an estimator takes.
    X : object
        Data, as estimators read them.
    y : array-like, default=None
        Targets. They decide the likelihood and, for integer labels, which positions count; under
        ``kind="empirical"`` they enter the matrix.
    likelihood : str or Likelihood, default="auto"
        As in :class:`~skgeo.FisherRankEstimator`.
    kind : {"exact", "mc", "empirical"}, default="exact"
        The metric F of the outputs. "exact" is the expectation :math:`E[s s^T]` over the model's
        own outputs, s being the score. "mc" is its mean over `n_draws` targets that the model draws
        for each sample, the same in every product: without bias, but its eigenvalues are not those
        of G. "empirical" takes the score of the labels in y, which is not the Fisher information
        and equals it for no network in general [2]_.
    n_draws : int, default=1
        Targets per sample under "mc".
    parameters : {"trainable", "all"} or list of str, default="trainable"
        The parameters of the matrix.
    memory_budget : int or str, default=None
        Memory limit in bytes, or such as "4 GiB"; None for 0.7 of the available memory.
    batch_size : int, default=None
        Samples per micro-batch; None for as many as fit. Results depend on it by rounding only.
    device : str, default=None
        "cpu", "cuda" or "cuda:i"; None for the device of the module.
    random_state : int, default=0
        Seed of probes and drawn targets.

    Attributes
    ----------
    shape : tuple of int
        (P, P).
    dtype : torch.dtype
        Of the products: that of the parameters.
    device : torch.device
    n_samples : int
        N.
    n_products : int
        Vectors multiplied so far.
    parameter_names : tuple of str
        The parameters, each flattened, in the order of the entries of a vector.
    likelihood : Likelihood

    Raises
    ------
    SkgeoError
        If model, data and likelihood do not fit, or under "empirical" without y.

    See Also
    --------
    skgeo.FisherRankEstimator : Rank and spectrum, exact while rows or parameters are few.
    skgeo.fisher.fisher_trace : The exact trace.

    Notes
    -----
    Cost: a product takes one forward pass and three backward passes of all samples, a probe one
    forward pass (shared by several) and one backward pass. Memory: the vectors, one vector of P,
    and the graph of one micro-batch.

    The error of a trace from m probes is at fixed data. The relative error of one probe is about
    ``sqrt(2 / r)`` for a participation ratio r; where layer rules give the gradients of single
    samples it is smaller by about the square root of the number of samples that matter.

    References
    ----------
    .. [1] M. F. Hutchinson, "A stochastic estimator of the trace of the influence matrix",
       Communications in Statistics 19 (1990), eq. (2.1).
    .. [2] F. Kunstner, L. Balles and P. Hennig, "Limitations of the empirical Fisher
       approximation", NeurIPS 2019, eqs. (2) and (3).

    Examples
    --------
    For least squares, G holds the second moments of the inputs, and a column for the bias:

    >>> import torch
    >>> from skgeo.fisher import FisherOperator
    >>> X = torch.tensor([[1.0, 3.0], [1.0, 1.0]])
    >>> G = FisherOperator(torch.nn.Linear(2, 1), X, likelihood="gaussian")
    >>> G
    FisherOperator(P=3, N=2, likelihood='gaussian', kind='exact')
    >>> G @ torch.tensor([1.0, 0.0, 0.0])
    tensor([1., 2., 1.])
    >>> G.trace(n_probes=4)
    Estimate(7 +- 0)
    """

    def __init__(
        self,
        model: Any,
        X: Any,
        y: Any = None,
        *,
        likelihood: str | Likelihood = "auto",
        kind: Literal["exact", "mc", "empirical"] = "exact",
        n_draws: int = 1,
        parameters: str | Sequence[str] = "trainable",
        memory_budget: int | str | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        random_state: int = 0,
    ) -> None:
        check_option("kind", kind, KINDS)
        check_integer("n_draws", n_draws)
        seed = check_integer("random_state", random_state, least=0)
        with single_blas_thread():
            network = bind(
                model,
                X,
                y,
                likelihood=likelihood,
                parameters=parameters,
                memory_budget=memory_budget,
                batch_size=batch_size,
                device=device,
            )
            self._bind(FisherRows(network), kind, n_draws, seed)

    @classmethod
    def of(cls, fisher: FisherRows, *, seed: int = 0, keep: bool = False) -> FisherOperator:
        """The exact operator of a network that is bound already; `keep` keeps all graphs."""
        made = cls.__new__(cls)
        made._bind(fisher, "exact", 1, seed, keep)
        return made

    def _bind(
        self, fisher: FisherRows, kind: str, n_draws: int, seed: int, keep: bool = False
    ) -> None:
        self.kind, self.n_products = kind, 0
        self._fisher = fisher
        self._passes = Passes(fisher, keep)
        self._metric = output_metric(fisher.network, kind, n_draws, seed)
        self._probes = Probes(self._passes, self._metric, seed)

    def __repr__(self) -> str:
        return (
            f"FisherOperator(P={self.shape[0]}, N={self.n_samples}, "
            f"likelihood={self.likelihood.name!r}, kind={self.kind!r})"
        )

    @property
    def shape(self) -> tuple[int, int]:
        p = self._fisher.n_parameters
        return p, p

    @property
    def dtype(self) -> torch.dtype:
        return self._fisher.network.replica.dtype

    @property
    def device(self) -> torch.device:
        return self._fisher.network.device

    @property
    def n_samples(self) -> int:
        return self._fisher.network.n_samples

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return self._fisher.network.replica.selected

    @property
    def likelihood(self) -> Likelihood:
        return self._fisher.network.likelihood

    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...

    @overload
    def __matmul__(self, other: np.ndarray) -> np.ndarray: ...

    def __matmul__(self, other: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Products ``G v`` for one vector (P,) or for columns (P, k), of the same kind."""
        with _measuring():
            vectors = self._as_rows(other)
            total = torch.zeros_like(vectors)
            for samples, jacobian, z in self._passes:
                for vector, into in zip(vectors, total, strict=True):
                    moved = jacobian.push(vector).view_as(z)
                    weighted = self._metric.apply(z, moved, samples)
                    jacobian.pull(weighted.view_as(jacobian.outputs), into)
            self.n_products += len(vectors)
            check_metric(total.sum(), self.likelihood.name)
            total /= self.n_samples
        found = total[0] if other.ndim == 1 else total.T
        return found.cpu().numpy() if isinstance(other, np.ndarray) else found

    def quadratic_form(self, direction: Tensor | np.ndarray) -> float:
        r""":math:`d^T G d`: to second order, twice the divergence of a step d.

        Parameters
        ----------
        direction : Tensor or ndarray of shape (P,)

        Returns
        -------
        float
            Twice the mean Kullback-Leibler divergence, in nats, up to terms of third order.
        """
        total = 0.0
        with _measuring():
            (vector,) = self._as_rows(direction)
            for samples, jacobian, z in self._passes:
                moved = jacobian.push(vector).view_as(z)
                total += float((moved.double() * self._metric.apply(z, moved, samples)).sum())
        self.n_products += 1
        return total / self.n_samples

    def probe(self, n: int = 1) -> Tensor:
        """Random vectors g with E[g g^T] = G, as rows.

        Parameters
        ----------
        n : int, default=1

        Returns
        -------
        Tensor of shape (n, P)
            The first probes of the seed: those of a smaller n are among them.
        """
        with _measuring():
            return self._probes.vectors(check_integer("n", n))

    def trace(self, n_probes: int | None = 32) -> Estimate[float]:
        """The trace, in nats.

        Parameters
        ----------
        n_probes : int or None, default=32
            At least two. None for the exact trace, at one backward pass for each output.

        Returns
        -------
        Estimate
        """
        with _measuring():
            if n_probes is None:
                return Estimate(self._exact_trace(), 0.0)
            return mean_of(self._probes.squares(_several(n_probes)).sum(1))

    def layer_traces(self, n_probes: int = 32) -> pd.DataFrame:
        """The trace of the block of each parameter.

        Parameters
        ----------
        n_probes : int, default=32
            At least two; those of :meth:`trace`, so the traces add up to that.

        Returns
        -------
        DataFrame
            A row for each parameter, with columns ``parameter``, ``layer`` (the name of its
            module), ``n_parameters``, ``trace`` and ``standard_error``. Errors of different rows
            are not independent.
        """
        with _measuring():
            squares = self._probes.squares(_several(n_probes))
        replica = self._fisher.network.replica
        rows = []
        for name, values in zip(self.parameter_names, squares.T, strict=True):
            found = mean_of(values)
            layer = name.rpartition(".")[0]
            size = replica.parameters[name].numel()
            rows.append((name, layer, size, found.value, found.standard_error))
        columns = ["parameter", "layer", "n_parameters", "trace", "standard_error"]
        return pd.DataFrame(rows, columns=columns)

    def diagonal(self, n_probes: int = 32) -> Estimate[Tensor]:
        """The diagonal.

        Parameters
        ----------
        n_probes : int, default=32
            At least two. For the exact one see :func:`~skgeo.fisher.fisher_diagonal`.

        Returns
        -------
        Estimate
            Two float64 tensors of shape (P,), on the CPU.
        """
        m = _several(n_probes)
        with _measuring():
            mean = torch.zeros(self.shape[0], dtype=torch.float64, device=self.device)
            spread = torch.zeros_like(mean)
            for index, values in enumerate(self._probes.diagonals(m), 1):
                step = values - mean  # Welford's recurrence
                mean += step / index
                spread += step * (values - mean)
        return Estimate(mean.cpu(), (spread / (m * (m - 1))).sqrt().cpu())

    def squared_norm(self, n_probes: int = 32) -> Estimate[float]:
        r"""The squared Frobenius norm :math:`\|G\|_F^2 = \sum_i \lambda_i^2`.

        Parameters
        ----------
        n_probes : int, default=32
            At least three, held in memory together.

        Returns
        -------
        Estimate
        """
        with _measuring():
            return sketches.squared_norm(self._products(_several(n_probes, 3)))

    def participation_ratio(self, n_probes: int = 32) -> Estimate[float]:
        r"""The participation ratio :math:`(\sum_i \lambda_i)^2 / \sum_i \lambda_i^2`.

        Parameters
        ----------
        n_probes : int, default=32
            At least 16, held in memory together.

        Returns
        -------
        Estimate
            A ratio of unbiased estimates, corrected by the jackknife. NaN if G is zero.
        """
        with _measuring():
            return sketches.participation_ratio(self._products(_several(n_probes)))

    def to_dense(self) -> Tensor:
        """The matrix itself, by P products.

        Returns
        -------
        Tensor of shape (P, P)

        Raises
        ------
        SkgeoError
            If it does not fit in memory.
        """
        p, network = self.shape[0], self._fisher.network
        require_memory(
            3 * p * p * self.dtype.itemsize,
            f"the dense matrix of {p} x {p} numbers",
            "use products with @, or name fewer parameters with parameters=[...].",
            network.device,
            network.budget,
        )
        return self @ torch.eye(p, dtype=self.dtype, device=self.device)

    def to_scipy(self) -> LinearOperator:
        """The operator for ``scipy.sparse.linalg``.

        Returns
        -------
        scipy.sparse.linalg.LinearOperator
            On NumPy arrays, in the dtype of the parameters.
        """

        def multiply(vectors: np.ndarray) -> np.ndarray:
            flat = vectors[:, 0] if vectors.ndim == 2 and vectors.shape[1] == 1 else vectors
            return np.asarray(self @ flat).reshape(vectors.shape)

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        return LinearOperator(
            self.shape, matvec=multiply, rmatvec=multiply, matmat=multiply, dtype=dtype
        )

    def _products(self, n_probes: int) -> Tensor:
        vectors = self._probes.vectors(n_probes)
        return torch.stack([vectors @ vector for vector in vectors]).double().cpu()

    def _exact_trace(self) -> float:
        if self.kind == "exact":
            return exact_trace(self._fisher)
        total, network = 0.0, self._fisher.network
        for samples in network.batches(self._passes.sample_bytes):

            def roots(outputs: Tensor, samples: range = samples) -> Tensor:
                z = network.sized(outputs)
                found = self._metric.roots(z, samples)
                assert found is not None
                return found.to(z.dtype).reshape(len(z), -1, *outputs.shape[1:])

            total += float(self._fisher.directed(samples, roots).trace())
        return total / self.n_samples

    def _as_rows(self, other: Any) -> Tensor:
        """Vectors as rows, in the dtype and on the device of the parameters."""
        # (P,) or (P, k) -> (k, P)
        if not isinstance(other, Tensor | np.ndarray):
            raise SkgeoError(
                f"Got {type(other).__name__}; expected a tensor or an array of shape "
                f"({self.shape[0]},) or ({self.shape[0]}, k)."
            )
        given = other if isinstance(other, Tensor) else torch.from_numpy(np.array(other))
        vectors = given.detach().to(dtype=self.dtype, device=self.device)
        if vectors.ndim not in (1, 2) or vectors.shape[0] != self.shape[0]:
            raise SkgeoError(
                f"Got shape {tuple(vectors.shape)}; expected ({self.shape[0]},) or "
                f"({self.shape[0]}, k), an entry for each parameter."
            )
        if not bool(torch.isfinite(vectors).all()):
            raise SkgeoError("The vector holds NaN or infinity.")
        return vectors.unsqueeze(0) if vectors.ndim == 1 else vectors.T.contiguous()


@contextmanager
def _measuring() -> Iterator[None]:
    """One BLAS thread, and derivatives whatever the mode of the caller."""
    with single_blas_thread(), differentiating():
        yield


def _several(n_probes: Any, least: int = 2) -> int:
    if check_integer("n_probes", n_probes) < least:
        raise SkgeoError(
            f"Got n_probes={n_probes}; a standard error needs at least {least} probes."
        )
    return int(n_probes)
