"""Numba kernels compiled once per machine: a cache on disk that never stops or changes a run.

Numba's own cache does not verify its files: a truncated file ends the process, an edited one runs as machine code,
and two processes that compile at once may store one kernel under the name of another. Here every entry is a file of
its own, named by its key and by the sources, sealed by a SHA-256, and replaced whole. A kernel without a matching entry is compiled again.

The seal detects damage, not forgery, and an entry is code. Only this user, root and the owner of these sources (who could change
the code itself) may therefore have write access to the folder and to every folder above it.
"""

from __future__ import annotations

import functools
import grp
import hashlib
import logging
import os
import pickle
import pwd
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from ...errors import StorageError
from ..files import write_whole

_log = logging.getLogger(__name__)

_SEAL_BYTES = hashlib.sha256().digest_size


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit(**options)`` that releases the GIL and keeps its machine code in sealed files.

    Where no folder can be written, or Numba keeps its cache in another way, kernels are compiled in every process.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, **options)(function)
        try:
            cache: Any = FunctionCache(function)  # type: ignore[no-untyped-call]
            sources = Path(function.__code__.co_filename).parent
            cache._cache_file = SealedFiles(Path(cache.cache_path), cache._impl.filename_base, sources)
            dispatcher._cache = cache
        except Exception as problem:  # Numba's internals may change: kernels work without a cache
            _log.info("compiled kernels are not kept: %s", problem)
        return dispatcher

    return compiled


class SealedFiles:
    """What Numba's ``Cache`` reads and writes: ``load``, ``save`` and ``flush`` by key.

    Args:
        folder: where the files lie.
        base: first part of their names, one per function.
        sources: folder, with its subfolders, of the modules that the function is built from.
    """

    def __init__(self, folder: Path, base: str, sources: Path) -> None:
        self._folder, self._base, self._of = folder, base, sources

    def load(self, key: object) -> Any:
        """The entry saved under this key; None if there is none, or it is damaged."""
        path = self.path(key)
        if not trusted(self._folder):
            return None
        try:
            content = path.read_bytes()
        except OSError:
            _announce()
            return None
        seal, data = content[:_SEAL_BYTES], content[_SEAL_BYTES:]
        if hashlib.sha256(path.name.encode() + data).digest() != seal:
            _log.warning("%s is damaged; compiling the kernel again", path)
            return None
        try:
            saved_key, entry = pickle.loads(data)
        except Exception as problem:  # intact, but written in an environment that no longer exists
            _log.debug("%s cannot be used here: %s", path, problem)
            return None
        return entry if saved_key == key else None

    def save(self, key: object, entry: object) -> None:
        """Keep an entry; on a full or read-only disk it is lost, and the kernel will be compiled again."""
        if not trusted(self._folder):
            return
        path, data = self.path(key), dumps((key, entry))  # type: ignore[no-untyped-call]
        seal = hashlib.sha256(path.name.encode() + data).digest()
        try:
            write_whole(path, lambda file: file.write(seal + data))
        except StorageError as problem:
            _log.debug("%s", problem)

    def flush(self) -> None:
        """Forget every entry of this function."""
        for path in self._folder.glob(f"{self._base}.*.nbc"):
            path.unlink(missing_ok=True)

    def path(self, key: object) -> Path:
        """File of a key (types of the arguments, processor, code of the function)."""
        name = hashlib.sha256(f"{_sources(self._of)} {key!r}".encode()).hexdigest()[:32]
        return self._folder / f"{self._base}.{name}.nbc"


@functools.cache
def trusted(folder: Path) -> bool:
    """Whether only this user, root and the owner of the sources can write to a folder; warns if others can."""
    owners = {0, os.getuid(), Path(__file__).stat().st_uid}
    folder = Path(os.path.realpath(folder))
    for one in (folder, *folder.parents):
        try:
            found = one.stat()
        except OSError:  # does not exist yet: the folders above decide who may make it
            continue
        others = bool(found.st_mode & stat.S_IWOTH) or bool(
            found.st_mode & stat.S_IWGRP and not _private(found)
        )
        kept = one != folder and bool(
            found.st_mode & stat.S_ISVTX
        )  # sticky, as /tmp: others cannot replace our files there
        if found.st_uid not in owners or (others and not kept):
            _log.warning(
                "compiled kernels are not kept, which costs half a minute: others can write to %s; set NUMBA_CACHE_DIR to a folder "
                "of your own",
                one,
            )
            return False
    return True


def _private(found: os.stat_result) -> bool:
    """Whether the owner of a folder is the only member of its group, as many systems set up users."""
    try:
        owner, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == found.st_gid and set(group.gr_mem) <= {owner.pw_name}


@functools.cache
def _announce() -> None:
    """Log once that kernels are being compiled."""
    _log.info("compiling kernels for this processor, once: about half a minute")


@functools.cache
def _sources(folder: Path) -> str:
    """Hash of all sources and of the versions of Python and Numba; a kernel is built from functions of several files."""
    digest = hashlib.sha256(f"{sys.version} {numba.__version__}".encode())
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
