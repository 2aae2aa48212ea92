"""Checkpoints of a recovery: the state of the loop and what identifies the run, in one safetensors file.

The file holds the targets, the running statistics of mini-batch EM, and a JSON header, sealed by a SHA-256 of all. JSON keeps every float64 exactly, so a
resumed run continues with the same bits. The checkpoint before the last is kept as well.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .._base.files import write_whole
from ..data import Measurement
from ..data.tiles import TileGeometry
from ..errors import CheckpointError
from ..estep.records import statistics_from_record, statistics_record
from ..model.likelihood.records import likelihood_from_record, likelihood_record
from .batches import Running
from .state import Candidate, EMState, IterationRecord
from .temperature import Temperature

_FORMAT = 6

#: The cut in which a measurement is read for its fingerprint.
_PIECES = TileGeometry(side=1024, unit=1, halo=0, reach=0)


def save_checkpoint(path: str | Path, state: EMState, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one at ``path`` becomes the previous one. A crash at any moment leaves one that loads.

    Args:
        path: file to make or replace.
        state: what a callback of :func:`recover` received.
        identity: everything the run depends on, JSON-able: parameters, version, fingerprint of the measurement.

    Raises:
        StorageError: the operating system refused; the checkpoint at ``path`` is still there.
    """
    from safetensors.numpy import save

    path = Path(path)
    arrays = {"targets": np.stack([candidate.target for candidate in state.candidates])}
    running = [_running_record(c.running, f"{i}.", arrays) for i, c in enumerate(state.candidates)]
    header = json.dumps(
        {
            "format": _FORMAT,
            "identity": dict(identity),
            "candidates": [
                {
                    "likelihood": likelihood_record(c.likelihood),
                    "objective": c.objective,
                    "running": record,
                    "scales": c.scales,
                }
                for c, record in zip(state.candidates, running, strict=True)
            ],
            "schedule": asdict(state.schedule),
            "first_count": state.first_count,
            "history": [asdict(record) for record in state.history],
        }
    )
    content = save(arrays, {"header": header, "sha256": _digest(header, arrays)})
    try:
        _read(path)
    except _Unusable:
        pass  # absent or damaged: never worth the place of a previous checkpoint that may be good
    else:
        write_whole(previous_checkpoint(path), lambda file: file.write(path.read_bytes()))
    write_whole(path, lambda file: file.write(content))


def load_checkpoint(path: str | Path, identity: Mapping[str, Any]) -> EMState:
    """Read the checkpoint of the run with this identity.

    A damaged checkpoint is replaced by the previous one, with a RuntimeWarning that says so.

    Raises:
        CheckpointError: both missing or damaged, or of another run; the message lists the differences.
    """
    path = Path(path)
    try:
        header, arrays = _read(path)
    except _Unusable as damage:
        try:
            header, arrays = _read(previous_checkpoint(path))
        except _Unusable:
            raise CheckpointError(
                f"{path} should be a checkpoint; it is missing or damaged ({damage}), and there is no previous one: "
                "start again from the beginning (--force)."
            ) from damage
        warnings.warn(
            f"{path} is missing or damaged ({damage}); going on from the previous checkpoint, of iteration "
            f"{len(header['history'])}.",
            RuntimeWarning,
            stacklevel=2,
        )
    if header["format"] != _FORMAT:
        raise CheckpointError(f"{path} has format {header['format']}; this version reads format {_FORMAT}.")
    _compare(path, header["identity"], json.loads(json.dumps(dict(identity))))
    return EMState(
        candidates=tuple(
            Candidate(
                target,
                likelihood_from_record(record["likelihood"]),
                record["objective"],
                _running_from_record(record["running"], f"{i}.", arrays),
                None if record["scales"] is None else tuple(record["scales"]),
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


class _Unusable(Exception):
    """There is no intact checkpoint in this file."""


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of an intact checkpoint."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()  # an open file is no mapping
            seal, arrays = file.metadata(), {name: file.get_tensor(name) for name in names}
        intact = seal["sha256"] == _digest(seal["header"], arrays)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _Unusable(f"{type(error).__name__}: {error}") from error
    if not intact:
        raise _Unusable("its SHA-256 does not match its content")
    return json.loads(seal["header"]), arrays


def _digest(header: str, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of everything in a checkpoint."""
    digest = hashlib.sha256(header.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _running_record(
    running: Running | None, prefix: str, arrays: dict[str, np.ndarray]
) -> dict[str, Any] | None:
    """Running statistics as plain values; their arrays join the others under names with this prefix."""
    if running is None:
        return None
    values, found = statistics_record(running.statistics)
    arrays |= {prefix + name: array for name, array in found.items()}
    return {"mixed": running.mixed, "worth": running.worth, "statistics": values}


def _running_from_record(
    record: dict[str, Any] | None, prefix: str, arrays: Mapping[str, np.ndarray]
) -> Running | None:
    if record is None:
        return None
    mine = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
    statistics = statistics_from_record(record["statistics"], mine)
    return Running(statistics, record["mixed"], record["worth"])


def _compare(path: str | Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
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
    digest = hashlib.blake2b(repr((measurement.shape, measurement.dtype.str)).encode(), digest_size=8)
    for tile in measurement.tiles(_PIECES):
        digest.update(np.ascontiguousarray(tile.values).data)
        if tile.valid is not None:
            digest.update(np.packbits(tile.valid).data)
    return digest.hexdigest()
