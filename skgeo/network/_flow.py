"""Data flow of a network: its steps, and which of them read which."""

from __future__ import annotations

import inspect
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx, nn

from skgeo._cached import cached_property
from skgeo.exceptions import SkgeoError
from skgeo.models._kinds import unwrap
from skgeo.network._activation import Activation
from skgeo.network._batch import map_inputs
from skgeo.network._copytree import TreeCopy, address
from skgeo.network._modelcheck import check_kind
from skgeo.network._replica import Replica
from skgeo.network._tracer import ExampleTracer, PlaceholderTracer
from skgeo.network._vocabulary import (
    Step,
    describe_call,
    describe_module,
    is_leaf,
    rewritten,
)

Forward = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class FlowNode:
    """One step of a forward pass.

    Attributes
    ----------
    name : str
        Unique in its flow.
    kind : str
        ``"input"``, ``"output"``, ``"parameter"`` (one that belongs to no known layer),
        ``"constant"`` (any other tensor of the module), ``"unread"`` (a module that could not be
        traced), or a kind of :class:`~skgeo.network._vocabulary.Step`.
    what : str
        Name of an activation; otherwise the class or function.
    module : str or None
        Dotted name of the module, None for calls of functions and methods.
    parents, users : tuple of str
        Names of the steps that it reads, with repetitions, and of those that read it, in order.
    activation : Activation or None
        The activation of a step of kind ``"activation"``.
    known : bool
        Whether its place in the network is known. False inside a module that could not be traced:
        the inputs of its parts, and the steps that read their outputs, are then unknown.
    tensors : tuple of str
        For a tensor of the module that is read outside the call of a known layer, the parameters
        and buffers that it is, shares memory with, or is computed from with a gradient.
    """

    name: str
    kind: str
    what: str
    module: str | None
    parents: tuple[str, ...]
    users: tuple[str, ...]
    activation: Activation | None = None
    known: bool = True
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flow:
    """The data flow of a module.

    Attributes
    ----------
    root : torch.nn.Module
        The user's module, not changed.
    nodes : tuple of FlowNode
        In the order in which they run; steps whose place is not known come last.
    unread : tuple of str
        Modules that were not understood, with the reason.
    """

    root: nn.Module
    nodes: tuple[FlowNode, ...]
    unread: tuple[str, ...]

    def __getitem__(self, name: str) -> FlowNode:
        """The step of this name."""
        return self._by_name[name]

    def __iter__(self) -> Iterator[FlowNode]:
        return iter(self.nodes)

    @cached_property
    def _by_name(self) -> dict[str, FlowNode]:
        return {node.name: node for node in self.nodes}

    def layer(self, node: FlowNode) -> nn.Module:
        """The user's module of a step."""
        assert node.module is not None
        return self.root.get_submodule(node.module) if node.module else self.root

    def parents(self, node: FlowNode) -> list[FlowNode]:
        """The steps that a step reads."""
        return [self[name] for name in node.parents]

    def users(self, node: FlowNode) -> list[FlowNode]:
        """The steps that read a step."""
        return [self[name] for name in node.users]

    def calls(self, module: str) -> int:
        """Number of calls of the module of this name."""
        return self._calls[module]

    @cached_property
    def _calls(self) -> Counter[str]:
        return Counter(node.module for node in self.nodes if node.module is not None)

    def is_single(self, node: FlowNode) -> bool:
        """Whether a step is the only call of a module, and nothing else reads its tensors."""
        if node.module is None or self.calls(node.module) != 1:
            return False
        return not self.is_read_outside(node.module)

    def is_read_outside(self, module: str) -> bool:
        """Whether a step other than a call of the module reads one of its tensors."""
        if not self._read_outside:
            return False
        layer = self.root.get_submodule(module) if module else self.root
        tensors = (*layer.parameters(), *layer.buffers())
        return any(id(tensor) in self._read_outside for tensor in tensors)

    @cached_property
    def _read_outside(self) -> frozenset[int]:
        """Identities of the tensors of layers that other steps read too."""
        names = {name for node in self.nodes for name in node.tensors}
        return frozenset(id(_attribute(self.root, name)) for name in names)

    def layers(self, *kinds: str) -> list[tuple[FlowNode, Any]]:
        """Steps of these kinds that are the only reader of their module, with the modules."""
        return [
            (node, self.layer(node))
            for node in self.nodes
            if node.kind in kinds and self.is_single(node)
        ]

    def readers(
        self, node: FlowNode, passing: Sequence[str]
    ) -> tuple[list[FlowNode], list[FlowNode]]:
        """Steps that read a result directly or through steps of `passing` kinds, and the latter."""
        ends: dict[str, FlowNode] = {}
        passed: dict[str, FlowNode] = {}
        waiting = self.users(node)
        while waiting:
            user = waiting.pop(0)
            if user.kind not in passing:
                ends[user.name] = user
            elif user.name not in passed:
                passed[user.name] = user
                waiting += self.users(user)
        return list(ends.values()), list(passed.values())

    @property
    def output(self) -> FlowNode | None:
        """The step that returns the outputs of the network; None if it is not known."""
        last = [node for node in self.nodes if node.kind == "output" and node.known]
        return self[last[0].parents[0]] if last and len(last[0].parents) == 1 else None


def read_flow(
    module: nn.Module | Replica, *, forward: Forward | None = None, example: Any = None
) -> Flow:
    """Read the data flow of a module, on a private copy.

    module: of any architecture. Layers of ``torch.nn`` are steps; other modules are traced. A
        replica is used itself, and left unchanged.
    forward: ``forward(module, inputs)``; by default ``module(inputs)``. A replica has its own.
    example: a few samples, in the dtype of the module, whose shapes are used if the module cannot
        be traced without data.
    Raises NotAModelError if `module` is not a ``torch.nn.Module``, SkgeoError if its tensors have
    no values.

    The forward pass is run once on a placeholder that records the operations. A module whose
    control flow depends on the values of its input, or without an example on its shape, becomes
    one step of kind ``"unread"``. The modules inside are read one by one, without their inputs and
    the steps that read them. What is not understood is listed in ``unread``.
    An in-place operation is treated as one that returns a new tensor, which is equivalent unless
    the old one is used again.

    >>> from torch import nn
    >>> flow = read_flow(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    >>> [node.kind for node in flow]
    ['input', 'linear', 'activation', 'linear', 'output']
    """
    if isinstance(module, Replica):
        copy, source = module, module.module
    else:
        source = unwrap(check_kind(module))
        copy = Replica(TreeCopy(source), forward, None)
    opaque: dict[str, str] = {}
    nodes = _trace(copy, "", opaque)
    if opaque and example is not None:
        less: dict[str, str] = {}
        found = _trace(copy, "", less, example)
        if len(less) < len(opaque) or ("" in opaque and "" not in less):
            nodes, opaque = found, less
    seen: set[str] = set()
    while len(seen) < len(opaque):
        for path in [path for path in opaque if path not in seen]:
            seen.add(path)
            for child in _children(source, path):
                part = _trace(copy, child, opaque)
                nodes += [replace(node, known=False) for node in part]
    unread = [f"{path or type(source).__name__}: {reason}" for path, reason in opaque.items()]
    for node in nodes:
        if node.kind == "other" and node.module is not None:
            reason = f"{node.what} is not a layer whose symmetries are known"
            unread.append(f"{node.module or node.what}: {reason}")
        elif node.kind == "parameter":
            unread.append(f"{node.what}: a parameter used outside the layers of torch.nn")
    return Flow(source, tuple(nodes), tuple(dict.fromkeys(unread)))


def _trace(copy: Replica, path: str, opaque: dict[str, str], example: Any = None) -> list[FlowNode]:
    """Steps of one module; modules that cannot be traced are added to `opaque`."""
    nodes = None
    while nodes is None:  # every attempt starts from the same copy
        with copy.restored(), _all_trained(copy):
            nodes = _attempt(copy, path, opaque, example)
    return nodes


@contextmanager
def _all_trained(copy: Replica) -> Iterator[None]:
    """All floating parameters with a gradient, to see which tensors are computed from them."""
    before = [(p, p.requires_grad) for p in copy.module.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


def _attempt(
    copy: Replica, path: str, opaque: dict[str, str], example: Any
) -> list[FlowNode] | None:
    """One run on a placeholder; None if it found a module that cannot be traced."""
    root = copy.module
    part = root.get_submodule(path) if path else root
    if example is None:
        tracer = PlaceholderTracer(root)
    else:
        tracer = ExampleTracer(root, map_inputs(Tensor.clone, example))
    steps = {
        name: describe_module(m)
        for name, m in root.named_modules()
        if is_leaf(m) and name not in opaque
    }
    inside: list[str] = []
    # Modules inside a step are not steps themselves; the part itself may be inside one.
    closed = {*steps, *opaque} - set(_around(path))
    for name, child in list(root.named_modules()):
        if not closed.isdisjoint(_around(name)):
            continue
        _record_calls(tracer, child, name, inside, leaf=name in steps or name in opaque)
    forward = None if path else copy.forward
    entered = [tracer.enter(name) for name in _inputs_of(part, path)]
    try:
        result = part(*entered) if forward is None else forward(part, *entered)
        tracer.create_node("output", "output", (tracer.create_arg(result),), {})
    except Exception as error:  # a forward pass may raise anything on a placeholder
        failed = inside[-1] if inside else path
        if failed in opaque:
            raise SkgeoError(
                f"The forward function cannot be traced: {type(error).__name__}: {error}"
            ) from error
        opaque[failed] = (
            f"{type(root.get_submodule(failed) if failed else root).__name__} cannot be "
            f"followed {'without data ' * (example is None)}({type(error).__name__})"
        )
        return _closed(root, path) if failed == path else None
    return _as_nodes(tracer.graph, root, steps, opaque, prefix=path)


def _around(name: str) -> list[str]:
    """Dotted names of the modules that contain a module."""
    parts = name.split(".") if name else []
    return [".".join(parts[:end]) for end in range(len(parts))]


def _inputs_of(part: nn.Module, path: str) -> list[str]:
    """Names of the required arguments of a module; the network itself has one."""
    if not path:
        return ["x"]
    parameters = inspect.signature(type(part).forward).parameters.values()
    needed = [
        p.name
        for p in list(parameters)[1:]
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return needed or ["x"]


def _closed(source: nn.Module, path: str) -> list[FlowNode]:
    """A module as one unknown step."""
    what = type(source.get_submodule(path) if path else source).__name__
    names = [f"{path}/{name}" if path else name for name in ("x", "module", "output")]
    return [
        FlowNode(names[0], "input", "x", None, (), (names[1],)),
        FlowNode(names[1], "unread", what, path, (names[0],), (names[2],)),
        FlowNode(names[2], "output", "output", None, (names[1],), ()),
    ]


def _record_calls(
    tracer: PlaceholderTracer, module: nn.Module, name: str, inside: list[str], *, leaf: bool
) -> None:
    """Record the calls of a module of the copy."""
    if leaf:
        tracer.leaves[name] = module.forward
        vars(module).update(_forward_hooks=OrderedDict(), _forward_pre_hooks=OrderedDict())

        def call(*args: Any, **kwargs: Any) -> Any:
            return tracer.create_proxy("call_module", name, args, kwargs)

    else:
        compute = rewritten(module)

        def call(*args: Any, **kwargs: Any) -> Any:
            inside.append(name)
            result = compute(*args, **kwargs)
            inside.pop()  # not if it raises: the innermost module is reported
            return result

    vars(module)["forward"] = call


def _as_nodes(
    graph: fx.Graph,
    copied: nn.Module,
    steps: dict[str, Step],
    opaque: dict[str, str],
    prefix: str,
) -> list[FlowNode]:
    _follow_in_place(graph, copied)
    described = {node: _describe(node, steps, opaque, copied) for node in graph.nodes}
    # Reading a shape does not count as reading the result.
    dropped = {node for node, step in described.items() if step.kind == "shape"}
    for node in graph.nodes:
        if described[node].kind == "select" and node.all_input_nodes[0] in dropped:
            dropped.add(node)
    mark = f"{prefix}/" if prefix else ""
    return [
        FlowNode(
            mark + node.name,
            described[node].kind,
            described[node].what,
            node.target if node.op == "call_module" else None,
            tuple(mark + p.name for p in _arguments(node) if p not in dropped),
            tuple(mark + u.name for u in node.users if u not in dropped),
            described[node].activation,
            tensors=_sources(copied, str(node.target)) if node.op == "get_attr" else (),
        )
        for node in graph.nodes
        if node not in dropped
    ]


def _sources(copied: nn.Module, path: str) -> tuple[str, ...]:
    """Names of the parameters and buffers behind a tensor that a step reads."""
    tensor = _attribute(copied, path)
    found: set[int] = set()
    waiting, seen = [tensor.grad_fn], set()
    while waiting:  # back to the leaves it was computed from
        function = waiting.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        found.add(id(getattr(function, "variable", None)))
        waiting += [before for before, _ in function.next_functions]
    named = [*copied.named_parameters(), *copied.named_buffers()]
    memory = address(tensor)
    return tuple(
        name
        for name, each in named
        if each is tensor or id(each) in found or memory == address(each) != 0
    )


def _arguments(node: fx.Node) -> list[fx.Node]:
    """Steps among the arguments of a call, in order and with repetitions."""
    found: list[fx.Node] = []

    def note(argument: fx.Node) -> fx.Node:
        found.append(argument)
        return argument

    fx.node.map_arg((node.args, node.kwargs), note)
    return found


def _describe(
    node: fx.Node, steps: dict[str, Step], opaque: dict[str, str], copied: nn.Module
) -> Step:
    if node.op in ("placeholder", "output"):
        return Step("input" if node.op == "placeholder" else "output", str(node.target))
    if node.op == "get_attr":
        # Tensors computed from parameters alone require a gradient as well.
        tensor = _attribute(copied, str(node.target))
        names = {id(parameter): name for name, parameter in copied.named_parameters()}
        name = names.get(id(tensor), names.get(id(tensor._base), str(node.target)))
        return Step("parameter" if tensor.requires_grad else "constant", name)
    if node.op == "call_module":
        if node.target in opaque:
            return Step("unread", opaque[node.target].split()[0])
        return steps[str(node.target)]
    step = describe_call(node.target, node.args, node.kwargs, method=node.op == "call_method")
    if step.kind == "other" and step.what in ("view", "reshape") and _flattens(node):
        return Step("flatten", step.what)
    return step


def _flattens(node: fx.Node) -> bool:
    """Whether, in the example, a step flattens all axes but that of the samples."""
    before, after = node.all_input_nodes[0].meta.get("shape"), node.meta.get("shape")
    return bool(before and after and len(after) == 2 and before[0] == after[0])


def _follow_in_place(graph: fx.Graph, copied: nn.Module) -> None:
    """Let steps that read a tensor after it was overwritten read the step that overwrote it."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op == "call_module":
            inplace = getattr(copied.get_submodule(str(node.target)), "inplace", False) is True
        else:
            inplace = node.kwargs.get("inplace") is True or (
                node.op == "call_method" and str(node.target).endswith("_")
            )
        if inplace and node.all_input_nodes:
            place = order[node]
            node.all_input_nodes[0].replace_all_uses_with(
                node, delete_user_cb=lambda user, place=place: order[user] > place
            )


def _attribute(module: nn.Module, path: str) -> Tensor:
    value: Any = module
    for name in path.split("."):
        value = getattr(value, name)
    assert isinstance(value, Tensor)
    return value


def _children(source: nn.Module, path: str) -> list[str]:
    """Dotted names of the modules inside a module, with lists and dicts expanded."""
    found: list[str] = []
    for name, child in (source.get_submodule(path) if path else source).named_children():
        full = f"{path}.{name}" if path else name
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            found += _children(source, full)
        else:
            found.append(full)
    return found
