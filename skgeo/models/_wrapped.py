"""A module with its own forward function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.exceptions import NotAModelError, SkgeoError
from skgeo.likelihood import Likelihood
from skgeo.models._huggingface import (
    HuggingFaceCall,
    attention_mask,
    check_interface,
    family,
    shifts,
)


class WrappedModel:
    r"""Module with its own forward function.

    For modules that take keyword arguments, return a dataclass or a tuple, have classes on another
    axis than the last, or positions that do not count. The function `forward` maps inputs to one
    tensor of natural outputs :math:`z = f_\theta(x)`, where :math:`\theta` are the parameters of
    `module`.

    Parameters
    ----------
    module : torch.nn.Module
        Module that holds the parameters. It is not copied.
    forward : callable, default=None
        ``forward(module, inputs) -> Tensor`` of shape (n_samples, ...). It must call the module
        that it receives, since measurements run on copies. By default ``module(inputs)``.
    likelihood : str or Likelihood, default=None
        Likelihood of the outputs, such as ``"categorical"``. By default the estimator decides.
    class_axis : int, default=None
        Axis of the outputs that holds the classes, counted as in ``torch.softmax(outputs, dim)``:
        1 for logits (n_samples, n_classes, height, width). They are moved to the last axis. A
        `class_axis` of the likelihood comes before it. By default the shape of y decides, and
        otherwise the last axis holds the classes.
    mask : callable, default=None
        ``mask(inputs) -> Tensor`` of true or false, or 1 or 0, for each sample and position: the
        shape of the outputs without that of the classes. Positions that are false are left out of
        every measurement. By default all count but those whose label is the ``ignore_index`` of
        the likelihood.

    See Also
    --------
    WrappedModel.from_hf : Models of Hugging Face, with their labels and attention masks.
    skgeo.Checkpoint : Weights in a file, loaded when they are needed.

    Notes
    -----
    :func:`sklearn.base.clone` returns the same object; :func:`copy.deepcopy` copies the weights.
    A WrappedModel can be pickled if `forward` can: a function defined in a Python module can, a
    lambda cannot. Integer inputs are passed to `forward` as integers. An input named
    ``"attention_mask"`` is one input among others; to leave padding out of the metric, say
    ``mask=lambda inputs: inputs["attention_mask"]``.

    Examples
    --------
    >>> import torch
    >>> from skgeo import WrappedModel
    >>> def logits(module, inputs):
    ...     return module(inputs["pixels"])
    >>> conv = torch.nn.Conv2d(3, 10, kernel_size=1)
    >>> model = WrappedModel(conv, forward=logits, likelihood="categorical", class_axis=1)
    >>> model
    WrappedModel(Conv2d, forward=logits, likelihood='categorical', class_axis=1)
    >>> model({"pixels": torch.zeros(5, 3, 8, 8)}).shape
    torch.Size([5, 10, 8, 8])
    """

    def __init__(
        self,
        module: nn.Module,
        forward: Callable[[nn.Module, Any], Tensor] | None = None,
        likelihood: str | Likelihood | None = None,
        class_axis: int | None = None,
        mask: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
            raise NotAModelError(
                f"WrappedModel got {type(module).__name__} as its module; expected a "
                f"torch.nn.Module. Pass scikit-learn and skorch models without a wrapper."
            )
        if forward is not None and not callable(forward):
            raise NotAModelError(
                f"WrappedModel got forward={forward!r}; expected a function "
                f"forward(module, inputs) that returns a tensor."
            )
        if likelihood == "auto" or not isinstance(likelihood, str | Likelihood | None):
            raise NotAModelError(
                f"WrappedModel got likelihood={likelihood!r}; expected a name such as "
                f"'categorical', a Likelihood, or None."
            )
        check_class_axis("WrappedModel", class_axis)
        if mask is not None and not callable(mask):
            raise NotAModelError(
                f"WrappedModel got mask={type(mask).__name__}; expected a function mask(inputs) "
                f"that returns a tensor, such as lambda inputs: inputs['attention_mask']."
            )
        self.module = module
        self.forward = forward
        self.likelihood = likelihood
        self.class_axis = class_axis
        self.mask = mask

    @classmethod
    def from_hf(
        cls,
        model: nn.Module,
        *,
        likelihood: str | Likelihood | None = None,
        shift: bool | str = "auto",
        mask: Callable[[Any], Tensor] | str | None = "auto",
    ) -> WrappedModel:
        r"""Model of Hugging Face, called with a dict of tensors.

        The outputs are ``.logits`` or, without a head, ``.last_hidden_state``.

        Parameters
        ----------
        model : torch.nn.Module
            With ``.config``, as those of transformers have. It is not copied.
        likelihood : str or Likelihood, default=None
            By default "categorical" for models that predict the next token, what
            ``config.problem_type`` says for others, or else the estimator decides.
        shift : bool or "auto", default="auto"
            Whether the outputs at position t are about the token at t + 1. "auto" follows the loss
            of the model's class: true for names that end in ``ForCausalLM`` except decoders such as
            ``BartForCausalLM``, and for ``GPT2LMHeadModel``.
        mask : callable, "auto" or None, default="auto"
            As for :class:`WrappedModel`. "auto" takes the attention mask in X for models with
            outputs for each token, ``decoder_attention_mask`` behind an encoder. None counts every
            position.

        Returns
        -------
        WrappedModel

        Raises
        ------
        NotAModelError
            If `model` is not a module, or has no configuration.
        SkgeoError
            If the class of the model does not say whether labels are shifted, or an argument is
            none of the above.

        Notes
        -----
        X is a dict of tensors by the names of the model's inputs, a Dataset or DataLoader of such
        dicts, or an array of ``input_ids``. ``labels`` among them are taken for y, and are not
        passed to the model; -100 leaves a position out.

        With `shift`, ``y[:, t] = labels[:, t + 1]``, and position t counts if tokens t and t + 1
        do, so never the last. A y passed as such is aligned with the outputs already, and replaces
        the labels. The gradient of the model's own loss, times the number of counted positions, is
        then :math:`\sum_{nt} J_{nt}^T (p_{nt} - e_{y_{nt}})`.

        Examples
        --------
        >>> import torch
        >>> from types import SimpleNamespace
        >>> from skgeo import WrappedModel, fisher_rank
        >>> class BigramForCausalLM(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.config = SimpleNamespace()
        ...         self.table = torch.nn.Embedding(3, 3)
        ...
        ...     def forward(self, input_ids, attention_mask=None):
        ...         return SimpleNamespace(logits=self.table(input_ids))
        >>> model = WrappedModel.from_hf(BigramForCausalLM())
        >>> model.likelihood
        'categorical'

        The first token has a next one, the second does not: one row of the table, three logits up
        to a constant.

        >>> fisher_rank(model, {"input_ids": torch.tensor([[0, 1], [0, 2]])}, tol=1e-6).rank
        2
        """
        check_interface(model)
        shifted = shifts(model, shift)
        if isinstance(mask, str):
            if mask != "auto":
                raise SkgeoError(
                    f"Got mask={mask!r}; expected a function mask(inputs), 'auto' or None."
                )
            mask = attention_mask(model, shifted)
        return cls(
            model,
            forward=HuggingFaceCall(shifted),
            likelihood=family(model, shifted) if likelihood is None else likelihood,
            mask=mask,
        )

    def __call__(self, inputs: Any) -> Tensor:
        """Compute the outputs on `inputs`."""
        return self.module(inputs) if self.forward is None else self.forward(self.module, inputs)

    def __sklearn_clone__(self) -> WrappedModel:
        return self

    def __repr__(self) -> str:
        parts = [type(self.module).__name__]
        if self.forward is not None:
            parts.append(f"forward={function_name(self.forward)}")
        if self.likelihood is not None:
            parts.append(f"likelihood={self.likelihood!r}")
        if self.class_axis is not None:
            parts.append(f"class_axis={self.class_axis}")
        if self.mask is not None:
            parts.append(f"mask={function_name(self.mask)}")
        return f"WrappedModel({', '.join(parts)})"


def check_class_axis(owner: str, class_axis: Any) -> None:
    """Raise NotAModelError unless `class_axis` is an integer other than 0, or None."""
    if class_axis is not None and (type(class_axis) is not int or class_axis == 0):
        raise NotAModelError(
            f"{owner} got class_axis={class_axis!r}; expected an integer other than 0, "
            f"which is the axis of the samples, or None."
        )


def function_name(function: Any) -> str:
    """Name of a function, a class, a partial or a callable object."""
    inner = getattr(function, "func", function)
    name = getattr(inner, "__name__", type(inner).__name__)
    return name if inner is function else f"partial({name})"
