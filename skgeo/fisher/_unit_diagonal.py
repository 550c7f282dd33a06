r"""The Fisher information scaled to unit diagonal.

With D the diagonal of G, the matrix :math:`C = D^{-1/2} G D^{-1/2}` is the same under every
diagonal change of coordinates, such as the rescaling of ReLU units, while the spectrum of G is not:
a unit whose incoming weights are multiplied by c and its outgoing ones by 1/c computes the same
function, and a rank that is cut at a tolerance of G changes with c. Its condition is within a
factor P of the best that a diagonal scaling can reach (A. van der Sluis, "Condition numbers and
equilibration of matrices", Numerische Mathematik 14 (1969), theorem 4.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from skgeo.fisher._rows import FisherRows
from skgeo.jacobian._rules.symmetric import mirror
from skgeo.network._bound import BoundNetwork
from skgeo.network._finite import check_metric


class UnitDiagonal(FisherRows):
    """Rows :math:`A D^{-1/2}`.

    Attributes
    ----------
    scaling : Tensor of shape (P,)
        The diagonal of :math:`D^{-1/2}`; 0 where D is 0 or rounding of 0.
    raw_trace : float
        Trace of G.
    """

    def __init__(self, network: BoundNetwork) -> None:
        super().__init__(network)
        diagonal = torch.zeros(self.n_parameters, dtype=torch.float64, device=network.device)
        for part, squared_scale in self.pieces():
            diagonal += squared_scale * part.diagonal()
        check_metric(diagonal, network.likelihood.name)
        diagonal /= network.n_samples
        sizes = [network.replica.parameters[name].numel() for name in network.replica.selected]
        eps = torch.finfo(network.first_run.arithmetic).eps
        self.scaling = torch.cat([_inverse_root(d, eps) for d in torch.split(diagonal, sizes)])
        self.raw_trace = float(diagonal.sum())

    def rows(self, samples: range) -> Tensor:
        return super().rows(samples) * self.scaling

    def gram(self, *, weighted: bool) -> Tensor:
        """``A D^-1 A^T / N``, or the same of the unweighted Jacobian with its own diagonal."""
        # -> (n, n), from dense rows
        network = self.network
        parts = [
            self.rows(samples) if weighted else self.gradients(samples).rows().flatten(0, 1)
            for samples in network.batches(self.row_bytes)
        ]
        rows = torch.cat(parts).double()
        if not weighted:
            rows *= _inverse_root(rows.square().sum(0), 0.0)
            return rows @ rows.T
        return rows @ rows.T / network.n_samples

    def scaled(self, metric: Tensor, kernel: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The parameter side of both, scaled in place."""
        metric *= self.scaling
        metric *= self.scaling.unsqueeze(1)
        if kernel is not None:
            root = _inverse_root(kernel.diagonal().clone(), 0.0)
            kernel *= root
            kernel *= root.unsqueeze(1)
        return mirror(metric), kernel


def _inverse_root(diagonal: Tensor, eps: float) -> Tensor:
    """``d^(-1/2)``; 0 for entries below eps^2 of the largest, which are rounding of zero."""
    kept = (diagonal > 0) & (diagonal >= eps**2 * diagonal.max())
    return torch.where(kept, diagonal, torch.inf).rsqrt()
