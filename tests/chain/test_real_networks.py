"""The functions beside the profiler on networks of the kinds that people use."""

import numpy as np
import pytest
import torch

from helpers.architectures import build
from helpers.layer_oracles import run_from
from helpers.networks import normal
from helpers.oracles import assert_untouched
from skgeo import NonSmoothWarning
from skgeo.chain import cauchy_green, curvature, kink_density, stability

# Where tokens start from, and a layer further on.
TOKENS = {"transformer": ("embedding", "blocks.1"), "lstm": ("embedding", "norm")}


def ahead(module, inputs, source, layer):
    """The map between two layers, by putting a representation in place."""

    def run(h):
        seen = {}
        target = dict(module.named_modules())[layer]
        handle = target.register_forward_hook(lambda _, __, out: seen.update(h=out))
        try:
            run_from(module, inputs, source, h)
        finally:
            handle.remove()
        return seen["h"].flatten(1)

    return run, run_from(module, inputs, source)[1].detach()


@pytest.mark.parametrize("name", list(TOKENS))
def test_token_networks_between_layers(name):
    source, layer = TOKENS[name]
    module, tokens = build(name, 3)
    run, h = ahead(module, tokens, source, layer)
    v, a = normal(2, *h.shape)
    with assert_untouched(module):
        found = curvature(module, tokens, layer=layer, source=source, velocity=v, acceleration=a)
        tensors = cauchy_green(module, tokens, layer, source=source)
    step = 1e-4
    with torch.no_grad():
        points = [run(h + t * v + t * t / 2 * a) for t in (-step, 0.0, step)]
    velocity = (points[2] - points[0]) / (2 * step)
    bend = (points[2] - 2 * points[1] + points[0]) / step**2
    across = bend - (velocity * bend).sum(1, keepdim=True) * velocity / velocity.square().sum(
        1, keepdim=True
    )
    expected = across.norm(dim=1) / velocity.square().sum(1)
    np.testing.assert_allclose(found.curvature, expected, rtol=1e-4)
    for index in range(len(tokens)):
        inside, place = ahead(module, tokens[index : index + 1], source, layer)
        jacobian = torch.autograd.functional.jacobian(inside, place).flatten(0, 1).flatten(1)
        values = torch.linalg.svdvals(jacobian).numpy()
        np.testing.assert_allclose(tensors.stretches[index], values, atol=1e-10)


def test_a_residual_network_of_rectifiers():
    module, X = build("resnet", 3)
    with pytest.warns(NonSmoothWarning, match="piecewise linear up to 'layer2'"):
        found = curvature(module, X, layer="layer2", velocity=normal(*X.shape), radius=2.0)
    assert np.isnan(found.curvature).all()
    assert (found.kink_density > 0).all()
    kinks = kink_density(module, X)
    assert (kinks.counts > 0).all()
    assert kink_density(module, X, layer="layer1").counts.sum() < kinks.counts.sum()


@pytest.mark.parametrize("noise", ["input", "weights"])
def test_noise_on_a_transformer(noise):
    module, tokens = build("transformer", 3)
    with assert_untouched(module):
        found = stability(module, tokens, noise, source="embedding", n_repeats=2)
    assert 0 < found.output_change < 1
    assert 0 < found.subspace_angle < np.pi / 2
