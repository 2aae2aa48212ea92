"""Which micrographs have arrived: files of a folder, or rows of a STAR list, that have stopped growing."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mtdcore.data.micrographs.listing import (
    Micrograph,
    difference,
    find_micrographs,
    located,
    split_name,
)
from mtdcore.data.preparation.pixels import MRC, TIFF
from mtdcore.errors import DependencyError, InputError, MtdError, StorageError

from ..terminal.console import log


class Stamp(NamedTuple):
    """Size in bytes and time of modification in nanoseconds of a file, which differ after a change."""

    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> Stamp | None:
        """The stamp of a file; None: there is no such file."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_size, found.st_mtime_ns)


class Key(NamedTuple):
    """One image of one file, whatever links lead to it."""

    path: Path
    section: int

    @classmethod
    def of(cls, micrograph: Micrograph) -> Key:
        """The key of a micrograph."""
        return cls(micrograph.path.resolve(), micrograph.section)


@dataclass
class Arrivals:
    """The micrographs of a source, which is read repeatedly.

    Attributes:
        source: a folder, of which its own MRC and TIFF files count, or a STAR list that grows.
        settle: seconds without change after which a file counts as complete.
        pixel_size: angstrom, where a list names none.
        order: keys of the only micrographs that count, in this order; None: all, in the order of arrival.
        waiting: files that were still growing when they were last looked at.
    """

    source: Path
    settle: float
    pixel_size: float | None = None
    order: Sequence[Key] | None = None
    waiting: set[Path] = field(default_factory=set)
    _said: dict[str, Stamp | None] = field(default_factory=dict)

    @property
    def from_list(self) -> bool:
        """Whether the source is a STAR list."""
        return self.source.suffix.lower() == ".star"

    def ready(
        self, counted: Mapping[Key, Stamp], names: Collection[str], first: Micrograph | None
    ) -> Iterator[tuple[Micrograph, Stamp]]:
        """The micrographs that can be counted now.

        Args:
            counted: stamps of the counted micrographs.
            names: names of the counted micrographs.
            first: the micrograph whose format all others need; None: the first of these.
        """
        self.waiting.clear()
        found = self._listed(names) if self.from_list else self._files(counted)
        if self.order is not None:
            there = {Key.of(one): (one, stamp) for one, stamp in found}
            found = self._in_order(there, counted)
        seen = dict(counted)  # of several links to an image only the first is counted
        for one, stamp in found:
            key = Key.of(one)
            before = seen.get(key)
            if before is not None:
                if before != stamp:
                    self.leave_out(
                        one, stamp, f"{one.name} has changed since it was counted, which it stays as it was"
                    )
                continue
            problem = None if first is None else difference(first, one)
            if problem is not None:
                self.leave_out(one, stamp, str(problem))
                continue
            first, seen[key] = first or one, stamp
            yield one, stamp

    def left_out(self, micrograph: Micrograph, stamp: Stamp) -> bool:
        """Whether the micrograph was left out and its file has not changed since."""
        return self._said.get(micrograph.name) == stamp

    def leave_out(self, micrograph: Micrograph | str, stamp: Stamp | None, why: str) -> None:
        """Log once why a micrograph or file is left out; it is tried again when it changes."""
        name = micrograph if isinstance(micrograph, str) else micrograph.name
        if name not in self._said or self._said[name] != stamp:
            self._said[name] = stamp
            log(f"left out: {why}")

    def missing(self, counted: Collection[Key]) -> int:
        """Number of micrographs in ``order`` that are not counted yet."""
        return sum(key not in counted for key in self.order or ())

    def _in_order(
        self, there: Mapping[Key, tuple[Micrograph, Stamp]], counted: Collection[Key]
    ) -> Iterator[tuple[Micrograph, Stamp]]:
        """The micrographs in ``order`` that are next, up to the first that is missing."""
        for key in self.order or ():
            if key not in counted:
                if key not in there:
                    return
                yield there[key]

    def _settled(self, path: Path) -> Stamp | None:
        """The stamp of a file that has not changed for ``settle`` seconds; None: it has changed, or is gone.

        The change time of the inode counts too, since copied files keep the modification time of their originals.
        """
        try:
            found = path.stat()
        except OSError:
            return None
        now = time.time()
        last = max(found.st_ctime, found.st_mtime if found.st_mtime <= now else 0.0)
        if now - last < self.settle:
            self.waiting.add(path)
            return None
        return Stamp(found.st_size, found.st_mtime_ns)

    def _files(self, counted: Collection[Key]) -> Iterator[tuple[Micrograph, Stamp]]:
        """Images of the files of a folder, in the order of their modification times."""
        try:
            paths = [
                path
                for path in self.source.iterdir()
                if path.suffix.lower() in (*MRC, *TIFF) and not path.name.startswith(".") and path.is_file()
            ]
        except OSError as problem:
            raise StorageError(
                f"{self.source} should be a folder of micrographs, or a STAR list: {problem}."
            ) from problem
        settled = [(stamp, path) for path in paths if (stamp := self._settled(path)) is not None]
        for stamp, path in sorted(settled, key=lambda one: (one[0].modified, one[1].name)):
            if self._said.get(str(path)) == stamp:
                continue
            try:
                for one in find_micrographs(path, self.pixel_size):
                    yield one, stamp
            except DependencyError:  # a missing package is not a damaged file
                raise
            except MtdError as problem:
                self.leave_out(str(path), stamp, f"{problem} It is tried again when it changes.")

    def _listed(self, names: Collection[str]) -> Iterator[tuple[Micrograph, Stamp]]:
        """The rows of a list that are new and whose files are complete."""
        if not self.source.exists():
            raise StorageError(f"{self.source} should be a STAR list of micrographs; there is none.")
        if self._settled(self.source) is None:
            return
        try:
            found = find_micrographs(
                self.source, self.pixel_size, lambda problem: self._row_left_out(problem), names
            )
        except DependencyError:
            raise
        except InputError as problem:
            stamp = Stamp.of(self.source)
            self.leave_out(str(self.source), stamp, f"{problem} It is read again when it changes.")
            return
        for one in found:
            stamp = self._settled(one.path)
            if stamp is not None:
                yield one, stamp

    def _row_left_out(self, problem: MtdError) -> None:
        self.leave_out(str(problem), None, f"{problem} It is tried again.")


def read_order(path: Path, source: Path) -> list[Key]:
    """The keys of a list of names, one a line, as ``order.txt`` of a watched run holds them.

    Args:
        path: of the list.
        source: a STAR list whose names may be relative to a folder above it, or a folder.

    Raises:
        InputError: the list cannot be read, is empty, or names a micrograph twice.
        StorageError: a file is missing.
    """
    try:
        names = [line for line in path.read_text("utf-8", "surrogateescape").splitlines() if line.strip()]
    except OSError as problem:
        raise InputError(
            f"{path} should be a list of micrographs, one name a line; it could not be read ({problem})."
        ) from problem
    keys = []
    for name in names:
        section, file = split_name(name)
        keys.append(Key(located(source, file).resolve(), (section or 1) - 1))
    if not keys or len(set(keys)) < len(keys):
        raise InputError(f"{path} should name one or more micrographs, each once, one a line.")
    return keys
