"""Curvature of lines between embeddings in the published MiniLM sentence encoder."""

import numpy as np
import pytest
import torch

from helpers.oracles import assert_untouched
from skgeo import WrappedModel
from skgeo.chain import curvature

pytestmark = pytest.mark.real


def test_lines_between_embeddings_bend(minilm, pooled):
    module, inputs = minilm[0].double(), minilm[1]
    with torch.no_grad():
        h = module.embeddings(inputs["input_ids"])
    v = h.roll(1, 0) - h  # towards another sentence
    with assert_untouched(module):
        found = curvature(
            WrappedModel(module, forward=pooled), inputs, source="embeddings", velocity=v
        )
    step = 1e-3

    def run(t):
        handle = module.embeddings.register_forward_hook(lambda *_: h + t * v)
        try:
            with torch.no_grad():
                return pooled(module, inputs)
        finally:
            handle.remove()

    points = [run(t) for t in (-step, 0.0, step)]
    velocity = (points[2] - points[0]) / (2 * step)
    bend = (points[2] - 2 * points[1] + points[0]) / step**2
    squared = velocity.square().sum(1, keepdim=True)
    across = bend - (velocity * bend).sum(1, keepdim=True) / squared * velocity
    expected = across.norm(dim=1) / squared.squeeze(1)
    np.testing.assert_allclose(found.curvature, expected, rtol=1e-3)
    np.testing.assert_allclose(found.speed, velocity.norm(dim=1), rtol=1e-4)
