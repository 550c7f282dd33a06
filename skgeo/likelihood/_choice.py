"""Which output family a model and its data have, and which axis holds its classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError, warn
from skgeo.likelihood._categorical import Categorical
from skgeo.likelihood._families import LIKELIHOODS, GaussianScale, as_likelihood
from skgeo.likelihood._likelihood import Likelihood

_SAY = "likelihood='auto'"


def find_class_axis(
    shape: tuple[int, ...],
    targets: Any,
    *,
    likelihood: str | Likelihood,
    declared_likelihood: str | Likelihood | None = None,
    declared_axis: int | None = None,
) -> int | None:
    """Axis of a batch of outputs that holds the classes; None if nothing says.

    The likelihood says, or else the model, or else the shape of y if exactly one reading fits it.
    shape: of a batch of outputs.
    Raises SkgeoError if there is no such axis, or if y fits both readings.
    """
    asked = declared_likelihood if _is_auto(likelihood) else likelihood
    family = None if asked is None else as_likelihood(asked)
    given = declared_axis
    if family is not None and family.class_axis is not None:
        given = family.class_axis
    if given is not None:
        if not -len(shape) < given < len(shape) or given == 0:
            raise SkgeoError(
                f"Got class_axis={given}: the outputs have shape {shape}, samples first; expected "
                f"an "
                f"axis from 1 to {len(shape) - 1}, or from {1 - len(shape)} to -1."
            )
        return given % len(shape)
    if targets is None or len(shape) < 3:
        return None
    if family is None and _is_float(targets):
        return None
    if not isinstance(family, Categorical | GaussianScale | None):
        return None
    last = len(shape) - 1
    fitting = [axis for axis in (1, last) if _fits(targets, shape, axis, family)]
    if len(fitting) == 2:
        raise SkgeoError(
            f"y of shape {tuple(np.shape(targets))} fits outputs of shape {shape} read with "
            f"{shape[1]} classes on axis 1 and with {shape[last]} on the last. Say which: "
            "likelihood=Categorical(class_axis=1) or Categorical(class_axis=-1), or the same on a "
            "WrappedModel."
        )
    return fitting[0] if fitting else None


def _fits(targets: Any, shape: tuple[int, ...], axis: int, family: Likelihood | None) -> bool:
    """Whether y has one target per position if this axis of a batch holds the classes."""
    given = tuple(np.shape(targets))
    positions = (*shape[1:axis], *shape[axis + 1 :])
    if isinstance(family, GaussianScale):
        half = (*shape[1:axis], shape[axis] // 2, *shape[axis + 1 :])
        return shape[axis] % 2 == 0 and (given[1:] == half or given[1:] == positions)
    if given[1:] == shape[1:]:  # one-hot
        hot = _array(targets)
        return _is_binary(hot) and bool((hot.sum(axis) == 1).all())
    return given[1:] == positions


def warn_class_axis(shape: tuple[int, ...], name: str) -> None:
    """Say that nothing tells the classes of (b, C, H, W) outputs from positions.

    shape: of a batch of outputs.
    """
    warn(
        f"Outputs of shape {shape[1:]} per sample are read with {shape[-1]} {name} on the last "
        f"axis. If they are on the first, as torch has them, say so with class_axis=1 on the "
        "likelihood or a WrappedModel; class_axis=-1 says that the last is meant."
    )


def leaves_out(targets: Any, family: Likelihood) -> bool:
    """Whether y holds labels that leave their position out."""
    ignored = getattr(family, "ignore_index", None)
    if targets is None or ignored is None:
        return False
    labels = _array(targets)
    return labels.dtype.kind in "iu" and bool((labels == ignored).any())


def counted_positions(targets: Any, family: Likelihood, n_positions: int) -> Tensor | None:
    """Which positions have a label other than the family's ``ignore_index``; None for all.

    Raises SkgeoError if y has such labels, but not one label per position, or nothing else.
    """
    # -> (N, n_positions), boolean
    if not leaves_out(targets, family):
        return None
    labels, ignored = _array(targets), getattr(family, "ignore_index", None)
    if labels.size != len(labels) * n_positions:
        raise SkgeoError(
            f"y of shape {labels.shape} holds the label {ignored}, which leaves positions out, but "
            f"the model has {n_positions} positions per sample. Give y one label per position, or "
            "say likelihood=Categorical(ignore_index=None)."
        )
    counted = labels != ignored
    if not bool(counted.any()):
        raise SkgeoError(
            f"Every label in y is {ignored}, which leaves its position out: nothing is left to "
            "measure."
        )
    return torch.from_numpy(counted.reshape(len(labels), n_positions))


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
        For classes that the outputs cannot hold, for targets that may be read in two ways, and
        for targets of another size than the outputs.

    Warns
    -----
    GeometryWarning
        Where nothing decides and "gaussian" is assumed.

    Examples
    --------
    >>> resolve_likelihood("auto", targets=[0, 2, 1], n_outputs=3).name
    'categorical'
    >>> resolve_likelihood("auto", targets=[0.3, -1.2], n_outputs=1).name
    'gaussian'
    """
    if not _is_auto(likelihood):
        return as_likelihood(likelihood)
    if declared_likelihood is not None:
        return as_likelihood(declared_likelihood)
    if targets is None:
        warn(
            f"{_SAY} without targets and with a model that does not say: 'gaussian' "
            "with unit variance is assumed. Pass y, or say likelihood=."
        )
        return LIKELIHOODS["gaussian"]
    labels = _array(targets)
    if labels.dtype.kind == "f":
        return LIKELIHOODS[_name_for_numbers(labels, n_outputs, n_positions)]
    return LIKELIHOODS[_name_for_labels(labels, n_outputs, n_positions)]


def _is_auto(likelihood: str | Likelihood) -> bool:
    return isinstance(likelihood, str) and likelihood == "auto"


def _is_float(targets: Any) -> bool:
    if isinstance(targets, Tensor):
        return targets.is_floating_point()
    return np.asarray(targets).dtype.kind == "f"


def _array(targets: Any) -> np.ndarray:
    """Targets as an array."""
    if not isinstance(targets, Tensor):
        return np.asarray(targets)
    targets = targets.detach().cpu()
    targets = targets.float() if targets.dtype == torch.bfloat16 else targets
    return np.asarray(targets.numpy())


def _is_binary(values: np.ndarray) -> bool:
    """Whether an array holds nothing but 0 and 1."""
    return values.dtype.kind in "biuf" and bool(np.isin(values, (0, 1)).all())


def _outputs(n_outputs: int, n_positions: int) -> str:
    """The outputs of one sample, in words."""
    words = f"{n_outputs} output{'s' * (n_outputs > 1)}"
    return words if n_positions == 1 else f"{n_positions} positions of {words}"


def _name_for_numbers(numbers: np.ndarray, n_outputs: int, n_positions: int) -> str:
    """Family of floating targets: means, unless they can be read in another way."""
    each = math.prod(numbers.shape[1:])
    if 2 * each == n_outputs * n_positions:
        raise SkgeoError(
            f"{_SAY}: y of shape {numbers.shape} has half as many numbers per sample as the "
            f"{_outputs(n_outputs, n_positions)}. For means and log-scales (the logarithms of "
            "standard deviations, half of the log-variances) say likelihood='gaussian_scale'; for "
            "means alone say 'gaussian'; for classes convert y to integers."
        )
    if each != n_outputs * n_positions:
        raise SkgeoError(
            f"{_SAY}: y has dtype {numbers.dtype} and shape {numbers.shape}, which does not fit "
            f"the {_outputs(n_outputs, n_positions)} per sample. For classes convert y to "
            "integers; otherwise give y a number for each output, or say likelihood=."
        )
    rows = numbers.reshape(len(numbers), -1, n_outputs).astype(float)
    shares = n_outputs > 1 and bool((rows >= 0).all() and (abs(rows.sum(-1) - 1) < 1e-5).all())
    if shares or (_is_binary(numbers) and numbers.min() < numbers.max()):
        other, what = ("categorical", "a class") if shares else ("bernoulli", "yes or no")
        raise SkgeoError(
            f"{_SAY}: y has dtype {numbers.dtype} and as many numbers per sample as the model has "
            f"outputs, {'each row a distribution' if shares else 'all of them 0 or 1'}. They may "
            f"say {what}, or be the means of normal distributions. Say likelihood='{other}' or "
            "likelihood='gaussian'."
        )
    return "gaussian"


def _name_for_labels(labels: np.ndarray, n_outputs: int, n_positions: int) -> str:
    """Family of labels: classes, or yes and no."""
    each = math.prod(labels.shape[1:])
    square = each == n_outputs == n_positions
    if n_outputs > 1 and (square or each == n_outputs * n_positions) and labels.dtype.kind in "biu":
        binary = _is_binary(labels)
        if binary and square:
            raise SkgeoError(
                f"{_SAY}: y of shape {labels.shape} with entries 0 and 1 may hold a "
                f"class for each of {n_positions} positions, or yes and no for each of "
                f"{n_outputs} outputs. Say likelihood='categorical' or likelihood='bernoulli'."
            )
        if binary:
            one_hot = bool((labels.reshape(len(labels), -1, n_outputs).sum(-1) == 1).all())
            return "categorical" if one_hot else "bernoulli"
        if not square:
            raise SkgeoError(
                f"{_SAY}: y has {n_outputs} columns of integers from {labels.min()} to "
                f"{labels.max()}, which are neither 0 and 1 nor classes. Say likelihood='poisson' "
                "for counts, or convert y to float for numbers."
            )
    if each != n_positions:
        raise SkgeoError(
            f"{_SAY}: y of shape {labels.shape} has {each} labels per sample, which does not fit "
            f"the {_outputs(n_outputs, n_positions)}, read with classes on the last axis. Give y "
            "one label per position, or say likelihood= (with class_axis= if classes are on "
            "another axis)."
        )
    if labels.dtype.kind in "iu":
        counted = labels[labels != Categorical().ignore_index]
        labels = counted if counted.size else labels
    n_classes = len(np.unique(labels.astype(str) if labels.dtype.kind == "O" else labels))
    if n_outputs == 1 and n_classes <= 2:
        return "bernoulli"
    if 2 <= n_outputs and n_classes <= n_outputs:
        return "categorical"
    raise SkgeoError(
        f"{_SAY}: y has dtype {labels.dtype} and {n_classes} classes, and the model "
        f"{n_outputs} output{'s' * (n_outputs > 1)}. For classes the model needs a logit each; for "
        "numbers convert y to float or say likelihood='gaussian' or 'poisson'."
    )
