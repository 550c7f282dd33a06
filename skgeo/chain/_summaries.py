"""Quantities from the singular values of a Jacobian: volume, rank, stretches and spread."""

from __future__ import annotations

import torch
from torch import Tensor

QUANTITIES = (
    "log_volume",
    "rank",
    "sigma_max",
    "sigma_min",
    "condition",
    "effective_rank",
    "stable_rank",
    "isometry_deviation",
)


def spectral_quantities(logs: Tensor, n_columns: int) -> dict[str, Tensor]:
    r"""Eight numbers from the singular values of each of a batch of matrices.

    Parameters
    ----------
    logs : Tensor of shape (b, k)
        Logarithms of all singular values :math:`s_i`, descending, ``-inf`` where they are zero; k
        is the smaller side. Every formula uses the singular values themselves, not their squares.
    n_columns : int
        Number n of columns of the matrices.

    Returns
    -------
    dict of str to Tensor of shape (b,)
        With r the number of values above zero:

        - ``log_volume``: :math:`\sum_{i \le r} \log s_i`, half of
          :math:`\log \mathrm{pdet}(J^T J)`; 0 at rank 0
        - ``rank``: r
        - ``sigma_max``, ``sigma_min``: :math:`s_1` and :math:`s_k`, 0 below full rank
        - ``condition``: :math:`s_1 / s_r`
        - ``effective_rank``: :math:`\exp H(s / \sum s)`
        - ``stable_rank``: :math:`\sum s^2 / s_1^2`
        - ``isometry_deviation``: :math:`\|J^T J / m_1 - I\|_F / \sqrt n` with
          :math:`m_1 = \|J\|_F^2 / n`

        The last four are NaN at rank 0.

    References
    ----------
    .. [1] O. Roy and M. Vetterli, "The effective rank: a measure of effective dimensionality",
       EUSIPCO 2007, Definition 1.

    Examples
    --------
    >>> found = spectral_quantities(torch.tensor([[2.0, 2.0, 0.0]]).double().log(), 3)
    >>> {name: round(float(value), 6) for name, value in found.items()}
    {'log_volume': 1.386294, 'rank': 2.0, 'sigma_max': 2.0, 'sigma_min': 0.0, 'condition': 1.0,
    'effective_rank': 2.0, 'stable_rank': 2.0, 'isometry_deviation': 0.707107}
    """
    alive = torch.isfinite(logs)
    rank = alive.sum(1)
    some = rank > 0
    nan = torch.full_like(logs[:, 0], float("nan"))
    last = logs.gather(1, (rank - 1).clamp_min(0).unsqueeze(1)).squeeze(1)
    # Whatever does not depend on scale is computed relative to the largest value, which may itself
    # overflow or underflow.
    relative = torch.where(some.unsqueeze(1), logs - logs[:, :1], -torch.inf).exp()
    squares = relative.square()
    total = squares.sum(1)
    shares = relative / relative.sum(1, keepdim=True)
    deviation = (squares * (n_columns / total).unsqueeze(1) - 1.0).square().sum(1)
    deviation = deviation + (n_columns - logs.shape[1])
    return {
        "log_volume": torch.where(alive, logs, 0.0).sum(1),
        "rank": rank.double(),
        "sigma_max": logs[:, 0].exp(),
        "sigma_min": logs[:, -1].exp(),
        "condition": torch.where(some, (logs[:, 0] - last).exp(), nan),
        # Definition 1 of Roy and Vetterli [1].
        "effective_rank": torch.where(some, torch.special.entr(shares).sum(1).exp(), nan),
        "stable_rank": torch.where(some, total, nan),
        "isometry_deviation": torch.where(some, (deviation / n_columns).sqrt(), nan),
    }
