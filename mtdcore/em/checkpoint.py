"""Checkpoints of a recovery: the state of the loop and what identifies the run, in one safetensors file.

The file holds the targets, the running statistics of mini-batch EM, and a JSON header; a SHA-256 of the whole content
seals it. A resumed run continues with the same bits. The previous checkpoint is kept as well.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from .._base.files import write_whole
from .._base.records import Damaged, seal, to_record, unseal
from ..data import Measurement
from ..data.tiles import Tile, TileGeometry
from ..errors import CheckpointError
from ..estep.statistics import Statistics
from ..model.likelihood.records import likelihood_from_record, likelihood_record
from .online.batches import Running
from .state import Candidate, EMState, IterationRecord
from .temperature import Temperature

_FORMAT = 9

#: Tiles in which a measurement is read for its fingerprint.
_PIECES = TileGeometry(side=1024, unit=1, halo=0, reach=0)

#: Bytes of a digest.
_DIGEST = 8


def save_checkpoint(path: str | Path, state: EMState, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one at ``path`` becomes the previous one. A crash at any moment leaves one that loads.

    Args:
        path: file to make or replace.
        state: what a callback of :func:`recover` received.
        identity: everything the run depends on, JSON-able: parameters, version, fingerprint of the measurement.

    Raises:
        StorageError: the operating system refused; the checkpoint at ``path`` is still there.
    """
    record, arrays = state_record(state)
    write_kept(Path(path), {"format": _FORMAT, "identity": identity, **record}, arrays)


def write_kept(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a sealed file; the one at ``path`` is kept as the previous one, unless it is damaged."""
    content = seal(header, arrays)
    try:
        unseal(path)
    except Damaged:
        pass  # an absent or damaged file must not replace a previous checkpoint that may be good
    else:
        write_whole(previous_checkpoint(path), lambda file: file.write(path.read_bytes()))
    write_whole(path, lambda file: file.write(content))


def load_checkpoint(path: str | Path, identity: Mapping[str, Any]) -> EMState:
    """Read the checkpoint of the run with this identity.

    A damaged checkpoint is replaced by the previous one, with a RuntimeWarning that says so.

    Raises:
        CheckpointError: both files are missing or damaged, or belong to another run; the message lists the differences.
    """
    return state_of(*read_checkpoint(Path(path), _FORMAT, identity))


def read_checkpoint(
    path: Path, form: int | str, identity: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a checkpoint of this format and this run, see :func:`read_kept`.

    Raises:
        CheckpointError: both files are missing or damaged, have another format, or belong to another run; the message lists the differences.
    """
    header, arrays = read_kept(path)
    if header["format"] != form:
        raise CheckpointError(f'{path} has format "{header["format"]}"; this version goes on from "{form}".')
    compare(path, header["identity"], identity)
    return header, arrays


def read_kept(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a file of :func:`write_kept`; if it is missing or damaged, those of the previous file, with a RuntimeWarning.

    Raises:
        CheckpointError: both are missing or damaged.
    """
    try:
        return unseal(path)
    except Damaged as damage:
        try:
            header, arrays = unseal(previous_checkpoint(path))
        except Damaged:
            raise CheckpointError(
                f"{path} should be a checkpoint; it is missing or damaged ({damage}), and there is no previous one: "
                "start again from the beginning (--force)."
            ) from damage
        done = f", of iteration {len(header['history'])}" if "history" in header else ""
        warnings.warn(
            f"{path} is missing or damaged ({damage}); going on from the previous checkpoint{done}.",
            RuntimeWarning,
            stacklevel=3,
        )
        return header, arrays


def state_record(state: EMState) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A state as JSON-able values and arrays."""
    candidates: list[dict[str, Any]] = []
    arrays = {"targets": np.stack([candidate.target for candidate in state.candidates])}
    for i, candidate in enumerate(state.candidates):
        record = {"likelihood": likelihood_record(candidate.likelihood), "objective": candidate.objective}
        record |= {"scales": candidate.scales, "framed": candidate.framed}
        candidates.append(record | {"running": None})
        if (running := candidate.running) is not None:
            plain, sums = running.statistics.record()
            candidates[i]["running"] = {"mixed": running.mixed, "worth": running.worth, "statistics": plain}
            arrays |= {f"{i}.{name}": array for name, array in sums.items()}
    record = {"schedule": state.schedule, "first_count": state.first_count, "history": state.history}
    return {"candidates": candidates, **record}, arrays


def state_of(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> EMState:
    """The state from the output of :func:`state_record`; other entries are ignored."""
    return EMState(
        candidates=tuple(
            Candidate(
                target,
                likelihood_from_record(record["likelihood"]),
                record["objective"],
                _running(record["running"], _of(i, arrays)),
                None if record["scales"] is None else tuple(record["scales"]),
                record["framed"],
            )
            for i, (target, record) in enumerate(zip(arrays["targets"], header["candidates"], strict=True))
        ),
        schedule=Temperature(**header["schedule"]),
        first_count=header["first_count"],
        history=tuple(IterationRecord(**record) for record in header["history"]),
    )


def previous_checkpoint(path: Path) -> Path:
    """Where the checkpoint before the one at ``path`` is kept."""
    return path.with_stem(f"{path.stem}.previous")


def _of(candidate: int, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of one candidate, by field."""
    start = f"{candidate}."
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def _running(record: dict[str, Any] | None, arrays: Mapping[str, Any]) -> Running | None:
    if record is None:
        return None
    statistics = Statistics.from_record(record["statistics"], arrays)
    return Running(statistics, record["mixed"], record["worth"])


def compare(path: Path, saved: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise CheckpointError, with the differences, if a file belongs to a run with another identity."""
    given = json.loads(json.dumps(to_record(identity)))
    names = [name for name in {**saved, **given} if saved.get(name) != given.get(name)]
    if names:
        listed = "; ".join(f"{name} was {saved.get(name)}, is {given.get(name)}" for name in names)
        raise CheckpointError(
            f"{path} belongs to a run with other parameters: {listed}; use those, or start again from the beginning (--force)."
        )


def fingerprint(measurement: Measurement) -> str:
    """Hash of every valid pixel of a measurement, the same for equal pixels in any storage (16 hex digits).

    Reads the measurement once, which costs a small part of one iteration.
    """
    parts: list[bytes] = []
    for _, tiles in groupby(measurement.tiles(_PIECES), key=lambda tile: tile.micrograph):
        parts.append(_digest(tiles))
    return joined_fingerprint(measurement.shape, measurement.dtype, parts)


def micrograph_digest(one: Measurement) -> bytes:
    """Contribution of a single micrograph to the fingerprint of a measurement."""
    return _digest(one.tiles(_PIECES))


def _digest(tiles: Iterable[Tile]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for tile in tiles:
        digest.update(np.ascontiguousarray(tile.values).data)
        if tile.valid is not None:
            digest.update(np.packbits(tile.valid).data)
    return digest.digest()


def joined_fingerprint(shape: tuple[int, int, int], dtype: np.dtype, parts: Iterable[bytes]) -> str:
    """:func:`fingerprint` of a measurement, from :func:`micrograph_digest` of each of its micrographs."""
    digest = hashlib.blake2b(repr((shape, dtype.str)).encode(), digest_size=_DIGEST)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
