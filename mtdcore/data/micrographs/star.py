"""STAR tables as RELION writes and reads them: blocks of named columns.

RELION reads line by line, other programs word by word as the format says. This reader takes files of both, and loses nothing where
the two differ: a row that looks like the next block or label is a row, as for RELION, and an ambiguous line is an error. Names
may hold blanks, in quotes. Bytes of names that are not UTF-8 are kept as they are (as in ``os.fsdecode``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeAlias

from ..._base.files import write_whole
from ..._base.guarded import read_regular
from ...errors import InputError, ParameterError

#: The columns of one block by label.
Table: TypeAlias = dict[str, list[str]]

#: Largest size of a list in bytes: ten million rows.
_MOST = 1 << 30

#: A word in double or single quotes (a quote closes only before white space), a comment, or a plain word.
_WORD = re.compile(r""""(?P<double>.*?)"(?!\S)|'(?P<single>.*?)'(?!\S)|(?P<comment>\#.*)|(?P<plain>\S+)""")

#: Values that need quotes: empty, unknown, several words, or the start of another element of the format.
_SPECIAL = re.compile(
    r"""[?.]?$|.*[\s#\0]|_|(data|loop|save|stop|global)_|["';$\[\]]""", re.IGNORECASE | re.DOTALL
)

#: Most characters of a line in a message.
_SHOWN = 60


def write_star(path: str | Path, block: str, columns: Mapping[str, Sequence[object]]) -> None:
    """Write one table.

    Args:
        path: the file, replaced whole.
        block: name of the data block, without ``data_``; may be empty.
        columns: values by label without the leading underscore (``rlnCoordinateX``), all of one length; values that hold blanks or
            look like an element of the format are quoted.

    Raises:
        ParameterError: columns of different lengths, or a value that cannot be quoted.
        StorageError: the file cannot be written.
    """
    rows = [[quoted(str(value)) for value in row] for row in _transposed(columns)]
    labels = [f"_{label} #{i}" for i, label in enumerate(columns, start=1)]
    lines = ["# version 30001", "", f"data_{block}", "", "loop_", *labels, *map(" ".join, rows), ""]
    text = "\n".join(lines).encode("utf-8", "surrogateescape")
    write_whole(Path(path), lambda file: file.write(text))


def quoted(value: str) -> str:
    """A value as written to a STAR file, in quotes where needed."""
    if not _SPECIAL.match(value):
        return value
    for quote in "\"'":
        if not re.search(rf"{quote}\s|[\n\r\0]", value):
            return f"{quote}{value}{quote}"
    raise ParameterError(
        f"a STAR value should be one line, with at most one kind of quotes before blanks; got {value!r}: rename it."
    )


def _transposed(columns: Mapping[str, Sequence[object]]) -> list[tuple[object, ...]]:
    lengths = {label: len(values) for label, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ParameterError(f"the columns of a STAR table should have one length; got {lengths}.")
    return list(zip(*columns.values(), strict=True))


def read_star(path: str | Path) -> dict[str, Table]:
    """Read the tables of a STAR file (RELION 3.0 to 5, or any other with one row per line).

    Args:
        path: the file.

    Returns:
        Every block by its name without ``data_`` (empty for RELION's anonymous one): the values of each label, without
        the leading underscore. Single values are columns of length 1; all values are strings, unquoted.

    Raises:
        InputError: no STAR file, or a damaged one.
        StorageError: the file cannot be read.
    """
    content = read_regular(Path(path), _MOST)
    if b"\0" in content:
        raise InputError(f"{path} should be a STAR file; it is not text (it holds zero bytes).")
    return _Parser(
        Path(path), content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    ).tables()


class _Line(NamedTuple):
    """A line with content: its number, its stripped text, and whether an empty line precedes it."""

    number: int
    text: str
    gap: bool

    @property
    def is_block(self) -> bool:
        return self.text[:5].lower() == "data_" and len(self.text.split()) == 1

    @property
    def is_loop(self) -> bool:
        return self.text.lower() == "loop_"


def _lines(text: str) -> Iterator[_Line]:
    gap = False
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield _Line(number, line, gap)
        gap = (gap and line.startswith("#")) or not line


class _Parser:
    """The lines of a file, and the position of the parser."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._lines, self._at = path, list(_lines(text)), 0

    def tables(self) -> dict[str, Table]:
        found: dict[str, Table] = {}
        table: Table | None = None
        while (line := self._peek()) is not None:
            self._at += 1
            if line.is_block:
                name = line.text[5:]
                self._once(line, f"the block data_{name}", name in found)
                table = found[name] = {}
            elif table is None:
                self._wrong(line, "a block, data_..., should come first")
            elif line.is_loop:
                self._loop(line, table)
            elif line.text.startswith("_"):
                label, *values = self._words(line)
                if len(values) != 1:
                    self._wrong(
                        line,
                        f"a label outside of a loop_ should have one value, on its line; it has {len(values)}",
                    )
                self._once(line, f"the label {label}", label[1:] in table)
                table[label[1:]] = values
            else:
                self._wrong(line, "a label, loop_ or data_ should come here")
        return found

    def _peek(self, ahead: int = 0) -> _Line | None:
        at = self._at + ahead
        return self._lines[at] if at < len(self._lines) else None

    def _loop(self, start: _Line, table: Table) -> None:
        """Labels, then rows until something else begins."""
        labels = self._labels(start)
        columns: list[list[str]] = [[] for _ in labels]
        while (line := self._peek()) is not None and not self._ends(line, len(labels)):
            self._at += 1
            words = self._words(line)
            if len(words) != len(labels):
                self._wrong(line, f"a row should hold {len(labels)} values; it holds {len(words)}")
            for column, word in zip(columns, words, strict=True):
                column.append(word)
        for label, column in zip(labels, columns, strict=True):
            self._once(start, f"the label _{label}", label in table)
            table[label] = column

    def _labels(self, start: _Line) -> list[str]:
        """Labels of a loop. If they are numbered, as by RELION, a line with an underscore and without a number is a row."""
        labels: list[str] = []
        numbered = False
        while (line := self._peek()) is not None and line.text.startswith("_"):
            label, *rest = line.text.split()
            has_number = bool(rest) and rest[0].startswith("#")
            if (labels and has_number != numbered) or (rest and not has_number):
                break
            numbered = has_number
            labels.append(label[1:])
            self._at += 1
        if not labels:
            self._wrong(start, "loop_ should be followed by labels")
        return labels

    def _ends(self, line: _Line, width: int) -> bool:
        """Whether a line ends a loop instead of being one of its rows."""
        after = self._peek(1)
        if line.is_loop:
            return True
        if line.is_block:
            if width > 1 or (after is not None and after.is_loop):
                return True
            if not line.gap:
                return after is not None and re.match(r"_\S+\s+\S", after.text) is not None
            if after is not None and after.text.startswith("_"):
                return True
            self._wrong(line, "this may be a row or a block: put the row in quotes")
        if line.text.startswith("_") and line.gap and len(self._words(line)) == 2:
            if width == 2:
                self._wrong(line, "this may be a row or a label: put the row in quotes")
            return True
        return False

    def _words(self, line: _Line) -> list[str]:
        """The values of a line without their quotes; unknown values are empty."""
        if line.text.startswith(";"):
            self._wrong(line, "values of several lines are not read here: put it in quotes")
        found = []
        for word in _WORD.finditer(line.text):
            if word["comment"] is not None:
                break
            plain, double, single = word["plain"], word["double"], word["single"]
            found.append(
                "" if plain in ("?", ".") else next(w for w in (plain, double, single) if w is not None)
            )
        return found

    def _once(self, line: _Line, what: str, before: bool) -> None:
        if before:
            self._wrong(line, f"{what} comes twice")

    def _wrong(self, line: _Line, what: str) -> NoReturn:
        shown = line.text if len(line.text) <= _SHOWN else line.text[:_SHOWN] + "..."
        raise InputError(
            f"{self._path} should be a STAR file; it could not be read: line {line.number}, {shown!r}: {what}."
        )
