"""The works: what is measured, on which network and data, and how closely answers must agree.

F is the Fisher information matrix (1/N) sum_n J_n^T (diag(p_n) - p_n p_n^T) J_n of softmax outputs,
N samples of scikit-learn's digits divided by 16, a tanh network with its default initialisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

N_OUTPUTS = 10
N_TOP = 10


def mlp(hidden: int) -> nn.Module:
    """64-H-H-10 with tanh: H^2 + 76 H + 10 parameters."""
    return nn.Sequential(
        nn.Linear(64, hidden),
        nn.Tanh(),
        nn.Linear(hidden, hidden),
        nn.Tanh(),
        nn.Linear(hidden, N_OUTPUTS),
    )


def conv_net(channels: int) -> nn.Module:
    """Two 3 x 3 convolutions on 8 x 8 pictures, C and 3C/2 channels, then a linear layer."""
    more = channels * 3 // 2
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(channels, more, 3, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(64 * more, N_OUTPUTS),
    )


@dataclass(frozen=True)
class Work:
    """One row of the table.

    Attributes
    ----------
    name : str
        For the command line.
    quantity : str
        The function of a contestant that does it.
    title : str
        For the table.
    n_samples, width : int
    dtype : torch.dtype
    tolerance : float
        Largest difference from skgeo's answer, relative to the largest entry of that answer.
    quick : (int, int)
        Samples and width of the small version, for trying the machinery.
    network : callable
        Width to module.
    optional : bool
        Left out unless asked for.
    """

    name: str
    quantity: str
    title: str
    n_samples: int
    width: int
    dtype: torch.dtype
    tolerance: float
    quick: tuple[int, int] = (40, 12)
    network: Callable[[int], nn.Module] = mlp
    optional: bool = False

    def build(self) -> tuple[nn.Module, Tensor]:
        """The network and its data, the same in every process."""
        torch.manual_seed(0)
        model = self.network(self.width).to(self.dtype).eval()
        digits = torch.as_tensor(load_digits().data[: self.n_samples] / 16, dtype=self.dtype)
        return model, digits if self.network is mlp else digits.view(-1, 1, 8, 8)

    def smaller(self) -> Work:
        """The version for ``--quick``."""
        n_samples, width = self.quick
        return replace(self, n_samples=n_samples, width=width)

    def tiny(self) -> Work:
        """A version that loads the code a contestant needs, before memory and time are taken."""
        return replace(self, n_samples=16, width=4)

    @property
    def n_parameters(self) -> int:
        """Parameters of the network."""
        return sum(p.numel() for p in self.network(self.width).parameters())

    @property
    def description(self) -> str:
        """Title, precision and sizes."""
        precision = str(self.dtype).removeprefix("torch.")
        sizes = f"N={self.n_samples:,}, P={self.n_parameters:,}"
        return f"{self.title}, {precision}, {sizes}"


_ALL = (
    Work("spectrum", "spectrum", "exact spectrum", 300, 64, torch.float64, 1e-10),
    Work("spectrum-wide", "spectrum", "exact spectrum", 300, 190, torch.float64, 1e-10),
    Work("rank", "rank", "rank alone", 300, 190, torch.float64, 0.0),
    Work(
        "spectrum-parameter",
        "spectrum_parameter",
        "exact spectrum, parameter side",
        1797,
        16,
        torch.float64,
        1e-10,
        quick=(200, 4),
    ),
    Work("top", "top_eigenvalues", "top 10 eigenvalues", 1797, 190, torch.float32, 1e-5),
    Work("trace", "trace", "exact trace", 1797, 190, torch.float32, 1e-5),
    Work("gram", "gram", "Gram matrix of 10 outputs", 200, 480, torch.float32, 1e-5),
    Work(
        "gram-wide",
        "gram",
        "Gram matrix of 10 outputs",
        300,
        960,
        torch.float32,
        1e-5,
        optional=True,
    ),
    Work(
        "gram-conv",
        "gram",
        "Gram matrix of a convolutional network",
        60,
        16,
        torch.float32,
        1e-5,
        quick=(12, 4),
        network=conv_net,
    ),
    Work("diagonal", "diagonal", "exact diagonal", 1797, 64, torch.float32, 1e-5),
)
WORKS = {work.name: work for work in _ALL}
