"""What the machine has to give: cores, memory, and whose processor it is."""

from __future__ import annotations

import os
from pathlib import Path


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_bytes() -> int | None:
    """Return the memory that programs may still take, None where the system does not say."""
    try:
        rows = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(row.split()[1]) * 1024 for row in rows if row.startswith("MemAvailable:")), None)


def intel() -> bool:
    """Return whether the processor says that it is Intel's; False where the system does not say."""
    try:
        rows = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    return any(row.startswith("vendor_id") and row.endswith("GenuineIntel") for row in rows)
