"""The identity of a process, written to files so that other processes can tell whether it still runs."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Process:
    """A process of some machine.

    Attributes:
        number: its id.
        host: name of the machine.
        boot: identity of this start of the machine and of this container; empty where the system gives none.
        started: start time in the units of the system; it tells the process from a later one with the same id.
    """

    number: int
    host: str
    boot: str
    started: str

    @classmethod
    def current(cls) -> Self:
        """This process."""
        return cls(os.getpid(), platform.node(), _boot(), _started(os.getpid()))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The process that :meth:`__str__` wrote; None: the text is something else."""
        try:
            found = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        return found if type(found.number) is int and found.number > 0 else None

    @property
    def gone(self) -> bool:
        """Whether this process has certainly ended; false for processes of other machines, of which nothing is known."""
        if (self.host, self.boot) != (platform.node(), _boot()):
            return False
        try:
            os.kill(self.number, 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's
            pass
        return _started(self.number) != self.started

    @property
    def name(self) -> str:
        """For messages."""
        return f"process {self.number} on {self.host}"

    def __str__(self) -> str:
        return json.dumps(asdict(self))


def _started(number: int) -> str:
    """Field 22 of /proc/N/stat, counted after the bracketed name, which may hold any character; empty where there is no /proc."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    return ""


def _boot() -> str:
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""
