"""The answer to the question whether two networks compute one function, with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Verdict = Literal["equivalent", "different", "undecided"]


@dataclass(frozen=True, eq=False)
class EquivalenceReport:
    """Verdict on two networks a and b, with a certificate or a witness.

    Attributes
    ----------
    verdict : {"equivalent", "different", "undecided"}
        "equivalent" comes with a certificate, "different" with a witness or with parts of the
        canonical invariant that differ; "undecided" where neither could be had.
    reason : str
        One sentence on what decided.
    residual : float
        Largest difference between b and what the certificate makes of a, or else between the two
        canonical invariants; relative, in the units of `tol`. NaN where nothing was compared.
    tol : float
        What `residual` was held against.
    matched : {"units", "boundaries", "layers", None}
        The level of the certificate. "units": the permutation, scales and flips below turn a into
        b. "boundaries": the networks agree boundary by boundary and no such map of their units
        was found, as with unequal numbers of units. "layers": deep networks, unit by unit in each
        layer.
    permutation : tuple of Tensor, one per hidden layer, or None
        int64; unit j of b is unit ``permutation[l][j]`` of a.
    scales : tuple of Tensor, one per hidden layer, or None
        Positive; incoming weights and bias of unit j of b are ``scales[l][j]`` times those of its
        partner, outgoing ones are divided by it.
    flips : tuple of Tensor, one per hidden layer, or None
        +1, or -1 where incoming weights and bias change sign as well. Under tanh the outgoing
        weights change with them; under ReLU they stay, and `bias_shift` makes up for it.
    bias_shift : Tensor of shape (k,), or None
        What is added to a's output bias.
    witness : Tensor of shape (n,), or None
        An input at which the outputs differ.
    outputs : tuple of two Tensors, or None
        Outputs of a and of b at the witness, computed.
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
        """Largest difference of the two outputs at the witness; NaN without one.

        inf where they have different shapes.
        """
        if self.outputs is None:
            return float("nan")
        if self.outputs[0].shape != self.outputs[1].shape:
            return float("inf")
        return float((self.outputs[0] - self.outputs[1]).abs().max())

    def __bool__(self) -> bool:
        raise TypeError(
            "An EquivalenceReport has three answers and is neither true nor false: ask for "
            'report.verdict == "equivalent".'
        )

    def __str__(self) -> str:
        return f"{self.verdict} (residual {self.residual:.1e}, tol {self.tol:.1e}): {self.reason}"
