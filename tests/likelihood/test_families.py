import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

import skgeo.likelihood._categorical as categorical_module
from helpers.networks import normal
from skgeo.exceptions import GeometryWarning, SkgeoError
from skgeo.likelihood import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    Gaussian,
    GaussianScale,
    Poisson,
    as_likelihood,
    resolve_likelihood,
)

FAMILIES = [*LIKELIHOODS.values(), Gaussian(scale=0.3)]


def outputs(seed=0, n=6, k=4, size=1.5):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(n, k, dtype=torch.float64, generator=generator)


def log_density(family, z):
    """Log-densities in the outputs, on a list of labels that exhausts the sample space."""
    if isinstance(family, Categorical):
        return z.log_softmax(-1)
    if isinstance(family, Bernoulli):  # one output
        sign = torch.tensor([-1.0, 1.0], dtype=z.dtype)
        return torch.nn.functional.logsigmoid(sign * z)
    counts = torch.arange(80, dtype=z.dtype)  # Poisson
    return counts * z - z.exp() - torch.lgamma(counts + 1)


@pytest.mark.parametrize(("family", "k"), [(Categorical(), 4), (Bernoulli(), 1), (Poisson(), 1)])
def test_fisher_is_the_covariance_of_the_score(family, k):
    for z in outputs(k=k):
        z = z.requires_grad_()
        log_p = log_density(family, z)
        scores = torch.stack([torch.autograd.grad(term, z, retain_graph=True)[0] for term in log_p])
        expected = scores.T @ (log_p.exp().unsqueeze(1) * scores)
        torch.testing.assert_close(
            family.fisher(z.detach()), expected.detach(), rtol=1e-10, atol=1e-14
        )


def test_fisher_of_a_normal_distribution_by_quadrature():
    mean, log_scale = 0.3, -0.7
    density = stats.norm(mean, np.exp(log_scale))

    def score(x):
        u = (x - mean) / np.exp(log_scale)
        return np.array([u / np.exp(log_scale), u**2 - 1])

    expected = [
        [
            integrate.quad(lambda x: score(x)[i] * score(x)[j] * density.pdf(x), -12, 12)[0]  # noqa: B023
            for j in range(2)
        ]
        for i in range(2)
    ]
    z = torch.tensor([[mean, log_scale]], dtype=torch.float64)
    np.testing.assert_allclose(GaussianScale().fisher(z)[0], expected, rtol=1e-8, atol=1e-10)
    s = density.std()
    np.testing.assert_allclose(Gaussian(scale=s).fisher(z)[0], np.eye(2) / s**2)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_pulled_rows_square_to_the_metric(family):
    z, rows = outputs(), torch.randn(6, 4, 7, dtype=torch.float64)
    pulled = family.pull_rows(z, rows)
    assert pulled.shape == (6, family.rank(4), 7)
    torch.testing.assert_close(pulled.mT @ pulled, rows.mT @ family.fisher(z) @ rows)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_the_metric_is_applied_without_being_formed(family):
    z, v = outputs(), outputs(seed=1)
    expected = (family.fisher(z) @ v.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(family.apply_fisher(z, v), expected)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_divergence_and_distance_have_the_metric_as_second_order(family):
    z, step = outputs(), outputs(seed=1)
    quadratic = 0.5 * torch.einsum("ni,nij,nj->n", step, family.fisher(z), step)
    for size, slack in ((1e-3, 2e-2), (1e-5, 2e-4)):
        kl = family.kl(z, z + size * step) / size**2
        half = 0.5 * family.squared_distance(z, z + size * step) / size**2
        torch.testing.assert_close(kl, quadratic, rtol=slack, atol=1e-5)
        torch.testing.assert_close(half, quadratic, rtol=slack, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@given(seed=st.integers(0, 10_000))
def test_distance_is_a_metric(family, seed):
    a, b, c = (outputs(seed=seed + i, size=1.0) for i in range(3))
    torch.testing.assert_close(family.distance(a, b), family.distance(b, a))
    assert bool((family.distance(a, a) == 0).all())
    slack = 1e-9
    assert bool(
        (family.distance(a, c) <= family.distance(a, b) + family.distance(b, c) + slack).all()
    )
    assert bool((family.kl(a, b) >= -1e-12).all())


def test_distances_in_closed_form():
    z = outputs(k=3)
    p, q = z[:3].softmax(-1), z[3:].softmax(-1)
    expected = 2 * torch.arccos((p * q).sqrt().sum(-1))
    torch.testing.assert_close(Categorical().distance(z[:3], z[3:]), expected, rtol=1e-9, atol=0)
    # Two logits that differ by t are one Bernoulli variable with logit t.
    pair = torch.stack([z[:, 0], torch.zeros(6)], dim=1)
    torch.testing.assert_close(
        Categorical().distance(pair[:3], pair[3:]), Bernoulli().distance(z[:3, :1], z[3:, :1])
    )
    # Equal means: moving the log-scale by t moves sqrt(2) |t|.
    a, b = torch.tensor([[0.4, 0.0]]), torch.tensor([[0.4, 1.3]])
    assert float(GaussianScale().distance(a, b)) == pytest.approx(2**0.5 * 1.3, rel=1e-6)


def test_categorical_metric_in_closed_form():
    z = outputs(k=5)
    p = z.softmax(-1)
    metric = Categorical().fisher(z)
    torch.testing.assert_close(metric.diagonal(dim1=1, dim2=2).sum(1), 1 - p.square().sum(1))
    values = torch.linalg.eigvalsh(metric)[:, 1:]
    torch.testing.assert_close(values.prod(1), 5 * p.prod(1))


def test_far_logits_stay_finite_and_exact():
    z = torch.tensor([[800.0, 0.0, 0.0, -900.0], [0.0, 0.0, 800.0, 800.0]], dtype=torch.float64)
    root = Categorical().root(z)
    assert bool(torch.isfinite(root).all())
    # The last two classes of the second sample share all probability: F = [[1, -1], [-1, 1]] / 4.
    torch.testing.assert_close(
        (root @ root.mT)[1, 2:, 2:], torch.tensor([[0.25, -0.25], [-0.25, 0.25]]).double()
    )
    tiny = Bernoulli().root_diagonal(torch.tensor([80.0], dtype=torch.float64))
    assert float(tiny) == pytest.approx(np.exp(-40.0), rel=1e-12)


def test_outputs_that_do_not_fit_are_refused():
    with pytest.raises(SkgeoError, match="at least two logits"):
        Categorical().check(torch.zeros(3, 1))
    with pytest.raises(SkgeoError, match="even number of outputs; the model gives 3"):
        GaussianScale().check(torch.zeros(2, 3))
    with pytest.raises(SkgeoError, match="must be positive"):
        Gaussian(scale=0.0)
    with pytest.raises(SkgeoError, match="'poisson'"):
        as_likelihood("softmax")


def test_probabilities_read_as_logits_warn():
    with pytest.warns(GeometryWarning, match="look like probabilities"):
        Categorical().notice(outputs().softmax(-1))
    Categorical().notice(outputs())


@pytest.mark.parametrize(
    ("targets", "n_outputs", "name"),
    [
        (np.array([0, 1, 2]), 3, "categorical"),
        (np.array(["a", "b"]), 2, "categorical"),
        (np.array(["a", "b"], dtype=object), 1, "bernoulli"),
        (np.array([True, False]), 1, "bernoulli"),
        (torch.tensor([0, 1, 1]), 1, "bernoulli"),
        (np.array([[0.0, 1.5], [2.0, 1.0]]), 2, "gaussian"),
        (np.array([[0, 1, 1], [1, 0, 1]]), 3, "bernoulli"),
        (np.array([[0, 1, 0], [1, 0, 0]]), 3, "categorical"),
        (torch.tensor([1.0, 2.0, 3.0]), 1, "gaussian"),
    ],
)
def test_auto_reads_the_dtype_of_the_targets(targets, n_outputs, name):
    assert resolve_likelihood("auto", targets=targets, n_outputs=n_outputs).name == name


def test_auto_prefers_the_word_of_the_user_then_of_the_model():
    y = np.array([0, 1])
    assert (
        resolve_likelihood("poisson", declared_likelihood="gaussian", targets=y, n_outputs=2).name
        == "poisson"
    )
    assert (
        resolve_likelihood("auto", declared_likelihood="gaussian", targets=y, n_outputs=2).name
        == "gaussian"
    )


def test_auto_without_a_clue_warns():
    with pytest.warns(GeometryWarning, match="'gaussian' with unit variance is assumed"):
        assert resolve_likelihood("auto", n_outputs=2).name == "gaussian"


def test_more_classes_than_outputs_are_refused():
    with pytest.raises(SkgeoError, match="4 classes, and the model 3 outputs"):
        resolve_likelihood("auto", targets=np.arange(4), n_outputs=3)


def test_near_and_far_logits_have_one_root(monkeypatch):
    z = 4 * normal(40, 6)
    near = Categorical().root(z)
    monkeypatch.setattr(categorical_module, "_LEAST_LOG", float("inf"))
    far = Categorical().root(z)
    assert not torch.equal(near, far)  # two ways, or the comparison shows nothing
    torch.testing.assert_close(near, far, rtol=1e-13, atol=0)


def test_integers_that_are_neither_classes_nor_yes_and_no():
    counts = np.arange(12).reshape(4, 3)
    with pytest.raises(SkgeoError, match=r"integers from 0 to 11.*'poisson'"):
        resolve_likelihood("auto", targets=counts, n_outputs=3)
    tokens = counts % 4
    found = resolve_likelihood("auto", targets=tokens, n_outputs=3 + 1, n_positions=3)
    assert found.name == "categorical"
    square = np.array([[0, 3, 1, 2]])
    found = resolve_likelihood("auto", targets=square, n_outputs=4, n_positions=4)
    assert found.name == "categorical"
    with pytest.raises(SkgeoError, match="a class for each of 4 positions, or yes and no"):
        resolve_likelihood("auto", targets=square % 2, n_outputs=4, n_positions=4)
