import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal
from skgeo.exceptions import SkgeoError
from skgeo.network import activation
from skgeo.symmetry._equivalence.apply import transform_layers
from skgeo.symmetry._equivalence.correspondence import match_forms
from skgeo.symmetry._equivalence.layerwise import canonical_layers, layer_blocks

ACTIVATE = {"relu": torch.relu, "leaky_relu": nn.LeakyReLU(0.01), "tanh": torch.tanh}


def layers(*widths, seed=0):
    net = mlp(*widths, seed=seed)
    linear = [m for m in net if isinstance(m, nn.Linear)]
    return [m.weight.detach() for m in linear], [m.bias.detach() for m in linear]


def outputs(form, x):
    """The function of a form of linear layers, computed directly."""
    for index, (weight, bias) in enumerate(zip(form.weights, form.biases, strict=True)):
        x = x @ weight.flatten(1).T + bias
        if index < len(form.activations):
            x = form.activations[index](x)
    return x


def disguised(weights, biases, activations, seed=1):
    """The stack with units permuted and scaled by what their activations allow."""
    generator = torch.Generator().manual_seed(seed)
    permutation, scales = [], []
    for weight, name in zip(weights, activations, strict=False):
        permutation.append(torch.randperm(len(weight), generator=generator))
        drawn = torch.rand(len(weight), generator=generator, dtype=torch.float64)
        scales.append((drawn - 0.5).sign() if name == "tanh" else 10 ** (6 * drawn - 3))
    return transform_layers(
        weights,
        biases,
        activations,
        permutation=permutation,
        scales=scales,
        flips=[None] * len(activations),
    )


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh"])
def test_moved_stacks_have_one_form_with_the_same_function(name):
    weights, biases = layers(4, 9, 7, 8, 3)
    names = [name] * 3
    form = canonical_layers(weights, biases, names, drop_off=False)
    other = canonical_layers(*disguised(weights, biases, names), names, drop_off=False)
    for ours, theirs in zip(
        (*form.weights, *form.biases), (*other.weights, *other.biases), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)
    x = normal(30, 4)
    h = x
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        h = ACTIVATE[name](h @ weight.T + bias)
    torch.testing.assert_close(outputs(form, x), h @ weights[-1].T + biases[-1])
    assert form.is_whole


def test_rows_have_norm_one_and_the_scale_is_that_of_the_unit():
    weights, biases = layers(4, 9, 7, 2)
    form = canonical_layers(weights, biases, ["relu", "relu"])
    for weight, bias in zip(form.weights[:-1], form.biases[:-1], strict=True):
        rows = torch.cat([weight.flatten(1), bias[:, None]], dim=1)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows), dtype=torch.float64))
    unit = form.units[0]
    torch.testing.assert_close(form.scales[0][:, None] * form.weights[0][:, :, 0], weights[0][unit])


def test_duplicates_are_merged_in_every_layer():
    weights, biases = layers(3, 5, 4, 2)
    split = [w.clone() for w in weights]
    # Unit 1 of the first layer twice, at other scales, and unit 2 of the second likewise.
    split[0] = torch.cat([split[0], 100 * split[0][1:2]])
    split[1] = torch.cat([split[1], split[1][:, 1:2] * 0.003], dim=1)
    split[1][:, 1] *= 0.7
    split[1] = torch.cat([split[1], 0.01 * split[1][2:3]])
    split[2] = torch.cat([0.6 * split[2][:, :3], split[2][:, 3:], 40 * split[2][:, 2:3]], dim=1)
    split[2][:, :2] /= 0.6
    shifts = [
        torch.cat([biases[0], 100 * biases[0][1:2]]),
        torch.cat([biases[1], 0.01 * biases[1][2:3]]),
        biases[2],
    ]
    form = canonical_layers(weights, biases, ["relu", "relu"])
    other = canonical_layers(split, shifts, ["relu", "relu"])
    assert other.widths == form.widths == (5, 4)
    assert other.groups[0][5] == other.groups[0][1]
    assert other.groups[1][4] == other.groups[1][2]
    assert not other.is_whole
    match = match_forms(form, other, tol=1e-12)
    assert match.layer is None


def test_what_cancels_goes_and_takes_its_readers_along():
    weights, biases = layers(3, 4, 4, 4, 2)
    # Two units of the last hidden layer cancel; they alone read unit 3 of the one before, which
    # alone reads unit 2 of the first.
    weights = [w.clone() for w in weights]
    biases = [b.clone() for b in biases]
    weights[2][:, 3] = 0
    weights[2][1], biases[2][1] = torch.tensor([0.1, 0.0, 0.2, 5.0], dtype=torch.float64), 0.3
    weights[2][2], biases[2][2] = 2 * weights[2][1], 0.6
    weights[3][:, 2] = -weights[3][:, 1] / 2
    weights[1][:3, 2] = 0
    form = canonical_layers(weights, biases, ["relu"] * 3)
    assert form.widths == (3, 3, 2)
    assert form.groups[0][2] == form.groups[1][3] == form.groups[2][1] == -1
    x = normal(20, 3)
    h = x
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        h = torch.relu(h @ weight.T + bias)
    torch.testing.assert_close(outputs(form, x), h @ weights[-1].T + biases[-1])


@pytest.mark.parametrize(
    ("name", "expected"), [("relu", [2.0, 0.0]), ("leaky_relu", [2.0, -0.03]), ("tanh", None)]
)
def test_constant_units_go_into_the_bias(name, expected):
    weights = [torch.zeros(2, 3, dtype=torch.float64), torch.eye(2, dtype=torch.float64)]
    biases = [torch.tensor([2.0, -3.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)]
    form = canonical_layers(weights, biases, [name])
    assert form.widths == (0,)
    expected = expected or [torch.tanh(b).item() for b in biases[0]]
    assert form.biases[-1].tolist() == pytest.approx(expected)


def test_units_that_rectified_inputs_never_turn_on_go():
    weights, biases = layers(3, 5, 4, 2)
    off = [w.clone() for w in weights]
    off[1][2], shifts = -off[1][2].abs(), [biases[0], biases[1].clone(), biases[2]]
    shifts[1][2] = -0.1
    assert canonical_layers(off, shifts, ["relu", "relu"]).widths == (5, 3)
    assert canonical_layers(off, shifts, ["relu", "relu"], drop_off=False).widths == (5, 4)
    # Inputs of the first layer, and tanh, have either sign; a positive bias turns a unit on.
    assert canonical_layers(off, shifts, ["tanh", "relu"]).widths == (5, 4)
    first = [-weights[0].abs(), *weights[1:]]
    assert canonical_layers(first, [-b.abs() for b in biases], ["relu"] * 2).widths[0] == 5
    shifts[1][2] = 0.1
    assert canonical_layers(off, shifts, ["relu", "relu"]).widths == (5, 4)


def test_a_constant_channel_stays_before_padding():
    kernel = torch.zeros(2, 1, 3, 3)
    kernel[0, 0, 1, 1] = 1.0
    form = canonical_layers(
        [kernel, torch.ones(1, 2, 3, 3)], [torch.ones(2), torch.zeros(1)], ["relu"]
    )
    assert form.widths == (2,)
    flat = canonical_layers(
        [kernel, torch.ones(1, 8)], [torch.ones(2), torch.zeros(1)], ["relu"], foldable=[True]
    )
    assert flat.widths == (1,)
    assert flat.biases[-1].item() == 4.0


def test_layers_without_activation_are_multiplied():
    weights, biases = layers(3, 5, 4, 2)
    form = canonical_layers(weights, biases, ["identity", "relu"])
    assert (form.layers, form.widths) == ((1,), (4,))
    single = canonical_layers(
        [weights[1] @ weights[0], weights[2]],
        [weights[1] @ biases[0] + biases[1], biases[2]],
        ["relu"],
    )
    torch.testing.assert_close(form.weights[0], single.weights[0])
    whole = canonical_layers(weights, biases, ["identity", "identity"])
    torch.testing.assert_close(whole.weights[0][:, :, 0], weights[2] @ weights[1] @ weights[0])


def test_other_activations_only_permute():
    weights, biases = layers(3, 6, 2)
    form = canonical_layers(weights, biases, ["gelu"])
    torch.testing.assert_close(form.weights[0][:, :, 0], weights[0][form.units[0]])
    assert torch.equal(form.scales[0], torch.ones(6, dtype=torch.float64))


def test_rounding_may_swap_units_with_close_keys():
    weights, biases = layers(6, 400, 3)
    noisy = [w * (1 + 1e-4 * normal(*w.shape, seed=5)) for w in weights]
    forms = [canonical_layers(w, biases, ["tanh"], tol=1e-9) for w in (weights, noisy)]
    assert not torch.equal(forms[0].units[0], forms[1].units[0])
    match = match_forms(*forms, tol=1e-2)
    assert match.layer is None
    assert 1e-5 < match.residual < 1e-3
    close = match_forms(*forms, tol=1e-9)
    assert close.layer == 0
    assert "rows of layer 0 differ" in close.reason


def test_forms_that_cannot_be_matched():
    weights, biases = layers(3, 5, 2)
    form = canonical_layers(weights, biases, ["relu"])
    leaky = canonical_layers(weights, biases, [activation("leaky_relu", negative_slope=0.1)])
    assert "activations" in match_forms(form, leaky, tol=1e-9).reason
    other = canonical_layers(weights, biases, [activation("leaky_relu", negative_slope=0.2)])
    assert "negative_slope=0.2" in match_forms(other, leaky, tol=1e-9).reason
    narrow = canonical_layers(*layers(3, 4, 2), ["relu"])
    match = match_forms(form, narrow, tol=1e-9)
    assert "widths are [5] and [4]" in match.reason
    assert match.residual == float("inf")


def test_the_users_weights_are_only_read():
    weights, biases = layers(3, 5, 4, 2)
    before = [t.clone() for t in (*weights, *biases)]
    canonical_layers(weights, biases, ["relu", "tanh"])
    assert all(torch.equal(a, b) for a, b in zip((*weights, *biases), before, strict=True))


def test_stacks_that_are_none():
    weights, biases = layers(3, 5, 2)
    with pytest.raises(SkgeoError, match="one activation between"):
        canonical_layers(weights, biases, [])
    with pytest.raises(SkgeoError, match="prelu"):
        canonical_layers(weights, biases, [activation("prelu", weight=(0.1,) * 5)])
    with pytest.raises(SkgeoError, match="does not divide"):
        layer_blocks([weights[0], torch.ones(2, 7)])
