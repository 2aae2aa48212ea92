"""Which process made something, written down so that others can tell whether it still runs."""

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
        boot: what tells this start of the machine, and this container, from others; empty where the system does not say.
        started: when it started, in the units of the system; an id may have been given to another process since.
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
        """What :meth:`__str__` wrote; None: something else is written there."""
        try:
            found = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        return found if type(found.number) is int and found.number > 0 else None

    @property
    def gone(self) -> bool:
        """Whether this process certainly runs no more; what another machine does cannot be known."""
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
    """Field 22 of /proc/N/stat; its name, in brackets, may hold anything. Empty where there is no /proc."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    return ""


def _boot() -> str:
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""
