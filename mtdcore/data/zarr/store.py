"""The only file that imports zarr: creating the folder of an array."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore, WrapperStore

from ..._base.outputs import MARK, making_folder
from ...errors import ParameterError, StorageError
from .digests import digest, write_digests
from .guard import DIGESTS, Index
from .ome import AXES, LEVEL, multiscales

Compressor: TypeAlias = Literal["lz4", "zstd"]

#: Rows and columns of the chunks that mtdcore writes: 1 MiB of float32. Tiles are read one row of tiles after
#: another; with flat chunks few pixels stay in memory from one row of tiles to the next.
CHUNK = (256, 1024)


class _DigestingStore(WrapperStore[LocalStore]):
    """A store that records the digest of every chunk, and that can be told to write nothing more."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self.digests: dict[Index, int] = {}
        self._given_up, self._at_work = False, 0

    async def get(self, *request: Any, **options: Any) -> Any:
        with self._working() as wanted:  # the first request creates the folder
            return await super().get(*request, **options) if wanted else None

    async def set(self, key: str, value: Any, *rest: Any) -> None:
        with self._working() as wanted:
            if not wanted:
                return
            name, *place = key.removeprefix(f"{LEVEL}/").split("/")
            if name == "c":
                self.digests[tuple(map(int, place))] = digest(value.to_bytes())
            await super().set(key, value, *rest)

    async def _open(self) -> None:
        with self._working() as wanted:
            if wanted:
                await super()._open()

    def give_up(self) -> None:
        """Write nothing more. The thread of zarr continues after its caller was interrupted, and would create folders anew."""
        self._given_up = True
        while self._at_work:
            time.sleep(0.001)

    @contextmanager
    def _working(self) -> Iterator[bool]:
        self._at_work += 1  # counted before the check: give_up waits for every request that passed it
        try:
            yield not self._given_up
        finally:
            self._at_work -= 1


@contextmanager
def creating(
    path: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    attributes: Mapping[str, Any],
    compressor: Compressor | None = None,
    overwrite: bool = False,
    *,
    pixel_size: float | None = None,
    ome: bool = False,
    inputs: Sequence[Path] = (),
) -> Iterator[tuple[zarr.Array[Any], Path]]:
    """Create a Zarr v3 stack of micrographs in a temporary folder that becomes ``path`` when the block succeeds.

    Chunks of one micrograph and 256 x 1024 pixels, each closed by a crc32c checksum, their digests in a file beside them;
    empty chunks are written too, so that a missing chunk is always damage.

    Args:
        path: final folder.
        shape: (micrographs, H, W).
        dtype: of the pixels.
        attributes: JSON-able.
        compressor: of the chunks.
        overwrite: replace a measurement that mtd wrote to ``path``; never anything else, see :mod:`mtdcore._base.outputs`.
        pixel_size: angstrom, for OME metadata; None: unknown.
        ome: make the folder an OME-Zarr 0.5 image (a group, the array in it), which other programs open.
        inputs: files and folders read meanwhile; ``path`` must not contain them.

    Yields:
        The array to fill, and its folder (for small files beside the chunks).

    Raises:
        ParameterError: an unknown compressor.
        StorageError: ``path`` may not be written or replaced, or writing failed; nothing is left behind.
    """
    if compressor not in (None, "lz4", "zstd"):
        raise ParameterError(f"the compressor of a measurement is None, lz4 or zstd; got {compressor}.")
    packers = {
        None: (),
        "lz4": (BloscCodec(cname="lz4", shuffle="shuffle", typesize=dtype.itemsize),),
        "zstd": (ZstdCodec(level=3),),
    }
    try:
        with making_folder(path, overwrite, inputs) as temporary:
            marked = {MARK: {}, **attributes}
            store = _DigestingStore(LocalStore(temporary))
            try:
                if ome:
                    metadata = {"ome": multiscales(path.stem, pixel_size), **marked}
                    zarr.create_group(store, zarr_format=3, attributes=metadata)
                array = zarr.create_array(
                    store,
                    name=LEVEL if ome else None,
                    shape=shape,
                    dtype=dtype,
                    chunks=(1, *(min(side, max(1, n)) for side, n in zip(CHUNK, shape[1:], strict=True))),
                    compressors=(*packers[compressor], Crc32cCodec()),
                    fill_value=0,
                    attributes={**({} if ome else marked), "digests": DIGESTS},
                    dimension_names=AXES if ome else ("micrograph", "row", "column"),
                    config={"write_empty_chunks": True},
                )
                yield array, temporary
            except BaseException:
                store.give_up()
                raise
            grid = tuple(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))
            write_digests(temporary / LEVEL if ome else temporary, grid, store.digests)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error}.") from error
