import pytest
import torch
from torch import nn

from helpers.architectures import NETWORKS, build
from helpers.cases import BY_NAME, CASES
from helpers.chain_oracles import dense_between
from helpers.layer_oracles import dense_tail_jacobian
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo import SkgeoError
from skgeo.jacobian import Layers
from skgeo.jacobian._cotangents import unit_cotangents
from skgeo.network import replica


def recorded(module, inputs, names=None, forward=None):
    layers = Layers(replica(module, forward=forward, parameters=None), inputs, names)
    return layers, layers.record(inputs, root=True)


def oracle_name(place):
    """What the oracles call a place: None for either end."""
    return place.name if place.module else None


class TestJacobians:
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_of_neighbours_match_brute_force(self, case):
        module, inputs = case.module(), case.inputs(3)
        with assert_untouched(module):
            layers, seen = recorded(module, inputs, forward=case.forward)
            places = (*layers.after_root, layers.output)
            found = {place: seen.jacobian(place, layers.cut_before(place)) for place in places}
        for place, jacobian in found.items():
            source = oracle_name(layers.cut_before(place))
            expected = dense_between(module, inputs, oracle_name(place), source, case.forward)
            torch.testing.assert_close(jacobian, torch.from_numpy(expected), rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_of_the_output_match_brute_force(self, case):
        module, inputs = case.module(), case.inputs()
        with assert_untouched(module):
            layers = Layers(replica(module, forward=case.forward, parameters=None), inputs)
            seen = layers.record(inputs)
            found = seen.output_jacobians()
        outputs = module(inputs) if case.forward is None else case.forward(module, inputs)
        torch.testing.assert_close(seen.output.detach(), outputs.detach())
        assert list(found) == [layer.name for layer in layers.layers]
        for layer in layers.layers:
            expected = dense_tail_jacobian(module, inputs, layer.name, case.forward)
            assert found[layer.name].shape == (len(outputs), outputs[0].numel(), layer.dim)
            torch.testing.assert_close(
                found[layer.name], torch.from_numpy(expected), rtol=1e-10, atol=1e-12
            )

    @pytest.mark.parametrize("name", NETWORKS)
    def test_from_the_root_match_brute_force(self, name):
        module, inputs = build(name, n=2)
        layers, seen = recorded(module, inputs)
        found = seen.root_jacobians()
        assert list(found) == [layer.name for layer in layers.after_root if layer.is_cut]
        for target, jacobian in found.items():
            expected = dense_between(module, inputs, target, oracle_name(layers.root))
            torch.testing.assert_close(jacobian, torch.from_numpy(expected), rtol=1e-9, atol=1e-11)

    def test_of_links_multiply_to_that_of_the_chain(self):
        case = BY_NAME["mlp"]
        layers, seen = recorded(case.module(), case.inputs())
        product = torch.eye(4, dtype=torch.float64)
        for place in (*layers.layers, layers.output):
            product = seen.jacobian(place, layers.cut_before(place)) @ product
        expected = dense_between(case.module(), case.inputs(), None)
        torch.testing.assert_close(product, torch.from_numpy(expected))

    def test_skip_what_lies_in_a_branch(self):
        case = BY_NAME["residual"]
        layers, seen = recorded(case.module(), case.inputs(3), ["stem", "block.bn1", "block", "fc"])
        stem, _, block, _ = layers.layers
        product = seen.jacobian(block, stem) @ seen.jacobian(stem, layers.root)
        torch.testing.assert_close(seen.jacobian(block, layers.root), product)

    def test_of_one_call_of_a_layer(self):
        case = BY_NAME["reused"]
        module, inputs = case.module(), case.inputs()
        _, seen = recorded(module, inputs, ["relu#1"])
        expected = module.out.weight.detach().expand(len(inputs), -1, -1)
        torch.testing.assert_close(seen.output_jacobians()["relu#1"], expected)

    def test_go_forward_in_wide_networks_and_back_in_deep_narrow_ones(self):
        for widths in ((3, 30, 40, 20), (30, 3, 4, 2)):
            net, X = mlp(*widths), normal(4, widths[0])
            layers, seen = recorded(net, X)
            for target, jacobian in seen.root_jacobians().items():
                expected = dense_between(net, X, target)
                torch.testing.assert_close(jacobian, torch.from_numpy(expected))
            last = layers.layers[-1]
            whole = seen.jacobian(last, layers.root)
            torch.testing.assert_close(whole, seen.root_jacobians()[last.name])

    def test_in_single_precision_stay_single(self):
        net, X = mlp(4, 5, 3, dtype=torch.float32), normal(3, 4, dtype=torch.float32)
        layers, seen = recorded(net, X)
        found = seen.jacobian(layers.output, layers.root)
        assert found.dtype == torch.float32
        expected = torch.from_numpy(dense_between(net, X.double(), None))
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)

    def test_without_second_derivatives_are_found_by_rows(self):
        class Once(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x.square()

            @staticmethod
            @torch.autograd.function.once_differentiable
            def backward(ctx, grad):
                (x,) = ctx.saved_tensors
                return 2 * x * grad

        class Square(nn.Module):
            def forward(self, x):
                return Once.apply(x).repeat(1, 3)

        net = nn.Sequential(nn.Linear(4, 4), Square(), nn.Linear(12, 2)).double()
        X = normal(3, 4)
        layers, seen = recorded(net, X, ["1", "2"])
        h = net[0](X).detach()
        expected = (2 * h.unsqueeze(2) * net[0].weight).repeat(1, 3, 1).detach()
        torch.testing.assert_close(seen.jacobian(layers["1"], layers.root), expected)
        torch.testing.assert_close(seen.root_jacobians()["2"], net[2].weight.detach() @ expected)
        with pytest.raises(SkgeoError, match="with respect to 'input'"):
            seen.operator(layers["1"], layers.root)


class TestProducts:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_with_the_jacobian_from_the_root(self, name):
        module, inputs = build(name, n=3)
        layers, seen = recorded(module, inputs)
        source = layers.root
        for place in (*layers.after_root, layers.output):
            jacobian = seen.jacobian(place, source)
            operator = seen.operator(place, source)
            v, u = normal(3, source.dim), normal(3, place.dim, seed=1)
            pushed, pulled = jacobian @ v.unsqueeze(2), jacobian.mT @ u.unsqueeze(2)
            torch.testing.assert_close(operator.push(v), pushed.squeeze(2))
            torch.testing.assert_close(operator.pull(u), pulled.squeeze(2))
            V = normal(3, source.dim, 5, seed=2)
            for max_bytes in (1, 2**26):
                torch.testing.assert_close(operator.push_columns(V, max_bytes), jacobian @ V)
            torch.testing.assert_close(seen.push(place, source, V), jacobian @ V)
            torch.testing.assert_close(seen.pull(place, source, u.unsqueeze(1)), pulled.mT)

    @pytest.mark.parametrize(
        "name", ["mlp", "attention", "lstm", "residual", "transformer", "dict"]
    )
    def test_with_the_jacobians_of_the_output(self, name):
        case = BY_NAME[name]
        layers = Layers(replica(case.module(), parameters=None), case.inputs())
        seen = layers.record(case.inputs())
        rows = seen.pull_back(unit_cotangents(seen.output), layers.output.dim)
        for layer in layers.layers:
            operator = seen.operator(layers.output, layer)
            v, u = normal(seen.size, layer.dim), normal(seen.size, layers.output.dim, seed=1)
            jacobian = rows[layer.name]
            torch.testing.assert_close(operator.push(v), torch.einsum("bkn,bn->bk", jacobian, v))
            torch.testing.assert_close(operator.pull(u), torch.einsum("bkn,bk->bn", jacobian, u))


class TestPlaces:
    def test_representations_are_flattened_and_off_the_graph(self):
        case = BY_NAME["conv2d"]
        module, inputs = case.module(), case.inputs()
        layers = Layers(replica(module, parameters=None), inputs)
        seen = layers.record(inputs, ["0", "2"])
        found = seen.representation(layers["0"])
        torch.testing.assert_close(found, module[0](inputs).detach().flatten(1))
        assert [layer.name for layer in seen.layers] == ["0", "2"]
        assert not found.requires_grad
        assert seen.output.requires_grad
        assert torch.equal(seen.representation(layers.output), seen.output.detach())

    def test_of_other_forward_passes_are_refused(self):
        case = BY_NAME["mlp"]
        layers = Layers(replica(case.module(), parameters=None), case.inputs())
        seen = layers.record(case.inputs(), ["0"])
        for place in (layers["1"], layers.root):
            with pytest.raises(SkgeoError, match=r"was not recorded.*'0', 'output'"):
                seen.representation(place)
