"""``mtd demo``: the published method and the default one on glyphs hidden in noise, and both on noise alone."""

from __future__ import annotations

from pathlib import Path

import click

from ..run.lock import locked
from ..terminal.console import emit, force_option, json_option, log
from ..terminal.options import FROM_ZERO, PATH, option
from ..terminal.volumes import WithVolume


@click.command("demo", cls=WithVolume)
@option("-o --output", "Folder to write.", PATH, "mtd-demo")
@option("--seed", "Chooses glyphs, places and noise.", FROM_ZERO, 0)
@force_option
@json_option
def command(output: Path, seed: int, force: bool, as_json: bool) -> None:
    """Hide copies of a glyph in noise (SNR 0.5) and recover it by the published and the default method.

    Three glyphs and noise alone are tried. Needs no data and no GPU, and takes about a minute. With PyTorch a learned prior
    is shown too.
    """
    from ..reproduce.demo import demo
    from ..run.folder import RunFolder, refuse_to_replace
    from ..run.output import refuse_page

    folder = RunFolder(output)
    refuse_to_replace(folder.page, force)
    refuse_page(folder.page)
    with locked(folder.path):
        table = demo(folder, seed)
    emit({"methods": table, "report": str(folder.page)}, as_json)
    log(f"open {folder.page.absolute()} in a browser")
