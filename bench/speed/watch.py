"""``mtd watch``: the pace of micrographs as they come, what it costs to be killed, and how much is best forgotten.

    python bench/speed/watch.py --side 4096 --count 4 --box 64 --rotations 36 --threads 2      # seconds for each after the first
    python bench/speed/watch.py --kills 10 --count 200 --side 2048 -o FOLDER                   # killed while micrographs are dropped
    python bench/speed/watch.py --exponents                                                    # error by exponent of the weights

The second runs ``tests/reliability/watching.py``: same bits as one batch run in the same order, nothing lost or counted twice. The
folder needs 16 bytes a pixel.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import mtdcore as mtd
from mtdcore.em.online.batches import Arriving
from mtdcore.em.online.stream import Stream, first_state
from mtdcore.results.metrics import relative_error
from mtdcore.synthetic.glyphs import glyphs

ROOT = Path(__file__).parents[2]


def pace(side: int, count: int, box: int, rotations: int, threads: int, folder: Path) -> None:
    """Wall and processor seconds of each micrograph after the first, from file to commit."""
    import mrcfile

    glyph, arriving = glyphs(1, box, 1)[0], folder / "arriving"
    arriving.mkdir()
    shape = {"shape": (side, side), "density": 0.08, "snr": 0.1, "rotations": rotations}
    for i in range(count):
        pixels = np.asarray(mtd.simulate(glyph, **shape, seed=i).measurement).reshape(side, side)
        with mrcfile.new(arriving / f"m{i:04d}.mrc") as file:
            file.set_data((100.0 - pixels).astype(np.float32))
    # what is timed is what each further micrograph costs: one iteration on the first one is enough to have a target
    words = f"--box-size {box} --rotations {rotations} --iterations 1 --starts 1 --first 1 --every {count + 1} --settle 0 --once"
    command = [sys.executable, "-c", "from mtdcli.main import main; main()", "watch", str(arriving)]
    command += ["-o", str(folder / "run"), *words.split(), "--threads", str(threads), "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "micrograph":
            ticks = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
            cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
            shown = {name: event[name] for name in ("number", "seconds", "picks", "evidence_nats")}
            print(
                json.dumps({**shown, "cpu_seconds_so_far": cpu, "per_hour": 3600 / event["seconds"]}),
                flush=True,
            )
    assert process.wait() == 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"peak_mib": round(peak)}))


def exponents(first: int = 10, count: int = 60) -> None:
    """Error after micrographs of 130 x 130 pixels, beside a recovery of all of them at once."""
    options = {"box_size": 12, "rotations": 4, "backend": "cpu", "noise": "white", "min_separation": 12}
    names = ("prior", "update", "diameter")
    more = {**dict.fromkeys(names), "coarse_rotations": "auto", "iterations": 60, "tolerance": 1e-5}
    more |= {"noise_std": "auto", "offset": "auto", "backend": mtd.get_backend("cpu")}
    for snr in (1.0, 0.3):
        for seed in (1, 2, 3):
            glyph = glyphs(1, 12, seed)[0]
            shape = {"shape": (130, 130), "density": 0.1, "snr": snr, "rotations": 4}
            stack = np.asarray(mtd.simulate(glyph, **shape, micrographs=count, seed=seed).measurement)
            begun = mtd.recover(stack[:first], **options)
            batch = mtd.recover(stack, initial=begun.target, **options)
            found = {"first": begun.target, "batch": batch.target}
            for exponent in (0.6, 0.75, 0.9, 1.0):
                state = first_state(begun, first)
                stream = Stream.of(mtd.open_measurement(stack[0]), state, more)
                stream = Stream(replace(stream.plan, online=Arriving(exponent=exponent)))
                for one in stack[first:]:
                    state = stream(state, mtd.open_measurement(one), None)
                found[f"exponent {exponent}"] = state.target
            errors = {name: round(relative_error(image, glyph, 4, 2), 4) for name, image in found.items()}
            print(json.dumps({"snr": snr, "seed": seed, **errors}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--rotations", type=int, default=36)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--exponents", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    if given.exponents:
        exponents()
        return
    if given.output is not None:
        given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.output) as scratch:
        if given.kills is None:
            pace(given.side, given.count, given.box, given.rotations, given.threads, Path(scratch))
            return
        began = time.monotonic()
        script = str(ROOT / "tests/reliability/watching.py")
        numbers = map(str, (given.count, given.side, given.kills, 1))
        subprocess.run([sys.executable, script, scratch, *numbers], check=True)
        print(json.dumps({"seconds_in_all": time.monotonic() - began}))


if __name__ == "__main__":
    main()
