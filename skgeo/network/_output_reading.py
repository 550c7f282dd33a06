"""How the outputs of a model are read: their classes, positions and likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from skgeo.data import Inputs
from skgeo.exceptions import SkgeoError, warn
from skgeo.likelihood import (
    Bernoulli,
    Categorical,
    GaussianScale,
    Likelihood,
    as_likelihood,
    resolve_likelihood,
)
from skgeo.likelihood._choice import (
    counted_positions,
    find_class_axis,
    leaves_out,
    warn_class_axis,
)
from skgeo.likelihood._families import PROBABILITIES, check_family
from skgeo.models import ResolvedModel
from skgeo.network._batch import batch_size
from skgeo.network._finite import check_metric
from skgeo.network._flow import Flow
from skgeo.network._positions import checked_mask


class OutputReading:
    """What is asked, what the model declares, and what the targets say of the outputs.

    asked: likelihood, by name or "auto"; None for measurements that have no metric on the outputs,
        which read of the targets only labels that leave positions out.
    targets: y, or None.
    """

    def __init__(self, model: ResolvedModel, asked: str | Likelihood | None, targets: Any) -> None:
        self._model = model
        self._asked = asked
        # The family of labels in y, where no likelihood is asked for.
        self._labels = as_likelihood(model.likelihood or "categorical")
        read = asked is not None or leaves_out(targets, self._labels)
        self._targets = targets if read else None
        self._noticed = False

    def class_axis(self, shape: tuple[int, ...]) -> int | None:
        """Axis of the classes in a batch of outputs as the model gives them, if anything says."""
        return find_class_axis(
            shape,
            self._targets,
            likelihood="auto" if self._asked is None else self._asked,
            declared_likelihood=self._model.likelihood,
            declared_axis=self._model.class_axis,
        )

    def likelihood(
        self, outputs: Tensor, class_axis: int | None, flow: Callable[[], Flow]
    ) -> Likelihood:
        """The likelihood, checked against the outputs of the first sample.

        outputs: (1, ..., K), classes last.
        class_axis: where the model has them; None if nothing says.
        flow: gives the data flow, which is read only where its end matters.
        """
        last = outputs.shape[-1] if outputs.ndim > 1 else 1
        z = outputs.reshape(1, -1, last)
        found = resolve_likelihood(
            self._asked or "gaussian",
            declared_likelihood=self._model.likelihood,
            targets=self._targets,
            n_outputs=z.shape[2],
            n_positions=z.shape[1],
        )
        if isinstance(found, Categorical | GaussianScale):
            found = self._with_class_axis(found, tuple(outputs.shape), class_axis)
        found.check(z)
        check_family(found, z)
        if isinstance(found, Bernoulli) and bool(((z >= 0) & (z <= 1)).all()):
            self._notice_ending(flow())
        return found

    def _with_class_axis(
        self, family: Categorical | GaussianScale, shape: tuple[int, ...], axis: int | None
    ) -> Likelihood:
        """The family, which from now on says on which axis the classes of this model are."""
        if axis is not None and len(shape) > 2:
            return replace(family, class_axis=-1 if axis == len(shape) - 1 else axis)
        if len(shape) > 3 and self._model.forward is None:
            warn_class_axis(
                shape, "classes" if isinstance(family, Categorical) else "means and log-scales"
            )
        return family

    def _notice_ending(self, flow: Flow) -> None:
        """Say that the outputs are probabilities if the last step of the network shows it."""
        last = flow.output
        if last is None:
            return  # their values will tell
        if last.activation is not None:
            low, high = last.activation.range
            if low >= 0 and high <= 1:
                warn(PROBABILITIES)
        self._noticed = last.activation is not None or last.kind in ("linear", "conv")

    def notice(self, z: Tensor, family: Likelihood) -> None:
        """Look at outputs: is the metric finite, and (once) do they look right?

        z: (b, n_positions, K).
        """
        if not isinstance(family, Categorical):  # whose metric is bounded
            one = z.new_ones((*z.shape, 1), dtype=torch.float64)
            check_metric(family.pull_rows(z, one), family.name)
        if not self._noticed:
            self._noticed = True  # one sample says little of a family, one batch enough
            family.notice(z)

    @property
    def may_leave_out(self) -> bool:
        """Whether anything says which positions count."""
        return self._model.mask is not None or self._targets is not None

    def mask(
        self, n_positions: int, family: Callable[[], Likelihood], batches: Iterable[Inputs]
    ) -> Tensor | None:
        """Which positions count, (N, n_positions), on the CPU; None for all.

        By the labels in y and by the mask of the model. Raises SkgeoError if none does.
        family: gives the likelihood, if one was asked for.
        batches: the inputs in batches, as the user gave them; run through only if the model has a
            mask.
        """
        given = self._model.mask
        labels = self._labels if self._asked is None else family()
        found = counted_positions(self._targets, labels, n_positions)
        if given is not None:
            parts = [
                checked_mask(given(inputs), batch_size(inputs), n_positions).cpu()
                for inputs in batches
            ]
            own = torch.cat(parts)
            found = own if found is None else found & own
        if found is not None and not bool(found.any()):
            raise SkgeoError(
                "No position of any sample counts: mask= of the WrappedModel and the labels in y "
                "leave all of them out."
            )
        return found
