"""How models of Hugging Face are called, and what their labels and masks mean.

By the names of their classes and inputs; nothing of the package is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skgeo._arguments import described
from skgeo.data import Samples
from skgeo.data._arrays import as_tensor
from skgeo.exceptions import NotAModelError, SkgeoError

_IGNORED = -100
# Families by what a configuration calls its problem.
_PROBLEMS = {
    "regression": "gaussian",
    "single_label_classification": "categorical",
    "multi_label_classification": "bernoulli",
}
# Decoders whose loss compares the labels with the outputs of the same positions.
_UNSHIFTED = (
    *("Bart", "BigBirdPegasus", "Blenderbot", "BlenderbotSmall", "MBart", "Marian", "Mvp"),
    *("PLBart", "Pegasus", "ProphetNet", "TrOCR", "Whisper"),
)
_SHIFTED = ("GPT2LMHeadModel", "OpenAIGPTLMHeadModel", "BertLMHeadModel", "CTRLLMHeadModel")
# Heads with one output for a whole sample.
_WHOLE = ("Classification", "ForMultipleChoice", "ForNextSentencePrediction")


@dataclass(frozen=True)
class HuggingFaceCall:
    """The forward function of a model: a dict of tensors to its logits or last hidden state.

    shift: whether the outputs at a position are about the token at the next one.
    """

    shift: bool

    def __call__(self, module: nn.Module, inputs: Any) -> Tensor:
        found = module(**_named(inputs))
        for name in ("logits", "last_hidden_state"):
            tensor = getattr(found, name, None)
            if isinstance(tensor, Tensor):
                return tensor
        given = type(found).__name__
        if isinstance(found, Mapping):
            given += f" with {', '.join(map(str, found))}"
        raise SkgeoError(
            f"{type(module).__name__} returned {given}; WrappedModel.from_hf expects an object "
            "with .logits or .last_hidden_state. Say how the outputs are to be read: "
            "WrappedModel(module, forward=lambda module, inputs: module(**inputs)...)."
        )

    def prepared(self, samples: Samples) -> Samples:
        """The samples with the labels of their inputs as targets, aligned with the outputs."""
        inputs, targets = samples.inputs, samples.targets
        if not isinstance(inputs, dict) or "labels" not in inputs:
            return samples
        rest = {key: value for key, value in inputs.items() if key != "labels"}
        if targets is None:
            labels = as_tensor(inputs["labels"], "X['labels']")
            targets = self._aligned(labels) if self.shift else labels
        return Samples(rest, targets)

    @staticmethod
    def _aligned(labels: Tensor) -> Tensor:
        """The label of the next token at each position, none at the last."""
        # (N, T) -> (N, T)
        if labels.ndim != 2:
            raise SkgeoError(
                f"The labels have shape {tuple(labels.shape)}; expected one for each token, "
                "(n_samples, n_tokens), of a model that predicts the next token."
            )
        end = torch.full_like(labels[:, :1], _IGNORED)
        return torch.cat([labels[:, 1:], end], 1)


@dataclass(frozen=True)
class AttentionMask:
    """Positions whose outputs count, by the attention mask of the inputs.

    shift: whether a position also needs a token behind it.
    decoder: whether outputs are those of a decoder, which has its own mask.
    """

    shift: bool
    decoder: bool

    def __call__(self, inputs: Any) -> Tensor:
        # -> (b, T), boolean
        named, prefix = _named(inputs), "decoder_" if self.decoder else ""
        found = named.get(f"{prefix}attention_mask")
        if found is None:
            tokens = named.get(f"{prefix}input_ids", named.get(f"{prefix}inputs_embeds"))
            if tokens is None:
                raise SkgeoError(
                    f"X has neither {prefix}input_ids nor {prefix}attention_mask, so nothing says "
                    "which positions count. Pass them, or WrappedModel.from_hf(model, mask=None) "
                    "to count all."
                )
            found = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        elif found.ndim != 2:
            raise SkgeoError(
                f"{prefix}attention_mask has shape {tuple(found.shape)}; expected (n_samples, "
                "n_tokens). Pass WrappedModel.from_hf(model, mask=f) with f(inputs) of that shape."
            )
        counted: Tensor = found != 0
        if self.shift:
            behind = torch.cat([counted[:, 1:], torch.zeros_like(counted[:, :1])], 1)
            counted = counted & behind
        return counted


def _named(inputs: Any) -> dict[str, Any]:
    """Inputs by name; a tensor alone holds tokens."""
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if isinstance(inputs, Tensor):
        return {"input_ids": inputs}
    raise SkgeoError(
        f"X is a {type(inputs).__name__}; expected a dict of tensors by the names of the model's "
        "inputs, such as input_ids and attention_mask, or an array of input_ids."
    )


def check_interface(model: Any) -> None:
    """Raise NotAModelError unless a model is a module with a configuration."""
    if not isinstance(model, nn.Module) or not hasattr(model, "config"):
        raise NotAModelError(
            f"WrappedModel.from_hf got {described(model)}; expected a torch.nn.Module with a "
            ".config, as the models of Hugging Face have. Pass other modules as they are, or as "
            "WrappedModel(module, forward=f)."
        )


def shifts(model: nn.Module, shift: bool | str) -> bool:
    """Whether the loss of a model compares the outputs of a position with the next label.

    Raises SkgeoError if neither `shift` nor the model's class says.
    """
    if isinstance(shift, bool):
        return shift
    if shift != "auto":
        raise SkgeoError(f"Got shift={shift!r}; expected True, False or 'auto'.")
    name = type(model).__name__
    if name in _SHIFTED:
        return True
    if name.endswith("ForCausalLM"):
        return name.removesuffix("ForCausalLM") not in _UNSHIFTED
    open_ended = name.endswith("ForConditionalGeneration") and not is_decoder(model)
    if open_ended or name.endswith("LMHeadModel"):
        raise SkgeoError(
            f"Nothing says whether the outputs of {name} at a position are about its own token or "
            "about the next one. Pass shift=True or shift=False, as the model's own loss has it."
        )
    return False


def family(model: nn.Module, shift: bool) -> str | None:
    """The likelihood that a model declares: by its kind of problem, or tokens."""
    problem = getattr(model.config, "problem_type", None)
    return "categorical" if shift else _PROBLEMS.get(str(problem))


def attention_mask(model: nn.Module, shift: bool) -> AttentionMask | None:
    """The mask of a model with outputs for each token; None for others."""
    name = type(model).__name__
    whole = any(part in name for part in _WHOLE) and "TokenClassification" not in name
    if whole or getattr(model, "main_input_name", "input_ids") != "input_ids":
        return None
    return AttentionMask(shift, is_decoder(model))


def is_decoder(model: nn.Module) -> bool:
    """Whether the outputs are those of a decoder behind an encoder."""
    return bool(getattr(model.config, "is_encoder_decoder", False))
