"""One forward pass on one graph, and the Jacobians between any two of its places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.jacobian._cotangents import pull_back, unit_cotangents
from skgeo.jacobian._elementwise import ElementwiseLink, LinkParts, slopes
from skgeo.jacobian._layer import Layer
from skgeo.jacobian._layer_jacobian import LayerJacobian
from skgeo.network._agreement import agree, seeded_normal
from skgeo.network._finite import check_derivatives

# Bytes held in one batched pass in addition to the result.
_CHUNK_BYTES = 2**26


class _Places(Protocol):
    """The part of Layers that a recording uses."""

    @property
    def batched(self) -> bool: ...
    @property
    def arithmetic(self) -> torch.dtype: ...
    @property
    def root(self) -> Layer: ...
    @property
    def output(self) -> Layer: ...
    @property
    def elementwise(self) -> Mapping[str, LinkParts]: ...
    def cut_before(self, layer: Layer) -> Layer: ...


class Recording:
    """One forward pass of a batch, and products with the Jacobians between its places.

    Made by :meth:`Layers.record`. Sources are the root or cuts: a derivative with respect to any
    other layer misses the paths around it.

    output: (b, ...), with its graph.
    tensors: results of the recorded layers, and of the root if it was recorded.

    Attributes
    ----------
    output : Tensor of shape (b, ...)
        With its graph.
    layers : tuple of Layer
    size : int
        Samples in the batch.
    device : torch.device
    """

    def __init__(
        self,
        places: _Places,
        output: Tensor,
        tensors: Mapping[Layer, Tensor],
        layers: Sequence[Layer],
    ) -> None:
        self.output, self.layers = output, tuple(layers)
        self.size, self.device = len(output), output.device
        self._places, self._tensors = places, {**tensors, places.output: output}
        self._links: dict[Layer, ElementwiseLink | None] = {}

    def tensor(self, place: Layer) -> Tensor:
        """The tensor at a place, on the graph, as it was returned."""
        if place not in self._tensors:
            raise SkgeoError(
                f"Layer {place.name!r} was not recorded in this forward pass; recorded are "
                f"{', '.join(repr(known.name) for known in self._tensors)}."
            )
        return self._tensors[place]

    def representation(self, place: Layer) -> Tensor:
        """Representation at a place, without a graph and flattened: (b, n)."""
        return self._first(place).detach().reshape(self.size, -1)

    def _first(self, place: Layer) -> Tensor:
        return self.tensor(place).movedim(place.axis, 0)

    def pull_back(
        self, cotangents: Callable[[slice], Tensor], count: int, max_bytes: int = _CHUNK_BYTES
    ) -> dict[str, Tensor]:
        """Pull cotangents of the output back to all recorded layers at once: (b, count, n) each.

        cotangents: as in :func:`~skgeo.jacobian._cotangents.pull_back`.
        """
        rows = pull_back(
            self.output,
            [self.tensor(layer) for layer in self.layers],
            cotangents,
            count,
            axes=[layer.axis for layer in self.layers],
            batched=self._places.batched,
            max_bytes=max_bytes,
        )
        return {layer.name: block for layer, block in zip(self.layers, rows, strict=True)}

    def output_jacobians(self, max_bytes: int = _CHUNK_BYTES) -> dict[str, Tensor]:
        """Jacobians (b, M, n) of the M outputs with respect to all recorded layers, by name."""
        units = unit_cotangents(self.output)
        return self.pull_back(units, self._places.output.dim, max_bytes)

    def pull(
        self, target: Layer, source: Layer, cotangents: Tensor, max_bytes: int = _CHUNK_BYTES
    ) -> Tensor:
        r"""Rows :math:`u_k^T J` of the Jacobian: (b, c, n_target) to (b, c, n_source)."""
        out = self._first(target)

        def some(which: slice) -> Tensor:
            return cotangents[:, which].transpose(0, 1).reshape(-1, *out.shape)

        return self._rows(target, source, some, cotangents.shape[1], max_bytes)

    def _rows(
        self,
        target: Layer,
        source: Layer,
        cotangents: Callable[[slice], Tensor],
        count: int,
        max_bytes: int,
    ) -> Tensor:
        (rows,) = pull_back(
            self._first(target),
            [self.tensor(source)],
            cotangents,
            count,
            axes=[source.axis],
            batched=self._places.batched,
            max_bytes=max_bytes,
        )
        return rows

    def push(
        self, target: Layer, source: Layer, columns: Tensor, max_bytes: int = _CHUNK_BYTES
    ) -> Tensor:
        """``J A`` for each sample: (b, n_source, c) to (b, n_target, c).

        Raises SkgeoError if an operation between the two has no second derivative.
        """
        link = self._link(target, source)
        if link is not None:
            return link.push_columns(columns)
        return self.operator(target, source).push_columns(columns, max_bytes)

    def operator(self, target: Layer, source: Layer) -> LayerJacobian:
        """The Jacobian from `source` to `target` by its products, without forming it."""
        places = self._places
        return LayerJacobian(
            self._first(target), self.tensor(source), source, places.batched, places.arithmetic
        )

    def jacobian(self, target: Layer, source: Layer, max_bytes: int = _CHUNK_BYTES) -> Tensor:
        r"""The Jacobian :math:`\partial h_{target} / \partial h_{source}` of each sample.

        Returns (b, n_target, n_source), in the dtype of the representations.
        Raises SkgeoError if a derivative is NaN or infinite or does not exist.

        The cost is one pass between the places per coordinate of the smaller one: backward passes
        for rows, backward passes through these for columns. An elementwise link needs none.
        """
        link = self._link(target, source)
        found = None if link is None else link.jacobian()
        if found is None and source.dim < target.dim / 2:
            found = self._by_columns(target, source, max_bytes)
        if found is None:
            units = unit_cotangents(self._first(target))
            found = self._rows(target, source, units, target.dim, max_bytes)
        check_derivatives(found, f"{target.name!r} with respect to {source.name!r}")
        return found

    def _by_columns(self, target: Layer, source: Layer, max_bytes: int) -> Tensor | None:
        """Columns, unless the graph has no second derivatives."""
        eye = torch.eye(source.dim, dtype=self.output.dtype, device=self.device)
        try:
            operator = self.operator(target, source)
        except SkgeoError:
            return None
        return operator.push_columns(eye.expand(self.size, -1, -1), max_bytes)

    def root_jacobians(
        self, layers: Sequence[Layer] | None = None, max_bytes: int = _CHUNK_BYTES
    ) -> dict[str, Tensor]:
        r"""Jacobians :math:`A_l = \partial h_l/\partial h_0`, (b, n_l, n_0), at cuts, by name.

        Columns are pushed forward from cut to cut, so all layers together cost n_0 passes of the
        network. If backward passes are cheaper, each layer is pulled back separately.
        """
        root = self._places.root
        cuts = [layer for layer in self.layers if layer.is_cut and layer != root]
        chosen = cuts if layers is None else list(layers)
        forward = root.dim * len(chosen)
        backward = sum(layer.dim * (place + 1) for place, layer in enumerate(chosen))
        if backward < forward:
            return {x.name: self.jacobian(x, root, max_bytes) for x in chosen}
        found: dict[str, Tensor] = {}
        before, carried = root, None
        for layer in chosen:
            try:
                if carried is None:
                    carried = self.jacobian(layer, root, max_bytes)
                else:
                    carried = self.push(layer, before, carried, max_bytes)
            except SkgeoError:
                carried = self.jacobian(layer, root, max_bytes)
            found[layer.name] = carried
            before = layer
        return found

    def elementwise(self, target: Layer) -> ElementwiseLink | None:
        """The link from the last cut before a layer, if it is ``diag(d) W`` for each sample.

        It is recognised by the modules that run, and used only if it agrees with one backward pass
        of random cotangents.
        """
        if target not in self._links:
            parts = self._places.elementwise.get(target.name)
            source = self._places.cut_before(target)
            self._links[target] = None if parts is None else self._checked(parts, target, source)
        return self._links[target]

    def _link(self, target: Layer, source: Layer) -> ElementwiseLink | None:
        """The link between two places, if they are neighbours and it is elementwise."""
        if target in (source, self._places.root, self._places.output):
            return None
        return self.elementwise(target) if source == self._places.cut_before(target) else None

    def _checked(self, parts: LinkParts, target: Layer, source: Layer) -> ElementwiseLink | None:
        linear, h = parts[0], self._first(source).detach()
        if linear is not None and h.shape[1:] != (linear.in_features,):
            return None
        weight = None if linear is None else linear.weight.detach()
        link = ElementwiseLink(weight, slopes(parts, h), self.size)
        if link.rows != target.dim:  # the modules are a part of what runs between the two
            return None
        u = seeded_normal(self.size, target.dim, like=h)
        expected = self.pull(target, source, u.unsqueeze(1))[:, 0]
        found = link.pull(u)
        if found.shape != expected.shape:
            return None
        scale = float(expected.abs().max())
        return (
            link if agree(found, expected, self._places.arithmetic, scale, by_entry=True) else None
        )
