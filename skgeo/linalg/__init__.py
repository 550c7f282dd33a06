"""Linear algebra on tensors: ranks, spectra, subspaces, threads and memory."""

from skgeo.linalg._block_lanczos import block_lanczos
from skgeo.linalg._estimate import Estimate
from skgeo.linalg._golub_kahan import golub_kahan
from skgeo.linalg._memory import (
    available_memory,
    format_bytes,
    memory_budget,
    require_memory,
)
from skgeo.linalg._rank import NumericalRank, decide_rank
from skgeo.linalg._spectra import (
    RowFactor,
    effective_rank,
    eigenvalues_descending,
    eigenvectors_descending,
    participation_ratio,
)
from skgeo.linalg._subspaces import complement, orient_rows, orthonormalise_rows
from skgeo.linalg._threads import single_blas_thread

__all__ = [
    "Estimate",
    "NumericalRank",
    "RowFactor",
    "available_memory",
    "block_lanczos",
    "complement",
    "decide_rank",
    "effective_rank",
    "eigenvalues_descending",
    "eigenvectors_descending",
    "format_bytes",
    "golub_kahan",
    "memory_budget",
    "orient_rows",
    "orthonormalise_rows",
    "participation_ratio",
    "require_memory",
    "single_blas_thread",
]
