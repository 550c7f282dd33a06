"""What each rule proposes, against the null space of the dense Jacobian."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from helpers.architectures import build
from helpers.cases import BY_NAME, CASES, _unsettle
from helpers.laws import LockedMLP
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched, dense_jacobian
from skgeo import GeometryWarning, SkgeoError, WrappedModel
from skgeo.symmetry import generators, nullity_account
from skgeo.symmetry._generators import operator, table
from skgeo.symmetry._generators.candidate import Change


def assert_in_null_space(module, X, forward=None, **options):
    """Check the generators against a dense Jacobian; returns its nullity, and the generators."""
    options = {"likelihood": "gaussian", **options}
    found = generators(WrappedModel(module, forward=forward), X, **options)
    _, jacobian = dense_jacobian(module, X, forward)
    rows = jacobian.reshape(-1, jacobian.shape[-1])
    singular = np.linalg.svd(rows, compute_uv=False)
    columns = found.matrix.toarray()
    assert columns.shape == (rows.shape[1], len(found.table))
    sizes = np.linalg.norm(columns, axis=0)
    assert (sizes > 0).all()
    assert (np.linalg.norm(rows @ columns, axis=0) <= 1e-10 * singular[0] * sizes).all()
    spanned = np.linalg.matrix_rank(columns / sizes, tol=1e-9) if len(sizes) else 0
    assert spanned == found.n_generators
    return rows.shape[1] - int((singular > 1e-9 * singular[0]).sum()), found


def settled(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build()
        _unsettle(module)
    return module.double().eval()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_columns_lie_in_the_null_space(case):
    module, X = case.module(), case.inputs(30)
    with assert_untouched(module):
        nullity, found = assert_in_null_space(module, X, case.forward)
    assert found.n_generators <= nullity
    assert {row.symmetry for row in (*found.table, *found.dropped)} <= set(table.SYMMETRIES)


@pytest.mark.parametrize(
    ("name", "dimensions"),
    [
        ("relu", {"scaling": 5}),
        ("prelu", {"scaling": 5}),
        ("batchnorm", {"batchnorm": 12}),
        ("batchnorm2d", {"batchnorm": 8}),
        ("layernorm", {"norm_shift": 5}),
        ("rmsnorm", {"norm_scale": 1}),
        ("conv2d_dilated", {"unused_entry": 48}),
        ("embedding", {"linear": 21}),
    ],
)
def test_all_flat_directions_are_named(name, dimensions):
    case = BY_NAME[name]
    n_samples = 300 if "relu" in name else 150  # kinks are met on both sides
    nullity, found = assert_in_null_space(case.module(), case.inputs(n_samples))
    assert found.dimensions == dimensions
    assert found.n_generators == nullity
    assert found.not_covered == ()


@pytest.mark.parametrize("activation", [nn.ReLU, lambda: nn.LeakyReLU(0.1)])
def test_scaling_reaches_through_convolutions(activation):
    module = settled(
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 2, padding=1),
            nn.BatchNorm2d(3),
            activation(),
            nn.MaxPool2d(2),
            nn.Conv2d(3, 2, 2),
            activation(),
            nn.Flatten(),
            nn.Linear(8, 2),
        )
    )
    _, found = assert_in_null_space(module, normal(60, 1, 5, 5))
    assert found.dimensions["scaling"] == 5
    assert found.dimensions["batchnorm"] == 6
    assert {row.layer for row in found.table if row.symmetry == "scaling"} == {"1", "4"}


def test_scaling_before_a_norm_without_gain():
    """About the mean that is taken off, which does not grow."""
    module = settled(
        lambda: nn.Sequential(
            nn.Linear(3, 5), nn.BatchNorm1d(5, affine=False), nn.ReLU(), nn.Linear(5, 2)
        )
    )
    nullity, found = assert_in_null_space(module, 3 * normal(200, 3))
    assert found.dimensions == {"scaling": 5}
    assert nullity == 5


def test_scaling_of_linear_maps_a_position():
    """Positions flattened after the features: columns of a unit are strided."""
    module = settled(
        lambda: nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    )
    nullity, found = assert_in_null_space(module, 3 * normal(80, 3, 2))
    assert found.dimensions == {"scaling": 4}
    assert nullity == 4


class Stream(nn.Module):
    """A stem and two residual blocks, ReLU after each sum, as in a ResNet."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.inside = nn.ModuleList(nn.Linear(4, 5) for _ in range(2))
        self.outside = nn.ModuleList(nn.Linear(5, 4) for _ in range(2))

    def forward(self, x):
        x = self.stem(x).relu()
        for inside, outside in zip(self.inside, self.outside, strict=True):
            x = (x + outside(inside(x).relu())).relu()
        return self.head(x)


def test_channels_of_a_residual_stream_scale_together():
    _, found = assert_in_null_space(settled(Stream), 3 * normal(100, 3))
    assert found.dimensions["scaling"] == 10
    assert found.dimensions["stream_scaling"] == 4
    resnet, X = build("resnet", 20)
    _, found = assert_in_null_space(resnet, X)
    assert found.dimensions["stream_scaling"] == 4 + 8
    assert found.dropped == ()


class SelfAttention(nn.Module):
    def __init__(self, width, heads, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True, **options)
        inputs = options.get("kdim"), options.get("vdim")
        self.cross = inputs != (None, None)

    def forward(self, x):
        if isinstance(x, dict):
            return self.attention(x["q"], x["k"], x["v"], need_weights=False)[0]
        return self.attention(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "heads"), [(4, 2), (4, 1), (6, 3)])
def test_attention_has_two_groups_a_head(bias, width, heads):
    module = settled(lambda: SelfAttention(width, heads, bias=bias))
    nullity, found = assert_in_null_space(module, normal(20, 5, width))
    size = width // heads
    expected = heads * (2 * size**2 + 2 * size * bias)
    assert found.n_generators == expected == nullity


@pytest.mark.parametrize("bias", [True, False])
def test_attention_with_keys_and_values_of_their_own(bias):
    module = settled(lambda: SelfAttention(4, 2, bias=bias, kdim=3, vdim=5))
    assert module.attention.in_proj_weight is None
    inputs = {"q": normal(40, 5, 4), "k": normal(40, 5, 3, seed=1), "v": normal(40, 5, 5, seed=2)}
    nullity, found = assert_in_null_space(module, inputs)
    assert found.n_generators == 2 * (2 * 2**2 + 2 * 2 * bias) == nullity


def test_heads_wider_than_their_inputs():
    """Without biases query and key have 2 D d - D^2 flat directions, with D inputs of the keys."""
    module = settled(lambda: SelfAttention(6, 1, bias=False, kdim=6, vdim=6))
    inputs = {name: normal(30, 5, 6, seed=seed) for seed, name in enumerate("qkv")}
    nullity, found = assert_in_null_space(module, inputs)
    assert found.n_generators == nullity == 2 * 36
    narrow = settled(lambda: SelfAttention(6, 1, bias=False, kdim=2, vdim=2))
    inputs |= {"k": normal(30, 5, 2, seed=4), "v": normal(30, 5, 2, seed=5)}
    nullity, found = assert_in_null_space(narrow, inputs)
    assert found.dimensions == {"query_key": 36, "value_output": 36}
    assert found.n_generators == nullity


@pytest.mark.parametrize("causal", [True, False])
def test_masks_change_nothing(causal):
    class Masked(SelfAttention):
        def forward(self, x):
            mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
            return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]

    nullity, found = assert_in_null_space(settled(lambda: Masked(4, 2)), normal(20, 5, 4))
    assert found.n_generators == nullity == 24


def test_extra_key_and_value_vectors():
    module = settled(lambda: SelfAttention(4, 2, add_bias_kv=True))
    nullity, found = assert_in_null_space(module, normal(20, 5, 4))
    assert found.n_generators == nullity


def test_a_zero_key_makes_the_key_bias_count():
    module = settled(lambda: SelfAttention(4, 2, add_zero_attn=True))
    nullity, found = assert_in_null_space(module, normal(20, 5, 4))
    assert {row.symmetry for row in found.dropped} >= {"key_bias"}
    assert found.n_generators <= nullity


def test_layer_norm_without_epsilon_has_its_scale():
    def build(eps):
        return settled(lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6, eps=eps), nn.Tanh()))

    nullity, found = assert_in_null_space(build(0.0), normal(60, 4))
    assert found.dimensions == {"norm_shift": 5, "norm_scale": 1}
    assert nullity == 6
    _, found = assert_in_null_space(build(1e-5), normal(60, 4))
    assert found.dimensions == {"norm_shift": 5}
    assert [row.symmetry for row in found.dropped] == ["norm_scale"]
    assert found.dropped[0].residual > 1e-10


@pytest.mark.parametrize("affine", [True, False])
def test_rows_that_read_a_layer_norm(affine):
    """Each output row has a null; gains and shifts add 2 w."""
    module = settled(
        lambda: nn.Sequential(nn.LayerNorm(5, elementwise_affine=affine), nn.Linear(5, 3))
    )
    nullity, found = assert_in_null_space(module, normal(60, 5))
    assert nullity == found.n_generators == 3 + 10 * affine


@pytest.mark.parametrize("norm_first", [True, False])
def test_blocks_of_torch(norm_first):
    options = {"dropout": 0.0, "batch_first": True, "norm_first": norm_first}
    module = settled(
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(4, 2, 6, **options), nn.Flatten(), nn.Linear(12, 3)
        )
    )
    nullity, found = assert_in_null_space(module, normal(150, 3, 4))
    assert found.dimensions["scaling"] == 6
    assert found.dimensions["query_key"] == found.dimensions["value_output"] == 8
    assert found.n_generators <= nullity
    assert found.not_covered == ()


@pytest.mark.parametrize("widths", [(5, 2, 4), (3, 6, 2), (5, 4, 2), (4, 3, 3, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_in_a_row(widths, bias):
    module = settled(
        lambda: nn.Sequential(*(nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(widths)))
    )
    nullity, found = assert_in_null_space(module, normal(60, widths[0]))
    assert set(found.dimensions) == {"linear"}
    assert found.n_generators == nullity


def test_linear_convolutions_in_a_row():
    module = settled(
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 2, bias=False), nn.Conv2d(2, 2, 2), nn.Flatten(), nn.Linear(18, 2)
        )
    )
    nullity, found = assert_in_null_space(module, normal(150, 1, 5, 5))
    assert found.dimensions["linear"] >= 4
    assert found.n_generators <= nullity


def test_softmax_shifts_change_logits_and_no_probability():
    module = mlp(3, 4, 3, seed=1)
    X = normal(100, 3)
    found = generators(module, X, likelihood="categorical")
    assert found.dimensions == {"softmax_shift": 5}
    _, jacobian = dense_jacobian(module, X)
    change = np.einsum("nkp,pm->nkm", jacobian, found.matrix.toarray())
    assert np.abs(change).max() > 0.1
    assert np.abs(change - change.mean(1, keepdims=True)).max() < 1e-12
    assert generators(module, X, likelihood="gaussian").dimensions == {}


def test_a_unit_that_raises_all_logits_alike_is_not_seen():
    module = mlp(3, 4, 3, activation=nn.ReLU, seed=1)
    with torch.no_grad():
        module[2].weight[:, 2] = 0.7
    X = 3 * normal(200, 3)
    found = generators(module, X, likelihood="categorical")
    assert found.dimensions == {"scaling": 4, "softmax_shift": 5, "no_output": 3}
    assert {row.units for row in found.table if row.symmetry == "no_output"} == {(2,)}
    assert {row.symmetry for row in found.table if row.weighted} == {"softmax_shift", "no_output"}
    assert nullity_account(module, X, likelihood="categorical").unexplained == 0
    assert generators(module, X, likelihood="gaussian").dimensions == {"scaling": 4}


@pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU, nn.Softplus])
def test_duplicates_of_smooth_units(activation):
    module = mlp(3, 5, 2, activation=activation, seed=2)
    sign = -1.0 if activation is nn.Tanh else 1.0
    with torch.no_grad():
        module[0].weight[1], module[0].bias[1] = (
            sign * module[0].weight[0],
            sign * module[0].bias[0],
        )
        module[2].weight[:, 3] = 0.0
        module[0].weight[4] = 0.0
    nullity, found = assert_in_null_space(module, 2 * normal(100, 3))
    # Two transfers; four of a unit that is not read; a constant against the bias, and its bias.
    assert found.dimensions == {
        "no_output": 4,
        "duplicate": 2,
        "constant_unit": 1,
        "constant_input": 2,
    }
    assert found.n_generators == nullity


def test_inputs_that_never_change():
    X = normal(80, 5)
    X[:, 1], X[:, 3] = 0.0, 2.5
    nullity, found = assert_in_null_space(mlp(5, 4, 2, seed=1), X)
    assert found.dimensions == {"constant_input": 8}
    assert nullity == 8
    module = nn.Linear(5, 2, bias=False).double()
    X[:, 4] = -1.0
    nullity, found = assert_in_null_space(module, X)
    assert found.dimensions == {"constant_input": 4}
    assert nullity == 4
    assert {row.domain for row in found.table} == {"data"}


def test_tokens_that_never_come():
    module = BY_NAME["embedding"].module()
    tokens = torch.tensor([[0, 1, 2, 0], [1, 1, 2, 3], [3, 2, 0, 0], [1, 2, 3, 3], [2, 2, 1, 0]])
    _, found = assert_in_null_space(module, tokens)
    assert {row.units for row in found.table if row.symmetry == "unused_entry"} == {(4,), (5,)}


def test_tied_and_frozen_parameters():
    module = mlp(3, 4, 2, activation=nn.ReLU)
    module[2].weight.requires_grad_(False)
    found = generators(module, normal(30, 3), likelihood="gaussian")
    assert found.matrix.shape == (4 * 3 + 4 + 2, 0)
    tied = BY_NAME["embedding_tied"]
    nullity, found = assert_in_null_space(tied.module(), tied.inputs(50))
    assert found.matrix.shape[0] == sum(p.numel() for p in tied.module().parameters())
    assert found.n_generators <= nullity


def test_columns_are_checked_by_rows_or_by_products_alike():
    case = BY_NAME["relu"]
    module, X = case.module(), case.inputs(20)
    one = generators(module, X, likelihood="gaussian")  # three outputs, five columns: products
    few = generators(
        nn.Sequential(module, nn.Linear(3, 1).double()), X, likelihood="gaussian"
    )  # rows
    assert max(row.residual for row in one.table) < 1e-15
    assert max(row.residual for row in few.table) < 1e-15


@pytest.mark.parametrize("batch_size", [1, 7, None])
def test_batches_do_not_matter(batch_size):
    case = BY_NAME["batchnorm"]
    found = generators(case.module(), case.inputs(20), batch_size=batch_size, likelihood="gaussian")
    assert found.dimensions == {"batchnorm": 12}


def test_scales_from_thousandths_to_thousands():
    module = mlp(4, 40, 3, activation=nn.ReLU, seed=4, dtype=torch.float32)
    scales = 10.0 ** torch.linspace(-3, 3, 40)
    with torch.no_grad():
        module[0].weight *= scales[:, None]
        module[0].bias *= scales
        module[2].weight /= scales
    found = generators(module, normal(300, 4, dtype=torch.float32), likelihood="gaussian")
    assert found.dimensions["scaling"] == 40
    assert max(row.residual for row in found.table) < 1e-15


def test_train_mode_is_warned_of_once():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()
    with pytest.warns(GeometryWarning, match="train mode") as caught, assert_untouched(module):
        found = generators(module, normal(60, 3), likelihood="gaussian")
    assert len(caught) == 1
    assert found.dimensions["batchnorm"] == 8


def test_layers_that_never_run_are_passed_over():
    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.rest = mlp(3, 4, 2, activation=nn.ReLU), nn.Linear(3, 2).double()
            self.table, self.kernel = nn.Embedding(3, 2).double(), nn.Conv1d(1, 1, 2).double()

        def forward(self, x):
            if bool((x > 1e6).any()):
                return self.rest(x) + self.table(x.long()) + self.kernel(x[:, None])
            return self.body(x)

    nullity, found = assert_in_null_space(Branched(), normal(30, 3))
    assert found.dimensions == {"scaling": 4}
    assert nullity >= 4


def test_norms_without_gain_end_a_stream():
    class Normed(Stream):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4, affine=False)

        def forward(self, x):
            x = self.stem(x).relu()
            return self.head(self.norm(x + self.outside[0](self.inside[0](x).relu())))

    _, found = assert_in_null_space(settled(Normed), 3 * normal(60, 3))
    assert found.dimensions == {"scaling": 5}


def test_modules_without_known_layers():
    found = generators(LockedMLP(), normal(20, 4), likelihood="gaussian")
    assert found.matrix.shape == (35, 0)
    assert (found.n_generators, found.dimensions) == (0, {})
    assert len(found.not_covered) == 2


def test_reading_is_refused_like_a_fisher_matrix():
    with pytest.raises(SkgeoError, match="NaN"):
        generators(mlp(2, 3, 1), torch.tensor([[0.0, torch.nan]]), likelihood="gaussian")
    with pytest.raises(SkgeoError, match="cannot be run on this data"):
        generators(mlp(2, 3, 1), normal(4, 5), likelihood="gaussian")


def test_what_changes_the_outputs_is_not_believed(monkeypatch):
    def wrong(network):
        for node, layer in network.layers("linear"):
            yield from Change(network).add(layer.bias, 0, 1.0).candidate("wrong", node.module)

    monkeypatch.setitem(table._RULES, wrong, ("wrong",))
    found = generators(mlp(2, 3, 1), normal(20, 2), likelihood="gaussian")
    assert found.table == ()
    assert [(row.symmetry, row.layer) for row in found.dropped] == [("wrong", "0"), ("wrong", "2")]


def test_what_is_said_of_all_inputs_is_probed_on_random_ones(monkeypatch):
    """A unit that is dead on positive data, and a rule that calls it dead everywhere."""
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net[0].bias.copy_(torch.tensor([0.5, -0.1]))
    X = torch.linspace(0.1, 1.0, 9, dtype=torch.float64)[:, None]
    right = generators(net, X, likelihood="gaussian")
    assert {row.domain for row in right.table if row.symmetry == "dead"} == {"data"}
    assert {row.domain for row in right.table if row.symmetry == "scaling"} == {"all"}

    def everywhere(network):
        return [replace(candidate, domain="all") for candidate in table.propose(network)]

    monkeypatch.setattr(operator, "propose", everywhere)
    found = generators(net, X, likelihood="gaussian")
    assert [row.domain for row in found.table] == [row.domain for row in right.table]
