"""Whether two networks compute the same function: verdict and evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from skgeo._results import Result

Verdict = Literal["equivalent", "different", "undecided"]


@dataclass(frozen=True, eq=False, repr=False)
class EquivalenceReport(Result):
    """Verdict on two networks a and b, with a certificate or a witness.

    Attributes
    ----------
    verdict : {"equivalent", "different", "undecided"}
        "equivalent" comes with a certificate, "different" with a witness; "undecided" means that
        neither was found.
    reason : str
        What the verdict rests on, in one sentence.
    residual : float
        Largest relative difference between b and the transformed a, or else between the two
        canonical forms. NaN where nothing was compared.
    tol : float
        Tolerance that `residual` was compared with.
    matched : {"units", "boundaries", "layers", None}
        Level of the certificate. "units": the permutation, scales and flips below map a to b.
        "boundaries": the networks agree boundary by boundary, and no such map of their units was
        found, for instance because they have different widths. "layers": deep networks agree unit
        by unit in each layer.
    permutation : tuple of Tensor, one per hidden layer, or None
        int64; unit j of b is unit ``permutation[l][j]`` of a.
    scales : tuple of Tensor, one per hidden layer, or None
        Positive. Incoming weights and bias of unit j of b are ``scales[l][j]`` times those of its
        partner; outgoing weights are divided by it. For chains without activations an invertible
        matrix per hidden layer, or one number for a single unit.
    flips : tuple of Tensor, one per hidden layer, or None
        1, or -1 where incoming weights and bias also change sign. Under tanh the outgoing weights
        change sign too; under ReLU they do not, and `bias_shift` compensates.
    bias_shift : Tensor of shape (k,), or None
        Difference of the output biases, that of b minus that of a.
    witness : Tensor of shape (n,), or None
        Input at which the outputs differ most beyond rounding. Also given with an undecided
        verdict on one hidden layer of ReLU.
    outputs : tuple of two Tensors, or None
        Outputs of a and of b at the witness.
    """

    verdict: Verdict
    reason: str
    residual: float
    tol: float
    matched: Literal["units", "boundaries", "layers"] | None = None
    permutation: tuple[Tensor, ...] | None = None
    scales: tuple[Tensor, ...] | None = None
    flips: tuple[Tensor, ...] | None = None
    bias_shift: Tensor | None = None
    witness: Tensor | None = None
    outputs: tuple[Tensor, Tensor] | None = None

    @property
    def difference(self) -> float:
        """Largest difference of the outputs at the witness; inf if they differ in shape.

        NaN without a witness.
        """
        if self.outputs is None:
            return float("nan")
        if self.outputs[0].shape != self.outputs[1].shape:
            return float("inf")
        return float((self.outputs[0] - self.outputs[1]).abs().max())

    def __bool__(self) -> bool:
        raise TypeError(
            "An EquivalenceReport has three verdicts and is neither true nor false. Use "
            'report.verdict == "equivalent".'
        )

    def _line(self) -> str:
        return f"{self.verdict} (residual {self.residual:.1e}, tol {self.tol:.1e}): {self.reason}"

    def __str__(self) -> str:
        return self._line()
