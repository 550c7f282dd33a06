import numpy as np
import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal
from skgeo import LayerQuotientEstimator
from skgeo.exceptions import SkgeoError
from skgeo.quotient import neural_collapse

N, C = 60, 4


def labelled(seed=0):
    X = normal(N, 5, seed=seed)
    return X, np.arange(N) % C


def oracle(h, y, predicted):
    """The measures by their definition, with full covariances and a pseudo-inverse."""
    mu = h.mean(0)
    means = np.stack([h[y == c].mean(0) for c in range(C)])
    within = sum(np.outer(a - means[c], a - means[c]) for a, c in zip(h, y, strict=True)) / len(h)
    between = sum(np.outer(m - mu, m - mu) for m in means) / C
    norms = np.linalg.norm(means - mu, axis=1)
    cosines = [
        (means[c] - mu) @ (means[d] - mu) / (norms[c] * norms[d])
        for c in range(C)
        for d in range(C)
        if c != d
    ]
    nearest = np.array([np.argmin(np.linalg.norm(means - a, axis=1)) for a in h])
    return {
        "within_rank": np.linalg.matrix_rank(within, tol=1e-12),
        "between_rank": np.linalg.matrix_rank(between, tol=1e-12),
        "within_variance": np.trace(within),
        "between_variance": np.trace(between),
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / C,
        "nc2_norms": norms.std() / norms.mean(),
        "nc2_angles": np.abs(np.array(cosines) + 1 / (C - 1)).mean(),
        "nc4": (nearest != predicted).mean(),
    }


@pytest.mark.parametrize("unbalanced", [False, True])
def test_measures_are_those_of_the_definition(unbalanced):
    X, y = labelled()
    if unbalanced:
        y = np.minimum(y, (np.arange(N) % 7))
    net = mlp(5, 8, 6, C, seed=1)
    found = neural_collapse(net, X, y).layers.set_index("layer")
    h = X
    with torch.no_grad():
        predicted = net(X).argmax(1).numpy()
        for name, layer in net.named_children():
            h = layer(h)
            for key, value in oracle(h.numpy(), y, predicted).items():
                assert found.loc[name, key] == pytest.approx(value, rel=1e-8), (name, key)


def test_distance_from_the_last_layer_is_at_its_input_alone():
    X, y = labelled()
    net = mlp(5, 8, C, seed=2)
    found = neural_collapse(net, X, y).layers
    h = net[:-1](X).detach().numpy()
    means = np.stack([h[y == c].mean(0) for c in range(C)]) - h.mean(0)
    W = net[-1].weight.detach().numpy()
    right = np.linalg.norm(W / np.linalg.norm(W) - means / np.linalg.norm(means)) ** 2
    known = found.dropna(subset="nc3")
    assert list(known["layer"]) == [found["layer"].iloc[-2]]
    assert known["nc3"].item() == pytest.approx(right, rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_simplex_with_its_own_classifier_has_collapsed(dtype):
    simplex = torch.eye(C, dtype=dtype) - 1.0 / C
    net = nn.Sequential(nn.Identity(), nn.Linear(C, C, bias=False)).to(dtype)
    with torch.no_grad():
        net[1].weight.copy_(5 * simplex)
    y = np.arange(N) % C
    found = neural_collapse(net, simplex[y], y).layers.iloc[0]
    assert (found["within_rank"], found["between_rank"], found["nc4"]) == (0, C - 1, 0.0)
    for measure in ("nc1", "nc2_norms", "nc2_angles", "nc3"):
        assert found[measure] == pytest.approx(0.0, abs=1e-6 if dtype == torch.float32 else 1e-14)


def test_quotient_ranks_are_those_of_the_estimator():
    X, y = labelled()
    net = mlp(5, 8, 3, C, seed=3)
    found = neural_collapse(net, X, y).layers
    table = LayerQuotientEstimator(net, likelihood="categorical").fit(X).layers_
    for column in ("layer", "dim", "rank_median", "common_rank"):
        assert list(found[column]) == list(table[column])


def test_names_of_classes_do_not_matter():
    X, y = labelled()
    net = mlp(5, 8, C, seed=4)
    names = np.array(["a", "b", "c", "d"])[y]
    numbers = neural_collapse(net, X, y).layers
    assert neural_collapse(net, X, names, likelihood="categorical").layers.equals(numbers)


def test_a_class_that_does_not_occur_leaves_no_self_duality():
    X, y = labelled()
    found = neural_collapse(mlp(5, 8, C, seed=4), X, np.minimum(y, 2))
    assert found.n_classes == 3
    assert found.layers["nc3"].isna().all()


def test_one_logit_for_two_classes():
    X = normal(N, 3, seed=0)
    y = (X[:, 0] > 0).long()
    net = nn.Linear(3, 1).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
        net.bias.zero_()
    found = neural_collapse(nn.Sequential(nn.Identity(), net), X, y)
    assert found.n_classes == 2
    assert found.layers["nc2_norms"].iloc[-1] == pytest.approx(0.0, abs=0.2)
    assert found.summary()["collapse_nc4_last"] < 0.1


def test_summary_has_the_same_keys_for_every_network():
    X, y = labelled()
    one, two = (neural_collapse(mlp(*w, seed=1), X, y).summary() for w in ((5, C), (5, 6, 7, C)))
    assert list(one) == list(two)
    assert len(one) == 25
    assert all(isinstance(value, float) for value in two.values())


def test_no_class_means_apart():
    X = normal(20, 3, seed=1)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        net[0].weight.zero_()
    found = neural_collapse(net, X, np.arange(20) % 2).layers.iloc[0]
    assert (found["within_rank"], found["between_rank"]) == (0, 0)
    assert np.isnan([found["nc1"], found["nc2_norms"], found["nc2_angles"]]).all()


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (None, "y=None"),
        (np.zeros(N, dtype=int), "single class"),
        (np.arange(N) % 7 + 1, "classes"),
        (np.zeros((N, 2), dtype=int), "one label"),
    ],
)
def test_labels_that_do_not_fit(y, words):
    X, _ = labelled()
    with pytest.raises(SkgeoError, match=words):
        neural_collapse(mlp(5, C, seed=0), X, y, likelihood="categorical")
