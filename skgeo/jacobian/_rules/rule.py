"""The interface of layer rules: one call of a layer, and its per-sample gradients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from skgeo.jacobian._rules.symmetric import lower_product, mirror

# Bound on the memory of a product in addition to its result.
_WORK_BYTES = 2**26


@dataclasses.dataclass(frozen=True, eq=False)
class LayerGradients:
    r"""One call of one layer: its inputs, and how the network's outputs depend on its result.

    Attributes
    ----------
    module : torch.nn.Module
        The layer, of the replica. Only read.
    inputs : Tensor of shape (b, ...)
        What the layer was called with, samples first.
    gradients : Tensor of shape (b, m, ...)
        :math:`\partial (c_{nk} \cdot z_n) / \partial y_n` for m directions :math:`c_{nk}` of the
        outputs :math:`z_n`, where :math:`y_n` is the layer's result for sample n.
    names : dict of str to str
        Local names of the parameters of interest ("weight", "bias") and their names in the network.
    """

    module: nn.Module
    inputs: Tensor
    gradients: Tensor
    names: Mapping[str, str]

    @property
    def n_samples(self) -> int:
        """Number of samples b."""
        return self.gradients.shape[0]

    @property
    def n_directions(self) -> int:
        """Number of directions m per sample."""
        return self.gradients.shape[1]

    @property
    def n_parameters(self) -> int:
        """Number of entries of the parameters in `names`."""
        return sum(self.parameter(local).numel() for local in self.names)

    def parameter(self, local: str) -> Tensor:
        """The layer's parameter of this local name."""
        parameter = self.module._parameters[local]
        assert parameter is not None
        return parameter

    def double(self) -> LayerGradients:
        """The same call in float64; indices stay integers."""
        return self.to(torch.float64)

    def to(self, dtype: torch.dtype) -> LayerGradients:
        """The same call in another precision; indices stay integers."""
        inputs = self.inputs.to(dtype) if self.inputs.is_floating_point() else self.inputs
        return dataclasses.replace(self, inputs=inputs, gradients=self.gradients.to(dtype))

    def take(self, samples: slice) -> LayerGradients:
        """The same call for some of the samples."""
        return dataclasses.replace(
            self, inputs=self.inputs[samples], gradients=self.gradients[samples]
        )

    def weighted(self, weights: Tensor) -> LayerGradients:
        r"""The call with r linear combinations of its directions.

        Parameters
        ----------
        weights : Tensor of shape (b, r, m)
            The coefficients per sample.

        Returns
        -------
        LayerGradients
            With r directions.
        """
        dtype = torch.promote_types(weights.dtype, self.gradients.dtype)
        flat = self.gradients.flatten(2) if self.gradients.dim() > 2 else self.gradients[..., None]
        mixed = torch.bmm(weights.to(dtype), flat.to(dtype))
        shape = (*weights.shape[:2], *self.gradients.shape[2:])
        return dataclasses.replace(self, gradients=mixed.reshape(shape))


class StructureRule:
    r"""How the per-sample gradients of one type of layer follow from its inputs and gradients.

    Only :meth:`rows` has to be written. The defaults of the other methods use it; override them
    where the structure of the layer gives the same result at a lower cost.

    Attributes
    ----------
    names : tuple of str
        Local names of the parameters that the rule knows.
    quick_products : bool
        Whether :meth:`push` and :meth:`pull` cost less than passes of automatic differentiation.
        Otherwise matrix-free solvers do not call them.

    See Also
    --------
    skgeo.jacobian.register_structure : registers a rule.
    skgeo.jacobian.check_structure : compares a rule with general differentiation.

    Notes
    -----
    A rule is stateless, and computes derivatives without autograd. `rows`, `total`, `push` and
    `pull` work in the dtype of ``call.gradients``, `add_gram` in that of its result, and the others
    in float64 for any dtype of the network.
    """

    names: ClassVar[tuple[str, ...]] = ("weight", "bias")
    quick_products: ClassVar[bool] = False

    def covers(self, module: nn.Module) -> bool:
        """Whether the rule holds for this layer with its options.

        Parameters
        ----------
        module : torch.nn.Module
            In eval mode.

        Returns
        -------
        bool
        """
        return True

    def features(self, module: nn.Module) -> int | None:
        """How many of the last axes of the layer's input belong together.

        Parameters
        ----------
        module : torch.nn.Module

        Returns
        -------
        int or None
            With a number, the layer treats every axis before these alike, so the samples need not
            be the first axis, and `inputs` and `gradients` may have any number of axes between
            samples and features. None: the first axis has to be the samples.
        """
        return None

    def rows(self, call: LayerGradients) -> dict[str, Tensor]:
        """Per-sample gradients of every direction.

        Parameters
        ----------
        call : LayerGradients

        Returns
        -------
        dict of str to Tensor of shape (b, m) + parameter.shape
            For each local name in ``call.names``, in the type of ``call.gradients``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define rows(call).")

    def total(self, call: LayerGradients) -> dict[str, Tensor]:
        """Sum of the per-sample gradients over samples and directions.

        Parameters
        ----------
        call : LayerGradients

        Returns
        -------
        dict of str to Tensor of shape parameter.shape
        """
        found = {local: torch.zeros_like(call.parameter(local)) for local in call.names}
        for part in self._parts(call):
            for local, rows in self.rows(part).items():
                found[local] = found[local].to(rows.dtype) + rows.sum((0, 1))
        return found

    def add_gram(self, total: Tensor, left: LayerGradients, right: LayerGradients) -> None:
        """Add the inner products of all per-sample gradients to a matrix.

        Parameters
        ----------
        total : Tensor of shape (b_left * m_left, b_right * m_right)
            Rows and columns are ordered by sample, then direction. Changed in place, and in its
            precision. Where `left` is `right`, entries above the diagonal are not read afterwards
            and may be left out.
        left, right : LayerGradients
        """
        rows = self._flat_rows(left, total.dtype)
        lower_product(total, rows, rows if left is right else self._flat_rows(right, total.dtype))

    def gram(self, left: LayerGradients, right: LayerGradients) -> Tensor:
        """Inner products of all per-sample gradients.

        Parameters
        ----------
        left, right : LayerGradients

        Returns
        -------
        Tensor of shape (b_left * m_left, b_right * m_right), float64
            Rows and columns are ordered by sample, then direction.
        """
        shape = tuple(call.n_samples * call.n_directions for call in (left, right))
        total = torch.zeros(shape, dtype=torch.float64, device=left.gradients.device)
        self.add_gram(total, left, right)
        return mirror(total) if left is right else total

    def diagonal(self, call: LayerGradients) -> dict[str, Tensor]:
        """Sum over samples and directions of the squared per-sample gradients.

        Parameters
        ----------
        call : LayerGradients

        Returns
        -------
        dict of str to Tensor of shape parameter.shape, float64
        """
        found: dict[str, Tensor] = {}
        for part in self._parts(call):
            for local, rows in self.rows(part.double()).items():
                squares = rows.square().sum((0, 1))
                found[local] = found[local] + squares if local in found else squares
        return found

    def trace(self, call: LayerGradients) -> Tensor:
        """Sum of :meth:`diagonal` over all parameters.

        Parameters
        ----------
        call : LayerGradients

        Returns
        -------
        Tensor of shape (), float64
        """
        values = [values.sum() for values in self.diagonal(call).values()]
        return torch.stack(values).sum()

    def outer(self, call: LayerGradients) -> tuple[Tensor, Tensor] | None:
        r"""Two factors of the per-sample gradients, where these are single outer products.

        Parameters
        ----------
        call : LayerGradients

        Returns
        -------
        a : Tensor of shape (b, i)
        g : Tensor of shape (b, m, o)
            Such that the gradient of sample n in direction k is :math:`g_{nk} a_n^T`: the weight
            of shape (o, i), or where both are selected the weight with the bias as column i + 1, or
            the bias alone with i = 1. None if the layer is not of this kind.
        """
        return None

    def push(self, call: LayerGradients, vectors: Mapping[str, Tensor]) -> Tensor:
        """Derivatives along directions in parameter space: the per-sample gradients times vectors.

        Parameters
        ----------
        call : LayerGradients
        vectors : dict of str to Tensor of shape (w,) + parameter.shape
            For each local name in ``call.names``.

        Returns
        -------
        Tensor of shape (b, m, w)
        """
        flat = {local: vectors[local].flatten(1).T for local in call.names}
        parts = []
        for part in self._parts(call):
            rows = self.rows(part)
            parts.append(torch.stack([rows[n].flatten(2) @ flat[n] for n in flat]).sum(0))
        return torch.cat(parts)

    def pull(self, call: LayerGradients, weights: Tensor) -> dict[str, Tensor]:
        """Weighted sums of the per-sample gradients, the transpose of :meth:`push`.

        Parameters
        ----------
        call : LayerGradients
        weights : Tensor of shape (b, m, w)

        Returns
        -------
        dict of str to Tensor of shape (w,) + parameter.shape
        """
        w = weights.shape[2]
        found = {
            local: call.gradients.new_zeros(w, *call.parameter(local).shape) for local in call.names
        }
        start = 0
        for part in self._parts(call):
            some = weights[start : start + part.n_samples].flatten(0, 1).T
            start += part.n_samples
            for local, rows in self.rows(part).items():
                total = found[local].flatten(1)
                found[local] = (total + some @ rows.flatten(2).flatten(0, 1)).view_as(found[local])
        return found

    def _parts(self, call: LayerGradients) -> Iterator[LayerGradients]:
        per_sample = call.n_directions * call.n_parameters * 8
        for samples in sample_slices(call.n_samples, per_sample):
            yield call.take(samples)

    def _flat_rows(self, call: LayerGradients, dtype: torch.dtype) -> Tensor:
        rows = self.rows(call.to(dtype))
        return torch.cat([rows[local].flatten(2) for local in call.names], 2).flatten(0, 1)


def sample_slices(count: int, bytes_each: float, budget: int = _WORK_BYTES) -> Iterator[slice]:
    """Cut samples into slices that each fit a budget, at least one sample each.

    Parameters
    ----------
    count : int
    bytes_each : float
    budget : int, default=64 MiB

    Yields
    ------
    slice
    """
    step = max(1, math.floor(budget / max(bytes_each, 1)))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
