"""Private copy of a module, on which every measurement runs.

Hooks, functional calls and changes of mode on a shared module would affect other threads, so they
never happen on the user's module.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skgeo.exceptions import SkgeoError
from skgeo.models._kinds import has_embedding, unwrap
from skgeo.network._batch import Inputs, batch_size, map_inputs
from skgeo.network._copytree import TreeCopy, is_record, substitute
from skgeo.network._modelcheck import (
    check_finite,
    check_kind,
    check_samples_apart,
    warn_train_mode,
)
from skgeo.network._outputs import checked_outputs
from skgeo.network._positions import arranged, without_mask
from skgeo.network._selection import select, unknown_names
from skgeo.network._switches import no_fast_path

Forward = Callable[[Any, Any], Any]


class _Slot(NamedTuple):
    """An item of a container that is a parameter, or an immutable value that holds one."""

    container: Any
    key: Any
    value: Any


class Replica:
    """A private copy of a module, in eval mode, that shares its weights.

    Made by :func:`replica`. A replica must be used by one thread only; several replicas of one
    module may be used at the same time.

    Attributes
    ----------
    module : torch.nn.Module
        The copy, to which hooks may be added.
    names : tuple of str
        All parameter names in ``named_parameters()`` order, tied parameters once.
    parameters : dict of str to torch.nn.Parameter
        All parameters by name: new objects over the memory of the user's.
    selected : tuple of str
        Names of the parameters with respect to which derivatives are taken, in the order of
        `names`; only these have ``requires_grad``.
    n_parameters : int
        Number of entries of the selected parameters.
    dtype : torch.dtype
        Promoted dtype of the selected parameters.
    device : torch.device
        Device of the selected parameters.
    takes_integers : bool
        Whether there is an embedding layer, so integer inputs are indices.
    """

    def __init__(
        self, tree: TreeCopy, forward: Forward | None, parameters: str | Sequence[str] | None
    ) -> None:
        self.module = tree.root
        self.parameters = dict(tree.root.named_parameters())
        self.names = tuple(self.parameters)
        sources = {name: tree.sources[id(p)] for name, p in self.parameters.items()}
        trainable = {name for name, source in sources.items() if source.requires_grad}
        self.selected = () if parameters is None else select(tree.root, trainable, parameters)
        for name in self.selected:
            self.parameters[name].requires_grad_(True)
        chosen = [self.parameters[name] for name in self.selected]
        self.n_parameters = sum(p.numel() for p in chosen)
        known = chosen or _floating(tree.root)
        self.device = known[0].device if known else torch.device("cpu")
        self.dtype = known[0].dtype if known else torch.get_default_dtype()
        for parameter in chosen:
            self.dtype = torch.promote_types(self.dtype, parameter.dtype)
        self.takes_integers = has_embedding(tree.root)
        # A forward function with the user's module in its closure must use the copy instead.
        self._forward: list[Forward | None] = [tree.visit(forward)]
        holders = [self._forward, *(vars(m) for m in tree.modules)]
        self._slots = _find_slots(holders, self.parameters)
        self._writable = [d for m in tree.modules for d in (vars(m), m._buffers)]
        self._containers = [
            held
            for module in tree.modules
            for held in vars(module).values()
            if type(held) in (list, dict, OrderedDict, set, deque)
        ]
        # Whether the forward pass writes to its inputs, which then get copies.
        self.writes_inputs = False
        # Axis of the classes in the outputs of a batch, if known not to be the last.
        self.class_axis: int | None = None
        # Parameters over the user's memory. Buffers have been copied.
        self.shared = dict(self.parameters)
        # Kept results of the user's parameters, through which no derivative passes.
        self.derived = tree.derived if parameters is not None else []
        # The coarsest dtype in which anything is computed; known once the network has run.
        self.arithmetic = self.dtype
        self._originals = {id(source): (name, source) for name, source in sources.items()}

    def __repr__(self) -> str:
        return (
            f"Replica({type(self.module).__name__}, n_parameters={self.n_parameters}, "
            f"dtype={self.dtype}, device={self.device})"
        )

    def __call__(self, inputs: Inputs) -> Tensor:
        """Run the forward pass and check its result; classes are moved to the last axis.

        inputs: a batch, samples first, passed to the module as one argument. Positions that do not
            count, by a mask that the inputs carry, have zeros as outputs.
        Raises SkgeoError if the result is not one real floating tensor with samples first.
        """
        # -> (b, ...)
        inputs, mask = without_mask(inputs)
        if self.writes_inputs:
            inputs = map_inputs(Tensor.clone, inputs)
        with no_fast_path():
            forward = self.forward
            outputs = self.module(inputs) if forward is None else forward(self.module, inputs)
        return arranged(checked_outputs(outputs, batch_size(inputs)), self.class_axis, mask)

    @property
    def forward(self) -> Forward | None:
        """Forward function of the copy; None for ``module(inputs)``."""
        return self._forward[0]

    @contextmanager
    def restored(self, *, containers: bool = True) -> Iterator[None]:
        """Restore, on exit, every attribute that was set on a module of the copy."""
        before = [(attributes, dict(attributes)) for attributes in self._writable]
        held = [(each, copy.copy(each)) for each in self._containers] if containers else []
        try:
            yield
        finally:
            for attributes, saved in before:
                attributes.clear()
                attributes.update(saved)
            for each, as_it_was in held:
                each.clear()
                (each.extend if isinstance(each, (list, deque)) else each.update)(as_it_was)

    def own(self, names: Iterable[str]) -> None:
        """Give parameters memory of their own, since the forward pass writes to them."""
        for name in names:
            self.parameters[name].data = self.parameters[name].data.clone()
        self.shared = {name: p for name, p in self.shared.items() if name not in names}

    def call(self, parameters: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        """Run the forward pass as a function of some of the parameters.

        parameters: tensors to use in place of the parameters of these names; the others stay.
        inputs: a batch, samples first.
        Raises SkgeoError for an unknown name, or as for a plain call.

        Unlike ``torch.func.functional_call``, this also replaces references to a parameter in lists
        and closures (the flat weights of recurrent layers). Afterwards it restores every attribute
        that the forward pass has set, so no tensor of a ``torch.func`` transform remains. It must
        not run in two threads at once on one replica.
        """
        # -> (b, ...)
        unknown = [name for name in parameters if name not in self.parameters]
        if unknown:
            raise SkgeoError(unknown_names(unknown, self.names))
        tensors = {id(self.parameters[name]): tensor for name, tensor in parameters.items()}
        try:
            with self.restored(containers=False):
                for slot in self._slots:
                    slot.container[slot.key] = substitute(slot.value, tensors)
                return self(inputs)
        finally:
            for slot in self._slots:
                slot.container[slot.key] = slot.value

    def check_reached(self, outputs: Tensor) -> None:
        """Raise SkgeoError if outputs with their graph depend on no selected parameter."""
        if not self.reached(outputs):
            raise SkgeoError(
                "The outputs do not depend on any of the selected parameters "
                f"({', '.join(self.selected[:5])}{', ...' if len(self.selected) > 5 else ''}). "
                "Run the forward pass with gradients (without no_grad, detach or numpy), or select "
                "other parameters."
            )

    def reached(self, outputs: Tensor) -> tuple[str, ...]:
        """Names of the selected parameters on which outputs depend, in the order of `selected`.

        outputs: a result of this replica with its graph.
        Raises SkgeoError if the graph contains the user's own parameters: they are in an object
        that the copy shares, and derivatives would be zero.
        """
        leaves = _graph_leaves(outputs)
        for leaf in leaves:
            if id(leaf) in self._originals:
                name = self._originals[id(leaf)][0]
                raise SkgeoError(
                    f"The forward pass reaches parameter {name!r} through an object that is "
                    "neither a module nor a plain container, so its derivative cannot be taken on "
                    "a copy of the module. Keep modules and parameters as attributes of modules, "
                    "or in lists, tuples and dicts."
                )
        ids = {id(leaf) for leaf in leaves}
        return tuple(name for name in self.selected if id(self.parameters[name]) in ids)


def replica(
    module: nn.Module,
    *,
    forward: Forward | None = None,
    parameters: str | Sequence[str] | None = "trainable",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Replica:
    """Make a private copy of a module for measurements.

    The module itself is not changed, and other threads may use it meanwhile. The copy is in eval
    mode.

    module: wrappers of ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel`` are
        removed.
    forward: ``forward(module, inputs) -> Tensor`` of shape (b, ...); by default ``module(inputs)``.
    parameters: parameters with respect to which derivatives are taken: "trainable" ones (with
        ``requires_grad``), "all" floating ones, a list of names, or None.
    device: of the copied parameters and buffers; by default parameters are shared.
    dtype: of floating parameters and buffers; by default it does not change.

    The cost is one pass over the objects of the tree and over the weights (to check that they are
    finite), and the memory of the buffers.

    >>> from torch import nn
    >>> from skgeo.network import replica
    >>> net = nn.Linear(3, 2)
    >>> copy = replica(net)
    >>> copy.selected, copy.n_parameters
    (('weight', 'bias'), 8)
    >>> copy.parameters["weight"].data_ptr() == net.weight.data_ptr()
    True
    """
    source = unwrap(check_kind(module))
    check_finite(source)
    check_samples_apart(source)
    warn_train_mode(source)
    tree = TreeCopy(source, None if device is None else _indexed(torch.device(device)))
    if tree.misplaced:
        raise SkgeoError(
            f"With device={str(device)!r}, tensors outside parameters and buffers are "
            f"elsewhere: {', '.join(tree.misplaced)}. Register them with register_buffer(...), or "
            "move the module before."
        )
    if dtype is not None and any(p.dtype != dtype for p in _floating(tree.root)):
        tree.root.to(dtype)
    return Replica(tree, forward, parameters)


def _floating(module: nn.Module) -> list[Tensor]:
    """Floating parameters, or floating buffers of a module without any."""
    found: list[Tensor] = [p for p in module.parameters() if p.is_floating_point()]
    return found or [b for b in module.buffers() if b.is_floating_point()]


def _indexed(device: torch.device) -> torch.device:
    """The device with its index, so devices can be compared."""
    if device.type == "cpu" or device.index is not None:
        return device
    return torch.empty(0, device=device).device


def _find_slots(holders: list[Any], parameters: Mapping[str, Tensor]) -> list[_Slot]:
    """Items of nested lists and dicts that are or hold parameters."""
    stand_ins = {id(p): torch.empty(0) for p in parameters.values()}
    slots: list[_Slot] = []
    entered: set[int] = set()

    def search(container: Any, key: Any, value: Any) -> None:
        if isinstance(value, (dict, list)):
            enter(value)
        elif is_record(value):
            enter(vars(value))
        elif substitute(value, stand_ins) is not value:
            slots.append(_Slot(container, key, value))

    def enter(container: Any) -> None:
        if id(container) not in entered:
            entered.add(id(container))
            pairs = container.items() if isinstance(container, dict) else enumerate(container)
            for key, item in list(pairs):
                search(container, key, item)

    for holder in holders:
        enter(holder)
    return slots


def _graph_leaves(outputs: Tensor) -> list[Tensor]:
    leaves, seen = [], set()
    stack = [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        stack.extend(parent for parent, _ in node.next_functions)
    return leaves
