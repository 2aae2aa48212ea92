"""Docstrings name objects as Sphinx does, ``:class:`Views```; the pages show them as code."""

import re

import griffe

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?\.*([^`]+)`")
_LITERAL = re.compile(r"^(.*[^:\s])?::$", re.MULTILINE)


class Roles(griffe.Extension):
    """Turns every role into code, and the double colon before a block into one or none."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Called once for each module, class, function and attribute."""
        if obj.docstring:
            code = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = _LITERAL.sub(lambda before: f"{before[1]}:" if before[1] else "", code)
