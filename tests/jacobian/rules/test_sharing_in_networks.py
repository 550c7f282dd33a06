"""Networks with one weight in several calls, or embeddings of positions without samples."""

import pytest
import torch
from torch import nn

from helpers.networks import normal
from helpers.oracles import dense_jacobian
from helpers.rule_oracles import Net, assert_agrees, assert_matches_dense, assert_near
from skgeo.exceptions import SkgeoError
from skgeo.jacobian._rules.gradients import certify_structure, structured_gradients
from skgeo.jacobian._rules.rule_check import RuleCheck
from skgeo.network import replica


class Language(nn.Module):
    """Tokens and positions in, logits out, by the table of tokens."""

    def __init__(self, position, *, padding=None, bias=False):
        super().__init__()
        self.tokens = nn.Embedding(6, 3, padding_idx=padding)
        self.positions = nn.Embedding(9, 3)
        self.body = nn.Linear(3, 3)
        self.head = nn.Linear(3, 6, bias=bias)
        self.head.weight = self.tokens.weight
        self.position = position

    def forward(self, tokens):
        where = self.position(torch.arange(tokens.shape[1], device=tokens.device), tokens)
        h = self.tokens(tokens) + self.positions(where)
        return self.head(torch.tanh(self.body(h)))


def one_row(where, tokens):
    return where.unsqueeze(0)


def alone(where, tokens):
    return where


def language(position=one_row, **options):
    torch.manual_seed(0)
    return Language(position, **options).double()


def tokens(n, length, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(6, (n, length), generator=generator)


class TestTied:
    @pytest.mark.parametrize("padding", [None, 2])
    @pytest.mark.parametrize("bias", [False, True])
    def test_embeddings(self, padding, bias):
        module = language(padding=padding, bias=bias)
        found = assert_matches_dense(module, tokens(3, 4))
        assert [tuple(call.names.values()) for call in found.calls].count(("tokens.weight",)) == 1

    def test_some_parameters(self):
        module, x = language(bias=True), tokens(3, 4)
        names = ["tokens.weight", "head.bias"]
        _, jacobian = dense_jacobian(module, x, names=names)
        found = structured_gradients(replica(module, parameters=names), x)
        assert found.rest == ()
        assert_agrees(found, torch.as_tensor(jacobian))

    def test_a_further_use_elsewhere(self):
        class Further(Language):
            def forward(self, tokens):
                return super().forward(tokens) + 1e-9 * self.head.weight.sum()

        torch.manual_seed(0)
        module = Further(one_row).double()
        assert_matches_dense(module, tokens(3, 4), rest=["tokens.weight"])

    def test_a_layer_called_three_times(self):
        def forward(net, x):
            for _ in range(3):
                x = torch.tanh(net.first(x))
            return net.second(x)

        assert_matches_dense(Net(forward))

    def test_a_layer_called_on_different_axes(self):
        def forward(net, x):
            h = net.first(x[:, None].expand(-1, 3, -1)) * torch.arange(1, 4)[:, None]
            return net.second(torch.tanh(net.first(h.transpose(0, 1)).sum(0)))

        assert_matches_dense(Net(forward))

    def test_one_call_without_gradient(self):
        def forward(net, x):
            with torch.no_grad():
                h = net.first(x)
            return net.second(torch.tanh(net.first(h)))

        assert_matches_dense(Net(forward), rest=["first.weight", "first.bias"])

    def test_convolutions_are_not_combined(self):
        conv = nn.Conv1d(2, 2, 1).double()
        module = nn.Sequential(conv, nn.Tanh(), conv, nn.Flatten(), nn.Linear(6, 3).double())
        assert_matches_dense(module, normal(4, 2, 3), rest=["0.weight", "0.bias"])

    def test_is_checked_once(self, monkeypatch):
        seen = []
        admit = RuleCheck.admit

        def spy(self, use, gradients):
            seen.append(use.name)
            return admit(self, use, gradients)

        monkeypatch.setattr(RuleCheck, "admit", spy)
        copied, x = replica(language()), tokens(8, 4)
        certificate = certify_structure(copied, x[:3])
        assert sorted(seen) == ["body", "positions", "tokens + head"]
        found = structured_gradients(copied, x, certificate=certificate)
        assert len(seen) == 3
        assert found.rest == ()
        assert_agrees(found, torch.as_tensor(dense_jacobian(language(), x)[1]))


class TestPositions:
    @pytest.mark.parametrize("n", [1, 2, 3, 4])
    def test_in_one_row(self, n):
        assert_matches_dense(language(), tokens(n, 4))

    @pytest.mark.parametrize("n", [1, 3, 5])
    def test_alone(self, n):
        assert_matches_dense(language(alone), tokens(n, 4))

    @pytest.mark.parametrize("n", [2, 4])
    def test_alone_and_a_multiple_of_the_samples(self, n):
        # As many as tokens of all samples in one axis would be.
        assert_matches_dense(language(alone), tokens(n, 4), rest=["positions.weight"])

    def test_of_each_sample(self):
        def each(where, tokens):
            return where.expand_as(tokens)

        assert_matches_dense(language(each), tokens(3, 4))

    def test_between_batches(self):
        copied, x = replica(language()), tokens(5, 4)
        first, second = (structured_gradients(copied, part) for part in (x[:2], x[2:]))
        flat = torch.as_tensor(dense_jacobian(language(), x)[1]).flatten(0, 1)
        assert_near(first.gram(second), flat[:48] @ flat[48:].T)

    def test_a_shape_that_is_read_afterwards(self):
        class Squeezed(Language):
            def forward(self, tokens):
                where = torch.arange(tokens.shape[1]).unsqueeze(0)
                p = self.positions(where)
                h = self.tokens(tokens) + p.reshape(tokens.shape[1], 3)
                return self.head(torch.tanh(self.body(h)))

        torch.manual_seed(0)
        module = Squeezed(one_row).double()
        assert_matches_dense(module, tokens(3, 4), rest=["positions.weight"])

    def test_a_sum_over_the_axis_of_length_one(self):
        class Summed(Language):
            def forward(self, tokens):
                where = torch.arange(tokens.shape[1]).unsqueeze(0)
                h = self.tokens(tokens) + self.positions(where).sum(0)
                return self.head(torch.tanh(self.body(h)))

        torch.manual_seed(0)
        module = Summed(one_row).double()
        assert_matches_dense(module, tokens(3, 4), rest=["positions.weight"])

    def test_the_first_row_for_all_samples(self):
        class First(Language):
            def forward(self, tokens):
                where = torch.arange(tokens.shape[1]).unsqueeze(0)
                h = self.tokens(tokens) + self.positions(where)[0]
                return self.head(torch.tanh(self.body(h)))

        torch.manual_seed(0)
        module = First(one_row).double()
        assert_matches_dense(module, tokens(3, 4), rest=["positions.weight"])

    def test_errors_are_those_of_the_network(self):
        with pytest.raises(SkgeoError, match="no samples"):
            structured_gradients(replica(language()), tokens(3, 4)[:0])
