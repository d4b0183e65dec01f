"""How much memory there is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

MEMORY, OWN_GROUP, GROUPS = map(Path, ("/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup"))
"""Where Linux tells the memory of the machine, and the limit of a container or a job."""


def available_memory() -> int:
    """Return the bytes that this process can still take without swapping.

    All of the machine where the system does not tell what is free.
    """
    found = []
    with suppress(OSError, KeyError):
        found.append(1024 * _numbers(MEMORY)["MemAvailable"])
    with suppress(OSError, KeyError, ValueError, StopIteration):
        lines = OWN_GROUP.read_text().splitlines()
        own = next(line for line in lines if line.startswith("0::")).removeprefix("0::")
        group = GROUPS / own.strip("/")
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        # files that were read are forgotten first
        found.append(limit - used + _numbers(group / "memory.stat")["inactive_file"])
    return min(found, default=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _numbers(path: Path) -> dict[str, int]:
    lines = (line.replace(":", "").split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines}
