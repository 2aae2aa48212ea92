"""What decides whether a volume comes back: nats per copy that tell the orientation (J), and the number of copies.

    python bench/accuracy/volume_boundary.py path/to/proteins.npz -o boundary.json --plot docs/images/boundary.png

Cold starts of test proteins of 250 to 400 residues in boxes of 16, over a grid of signal-to-noise ratios and copies. Rows are kept in the
file: the same command goes on where it stopped. *Shape* is the correlation of what is not spherically symmetric, after alignment over rotation,
shift and hand (chance .45 to .76); the oracle knows the poses.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import volumes

from mtdcore.em.volumes.plan import last_band
from mtdcore.em.volumes.recover import recover_volume
from mtdcore.results.volumes import orientation_information
from mtdcore.synthetic.particles import simulate_volume

BOX = 16
SNRS = (0.1, 0.2, 0.4, 0.8, 1.6)
COPIES = (64, 160, 400, 1000)


def row(archive: Path, which: int, snr: float, copies: int) -> dict[str, object]:
    """One cold start beside the oracle."""
    thing = volumes.protein(archive, str(which), BOX, 2)
    made = simulate_volume(thing, box_size=BOX, count=copies // 8, micrographs=8, snr=snr, seed=0)
    found = recover_volume(made.pixels, box_size=BOX, noise_std=made.noise_std, backend="cpu")
    oracle = volumes.known_poses(made, BOX, last_band(BOX))
    return {
        "object": which,
        "snr": snr,
        "copies": len(made.positions),
        "J": round(orientation_information(made.volume, made.noise_std), 2),
        "shape": volumes.scores(found.volume, made.volume)["shape"],
        "oracle": volumes.scores(oracle, made.volume)["shape"],
        "evidence": round(found.evidence),
        "expected_count": round(found.expected_count, 1),
    }


def draw(rows: list[dict], path: Path) -> None:
    """Shape over J, a line for each number of copies and object; the oracle in grey."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    colours = {copies: f"C{i}" for i, copies in enumerate(COPIES)}
    for which, copies in sorted({(r["object"], r["copies"]) for r in rows}):
        line = sorted(
            (r for r in rows if (r["object"], r["copies"]) == (which, copies)), key=lambda r: r["J"]
        )
        nearest = min(COPIES, key=lambda c: abs(c - copies))
        j, marker = [r["J"] for r in line], "os^d"[which % 4]
        axes.plot(j, [r["oracle"] for r in line], ":", color=colours[nearest], alpha=0.5)
        axes.plot(
            j,
            [r["shape"] for r in line],
            "-",
            marker=marker,
            color=colours[nearest],
            label=f"{copies} copies, protein {which}",
        )
    axes.set(
        xscale="log",
        xlabel="J, nats per copy that tell the orientation",
        ylabel="shape correlation",
        ylim=(0.25, 1.0),
    )
    axes.legend(fontsize=7, ncols=2, title="dotted: poses known", title_fontsize=7)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 2])
    parser.add_argument("-o", "--output", type=Path, default=Path("boundary.json"))
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    rows = json.loads(options.output.read_text()) if options.output.exists() else []
    done = {(r["object"], r["snr"], r["copies"]) for r in rows}
    for copies in COPIES:
        for snr in SNRS:
            for which in options.objects:
                if (which, snr, copies // 8 * 8) not in done:
                    rows.append(row(options.archive, which, snr, copies))
                    print(json.dumps(rows[-1]), flush=True)
                    options.output.write_text(json.dumps(rows, indent=1) + "\n")
    if options.plot is not None:
        draw(rows, options.plot)


if __name__ == "__main__":
    main()
