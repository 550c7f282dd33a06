"""Every rule on its own, by the check that rule writers are offered."""

import pytest
import torch
from torch import nn

from helpers.cases import Mean
from helpers.networks import normal
from helpers.rule_oracles import assert_agrees, assert_matches_dense
from skgeo.jacobian import LayerGradients, check_structure, structure_rule
from skgeo.jacobian._dense_rows import output_jacobian
from skgeo.jacobian._rules import affine
from skgeo.jacobian._rules.gradients import structured_gradients
from skgeo.network import replica

CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MODES = ("zeros", "circular", "reflect", "replicate")


class InputsFirst(nn.Module):
    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_inputs, n_outputs))
        self.bias = nn.Parameter(torch.randn(n_outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


InputsFirst.__module__, InputsFirst.__qualname__ = "transformers.pytorch_utils", "Conv1D"


def assert_rule_is_right(module, x):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    for name, buffer in module.named_buffers():
        if name == "running_mean":
            buffer.normal_()
        elif name == "running_var":
            buffer.uniform_(0.5, 2.0)
    rule = structure_rule(module.eval())
    assert rule is not None
    check_structure(rule, module, x)


class TestLinear:
    @pytest.mark.parametrize("positions", [(), (1,), (7,), (2, 3)])
    @pytest.mark.parametrize("bias", [True, False])
    def test_with_positions(self, positions, bias):
        assert_rule_is_right(nn.Linear(3, 4, bias=bias), normal(5, *positions, 3))

    @pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (40, 40)])
    def test_of_any_shape(self, shape):
        assert_rule_is_right(nn.Linear(*shape), normal(4, 2, shape[0]))


class TestConvolution:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("dimension", [1, 2, 3])
    def test_padding_modes(self, dimension, mode):
        kind = CONV[dimension - 1]
        x = normal(3, 2, *(4, 5, 3)[:dimension])
        assert_rule_is_right(kind(2, 3, 3, padding=(1, 2, 1)[:dimension], padding_mode=mode), x)
        assert_rule_is_right(
            kind(2, 3, (3, 5, 1)[:dimension], padding="same", padding_mode=mode), x
        )
        assert_rule_is_right(kind(2, 3, 2, padding="valid", padding_mode=mode), x)

    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("dilation", [1, 2])
    @pytest.mark.parametrize("groups", [1, 2, 4])
    def test_strides_dilations_groups(self, stride, dilation, groups):
        options = {"stride": stride, "dilation": dilation, "groups": groups}
        assert_rule_is_right(nn.Conv1d(4, 8, 3, padding=1, **options), normal(3, 4, 9))
        assert_rule_is_right(
            nn.Conv2d(4, 8, (2, 3), padding=(0, 2), bias=False, **options), normal(3, 4, 5, 6)
        )

    @pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
    def test_even_kernels_of_the_same_size(self):
        assert_rule_is_right(
            nn.Conv2d(2, 3, (4, 2), padding="same", dilation=(1, 3)), normal(3, 2, 5, 7)
        )

    @pytest.mark.parametrize("groups", [1, 16])
    @pytest.mark.parametrize("side", [1, 2])
    def test_many_channels_on_small_maps(self, side, groups):
        assert_rule_is_right(
            nn.Conv2d(16, 32, 3, padding=1, groups=groups), normal(4, 16, side, side)
        )
        assert_rule_is_right(nn.Conv2d(16, 32, 1, groups=groups), normal(4, 16, side, side))

    def test_the_square_is_taken_of_the_sum(self):
        conv = nn.Conv2d(1, 16, 1, bias=False).double()
        x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
        call = LayerGradients(
            conv, x, torch.ones(1, 1, 16, 2, 2, dtype=torch.float64), {"weight": "weight"}
        )
        rule = structure_rule(conv)
        # Four positions, each with gradient 1: (1 + 1 + 1 + 1)^2, not 4.
        assert rule.diagonal(call)["weight"].flatten().tolist() == [16.0] * 16
        assert rule.trace(call) == 256.0

    def test_network_with_many_channels(self):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 2),
            nn.Tanh(),
            nn.Conv2d(16, 24, 3, padding=1),
            nn.GroupNorm(4, 24),
            nn.Tanh(),
            nn.Conv2d(24, 20, 3, padding=1, groups=4, padding_mode="circular"),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(80, 3),
        ).double()
        x = torch.randn(7, 1, 3, 3, dtype=torch.float64)
        _, jacobian = output_jacobian(replica(net), x)
        found = structured_gradients(replica(net), x)
        assert found.rest == ()
        flat = jacobian.flatten(0, 1)
        for got, expected in [
            (found.rows(), jacobian),
            (found.gram(), flat @ flat.T),
            (found.diagonal(), flat.square().sum(0)),
            (found.trace(), flat.square().sum()),
        ]:
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


class TestTransposedConvolution:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("dimension", [1, 2, 3])
    def test_of_every_dimension(self, dimension, bias):
        kind = TRANSPOSED[dimension - 1]
        options = {"stride": (2, 3, 1), "padding": (1, 0, 2), "output_padding": (1, 2, 0)}
        chosen = {key: value[:dimension] for key, value in options.items()}
        layer = kind(2, 3, (3, 4, 5)[:dimension], bias=bias, **chosen)
        assert_rule_is_right(layer, normal(3, 2, *(4, 2, 3)[:dimension]))

    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("dilation", [1, 2])
    @pytest.mark.parametrize("groups", [1, 2, 4])
    def test_strides_dilations_groups(self, stride, dilation, groups):
        options = {"stride": stride, "dilation": dilation, "groups": groups}
        assert_rule_is_right(nn.ConvTranspose1d(4, 8, 3, padding=2, **options), normal(3, 4, 5))
        assert_rule_is_right(
            nn.ConvTranspose2d(4, 8, (2, 3), padding=(0, 1), **options), normal(3, 4, 3, 2)
        )

    def test_one_pixel(self):
        assert_rule_is_right(nn.ConvTranspose2d(5, 3, 4), normal(4, 5, 1, 1))

    def test_size_given_at_the_call_and_frames_folded_into_samples(self):
        class Frames(nn.Module):
            def __init__(self):
                super().__init__()
                self.up = nn.ConvTranspose1d(2, 3, 3, stride=2)
                self.out = nn.Linear(3 * 8, 3)

            def forward(self, x):
                h = torch.tanh(self.up(x.flatten(0, 1), output_size=[8]))
                return self.out(h.flatten(1).unflatten(0, x.shape[:2]).mean(1))

        torch.manual_seed(0)
        assert_matches_dense(Frames().double(), normal(4, 2, 2, 3))


class TestInputsFirst:
    """``Conv1D`` of transformers, by a layer of the same name and formula."""

    @pytest.mark.parametrize("positions", [(), (1,), (7,), (2, 3)])
    @pytest.mark.parametrize("shape", [(3, 4), (4, 4), (1, 6)])
    def test_with_positions(self, positions, shape):
        assert_rule_is_right(InputsFirst(*shape), normal(5, *positions, shape[0]))

    @pytest.mark.parametrize("shape", [(5, 4), (5, 2, 4)])
    def test_in_a_network(self, shape):
        torch.manual_seed(0)
        net = nn.Sequential(InputsFirst(4, 3), nn.Tanh(), nn.Flatten(), InputsFirst(3, 2)).double()
        if len(shape) == 3:
            net[2] = Mean()
        assert_matches_dense(net, normal(*shape))


class Float32Norm(nn.Module):
    """The formula of ``LlamaRMSNorm``."""

    def __init__(self, width, offset=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.variance_epsilon = 0.1
        self.offset = offset

    def forward(self, x):
        h = x.to(torch.float32)
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (self.offset + self.weight) * h.to(x.dtype) + self.offset * self.weight


Float32Norm.__module__ = "transformers.models.some.modeling_some"
Float32Norm.__qualname__ = "SomeRMSNorm"


class TestFloat32Norm:
    @pytest.mark.parametrize("positions", [(), (3,), (2, 3)])
    def test_with_positions(self, positions):
        assert_rule_is_right(Float32Norm(4), normal(5, *positions, 4))

    def test_another_formula_under_the_name_is_measured_by_dense_rows(self):
        torch.manual_seed(0)
        net = nn.Sequential(Float32Norm(4, offset=1.0), nn.Linear(4, 3)).double()
        _, jacobian = output_jacobian(replica(net), normal(5, 4))
        found = structured_gradients(replica(net), normal(5, 4))
        assert found.rest == ("0.weight",)
        assert_agrees(found, jacobian)

    def test_others_are_not_covered(self):
        layer = Float32Norm(4)
        del layer.variance_epsilon
        assert structure_rule(layer) is None


class TestBothWaysToAGramMatrix:
    """From pairs of positions, and from the gradients some channels at a time."""

    @pytest.mark.parametrize("groups", [1, 3])
    @pytest.mark.parametrize("positions", [1, 4])
    @pytest.mark.parametrize("bias", [True, False])
    def test_agree(self, monkeypatch, groups, positions, bias):
        monkeypatch.setattr(affine, "_COLUMN_BYTES", 2000)
        monkeypatch.setattr(affine, "_TILE_BYTES", 2000)
        a = normal(6, groups, positions, 5)
        g = normal(6, 2, groups, positions, 7, seed=1)
        some = (a[:4], g[:4])
        for left, right in [((a, g), some), ((a, g), None)]:
            right = left if right is None else right
            found = []
            for pairs in (True, False):
                monkeypatch.setattr(affine, "_pairs_are_cheaper", lambda *_, pairs=pairs: pairs)
                total = torch.zeros(12, 2 * len(right[0]), dtype=torch.float64)
                affine.add_gram(total, left, right, weight=True, bias=bias)
                found.append(total)
            rows = [affine.rows(*side).flatten(2).flatten(0, 1) for side in (left, right)]
            sums = [side[1].sum(3).flatten(2).flatten(0, 1) for side in (left, right)]
            expected = rows[0] @ rows[1].T + bias * (sums[0] @ sums[1].T)
            for total in found:
                torch.testing.assert_close(total.tril(), expected.tril(), rtol=1e-12, atol=1e-12)
                if left is not right:
                    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)

    def test_each_is_taken_somewhere(self):
        def cheaper(positions, i, o):
            side = (torch.empty(6, 1, positions, i), torch.empty(6, 2, 1, positions, o))
            return affine._pairs_are_cheaper(side, side)

        assert cheaper(1, 3, 3)
        assert cheaper(4, 500, 500)
        assert not cheaper(64, 9, 16)


class TestEmbedding:
    @pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 5), (6, 2, 3)])
    def test_of_any_shape(self, shape):
        assert_rule_is_right(nn.Embedding(5, 4), torch.randint(5, shape))

    def test_row_of_padding_is_constant(self):
        layer = nn.Embedding(5, 4, padding_idx=1)
        assert_rule_is_right(layer, torch.tensor([[1, 2, 2], [0, 1, 4], [1, 1, 1]]))

    def test_nothing_but_padding_has_no_gradient(self):
        layer = nn.Embedding(5, 2, padding_idx=0).double()
        net = nn.Sequential(layer, nn.Flatten(), nn.Linear(6, 3, dtype=torch.float64))
        jacobian = structured_gradients(replica(net), torch.zeros(4, 3, dtype=torch.long))
        torch.testing.assert_close(jacobian.gram(), torch.eye(3).double().repeat(4, 4))

    def test_entries_never_looked_up(self):
        assert_rule_is_right(nn.Embedding(50, 2), torch.tensor([[3, 3], [3, 49]]))

    @pytest.mark.parametrize(
        "option", [{"max_norm": 1.0}, {"sparse": True}, {"scale_grad_by_freq": True}]
    )
    def test_options_that_are_not_covered(self, option):
        assert structure_rule(nn.Embedding(5, 4, **option)) is None


class TestNormalisation:
    @pytest.mark.parametrize(
        ("module", "shape"),
        [
            (nn.BatchNorm1d(3), (5, 3)),
            (nn.BatchNorm1d(3), (5, 3, 4)),
            (nn.BatchNorm2d(3), (5, 3, 2, 4)),
            (nn.BatchNorm3d(3), (5, 3, 2, 2, 2)),
            (nn.InstanceNorm1d(3, affine=True), (5, 3, 4)),
            (nn.InstanceNorm2d(3, affine=True, eps=0.1), (5, 3, 2, 4)),
            (nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (5, 3, 2, 4)),
            (nn.InstanceNorm3d(3, affine=True), (5, 3, 2, 2, 2)),
            (nn.GroupNorm(2, 4), (5, 4)),
            (nn.GroupNorm(4, 4, eps=0.1), (5, 4, 3)),
            (nn.GroupNorm(2, 4), (5, 4, 3, 2)),
            (nn.LayerNorm(4), (5, 4)),
            (nn.LayerNorm(4, eps=0.1), (5, 3, 4)),
            (nn.LayerNorm((3, 4)), (5, 2, 3, 4)),
            (nn.LayerNorm(4, bias=False), (5, 3, 4)),
            (nn.RMSNorm(4), (5, 4)),
            (nn.RMSNorm((3, 4), eps=0.1), (5, 2, 3, 4)),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
    )
    def test_every_shape(self, module, shape):
        assert_rule_is_right(module, normal(*shape))

    def test_statistics_of_the_batch_are_not_covered(self):
        assert structure_rule(nn.BatchNorm1d(3, track_running_stats=False)) is None
