"""The empirical neural tangent kernel, the inner products of output gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.fisher._rows import FisherRows
from skgeo.linalg._memory import require_memory
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind


def ntk(
    model: Any,
    X: Any,
    Y: Any = None,
    *,
    summed: bool = False,
    dtype: torch.dtype | None = None,
    parameters: str | Sequence[str] = "trainable",
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    memory_budget: int | str | None = None,
) -> Tensor:
    r"""Gram matrix of the output gradients of a network, between one or two data sets.

    :math:`\Theta_{(n,k),(n',k')} = \partial_\theta z_{nk} \cdot \partial_\theta z_{n'k'}`: the
    empirical neural tangent kernel, not divided by the number of samples, outputs or parameters.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        The network, evaluated on a replica in eval mode.
    X : array, Tensor, dict, Dataset or DataLoader
        N samples, for the rows.
    Y : array, Tensor, dict, Dataset or DataLoader, default=None
        N' samples, for the columns. None for X.
    summed : bool, default=False
        Whether to sum over outputs, :math:`\sum_k \Theta_{(n,k),(n',k)}`.
    dtype : torch.dtype, default=None
        Of the products; None for that of the model. Use float64 if small eigenvalues of the kernel
        matter.
    parameters, batch_size, device, memory_budget
        As in :func:`~skgeo.fisher.fisher_spectrum`.

    Returns
    -------
    Tensor of shape (N K, N' K) or (N, N')
        On the CPU. Rows are ordered by sample, then by output; K counts the outputs of all
        positions.

    Raises
    ------
    SkgeoError
        If the kernel does not fit in memory.

    References
    ----------
    .. [1] A. Jacot, F. Gabriel and C. Hongler, "Neural tangent kernel: convergence and
       generalization in neural networks", NeurIPS 2018, Section 4.

    Examples
    --------
    For a linear model the entries are the inner products of the inputs, plus one for the bias:

    >>> import torch
    >>> from skgeo import ntk
    >>> ntk(torch.nn.Linear(2, 1), torch.tensor([[1.0, 3.0], [1.0, 1.0]]))
    tensor([[11.,  5.],
            [ 5.,  3.]])
    """
    options: dict[str, Any] = {
        "parameters": parameters,
        "batch_size": batch_size,
        "device": device,
        "memory_budget": memory_budget,
    }
    with single_blas_thread():
        left = FisherRows(bind(model, X, **options))
        right = left if Y is None else FisherRows(bind(model, Y, **options))
        each = left.network.n_positions * left.network.n_outputs
        shape = (left.network.n_samples * each, right.network.n_samples * each)
        dtype = left.network.replica.dtype if dtype is None else dtype
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise SkgeoError(f"Got dtype={dtype!r}; expected a floating torch.dtype, or None.")
        require_memory(
            dtype.itemsize * shape[0] * shape[1],
            f"a kernel of {shape[0]} x {shape[1]} numbers",
            "measure fewer samples, or wrap the model such that it has fewer outputs.",
            left.network.device,
            left.network.budget,
        )
        total = torch.empty(shape, dtype=dtype, device=left.network.device)
        for some in left.batches():
            mine = left.gradients(some)
            rows = slice(some.start * each, some.stop * each)
            for others in right.batches():
                columns = slice(others.start * each, others.stop * each)
                if Y is not None:
                    total[rows, columns] = mine.gram(right.gradients(others), dtype)
                elif others == some:
                    total[rows, columns] = mine.gram(dtype=dtype)
                elif others.start < some.start:
                    total[rows, columns] = mine.gram(right.gradients(others), dtype)
                    total[columns, rows] = total[rows, columns].T
        if summed:
            split = total.view(left.network.n_samples, each, right.network.n_samples, each)
            total = split.diagonal(dim1=1, dim2=3).sum(-1)
        return total.cpu()
