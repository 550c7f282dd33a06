"""Jacobians between the places where a network can be cut open: the links of its chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skgeo.autodiff.batch import Inputs, batch_size, map_inputs, take
from skgeo.autodiff.cotangents import pull_back, unit_cotangents
from skgeo.autodiff.elementwise import ElementwiseLink, elementwise_modules, slopes
from skgeo.autodiff.linkproducts import LinkOperator, seeded_normal
from skgeo.autodiff.operators import LayerMaps
from skgeo.autodiff.outputs import agreement_tolerance
from skgeo.autodiff.recording import Layer, Recording
from skgeo.autodiff.replica import Replica
from skgeo.autodiff.switches import math_attention
from skgeo.exceptions import SkgeoError

__all__ = ["ChainMaps", "ChainRecording"]

# Numbers in flight in one batched pass, beside the result.
_CHUNK_BYTES = 2**26


class ChainMaps:
    r"""The chain of a network: its root, its layers, its output, and what lies between them.

    Parameters
    ----------
    replica : Replica
        As :func:`~skgeo.autodiff.operators.layer_replica` makes it.
    inputs : Tensor, dict of str to Tensor, or tuple of Tensor
        Some samples, of which the first four are run to find the layers.
    layers : list of str, optional
        As in :class:`~skgeo.autodiff.operators.LayerMaps`.

    Attributes
    ----------
    root : Layer
        Where the chain starts: the input (named ``"input"``; the first floating tensor of several),
        or, where inputs are indices, the first layer that turns them into numbers.
    layers : tuple of Layer
        In the order in which they run, without the root.
    output : Layer
        The network's output, named ``"output"``.

    Raises
    ------
    SkgeoError
        As :class:`~skgeo.autodiff.operators.LayerMaps`, or if no layer is left beside the root.

    Examples
    --------
    >>> from torch import nn
    >>> from skgeo.autodiff.operators import layer_replica
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    >>> X = torch.ones(5, 3).double()
    >>> chain = ChainMaps(layer_replica(net), X)
    >>> [layer.name for layer in (chain.root, *chain.layers, chain.output)]
    ['input', '0', '1', '2', 'output']
    >>> links = chain.record(X)
    >>> J = links.jacobian(chain.layers[0], chain.root)
    >>> bool((J == net[0].weight).all())
    True
    """

    def __init__(
        self, replica: Replica, inputs: Inputs, layers: Sequence[str] | None = None
    ) -> None:
        self.maps = LayerMaps(replica, inputs, layers)
        seen = self.maps.record(take(inputs, slice(0, 4)), root=True)
        assert seen.root is not None
        _check_differentiable(seen.output, seen.root)
        known = {layer.name: layer for layer in self.maps.layers}
        name = self.maps.root_name
        if name != "input" and name in known:
            self.root = known[name]
        else:
            axis = 0 if name == "input" else _axis(seen.root, len(seen.output), name)
            shape = tuple(seen.root.movedim(axis, 0).shape[1:])
            self.root = Layer(name, name, 0, shape, axis, is_cut=True, is_output=False)
        self.layers = tuple(layer for layer in self.maps.layers if layer != self.root)
        if not self.layers:
            raise SkgeoError(
                f"the only layer, {name!r}, is where the graph starts, so that there is no chain "
                "of layers. Name a later layer too: layers=[...]."
            )
        shape = tuple(seen.output.shape[1:])
        self.output = Layer("output", "", 0, shape, 0, is_cut=True, is_output=True)
        plain = [x for x in self.layers if _is_plain(x.shape, self.cut_before(x).shape)]
        pairs = [(self.cut_before(x), x) for x in plain]
        self.modules = elementwise_modules(
            replica,
            take(inputs, slice(0, 2)),
            [
                (None if source == self.root and name == "input" else source, x)
                for source, x in pairs
            ],
        )

    @property
    def cuts(self) -> tuple[Layer, ...]:
        """The root and the layers that all of the computation passes through, in order."""
        return (self.root, *(layer for layer in self.layers if layer.is_cut))

    def cut_before(self, layer: Layer) -> Layer:
        """The last cut that runs before a layer or the output."""
        if layer == self.output:
            return self.cuts[-1]
        place = self.layers.index(layer)
        return ([self.root] + [other for other in self.layers[:place] if other.is_cut])[-1]

    def record(self, inputs: Inputs) -> ChainRecording:
        """Run one forward pass and keep what is at the root, the layers and the output.

        Parameters
        ----------
        inputs : Tensor, dict of str to Tensor, or tuple of Tensor
            A batch, samples first.

        Returns
        -------
        ChainRecording
        """
        return ChainRecording(self, self.maps.record(inputs, root=True), inputs)


class ChainRecording:
    """One forward pass on one graph, and the Jacobians between any two places of its chain.

    Made by :meth:`ChainMaps.record`. Sources are the root or cuts: behind anything else, a
    derivative by it misses what goes around it.

    Attributes
    ----------
    size : int
        Samples in the batch.
    device : torch.device
    """

    def __init__(self, chain: ChainMaps, seen: Recording, inputs: Inputs) -> None:
        self.size = batch_size(inputs)
        self.inputs = map_inputs(torch.Tensor.detach, inputs)
        self._chain, self._batched = chain, seen.batched
        self._tensors = dict(zip((x.name for x in seen.layers), seen.tensors, strict=True))
        assert seen.root is not None
        self._root, self._output = seen.root, seen.output
        self.device = seen.output.device
        self._elementwise: dict[str, ElementwiseLink | None] = {}

    def tensor(self, layer: Layer) -> Tensor:
        """What is at the root, a layer or the output, on the graph, as it was returned."""
        if layer == self._chain.root:
            return self._root
        if layer == self._chain.output:
            return self._output
        return self._tensors[layer.name]

    def representation(self, layer: Layer) -> Tensor:
        """The same without a graph, flattened: (b, n_l)."""
        return self.tensor(layer).detach().movedim(layer.axis, 0).reshape(self.size, -1)

    def elementwise(self, target: Layer) -> ElementwiseLink | None:
        """The link from the last cut before a layer, where it is ``diag(d) W`` for each sample.

        Recognised from the modules that run, and believed only if it gives what one backward pass
        with random cotangents gives.

        Parameters
        ----------
        target : Layer

        Returns
        -------
        ElementwiseLink or None
        """
        if target.name not in self._chain.modules:
            return None
        if target.name not in self._elementwise:
            self._elementwise[target.name] = self._checked_elementwise(target)
        return self._elementwise[target.name]

    def _checked_elementwise(self, target: Layer) -> ElementwiseLink | None:
        source = self._chain.cut_before(target)
        modules = self._chain.modules[target.name]
        linear, h = modules[0], self.tensor(source).detach().movedim(source.axis, 0)
        if linear is not None and h.shape[1:] != (linear.in_features,):
            return None
        weight = None if linear is None else linear.weight.detach()
        link = ElementwiseLink(weight, slopes(modules, h), self.size)
        u = seeded_normal(self.size, target.dim).to(h)
        expected = self.pull(target, source, u.unsqueeze(1))[:, 0]
        found = link.pull(u)
        if found.shape != expected.shape:
            return None
        scale = float(expected.abs().max())
        difference = float((found - expected).abs().max())
        return link if difference <= agreement_tolerance(h.dtype, scale) else None

    def _first(self, layer: Layer) -> Tensor:
        return self.tensor(layer).movedim(layer.axis, 0)

    def pull(
        self, target: Layer, source: Layer, cotangents: Tensor, max_bytes: int = _CHUNK_BYTES
    ) -> Tensor:
        r"""Rows :math:`u_k^T J` of the Jacobian from `source` to `target`.

        Parameters
        ----------
        target, source : Layer
        cotangents : Tensor of shape (b, c, n_target)
        max_bytes : int, default=2**26

        Returns
        -------
        Tensor of shape (b, c, n_source)
        """
        out = self._first(target)

        def some(which: slice) -> Tensor:
            return cotangents[:, which].transpose(0, 1).reshape(-1, *out.shape)

        return self._pull(target, source, some, cotangents.shape[1], max_bytes)

    def _pull(
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
            batched=self._batched,
            max_bytes=max_bytes,
        )
        return rows

    def operator(self, target: Layer, source: Layer) -> LinkOperator:
        """Products with the Jacobian from `source` to `target`, without forming it.

        Parameters
        ----------
        target, source : Layer

        Returns
        -------
        LinkOperator
        """
        return LinkOperator(self._first(target), self.tensor(source), source, self._batched)

    def jacobian(self, target: Layer, source: Layer, max_bytes: int = _CHUNK_BYTES) -> Tensor:
        r"""The Jacobian :math:`\partial h_{target} / \partial h_{source}` of each sample.

        Parameters
        ----------
        target, source : Layer
        max_bytes : int, default=2**26
            Bound on the gradients in flight beside the result.

        Returns
        -------
        Tensor of shape (b, n_target, n_source)
            In the dtype of the representations.

        Raises
        ------
        SkgeoError
            If a derivative is NaN or infinite, or the graph refuses one.

        Notes
        -----
        As many passes as the smaller side has coordinates, of what lies between the two: rows by
        backward passes, columns by backward passes through these.
        """
        found = None
        if target in self._chain.layers and source == self._chain.cut_before(target):
            link = self.elementwise(target)
            found = None if link is None else link.jacobian()
        if found is None and source.dim < target.dim / 2:
            found = self._by_columns(target, source, max_bytes)
        if found is None:
            units = unit_cotangents(self._first(target))
            found = self._pull(target, source, units, target.dim, max_bytes)
        # A norm reads everything once and stores nothing; a NaN anywhere survives it.
        if not bool(torch.isfinite(torch.linalg.vector_norm(found, torch.inf))):
            raise SkgeoError(
                f"Derivatives of {target.name!r} by {source.name!r} are NaN or infinite although "
                "the outputs are finite: the network is not differentiable there (for example a "
                "norm or a square root at zero)."
            )
        return found

    def _by_columns(self, target: Layer, source: Layer, max_bytes: int) -> Tensor | None:
        """Columns, unless the graph has no second derivatives."""
        eye = torch.eye(source.dim, dtype=self._root.dtype, device=self._root.device)
        try:
            operator = self.operator(target, source)
            return operator.push_columns(eye.expand(self.size, -1, -1), max_bytes)
        except SkgeoError:
            return None

    def root_jacobians(
        self, layers: Sequence[Layer] | None = None, max_bytes: int = _CHUNK_BYTES
    ) -> dict[str, Tensor]:
        r"""Jacobians :math:`A_l = \partial h_l/\partial h_0` from the root to several cuts.

        Parameters
        ----------
        layers : sequence of Layer, optional
            By default all cuts.
        max_bytes : int, default=2**26

        Returns
        -------
        dict of str to Tensor of shape (b, n_l, n_0)
            In the dtype of the representations.

        Notes
        -----
        Columns are carried from cut to cut, so that all layers together cost n_0 passes of the
        network; where the layers have fewer coordinates than that, each is pulled back alone.
        """
        chosen = [x for x in self._chain.layers if x.is_cut] if layers is None else list(layers)
        root = self._chain.root
        forward = root.dim * len(chosen)
        backward = sum(layer.dim * (place + 1) for place, layer in enumerate(chosen))
        if backward < forward:
            return {x.name: self.jacobian(x, root, max_bytes) for x in chosen}
        found: dict[str, Tensor] = {}
        before, carried = root, None
        for layer in chosen:
            try:
                link = self.elementwise(layer) if self._chain.cut_before(layer) == before else None
                if carried is None:
                    carried = self.jacobian(layer, root, max_bytes)
                elif link is not None:
                    carried = link.push_columns(carried)
                else:
                    carried = self.operator(layer, before).push_columns(carried, max_bytes)
            except SkgeoError:
                carried = self.jacobian(layer, root, max_bytes)
            found[layer.name] = carried
            before = layer
        return found


def _check_differentiable(output: Tensor, root: Tensor) -> None:
    """Refuse what would otherwise look like a network without cuts: NaN equals nothing."""
    with math_attention():
        (gradient,) = torch.autograd.grad(
            output, root, torch.ones_like(output), retain_graph=True, materialize_grads=True
        )
    if not bool(torch.isfinite(gradient).all()):
        raise SkgeoError(
            "Derivatives of the output by the input are NaN or infinite although the output is "
            "finite: the network is not differentiable there (for example a norm or a square root "
            "at zero). Add a small constant, or leave those samples out."
        )


def _is_plain(shape: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """Whether a linear layer of vectors, or an activation of anything, may lie between."""
    return len(shape) == len(before) == 1 or shape == before


def _axis(tensor: Tensor, size: int, name: str) -> int:
    fitting = [axis for axis, length in enumerate(tensor.shape) if length == size]
    if not fitting:
        raise SkgeoError(
            f"{name!r}, where the graph starts, returned {tuple(tensor.shape)} for {size} samples: "
            "no axis of it is that of the samples. Name other layers with layers=[...]."
        )
    return fitting[0]
