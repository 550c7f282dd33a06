import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo.exceptions import SkgeoError
from skgeo.symmetry import apply_symmetry
from skgeo.symmetry._equivalence.apply import per_layer

X = normal(40, 3)


def same(a, b, inputs=X, atol=1e-13):
    with torch.no_grad():
        return torch.allclose(a(inputs), b(inputs), rtol=1e-12, atol=atol)


def annihilating():
    """Three units of five with sum q_i w_i^T = 0, and two outputs."""
    net = mlp(3, 5, 2, activation=nn.ReLU)
    with torch.no_grad():
        net[0].weight[2] = net[0].weight[0]
        net[2].weight[:, 2] = -net[2].weight[:, 0]
        net[0].weight[4] = 0.0
        net[0].bias[4] = 2.0
    return net


@pytest.mark.parametrize(
    ("activation", "scales"),
    [
        (nn.ReLU, [[2.0, 0.5, 1e3, 1e-3], [3.0, 1.0, 0.1]]),
        (nn.LeakyReLU, [[2.0, 0.5, 1e3, 1e-3], None]),
        (nn.Tanh, [[1.0, -1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]),
        (nn.Softsign, [None, [-1.0, 1.0, -1.0]]),
        (nn.GELU, None),
    ],
)
def test_the_function_stays(activation, scales):
    net = mlp(3, 4, 3, 2, activation=activation)
    with assert_untouched(net):
        new = apply_symmetry(net, permutation=[[3, 0, 2, 1], [1, 2, 0]], scales=scales)
    assert same(net, new)
    assert not torch.equal(net[0].bias, new[0].bias)
    assert new[0].weight.data_ptr() != net[0].weight.data_ptr()


def test_unit_j_is_the_old_unit_it_names():
    net = mlp(3, 4, 2, activation=nn.ReLU)
    new = apply_symmetry(net, permutation=[3, 0, 2, 1], scales=[1.0, 2.0, 4.0, 8.0])
    torch.testing.assert_close(new[0].weight[1], 2 * net[0].weight[0])
    torch.testing.assert_close(new[0].bias[3], 8 * net[0].bias[1])
    torch.testing.assert_close(new[2].weight[:, 0], net[2].weight[:, 3])
    torch.testing.assert_close(new[2].weight[:, 2], net[2].weight[:, 2] / 4)


def test_class_dtype_and_mode_stay():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)))

    net = Net().train()
    net.first.bias.requires_grad_(False)
    new = apply_symmetry(net, permutation=[1, 0, 3, 2])
    assert type(new) is Net
    assert new.training
    assert new.first.weight.dtype == torch.float32
    assert not new.first.bias.requires_grad
    assert same(net, new, X.float(), atol=1e-6)


def test_channels_of_convolutions():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 3, 3, stride=2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(3 * 4, 2),
        ).double()
    new = apply_symmetry(
        net,
        permutation=[[2, 3, 1, 0], [1, 2, 0]],
        scales=[[1e3, 1.0, 0.1, 2.0], [1, -1, -1]],
    )
    assert same(net, new, normal(5, 2, 6, 6))
    with pytest.raises(SkgeoError, match="between linear layers"):
        apply_symmetry(net, flips={0: [-1, -1, -1, -1]})


def test_reversal_of_an_annihilating_set_shifts_the_bias():
    # relu(x-1) + relu(-x-1) + 2 = relu(-x+1) + relu(x+1)
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net[0].bias.fill_(-1.0)
        net[2].weight.fill_(1.0)
        net[2].bias.fill_(2.0)
    new = apply_symmetry(net, flips=[-1, -1])
    assert new[2].bias.item() == 0.0
    assert new[0].bias.tolist() == [1.0, 1.0]
    assert same(net, new, torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None])


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.3])
def test_reversal_inside_a_deep_network_and_of_leaky_units(slope):
    net = annihilating()
    deep = nn.Sequential(net[0], nn.LeakyReLU(slope), net[2], nn.Tanh(), mlp(2, 2, seed=1)[0])
    new = apply_symmetry(deep, flips=[[-1, 1, -1, 1, -1], None], scales=[[1, 2, 3, 4, 5], None])
    assert same(deep, new)
    assert torch.equal(new[0].weight[0], -deep[0].weight[0])


def test_reversal_gives_a_bias_to_a_layer_without_one():
    net = annihilating()
    net[2].bias = None
    new = apply_symmetry(net, flips=[-1, 1, -1, 1, 1])
    assert new[2].bias is not None
    assert same(net, new)
    assert apply_symmetry(net, permutation=[4, 3, 2, 1, 0])[2].bias is None


def test_reversal_of_other_sets_is_refused_with_what_is_left():
    net = annihilating()
    left = torch.linalg.matrix_norm(net[2].weight[:, [0]] @ net[0].weight[[0]]).item()
    with pytest.raises(SkgeoError, match=f"do not annihilate.* {left:.3g}"):
        apply_symmetry(net, flips=[-1, 1, 1, 1, 1])
    with torch.no_grad():
        net[2].weight[0, 2] += 1e-9
    with pytest.raises(SkgeoError, match="do not annihilate"):
        apply_symmetry(net, flips=[-1, 1, -1, 1, 1])


def test_tanh_units_turn_alone():
    net = mlp(3, 4, 2)
    new = apply_symmetry(net, flips=[-1, 1, 1, -1])
    assert same(net, new)
    torch.testing.assert_close(new[2].weight[:, 0], -net[2].weight[:, 0])
    both = apply_symmetry(net, flips=[-1, 1, 1, -1], scales=[-1, 1, 1, 1])
    torch.testing.assert_close(both[0].weight[0], net[0].weight[0])


def test_linear_layers_take_any_invertible_matrix():
    net = nn.Sequential(*(mlp(3, 4, 2)[0], mlp(4, 2, seed=1)[0], mlp(2, 5, seed=2)[0]))
    new = apply_symmetry(
        net, scales=[normal(4, 4), [-2.0, 5.0]], permutation={1: [1, 0]}, flips={0: [1, -1, 1, 1]}
    )
    assert same(net, new, atol=1e-11)
    with pytest.raises(SkgeoError, match="not invertible"):
        apply_symmetry(net, scales={0: torch.ones(4, 4)})
    with pytest.raises(SkgeoError, match="other than 0"):
        apply_symmetry(net, scales={1: [0.0, 1.0]})


def test_forms_of_the_arguments():
    array = [2.0, 1.0]
    assert per_layer(array, 1, "scales") == [array]
    assert per_layer((torch.ones(2),), 1, "scales")[0].tolist() == [1.0, 1.0]
    assert per_layer({1: array}, 2, "scales") == [None, array]
    assert per_layer(None, 2, "scales") == [None, None]
    matrix = torch.eye(3)
    assert per_layer(matrix, 1, "scales")[0] is matrix


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"permutation": [0, 1, 2, 2]}, "each of 0, ..., 3 once"),
        ({"permutation": [0.0, 1.0, 2.0, 3.0]}, "each of 0, ..., 3 once"),
        ({"permutation": [0, 1]}, "each of 0, ..., 3 once"),
        ({"scales": [1.0, 1.0, -1.0, 1.0]}, "unit 2 .* is -1; expected a number greater than 0"),
        ({"scales": [1.0, 1.0, 0.0, 1.0]}, "greater than 0"),
        ({"scales": [1.0, float("nan"), 1.0, 1.0]}, "NaN"),
        ({"scales": [1.0, 1.0]}, r"expected \(4,\)"),
        ({"flips": [1.0, 2.0, 1.0, 1.0]}, "1, or -1"),
        ({"scales": {1: [1.0]}}, "has 1, numbered"),
        ({"scales": [[1.0] * 4, [1.0]]}, "for each of the 1 hidden layers"),
    ],
)
def test_arguments_that_are_none(arguments, message):
    with pytest.raises(SkgeoError, match=message):
        apply_symmetry(mlp(3, 4, 2, activation=nn.ReLU), **arguments)


def test_activations_allow_what_they_allow():
    with pytest.raises(SkgeoError, match="1 or -1"):
        apply_symmetry(mlp(3, 2, 1), scales=[2.0, 1.0])
    with pytest.raises(SkgeoError, match="gelu, whose units can be permuted"):
        apply_symmetry(mlp(3, 2, 1, activation=nn.GELU), flips=[-1, 1])
    with pytest.raises(SkgeoError, match="MultiheadAttention"):
        apply_symmetry(nn.Sequential(nn.MultiheadAttention(4, 2)), permutation=[0])


def test_units_with_slopes_of_their_own_stay_where_they_are():
    net = mlp(3, 4, 2, activation=lambda: nn.PReLU(4))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    with pytest.raises(SkgeoError, match="slope of its own for each unit"):
        apply_symmetry(net, permutation=[1, 0, 2, 3])
    shared = mlp(3, 4, 2, activation=nn.PReLU)
    x = normal(20, 3)
    moved = apply_symmetry(shared, permutation=[1, 0, 3, 2], scales=[2.0, 0.5, 3.0, 1.0])
    torch.testing.assert_close(moved(x), shared(x))
