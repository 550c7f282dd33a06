"""Singular values of all Jacobians of a chain on one batch, computed as planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skgeo.chain._moments import ElementwiseGram
from skgeo.chain._plan import LayerPlan, path_between
from skgeo.chain._summaries import QUANTITIES, spectral_quantities
from skgeo.chain._topk import leading_singular_values
from skgeo.jacobian._elementwise import ElementwiseLink
from skgeo.jacobian._layers import Layers
from skgeo.jacobian._recording import Recording
from skgeo.linalg._products import LongProduct, factor_tolerance

# Square roots of eigenvalues above this share of the largest are accurate to about 1e-10.
_SQUARED_SPREAD = 1e-6

Product = Callable[[Tensor], Tensor]
Measured = tuple[Tensor, dict[str, Tensor]]


class ChainJacobians:
    """Measurement of a chain, batch by batch.

    dtype: that of the network.
    kind: "layer", "input" or "output".
    tol: relative to the largest squared singular value of a link; None for what the dtype resolves.

    Attributes
    ----------
    worst : float
        Largest estimated error of a leading singular value so far, relative to the largest.
    """

    def __init__(
        self,
        layers: Layers,
        dtype: torch.dtype,
        kind: str,
        plans: Sequence[LayerPlan],
        tol: float | None,
    ) -> None:
        self._layers, self._dtype = layers, dtype
        self._kind, self._plans, self._tol = kind, plans, tol
        self.worst = 0.0
        # What all samples share is computed once per weight. The key is the address of the weight,
        # which is kept alive here.
        self._grams: dict[int, tuple[Tensor, ElementwiseGram]] = {}
        self._spectra: dict[int, tuple[Tensor, Tensor]] = {}

    def measure(self, seen: Recording) -> tuple[dict[str, Measured], Tensor]:
        """Logarithms of singular values and quantities by layer, and Lyapunov exponents."""
        # -> {layer: ((b, k), {quantity: (b,)})}, (b, k)
        products = self._products(seen)
        together = [plan.layer for plan in self._plans if plan.way == "formed"]
        formed = seen.root_jacobians(together) if self._kind == "input" and together else {}
        found: dict[str, Measured] = {}
        for plan in self._plans:
            name = plan.layer.name
            if plan.way == "none":
                found[name] = _nothing(seen.size, plan.n_values)
            elif plan.way in ("formed", "leading"):
                found[name] = self._leading(seen, plan, formed)
            else:
                logs = products[name] if plan.way == "links" else self._single(seen, plan)
                found[name] = logs, spectral_quantities(logs, plan.source.dim)
        return found, self._exponents(seen, found)

    def _products(self, seen: Recording) -> dict[str, Tensor]:
        """Logarithms at all layers whose products are taken link by link, in one sweep."""
        wanted = {plan.layer.name: plan for plan in self._plans if plan.way == "links"}
        if not wanted:
            return {}
        found = {}
        product = LongProduct(self._tol, self._dtype)
        if self._kind == "output":
            first = next(iter(wanted.values())).source
            for source, target in reversed(path_between(self._layers, first, self._layers.output)):
                product.multiply(seen.jacobian(target, source).mT)
                if source.name in wanted:
                    found[source.name] = _padded(product, wanted[source.name].side)
        else:
            last = list(wanted.values())[-1].target
            for source, target in path_between(self._layers, self._layers.root, last):
                product.multiply(seen.jacobian(target, source))
                if target.name in wanted:
                    found[target.name] = _padded(product, wanted[target.name].side)
        return found

    def _single(self, seen: Recording, plan: LayerPlan) -> Tensor:
        link = self._link(seen, plan)
        shape = (plan.target.dim, plan.source.dim)
        if link is not None and link.weight is None and link.slopes is not None:
            values = link.slopes.double().abs().sort(dim=1, descending=True).values
        elif link is not None and link.slopes is None and link.weight is not None:
            key = link.weight.data_ptr()
            if key not in self._spectra:
                values = torch.linalg.svdvals(link.weight.double())
                self._spectra[key] = (link.weight, values)
            values = self._spectra[key][1].expand(seen.size, -1)
        else:
            values = torch.linalg.svdvals(seen.jacobian(plan.target, plan.source).double())
        return self._logs(values, shape)

    def _logs(self, values: Tensor, shape: tuple[int, int]) -> Tensor:
        tol = factor_tolerance(*shape, self._dtype) if self._tol is None else self._tol
        kept = values > tol**0.5 * values[:, :1]
        return torch.where(kept, values, 0.0).log()

    def _link(self, seen: Recording, plan: LayerPlan) -> ElementwiseLink | None:
        return seen.elementwise(plan.target) if self._kind == "layer" else None

    def _leading(self, seen: Recording, plan: LayerPlan, formed: dict[str, Tensor]) -> Measured:
        link = self._link(seen, plan)
        if link is not None and (link.weight is None or link.slopes is None):
            logs = self._single(seen, plan)  # one decomposition for all samples, or none
            return logs, spectral_quantities(logs, plan.source.dim)
        if plan.way == "formed" and link is None:
            jacobian = formed.pop(plan.layer.name, None)
            jacobian = seen.jacobian(plan.target, plan.source) if jacobian is None else jacobian
            values, numbers = self._by_moments(jacobian, plan.n_values)
        else:
            if link is not None:
                push, pull = self._by_structure(link)
            else:
                operator = seen.operator(plan.target, plan.source)
                push, pull = operator.push, operator.pull
            shape = (seen.size, plan.target.dim, plan.source.dim)
            values, errors = leading_singular_values(
                push, pull, shape, plan.n_values, device=seen.device
            )
            relative = (errors / values[:, :1]).nan_to_num(0.0)
            self.worst = max(self.worst, float(relative.max()))
            numbers = _nothing(seen.size, 1)[1]
        largest = values[:, 0]
        numbers["sigma_max"] = largest
        if link is not None:
            self._fill(numbers, link, plan)
        total = numbers.pop("square_sum", None)
        if total is not None:
            numbers["stable_rank"] = torch.where(largest > 0, total / largest.square(), torch.nan)
        return values.log(), numbers

    def _by_structure(self, link: ElementwiseLink) -> tuple[Product, Product]:
        return (
            lambda v: link.push_columns(v.to(self._dtype).unsqueeze(2)).squeeze(2),
            lambda u: link.pull(u.to(self._dtype)),
        )

    def _by_moments(self, jacobian: Tensor, n_values: int) -> Measured:
        """Leading values and moments from the smaller Gram matrix of each sample."""
        size, rows, columns = jacobian.shape
        values = torch.zeros((size, n_values), dtype=torch.float64, device=jacobian.device)
        numbers = _nothing(size, 1)[1]
        numbers["square_sum"] = values.new_zeros(size)
        for sample, one in enumerate(jacobian):
            one = one.double()
            gram = one @ one.mT if rows <= columns else one.mT @ one
            total = float(gram.trace())
            numbers["square_sum"][sample] = total
            if total == 0.0:
                continue
            squares = torch.linalg.eigvalsh(gram).flip(0)[:n_values]
            if float(squares[-1]) > _SQUARED_SPREAD * float(squares[0]):
                values[sample] = squares.sqrt()
            else:  # too small, relative to the largest, to be squared
                values[sample] = torch.linalg.svdvals(one)[:n_values]
            gram.mul_(columns / total).diagonal().sub_(1.0)
            # J^T J has `columns - rows` more zero eigenvalues than J J^T.
            square = float(gram.square().sum()) + max(columns - rows, 0)
            numbers["isometry_deviation"][sample] = (square / columns) ** 0.5
        return values, numbers

    def _fill(self, numbers: dict[str, Tensor], link: ElementwiseLink, plan: LayerPlan) -> None:
        """Add the quantities that follow from the structure of the link."""
        assert link.weight is not None
        assert link.slopes is not None
        key = link.weight.data_ptr()
        if key not in self._grams:
            self._grams[key] = (link.weight, ElementwiseGram(link.weight, self._tol))
        moments = self._grams[key][1].quantities(link.slopes)
        numbers.update(moments)
        numbers["sigma_min"] = torch.where(moments["rank"] < plan.side, 0.0, torch.nan)
        for sample in moments["rank"].isnan().nonzero().flatten().tolist():
            one = link.slopes[sample].double().unsqueeze(1) * link.weight.double()
            logs = self._logs(
                torch.linalg.svdvals(one).unsqueeze(0), (plan.target.dim, plan.source.dim)
            )
            for name, value in spectral_quantities(logs, plan.source.dim).items():
                numbers[name][sample] = value[0]

    def _exponents(self, seen: Recording, found: dict[str, Measured]) -> Tensor:
        cuts = [plan for plan in self._plans if plan.layer.is_cut]
        undefined = torch.full((seen.size, 1), float("nan"), dtype=torch.float64)
        if not cuts:
            return undefined
        if self._kind == "layer":
            links = path_between(self._layers, self._layers.root, cuts[-1].target)
            if not all(plan.is_complete for plan in cuts):
                return undefined
            product = LongProduct(self._tol, self._dtype)
            for source, target in links:
                product.multiply(seen.jacobian(target, source))
            return product.log_singular_values() / len(links)
        whole = cuts[0] if self._kind == "output" else cuts[-1]
        links = path_between(self._layers, whole.source, whole.target)
        depth = len(links) - (self._kind == "output" and links[-1][0].is_output)
        narrowest = min(layer.dim for link in links for layer in link)
        return found[whole.layer.name][0][:, :narrowest] / depth


def _padded(product: LongProduct, side: int) -> Tensor:
    """Logarithms of all singular values: those beyond the narrowest width are zero."""
    logs = product.log_singular_values()
    return torch.nn.functional.pad(logs, (0, side - logs.shape[1]), value=float("-inf"))


def _nothing(size: int, count: int) -> Measured:
    nan = torch.full((size,), float("nan"), dtype=torch.float64)
    return nan.unsqueeze(1).repeat(1, count), {name: nan.clone() for name in QUANTITIES}
