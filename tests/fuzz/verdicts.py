"""What became of one quantity of one network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sklearn.exceptions import NotFittedError

from skgeo.exceptions import GeometryWarning, RankAmbiguityWarning, SkgeoError

VERDICTS = ("right", "warned", "refused", "unclear", "wrong", "bare")


@dataclass(frozen=True)
class Verdict:
    """kind: one of VERDICTS. detail: what was said, or how the answer differs."""

    quantity: str
    kind: str
    detail: str = ""


class Trial:
    """Verdicts on one network, one call of the package at a time."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []

    def run(self, quantity: str, call: Callable[[], Any]) -> tuple[Any, list[Warning]]:
        """The result of a call and its warnings; None where it was refused, which is recorded."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = call()
            except (SkgeoError, NotFittedError) as error:
                self.add(quantity, "refused", str(error))
                return None, []
            except Exception as error:
                self.add(quantity, "bare", f"{type(error).__name__}: {error}")
                return None, []
        notes = [w.message for w in caught if isinstance(w.message, GeometryWarning)]
        return result, notes

    def add(self, quantity: str, kind: str, detail: str = "") -> None:
        self.verdicts.append(Verdict(quantity, kind, " ".join(detail.split())[:300]))

    def judge(
        self, quantity: str, difference: str, notes: list[Warning], *, clear: bool = True
    ) -> None:
        """Record an answer. difference: from the oracle's, empty if there is none.

        clear: whether the oracle's answer stands against its own rounding.
        """
        if not difference:
            self.add(quantity, "right")
        elif not clear:
            self.add(quantity, "unclear", difference)
        elif said := [str(note) for note in notes if _about_the_number(note)]:
            self.add(quantity, "warned", f"{difference}; {said[0]}")
        else:
            self.add(quantity, "wrong", difference)


def _about_the_number(note: Warning) -> bool:
    """Whether a warning is about the answer, and not about how the input was read."""
    text = str(note)
    return isinstance(note, RankAmbiguityWarning) or not (
        text.startswith("likelihood=") or "look like probabilities" in text
    )
