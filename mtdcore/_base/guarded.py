"""Reading files of unknown origin: regular files only, and sizes are checked before anything is unpacked."""

from __future__ import annotations

import gzip
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import InputError, StorageError

#: Bound on the unpacked size: the larger of this many bytes and this multiple of the stored bytes. Images do not compress
#: better; without the bound a small file could fill the memory.
SMALL, MOST_COMPRESSION = 256 << 20, 100


def opened(path: Path, most: int | None = None) -> BinaryIO:
    """Open a file of unknown origin for reading; pipes and devices, on which a reader would hang, are refused.

    Args:
        path: the file; links are followed.
        most: largest size in bytes that makes sense; None: any.

    Raises:
        InputError: no regular file, or a larger one.
        StorageError: there is none, or the operating system refuses it.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except FileNotFoundError as problem:
        raise StorageError(f"{path} could not be read: there is none.") from problem
    except OSError as problem:
        raise StorageError(f"{path} could not be read: {problem.strerror or problem}.") from problem
    found = os.fstat(file.fileno())
    wrong = None
    if not stat.S_ISREG(found.st_mode):
        wrong = "should be a file; it is a folder, a pipe or a device."
    elif most is not None and found.st_size > most:
        wrong = f"should have at most {most} bytes to make sense; it has {found.st_size}."
    if wrong:
        file.close()
        raise InputError(f"{path} {wrong}")
    return file


def read_regular(path: Path, most: int) -> bytes:
    """All of a file, see :func:`opened`."""
    with opened(path, most) as file:
        try:
            return file.read()
        except OSError as problem:
            raise StorageError(f"{path} could not be read: {problem.strerror or problem}.") from problem


def check_declared(path: Path | str, declared: int, stored: int) -> None:
    """Raise InputError if ``stored`` bytes declare an unpacked size above the bound, see :data:`MOST_COMPRESSION`."""
    if declared > max(SMALL, MOST_COMPRESSION * stored):
        raise InputError(
            f"{path} should hold the {declared} bytes that it declares; it has {stored} bytes: write it without compression if "
            "they are true."
        )


class Archive:
    """The arrays of an ``.npz`` file; no pickles.

    Attributes:
        names: of the arrays.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._zip = path, zipfile.ZipFile(file)
        self._members = {one.filename.removesuffix(".npy"): one for one in self._zip.infolist()}
        self.names = list(self._members)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array, without unpacking it."""
        with self._zip.open(self._members[name]) as file:
            return self._header(name, file)[0]

    def __getitem__(self, name: str) -> np.ndarray:
        member = self._members[name]
        check_declared(f"{self._path}[{name}]", member.file_size, member.compress_size)
        with self._zip.open(member) as file:
            shape, fortran, dtype = self._header(name, file)
            size = math.prod(shape) * dtype.itemsize
            if dtype.hasobject or size != member.file_size - file.tell():
                raise InputError(
                    f"{self._path}[{name}] should hold numbers, {shape} of {dtype}; it has {member.file_size} bytes."
                )
            content = bytearray(
                file.read(size + 1)
            )  # one byte past the end makes zipfile verify the checksum
        array = np.frombuffer(content, dtype)
        return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)

    def _header(self, name: str, file: object) -> tuple[tuple[int, ...], bool, np.dtype]:
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(file)  # type: ignore[arg-type]
        if version not in read:
            raise InputError(
                f"{self._path}[{name}] should hold an array of numbers; it is of format {version}."
            )
        return read[version](file)  # type: ignore[arg-type]


@contextmanager
def archive(path: Path, most: int | None = None) -> Iterator[Archive]:
    """Open an ``.npz`` file.

    Raises:
        InputError, StorageError: see :func:`opened`; a damaged file raises any exception of NumPy or zipfile.
    """
    with opened(path, most) as file:
        yield Archive(path, file)


def gunzipped(path: Path, most: int) -> bytes:
    """The unpacked content of a ``.gz`` file, cut after ``most`` bytes; errors of :func:`opened` and of gzip."""
    with opened(path) as file, gzip.GzipFile(fileobj=file) as packed:
        return packed.read(most)
