import copy
import dataclasses
import functools
import threading
import types
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from helpers.cases import BY_NAME, CASES
from helpers.networks import linear
from helpers.oracles import assert_untouched
from skgeo.exceptions import SkgeoError
from skgeo.network import replica
from skgeo.network._copytree import TreeCopy

X = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4)


def perturbed(module):
    """A deep copy with every parameter somewhere else, and the new values by name."""
    other = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return other, {name: p.detach().clone() for name, p in other.named_parameters()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
class TestEveryLayer:
    def test_computes_what_the_module_does(self, case):
        module, inputs = case.module(), case.inputs()
        with assert_untouched(module):
            copied = replica(module, forward=case.forward)
            torch.testing.assert_close(copied(inputs), case.run(module, inputs))

    def test_shares_parameters(self, case):
        module = case.module()
        copied = replica(module, forward=case.forward)
        theirs = dict(module.named_parameters())
        assert copied.names == copied.selected == tuple(theirs)
        assert copied.n_parameters == sum(p.numel() for p in theirs.values()) < 400
        for name, parameter in copied.parameters.items():
            assert parameter is not theirs[name]
            assert parameter.data_ptr() == theirs[name].data_ptr()
            assert isinstance(parameter, nn.Parameter)

    def test_shares_no_object_that_is_written_to(self, case):
        module = case.module()
        copied = replica(module, forward=case.forward)
        theirs = {id(m) for m in module.modules()} | {id(vars(m)) for m in module.modules()}
        theirs |= {id(v) for m in module.modules() for v in vars(m).values() if type(v) is dict}
        theirs |= {id(b) for b in module.buffers()}
        for ours in copied.module.modules():
            assert {id(ours), id(vars(ours))}.isdisjoint(theirs)
            assert {id(v) for v in vars(ours).values()}.isdisjoint(theirs)
        assert {id(b) for b in copied.module.buffers()}.isdisjoint(theirs)

    def test_call_equals_a_module_with_those_parameters(self, case):
        module, inputs = case.module(), case.inputs()
        copied = replica(module, forward=case.forward)
        before = copied(inputs)
        other, parameters = perturbed(module)
        with assert_untouched(module):
            found = copied.call(parameters, inputs)
        torch.testing.assert_close(found, case.run(other, inputs))
        assert not torch.allclose(found, before)
        assert torch.equal(copied(inputs), before)

    def test_call_differentiates_through_every_slot(self, case):
        module, inputs = case.module(), case.inputs()
        copied = replica(module, forward=case.forward)
        other, parameters = perturbed(module)
        leaves = {name: p.requires_grad_(True) for name, p in parameters.items()}
        found = torch.autograd.grad(
            copied.call(leaves, inputs).sum(), list(leaves.values()), materialize_grads=True
        )
        expected = torch.autograd.grad(
            case.run(other, inputs).sum(), list(other.parameters()), materialize_grads=True
        )
        torch.testing.assert_close(found, expected)


class TestCall:
    def test_restores_after_an_error(self):
        copied = replica(BY_NAME["lstm"].module())
        inputs = BY_NAME["lstm"].inputs()
        before = copied(inputs)
        with pytest.raises(RuntimeError):
            copied.call({"rnn.weight_hh_l0": torch.ones(2, 2, dtype=torch.float64)}, inputs)
        assert torch.equal(copied(inputs), before)
        assert copied.module.rnn._flat_weights[1] is copied.parameters["rnn.weight_hh_l0"]

    def test_puts_back_what_the_forward_pass_stores(self):
        class Remembers(nn.Linear):
            last = None

            def forward(self, x):
                self.last = super().forward(x)
                return self.last

        copied = replica(Remembers(4, 3).double())
        torch.func.vmap(lambda x: copied.call({}, x[None]))(X)
        assert "last" not in vars(copied.module)

    def test_names_unknown_parameters(self):
        with pytest.raises(SkgeoError, match=r"No parameter named 'wieght'.*Did you mean 'weight'"):
            replica(linear(4, 3)).call({"wieght": torch.ones(3, 4)}, X)


def _functional(weight, bias):
    return lambda x: nn.functional.linear(x, weight, bias)


@dataclasses.dataclass(frozen=True)
class Pair:
    weight: torch.Tensor
    rest: list


HOLDERS = {
    "list": (lambda m: [m.weight, m.bias], lambda h, x: nn.functional.linear(x, *h)),
    "tuple": (lambda m: (m.weight, m.bias), lambda h, x: nn.functional.linear(x, *h)),
    "nested": (
        lambda m: {"a": [(m.weight,), {"b": m.bias}]},
        lambda h, x: nn.functional.linear(x, h["a"][0][0], h["a"][1]["b"]),
    ),
    "module in dict": (lambda m: {"m": m}, lambda h, x: h["m"](x)),
    "bound method": (lambda m: m.forward, lambda h, x: h(x)),
    "partial": (
        lambda m: functools.partial(nn.functional.linear, weight=m.weight, bias=m.bias),
        lambda h, x: h(x),
    ),
    "partial of method": (lambda m: functools.partial(m.forward), lambda h, x: h(x)),
    "closure": (lambda m: _functional(m.weight, m.bias), lambda h, x: h(x)),
    "closure on module": (lambda m: lambda x: m(x), lambda h, x: h(x)),
    "default argument": (lambda m: lambda x, layer=m: layer(x), lambda h, x: h(x)),
    "weak reference": (lambda m: [weakref.ref(m), weakref.ref(m.bias)], lambda h, x: h[0]()(x)),
    "namespace": (
        lambda m: types.SimpleNamespace(m=m, b=m.bias),
        lambda h, x: nn.functional.linear(x, h.m.weight, h.b),
    ),
    "frozen dataclass": (
        lambda m: Pair(m.weight, [m.bias]),
        lambda h, x: nn.functional.linear(x, h.weight, h.rest[0]),
    ),
}


class Holder(nn.Module):
    """Reaches its layer in some other way than as a submodule."""

    def __init__(self, hold, use):
        super().__init__()
        self.layer = linear(4, 3)
        self.held = hold(self.layer)
        self.use = use

    def forward(self, x):
        return self.use(self.held, x)


class TestReferences:
    @pytest.mark.parametrize("kind", HOLDERS)
    def test_are_moved_along(self, kind):
        module = Holder(*HOLDERS[kind])
        with assert_untouched(module):
            copied = replica(module)
            assert copied.reached(copied(X)) == ("layer.weight", "layer.bias")
            _, parameters = perturbed(module)
            expected = nn.functional.linear(X, *parameters.values())
            torch.testing.assert_close(copied.call(parameters, X), expected)
            torch.testing.assert_close(copied(X), module(X))

    def test_hooks_that_are_methods_act_for_the_copy(self):
        class Hooked(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = linear(4, 3)
                self.scale = nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
                self.layer.register_forward_hook(self.rescale)
                self.layer.register_forward_hook(functools.partial(self.shift, by=self.scale))

            def rescale(self, module, args, output):
                return output * self.scale

            def shift(self, module, args, output, by):
                return output + by

            def forward(self, x):
                return self.layer(x)

        module = Hooked().eval()
        copied = replica(module)
        torch.testing.assert_close(copied(X), module(X))
        assert "scale" in copied.reached(copied(X))
        _, parameters = perturbed(module)
        expected = (
            nn.functional.linear(X, parameters["layer.weight"], parameters["layer.bias"])
            * parameters["scale"]
            + parameters["scale"]
        )
        torch.testing.assert_close(copied.call(parameters, X), expected)

    def test_forward_that_closes_over_the_module(self):
        module = linear(4, 3)
        copied = replica(module, forward=lambda _, x: module(x))
        assert copied.reached(copied(X)) == ("weight", "bias")

    def test_out_of_reach_are_refused(self):
        class Opaque:
            def __init__(self, parameter):
                self.parameter = parameter

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.ones(4, 3, dtype=torch.float64))
                self.held = Opaque(self.weight)

            def forward(self, x):
                return x @ self.held.parameter

        copied = replica(Net())
        with pytest.raises(SkgeoError, match="'weight' through an object"):
            copied.reached(copied(X))

    def test_ties_and_shared_modules_stay(self):
        shared = nn.Linear(4, 4)
        module = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(4, 4))
        module[3].weight = shared.weight
        copied = replica(module)
        assert copied.module[0] is copied.module[2]
        assert copied.module[3].weight is copied.module[0].weight
        assert copied.names == ("0.weight", "0.bias", "3.bias")

    def test_ties_stay_on_another_device(self):
        module = BY_NAME["embedding_tied"].module()
        copied = TreeCopy(module, torch.device("meta")).root
        assert copied.out.weight is copied.embedding.weight
        assert {p.device.type for p in copied.parameters()} == {"meta"}
        assert {p.device.type for p in module.parameters()} == {"cpu"}

    def test_unregistered_modules_are_copied_in_eval_mode(self):
        class Net(nn.Linear):
            def forward(self, x):
                return self.extra[0](super().forward(x))

        module = Net(4, 3).double().eval()
        module.extra = [nn.BatchNorm1d(3).double()]
        copied = replica(module)
        assert not copied.module.extra[0].training
        copied(X)
        assert module.extra[0].num_batches_tracked == 0
        assert copied.names == ("weight", "bias")


class TestUntouched:
    def test_locks_and_graph_tensors(self):
        class Net(nn.Linear):
            def __init__(self):
                super().__init__(4, 3)
                self.lock = threading.Lock()
                self.scaled = self.weight * 2
                self.register_buffer("twice", self.weight * 2)

            def forward(self, x):
                with self.lock:
                    return super().forward(x)

        module = Net().double()
        with pytest.raises((TypeError, RuntimeError)):
            copy.deepcopy(module)
        with assert_untouched(module):
            copied = replica(module)
            torch.testing.assert_close(copied(X), module(X))
        assert copied.module.lock is module.lock
        assert not copied.module.scaled.requires_grad

    def test_what_a_forward_pass_writes_to(self):
        class Writes(nn.Linear):
            def __init__(self):
                super().__init__(4, 3)
                self.register_buffer("count", torch.zeros(()))
                self.cache = torch.zeros(3)
                self.history = []
                self.seen = {"n": [0]}

            def forward(self, x):
                self.count += 1
                self.cache += 1
                self.history.append(x)
                self.seen["n"][0] += len(x)
                self.last = x
                return super().forward(x)

        module = Writes().double()
        with assert_untouched(module):
            replica(module)(X)
        assert module.count == 0
        assert torch.equal(module.cache, torch.zeros(3))
        assert module.history == []
        assert module.seen == {"n": [0]}

    def test_mode_methods_are_not_run(self):
        class Merges(nn.Linear):
            def train(self, mode=True):
                raise AssertionError("merges weights in place")

        module = Merges(4, 3)
        assert module.training
        assert not replica(module).module.training

    def test_gradients_and_backward_hooks(self):
        seen = []
        module = linear(4, 3)
        module.register_full_backward_hook(lambda *args: seen.append(args))
        module.weight.register_hook(seen.append)
        module(X.clone().requires_grad_()).sum().backward()
        assert len(seen) == 2
        seen.clear()
        with assert_untouched(module):
            copied = replica(module)
            copied(X).sum().backward()
        assert seen == []
        assert copied.parameters["weight"].grad is not module.weight.grad

    def test_frozen_parameters_stay_frozen(self):
        module = BY_NAME["mlp"].module()
        module[0].weight.requires_grad_(False)
        with assert_untouched(module):
            copied = replica(module, parameters="all")
        assert copied.parameters["0.weight"].requires_grad

    def test_inference_tensors(self):
        with torch.inference_mode():
            module = linear(4, 3)
            copied = replica(module, parameters="all")
        copied(X).sum().backward()
        assert copied.parameters["weight"].grad is not None

    def test_threads(self):
        case = BY_NAME["lstm"]
        module, inputs = case.module(), case.inputs()
        _, parameters = perturbed(module)

        def work(index):
            copied = replica(module)
            return [
                copied.call({n: p * (1 + index) for n, p in parameters.items()}, inputs)
                for _ in range(5)
            ]

        expected = [work(index) for index in range(8)]
        with assert_untouched(module), ThreadPoolExecutor(8) as pool:
            found = list(pool.map(work, range(8)))
        for ours, theirs in zip(found, expected, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                assert torch.equal(one, other)


class TestParametrised:
    def test_parametrisation(self):
        class Double(nn.Module):
            def forward(self, weight):
                return 2 * weight

        module = linear(4, 3)
        parametrize.register_parametrization(module, "weight", Double())
        copied = replica(module.eval())
        assert set(copied.names) == {"bias", "parametrizations.weight.original"}
        other, parameters = perturbed(module)
        torch.testing.assert_close(copied.call(parameters, X), other(X))

    def test_weight_norm_by_hook(self):
        module = linear(4, 3)
        with pytest.warns(FutureWarning, match="deprecated"):
            nn.utils.weight_norm(module)
        with assert_untouched(module):
            copied = replica(module)
            assert copied.reached(copied(X)) == ("bias", "weight_g", "weight_v")
            before = copied(X)
            parameters = {name: p.detach() * 2 for name, p in module.named_parameters()}
            # Twice the gain and the shift; the length of the direction does not matter.
            torch.testing.assert_close(copied.call(parameters, X), 2 * before)

    def test_spectral_norm_leaves_its_vectors(self):
        module = nn.utils.parametrizations.spectral_norm(linear(4, 3)).train()
        with assert_untouched(module):
            replica(module)(X)


class TestWrappers:
    def test_compiled(self):
        net = BY_NAME["mlp"].module()
        copied = replica(torch.compile(net, backend="eager"))
        assert type(copied.module) is nn.Sequential
        assert copied.names[0] == "0.weight"
        torch.testing.assert_close(copied(X), net(X))

    def test_compiled_in_place(self):
        net = BY_NAME["mlp"].module()
        net.compile(backend="eager")
        with assert_untouched(net):
            copied = replica(net)
        assert copied.module._compiled_call_impl is None

    def test_compiled_inside(self):
        net = BY_NAME["mlp"].module()
        net[0] = torch.compile(net[0], backend="eager")
        assert replica(net).names[0] == "0.weight"

    def test_data_parallel(self):
        net = BY_NAME["mlp"].module()
        copied = replica(nn.DataParallel(net))
        assert type(copied.module) is nn.Sequential
        assert copied.names[0] == "0.weight"


class TestOutputs:
    @pytest.mark.parametrize(
        ("forward", "message"),
        [
            (lambda m, x: (m(x), x), "a tuple of 2.*WrappedModel"),
            (lambda m, x: {"logits": m(x)}, "a dict of 1.*WrappedModel"),
            (lambda m, x: m(x).argmax(1), "dtype torch.int64.*WrappedModel"),
            (lambda m, x: m(x).to(torch.complex128), "dtype torch.complex128"),
            (lambda m, x: m(x).sum(), r"shape \(\) for a batch of 5"),
            (lambda m, x: m(x).T, r"shape \(3, 5\) for a batch of 5"),
            (lambda m, x: m(x).detach().numpy(), "an array of shape|ndarray"),
        ],
    )
    def test_that_are_not_a_batch_of_numbers(self, forward, message):
        with pytest.raises(SkgeoError, match=message):
            replica(linear(4, 3), forward=forward)(X)

    def test_inputs_of_unequal_length(self):
        copied = replica(linear(4, 3), forward=lambda m, x: m(x[0]))
        assert copied((X, X)).shape == (5, 3)
        with pytest.raises(SkgeoError, match="the same number of samples"):
            copied((X, X[:2]))

    def test_attention_switches_are_restored(self):
        case = BY_NAME["transformer"]
        module, inputs = case.module(), case.inputs()
        assert torch.backends.mha.get_fastpath_enabled()
        copied = replica(module)
        seen = []
        copied.module[0].linear1.register_forward_hook(
            lambda *_: seen.append(torch.backends.mha.get_fastpath_enabled())
        )
        for parameter in copied.parameters.values():
            parameter.requires_grad_(False)
        with torch.no_grad(), ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: replica(module)(inputs), range(20)))
            copied(inputs)
        assert seen == [False]
        assert torch.backends.mha.get_fastpath_enabled()
