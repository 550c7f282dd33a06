import copy

import numpy as np
import pytest
import torch
from torch import nn

from helpers.architectures import build
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo.exceptions import GeometryWarning, NotAModelError, SkgeoError
from skgeo.symmetry import apply_symmetry, equivalence_classes, equivalent

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "tanh": nn.Tanh}
DEEP = (4, 10, 8, 6, 3)


def disguise(net, generator):
    """A copy with all hidden units permuted and scaled by 1e-3 to 1e3, or signed."""
    permutation, scales = [], []
    for layer in list(net)[:-2:2]:
        width, smooth = len(layer.weight), isinstance(net[1], nn.Tanh)
        permutation.append(torch.randperm(width, generator=generator))
        drawn = torch.rand(width, generator=generator, dtype=torch.float64)
        scales.append((drawn - 0.5).sign() if smooth else 10 ** (6 * drawn - 3))
    return apply_symmetry(net, permutation=permutation, scales=scales), permutation, scales


def disturbed(net, size, generator):
    """One row (w, b) somewhere moved by `size` times its norm."""
    near = copy.deepcopy(net)
    layers = list(near)[::2]
    layer = layers[int(torch.randint(len(layers), (), generator=generator))]
    row = int(torch.randint(len(layer.weight), (), generator=generator))
    step = torch.randn(layer.weight.shape[1], generator=generator, dtype=torch.float64)
    with torch.no_grad():
        norm = torch.hypot(layer.weight[row].norm(), layer.bias[row].abs())
        layer.weight[row] += size * norm * step / step.norm()
    return near


FAMILIES = [
    *((DEEP, name, dtype) for name in ACTIVATIONS for dtype in (torch.float64, torch.float32)),
    ((4, 10, 3), "relu", torch.float32),
    ((4, 10, 3), "leaky_relu", torch.float64),
    ((4, 10, 3), "tanh", torch.float64),
]


@pytest.mark.parametrize(("widths", "name", "dtype"), FAMILIES, ids=str)
def test_200_disguised_copies_are_recognised(widths, name, dtype):
    generator = torch.Generator().manual_seed(0)
    for seed in range(200):
        net = mlp(*widths, activation=ACTIVATIONS[name], seed=seed, dtype=dtype)
        other, permutation, scales = disguise(net, generator)
        report = equivalent(net, other)
        assert report.verdict == "equivalent", (seed, str(report))
        for found, planted in zip(report.permutation, permutation, strict=True):
            assert torch.equal(found, planted)
        for found, turned, planted in zip(report.scales, report.flips, scales, strict=True):
            factor = found * turned
            torch.testing.assert_close(
                factor, planted, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0
            )


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_200_near_misses_are_refused_with_a_witness(name):
    generator = torch.Generator().manual_seed(1)
    for seed in range(200):
        net = mlp(*DEEP, activation=ACTIVATIONS[name], seed=seed)
        other = disguise(disturbed(net, 1e-5, generator), generator)[0]
        report = equivalent(net, other, tol=1e-7)
        assert report.verdict == "different", (seed, str(report))
        with torch.no_grad():
            outputs = net(report.witness[None])[0], other(report.witness[None])[0]
        assert not torch.equal(*outputs)
        torch.testing.assert_close(outputs, report.outputs)
        # Nearer than tol they are one network.
        if seed < 20:
            assert equivalent(net, other, tol=1e-4).verdict == "equivalent"


def test_the_certificate_turns_one_into_the_other():
    net = mlp(*DEEP, activation=nn.ReLU)
    other = disguise(net, torch.Generator().manual_seed(3))[0]
    with assert_untouched(net, other):
        report = equivalent(net, other)
    assert report.matched == "layers"
    assert report.residual < 1e-14
    made = apply_symmetry(
        net, permutation=report.permutation, scales=report.scales, flips=report.flips
    )
    for ours, theirs in zip(made.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_duplicates_and_idle_units_do_not_matter():
    net = mlp(3, 5, 4, 2, activation=nn.ReLU)
    wide = mlp(3, 7, 4, 2, activation=nn.ReLU)
    with torch.no_grad():
        for ours, theirs in zip(net.parameters(), wide.parameters(), strict=True):
            if ours.shape == theirs.shape:
                theirs.copy_(ours)
        wide[0].weight[:5], wide[0].bias[:5] = net[0].weight, net[0].bias
        wide[0].weight[5], wide[0].bias[5] = 3 * net[0].weight[0], 3 * net[0].bias[0]
        wide[2].weight[:, :5] = net[2].weight
        wide[2].weight[:, 0] *= 0.25
        wide[2].weight[:, 5] = 0.25 * net[2].weight[:, 0]
        wide[2].weight[:, 6] = 0.0
    report = equivalent(net, wide)
    assert (report.verdict, report.matched, report.permutation) == ("equivalent", "layers", None)


def test_one_hidden_layer_is_complete():
    # |x_1| by two units that fold, and by two units on the other sides.
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        net[0].bias.copy_(torch.tensor([-1.0, -1.0, 0.0]))
        net[2].weight.fill_(1.0)
    turned = apply_symmetry(net, flips=[-1, -1, 1])
    report = equivalent(net, turned)
    assert report.verdict == "equivalent"
    assert report.flips[0].tolist() == [-1, -1, 1]
    assert report.bias_shift.item() == pytest.approx(-2.0)
    # Leaky units are rectified ones and a linear part.
    leaky = nn.Sequential(net[0], nn.LeakyReLU(0.2), net[2])
    assert equivalent(leaky, apply_symmetry(leaky, flips=[-1, -1, 1])).verdict == "equivalent"
    report = equivalent(net, leaky)
    assert report.verdict == "different"
    # relu(-z) - z in place of relu(z) needs two units more for -z, or one linear layer.
    rectified = nn.Sequential(nn.Linear(2, 3), nn.Identity(), nn.Linear(3, 1)).double()
    assert equivalent(net, rectified).verdict == "different"


def test_linear_stacks_are_compared_by_their_product():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    other = apply_symmetry(net, scales=[normal(4, 4)])
    single = nn.Linear(3, 2).double()
    with torch.no_grad():
        single.weight.copy_(net[1].weight @ net[0].weight)
        single.bias.copy_(net[1].weight @ net[0].bias + net[1].bias)
    for twin in (other, single):
        assert equivalent(net, twin).verdict == "equivalent"
    with torch.no_grad():
        single.weight[0, 0] += 1e-8
    assert equivalent(net, single).verdict == "different"
    deep = nn.Sequential(nn.Linear(3, 4), *mlp(4, 5, 5, 2)).double()
    assert equivalent(deep, apply_symmetry(deep, scales={0: normal(4, 4)})).verdict == "equivalent"


def test_convolutions():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten()
        )
        net = nn.Sequential(*net, nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    other = apply_symmetry(
        net,
        permutation=[[3, 1, 0, 2], [2, 0, 1], [4, 0, 1, 2, 3]],
        scales=[[1.0, 50.0, 1e-3, 2.0], [3.0, 4.0, 0.1], [1, 1, -1, -1, 1]],
    )
    report = equivalent(net, other)
    assert report.verdict == "equivalent"
    assert report.flips[2].tolist() == [1, 1, -1, -1, 1]
    with torch.no_grad():
        other[0].weight[0, 0, 1, 1] += 1e-6
    report = equivalent(net, other)
    assert report.verdict == "different"
    assert report.witness.shape == (1, 4, 4)


def test_a_hidden_symmetry_is_undecided_not_guessed():
    # Reversal inside a deep network: the same function, found by no comparison of rows.
    net = mlp(3, 4, 3, 2, activation=nn.ReLU)
    with torch.no_grad():
        net[0].weight[1] = -net[0].weight[0]
        net[2].weight[:, 1] = net[2].weight[:, 0]
    other = apply_symmetry(net, flips={0: [-1, -1, 1, 1]})
    torch.testing.assert_close(net(normal(9, 3)), other(normal(9, 3)))
    report = equivalent(net, other, normal(20, 3))
    assert report.verdict == "undecided"
    assert "layer 0" in report.reason


def test_activations_with_settings_are_compared_by_outputs_too():
    net = mlp(3, 5, 2, activation=nn.GELU)
    other = apply_symmetry(net, permutation=[4, 3, 2, 1, 0])
    assert equivalent(net, other).verdict == "equivalent"
    other[1].approximate = "tanh"
    report = equivalent(net, other)
    assert report.verdict == "different"
    assert report.difference > 1e-6


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_other_architectures(name):
    net, inputs = build(name)
    assert equivalent(net, copy.deepcopy(net), inputs).verdict == "equivalent"
    other = copy.deepcopy(net)
    weights = [p for p in other.parameters() if p.dim() > 1][-1]
    with torch.no_grad():
        weights[0] += 1e-4
    report = equivalent(net, other)
    assert report.verdict == "undecided"
    assert type(net).__name__ in report.reason
    report = equivalent(net, other, inputs)
    assert report.verdict == "different"
    assert report.outputs[0].shape == (4,)


def test_rounding_alone_is_no_difference():
    net = mlp(3, 6, 5, 2, activation=nn.ReLU, dtype=torch.float32)
    other = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + 1e-7 * (torch.rand(parameter.shape, generator=generator) - 0.5))
    assert equivalent(net, other).verdict == "equivalent"
    # A certificate is refused below the weights' precision, and nothing else is claimed.
    with pytest.warns(GeometryWarning, match="below the precision"):
        report = equivalent(net, other, tol=1e-9)
    assert report.verdict == "undecided"


def test_networks_that_cannot_be_compared():
    net = mlp(3, 5, 2)
    with pytest.raises(SkgeoError, match=r"different interfaces: 3 inputs.*4 inputs"):
        equivalent(net, mlp(4, 5, 2))
    with pytest.raises(SkgeoError, match=r"2 outputs.*1 outputs"):
        equivalent(net, mlp(3, 5, 1))
    block = nn.TransformerEncoderLayer(4, 2, batch_first=True).eval()
    with pytest.raises(SkgeoError, match="cannot be run on"):
        equivalent(net, block, normal(5, 3))
    broken = mlp(3, 5, 2)
    with torch.no_grad():
        broken[0].weight[0, 0] = float("nan")
    with pytest.raises(SkgeoError, match="NaN or infinite"):
        equivalent(net, broken)
    with pytest.raises(NotAModelError):
        equivalent(net, "a network")
    with pytest.raises(SkgeoError, match="greater than 0 and less than 1"):
        equivalent(net, net, tol=-1.0)


def test_classes_in_order_of_first_appearance():
    generator = torch.Generator().manual_seed(0)
    nets = [mlp(*DEEP, activation=nn.ReLU, seed=seed) for seed in range(5)]
    table = [nets[2], nets[0], *(disguise(net, generator)[0] for net in nets), nets[4]]
    labels = equivalence_classes([*table, mlp(4, 2), mlp(3, 2)])
    np.testing.assert_array_equal(labels, [0, 1, 1, 2, 0, 3, 4, 4, 5, 6])
    assert labels.dtype == np.int64
    assert equivalence_classes([]).shape == (0,)


def test_classes_see_near_misses_apart():
    generator = torch.Generator().manual_seed(0)
    net = mlp(*DEEP, activation=nn.Tanh)
    others = [disturbed(net, 1e-9, generator) for _ in range(4)]
    np.testing.assert_array_equal(equivalence_classes([net, *others]), range(5))
    np.testing.assert_array_equal(equivalence_classes([net, *others], tol=1e-6), [0] * 5)


def test_undecided_pairs_are_named_and_errors_say_where():
    # The gain of a LayerNorm may be traded for the columns that read it.
    block = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)).double()
    twin = copy.deepcopy(block)
    with torch.no_grad():
        twin[0].weight *= 2
        twin[1].weight /= 2
    with pytest.warns(GeometryWarning, match=r"\(0, 1\) compute the same function is undecided"):
        labels = equivalence_classes([block, twin], normal(6, 4))
    np.testing.assert_array_equal(labels, [0, 1])
    with pytest.raises(NotAModelError) as error:
        equivalence_classes([block, None])
    assert error.value.__notes__ == ["in network 1"]
