"""Pages that need neither the repository nor a script: links to files that are no pages become their names, formulas MathML."""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

_LINK = re.compile(r"\[([^\]]+)\]\((?!\w+:|#)([^)#\s]+)(?:#[^)\s]*)?\)")

#: A formula of its own, as code hosts write it.
_DISPLAYED = re.compile(r"^```math\n(.*?)\n```$", re.DOTALL | re.MULTILINE)

#: What arithmatex makes of a formula.
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """A hook of MkDocs: the text of a page before it is rendered."""
    folder, root = Path(page.file.abs_src_path).parent, Path(config.config_file_path).parent

    def followed(link: re.Match[str]) -> str:
        place = (folder / link[2]).resolve()
        if place.is_relative_to(config.docs_dir) or not place.exists():
            return link[0]
        return f"{link[1]} (`{place.relative_to(root)}`)"

    return _LINK.sub(followed, _DISPLAYED.sub(r"\n$$\n\1\n$$\n", markdown))


def on_page_content(content: str, *, page: Any, config: Any, files: Any) -> str:
    """A hook of MkDocs: the page after it is rendered."""

    def shown(formula: re.Match[str]) -> str:
        return convert(html.unescape(formula[2]), display="block" if formula[1] == "div" else "inline")

    return _FORMULA.sub(shown, content)
