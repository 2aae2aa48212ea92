"""Deliberate faults: small changes of meaning to core modules, one at a time; how many do the fast tests notice?

    python bench/faults.py --first 0 --count 20 -o faults.jsonl      # in pieces; what is in the file already is not repeated
    python bench/faults.py --list                                    # the sixty, without running anything

Faults are chosen at random, with a fixed seed, from all places where a comparison, a sum, a product, a logical word or a small
number can be another one, as mutmut and cosmic-ray do. They are made in a copy of the repository; of the tests those of the module's
own folder run first, then those that use it.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

#: Modules that are changed, and the tests that should notice, in the order in which they run.
MODULES = {
    "mtdcore/_base/*.py": "tests/base tests/reliability/test_row21_outputs.py tests/reliability/test_row23_untrusted_folders.py",
    "mtdcore/data/*.py": "tests/data",
    "mtdcore/data/micrographs/*.py": "tests/data tests/results/test_relion.py",
    "mtdcore/data/preparation/*.py": "tests/data tests/cli/test_import.py",
    "mtdcore/data/zarr/*.py": "tests/data tests/reliability/test_row08_chunks.py tests/reliability/test_row18_untrusted_zarr.py",
    "mtdcore/model/*.py": "tests/model tests/estep/test_estep.py tests/estep/test_backends.py",
    "mtdcore/model/likelihood/*.py": "tests/model tests/estep tests/em/test_em.py",
    "mtdcore/estep/*.py": "tests/estep tests/em/test_em.py",
    "mtdcore/mstep/*.py": "tests/mstep tests/em",
    "mtdcore/em/*.py": "tests/em",
    "mtdcore/em/gauge/*.py": "tests/em",
    "mtdcore/results/*.py": "tests/results",
    "mtdcore/synthetic/*.py": "tests/synthetic",
}

COUNT, SEED = 60, 1

#: After which the tests hang, seconds: that is noticed too.
PATIENCE = 1800

_COMPARISONS = {"Lt": "<=", "LtE": "<", "Gt": ">=", "GtE": ">", "Eq": "!=", "NotEq": "=="}
_OPERATORS = {"Add": "-", "Sub": "+", "Mult": "/", "Div": "*", "FloorDiv": "*"}
_SIGNS = {"Lt": "<", "LtE": "<=", "Gt": ">", "GtE": ">=", "Eq": "==", "NotEq": "!="} | {
    "Add": "+", "Sub": "-", "Mult": "*", "Div": "/", "FloorDiv": "//", "And": "and", "Or": "or",
}  # fmt: skip


class Fault(NamedTuple):
    """One change: bytes ``start`` to ``stop`` of a file become ``new``."""

    path: str
    line: int
    start: int
    stop: int
    old: str
    new: str


def faults(path: Path) -> Iterator[Fault]:
    """Every change that can be made to a file."""
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    tree = ast.parse(source)
    hints = {id(part) for node in ast.walk(tree) for part in _annotations(node)}

    def place(line: int, column: int) -> int:
        return starts[line - 1] + column

    def between(left: ast.expr, right: ast.expr, sign: str, new: str) -> Iterator[Fault]:
        first = place(left.end_lineno or 0, left.end_col_offset or 0)
        last = place(right.lineno, right.col_offset)
        at = source[first:last].find(sign.encode())
        if at >= 0:
            yield Fault(
                str(path.relative_to(ROOT)), left.lineno, first + at, first + at + len(sign), sign, new
            )

    for node in ast.walk(tree):
        if id(node) in hints:
            continue
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op).__name__ in _COMPARISONS:
                name = type(op).__name__
                yield from between(left, right, _SIGNS[name], _COMPARISONS[name])
            case ast.BinOp(left=left, op=op, right=right) if type(op).__name__ in _OPERATORS:
                name = type(op).__name__
                yield from between(left, right, _SIGNS[name], _OPERATORS[name])
            case ast.BoolOp(op=op, values=[left, right, *_]):
                name = type(op).__name__
                yield from between(left, right, _SIGNS[name], {"And": "or", "Or": "and"}[name])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                first = place(node.lineno, node.col_offset)
                stop = place(operand.lineno, operand.col_offset)
                yield Fault(str(path.relative_to(ROOT)), node.lineno, first, stop, "not ", "")
            case ast.Constant(value=int(value)) if type(value) is int and abs(value) < 100:
                first, stop = (
                    place(node.lineno, node.col_offset),
                    place(node.end_lineno or 0, node.end_col_offset or 0),
                )
                yield Fault(str(path.relative_to(ROOT)), node.lineno, first, stop, str(value), str(value + 1))


def _annotations(node: ast.AST) -> Iterator[ast.AST]:
    """What says a type, whose ``|`` and numbers mean nothing when the code runs."""
    for name in ("annotation", "returns"):
        part = getattr(node, name, None)
        if isinstance(part, ast.AST):
            yield from ast.walk(part)


def chosen() -> list[tuple[Fault, str]]:
    """The faults with their tests: the same number of every folder, as far as it goes, in random order."""
    chance = random.Random(SEED)
    rooms = []
    for pattern, tests in MODULES.items():
        found = [(fault, tests) for path in sorted(ROOT.glob(pattern)) for fault in faults(path)]
        chance.shuffle(found)
        rooms.append(found)
    dealt = [room[turn] for turn in range(COUNT) for room in rooms if turn < len(room)]
    return dealt[:COUNT]


def noticed(copy: Path, fault: Fault, tests: str) -> tuple[bool, str]:
    """Whether a test fails, and the last line of what the tests said."""
    file = copy / fault.path
    good = file.read_bytes()
    bad = good[: fault.start] + fault.new.encode() + good[fault.stop :]
    file.write_bytes(bad)
    folders = os.pathsep.join(str(copy / name) for name in (".", "bridge", "cli"))
    environment = {**os.environ, "PYTHONPATH": folders, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        *tests.split(),
    ]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return done.returncode != 0, (done.stdout.strip().splitlines() or ["no output"])[-1]
    except subprocess.TimeoutExpired:
        return True, "the tests hang"
    finally:
        file.write_bytes(good)


def main() -> None:
    """Run the faults that are asked for, and sum up the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("-o", "--output", type=Path, default=Path("faults.jsonl"))
    parser.add_argument("--list", action="store_true")
    asked = parser.parse_args()
    every = chosen()
    if asked.list:
        for number, (fault, _) in enumerate(every):
            print(f"{number:2}  {fault.path}:{fault.line}  {fault.old.strip()!r} -> {fault.new!r}")
        return
    known = (
        [json.loads(line) for line in asked.output.read_text().splitlines()] if asked.output.exists() else []
    )
    done = {(one["path"], one["start"], one["new"]) for one in known}
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.nbc", "foreign")
        )
        healthy: set[str] = set()
        for fault, tests in every[asked.first : asked.first + asked.count]:
            if (fault.path, fault.start, fault.new) in done:
                continue
            if tests not in healthy:
                fails, said = noticed(copy, fault._replace(new=fault.old), tests)
                if fails:
                    sys.exit(f"{tests} should pass without a fault; they do not: {said}")
                healthy.add(tests)
            began = time.monotonic()
            found, said = noticed(copy, fault, tests)
            line = {
                **fault._asdict(),
                "noticed": found,
                "said": said,
                "seconds": round(time.monotonic() - began, 1),
            }
            known.append(line)
            with open(asked.output, "a") as file:
                file.write(json.dumps(line) + "\n")
            print(
                f"{'noticed' if found else 'SURVIVED'}  {fault.path}:{fault.line}  {fault.old.strip()!r} -> {fault.new!r}",
                flush=True,
            )
    print(f"{sum(one['noticed'] for one in known)} of {len(known)} noticed")


if __name__ == "__main__":
    main()
