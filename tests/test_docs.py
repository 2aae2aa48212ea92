"""The documents name files that are there, and link to them; the benches import names that are there."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *sorted(ROOT.glob("docs/**/*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "bench/README.md")),
]

#: A path from the root of the repository.
PATH = re.compile(r"(?<![\w./-])(?:tests|mtdcore|bench|docs|bridge|cli)/[\w./-]*\w")

#: A test file without its folder.
TEST = re.compile(r"(?<![\w./-])test_\w+\.py")

LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def missing(document, text):
    """What a document names and is not there."""
    names = [name for name in PATH.findall(text) if not (ROOT / name).exists()]
    tests = [name for name in TEST.findall(text) if not any(ROOT.glob(f"tests/**/{name}"))]
    links = [
        link for link in LINK.findall(text) if "://" not in link and not (document.parent / link).exists()
    ]
    return names + tests + links


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_in_documents_exist(document):
    assert missing(document, document.read_text()) == []


def test_missing_files_are_noticed():
    text = "`tests/core/gone.py`, `test_gone.py::test_it`, [here](gone.md#part), [there](https://example.org/gone)"
    assert missing(ROOT / "README.md", text) == ["tests/core/gone.py", "test_gone.py", "gone.md"]
    assert missing(ROOT / "docs/gpu.md", "`mtdcore/em/recover.py`, `test_em.py`, [there](trust.md)") == []


@pytest.mark.parametrize(
    "script", sorted(ROOT.glob("bench/**/*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_benches_import_what_is_there(script, monkeypatch):
    """They run by hand, and would rot unseen."""
    monkeypatch.syspath_prepend(script.parent)
    name = f"bench_{script.stem}"
    spec = importlib.util.spec_from_file_location(name, script)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] in ("mtdcore", "mtdbridge", "mtdcli"):
            raise
        pytest.skip(f"{error.name} is not installed")
