"""Layers used in ways that a rule must not, or must, see through."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.cases import Mean
from helpers.networks import linear, normal
from helpers.rule_oracles import Net, X, assert_agrees, assert_matches_dense
from skgeo.exceptions import SkgeoError
from skgeo.jacobian._dense_rows import output_jacobian
from skgeo.jacobian._rules.gradients import structured_gradients
from skgeo.network import replica


class TestWhatMayNotBeTakenForCovered:
    def test_weight_read_past_its_layer(self):
        def forward(net, x):
            return net.second(torch.tanh(net.first(x))) @ net.second.weight[:, :3]

        assert_matches_dense(Net(forward), rest=["second.weight"])

    def test_weight_read_by_a_function_only(self):
        def forward(net, x):
            return net.second(torch.tanh(F.linear(x, net.first.weight, net.first.bias)))

        assert_matches_dense(Net(forward), rest=["first.weight", "first.bias"])

    def test_a_slight_second_use(self):
        def forward(net, x):
            return net.second(torch.tanh(net.first(x))) + 1e-9 * net.first.weight.sum()

        assert_matches_dense(Net(forward), rest=["first.weight"])

    def test_layer_called_for_its_weight_elsewhere(self):
        def forward(net, x):
            with torch.no_grad():
                net.first(x)
            return net.second(torch.tanh(x @ net.first.weight.T))

        found = assert_matches_dense(Net(forward), rest=["first.weight"])
        assert "first.bias" not in {n for c in found.calls for n in c.names.values()}

    def test_without_gradient_there_is_none(self):
        def forward(net, x):
            with torch.no_grad():
                h = net.first(x)
            return net.second(torch.tanh(h))

        found = structured_gradients(replica(Net(forward)), X)
        assert found.rest == ()
        assert float(found.rows()[..., :20].abs().max()) == 0.0
        assert float(found.rows()[..., 20:].abs().max()) > 0.0

    def test_detached_in_part(self):
        def forward(net, x):
            h = torch.tanh(net.first(x))
            return net.second(h.detach() + h / 2)

        assert_matches_dense(Net(forward))

    def test_forward_hook_of_the_user(self):
        net = nn.Sequential(linear(4, 4), nn.Tanh(), linear(4, 3))
        net[0].register_forward_hook(lambda module, args, output: 2 * output)
        assert_matches_dense(net, rest=["0.weight", "0.bias"])

    def test_pre_hook_of_the_user(self):
        net = nn.Sequential(linear(4, 4), nn.Tanh(), linear(4, 3))
        net[2].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        assert_matches_dense(net, rest=["2.weight", "2.bias"])

    def test_forward_of_one_object(self):
        net = nn.Sequential(linear(4, 4), nn.Tanh(), linear(4, 3))
        layer = net[0]
        layer.forward = lambda x: F.linear(x, layer.weight) - layer.bias
        _, jacobian = output_jacobian(replica(net), X)
        found = structured_gradients(replica(net), X)
        assert found.rest == ("0.weight", "0.bias")
        assert_agrees(found, jacobian)

    def test_subclass_with_its_own_forward(self):
        class Doubled(nn.Linear):
            def forward(self, x):
                return 2 * super().forward(x)

        net = nn.Sequential(Doubled(4, 4).double(), nn.Tanh(), linear(4, 3))
        assert_matches_dense(net, rest=["0.weight", "0.bias"])

    def test_subclass_that_changes_what_forward_calls(self):
        class Standardised(nn.Conv1d):
            def _conv_forward(self, x, weight, bias):
                return super()._conv_forward(x, weight - weight.mean(), bias)

        torch.manual_seed(0)
        net = nn.Sequential(Standardised(4, 2, 1), nn.Flatten(), nn.Linear(2, 3)).double()
        # The bias is used as ever.
        assert_matches_dense(net, X.unsqueeze(2), rest=["0.weight"])

    def test_subclass_with_more_parameters(self):
        class Scaled(nn.Linear):
            def __init__(self, *shape):
                super().__init__(*shape)
                self.scale = nn.Parameter(torch.tensor(0.5))

        def forward(net, x):
            return net.second(torch.tanh(net.first(x)) * net.first.scale)

        assert_matches_dense(Net(forward, first=Scaled(4, 4).double()), rest=["first.scale"])

    def test_old_style_weight_norm(self):
        layer = linear(4, 4)
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(layer)
        net = nn.Sequential(layer, nn.Tanh(), linear(4, 3))
        found = structured_gradients(replica(net), X)
        _, jacobian = output_jacobian(replica(net), X)
        assert set(found.rest) == {"0.bias", "0.weight_g", "0.weight_v"}
        assert_agrees(found, jacobian)

    def test_samples_that_hang_together(self):
        def forward(net, x):
            h = net.first(x)
            return net.second(h - h.mean(0))

        with pytest.raises(SkgeoError, match="depend on others"):
            structured_gradients(replica(Net(forward)), X)

    def test_chance(self):
        def forward(net, x):
            return net.second(F.dropout(net.first(x), training=True))

        with pytest.raises(SkgeoError, match="depend on others"):
            structured_gradients(replica(Net(forward)), X)


class TestHowLayersAreCalled:
    def test_in_place_after_the_layer(self):
        def forward(net, x):
            h = net.first(x)
            h.mul_(2).tanh_()
            return net.second(h).exp_()

        assert_matches_dense(Net(forward))

    def test_keyword_input(self):
        assert_matches_dense(Net(lambda net, x: net.second(input=torch.tanh(net.first(input=x)))))

    def test_one_number_a_sample(self):
        def forward(net, x):
            return net.second(torch.tanh(net.first(x))).sum(1)

        assert_matches_dense(Net(forward))

    def test_outputs_with_positions(self):
        x = normal(4, 5, 4)
        net = nn.Sequential(linear(4, 4), nn.LayerNorm(4).double(), nn.Tanh(), linear(4, 2))
        found = assert_matches_dense(net, x)
        assert found.outputs.shape == (4, 5, 2)
        assert found.n_directions == 10

    def test_positions_before_samples(self):
        # As many positions as samples, too: the shapes alone do not tell which is which.
        class Turned(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.norm, self.out = linear(4, 4), nn.LayerNorm(4), linear(4, 3)

            def forward(self, x: Tensor) -> Tensor:
                return self.out(torch.tanh(self.norm(self.first(x.transpose(0, 1)))).mean(0))

        for positions in (5, 4):
            x = normal(4, positions, 4, seed=1)
            assert_matches_dense(Turned().double(), x)

    def test_positions_folded_into_samples(self):
        def forward(net, x):
            h = torch.tanh(net.first(x.flatten(0, 1)))
            return net.second(h).unflatten(0, x.shape[:2]).mean(1)

        x = normal(4, 3, 4, seed=2)
        assert_matches_dense(Net(forward), x)

    def test_samples_folded_behind_positions(self):
        def forward(net, x):
            h = torch.tanh(net.first(x.transpose(0, 1).flatten(0, 1)))
            return net.second(h.unflatten(0, (3, -1)).mean(0))

        x = normal(4, 3, 4, seed=2)
        assert_matches_dense(Net(forward), x, rest=["first.weight", "first.bias"])

    def test_frames_folded_into_samples(self):
        class Frames(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.norm = nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3)
                self.out = nn.Linear(12, 3)

            def forward(self, x: Tensor) -> Tensor:
                h = torch.tanh(self.norm(self.conv(x.flatten(0, 1))))
                return self.out(h.flatten(1).unflatten(0, x.shape[:2]).mean(1))

        x = normal(4, 3, 2, 3, 3, seed=3)
        torch.manual_seed(0)
        net = Frames().double().eval()
        assert_matches_dense(net, x, rest=["norm.weight", "norm.bias"])

    def test_tokens_before_samples(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Embedding(6, 4), Mean(), nn.Linear(4, 3)).double()
        tokens = torch.randint(6, (4, 5))

        def forward(module, x):
            return module[2](torch.tanh(module[0](x.T)).mean(0))

        assert_matches_dense(net, tokens, forward)

    def test_two_inputs(self):
        torch.manual_seed(0)
        net = nn.Bilinear(2, 2, 3).double()
        assert_matches_dense(
            net, X, lambda module, x: module(x[:, :2], x[:, 2:]), rest=["weight", "bias"]
        )

    def test_encoder_with_positions_first(self):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0).double().eval()
        x = torch.randn(4, 3, 4, dtype=torch.float64)
        found = assert_matches_dense(layer, x, lambda module, x: module(x.transpose(0, 1)).sum(0))
        assert len(found.calls) == 6
