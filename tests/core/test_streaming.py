"""Long measurements: resident memory does not follow their size, sums do not lose digits."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from mtdcore import PatchLikelihood, WindowLikelihood, e_step, get_backend
from mtdcore.measurement.zarr_store import creating
from mtdcore.summing import tree_sum

STATUS = Path("/proc/self/status")


def peaks(paths):
    """Largest resident MB during an E-step over each measurement; the counter of the kernel is reset before each."""
    likelihood, backend = PatchLikelihood(5, 4, 1.0, 0.5), get_backend("cpu", threads=2)
    target, found = np.random.default_rng(1).normal(size=(5, 5)), []
    for path in paths:
        Path("/proc/self/clear_refs").write_text("5")
        e_step(str(path), target, likelihood, backend)
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        found.append(float(line.split()[1]) / 1024)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_measurement(tmp_path):
    """At most 1 MB for ten times the data, and again for a hundred times (400 million pixels)."""
    rng, sizes = np.random.default_rng(0), [16, 160, 1600]
    for size in sizes:
        with creating(tmp_path / f"{size}", (size, 512, 512), np.dtype(np.int8), {}) as (array, _):
            for m in range(size):
                array[m] = rng.integers(-3, 4, size=(512, 512), dtype=np.int8)
    once, ten, hundred = (tmp_path / f"{size}" for size in sizes)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(peaks, ([once] * 4 + [ten, hundred],))
    assert found[4] <= max(found[1:4]) + 1.0
    assert found[5] <= max(found[1:5]) + 1.0


@pytest.mark.parametrize(
    "likelihood",
    [PatchLikelihood(5, 4, 1.0, 0.5), WindowLikelihood(5, 4, 1.0, expected_count=3000.0)],
    ids=["patch", "window"],
)
def test_a_thousand_equal_micrographs_weigh_a_thousand_times_one(likelihood):
    """The engine's own sums: whatever a tile gives, a thousand of it are a thousand times that."""
    one = np.random.default_rng(0).normal(size=(1, 40, 40)).astype(np.float32)
    many = np.broadcast_to(one, (1000, 40, 40))
    target, backend = np.random.default_rng(1).normal(size=(5, 5)), get_backend("cpu", threads=1)
    bound = likelihood.bind(many.shape)
    share = bound if isinstance(bound, PatchLikelihood) else WindowLikelihood(5, 4, 1.0, expected_count=3.0)
    single, total = e_step(one, target, share, backend), e_step(many, target, likelihood, backend)
    for name in ("backprojection", "coverage", "log_likelihood", "energy", "expected_count", "empty_mass"):
        expected = 1000 * np.asarray(getattr(single, name))
        np.testing.assert_allclose(
            getattr(total, name), expected, rtol=0, atol=1e-10 * np.abs(expected).max()
        )


@pytest.mark.slow
def test_a_billion_terms_keep_ten_digits():
    """10^9 numbers of 53 bits, added as an E-step adds its tiles: one part after another, the parts in a tree.

    Their sum is known exactly, from the sums of their upper and lower halves as integers.
    """
    rng, chunk, per_part, exact = np.random.default_rng(0), 2**20, 64, 0

    def parts():
        nonlocal exact
        for _ in range(10**9 // chunk + 1):
            terms = rng.integers(1 << 53, size=chunk, dtype=np.uint64)
            exact += (int((terms >> np.uint64(26)).sum()) << 26) + int((terms & np.uint64(2**26 - 1)).sum())
            columns = terms.astype(np.float64).reshape(per_part, -1)
            part = columns[0].copy()
            for column in columns[1:]:  # the order of a loop over the tiles of each part
                part += column
            yield from part.tolist()

    found = tree_sum(parts())
    assert abs(int(found) - exact) <= 1e-10 * exact
