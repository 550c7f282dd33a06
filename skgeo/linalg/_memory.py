"""Available memory, and checks before large allocations."""

from __future__ import annotations

import os
import re
from numbers import Integral
from pathlib import Path

import torch

from skgeo.exceptions import SkgeoError

# The rest is for other objects of the process and the workspace of LAPACK.
USABLE_SHARE = 0.7
_FALLBACK = 4 * 2**30
_CGROUP = Path("/sys/fs/cgroup")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class NotEnoughMemory(SkgeoError):
    """Error for what does not fit into memory, so that callers can go on without it."""


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or the word "max"
        return None


def available_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that can be allocated on a device now.

    On the CPU: the free pages the operating system reports and the room left in the control
    group, whichever is smaller; half of the physical memory where free pages are not reported.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # Blocks that torch's own allocator caches are free for torch.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    room = _free_pages()
    limit, used = _read_number(_CGROUP / "memory.max"), _read_number(_CGROUP / "memory.current")
    if limit is not None and used is not None:
        room = min(room, max(limit - used, 0))
    return room


def _free_pages() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        table = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return _FALLBACK


def memory_budget(budget: int | str | None, device: torch.device | str = "cpu") -> int:
    """Bytes that a measurement may take.

    budget: a number of bytes, a text such as "2 GiB" or "500 MB", or None for 0.7 of what is
        available now.

    >>> memory_budget("2 GiB") == memory_budget(2 * 2**30) == 2147483648
    True
    """
    if budget is None:
        return int(USABLE_SHARE * available_memory(device))
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", budget, re.IGNORECASE)
        if match is not None:
            budget = int(float(match[1]) * _UNITS[match[2].upper()])
    if isinstance(budget, bool) or not isinstance(budget, Integral) or budget <= 0:
        raise SkgeoError(
            f"Got memory_budget={budget!r}; expected a positive number of bytes, a text such as "
            "'2 GiB', or None."
        )
    return int(budget)


def format_bytes(count: float) -> str:
    """A number of bytes as text.

    >>> format_bytes(3 * 2**30)
    '3.0 GiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError  # the loop always returns


def require_memory(
    count: float,
    what: str,
    instead: str,
    device: torch.device | str = "cpu",
    budget: int | str | None = None,
) -> None:
    """Raise an error before an allocation that does not fit into memory.

    count: bytes.
    what: the object to allocate, with its shape.
    instead: what the caller can do about it.
    Raises NotEnoughMemory if `count` exceeds the budget.
    """
    usable = memory_budget(budget, device)
    if count > usable:
        raise NotEnoughMemory(
            f"{what[:1].upper()}{what[1:]} would take {format_bytes(count)}, and "
            f"{format_bytes(usable)} can be used on {torch.device(device)}. Instead: {instead}"
        )
