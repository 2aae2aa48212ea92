"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Mount point of the control groups, and the file that names the groups of this process.
_MOUNTED, _MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores that the affinity of this process allows, and the quotas of its control groups (containers, batch systems).

    All cores of the machine where the system has neither (macOS). A quota of one and a half cores counts as two threads: these wait for
    each other a quarter of their time, while one thread would leave a third of the quota unused.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """Quotas, in cores, of the control groups around this process, of version 1 and 2; groups without a limit yield none."""
    with suppress(OSError):
        for line in _MINE.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            # Version 2 has one tree, version 1 one for each set of controllers; a container sees its own group as the root.
            for root in (
                (_MOUNTED, _MOUNTED / "unified")
                if not controllers
                else (_MOUNTED / controllers, _MOUNTED / "cpu")
            ):
                groups = [root, *(root / part for part in _ancestors(path))]
                for group in groups:
                    yield from _quota(group)


def _ancestors(path: str) -> list[Path]:
    inside = Path(path.lstrip("/"))
    return [inside, *inside.parents] if inside.parts and ".." not in inside.parts else []


def _quota(group: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):
        most, period = (group / "cpu.max").read_text().split()
        if most != "max":
            yield int(most) / int(period)
    with suppress(OSError, ValueError):
        most, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(most) > 0:
            yield int(most) / int(period)
