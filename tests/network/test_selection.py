import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME
from helpers.networks import linear
from skgeo.exceptions import SkgeoError
from skgeo.network import replica


class TestSelection:
    def frozen(self):
        module = BY_NAME["mlp"].module()
        module[0].requires_grad_(False)
        return module

    def test_kinds(self):
        module = self.frozen()
        assert replica(module).selected == ("2.weight", "2.bias", "4.weight", "4.bias")
        assert replica(module, parameters="all").selected == replica(module).names
        chosen = replica(module, parameters=["4.bias", "0.weight"])
        assert chosen.selected == ("0.weight", "4.bias")
        assert chosen.n_parameters == 23
        flags = {name for name, p in chosen.parameters.items() if p.requires_grad}
        assert flags == {"0.weight", "4.bias"}

    def test_second_name_of_a_tied_parameter(self):
        module = BY_NAME["embedding_tied"].module()
        assert replica(module, parameters=["out.weight"]).selected == ("embedding.weight",)

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            (["4.wieght"], "Did you mean '4.weight'"),
            ("4.weight", "expected 'trainable', 'all' or a list of names"),
            ([], "No parameter of Sequential is selected"),
        ],
    )
    def test_errors(self, parameters, message):
        with pytest.raises(SkgeoError, match=message):
            replica(self.frozen(), parameters=parameters)

    def test_nothing_to_select(self):
        module = linear(4, 3)
        module.requires_grad_(False)
        with pytest.raises(SkgeoError, match="2 parameters, none trainable"):
            replica(module)
        with pytest.raises(SkgeoError, match="none at all"):
            replica(nn.Tanh())

    def test_kinds_of_numbers(self):
        module = linear(4, 3)
        module.table = nn.Parameter(torch.arange(3), requires_grad=False)
        assert replica(module, parameters="all").selected == ("weight", "bias")
        with pytest.raises(SkgeoError, match=r"'table' has dtype torch\.int64"):
            replica(module, parameters=["table"])
        with pytest.raises(SkgeoError, match=r"'weight' has dtype torch\.complex64"):
            replica(nn.Linear(2, 2, dtype=torch.complex64))

    def test_facts(self):
        copied = replica(BY_NAME["mlp"].module(torch.float32))
        assert copied.dtype is torch.float32
        assert copied.device == torch.device("cpu")
        assert not copied.takes_integers
        assert replica(BY_NAME["embedding"].module()).takes_integers
        mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
        assert replica(mixed).dtype is torch.float64
        assert "Sequential, n_parameters=12" in repr(replica(mixed))
