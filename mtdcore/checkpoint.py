"""Checkpoints of a recovery: the state of the loop and what identifies the run, in one file.

The file is an uncompressed ``.npz`` (its members carry checksums) with the target and a JSON header. JSON keeps
every float64 exactly, so a resumed run continues with the same bits.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CheckpointError
from .files import write_whole
from .likelihood import Likelihood, PatchLikelihood, TileGeometry, WindowLikelihood
from .measurement import Measurement
from .recovery import EMState, IterationRecord
from .schedule import Temperature

_FORMAT = 1

#: The cut in which a measurement is read for its fingerprint.
_PIECES = TileGeometry(side=1024, unit=1, halo=0, reach=0)


def save_checkpoint(path: str | Path, state: EMState, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint; a crash leaves the previous one in place.

    Args:
        path: file to make or replace.
        state: what a callback of :func:`recover` received.
        identity: everything the run depends on, JSON-able: parameters, version, fingerprint of the measurement.
    """
    header = {
        "format": _FORMAT,
        "identity": dict(identity),
        "likelihood": likelihood_record(state.likelihood),
        "schedule": asdict(state.schedule),
        "first_count": state.first_count,
        "history": [asdict(record) for record in state.history],
    }
    text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    write_whole(Path(path), lambda file: np.savez(file, header=text, target=state.target))


def load_checkpoint(path: str | Path, identity: Mapping[str, Any]) -> EMState:
    """Read a checkpoint of the run with this identity.

    Raises:
        CheckpointError: missing, damaged, or of another run; the message lists the differences.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            header, target = json.loads(archive["header"].tobytes()), archive["target"]
        if header["format"] != _FORMAT:
            raise CheckpointError(
                f"{path} has format {header['format']}; this version reads format {_FORMAT}."
            )
        _compare(path, header["identity"], json.loads(json.dumps(dict(identity))))
        return EMState(
            target=target,
            likelihood=likelihood_from_record(header["likelihood"]),
            schedule=Temperature(**header["schedule"]),
            first_count=header["first_count"],
            history=tuple(IterationRecord(**record) for record in header["history"]),
        )
    except CheckpointError:
        raise
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} should be a checkpoint; it is missing or damaged ({error}): start again with --force."
        ) from error


def _compare(path: str | Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    names = [name for name in {**saved, **given} if saved.get(name) != given.get(name)]
    if names:
        listed = "; ".join(f"{name} was {saved.get(name)}, is {given.get(name)}" for name in names)
        raise CheckpointError(
            f"{path} belongs to a run with other parameters: {listed}; use those, or start again with --force."
        )


def likelihood_record(likelihood: Likelihood) -> dict[str, Any]:
    """A likelihood as plain values: its class under "model", then its attributes."""
    return {"model": type(likelihood).__name__, **asdict(likelihood)}


def likelihood_from_record(record: Mapping[str, Any]) -> Likelihood:
    """The likelihood of which :func:`likelihood_record` made this record."""
    models = {model.__name__: model for model in (PatchLikelihood, WindowLikelihood)}
    return models[record["model"]](**{name: value for name, value in record.items() if name != "model"})


def fingerprint(measurement: Measurement) -> str:
    """Hash of every valid pixel of a measurement, the same for equal pixels in any storage (16 hex digits).

    Reads the measurement once, which costs a small part of one iteration.
    """
    digest = hashlib.blake2b(repr((measurement.shape, measurement.dtype.str)).encode(), digest_size=8)
    for tile in measurement.tiles(_PIECES):
        digest.update(np.ascontiguousarray(tile.values))
        if tile.valid is not None:
            digest.update(np.packbits(tile.valid))
    return digest.hexdigest()
