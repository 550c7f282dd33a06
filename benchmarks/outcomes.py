"""What can come of one contestant at one work, and errors that say so."""

from __future__ import annotations

MEASURED = "measured"
NOT_OFFERED = "not offered"
NOT_AVAILABLE = "not available yet"
FAILED = "failed"


class NotAvailableYet(Exception):
    """The contestant will offer this, and does not in the version at hand."""


class NotOffered(Exception):
    """The contestant does not cover this work."""


def in_words(error: BaseException, memory_gb: float) -> str:
    """One line for the table: what stopped a contestant, without addresses or paths."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return f"needs more than the {memory_gb:g} GB allowed"
    text = text or "no message"
    return f"{type(error).__name__}: {text[:160]}{'...' if len(text) > 160 else ''}"
