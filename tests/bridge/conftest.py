"""The bridge is an extra: without torch its tests are left out, except the one that says what happens then."""

from importlib.util import find_spec
from pathlib import Path

NEEDS_NOTHING = {"test_import.py"}

collect_ignore = (
    []
    if find_spec("torch") and find_spec("safetensors")
    else [path.name for path in Path(__file__).parent.glob("test_*.py") if path.name not in NEEDS_NOTHING]
)
