"""Memory and passes of a Fisher measurement, decided before it starts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from skgeo._arguments import check_option
from skgeo._results import Result
from skgeo.fisher._passes import Passes
from skgeo.fisher._rows import FisherRows
from skgeo.likelihood import Gaussian
from skgeo.linalg._block_lanczos import krylov_capacity
from skgeo.linalg._memory import NotEnoughMemory, format_bytes

# Options that may make a measurement smaller.
OFFERS = ("parameters", "solver", "lanczos", "n_components")
SOLVERS = ("auto", "gram", "parameter", "lanczos")


@dataclass(frozen=True, repr=False)
class FisherPlan(Result):
    """Side, memory and passes of one Fisher measurement.

    Attributes
    ----------
    side : {"gram", "parameter", "lanczos", "stochastic"}
        The product that is formed; "lanczos" and "stochastic" form none.
    n_rows, n_parameters : int
        Sizes of the two sides.
    n_covered : int
        Parameters in layers of known structure. Dense rows are formed for the others.
    batch_size : int
        Samples per forward pass.
    n_blocks : int
        Number of blocks of samples. The gradients of one or two blocks are held at a time.
    n_passes : float
        How often the gradients of all samples are computed.
    matrix_bytes, gradient_bytes : int
        Size of the matrices, and of the gradients held at a time.
    budget : int
        Memory budget in bytes.
    """

    side: str
    n_rows: int
    n_parameters: int
    n_covered: int
    batch_size: int
    n_blocks: int
    n_passes: float
    matrix_bytes: int
    gradient_bytes: int
    budget: int

    @property
    def total_bytes(self) -> int:
        """Matrices and gradients together."""
        return self.matrix_bytes + self.gradient_bytes

    def __str__(self) -> str:
        return self._line()

    def _line(self) -> str:
        return (
            f"{self.side} side of {self.n_rows} rows x {self.n_parameters} parameters "
            f"({self.n_covered} with layer structure): {format_bytes(self.matrix_bytes)} of "
            f"matrices, {format_bytes(self.gradient_bytes)} of gradients in {self.n_blocks} "
            f"block(s), {self.n_passes:g} pass(es), within {format_bytes(self.budget)}"
        )


def choose_side(n_rows: int, n_parameters: int, solver: str) -> str:
    """The side to form: the requested one, or the smaller for "auto"."""
    check_option("solver", solver, SOLVERS)
    if solver != "auto":
        return solver
    return "gram" if n_rows <= n_parameters else "parameter"


def plan_fisher(
    fisher: FisherRows,
    *,
    solver: str = "auto",
    n_components: int | None = 0,
    tangent: bool = True,
    dense: bool = False,
    offers: Collection[str] = OFFERS,
) -> FisherPlan:
    """Decide side, blocks and passes.

    n_components: number of eigenvectors; None for all.
    tangent: whether the unweighted spectrum is computed too.
    dense: whether the Gram side is formed from dense rows.
    offers: options that the caller gives its users, for the message.
    Raises SkgeoError if the measurement does not fit in memory, with its size and alternatives.
    """
    n, t, p = fisher.n_rows, fisher.n_tangent_rows, fisher.n_parameters
    side = choose_side(n, p, solver)
    if side == "lanczos":
        return _plan_lanczos(fisher, p if n_components is None else min(n_components, p), offers)
    two = tangent and not isinstance(fisher.network.likelihood, Gaussian)
    count = min(n, p) if n_components is None else min(n_components, n, p)
    batch = fisher.batch_size * fisher.gradient_bytes
    if side == "gram":
        matrix = 8 * (t * t + 2 * n * n + t * n if two else 3 * n * n)
        what = f"Gram matrices of {t if two else n} x {t if two else n} numbers"
        if dense:
            matrix += 2 * 8 * (t if two else n) * p
            what += " with their dense rows"
    else:
        matrix = 8 * p * p * (4 if two else 3)
        what = f"Fisher matrices of {p} x {p} numbers"
    room = fisher.network.budget - matrix
    everything = fisher.network.n_samples * fisher.gradient_bytes
    if side == "parameter" or everything <= room:
        held = min(batch, everything) if side == "parameter" else everything
        n_blocks = -(-fisher.network.n_samples // fisher.batch_size) if side == "parameter" else 1
        n_passes = 1.0
    else:
        n_batches = -(-fisher.network.n_samples // fisher.batch_size)
        size = max(1, int(room / 2 // batch))
        n_blocks = -(-n_batches // size)
        n_passes = (n_blocks + 1) / 2
        held = 2 * size * batch
    plan = FisherPlan(
        side,
        n,
        p,
        fisher.n_covered,
        fisher.batch_size,
        n_blocks,
        n_passes,
        matrix,
        held,
        fisher.network.budget,
    )
    if plan.total_bytes > fisher.network.budget:
        instead = ["measure fewer samples"]
        if "parameters" in offers:
            instead.append("name fewer parameters with parameters=[...]")
        if "solver" in offers and side == "gram" and p < n:
            instead.append(f"choose solver='parameter' (P = {p})")
        if "solver" in offers and side == "parameter" and n < p:
            instead.append(f"choose solver='gram' ({n} rows)")
        if "lanczos" in offers:
            instead.append("choose solver='lanczos' for the leading eigenpairs")
        raise NotEnoughMemory(
            f"{what} and {format_bytes(held)} of gradients would take "
            f"{format_bytes(plan.total_bytes)}, and {format_bytes(plan.budget)} can be used on "
            f"{fisher.network.device}. Instead: {', or '.join(instead)}."
        )
    if count:
        plan = _with_vectors(plan, count)
    return plan


def _plan_lanczos(fisher: FisherRows, count: int, offers: Collection[str]) -> FisherPlan:
    """Factors of all gradients, held at once, if they fit; else the graph of a micro-batch."""
    p, network = fisher.n_parameters, fisher.network
    basis = 8 * p * (krylov_capacity(count, 4) + 4 + count)
    passes = Passes(fisher)
    each = fisher.gradient_bytes if fisher.n_covered == p else passes.sample_bytes
    n_blocks, held = 1, network.n_samples * each
    if basis + held > network.budget:
        size = network.affordable(passes.sample_bytes)
        n_blocks = max(2, -(-network.n_samples // size))
        held = size * passes.sample_bytes
    if basis + held > network.budget:
        instead = ["choose fewer n_components"] if "n_components" in offers else []
        instead.append("name fewer parameters with parameters=[...]")
        raise NotEnoughMemory(
            f"A Krylov basis of {krylov_capacity(count, 4)} x {p} numbers and "
            f"{format_bytes(held)} of gradients would take {format_bytes(basis + held)}, and "
            f"{format_bytes(network.budget)} can be used on {network.device}. Instead: "
            f"{', or '.join(instead)}."
        )
    return FisherPlan(
        "lanczos",
        fisher.n_rows,
        p,
        fisher.n_covered,
        network.affordable(passes.sample_bytes),
        n_blocks,
        1.0,
        basis,
        held,
        network.budget,
    )


def plan_stochastic(fisher: FisherRows, n_probes: int) -> FisherPlan:
    """Probes in place of a matrix. Raises SkgeoError if not even two vectors fit."""
    network, passes = fisher.network, Passes(fisher)
    passes.require()
    size = network.affordable(passes.sample_bytes)
    vectors = (n_probes + 2) * fisher.n_parameters * network.replica.dtype.itemsize
    return FisherPlan(
        "stochastic",
        fisher.n_rows,
        fisher.n_parameters,
        fisher.n_covered,
        size,
        -(-network.n_samples // size),
        float(n_probes),
        vectors,
        size * passes.sample_bytes,
        network.budget,
    )


def _with_vectors(plan: FisherPlan, count: int) -> FisherPlan:
    """The plan with the memory of the eigenvectors, and of the matrix they are computed from."""
    smaller = min(plan.n_rows, plan.n_parameters)
    needed = 8 * (2 * count * plan.n_parameters + 3 * smaller**2)
    if needed > plan.budget:
        raise NotEnoughMemory(
            f"{count} directions of {plan.n_parameters} parameters each, with the matrix that they "
            f"are computed from, would take {format_bytes(needed)}, and "
            f"{format_bytes(plan.budget)} can be used. Instead: keep fewer with n_components=k, or "
            "none with n_components=0."
        )
    return replace(plan, matrix_bytes=max(plan.matrix_bytes, needed))
