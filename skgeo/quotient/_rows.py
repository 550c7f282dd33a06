r"""The rows whose squares make the Fisher metric of each layer: ``S_l^T = R(z)^T B_l``.

``B_l`` is the Jacobian of one sample's outputs with respect to its representation at layer l, and
``F = R R^T`` the Fisher metric of the output distribution. Rows are never formed by multiplying
with ``B_l``: the columns of R are what is pulled back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skgeo.data import Inputs
from skgeo.exceptions import SkgeoError
from skgeo.jacobian._layers import Layers
from skgeo.jacobian._segment import Segment
from skgeo.linalg._memory import require_memory
from skgeo.network._bound import BoundNetwork
from skgeo.network._finite import check_derivatives


class LayerRows:
    """Rows of the Jacobians from the layers of a network on data, weighted by its likelihood.

    network: with ``parameters=None``.
    names: names of layers or of single calls (``"relu#1"``).

    Attributes
    ----------
    network : BoundNetwork
    layers : Layers
    names : tuple of str
        The layers, in the order in which they run.
    n_rows : int
        Rows per sample: ``n_positions * rank(F)``.
    """

    def __init__(self, network: BoundNetwork, names: Sequence[str] | None = None) -> None:
        self.network = network
        self.n_rows = network.n_positions * network.likelihood.rank(network.n_outputs)
        self.layers = Layers.of(network, names)
        self.names = tuple(layer.name for layer in self.layers.layers)
        empty = [layer.name for layer in self.layers.layers if layer.dim == 0]
        if empty:
            raise SkgeoError(
                f"Layer {empty[0]!r} has no units, so there is no metric on its representation. "
                "Name other layers with layers=[...]."
            )

    def sample_bytes(self, names: Sequence[str]) -> int:
        """What the rows of one sample at some layers take, refused where that is too much."""
        network = self.network
        width = sum(self.layers[name].dim for name in names)
        # The rows, and the roots of F that are pulled back to give them.
        size = self.n_rows * (width * network.dtype.itemsize + 8 * network.n_outputs)
        require_memory(
            size,
            f"the Jacobians of one sample ({self.n_rows} rows x {width} coordinates of "
            f"{len(names)} layers)",
            "name fewer layers with layers=[...], wrap the model so that it gives fewer outputs, "
            "or take the largest eigenvalues alone with "
            "skgeo.quotient.leading_eigenvalues.",
            network.device,
            network.budget,
        )
        return size

    def batches(self, names: Sequence[str] | None = None) -> list[range]:
        """The samples in batches whose rows at some layers, by default all, fit in memory."""
        return self.network.batches(self.sample_bytes(self.names if names is None else names))

    def rows(
        self, inputs: Inputs, names: Sequence[str] | None = None, *, start: int = 0
    ) -> dict[str, Tensor]:
        """Rows ``S_l^T`` of a batch at some layers, by default all: (b, n_rows, n_l) each.

        In the dtype of the representations. `start` numbers the first sample, for messages.
        """
        seen = self.layers.record(inputs, names, start=start)
        self.network.notice(seen.output)
        found = seen.pull_back(self._roots(seen.output), self.n_rows)
        for name, block in found.items():
            check_derivatives(block, f"the outputs with respect to {name!r}")
        return found

    def _roots(self, output: Tensor) -> Callable[[slice], Tensor]:
        """Columns of R as cotangents: position by position, since positions are independent."""
        z = self.network.sized(output.detach())
        size, positions, k = z.shape
        eye = torch.eye(k, dtype=torch.float64, device=z.device)
        # (b, positions, rank, K): row i of R^T is column i of R.
        roots = self.network.likelihood.pull_rows(z, eye.expand(size, positions, -1, -1))
        rank = roots.shape[2]

        def cotangents(which: slice) -> Tensor:
            block = z.new_zeros((which.stop - which.start, *z.shape))
            for into, i in zip(block, range(which.start, which.stop), strict=True):
                into[:, i // rank] = roots[:, i // rank, i % rank].to(z.dtype)
            return block.reshape(-1, *output.shape)

        return cotangents

    def representations(self, name: str) -> Tensor:
        """Representations of all samples at one layer: (N, n_l), float64."""
        parts = []
        for batch in self.batches([name]):
            seen = self.layers.record(self.network.inputs(batch), [name], start=batch.start)
            parts.append(seen.representation(self.layers[name]).double())
        return torch.cat(parts)

    def tail(self, inputs: Inputs, name: str) -> Segment:
        """The rest of the network after a layer, on one batch."""
        return Segment(self.layers.replica, inputs, None, self.layers[name])

    def default_layer(self) -> str:
        """The last cut before the output; the output itself where there is no other."""
        cuts = [layer for layer in self.layers.layers if layer.is_cut]
        inner = [layer for layer in cuts if not layer.is_output]
        return (inner or cuts or list(self.layers.layers))[-1].name
