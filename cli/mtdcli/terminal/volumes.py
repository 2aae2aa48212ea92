"""``--volume``: the variants of commands for volumes, which have their own options."""

from __future__ import annotations

import importlib
from typing import Any

import click

from .options import with_help

#: Example for the help of each command with ``--volume``.
_EXAMPLES = {
    "recover": "mtd recover measurement.zarr --volume -o run --box-size 32 --symmetry D2",
    "demo": "mtd demo --volume -o demo",
    "evaluate": "mtd evaluate run --volume --truth truth.mrc",
    "simulate": "mtd simulate protein --volume -o simulation.zarr --snr 1",
}


class WithVolume(click.Command):
    """A command NAME that passes its arguments to the command of ``mtdcli.commands.NAME_volume`` where ``--volume`` is given."""

    def __init__(self, name: str, **named: Any) -> None:
        super().__init__(name, **named)
        text = f"Of a volume and its projections; options: mtd {name} --volume --help."
        self.params.insert(0, click.Option(["--volume"], is_flag=True, expose_value=False, help=text))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command that the arguments ask for."""
        if "--volume" not in args:
            return super().make_context(info_name, args, parent, **extra)
        rest = [word for word in args if word != "--volume"]
        other: click.Command = importlib.import_module(f"mtdcli.commands.{self.name}_volume").command
        with_help(other, _EXAMPLES[str(self.name)])
        return other.make_context(f"{info_name} --volume", rest, parent, **extra)
