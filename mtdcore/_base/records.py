"""Records: dataclasses as plain values for JSON, and their arrays in npz and safetensors files."""

from __future__ import annotations

import hashlib
import io
import json
import math
import types
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from ..errors import InputError, StorageError
from .files import write_whole
from .guarded import Archive, opened

T = TypeVar("T")

#: Characters of a wrong value that an error shows.
_SHOWN = 60


def to_record(value: Any) -> Any:
    """Plain values: dataclasses and mappings become dictionaries, tuples and arrays lists, paths strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_record(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_record(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_record(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


def from_record(kind: type[T], record: object, *, unknown: Literal["refuse", "ignore"] = "refuse") -> T:
    """The dataclass that a record describes; every value is checked against the type of its field.

    Lists become float64 arrays where the field is an array. A missing entry takes the default of its field, or None where the type admits it.

    Args:
        kind: dataclass of plain values, arrays and further dataclasses.
        record: a result of :func:`to_record`, also after a round trip through JSON.
        unknown: what to do with entries that are no fields.

    Raises:
        ValueError: an entry is missing, unknown or of another type; the message names it.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"expected an object; got {_shown(record)}")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    extra = [str(name) for name in record if name not in known]
    if extra and unknown == "refuse":
        raise ValueError(f"unknown entries: {', '.join(extra[:8])}")
    hints, values = get_type_hints(kind), {}
    for name, field in known.items():
        if name in record:
            values[name] = _fitting(hints[name], record[name], name)
        elif field.default is MISSING and field.default_factory is MISSING:
            if not _admits_none(hints[name]):
                raise ValueError(f"{name} is missing")
            values[name] = None
    return kind(**values)


def check_types(value: Any) -> None:
    """Raise ValueError if a field of a dataclass does not hold a value of its type."""
    hints = get_type_hints(type(value))
    for field in fields(value):
        _fitting(hints[field.name], getattr(value, field.name), field.name)


def _fitting(hint: Any, value: Any, where: str) -> Any:
    """The value converted to its type: whole numbers become floats, lists tuples, strings paths."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        for member in inner:
            try:
                return _fitting(member, value, where)
            except ValueError:
                continue
    elif origin is Literal:
        if any(value == word and type(value) is type(word) for word in inner):
            return value
    elif origin in (list, tuple) and isinstance(value, (list, tuple)):
        each = inner if origin is tuple and inner[-1] is not Ellipsis else (inner[0],) * len(value)
        if len(each) == len(value):
            return origin(
                _fitting(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(each, value, strict=True))
            )
    elif origin is dict and isinstance(value, Mapping):
        return {str(key): _fitting(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    elif is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            check_types(value)
            return value
        try:
            return from_record(hint, value, unknown="ignore")
        except ValueError as problem:
            raise ValueError(f"{where}: {problem}") from problem
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) < 2.0**1023 and math.isfinite(value):
            return float(value)
    elif hint is Path and isinstance(value, (str, Path)):
        if "\0" not in str(value):
            return Path(value)
    elif hint is np.ndarray and isinstance(value, (list, tuple)):
        return np.asarray(value, dtype=np.float64)
    elif hint is int and isinstance(value, bool):
        pass
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    raise ValueError(f"{where} should be {_name(hint)}; it is {_shown(value)}")


def _admits_none(hint: Any) -> bool:
    return hint in (Any, type(None)) or type(None) in get_args(hint)


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", None) if isinstance(hint, type) and not get_args(hint) else str(hint)  # type: ignore[return-value]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def save_npz(path: Path, value: Any) -> None:
    """Write the fields of a flat dataclass, None left out, to an uncompressed ``.npz`` file.

    Raises:
        StorageError: the operating system refused.
    """
    given = {field.name: getattr(value, field.name) for field in fields(value)}
    arrays = {name: np.asarray(one) for name, one in given.items() if one is not None}
    write_whole(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def load_npz(kind: type[T], path: Path, content: bytes | None = None) -> T:
    """The dataclass that :func:`save_npz` wrote; scalars are Python numbers again.

    Args:
        kind: of the dataclass.
        path: the file.
        content: its bytes, where the caller has read them.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    try:
        with opened(path) if content is None else io.BytesIO(content) as file:
            archive = Archive(path, file)
            values = {name: archive[name] for name in archive.names}
        return from_record(kind, {n: v if v.ndim else v.item() for n, v in values.items()})
    except Exception as problem:  # NumPy, zipfile and zlib share no exception type
        raise InputError(
            f"{path} should hold {kind.__name__} as written by mtdcore; it could not be read: {problem}."
        ) from problem


class Damaged(Exception):
    """A sealed file is missing, cut short or changed."""


def seal(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors file of named arrays and a JSON header, with the SHA-256 of both; JSON keeps every float64 exactly."""
    from safetensors.numpy import save

    text = json.dumps(to_record(header))
    kept = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content: bytes = save(kept, {"header": text, "sha256": _digest(text, kept)})
    return content


def unseal(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a file that :func:`seal` made.

    Raises:
        Damaged: there is no such file, or its digest does not match.
    """
    from safetensors import SafetensorError, safe_open

    try:
        opened(path).close()
        with safe_open(path, framework="numpy") as file:
            names = file.keys()  # an open file is no mapping
            found, arrays = file.metadata(), {name: file.get_tensor(name) for name in names}
        intact = found["sha256"] == _digest(found["header"], arrays)
    except (OSError, StorageError, InputError, SafetensorError, KeyError, TypeError, ValueError) as problem:
        raise Damaged(f"{type(problem).__name__}: {problem}") from problem
    if not intact:
        raise Damaged("its SHA-256 does not match its content")
    return json.loads(found["header"]), arrays


class Sealed(ABC):
    """An object kept as one sealed file; a subclass converts it to values and arrays, and back."""

    @abstractmethod
    def record(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(JSON-able values, host arrays by name)."""

    @classmethod
    @abstractmethod
    def from_record(cls, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """The object of these values and arrays of :meth:`record`; ValueError, TypeError or LookupError if they are of something else."""

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file, sealed by a SHA-256 of its content.

        Raises:
            StorageError: the operating system refused.
        """
        content = seal(*self.record())
        write_whole(Path(path), lambda file: file.write(content))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: it is no such file.
        """
        try:
            return cls.from_record(*unseal(Path(path)))
        except (Damaged, LookupError, TypeError, ValueError) as problem:
            name = cls.__name__
            raise InputError(
                f"{path} should hold {name.lower()} written by {name}.save; it could not be read: {problem}."
            ) from problem


def _digest(header: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(header.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
