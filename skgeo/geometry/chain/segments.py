"""A network on data as the map from where its samples start to one layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.autodiff.agreement import seeded_normal
from skgeo.autodiff.batch import tensors_of
from skgeo.autodiff.finite import check_derivatives
from skgeo.autodiff.layer import Layer
from skgeo.autodiff.layers import Layers
from skgeo.autodiff.replica import Replica
from skgeo.autodiff.segment import Segment
from skgeo.data import Inputs, as_samples, cast_inputs
from skgeo.exceptions import SkgeoError
from skgeo.linalg.memory import require_memory
from skgeo.network.running import batch_ranges, parameter_dtype

__all__ = ["DataSegment", "row_budget"]

# Jacobians held at a time.
_BATCH_BYTES = 2**26
_PROBE = 4


class DataSegment:
    r"""The map :math:`x \mapsto h_l` of a network on a set of samples.

    Parameters
    ----------
    module : nn.Module
        Left as it is.
    X : array, Tensor, dict, Dataset or DataLoader
    layer : str, optional
        Where to end; by default at the outputs.
    source : str, optional
        Where to start instead of the first floating input: a layer that is a cut.
    forward : callable, optional
        ``forward(module, inputs) -> outputs``.
    device : str or torch.device, optional
    replica : Replica, optional
        Use this one, whatever its weights are, and not a new one of `module`.

    Attributes
    ----------
    replica : Replica
    name : str
        The layer, or ``"output"``.
    n_samples : int
    shape : tuple of int
        Of one sample at the start.
    n_source, n_layer : int
        Coordinates of one sample at the start and at the layer.
    dtype : torch.dtype
    device : torch.device

    Raises
    ------
    SkgeoError
        If the representation of one sample depends on another sample, or on no sample at all.
    """

    def __init__(
        self,
        module: nn.Module,
        X: Any,
        *,
        layer: str | None = None,
        source: str | None = None,
        forward: Callable[..., Any] | None = None,
        device: str | torch.device | None = None,
        replica: Replica | None = None,
    ) -> None:
        self.replica = replica or replica(module, forward=forward, device=device, parameters=None)
        self.dtype, self.device = parameter_dtype(self.replica), self.replica.device
        samples = as_samples(X).to(dtype=self.dtype, keep_integers=self.replica.takes_integers)
        self.n_samples = len(samples)
        self._inputs: Inputs = cast_inputs(samples.inputs, device=self.device)
        self._layer, self._source = self._find(layer), self._find(source)
        self.name = "output" if self._layer is None else self._layer.name
        if self._source is not None and not self._source.is_cut:
            raise SkgeoError(
                f"source {self._source.name!r} is not a cut: something goes around it, so that "
                "what follows is no function of its representation. Start at a cut."
            )
        self._all = Segment(self.replica, self._inputs, self._layer, self._source)
        first = self.at(range(min(self.n_samples, _PROBE)))
        place = first.start()
        self.n_source, self.n_layer = first.dim, self._check(first, place)
        floats = [t for t in tensors_of(self._inputs) if t.is_floating_point()]
        self.shape = self._source.shape if self._source is not None else tuple(floats[0].shape[1:])

    def _find(self, name: str | None) -> Layer | None:
        return None if name is None else Layers(self.replica, self._inputs, [name])[name]

    def _check(self, segment: Segment, place: Tensor) -> int:
        x = place.clone().requires_grad_(True)
        with torch.enable_grad():
            h = segment(x)
        if not bool(torch.isfinite(h).all()):
            raise SkgeoError(f"the representation at {self.name!r} holds NaN or infinity.")
        weights = seeded_normal(h.shape[1], like=h)
        found = None
        if h.requires_grad:
            (found,) = torch.autograd.grad(h[0] @ weights, x, allow_unused=True)
        if found is None:
            raise SkgeoError(
                f"{self.name!r} does not depend on where the samples start, so there is no map "
                "to measure."
            )
        if bool(found[1:].any()):
            raise SkgeoError(
                f"the representation of one sample at {self.name!r} depends on other samples, so "
                "that it has no Jacobian of its own. Take out what mixes the batch."
            )
        return h.shape[1]

    def at(self, samples: range) -> Segment:
        """The map of some samples."""
        return self._all.take(slice(samples.start, samples.stop))

    def spread(self, index: Tensor) -> Segment:
        """The map of the samples that an index tensor lists, with repetitions."""
        return self._all.take(index)

    def same_beside(self, index: Tensor, other: DataSegment, there: Tensor) -> bool:
        """Whether samples agree with others in every tensor but the one that moves."""
        if self._source is not None:
            return True
        moving = next(i for i, t in enumerate(tensors_of(self._inputs)) if t.is_floating_point())
        pairs = zip(tensors_of(self._inputs), tensors_of(other._inputs), strict=True)
        return all(
            i == moving or torch.equal(here[index], then[there])
            for i, (here, then) in enumerate(pairs)
        )

    def start(self) -> Tensor:
        """Where all samples stand, of shape (N, n_0), in the dtype of the module."""
        return torch.cat([self.at(batch).start() for batch in self.batches(1)])

    def batches(self, rows: int) -> list[range]:
        """The samples in batches of which `rows` vectors of the start and the layer fit.

        Parameters
        ----------
        rows : int

        Returns
        -------
        list of range
        """
        size = row_budget(rows * (self.n_source + self.n_layer) * self.dtype.itemsize)
        return batch_ranges(self.n_samples, size)

    def jacobian(self, segment: Segment, x: Tensor) -> Tensor:
        """Jacobians of a batch in float64, checked: (b, n_l, n_0).

        Raises
        ------
        SkgeoError
            If they are too large or not finite.
        """
        require_memory(
            2 * len(x) * self.n_layer * self.n_source * 8,
            f"Jacobians of {len(x)} samples, {self.n_layer} x {self.n_source} each",
            "choose a narrower layer.",
            self.device,
        )
        found = segment.jacobian(x).double()
        check_derivatives(found, repr(self.name))
        return found


def row_budget(sample_bytes: int) -> int:
    """How many samples of a size are taken together, at least one."""
    return max(1, _BATCH_BYTES // max(sample_bytes, 1))
