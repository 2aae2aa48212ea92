"""Deliberate faults: small changes of meaning to core modules, one at a time; how many do the fast tests notice?

    python bench/faults.py --first 0 --count 20 -o faults.jsonl      # in pieces; what is in the file already is not repeated
    python bench/faults.py --again -o faults.jsonl                   # survivors once more, after tests were written for them
    python bench/faults.py --list                                    # the sixty, without running anything

Faults are chosen at random, with a fixed seed, from all places where a comparison, a sum, a product, a logical word or a small
number can be another one, as mutmut and cosmic-ray do; other sources give others. They are made in a copy of the repository.

The fast suite runs once under coverage, which tells the tests that run each statement and how long they take. That is kept beside
the output, and test files that change are traced again. A fault then meets the tests of its own folder that run the changed
statement, the fastest first; only one that survives them meets all others that do. Of a statement that runs once, at import, all
tests that run anything of its module are asked. Compiled code and processes that a test starts are not traced.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]

#: Modules that are changed, and where the tests are that should notice first.
MODULES = {
    "mtdcore/_base/*.py": "tests/base/",
    "mtdcore/data/*.py": "tests/data/",
    "mtdcore/data/micrographs/*.py": "tests/data/",
    "mtdcore/data/preparation/*.py": "tests/data/",
    "mtdcore/data/zarr/*.py": "tests/data/",
    "mtdcore/model/*.py": "tests/model/",
    "mtdcore/model/likelihood/*.py": "tests/model/",
    "mtdcore/estep/*.py": "tests/estep/",
    "mtdcore/estep/volumes/*.py": "tests/estep/",
    "mtdcore/mstep/*.py": "tests/mstep/",
    "mtdcore/em/*.py": "tests/em/",
    "mtdcore/em/gauge/*.py": "tests/em/",
    "mtdcore/em/plan/*.py": "tests/em/",
    "mtdcore/results/*.py": "tests/results/",
    "mtdcore/synthetic/*.py": "tests/synthetic/",
}

COUNT, SEED = 60, 1

#: Seconds, by their time without a fault, of the tests that a fault meets first, and of those that a survivor meets.
NEAR, FAR = 30.0, 30.0

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
    """The faults with the folder of their tests: the same number of every room, as far as it goes, in random order."""
    chance = random.Random(SEED)
    rooms = []
    for pattern, tests in MODULES.items():
        found = [(fault, tests) for path in sorted(ROOT.glob(pattern)) for fault in faults(path)]
        chance.shuffle(found)
        rooms.append(found)
    dealt = [room[turn] for turn in range(COUNT) for room in rooms if turn < len(room)]
    return dealt[:COUNT]


def statement(fault: Fault) -> range:
    """Lines of the statement that a fault is in; of a statement with a body, its head."""
    lines = range(fault.line, fault.line + 1)
    for node in ast.walk(ast.parse((ROOT / fault.path).read_bytes())):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            stop = body[0].lineno if body else (node.end_lineno or node.lineno) + 1
            if fault.line in range(node.lineno, stop):
                lines = range(
                    node.lineno, stop
                )  # the walk goes from the outside in: the last one is the innermost
    return lines


class Copy:
    """A copy of the repository, to run tests in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(
            ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv", ".hypothesis", "foreign")
        )

    def pytest(self, tests: Iterable[str], *words: str, patience: float | None = None) -> tuple[int, str]:
        """Run tests: the exit code and what they said. Those that take longer than ``patience`` seconds fail."""
        (self.folder / ".tests").write_text("\n".join(tests))
        packages = os.pathsep.join(str(self.folder / name) for name in (".", "bridge", "cli"))
        # the tracer that tells which test runs a line is the older one
        environment = os.environ | {"PYTHONPATH": packages, "OMP_NUM_THREADS": "1", "COVERAGE_CORE": "ctrace"}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "not slow",
            "-p",
            "no:cacheprovider",
            *words,
            "@.tests",
        ]
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=patience)
                return process.returncode, said
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return 1, "FAILED the tests hang"


class Traces:
    """Which tests run a line, and how long they take; kept in a file, by test file.

    Args:
        file: where they are kept. Traces of other sources are forgotten.
        places: (path, line) of the lines that matter.
    """

    def __init__(self, file: Path, places: set[tuple[str, int]]) -> None:
        self._file, self._places = file, places
        sources = [path for folder in ("mtdcore", "bridge", "cli") for path in (ROOT / folder).rglob("*.py")]
        self._sources = _digest([*sources, *(ROOT / "tests").rglob("conftest.py")], repr(sorted(places)))
        kept = json.loads(file.read_text()) if file.exists() else {}
        self._by_file: dict[str, Any] = kept["files"] if kept.get("sources") == self._sources else {}

    def refresh(self, copy: Copy, processes: int) -> None:
        """Trace test files that are new or have changed."""
        digests = {
            str(path.relative_to(ROOT)): _digest([path])
            for path in sorted((ROOT / "tests").rglob("test_*.py"))
        }
        known = {name: found for name, found in self._by_file.items() if digests.get(name) == found["digest"]}
        stale = [name for name in digests if name not in known]
        if not stale:
            return
        print(f"tracing {len(stale)} files of tests", flush=True)
        words = ("--cov=mtdcore", "--cov-context=test", "--cov-report=", "--durations=0", "-vv")
        _, said = copy.pytest(stale, *words, "-n", str(processes))
        self.add(copy.folder / ".coverage", copy.folder, said, {name: digests[name] for name in stale}, known)

    def add(
        self, data: Path, folder: Path, said: str, digests: dict[str, str], known: dict[str, Any]
    ) -> None:
        """Take in the data of a run, and what pytest said about it; tests that fail without a fault are left out."""
        from coverage import CoverageData

        traces = CoverageData(str(data))
        traces.read()
        failing = {name for name in re.findall(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - |$)", said, re.MULTILINE)}
        for name in sorted(failing):
            print(f"fails without a fault, and is not asked: {name}")
        found: dict[str, Any] = {
            name: {"digest": digest, "seconds": {}, "lines": {}, "modules": {}}
            for name, digest in digests.items()
        }
        for seconds, test in re.findall(
            r"^([\d.]+)s (?:call|setup|teardown) +(\S+::.*)$", said, re.MULTILINE
        ):
            if test not in failing:
                times = found[test.partition("::")[0]]["seconds"]
                times[test] = times.get(test, 0.0) + float(seconds)
        for path in {path for path, _ in self._places}:
            tests_of = traces.contexts_by_lineno(str(folder / path))
            for line, contexts in tests_of.items():
                for test in {context.rpartition("|")[0] for context in contexts} - {""} - failing:
                    one = found[test.partition("::")[0]]
                    one["seconds"].setdefault(test, 0.0)
                    one["modules"].setdefault(path, {})[test] = None
                    if (path, line) in self._places:
                        one["lines"].setdefault(f"{path}:{line}", []).append(test)
        self._by_file = known | found
        self._file.write_text(json.dumps({"sources": self._sources, "files": self._by_file}))

    def of(self, fault: Fault, home: str) -> tuple[dict[str, float], dict[str, float]]:
        """Tests with their seconds: those at home that run the changed statement, and all others that may notice."""
        near, others, module = {}, {}, {}
        places = [f"{fault.path}:{line}" for line in statement(fault)]
        for name, one in self._by_file.items():
            running = {test for place in places for test in one["lines"].get(place, ())}
            for test in one["modules"].get(fault.path, ()):
                kind = module if test not in running else near if name.startswith(home) else others
                kind[test] = one["seconds"][test]
        return _fastest_first(near), _fastest_first(others if near or others else module)


def _fastest_first(tests: dict[str, float]) -> dict[str, float]:
    return dict(sorted(tests.items(), key=lambda one: one[1]))


def _digest(paths: Iterable[Path], more: str = "") -> str:
    digest = hashlib.sha256(more.encode())
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def meet(copy: Copy, fault: Fault, traces: Traces, home: str) -> dict[str, Any]:
    """Make a fault and run its tests: whether one notices, which, and how many were asked."""
    file = copy.folder / fault.path
    good, times = file.read_bytes(), file.stat()
    near, others = traces.of(fault, home)
    asked, began = 0, time.monotonic()
    told: dict[str, Any] = {"noticed": False, "by": None}
    file.write_bytes(good[: fault.start] + fault.new.encode() + good[fault.stop :])
    try:
        for tests, limit in ((near, NEAR), (others, FAR)):
            within = [
                test for test, sum_ in zip(tests, accumulate(tests.values()), strict=True) if sum_ <= limit
            ]
            if not within:
                continue
            patience = 120 + 5 * sum(tests[test] for test in within)
            code, said = copy.pytest(within, "-x", patience=patience)
            if code == 4 and "not found:" in said:  # parameters have other names under the fault
                code, said = copy.pytest(
                    {test.partition("::")[0]: 0 for test in within}, "-x", patience=patience
                )
            asked += len(within)
            if code not in (0, 5):
                failed = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", said, re.MULTILINE)
                told = {"noticed": True, "by": failed[0] if failed else said.strip().splitlines()[-1]}
                break
    finally:
        file.write_bytes(good)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    left = 0 if told["noticed"] else len(near) + len(others) - asked
    return told | {"tests": asked, "tests_left_out": left, "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    """Run the faults that are asked for, and sum up the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--again", action="store_true", help="survivors once more")
    parser.add_argument("--processes", type=int, default=2, help="that trace the tests")
    parser.add_argument("-o", "--output", type=Path, default=Path("faults.jsonl"))
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    every = chosen()
    if given.list:
        for number, (fault, _) in enumerate(every):
            print(f"{number:2}  {fault.path}:{fault.line}  {fault.old.strip()!r} -> {fault.new!r}")
        return
    lines = given.output.read_text().splitlines() if given.output.exists() else []
    known = {(one["path"], one["start"], one["new"]): one for one in map(json.loads, lines)}
    places = {(fault.path, line) for fault, _ in every for line in statement(fault)}
    traces = Traces(given.output.with_suffix(".traces.json"), places)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Copy(Path(scratch).resolve() / "copy")
        traces.refresh(copy, given.processes)
        for fault, home in every[given.first : given.first + given.count]:
            key = (fault.path, fault.start, fault.new)
            wanted = given.again and not known[key]["noticed"] if key in known else not given.again
            if not wanted:
                continue
            known[key] = fault._asdict() | meet(copy, fault, traces, home)
            given.output.write_text("".join(json.dumps(one) + "\n" for one in known.values()))
            word = "noticed " if known[key]["noticed"] else "SURVIVED"
            change = f"{fault.old.strip()!r} -> {fault.new!r}"
            print(f"{word}  {fault.path}:{fault.line}  {change}  {known[key]['seconds']} s", flush=True)
    print(f"{sum(one['noticed'] for one in known.values())} of {len(known)} noticed")


if __name__ == "__main__":
    main()
