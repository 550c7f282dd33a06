"""The map from the input of a network, or a cut, to one of its layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.jacobian._layers import Layers
from skgeo.jacobian._segment import Segment
from skgeo.linalg._memory import require_memory
from skgeo.network._agreement import seeded_normal
from skgeo.network._batch import tensors_of
from skgeo.network._bound import BoundNetwork
from skgeo.network._finite import check_derivatives

_PROBE = 4


class LayerMap:
    r"""The map :math:`x \mapsto h_l` of a network on its samples.

    network: with ``parameters=None``.
    layer: where the map ends; by default at the outputs.
    source: where the map starts: a cut, or an input of a dict; needed if several are floating.
    Raises SkgeoError if the representation of one sample depends on another sample, or on no sample
        at all.

    Attributes
    ----------
    network : BoundNetwork
    name : str
        The layer, or ``"output"``.
    shape : tuple of int
        Shape of one sample at the start.
    n_source, n_layer : int
        Number of coordinates of one sample at the start and at the layer.
    """

    def __init__(
        self, network: BoundNetwork, *, layer: str | None = None, source: str | None = None
    ) -> None:
        _ = network.first_run  # raises if the model cannot be run on the data
        network, source = network.starting_at(source)
        self.network = network
        names = [name for name in (source, layer) if name is not None]
        found: Any = Layers.of(network, names) if names else {}
        end = None if layer is None else found[layer]
        start = None if source is None else found[source]
        self.name = "output" if end is None else end.name
        if start is not None and not start.is_cut:
            raise SkgeoError(
                f"The source {start.name!r} is not a cut: some of the computation bypasses it, so "
                "what follows is not a function of its representation. Choose a cut as source."
            )
        self._from_input = start is None
        self._all = Segment(network.replica, network.inputs(), end, start)
        self.shape, self.n_source = self._all.shape, self._all.dim
        self.n_layer = self._check(self.at(range(_PROBE)))

    def _check(self, segment: Segment) -> int:
        """Check the map on a few samples, and return the width of the layer."""
        x = segment.start().clone().requires_grad_(True)
        with torch.enable_grad():
            h = segment(x)
        if not bool(torch.isfinite(h).all()):
            raise SkgeoError(
                f"The representation at {self.name!r} contains NaN or infinity; "
                "expected finite values."
            )
        found = None
        if h.requires_grad:
            weights = seeded_normal(h.shape[1], like=h)
            (found,) = torch.autograd.grad(h[0] @ weights, x, allow_unused=True)
        if found is None:
            raise SkgeoError(
                f"{self.name!r} does not depend on the start of the map, so there is no Jacobian "
                "to measure. Choose another layer or source."
            )
        if bool(found[1:].any()):
            raise SkgeoError(
                f"The representation of one sample at {self.name!r} depends on other samples, so "
                "it has no Jacobian of its own. Remove the operation that mixes samples."
            )
        return h.shape[1]

    def at(self, samples: range) -> Segment:
        """The map of some samples."""
        return self._all.take(slice(samples.start, samples.stop))

    def spread(self, index: Tensor) -> Segment:
        """The map of the samples in an index tensor, possibly with repetitions."""
        return self._all.take(index)

    def same_around(self, index: Tensor, other: LayerMap, there: Tensor) -> bool:
        """Whether two sets of samples agree in every tensor but the one that moves."""
        if not self._from_input:
            return True
        ours, theirs = tensors_of(self.network.inputs()), tensors_of(other.network.inputs())
        moving = next(i for i, t in enumerate(ours) if t.is_floating_point())
        pairs = enumerate(zip(ours, theirs, strict=True))
        return all(i == moving or torch.equal(a[index], b[there]) for i, (a, b) in pairs)

    def start(self) -> Tensor:
        """All samples at the start of the map, in the dtype of the module."""
        # -> (N, n_0)
        return torch.cat([self.at(batch).start() for batch in self.batches(1)])

    def batches(self, rows: int) -> list[range]:
        """Batches in which each sample has room for `rows` vectors at the start and the layer."""
        width = self.n_source + self.n_layer
        return self.network.batches(rows * width * self.network.dtype.itemsize)

    def affordable(self, each: int) -> int:
        """Number of items of `each` bytes that fit in memory together, at least one."""
        return max(1, self.network.batch_bytes // max(each, 1))

    def jacobian(self, segment: Segment, x: Tensor) -> Tensor:
        """Jacobians of a batch, finite, in float64.

        Raises SkgeoError if they do not fit in memory or are not finite.
        """
        # x (b, n_0) -> (b, n_l, n_0)
        require_memory(
            2 * len(x) * self.n_layer * self.n_source * 8,
            f"Jacobians of {len(x)} samples, {self.n_layer} x {self.n_source} each",
            "choose a narrower layer.",
            self.network.device,
            self.network.budget,
        )
        found = segment.jacobian(x).double()
        check_derivatives(found, repr(self.name))
        return found
