from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.cases import BY_NAME, CASES
from helpers.networks import linear
from helpers.oracles import assert_untouched, dense_fisher, dense_jacobian, output_metric, spectrum
from skgeo.exceptions import SkgeoError
from skgeo.jacobian._dense_rows import output_jacobian
from skgeo.network import replica

# torch has no vmap rule for these layers that works.
LOOP_ONLY = {"gru", "lstm", "lstm_two_ways", "prelu"}
X = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4)


class Net(nn.Module):
    """A layer followed by a function."""

    def __init__(self, function):
        super().__init__()
        self.layer = linear(4, 3)
        self.function = function

    def forward(self, x):
        return self.function(self.layer(x))


class TestAgainstOneBackwardPassAnOutput:
    @pytest.mark.parametrize("path", ["auto", "vmap", "loop"])
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_every_layer(self, case, path):
        module, inputs = case.module(), case.inputs()
        z, expected = dense_jacobian(module, inputs, case.forward)
        with assert_untouched(module):
            copied = replica(module, forward=case.forward)
            if path == "vmap" and case.name in LOOP_ONLY:
                with pytest.raises(SkgeoError, match=r"cannot run under torch\.func\.vmap"):
                    output_jacobian(copied, inputs, path=path)
                return
            outputs, found = output_jacobian(copied, inputs, path=path)
        assert found.shape == (5, 3, copied.n_parameters)
        assert not outputs.requires_grad
        assert not found.requires_grad
        np.testing.assert_allclose(outputs, z, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_in_single_precision(self, case):
        module, inputs = case.module(torch.float32), case.inputs(dtype=torch.float32)
        z, found = output_jacobian(replica(module, forward=case.forward), inputs)
        expected_z, expected = dense_jacobian(module, inputs, case.forward)
        assert z.dtype == found.dtype == torch.float32
        np.testing.assert_allclose(z, expected_z, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)

    @pytest.mark.parametrize("path", ["vmap", "loop"])
    def test_of_some_parameters(self, path):
        module, inputs = BY_NAME["mlp"].module(), BY_NAME["mlp"].inputs()
        names = ["4.bias", "0.weight"]
        copied = replica(module, parameters=names)
        _, expected = dense_jacobian(module, inputs, names=names)
        _, found = output_jacobian(copied, inputs, path=path)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
        assert copied.selected == ("0.weight", "4.bias")

    @pytest.mark.parametrize("path", ["vmap", "loop"])
    def test_behind_frozen_attention(self, path):
        # Where nothing in it needs a gradient, torch would run the block as one fused kernel.
        module, inputs = BY_NAME["transformer"].module(), BY_NAME["transformer"].inputs()
        names = ["2.weight", "2.bias"]
        _, expected = dense_jacobian(module, inputs, names=names)
        _, found = output_jacobian(replica(module, parameters=names), inputs, path=path)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("path", ["vmap", "loop"])
    @pytest.mark.parametrize("max_bytes", [1, 64 * 8, 64 * 8 * 2, 64 * 8 * 7])
    def test_in_pieces(self, path, max_bytes):
        case = BY_NAME["mlp"]
        copied = replica(case.module())
        z, whole = output_jacobian(copied, case.inputs(), path=path, max_bytes=10**9)
        pieces_z, pieces = output_jacobian(copied, case.inputs(), path=path, max_bytes=max_bytes)
        assert torch.equal(z, pieces_z)
        torch.testing.assert_close(pieces, whole, rtol=1e-13, atol=1e-15)

    @pytest.mark.parametrize("path", ["vmap", "loop"])
    def test_outputs_of_any_rank(self, path):
        module = BY_NAME["positions"].module()[:2]
        x = BY_NAME["positions"].inputs()
        z, found = output_jacobian(replica(module), x, path=path)
        _, expected = dense_jacobian(module, x)
        assert z.shape == (5, 5, 4)
        assert found.shape == (5, 20, 16)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
        z, found = output_jacobian(
            replica(module, forward=lambda m, v: m(v)[:, 0, 0]), x, path=path
        )
        assert z.shape == (5,)
        np.testing.assert_allclose(found, expected[:, :1], rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("path", ["vmap", "loop"])
    def test_of_several_inputs(self, path):
        copied = replica(linear(4, 3), forward=lambda m, x: m(x[0]) * x[1])
        _, found = output_jacobian(copied, (X, X[:, :1]), path=path)
        _, alone = output_jacobian(replica(linear(4, 3)), X)
        torch.testing.assert_close(found, alone * X[:, :1, None])

    @pytest.mark.parametrize("path", ["vmap", "loop"])
    def test_of_one_sample(self, path):
        copied = replica(linear(4, 3))
        _, every = output_jacobian(copied, X)
        _, one = output_jacobian(copied, X[2:3], path=path)
        torch.testing.assert_close(one, every[2:3])

    def test_parameters_that_are_not_reached_have_zero_columns(self):
        case = BY_NAME["bare"]
        _, found = output_jacobian(replica(case.module()), case.inputs())
        assert torch.equal(found[:, :, 13:], torch.zeros(5, 3, 2, dtype=torch.float64))
        assert (found[:, :, :13] != 0).any(0).any(0).all()

    def test_linear_model_in_closed_form(self):
        _, found = output_jacobian(replica(linear(4, 3)), X)
        eye = torch.eye(3, dtype=torch.float64)
        expected = torch.stack([torch.cat([torch.kron(eye, x[None]), eye], 1) for x in X])
        torch.testing.assert_close(found, expected)

    def test_branch_that_differs_from_sample_to_sample(self):
        def forward(module, x):
            return module(x) if len(x) > 1 or x[0, 0] < 0 else module(x) * 1

        _, found = output_jacobian(replica(linear(4, 3), forward=forward), X)
        np.testing.assert_allclose(found, dense_jacobian(linear(4, 3), X)[1])

    def test_backward_pass_without_a_vmap_rule(self):
        class Twice(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return torch.from_numpy(x.detach().numpy() * 2)

            @staticmethod
            def backward(ctx, g):
                return torch.from_numpy(g.detach().numpy() * 2)

        _, found = output_jacobian(replica(Net(Twice.apply)), X)
        np.testing.assert_allclose(found, 2 * dense_jacobian(linear(4, 3), X)[1])

    @pytest.mark.parametrize("path", ["vmap", "loop"])
    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_in_any_gradient_mode(self, mode, path):
        with mode():
            z, found = output_jacobian(replica(linear(4, 3)), X + 0, path=path)
        torch.testing.assert_close(found, output_jacobian(replica(linear(4, 3)), X)[1])
        assert not z.requires_grad


class TestRefused:
    @pytest.mark.parametrize("path", ["auto", "vmap", "loop"])
    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda h: h.detach(), "do not depend on any of the selected parameters"),
            (lambda h: (h[:, :1] + 0.2).log(), "NaN or infinite for 4 of 5 samples"),
            (lambda h: h - h.mean(0), "depend on others"),
            (lambda h: h * torch.rand_like(h), "depend on others"),
            (lambda h: h.squeeze(), r"shape \(3,\) for a batch of 1"),
            # The square root of zero: a finite output with an infinite derivative.
            (lambda h: (h - h.detach()).pow(2).sqrt() + h, "Derivatives of .* are NaN or infinite"),
        ],
    )
    def test_forward_passes(self, function, message, path):
        copied = replica(Net(function))
        if path == "vmap" and "rand" in str(function.__code__.co_names):
            message = "cannot run under"
        with pytest.raises(SkgeoError, match=message):
            output_jacobian(copied, X, path=path)

    @pytest.mark.parametrize("path", ["auto", "loop"])
    def test_samples_coupled_in_their_derivatives_only(self, path):
        copied = replica(Net(lambda h: h + h.mean(0) - h.mean(0).detach()))
        with pytest.raises(SkgeoError, match="Jacobian cannot be trusted"):
            output_jacobian(copied, X, path=path)

    def test_no_samples(self):
        with pytest.raises(SkgeoError, match="no samples"):
            output_jacobian(replica(linear(4, 3)), X[:0])

    def test_unknown_path(self):
        with pytest.raises(SkgeoError, match="expected 'auto', 'vmap' or 'loop'"):
            output_jacobian(replica(linear(4, 3)), X, path="jacrev")

    def test_parameters_behind_an_object(self):
        class Opaque:
            def __init__(self, layer):
                self.layer = layer

        module = Net(torch.tanh)
        module.function = Opaque(module.layer)
        copied = replica(module, forward=lambda m, x: m.function.layer(x))
        with pytest.raises(SkgeoError, match=r"'layer\.weight' through an object"):
            output_jacobian(copied, X)

    def test_an_unselected_parameter_is_not_enough(self):
        module = BY_NAME["bare"].module()
        with pytest.raises(SkgeoError, match=r"do not depend .* \(unused\)"):
            output_jacobian(replica(module, parameters=["unused"]), X)


class TestSurroundings:
    def test_threads(self):
        module = BY_NAME["transformer"].module()
        recurrent = BY_NAME["lstm"].module()

        # Drawn here, since they come from the global random state that threads share.
        batches = [
            (BY_NAME["transformer"].inputs(seed=seed), BY_NAME["lstm"].inputs(seed=seed))
            for seed in range(8)
        ]

        def work(batch):
            tokens, series = batch
            one = output_jacobian(replica(module), tokens)[1]
            two = output_jacobian(replica(recurrent), series)[1]
            return one, two

        expected = [work(batch) for batch in batches]
        with assert_untouched(module, recurrent), ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                for ours, theirs in zip(pool.map(work, batches), expected, strict=True):
                    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert torch.backends.mha.get_fastpath_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()

    def test_attention_backend_of_the_caller_is_restored(self):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            output_jacobian(replica(linear(4, 3)), X)
            assert not torch.backends.cuda.math_sdp_enabled()

    def test_nothing_is_left_on_the_replica(self):
        copied = replica(BY_NAME["lstm"].module())
        with assert_untouched(copied.module):
            output_jacobian(copied, BY_NAME["lstm"].inputs())


class TestOracles:
    """The oracles themselves, where the answer is known in closed form."""

    def test_fisher_of_a_linear_model(self):
        expected = torch.cat([X, torch.ones(5, 1, dtype=torch.float64)], 1)
        moments = (expected.T @ expected / 5).numpy()
        found = dense_fisher(linear(4, 3), X, "gaussian")
        np.testing.assert_allclose(
            spectrum(found), np.repeat(spectrum(moments), 3), rtol=1e-10, atol=1e-12
        )

    @pytest.mark.parametrize(
        ("likelihood", "z", "expected"),
        [
            ("categorical", [0.0, 0.0], [[0.25, -0.25], [-0.25, 0.25]]),
            ("bernoulli", [0.0, np.log(3.0)], [[0.25, 0.0], [0.0, 3 / 16]]),
            ("gaussian_scale", [7.0, np.log(2.0)], [[0.25, 0.0], [0.0, 2.0]]),
            ("poisson", [np.log(5.0)], [[5.0]]),
        ],
    )
    def test_output_metrics(self, likelihood, z, expected):
        np.testing.assert_allclose(output_metric(likelihood, np.array(z)), expected)

    def test_untouched_notices(self):
        def assign(module):
            module.weight = nn.Parameter(module.weight.detach())

        module = linear(4, 3)
        for change in (
            lambda m: m.train(),
            lambda m: m.weight.data.add_(1),
            lambda m: m(X).sum().backward(),
            lambda m: m.weight.requires_grad_(False),
            lambda m: m.register_forward_hook(print),
            lambda m: torch.rand(1),
            assign,
        ):
            with pytest.raises(AssertionError), assert_untouched(module):
                change(module)
