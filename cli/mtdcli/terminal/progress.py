"""Progress of long work on stderr: a live bar on a terminal, a line every few seconds otherwise."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

#: Seconds between two updates of the live bar; shortest and longest time in seconds between two lines of a log.
_BAR_PERIOD, _LINE_PERIOD, _LONGEST_PERIOD = 0.1, 5.0, 300.0

#: Share of the elapsed time that passes before the next line, so that a day of work gives a few hundred lines.
_SHARE = 0.1


class Progress:
    """Counts ``done`` of ``total`` with the rate and the time that remains.

    Use as a context manager; the bar ends its line on the way out, also when an exception passes. The rate is measured from
    the first update on, without initial work (starts, compilation of kernels) and the steps of an earlier run.

    Args:
        label: what is being done.
        total: number of steps.
        unit: name of one step.
        stream: default stderr. A live bar is drawn only when it is a terminal.
        most: whether the work may end before ``total``, so that the remaining time is an upper limit.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str = "steps",
        stream: TextIO | None = None,
        most: bool = False,
    ) -> None:
        self._label, self._total, self._unit = label, max(total, 1), unit
        self._left = "at most {} left" if most else "{} left"
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._done = 0
        self._last = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._width = 0

    def update(self, done: int, fields: Mapping[str, object] | None = None) -> None:
        """Show that ``done`` steps are complete, with ``fields`` after the count."""
        self._done = done
        now = time.monotonic()
        self._first = self._first or (now, done)
        longer = min(_LONGEST_PERIOD, _SHARE * (now - self._first[0]))
        period = _BAR_PERIOD if self._live else max(_LINE_PERIOD, longer)
        if now - self._last >= period or done >= self._total:
            self._last = now
            began, before = self._first
            self._write(self._text(done - before, now - began, fields or {}))

    def _text(self, made: int, elapsed: float, fields: Mapping[str, object]) -> str:
        parts = [f"{self._done}/{self._total} {self._unit}"]
        if made and elapsed > 0:
            rate = made / elapsed
            parts.append(f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each")
            if self._done < self._total:
                parts.append(self._left.format(duration((self._total - self._done) / rate)))
        parts += [f"{name} {value}" for name, value in fields.items()]
        return ", ".join(parts)

    def _write(self, text: str) -> None:
        if not self._live:
            print(f"mtd: {self._label}: {text}", file=self._stream, flush=True)
            return
        columns = shutil.get_terminal_size().columns
        filled = round(20 * min(1.0, self._done / self._total))
        line = f"{self._label} [{'#' * filled}{'.' * (20 - filled)}] {text}"[: columns - 1]
        self._stream.write(f"\r{line:<{self._width}}")
        self._stream.flush()
        self._width = len(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live and self._width:
            self._stream.write("\n")
            self._stream.flush()


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
