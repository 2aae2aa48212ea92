"""Options that are stated once: as fields of a frozen dataclass. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

import click

from .console import F
from .options import COUNT, PATH, POSITIVE, CountOr, GroupedOption, NumberOr

#: Marks an option whose present default is what runs did before the option existed.
_SAME: Any = object()


def declared(
    group: str,
    text: str,
    default: Any = None,
    *,
    kind: click.ParamType[Any] | None = None,
    metavar: str | None = None,
    decides: bool = True,
    before: Any = _SAME,
    read: bool = False,
) -> Any:
    """A field that is an option.

    Args:
        group: its heading in ``--help``.
        text: its help.
        default: its default; MISSING: it is required.
        kind: type for click; None: derived from the type of the field by :func:`_kind`.
        metavar: what ``--help`` shows for the value.
        decides: whether it may change a bit of the result; if not, a resumed run may change the option.
        before: value for records from before the option existed, where that is not the default.
        read: whether it may name a file, whose content then enters the identity of a run instead of its name.
    """
    more = {"group": group, "help": text, "kind": kind, "metavar": metavar, "decides": decides}
    return field(default=default, metadata=more | {"before": before, "read": read})


def like(other: type[Options], name: str, **changes: Any) -> Any:
    """A field that is the same option as that of another command.

    Args:
        other: the options that hold it.
        name: of the field.
        changes: arguments of :func:`declared` that differ.
    """
    (one,) = (one for one in fields(other) if one.name == name)
    return field(default=one.default, metadata={**one.metadata, **changes})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base class of the options of a command.

    A field has the name of its option; its metadata hold the text for ``--help``. Values are plain, since ``run.json`` holds
    the record of this class.
    """

    @classmethod
    def from_record(cls, record: object) -> Self:
        """The options of a run, of this version or an older one.

        Raises:
            ValueError: an option is unknown here, or has a value that it cannot have.
        """
        from mtdcore._base.records import from_record

        old = {one.name: one.metadata["before"] for one in fields(cls) if one.metadata["before"] is not _SAME}
        found = from_record(cls, {**old, **record} if isinstance(record, Mapping) else record)
        for name, kind in _kinds(cls).items():
            value = getattr(found, name)
            try:
                if value is not None:
                    kind.convert(value, None, None)
            except click.BadParameter as problem:
                raise ValueError(f"{name}: {problem.message}") from problem
        return found

    def described(self) -> dict[str, Any]:
        """The options by name; a None is replaced by the default that its help text names, or by "none"."""
        texts = {one.name: one.metadata["help"].partition("Default: ")[2].rstrip(".") for one in fields(self)}
        own = {name: getattr(self, name) for name in texts}
        return {name: texts[name] or "none" if value is None else value for name, value in own.items()}

    def deciding(self) -> dict[str, Any]:
        """The options that may change a bit of the result, by name; a file is represented by the hash of its content."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.metadata["decides"]}
        for one in fields(self):
            if one.metadata["read"] and own[one.name] is not None and Path(own[one.name]).is_file():
                content = Path(own[one.name]).read_bytes()
                own[one.name] = "sha256:" + hashlib.sha256(content).hexdigest()[:16]
        return own


def options_of(declaring: type[Options]) -> Callable[[F], F]:
    """Decorator of a command: adds the options that a class declares."""

    def add(function: F) -> F:
        for one in reversed(fields(declaring)):
            function = click.option(
                _flag(one.name, one.default, kinds[one.name]),
                cls=GroupedOption,
                **{name: one.metadata[name] for name in ("help", "group", "metavar")},
                **_value(one.default, kinds[one.name]),
            )(function)
        return function

    kinds = _kinds(declaring)
    return add


def _flag(name: str, default: Any, kind: click.ParamType[Any]) -> str:
    """``--name``; with ``--no-name`` for a switch whose default is not False."""
    flag = name.replace("_", "-")
    return f"--{flag}/--no-{flag}" if kind is click.BOOL and default is not False else f"--{flag}"


def _value(default: Any, kind: click.ParamType[Any]) -> dict[str, Any]:
    """Type and default as keyword arguments of click."""
    if kind is click.BOOL:
        return {"is_flag": True, "default": default}
    if default is MISSING:
        return {"type": kind, "required": True}
    return {"type": kind, "default": default, "show_default": default is not None}


def _kinds(declaring: type[Options]) -> dict[str, click.ParamType[Any]]:
    """The type of every option for click."""
    hints = get_type_hints(declaring)
    return {one.name: one.metadata["kind"] or _kind(hints[one.name]) for one in fields(declaring)}


def _kind(hint: Any) -> click.ParamType[Any]:
    """Literal words become a choice, numbers must be positive, a union of both accepts either."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    words = [word for member in members for word in get_args(member)]
    plain = [member for member in members if not get_args(member) and member is not NoneType]
    if not plain:
        return click.Choice(words)
    if words:
        return CountOr(*words) if plain == [int] else NumberOr(*words)
    kinds: dict[Any, click.ParamType[Any]] = {
        int: COUNT,
        float: POSITIVE,
        str: click.STRING,
        bool: click.BOOL,
        Path: PATH,
    }
    return kinds[plain[0]]
