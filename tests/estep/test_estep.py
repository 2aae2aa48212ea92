"""What must not change an E-step: cut, split, threads, executors, storage, precision."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from mtdcore import PatchLikelihood, WindowLikelihood, e_step, get_backend, open_measurement
from mtdcore.errors import InputError, ParameterError
from mtdcore.estep.backends.cpu.backend import CpuBackend
from mtdcore.estep.backends.library import HostArrays
from mtdcore.model.rotations import Rotations
from mtdcore.testing import assert_same_bits, assert_same_statistics

SINGLE, DOUBLE = (get_backend("cpu", precision=p, threads=1) for p in ("float32", "float64"))

BOTH = pytest.mark.parametrize(
    "likelihood",
    [
        PatchLikelihood(Rotations(4, 9), 1.0, 0.5),
        WindowLikelihood(Rotations(4, 9), 1.0, 20.0, min_separation=7),
    ],
    ids=["patch", "window"],
)


@pytest.fixture
def target():
    return np.random.default_rng(1).uniform(size=(9, 9))


def noise(*shape, dtype="float32"):
    return np.random.default_rng(2).normal(size=shape).astype(dtype)


def spawned_processes():
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


@BOTH
def test_executors_never_change_a_bit(likelihood, target, monkeypatch):
    for model in ("patch", "window"):
        monkeypatch.setattr(f"mtdcore.model.likelihood.{model}._TILE_PIXELS", 40)
    monkeypatch.setattr("mtdcore.estep.expectation.PART_TILES", 2)
    monkeypatch.setattr(HostArrays, "tiles_together", 2)
    pixels = noise(2, 60, 90)
    pixels[0, 7, 8] = np.nan
    alone = e_step(pixels, target, likelihood, SINGLE)
    with ThreadPoolExecutor(3) as threads:
        assert_same_bits(e_step(pixels, target, likelihood, SINGLE, threads), alone)
    three = get_backend("cpu", threads=3)
    assert_same_bits(e_step(pixels, target, likelihood, three), alone)


@BOTH
def test_processes_never_change_a_bit(likelihood, target, tmp_path, monkeypatch):
    """The other process sees neither this one's memory nor its open files."""
    monkeypatch.setattr("mtdcore.estep.expectation.PART_TILES", 1)
    monkeypatch.setattr(HostArrays, "tiles_together", 1)
    np.save(tmp_path / "m.npy", noise(3, 60, 90))
    with spawned_processes() as processes:
        there = e_step(str(tmp_path / "m.npy"), target, likelihood, SINGLE, processes)
    assert_same_bits(there, e_step(noise(3, 60, 90), target, likelihood, SINGLE))


@BOTH
@pytest.mark.parametrize(("backend", "tolerance"), [(SINGLE, 1e-5), (DOUBLE, 1e-10)])
def test_tiles_change_nothing_but_rounding(likelihood, target, backend, tolerance, monkeypatch):
    pixels = noise(130, 180, dtype=backend.precision)
    pixels[50:60, 70] = np.nan
    whole = e_step(pixels, target, likelihood, backend)
    for model in ("patch", "window"):
        monkeypatch.setattr(f"mtdcore.model.likelihood.{model}._TILE_PIXELS", 50)
    assert likelihood.geometry.count((130, 180)) >= 12
    assert_same_statistics(e_step(pixels, target, likelihood, backend), whole, tolerance)


class _Wide(CpuBackend):
    """Asks for larger tiles and counts what it gets."""

    seen = 0

    def tile_pixels(self, likelihood):
        return 100

    def accumulate(self, tiles, templates, likelihood):
        tiles = list(tiles)
        self.seen += len(tiles)
        return super().accumulate(tiles, templates, likelihood)


@BOTH
def test_the_backend_chooses_the_size_of_tiles(likelihood, target, monkeypatch):
    for model in ("patch", "window"):
        monkeypatch.setattr(f"mtdcore.model.likelihood.{model}._TILE_PIXELS", 40)
    pixels = noise(130, 180, dtype="float64")
    wide = _Wide("float64")
    found = e_step(pixels, target, likelihood, wide)
    assert_same_statistics(found, e_step(pixels, target, likelihood, DOUBLE), 1e-10)
    assert wide.seen == likelihood.geometry.enlarged(100).count(pixels.shape)
    assert 1 < wide.seen < likelihood.geometry.count(pixels.shape)


def test_wide_halos_ask_for_larger_tiles():
    assert SINGLE.tile_pixels(WindowLikelihood(Rotations(4, 96), 1.0, 9.0)) > SINGLE.tile_pixels(
        WindowLikelihood(Rotations(4, 5), 1.0, 9.0)
    )


def test_scores_computed_twice_change_no_bit(target):
    """Patch scores wait for their normaliser in memory, or are forgotten and computed again."""
    likelihood, pixels = PatchLikelihood(Rotations(6, 9), 1.0, 0.5, margin=2), noise(90, 90)
    pixels[20:30, 40] = np.nan
    kept, forgotten = (CpuBackend(threads=1, max_memory=size) for size in (1 << 30, 1))
    assert_same_bits(e_step(pixels, target, likelihood, forgotten), e_step(pixels, target, likelihood, kept))


@BOTH
def test_a_stack_is_the_sum_of_its_micrographs(likelihood, target):
    stack = noise(3, 40, 50, dtype="float64")
    whole = e_step(stack, target, likelihood, DOUBLE)
    if isinstance(likelihood, WindowLikelihood):  # the count is that of the whole measurement
        likelihood = replace(likelihood, expected_count=likelihood.expected_count / 3)
    first, second, third = (e_step(one, target, likelihood, DOUBLE) for one in stack)
    assert_same_statistics(first + second + third, whole, 1e-12)


@BOTH
@pytest.mark.parametrize("snr", [1e-3, 1.0, 1e2, 1e4])
@pytest.mark.parametrize("box_size", [5, 9])
def test_float32_is_right_at_any_snr(likelihood, box_size, snr):
    """Half of the boxes hold a copy; docs/model.md 3: the weights must be right at any SNR in float32."""
    target = np.random.default_rng(1).uniform(size=(box_size, box_size))
    sigma = float(np.sqrt(np.mean(target**2) / snr))
    pixels = sigma * noise(8 * box_size, 8 * box_size)
    for i in range(8):
        corner = slice(i * box_size, (i + 1) * box_size)
        pixels[corner, : 4 * box_size] += np.tile(np.rot90(target, i), 4)
    model = replace(likelihood, views=Rotations(4, box_size), noise_std=sigma)
    found, exact = (e_step(pixels, target, model, backend) for backend in (SINGLE, DOUBLE))
    assert np.isfinite(found.log_likelihood)
    assert_same_statistics(found, exact, 1e-3)


@BOTH
def test_layout_and_type_of_the_pixels_do_not_matter(likelihood, target):
    counts = np.random.default_rng(3).integers(0, 9, size=(40, 50))
    plain = e_step(counts.astype("float32"), target, likelihood, SINGLE)
    frozen = counts.astype("float32")
    frozen.flags.writeable = False
    for pixels in (
        counts.astype("int16"),
        counts.astype(">f4"),
        np.asfortranarray(counts, "float32"),
        frozen,
    ):
        assert_same_bits(e_step(pixels, target, likelihood, SINGLE), plain)


@BOTH
def test_pixels_without_a_number_are_masked_not_zero(likelihood, target):
    pixels = noise(40, 50, dtype="float64") + 3
    mask = np.ones(pixels.shape, bool)
    mask[10:14, 20:30] = False
    expected = e_step(open_measurement(pixels, mask), target, likelihood, DOUBLE)
    holes, zeros = pixels.copy(), pixels.copy()
    holes[~mask], zeros[~mask] = np.inf, 0
    assert_same_bits(e_step(holes, target, likelihood, DOUBLE), expected)
    flat, seen = np.ones((9, 9)), e_step(zeros, target, likelihood, DOUBLE)
    assert np.abs(seen.normal(flat) - expected.normal(flat)).max() > 0.01
    assert expected.pixels == (36 * 45 if isinstance(likelihood, PatchLikelihood) else 2000) - 40


@pytest.mark.parametrize("shape", [(9, 9), (9, 31), (20, 10)])
@BOTH
def test_barely_fitting_micrographs(likelihood, target, shape):
    found = e_step(noise(*shape), target, likelihood, SINGLE)
    windows = isinstance(likelihood, WindowLikelihood)
    assert found.sites == ((shape[0] - 8) * (shape[1] - 8) if windows else (shape[0] // 9) * (shape[1] // 9))
    assert found.pixels == (shape[0] * shape[1] if windows else 81 * found.sites)
    assert np.isfinite(found.gradient(target)).all()


@BOTH
def test_micrograph_smaller_than_the_box(likelihood, target):
    with pytest.raises(InputError, match="at least one box of 9 x 9 pixels; its micrographs are 8 x 40"):
        e_step(noise(8, 40), target, likelihood)


@BOTH
def test_target_of_another_shape(likelihood):
    with pytest.raises(ParameterError, match=r"shape that the views take, \(9, 9\); got \(8, 8\)"):
        e_step(noise(30, 30), np.ones((8, 8)), likelihood)
