import pytest
import torch
from torch import nn

from helpers.oracles import assert_untouched
from skgeo.exceptions import SkgeoError
from skgeo.jacobian import StructureRule, check_structure, register_structure, structure_rule
from skgeo.jacobian._rules import rule_table as table
from skgeo.jacobian._rules.gradients import structured_gradients
from skgeo.network import replica


@pytest.fixture(autouse=True)
def own_table(monkeypatch):
    monkeypatch.setattr(table, "_RULES", dict(table._RULES))


class Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(0.5, 1.5, width))
        self.other = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * self.factor * self.other


class ScaleRule(StructureRule):
    names = ("factor",)
    mistake = 1.0

    def features(self, module):
        return 1

    def rows(self, call):
        each = self.mistake * call.gradients * call.inputs.unsqueeze(1)
        # The other factor is one in these tests.
        return {"factor": each.flatten(2, -2).sum(2) if each.dim() > 3 else each}


X = torch.linspace(-2, 2, 15).sin().reshape(5, 3)


class TestLookingUp:
    def test_subclasses_share_unless_they_compute_otherwise(self):
        class Same(nn.Linear):
            pass

        class Other(nn.Linear):
            def forward(self, x):
                return x

        class Back(Other):
            forward = nn.Linear.forward

        assert structure_rule(Same(2, 2)) is structure_rule(nn.Linear(2, 2))
        assert structure_rule(Other(2, 2)) is None
        assert structure_rule(Back(2, 2)) is structure_rule(nn.Linear(2, 2))

    def test_a_subclass_may_have_its_own(self):
        class Own(nn.Linear):
            pass

        rule = ScaleRule()
        register_structure(Own, rule)
        assert structure_rule(Own(2, 2)) is rule
        assert structure_rule(nn.Linear(2, 2)) is not rule

    def test_none(self):
        assert structure_rule(nn.LSTM(2, 2)) is None
        assert structure_rule(nn.Tanh()) is None

    def test_a_layer_of_a_package_that_is_not_imported(self):
        class Conv1D(nn.Linear):
            def forward(self, x):
                return x @ self.weight + self.bias

        assert structure_rule(Conv1D(2, 2)) is None
        Conv1D.__module__, Conv1D.__qualname__ = "transformers.pytorch_utils", "Conv1D"
        assert structure_rule(Conv1D(2, 2)) is not None


class TestRegistering:
    @pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3)])
    def test_a_rule_is_used(self, shape):
        net = nn.Sequential(Scale(3), nn.Tanh(), nn.Linear(3, 2)).double()
        x = X.double() if len(shape) == 2 else X.double().unsqueeze(1).repeat(1, 2, 1).cos()
        before = structured_gradients(replica(net), x)
        assert before.rest == ("0.factor", "0.other")
        register_structure(Scale, ScaleRule())
        after = structured_gradients(replica(net), x)
        assert after.rest == ("0.other",)
        torch.testing.assert_close(after.rows(), before.rows(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(after.gram(), before.gram(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(after.metric(), before.metric(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(after.trace(), before.trace(), rtol=1e-12, atol=1e-14)

    def test_a_wrong_rule_cannot_spoil_an_answer(self):
        rule = ScaleRule()
        rule.mistake = 1.001
        register_structure(Scale, rule)
        net = nn.Sequential(Scale(3), nn.Tanh(), nn.Linear(3, 2)).double()
        assert structured_gradients(replica(net), X.double()).rest == ("0.factor", "0.other")

    def test_what_is_refused(self):
        with pytest.raises(SkgeoError, match=r"expected a subclass of torch\.nn\.Module"):
            register_structure(nn.Linear(2, 2), ScaleRule())
        with pytest.raises(SkgeoError, match=r"rule=MyRule\(\), with parentheses"):
            register_structure(nn.Linear, ScaleRule)


class TestCheck:
    def test_passes(self):
        module = Scale(3).eval()
        with assert_untouched(module):
            check_structure(ScaleRule(), module, X)

    def test_names_what_disagrees(self):
        rule = ScaleRule()
        rule.mistake = 3.0
        with pytest.raises(SkgeoError, match=r"ScaleRule disagrees .*rows of 'factor' differs by"):
            check_structure(rule, Scale(3), X)

    @pytest.mark.parametrize(
        ("method", "what"),
        [
            ("total", "total of 'factor'"),
            ("diagonal", "diagonal of 'factor'"),
            ("trace", "trace"),
            ("gram", "gram of a batch with itself"),
            ("outer", "outer"),
        ],
    )
    def test_looks_at_every_product(self, method, what):
        class Off(ScaleRule):
            pass

        def wrong(self, *args):
            if method == "outer":
                (call,) = args
                return torch.ones(5, 1, dtype=torch.float64), 2 * self.rows(call)["factor"]
            found = getattr(ScaleRule(), method)(*args)
            if isinstance(found, dict):
                return {key: 2 * value for key, value in found.items()}
            return 2 * found

        setattr(Off, method, wrong)
        with pytest.raises(SkgeoError, match=what):
            check_structure(Off(), Scale(3), X)

    def test_shapes(self):
        class Flat(ScaleRule):
            def rows(self, call):
                return {"factor": super().rows(call)["factor"][..., :1]}

        with pytest.raises(SkgeoError, match=r"shape \(5, 3, 1\), expected \(5, 3, 3\)"):
            check_structure(Flat(), Scale(3), X)

    def test_names(self):
        class Silent(ScaleRule):
            def rows(self, call):
                return {}

        with pytest.raises(SkgeoError, match=r"given for \[\], expected \['factor'\]"):
            check_structure(Silent(), Scale(3), X)
        with pytest.raises(SkgeoError, match="none of the parameters"):
            check_structure(ScaleRule(), nn.Linear(2, 2), X)

    def test_layers_that_are_not_covered(self):
        rule = structure_rule(nn.Embedding(3, 2))
        with pytest.raises(SkgeoError, match="does not cover"):
            check_structure(rule, nn.Embedding(3, 2, max_norm=1.0), torch.tensor([0, 1]))

    def test_rows_have_to_be_written(self):
        class Empty(StructureRule):
            names = ("factor",)

        with pytest.raises(NotImplementedError, match="Empty must define rows"):
            check_structure(Empty(), Scale(3), X)
