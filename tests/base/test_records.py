import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from mtdcore._base.records import (
    Damaged,
    check_types,
    from_record,
    load_npz,
    save_npz,
    seal,
    to_record,
    unseal,
)
from mtdcore.errors import InputError


@dataclass(frozen=True)
class Inner:
    values: tuple[float, ...]
    pair: tuple[int, str] = (1, "a")


@dataclass(frozen=True)
class Outer:
    inner: Inner
    path: Path
    kind: Literal["a", 1]
    number: float
    maybe: int | None
    flags: dict[str, bool] = field(default_factory=dict)
    anything: Any = None


OUTER = Outer(Inner((1.0, 0.1 + 0.2)), Path("x/y"), "a", 2.0, None, {"on": True}, [1, "b"])


@dataclass(frozen=True)
class Arrays:
    image: np.ndarray
    count: int
    angles: np.ndarray | None


def same(first, second):
    return to_record(first) == to_record(second) and type(first) is type(second)


def test_a_record_survives_json_to_the_last_bit():
    assert from_record(Outer, json.loads(json.dumps(to_record(OUTER)))) == OUTER


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"number": "2"}, "number should be float"),
        ({"number": True}, "number should be float"),
        ({"number": float("nan")}, "number should be float"),
        ({"maybe": 0.5}, "maybe should be"),
        ({"maybe": True}, "maybe should be"),
        ({"kind": True}, "kind should be"),
        ({"path": "a\0b"}, "path should be Path"),
        ({"path": None}, "path should be Path"),
        ({"flags": {"on": 1}}, "flags.on should be bool"),
        ({"inner": {"values": [1, "2"]}}, r"inner: values\[1\] should be float"),
        ({"inner": {"values": [], "pair": [1]}}, "inner: pair"),
        ({"inner": 3}, "inner: expected an object"),
        ({"other": 3}, "unknown entries: other"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, says):
    with pytest.raises(ValueError, match=says):
        from_record(Outer, {**to_record(OUTER), **change})


def test_missing_entries_take_defaults_or_none_or_are_named():
    record = to_record(OUTER)
    for name in ("flags", "anything", "maybe"):
        del record[name]
    found = from_record(Outer, record)
    assert (found.flags, found.anything, found.maybe) == ({}, None, None)
    del record["number"]
    with pytest.raises(ValueError, match="number is missing"):
        from_record(Outer, record)


def test_unknown_entries_can_be_ignored():
    assert from_record(Outer, {**to_record(OUTER), "later": 1}, unknown="ignore") == OUTER


def test_a_dataclass_in_place_is_checked_too():
    check_types(OUTER)
    with pytest.raises(ValueError, match="pair"):
        check_types(Inner((1.0,), (1, 2)))


@pytest.mark.parametrize("angles", [None, np.arange(3.0)])
def test_arrays_go_through_a_file(tmp_path, angles):
    made = Arrays(np.random.default_rng(0).normal(size=(2, 3)), 5, angles)
    save_npz(tmp_path / "a.npz", made)
    found = load_npz(Arrays, tmp_path / "a.npz")
    assert same(found, made)
    assert type(found.count) is int


def test_files_of_another_kind_are_input_errors(tmp_path):
    path = tmp_path / "a.npz"
    for content in (b"", b"PK\x03\x04 no", None):
        path.write_bytes(content) if content is not None else np.savez(path, image=np.ones(2))
        with pytest.raises(InputError, match=r"a\.npz should hold Arrays"):
            load_npz(Arrays, path)


def test_a_sealed_file_says_when_it_was_changed(tmp_path):
    path, arrays = tmp_path / "c", {"a": np.arange(4.0), "b": np.eye(2)[:, ::-1]}
    content = seal({"x": 1 / 3, "path": Path("p")}, arrays)
    path.write_bytes(content)
    header, found = unseal(path)
    assert header == {"x": 1 / 3, "path": "p"}
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Damaged, match="SHA-256"):
        unseal(path)
    with pytest.raises(Damaged, match="there is none"):
        unseal(tmp_path / "none")
