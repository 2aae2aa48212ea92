"""Self-contained HTML pages: one template, pictures as data URIs."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from mtdcore._base.files import write_whole
from mtdcore.drawing.images import data_uri


def write_page(path: Path, template: str, **context: Any) -> None:
    """Render a template of ``mtdcli/report/templates`` to a file; arguments as of :func:`render`."""
    html = render(template, **context)
    write_whole(path, lambda file: file.write(html))


def render(template: str, **context: Any) -> bytes:
    """A template of ``mtdcli/report/templates``, filled in.

    Every value is escaped. ``bytes`` anywhere in the context are PNG pictures and become data URIs.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mtdcli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(
        version=importlib.metadata.version("mtdcore"), **_embed(context)
    )
    return html.encode("utf-8", "replace")


def _embed(value: Any) -> Any:
    if isinstance(value, bytes):
        return data_uri(value)
    if isinstance(value, dict):
        return {key: _embed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_embed(item) for item in value]
    return value
