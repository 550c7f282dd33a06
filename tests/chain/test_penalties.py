import copy

import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME, CASES
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo import NonSmoothWarning, NotAModelError, SkgeoError
from skgeo.chain import curvature_penalty, isometry_penalty, jacobian_penalty
from skgeo.models import WrappedModel

FLOATING = [case for case in CASES if case.name not in ("embedding", "embedding_tied", "dict")]
PENALTIES = [jacobian_penalty, isometry_penalty, curvature_penalty]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def dense(net, X):
    """Jacobians (b, K, n) and second derivatives (b, K, n, n) with graphs to the parameters."""
    first = torch.func.jacrev(lambda x: net(x))
    second = torch.func.jacrev(first)
    return torch.stack([first(x) for x in X]), torch.stack([second(x) for x in X])


def brute_jacobian(net, X):
    return dense(net, X)[0].square().sum((1, 2))


def brute_isometry(net, X, scale=None):
    values = []
    for J in dense(net, X)[0]:
        A = J @ J.T if J.shape[0] <= J.shape[1] else J.T @ J
        m = A.trace() / len(A) if scale is None else scale**2
        values.append((A / m - torch.eye(len(A)).to(A)).square().sum() / len(A))
    return torch.stack(values)


def brute_curvature(net, X):
    return dense(net, X)[1].square().sum((1, 2, 3))


BRUTE = {
    jacobian_penalty: brute_jacobian,
    isometry_penalty: brute_isometry,
    curvature_penalty: brute_curvature,
}


def gradients(value, net):
    return torch.autograd.grad(value, list(net.parameters()), allow_unused=True, retain_graph=True)


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("widths", [(3, 7, 5), (5, 7, 3)], ids=str)
def test_values_and_gradients_against_brute_force(penalty, widths):
    net, X = mlp(*widths), normal(4, widths[0])
    with assert_untouched(net):
        found = penalty(net, X, reduction="none")
    expected = BRUTE[penalty](net, X)
    torch.testing.assert_close(found, expected)
    mean = penalty(net, X)
    torch.testing.assert_close(mean, expected.mean())
    for one, other in zip(gradients(mean, net), gradients(expected.mean(), net), strict=True):
        if one is None or other is None:
            assert one is None or not one.any()
        else:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: p.__name__)
@pytest.mark.parametrize(
    "norm",
    [nn.LayerNorm(6), nn.RMSNorm(6), nn.GroupNorm(2, 6), nn.BatchNorm1d(6).eval()],
    ids=lambda norm: type(norm).__name__,
)
def test_normalisation_where_outputs_outnumber_inputs(penalty, norm):
    net = nn.Sequential(mlp(2, 6), copy.deepcopy(norm), mlp(6, 5, 4)).double()
    X, weight, h = normal(3, 2), net[0][0].weight, 1e-5
    (found,) = torch.autograd.grad(penalty(net, X), weight)
    values = []
    for by in (h, -2 * h):
        with torch.no_grad():
            weight[1, 1] += by
        values.append(penalty(net, X).item())
    assert found[1, 1].item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)


@pytest.mark.parametrize("case", FLOATING, ids=lambda case: case.name)
def test_gradients_of_every_kind_of_layer_against_differences(case):
    module, X = case.module(), case.inputs(3)
    model = module if case.forward is None else WrappedModel(module, forward=case.forward)
    parameters = list(module.parameters())
    steps = [torch.randn(p.shape, generator=seeded(1)).to(p) for p in parameters]
    for penalty in PENALTIES if case.smooth else PENALTIES[:2]:
        key = "n_directions" if penalty is curvature_penalty else "n_projections"

        def value(penalty=penalty, key=key):
            return penalty(model, X, **{key: 2}, generator=seeded())

        found = torch.autograd.grad(value(), parameters, allow_unused=True, materialize_grads=True)
        slope = sum((g * s).sum() for g, s in zip(found, steps, strict=True)).item()
        h, values = 1e-5, []
        for by in (h, -2 * h, h):
            with torch.no_grad():
                for p, s in zip(parameters, steps, strict=True):
                    p.add_(by * s)
            values.append(value().item())
        expected = (values[0] - values[1]) / (2 * h)
        assert slope == pytest.approx(expected, rel=1e-4, abs=1e-6 * abs(values[2]) + 1e-9)


def test_projections_are_unbiased_and_exact_when_complete():
    net, X, generator = mlp(5, 7, 4), normal(3, 5), seeded()
    exact = jacobian_penalty(net, X, reduction="none")
    drawn = torch.stack(
        [
            jacobian_penalty(net, X, n_projections=1, generator=generator, reduction="none")
            for _ in range(2000)
        ]
    ).detach()
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - exact).abs() < 4 * error).all()
    assert (drawn.std(0) > 0).all()
    complete = jacobian_penalty(net, X, n_projections=4, generator=generator, reduction="none")
    torch.testing.assert_close(complete, exact)
    whole = isometry_penalty(net, X, n_projections=4, generator=generator)
    torch.testing.assert_close(whole, isometry_penalty(net, X))


def test_curvature_directions_are_unbiased():
    net, X, generator = mlp(3, 6, 2), normal(2, 3), seeded()
    exact = curvature_penalty(net, X, reduction="none").detach()
    drawn = torch.stack(
        [
            curvature_penalty(net, X, n_directions=20, generator=generator, reduction="none")
            for _ in range(100)
        ]
    ).detach()
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - exact).abs() < 4 * error).all()


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_zero_for_isometries_and_affine_maps(shape):
    net = nn.Linear(*shape).double()
    with torch.no_grad():
        basis = torch.linalg.qr(normal(max(shape), max(shape))).Q
        net.weight.copy_(1.7 * basis[: shape[1], : shape[0]])
    X = normal(2, shape[0])
    # Orthonormal along the shorter side: all singular values are 1.7.
    assert isometry_penalty(net, X).item() < 1e-28
    assert isometry_penalty(net, X, scale=1.7).item() < 1e-28
    assert isometry_penalty(net, X, scale=1.0).item() == pytest.approx((1.7**2 - 1) ** 2)
    drawn = isometry_penalty(net, X, n_projections=2, generator=seeded())
    assert drawn.item() < 1e-28
    flat = curvature_penalty(net, X)
    assert flat.item() == 0.0
    flat.backward()
    assert net.weight.grad is None or not net.weight.grad.any()


def test_training_mode_is_left_as_it_is():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        linear = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6))
        norm = nn.InstanceNorm1d(2, track_running_stats=True)
        net = nn.Sequential(linear, nn.Unflatten(1, (2, 3)), norm, nn.Flatten(), nn.Linear(6, 2))
    net, X = net.double(), normal(8, 4)
    for penalty in PENALTIES:
        with assert_untouched(net):
            value = penalty(net, X)
        value.backward()
        assert net[4].weight.grad.any()
        net.zero_grad(set_to_none=True)
    assert net.training
    assert norm.num_batches_tracked == 0


def test_batches_that_are_normalised_together_are_refused():
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)).double()
    for penalty in PENALTIES:
        with pytest.raises(SkgeoError, match=r"BatchNorm over the current batch \(1\)"):
            penalty(net, normal(8, 4))
        net[1].eval()
        assert penalty(net, normal(8, 4)) > 0
        net[1].train()


def test_buffers_come_back_after_an_error():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).double().eval()
    held = net[0].running_mean
    with pytest.raises(SkgeoError, match="should contain 5 elements"):
        jacobian_penalty(net, normal(4, 5))
    assert net[0].running_mean is held


def test_a_penalty_trains_towards_an_isometry():
    net, X = mlp(3, 12, 3), 0.3 * normal(16, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    before = isometry_penalty(net, X, scale=1.0).item()
    generator = seeded()
    for _ in range(150):
        optimizer.zero_grad()
        isometry_penalty(net, X, scale=1.0, n_projections=1, generator=generator).backward()
        optimizer.step()
    assert isometry_penalty(net, X, scale=1.0).item() < 0.1 * before


def test_no_gradient_mode_and_single_precision():
    net, X = mlp(3, 5, 2), normal(4, 3)
    expected = jacobian_penalty(net, X)
    with torch.no_grad():
        torch.testing.assert_close(jacobian_penalty(net, X), expected)
    single = jacobian_penalty(copy.deepcopy(net).float(), X.float())
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected.item(), rel=1e-5)


def test_rectifiers_have_no_curvature_to_penalise():
    net, X = mlp(3, 5, 2, activation=nn.ReLU), normal(4, 3)
    with pytest.warns(NonSmoothWarning, match="piecewise linear"):
        value = curvature_penalty(net, X)
    assert value.item() == 0.0
    value.backward()
    assert jacobian_penalty(net, X).item() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_projections": 0, "generator": seeded()}, "an integer from 1 to 2"),
        ({"n_projections": 3, "generator": seeded()}, "there are 2 directions"),
        ({"n_projections": 1}, "once, before the loop"),
        ({"reduction": "sum"}, "reduction='sum'"),
    ],
)
def test_penalties_that_are_none(options, message):
    with pytest.raises(SkgeoError, match=message):
        jacobian_penalty(mlp(3, 5, 2), normal(4, 3), **options)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda module, x: module(x).sum(), r"shape \(\) for a batch of 4"),
        (lambda module, x: module(x).detach(), "no graph"),
        (lambda module, x: (module(x),), "a tuple of 1"),
    ],
)
def test_outputs_that_have_none(forward, message):
    with pytest.raises(SkgeoError, match=message):
        jacobian_penalty(WrappedModel(mlp(3, 5, 2), forward=forward), normal(4, 3))


def test_inputs_and_modules_that_have_none():
    case = BY_NAME["embedding"]
    with pytest.raises(SkgeoError, match="after the embedding"):
        jacobian_penalty(case.module(), case.inputs())
    with pytest.raises(SkgeoError, match="a list of 1; expected"):
        jacobian_penalty(mlp(3, 2), [[0.0] * 3])
    with pytest.raises(NotAModelError):
        jacobian_penalty(torch.tanh, normal(2, 3))
    with pytest.raises(SkgeoError, match="an integer from 2"):
        isometry_penalty(mlp(3, 5, 2), normal(4, 3), n_projections=1, generator=seeded())
    with pytest.raises(SkgeoError, match="scale=-1"):
        isometry_penalty(mlp(3, 5, 2), normal(4, 3), scale=-1.0)
    zero = nn.Linear(3, 2)
    nn.init.zeros_(zero.weight)
    with pytest.raises(SkgeoError, match="zero for sample 0"):
        isometry_penalty(zero, torch.ones(2, 3))
    with pytest.raises(SkgeoError, match="an integer from 1"):
        curvature_penalty(mlp(3, 5, 2), normal(4, 3), n_directions=0, generator=seeded())
