import pytest
import torch
from torch import distributions

from skgeo import SkgeoError
from skgeo.likelihood import LIKELIHOODS, Categorical, Gaussian, Likelihood

FAMILIES = {**LIKELIHOODS, "gaussian of scale 0.3": Gaussian(0.3)}
K = 4


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def distribution(family, z):
    if family.name == "categorical":
        return distributions.Categorical(logits=z)
    if family.name == "bernoulli":
        return distributions.Bernoulli(logits=z)
    if family.name == "poisson":
        return distributions.Poisson(z.exp())
    if family.name == "gaussian_scale":
        mean, log_scale = z.chunk(2, -1)
        return distributions.Normal(mean, log_scale.exp())
    return distributions.Normal(z, family.scale)


def outputs(*shape, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=seeded(3))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_roots_of_the_metric(family, scale):
    z = outputs(3, 2, K, scale=scale)
    columns = [family.apply_root(z, unit.expand_as(z)) for unit in torch.eye(K).double()]
    root = torch.stack(columns, -1)
    torch.testing.assert_close(root @ root.mT, family.fisher(z), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_scores_are_derivatives_of_the_log_likelihood(family):
    z = outputs(5, 3, K).requires_grad_(True)
    targets = family.draw(z.detach(), seeded(1))
    expected = torch.autograd.grad(distribution(family, z).log_prob(targets).sum(), z)[0]
    torch.testing.assert_close(family.score(z.detach(), targets), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_covariance_of_drawn_scores_is_the_metric(family):
    z = outputs(1, K, scale=0.5).expand(200_000, K)
    scores = family.score(z, family.draw(z, seeded(1)))
    products = scores.unsqueeze(-1) * scores.unsqueeze(-2)
    error = products.std(0) / len(z) ** 0.5
    assert ((products.mean(0) - family.fisher(z[0])).abs() <= 5 * error + 1e-12).all()
    assert (scores.mean(0).abs() <= 5 * scores.std(0) / len(z) ** 0.5 + 1e-12).all()


def test_no_digits_are_lost_where_the_network_is_certain():
    z = torch.tensor([[60.0, 0.0, -5.0]], dtype=torch.float64)
    score = Categorical().score(z, torch.tensor([0]))
    small = torch.tensor(-60.0, dtype=torch.float64).exp()
    torch.testing.assert_close(score[0, 0], small * (1 + torch.tensor(-5.0).double().exp()))
    one = LIKELIHOODS["bernoulli"].score(z, torch.ones_like(z))
    torch.testing.assert_close(one[0, 0], small, rtol=1e-12, atol=0.0)


def test_families_without_scores_say_which_methods_to_write():
    class Root(Likelihood):
        name = "root"

        def pull_rows(self, outputs, rows):
            return 2 * rows[..., :2, :]

        def rank(self, n_outputs):
            return 2

    z = outputs(3, K)
    directions = Root().apply_root(z, torch.ones_like(z))
    assert directions.tolist() == [[2.0, 2.0, 0.0, 0.0]] * 3
    with pytest.raises(SkgeoError, match=r"write its methods score\(outputs, targets\)"):
        Root().score(z, z)
    with pytest.raises(SkgeoError, match=r"write its methods draw\(outputs, generator\)"):
        Root().draw(z, seeded(0))
