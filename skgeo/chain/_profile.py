r"""Singular values of the Jacobians of a chain, layer by layer and sample by sample.

With :math:`J_l = \partial h_l/\partial h_{l-1}`: a layer's own :math:`J_l`; from the input
:math:`A_l = J_l \cdots J_1`; to the output :math:`B_l = J_L \cdots J_{l+1}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from skgeo._arguments import check_tolerance
from skgeo._results import Result
from skgeo.chain._jacobians import ChainJacobians
from skgeo.chain._plan import LayerPlan, path_between, plan_chain
from skgeo.chain._summaries import QUANTITIES
from skgeo.chain._topk import default_steps
from skgeo.exceptions import SkgeoError, warn
from skgeo.jacobian._layer import Layer
from skgeo.jacobian._layers import Layers
from skgeo.linalg._memory import format_bytes, require_memory
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import BoundNetwork, bind

# Estimated errors above this share of the largest singular value are warned about.
_UNSETTLED = 1e-3

Chain = Literal["layer", "input", "output"]


@dataclass(frozen=True, eq=False, repr=False)
class LayerStretches(Result):
    """One layer's Jacobian at each sample, by its singular values.

    Attributes
    ----------
    layer : Layer
        Name, dimension, and whether it is a cut.
    side : int
        Number of singular values, the smaller side of the Jacobian.
    log_singular_values : Tensor of shape (N, k)
        Natural logarithms, descending, float64; ``-inf`` for those that are zero. The leading k
        where not all were computed; NaN for a layer that is not a cut of the chain.
    log_volume, rank, sigma_max, sigma_min, condition, effective_rank, stable_rank, \
    isometry_deviation : Tensor of shape (N,)
        Defined under `profile_` of :class:`~skgeo.chain.JacobianChainProfiler`; NaN where they
        need singular values that were not computed.
    """

    layer: Layer
    side: int
    log_singular_values: Tensor
    log_volume: Tensor
    rank: Tensor
    sigma_max: Tensor
    sigma_min: Tensor
    condition: Tensor
    effective_rank: Tensor
    stable_rank: Tensor
    isometry_deviation: Tensor

    def _line(self) -> str:
        return (
            f"{self.layer.name!r}, mean rank {float(self.rank.mean()):.4g} of {self.side}, "
            f"mean log-volume {float(self.log_volume.mean()):.3g}, {len(self.rank)} samples"
        )

    @property
    def singular_values(self) -> Tensor:
        """Singular values; they may overflow or underflow, unlike their logarithms."""
        return self.log_singular_values.exp()


@dataclass(frozen=True, eq=False, repr=False)
class ChainProfile(Result):
    """The Jacobians of a chain at every layer.

    Attributes
    ----------
    chain : {"layer", "input", "output"}
        Which Jacobian of each layer was measured.
    layers : tuple of LayerStretches
        One per layer, in the order in which the layers run.
    lyapunov_exponents : Tensor of shape (N, k)
        :math:`\\log s_i / L` for the product of all L links between cuts, descending; k is its
        narrowest width, or fewer where only leading values were computed; one NaN where none were.
    """

    chain: str
    layers: tuple[LayerStretches, ...]
    lyapunov_exponents: Tensor

    def _line(self) -> str:
        n_samples = len(self.lyapunov_exponents)
        return f"chain={self.chain!r}, {len(self.layers)} layers, {n_samples} samples"

    def _repr_html_(self) -> str | None:
        table = pd.DataFrame([mean_row(found) for found in self.layers])
        html: str | None = table._repr_html_()
        return html

    def __getitem__(self, name: str) -> LayerStretches:
        for found in self.layers:
            if found.layer.name == name:
                return found
        raise SkgeoError(
            f"No layer {name!r} was measured; there are: "
            f"{', '.join(found.layer.name for found in self.layers)}."
        )


def mean_row(found: LayerStretches) -> dict[str, Any]:
    """Means of the quantities over samples, with their standard errors."""
    row: dict[str, Any] = {
        "layer": found.layer.name,
        "dim": found.layer.dim,
        "is_cut": found.layer.is_cut,
    }
    for name in QUANTITIES:
        values = getattr(found, name).numpy()
        row[name] = values.mean()
        row[f"{name}_se"] = float("nan")
        if len(values) > 1 and np.isfinite(values).all():
            row[f"{name}_se"] = values.std(ddof=1) / len(values) ** 0.5
    return row


def chain_profile(
    model: Any,
    X: Any,
    *,
    chain: Chain = "input",
    layers: Sequence[str] | None = None,
    n_singular_values: int | Literal["auto", "all"] = "auto",
    tol: float | Literal["auto"] = "auto",
    strict: bool = False,
    source: str | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> ChainProfile:
    r"""Singular values of the Jacobians of a network, layer by layer.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Not modified: a replica in eval mode is measured.
    X : array, Tensor, dict, Dataset or DataLoader
        N samples.
    chain : {"layer", "input", "output"}, default="input"
        Which Jacobian of a layer: its own, with respect to the last cut before it; that of the
        layer with respect to the input; that of the output with respect to the layer.
    layers : list of str, optional
        Names of layers or of single calls (``"relu#1"``). By default the children of a
        ``Sequential``, or the members of the longest ``ModuleList`` or the children that are cuts.
    n_singular_values : "auto", "all" or int, default="auto"
        "auto" computes all where every matrix on the way has a side up to 256 and up to 2^19
        entries, and the leading ten elsewhere.
    tol : float or "auto", default="auto"
        A direction is lost where one link of the chain, restricted to what is left, has a squared
        singular value of at most `tol` times its largest. "auto" is ``16 d eps^2`` with d the
        larger side and eps that of the network's dtype, and a direction of which only rounding may
        be left is tested by perturbing the links by a hundred units of rounding.
    strict : bool, default=False
        Whether to raise an error for layers that are not cuts, if ``chain`` is not "layer".
        Otherwise their values are NaN, with a warning.
    source : str, optional
        Where X is a dict of several floating tensors, the name of that at which the chain starts.
    batch_size : int, optional
        Samples per forward pass. The answer does not depend on it.
    device : str or torch.device, optional
        Where links are computed; results come back to the CPU.

    Returns
    -------
    ChainProfile
        Singular values of each layer at each sample, and Lyapunov exponents.

    Raises
    ------
    SkgeoError
        If anything is NaN or infinite, a layer is unknown, samples are coupled, more singular
        values are asked for than there are, or no layer's matrices fit in memory.

    Warns
    -----
    GeometryWarning
        If a value is NaN: at layers that are not cuts or do not fit in memory, where only leading
        values are computed, or for Jacobians of rank 0.

    Notes
    -----
    A link takes as many backward passes as its smaller side has coordinates, and one QR
    factorisation where it is multiplied. Links that consist of a linear layer and an elementwise
    activation take no pass. Products are never formed.

    Examples
    --------
    Twenty layers that double one direction and halve another preserve areas:

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.chain import chain_profile
    >>> net = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(20))).double()
    >>> with torch.no_grad():
    ...     for layer in net:
    ...         _ = layer.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
    >>> last = chain_profile(net, torch.ones(1, 2)).layers[-1]
    >>> float(last.sigma_max) == 2.0**20, abs(float(last.log_volume)) < 1e-12
    (True, True)
    """
    with single_blas_thread():
        network = bind(model, X, parameters=None, batch_size=batch_size, device=device)
        return measure_chain(
            network,
            layers,
            chain=chain,
            n_singular_values=n_singular_values,
            tol=tol,
            strict=strict,
            source=source,
        )


def measure_chain(
    network: BoundNetwork,
    names: Sequence[str] | None = None,
    *,
    chain: str = "input",
    n_singular_values: Any = "auto",
    tol: float | Literal["auto"] = "auto",
    strict: bool = False,
    source: str | None = None,
) -> ChainProfile:
    """Singular values at every layer of a network on data, bound with ``parameters=None``.

    The other parameters are those of :func:`chain_profile`.
    """
    relative = _tolerance(tol)
    network, unknown = network.starting_at(source)
    if unknown is not None:
        raise SkgeoError(
            f"Got source={source!r}: the input has no tensor of this name. source= names a "
            "tensor of an input that is a dict; layers=[...] names layers."
        )
    layers = Layers.of(network, names)
    plans = plan_chain(layers, chain, n_singular_values)
    _report_partial([plan.layer for plan in plans if plan.way == "none"], strict)
    plans = _affordable(layers, plans, chain, network.budget)
    needed = _needed(layers, plans, chain)
    batches = network.batches(needed)
    require_memory(
        needed * max(len(batch) for batch in batches),
        f"the Jacobians and factors of {max(len(batch) for batch in batches)} sample(s) "
        f"({_largest(layers, plans)})",
        "ask for the leading values only with n_singular_values=10, name smaller layers with "
        "layers=[...], or pass a smaller batch_size.",
        network.device,
        network.budget,
    )
    jacobians = ChainJacobians(layers, network.dtype, chain, plans, relative)
    logs: dict[str, list[Tensor]] = {plan.layer.name: [] for plan in plans}
    found: dict[str, list[dict[str, Tensor]]] = {plan.layer.name: [] for plan in plans}
    exponents = []
    for batch in network.progress(batches):
        seen = layers.record(network.inputs(batch), root=True, start=batch.start)
        measured, whole = jacobians.measure(seen)
        exponents.append(whole.cpu())
        for name, (values, numbers) in measured.items():
            logs[name].append(values.cpu())
            found[name].append({key: value.cpu() for key, value in numbers.items()})
    stretches = []
    for plan in plans:
        name = plan.layer.name
        numbers = {key: torch.cat([part[key] for part in found[name]]) for key in QUANTITIES}
        values = torch.cat(logs[name])[:, : plan.n_values]
        stretches.append(LayerStretches(plan.layer, plan.side, values, **numbers))
    _report_undefined(plans, stretches)
    if jacobians.worst > _UNSETTLED:
        warn(
            f"Leading singular values have converged only to {jacobians.worst:.0e} of the largest: "
            "they are too close to each other. Use n_singular_values='all' to compute all of them."
        )
    return ChainProfile(chain, tuple(stretches), torch.cat(exponents))


def _tolerance(tol: float | Literal["auto"]) -> float | None:
    check_tolerance(tol)
    return None if tol == "auto" else float(tol)


def _needed(layers: Layers, plans: Sequence[LayerPlan], chain: str) -> int:
    """Memory that one sample takes."""
    together = [plan for plan in plans if plan.way == "formed" and chain == "input"]
    return max(_bytes(layers, plan) for plan in plans) + sum(
        plan.source.dim * plan.target.dim * 8 for plan in together
    )


def _affordable(
    layers: Layers, plans: Sequence[LayerPlan], chain: str, budget: int
) -> tuple[LayerPlan, ...]:
    """The plans without those that do not fit in memory, unless none would be left."""
    kept = list(plans)
    left_out: list[LayerPlan] = []
    while _needed(layers, kept, chain) > budget:
        index = max(range(len(kept)), key=lambda i: _bytes(layers, kept[i]))
        left_out.append(kept[index])
        kept[index] = replace(kept[index], way="none")
    if all(plan.way == "none" for plan in kept):
        return tuple(plans)
    if left_out:
        shown = ", ".join(
            f"{plan.layer.name!r} ({plan.target.dim} x {plan.source.dim}, "
            f"{format_bytes(_bytes(layers, plan))} per sample)"
            for plan in left_out
        )
        warn(
            f"Layers too large for the {format_bytes(budget)} of memory that can be used have "
            f"values NaN: {shown}. Ask for the leading values only with n_singular_values=10, or "
            "raise memory_budget."
        )
    return tuple(kept)


def _bytes(layers: Layers, plan: LayerPlan) -> int:
    """Memory that one sample takes while a layer is measured."""
    if plan.way == "none":
        return 0
    if plan.way == "leading":
        # Krylov vectors of both sides, at most twice the default number.
        steps = min(plan.side, 2 * default_steps(plan.n_values, plan.side))
        return 8 * steps * (plan.source.dim + plan.target.dim)
    if plan.way == "formed":
        # In the network's dtype, in float64, and its smaller Gram matrix.
        return 8 * (2 * plan.source.dim * plan.target.dim + 2 * plan.side**2)
    path = [(plan.source, plan.target)]
    if plan.way == "links":
        path = path_between(layers, plan.source, plan.target)
    sizes = [source.dim * target.dim for source, target in path]
    # The link, its product with a basis, and the basis; the factors of all links.
    return 8 * (4 * max(sizes) + 3 * sum(sizes))


def _largest(layers: Layers, plans: Sequence[LayerPlan]) -> str:
    plan = max(plans, key=lambda plan: _bytes(layers, plan))
    return (
        f"most at layer {plan.layer.name!r}, {plan.target.dim} x {plan.source.dim}, "
        f"{plan.n_values} singular values"
    )


def _report_partial(layers: list[Layer], strict: bool) -> None:
    if not layers:
        return
    message = (
        f"Not all of the computation passes through {_listed(layers)}, so a product of "
        "Jacobians over it is not that of the network"
    )
    if strict:
        raise SkgeoError(
            f"{message}. Name layers that are cuts, use chain='layer', or pass strict=False to "
            "get NaN there."
        )
    warn(
        f"{message}: its values are NaN. Use chain='layer' for the Jacobian from the last cut "
        "before it."
    )


def _report_undefined(plans: Sequence[LayerPlan], stretches: Sequence[LayerStretches]) -> None:
    partial = [
        (plan.layer, found)
        for plan, found in zip(plans, stretches, strict=True)
        if plan.way in ("formed", "leading")
    ]
    if partial:
        missing = [
            name
            for name in QUANTITIES
            if any(bool(getattr(found, name).isnan().any()) for _, found in partial)
        ]
        if missing:
            where = _listed([layer for layer, _ in partial])
            warn(
                f"Only leading singular values were computed at {where}, so "
                f"{', '.join(missing)} are undefined (NaN) there. Use n_singular_values='all' to "
                "compute all of them."
            )
    zero = [found.layer for found in stretches if bool((found.rank == 0).any())]
    if zero:
        warn(
            f"The Jacobian at {_listed(zero)} is zero for some samples, or within rounding of "
            "zero: its rank is 0 there, and condition, effective rank, stable rank and isometry "
            "deviation are undefined (NaN). In float64 smaller derivatives are told from rounding."
        )


def _listed(layers: Sequence[Layer]) -> str:
    shown = ", ".join(repr(layer.name) for layer in layers[:6])
    return f"layer{'s' * (len(layers) > 1)} {shown}" + (", ..." if len(layers) > 6 else "")
