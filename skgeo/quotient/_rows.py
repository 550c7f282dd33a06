r"""Rows ``S_l^T = R(z)^T B_l`` that give the Fisher metric ``S_l S_l^T`` of each layer.

``B_l`` is the Jacobian of one sample's outputs with respect to its representation at layer l, and
``F = R R^T`` the Fisher metric of the output distribution. ``B_l`` is never formed: the
columns of R are pulled back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skgeo._cached import cached_property
from skgeo.data import Inputs
from skgeo.exceptions import SkgeoError
from skgeo.jacobian._layers import Layers
from skgeo.jacobian._segment import Segment
from skgeo.linalg._memory import require_memory
from skgeo.network._agreement import seeded_normal
from skgeo.network._batch import batch_size
from skgeo.network._bound import BoundNetwork
from skgeo.network._finite import check_derivatives
from skgeo.network._noise import Noise, is_rounding, may_be_rounding, relative_errors


class LayerRows:
    """Rows of the Jacobians from the layers of a network on data, weighted by its likelihood.

    network: with ``parameters=None``.
    names: layers, or single calls of a layer (``"relu#1"``).
    Raises SkgeoError if a layer has no units.

    Attributes
    ----------
    network : BoundNetwork
    layers : Layers
    names : tuple of str
        Names of the layers, in the order in which they run.
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

    def size(self, names: Sequence[str]) -> int:
        """Memory that the rows of one sample at some layers take."""
        width = sum(self.layers[name].dim for name in names)
        # The rows, and the roots of F that are pulled back to give them.
        return self.n_rows * (width * self.network.dtype.itemsize + 8 * self.network.n_outputs)

    def sample_bytes(self, names: Sequence[str]) -> int:
        """Memory that the rows of one sample at some layers take.

        Raises SkgeoError if it exceeds the budget.
        """
        network, size = self.network, self.size(names)
        width = sum(self.layers[name].dim for name in names)
        require_memory(
            size,
            f"the Jacobians of one sample ({self.n_rows} rows x {width} coordinates of "
            f"{len(names)} layers)",
            "name fewer layers with layers=[...], wrap the model to give fewer outputs, "
            "or compute the largest eigenvalues alone with "
            "skgeo.quotient.leading_eigenvalues.",
            network.device,
            network.budget,
        )
        return size

    def batches(self, names: Sequence[str] | None = None) -> list[range]:
        """Batches of samples whose rows at some layers, by default all, fit in memory."""
        return self.network.batches(self.sample_bytes(self.names if names is None else names))

    def rows(
        self, inputs: Inputs, names: Sequence[str] | None = None, *, start: int = 0
    ) -> dict[str, Tensor]:
        """Rows ``S_l^T`` of a batch at some layers, by default all, in the dtype of the layers.

        start: number of the first sample, for messages.
        """
        # -> {name: (b, n_rows, n_l)}
        seen = self.layers.record(inputs, names, start=start)
        self.network.notice(seen.output)
        roots = self._roots(seen.output)
        found = seen.pull_back(self._cotangents(seen.output, roots), self.n_rows)
        for name, block in found.items():
            check_derivatives(block, f"the outputs with respect to {name!r}")
        self._clear_rounding(inputs, roots, found)
        return found

    def _roots(self, output: Tensor) -> Tensor:
        """``R^T`` at each sample and position, in float64."""
        # -> (b, positions, rank, K): row i of R^T is column i of R
        z = self.network.sized(output.detach())
        eye = torch.eye(z.shape[-1], dtype=torch.float64, device=z.device)
        return self.network.likelihood.pull_rows(z, eye.expand(*z.shape[:2], -1, -1))

    def _cotangents(self, output: Tensor, roots: Tensor) -> Callable[[slice], Tensor]:
        """Columns of R as cotangents, for one position at a time: positions are independent."""
        z = self.network.sized(output.detach())
        rank = roots.shape[2]

        def cotangents(which: slice) -> Tensor:
            block = z.new_zeros((which.stop - which.start, *z.shape))
            for into, i in zip(block, range(which.start, which.stop), strict=True):
                into[:, i // rank] = roots[:, i // rank, i % rank].to(z.dtype)
            return block.reshape(-1, *output.shape)

        return cotangents

    def _clear_rounding(self, inputs: Inputs, roots: Tensor, found: dict[str, Tensor]) -> None:
        """Set rows to zero, sample by sample, where they are rounding of zero derivatives."""
        dtype = self.network.first_run.arithmetic
        sizes = {
            name: torch.linalg.vector_norm(rows, dim=(1, 2), dtype=torch.float64)
            for name, rows in found.items()
        }
        scale = torch.stack([roots.flatten(1).norm(dim=1), *sizes.values()]).amax(0)
        asked = {name: may_be_rounding(size, scale, dtype) for name, size in sizes.items()}
        names = [name for name, which in asked.items() if bool(which.any())]
        if not names:
            return
        # One random combination of the rows of each sample stands for all.
        weights = seeded_normal(*roots.shape[:3], like=roots)
        alone = torch.stack(
            [
                torch.einsum("bi,bin->bn", weights.flatten(1), found[name].double()).norm(dim=1)
                for name in names
            ]
        )

        def again(noise: Noise) -> Tensor:
            combined = self._combinations(inputs, names, weights, noise)
            return torch.stack([rows.double().norm(dim=1) for rows in combined.values()])

        for name, zero in zip(names, is_rounding(alone, again, dtype), strict=True):
            found[name][zero & asked[name]] = 0.0

    def _combinations(
        self, inputs: Inputs, names: Sequence[str], weights: Tensor, noise: Noise | None = None
    ) -> dict[str, Tensor]:
        """One combination of the rows of each sample, at some layers."""
        # weights (b, positions, rank) -> {name: (b, n_l)}
        seen = self.layers.record(inputs, names)
        combined = torch.einsum("bpr,bprk->bpk", weights.double(), self._roots(seen.output))
        cotangent = combined.to(seen.output.dtype).reshape(seen.output.shape)
        rows = torch.autograd.grad(
            seen.output,
            [seen.tensor(layer) for layer in seen.layers],
            cotangent if noise is None else noise.added(cotangent),
            allow_unused=True,
            materialize_grads=True,
        )
        return {
            layer.name: row.movedim(layer.axis, 0).flatten(1)
            for layer, row in zip(seen.layers, rows, strict=True)
        }

    @cached_property
    def errors(self) -> dict[str, float]:
        """Relative errors of the rows by rounding at each layer, measured on a few samples."""
        network = self.network
        inputs = network.few
        size = batch_size(inputs)
        rank = network.likelihood.rank(network.n_outputs)
        signs = seeded_normal(
            size, network.n_positions, rank, like=network.first_run.outputs
        ).sign()
        return relative_errors(lambda: self._combinations(inputs, self.names, signs))

    def error(self, name: str) -> float:
        """Relative error of the rows by rounding at one layer."""
        return self.errors.get(name, 0.0)

    def representations(self, name: str) -> Tensor:
        """Representations of all samples at one layer, in float64."""
        # -> (N, n_l)
        parts = []
        for batch in self.network.batches(8 * self.network.first_run.n_activations):
            seen = self.layers.record(self.network.inputs(batch), [name], start=batch.start)
            parts.append(seen.representation(self.layers[name]).double())
        return torch.cat(parts)

    def tail(self, inputs: Inputs, name: str) -> Segment:
        """The rest of the network after a layer, on one batch."""
        return Segment(self.layers.replica, inputs, None, self.layers[name])

    def default_layer(self, names: Sequence[str] | None = None) -> str:
        """Of some layers, by default all, the last cut before the output, or else the last cut."""
        layers = [x for x in self.layers.layers if names is None or x.name in names]
        cuts = [layer for layer in layers if layer.is_cut]
        inner = [layer for layer in cuts if not layer.is_output]
        return (inner or cuts or layers)[-1].name
