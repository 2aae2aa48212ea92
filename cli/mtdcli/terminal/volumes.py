"""``--volume``: the same command for volumes, with options of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class WithVolume(click.Command):
    """A command that hands its command line to another one where ``--volume`` is given.

    Attributes:
        volume_module: of ``mtdcli.commands``, whose ``command`` takes over.
    """

    volume_module = ""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command that the arguments ask for."""
        if "--volume" not in args:
            return super().make_context(info_name, args, parent, **extra)
        rest = [word for word in args if word != "--volume"]
        module = importlib.import_module(f"mtdcli.commands.{self.volume_module}")
        other: click.Command = module.command
        return other.make_context(info_name, rest, parent, **extra)


def volume_option(command: str) -> Callable[[F], F]:
    """``--volume`` in the help of a command; :class:`WithVolume` acts on it."""
    return click.option(
        "--volume",
        is_flag=True,
        expose_value=False,
        help=f"Of a volume and its projections; options: mtd {command} --volume --help.",
    )
