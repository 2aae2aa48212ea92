"""Damaged files for every reader: good ones (specimens.py) are mutated and read, many times, with memory capped.

    python fuzzing.py FOLDER CASES SEED [KIND ...]

Prints one JSON line per kind: cases, refusals. Anything but success or an error of ours ends the process with a
traceback; a crash or a hang is seen by whoever started it.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from specimens import KINDS

from mtdcore.errors import MtdError

#: After which a reader hangs (kernels may have to be compiled), and address space that it may have beside what is loaded.
SECONDS, MEMORY = 300, 6 << 30

TOKENS = [
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"99999999999",
    b"../../x",
    b"\x00",
    b"\xff" * 4,
    b'"name"',
]


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A few random changes: bits, bytes, cuts, repeats, swaps, and words that parsers trip over."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        at, size = chance.randrange(len(data)), chance.choice((1, 2, 4, 8, 64))
        match chance.randrange(7):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + size] = chance.randbytes(size)
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = data[at : at + size]
            case 4:
                data[at : at + size] = chance.choice(TOKENS)
            case 5:
                del data[at:]
            case 6:
                data[at : at + size] = chance.choice((b"\x00", b"\xff", b"\x7f")) * size
    return bytes(data)


VALUES = (
    None,
    True,
    -1,
    0,
    10**9,
    1e308,
    0.5,
    "",
    "x",
    "../../x",
    "NaN",
    [],
    [1],
    {},
    {"a": 1},
    float("inf"),
)


def exchanged(content: bytes, chance: random.Random) -> bytes:
    """JSON that stays JSON: entries replaced, taken out, or put under other names."""
    tree = json.loads(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        node, key = chance.choice([*entries(tree)])
        match chance.randrange(3):
            case 0:
                node[key] = chance.choice(VALUES)
            case 1:
                del node[key]
            case 2:
                node[key] = chance.choice([*entries(tree)])[0]
        try:
            json.dumps(tree)
        except ValueError:  # a tree within itself
            return content[: chance.randrange(len(content))]
        if not [*entries(tree)]:
            break
    return json.dumps(tree).encode()


def entries(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a tree."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [(tree, key) for key in keys] + [found for key in keys for found in entries(tree[key])]


def fuzz(name: str, folder: Path, cases: int, seed: int) -> dict[str, object]:
    make, read, inside = KINDS[name]
    folder = folder / name.replace(".", "_")
    folder.mkdir()
    path, chance, refused = folder / name, random.Random(f"{name} {seed}"), 0
    make(path)
    read(path)
    files = [path / name for name in inside] or [path]
    good = {file: file.read_bytes() for file in files}
    for case in range(cases):
        file = chance.choice(files)
        tree = file.suffix == ".json" and chance.random() < 0.5
        content = (exchanged if tree else mutated)(good[file], chance)
        file.write_bytes(content)
        signal.alarm(SECONDS)
        try:
            read(path)
        except MtdError:
            refused += 1
        except BaseException:
            print(f"{name} case {case}: {file.name} {content[:2000]!r}", file=sys.__stderr__, flush=True)
            raise
        finally:
            signal.alarm(0)
        file.write_bytes(good[file])
    return {"kind": name, "cases": cases, "refused": refused}


def main(folder: Path, cases: int, seed: int, kinds: list[str]) -> None:
    warnings.simplefilter("ignore")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(os.devnull, "w") as nowhere:
        for name in kinds or KINDS:
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                found = fuzz(name, folder, cases, seed)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
