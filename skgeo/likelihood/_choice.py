"""Which output family a model and its data have."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from skgeo.exceptions import SkgeoError, warn
from skgeo.likelihood._families import LIKELIHOODS, Likelihood, as_likelihood


def check_class_axis(shape: tuple[int, ...], targets: Any, *, own_forward: bool) -> None:
    """Tell whether classes may be on axis 1 of the outputs, as in torch, and not on the last.

    shape: of the outputs of one sample, read with classes on the last axis.
    own_forward: whether a function of the user's own arranged the outputs.
    """
    if len(shape) < 2:
        return
    advice = "WrappedModel(module, forward=lambda module, x: module(x).movedim(1, -1))"
    labels = None if targets is None else tuple(np.shape(targets))[1:]
    if labels == shape[1:] and labels != shape[:-1]:
        raise SkgeoError(
            f"y has a label for each entry of {labels}, which fits outputs {shape} with "
            f"{shape[0]} classes on the first axis of a sample; they are read with "
            f"{shape[-1]} classes on the last. Move the classes there: {advice}."
        )
    if len(shape) > 2 and not own_forward and labels != shape[:-1]:
        warn(
            f"Outputs of shape {shape} per sample are read with {shape[-1]} classes on the last "
            f"axis. If the classes are on the first, as torch has them, move them: {advice}."
        )


def resolve_likelihood(
    likelihood: str | Likelihood,
    *,
    declared_likelihood: str | Likelihood | None = None,
    targets: Any = None,
    n_outputs: int,
    n_positions: int = 1,
) -> Likelihood:
    """Output family of one model and its data.

    Parameters
    ----------
    likelihood : str or Likelihood
        What the user asked; anything but "auto" decides.
    declared_likelihood : str or Likelihood, optional
        What the model declares of its outputs (by its type, its loss).
    targets : array-like, optional
        y. Its *dtype* decides: strings, booleans and integers are classes, floats are means.
    n_outputs : int
        Size of the outputs' last axis.
    n_positions : int, default=1
        Positions per sample that have outputs.

    Returns
    -------
    Likelihood

    Raises
    ------
    SkgeoError
        For classes that the outputs cannot hold.

    Warns
    -----
    GeometryWarning
        Where nothing decides and "gaussian" is assumed.

    Examples
    --------
    >>> resolve_likelihood("auto", targets=[0, 2, 1], n_outputs=3)
    Categorical()
    """
    if not (isinstance(likelihood, str) and likelihood == "auto"):
        return as_likelihood(likelihood)
    if declared_likelihood is not None:
        return as_likelihood(declared_likelihood)
    if targets is None:
        warn(
            "likelihood='auto' without targets and with a model that does not say: 'gaussian' "
            "with unit variance is assumed. Pass y, or say likelihood=."
        )
        return LIKELIHOODS["gaussian"]
    labels = targets.detach().cpu().numpy() if isinstance(targets, Tensor) else np.asarray(targets)
    if labels.dtype.kind == "f":
        return LIKELIHOODS["gaussian"]
    if labels.ndim == 2 and labels.shape[1] == n_outputs > 1 and labels.dtype.kind in "biu":
        binary = bool(np.isin(labels, (0, 1)).all())
        positions = n_positions == labels.shape[1]
        if binary and positions:
            raise SkgeoError(
                f"likelihood='auto': y of shape {labels.shape} with entries 0 and 1 may hold a "
                f"class for each of {n_positions} positions, or yes and no for each of "
                f"{n_outputs} outputs. Say likelihood='categorical' or likelihood='bernoulli'."
            )
        if binary:
            one_hot = bool((labels.sum(1) == 1).all())
            return LIKELIHOODS["categorical" if one_hot else "bernoulli"]
        if not positions:
            raise SkgeoError(
                f"likelihood='auto': y has {n_outputs} columns of integers from {labels.min()} to "
                f"{labels.max()}, which are neither 0 and 1 nor classes. Say likelihood='poisson' "
                "for counts, or convert y to float for numbers."
            )
    n_classes = len(np.unique(labels.astype(str) if labels.dtype.kind == "O" else labels))
    if n_outputs == 1 and n_classes <= 2:
        return LIKELIHOODS["bernoulli"]
    if 2 <= n_outputs and n_classes <= n_outputs:
        return LIKELIHOODS["categorical"]
    raise SkgeoError(
        f"likelihood='auto': y has dtype {labels.dtype} and {n_classes} classes, and the model "
        f"{n_outputs} output{'s' * (n_outputs > 1)}. For classes the model needs a logit each; for "
        "numbers convert y to float or say likelihood='gaussian' or 'poisson'."
    )
