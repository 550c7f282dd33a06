import pytest
import torch

from helpers.cases import BY_NAME, CASES
from helpers.networks import linear
from helpers.oracles import dense_jacobian
from helpers.rule_oracles import Net, X, assert_agrees, assert_matches_dense, assert_near
from skgeo.exceptions import SkgeoError
from skgeo.jacobian._dense_rows import output_jacobian
from skgeo.jacobian._rules.gradients import structured_gradients
from skgeo.network import replica

# What no rule speaks for, case by case; every other parameter has to be covered.
GENERAL = {
    "prelu": "1.weight",
    "tied": "first.weight",
    "weight_norm": "0.",
}


class TestAgainstOneBackwardPassAnOutput:
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_every_layer(self, case):
        module, inputs = case.module(), case.inputs()
        names = [name for name, _ in module.named_parameters()]
        prefix = GENERAL.get(case.name)
        if case.name == "bare":
            rest = ["weight", "scale"]
        else:
            rest = [name for name in names if prefix is not None and name.startswith(prefix)]
        assert_matches_dense(module, inputs, case.forward, rest)

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_in_single_precision(self, case):
        module, inputs = case.module(torch.float32), case.inputs(dtype=torch.float32)
        copied = replica(module, forward=case.forward)
        _, jacobian = output_jacobian(copied, inputs)
        found = structured_gradients(copied, inputs)
        assert found.rows().dtype == torch.float32
        for product in (found.gram(), found.metric(), found.diagonal(), found.trace()):
            assert product.dtype == torch.float64
        assert_agrees(found, jacobian, 2e-5)

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_between_unequal_batches(self, case):
        module, inputs = case.module(), case.inputs()
        _, jacobian = dense_jacobian(module, inputs, case.forward)
        flat = torch.as_tensor(jacobian).flatten(0, 1)
        copied = replica(module, forward=case.forward)

        def part(where):
            if isinstance(inputs, dict):
                return {key: value[where] for key, value in inputs.items()}
            return inputs[where]

        first, second = (
            structured_gradients(copied, part(w)) for w in (slice(0, 3), slice(3, None))
        )
        assert_near(first.gram(second), flat[:9] @ flat[9:].T)
        assert_near(second.gram(first), flat[9:] @ flat[:9].T)
        total = first.metric()
        second.add_metric(total)
        assert_near(total.tril(), (flat.T @ flat).tril())

    @pytest.mark.parametrize(
        "names",
        [["0.weight"], ["0.bias"], ["2.weight", "4.bias"], ["4.weight", "4.bias"], ["0.bias"] * 2],
    )
    def test_of_some_parameters(self, names):
        module, inputs = BY_NAME["mlp"].module(), BY_NAME["mlp"].inputs()
        _, jacobian = dense_jacobian(module, inputs, names=names)
        found = structured_gradients(replica(module, parameters=names), inputs)
        assert found.rest == ()
        assert_agrees(found, torch.as_tensor(jacobian))

    @pytest.mark.parametrize("names", [["0.bias"], ["0.weight"], ["5.bias", "1.weight"]])
    def test_of_some_parameters_of_convolutions(self, names):
        module, inputs = BY_NAME["batchnorm2d"].module(), BY_NAME["batchnorm2d"].inputs()
        _, jacobian = dense_jacobian(module, inputs, names=names)
        found = structured_gradients(replica(module, parameters=names), inputs)
        assert found.rest == ()
        assert_agrees(found, torch.as_tensor(jacobian))

    def test_frozen_parameters_are_left_out(self):
        module = BY_NAME["mlp"].module()
        module[0].bias.requires_grad_(False)
        module[4].weight.requires_grad_(False)
        assert assert_matches_dense(module).n_parameters == 64 - 5 - 12

    def test_one_sample(self):
        assert_matches_dense(BY_NAME["mlp"].module(), X[:1])
        assert_matches_dense(BY_NAME["residual"].module(), BY_NAME["residual"].inputs(1))

    @pytest.mark.parametrize("name", ["mlp", "transformer", "gru", "residual"])
    def test_of_every_chunk_size(self, name):
        module, inputs = BY_NAME[name].module(), BY_NAME[name].inputs()
        whole = structured_gradients(replica(module), inputs).rows()
        assert_near(structured_gradients(replica(module), inputs, max_bytes=1).rows(), whole, 1e-13)

    def test_no_dense_jacobian_where_all_is_covered(self, monkeypatch):
        from skgeo.jacobian._rules import linear as rules

        module = BY_NAME["mlp"].module()
        found = structured_gradients(replica(module), X)
        expected = found.rows()

        def refuse(*_):
            raise AssertionError("rows were formed")

        monkeypatch.setattr(rules.LinearRule, "rows", refuse)
        found = structured_gradients(replica(module), X)
        flat = expected.flatten(0, 1)
        assert_near(found.gram(), flat @ flat.T)
        assert_near(found.metric(), flat.T @ flat)
        assert_near(found.trace(), flat.square().sum())
        assert_near(found.diagonal(), flat.square().sum(0))


class TestDirections:
    def setup_method(self):
        # PReLU has no rule.
        self.module, self.inputs = BY_NAME["prelu"].module(), BY_NAME["prelu"].inputs()
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.randn(5, 2, 3, generator=generator, dtype=torch.float64)
        _, jacobian = output_jacobian(replica(self.module), self.inputs)
        self.expected = self.weights @ jacobian

    def test_given(self):
        found = structured_gradients(
            replica(self.module), self.inputs, cotangents=lambda z: self.weights
        )
        assert found.rest
        assert_agrees(found, self.expected)

    def test_combined_afterwards(self):
        found = structured_gradients(replica(self.module), self.inputs).weighted(self.weights)
        assert_agrees(found, self.expected)

    def test_combined_in_float64(self):
        module, inputs = BY_NAME["mlp"].module(torch.float32), X.float()
        found = structured_gradients(replica(module), inputs)
        assert found.weighted(self.weights).rows().dtype == torch.float64

    def test_of_single_numbers(self):
        module = Net(lambda net, x: net.second(torch.tanh(net.first(x))).sum(1))
        found = structured_gradients(
            replica(module), X, cotangents=lambda z: torch.full((5, 2), 3.0, dtype=z.dtype)
        )
        _, jacobian = output_jacobian(replica(module), X)
        assert_agrees(found, (3 * jacobian).expand(-1, 2, -1))

    def test_of_a_wrong_shape(self):
        with pytest.raises(SkgeoError, match=r"shape \(5, 3\) for outputs of shape \(5, 3\)"):
            structured_gradients(replica(self.module), self.inputs, cotangents=lambda z: z)


class TestRefusals:
    def test_no_samples(self):
        with pytest.raises(SkgeoError, match="no samples"):
            structured_gradients(replica(linear(4, 3)), X[:0])

    def test_no_parameter_reached(self):
        net = Net(lambda net, x: net.second(torch.tanh(net.first(x))).detach())
        with pytest.raises(SkgeoError, match="do not depend on any"):
            structured_gradients(replica(net), X)

    def test_outputs_that_are_not_finite(self):
        net = Net(lambda net, x: net.second(torch.tanh(net.first(x))) / (x[:, :3] - x[2, 0]))
        with pytest.raises(SkgeoError, match="NaN or infinite for 1 of 5"):
            structured_gradients(replica(net), X)

    def test_derivatives_that_are_not_finite(self):
        net = Net(lambda net, x: net.second(net.first(x)).mul(0).sqrt())
        with pytest.raises(SkgeoError, match="not differentiable"):
            structured_gradients(replica(net), X)

    def test_flags_are_put_back(self):
        module = BY_NAME["transformer"].module()
        copied = replica(module)
        structured_gradients(copied, BY_NAME["transformer"].inputs())
        assert all(p.requires_grad for p in copied.parameters.values())
        hooks = [m._forward_hooks or m._forward_pre_hooks for m in copied.module.modules()]
        assert not any(hooks)
