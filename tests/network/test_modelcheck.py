import warnings

import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME
from helpers.networks import linear
from helpers.oracles import assert_untouched
from skgeo.exceptions import GeometryWarning, NotAModelError, SkgeoError, collect_warnings
from skgeo.network import replica

X = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4)


class TestRefused:
    @pytest.mark.parametrize("given", [None, "net", 3, {}, lambda x: x])
    def test_not_a_module(self, given):
        with pytest.raises(NotAModelError, match="None" if given is None else type(given).__name__):
            replica(given)

    def test_a_class(self):
        with pytest.raises(NotAModelError, match=r"class Linear.*instance"):
            replica(nn.Linear)

    @pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
    def test_script(self):
        scripted = torch.jit.trace(linear(4, 3), X)
        with pytest.raises(NotAModelError, match="it is a ScriptModule"):
            replica(scripted)
        with pytest.raises(NotAModelError, match="submodule '1' is a ScriptModule"):
            replica(nn.Sequential(nn.Linear(4, 4), scripted))

    def test_lazy(self):
        with pytest.raises(SkgeoError, match=r"'0\.weight' is not initialised"):
            replica(nn.Sequential(nn.LazyLinear(3)))

    def test_meta(self):
        with pytest.raises(SkgeoError, match="'weight' is on the meta device"):
            replica(nn.Linear(4, 3, device="meta"))

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_weights_that_are_not_finite(self, value):
        module = BY_NAME["mlp"].module()
        with torch.no_grad():
            module[2].weight[1, 1] = value
        with pytest.raises(SkgeoError, match=r"'2\.weight' has 1 entries"):
            replica(module)

    def test_buffers_that_are_not_finite(self):
        module = BY_NAME["batchnorm"].module()
        module[1].running_var[0] = float("inf")
        with pytest.raises(SkgeoError, match=r"'1\.running_var' has 1 entries"):
            replica(module)

    def test_masks_are_buffers_with_minus_infinity(self):
        module = linear(4, 3)
        module.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
        assert replica(module).n_parameters == 15

    def test_batch_statistics(self):
        module = nn.Sequential(
            nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 3)
        )
        with pytest.raises(SkgeoError, match="without running statistics: 1"):
            replica(module)
        assert replica(nn.Sequential(nn.Conv1d(1, 2, 2), nn.InstanceNorm1d(2))).n_parameters == 6

    def test_tensors_held_elsewhere(self):
        module = linear(4, 3)
        module.table = [torch.ones(2), torch.ones(2, device="meta")]
        assert replica(module).device.type == "cpu"
        with pytest.raises(SkgeoError, match="table on meta"):
            replica(module, device="cpu")


class TestMode:
    @pytest.mark.parametrize(
        "layer",
        [
            nn.Dropout(0.1),
            nn.AlphaDropout(0.1),
            nn.Dropout2d(0.1),
            nn.BatchNorm1d(3),
            nn.InstanceNorm1d(3, track_running_stats=True),
            nn.MultiheadAttention(4, 2, dropout=0.1),
            nn.LSTM(4, 4, 2, dropout=0.1),
            nn.TransformerEncoderLayer(4, 2, 4),
            nn.RReLU(),
        ],
        ids=lambda layer: type(layer).__name__,
    )
    def test_warned_of_once(self, layer):
        module = nn.Sequential(nn.Linear(4, 4), layer)
        with assert_untouched(module):
            with pytest.warns(GeometryWarning, match="train mode") as record:
                copied = replica(module)
            assert len(record) == 1
        assert not any(m.training for m in copied.module.modules())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            replica(module.eval())

    @pytest.mark.parametrize(
        "layer", [nn.Dropout(0.0), nn.LayerNorm(4), nn.LSTM(4, 4), nn.InstanceNorm1d(3)]
    )
    def test_silent_where_modes_agree(self, layer):
        replica(nn.Sequential(nn.Linear(4, 4), layer))

    def test_goes_to_the_collector(self):
        with collect_warnings() as collected:
            replica(nn.Sequential(nn.Linear(4, 4), nn.Dropout()))
        assert [category for category, _ in collected] == [GeometryWarning]
