"""Diagonal and trace of the Fisher information, exact, without forming a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from skgeo.fisher._rows import FisherRows
from skgeo.likelihood import Likelihood
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind
from skgeo.network._finite import check_metric


def fisher_diagonal(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    likelihood: str | Likelihood = "auto",
    parameters: str | Sequence[str] = "trainable",
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    memory_budget: int | str | None = None,
) -> Tensor:
    r"""Diagonal of the Fisher information matrix, exact.

    :math:`G_{pp} = \frac1N \sum_{nk} (A_n)_{kp}^2`. For a convolution the gradient of each sample
    is summed over positions before it is squared.

    Parameters
    ----------
    model, X, y, likelihood, parameters, batch_size, device, memory_budget
        As in :func:`~skgeo.fisher.fisher_spectrum`.

    Returns
    -------
    Tensor of shape (P,)
        float64, on the CPU, in ``named_parameters()`` order.

    See Also
    --------
    skgeo.fisher.fisher_trace : The sum of the diagonal.
    skgeo.fisher.fisher_spectrum : The eigenvalues.

    Notes
    -----
    One backward pass of all samples for each of rank(F) directions, and one matrix product of
    squares per Linear layer. Where the directions of one sample exceed a quarter of
    `memory_budget`, they are taken in blocks with a forward pass each.

    Examples
    --------
    For least squares the diagonal holds the mean squared inputs:

    >>> import torch
    >>> from skgeo import fisher_diagonal
    >>> net = torch.nn.Linear(2, 1)
    >>> fisher_diagonal(net, torch.tensor([[1.0, 3.0], [1.0, 1.0]]), likelihood="gaussian").tolist()
    [1.0, 5.0, 1.0]
    """
    with single_blas_thread():
        network = bind(
            model,
            X,
            y,
            likelihood=likelihood,
            parameters=parameters,
            batch_size=batch_size,
            device=device,
            memory_budget=memory_budget,
        )
        fisher = FisherRows(network)
        total = torch.zeros(fisher.n_parameters, dtype=torch.float64, device=fisher.network.device)
        for part, squared_scale in fisher.pieces():
            total += squared_scale * part.diagonal()
        check_metric(total, network.likelihood.name)
        return (total / fisher.network.n_samples).cpu()


def fisher_trace(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    likelihood: str | Likelihood = "auto",
    parameters: str | Sequence[str] = "trainable",
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    memory_budget: int | str | None = None,
) -> float:
    r"""Trace of the Fisher information matrix, exact.

    :math:`\mathrm{tr}\, G = \frac1N \sum_n \|A_n\|_F^2`.

    Parameters
    ----------
    model, X, y, likelihood, parameters, batch_size, device, memory_budget
        As in :func:`~skgeo.fisher.fisher_spectrum`.

    Returns
    -------
    float

    See Also
    --------
    skgeo.fisher.fisher_diagonal : The diagonal itself.
    skgeo.fisher.fisher_spectrum : The eigenvalues.

    Notes
    -----
    One backward pass of all samples for each of rank(F) directions. For a Linear layer the squared
    norm of a gradient is the product of the squared norms of two vectors. Where the directions of
    one sample exceed a quarter of `memory_budget`, they are taken in blocks with a forward pass
    each.

    Examples
    --------
    For least squares it is the mean squared norm of the inputs, plus one for the bias:

    >>> import torch
    >>> from skgeo import fisher_trace
    >>> X = torch.tensor([[1.0, 3.0], [1.0, 1.0]])
    >>> fisher_trace(torch.nn.Linear(2, 1), X, likelihood="gaussian")
    7.0
    """
    with single_blas_thread():
        network = bind(
            model,
            X,
            y,
            likelihood=likelihood,
            parameters=parameters,
            batch_size=batch_size,
            device=device,
            memory_budget=memory_budget,
        )
        fisher = FisherRows(network)
        return exact_trace(fisher)


def exact_trace(fisher: FisherRows) -> float:
    """Trace of the Fisher information of a :class:`FisherRows`."""
    parts = [squared_scale * part.trace() for part, squared_scale in fisher.pieces()]
    total = torch.stack(parts).sum()
    check_metric(total, fisher.network.likelihood.name)
    return float(total) / fisher.network.n_samples
