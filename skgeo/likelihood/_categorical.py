"""The family of classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError, warn
from skgeo.likelihood._divergence import root_step, softmax_step
from skgeo.likelihood._likelihood import Likelihood, sum_tail

# Products of a few probabilities above exp of this are far from the ends of the floating range.
_LEAST_LOG = -200.0


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

    def apply_root(self, outputs: Tensor, vectors: Tensor) -> Tensor:
        # The square root diag(sqrt p) - p sqrt(p)^T, of K columns: no K x K numbers are formed.
        log_p = outputs.double().log_softmax(-1)
        scaled = (log_p / 2).exp() * vectors
        return scaled - log_p.exp() * scaled.sum(-1, keepdim=True)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        log_p = outputs.double().log_softmax(-1)
        index = targets.long().unsqueeze(-1)
        # 1 - p of the label in the form that does not cancel.
        return (-log_p.exp()).scatter(-1, index, -torch.expm1(log_p.gather(-1, index)))

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        p = outputs.softmax(-1).reshape(-1, outputs.shape[-1])
        return torch.multinomial(p, 1, generator=generator).reshape(outputs.shape[:-1])

    def kl(self, outputs: Tensor, others: Tensor) -> Tensor:
        return sum_tail(softmax_step(outputs, others)[2])

    def squared_distance(self, outputs: Tensor, others: Tensor) -> Tensor:
        log_p, step, _ = softmax_step(outputs, others)
        chord = root_step(log_p, step).square().sum(-1).sqrt()
        return sum_tail((4 * (chord / 2).clamp(max=1.0).asin()).square())
