"""Dead, hot and invalid pixels, absurd values, wrong noise levels, odd shapes and dtypes (rows 10, 11 and 12)."""

import tempfile
import warnings

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.data.defects import find_limits, without_defects
from mtdcore.data.pictures import mask_defects
from mtdcore.errors import InputError, MtdError, ParameterError

SIDE, BOX = 240, 12


@pytest.fixture(scope="module")
def clean():
    """(pixels, target, start, error without defects)."""
    target = mtd.datasets.glyphs(4, BOX, 12)[3].astype(np.float64)
    sim = mtd.simulate(target, side=SIDE, density=0.15, snr=2, rotations=1, seed=12, separation=1)
    start = target + np.random.default_rng(12).normal(size=target.shape) * 0.3
    pixels = sim.measurement.array
    return pixels, target, start, error_of(pixels, target, start)


def error_of(pixels, target, start):
    run = mtd.recover(
        without_defects(mtd.open_measurement(pixels)),
        box_size=BOX,
        rotations=1,
        initial=start,
        iterations=15,
        backend="cpu",
    )
    return mtd.relative_error(run.target, target, 1)


VALUES = {
    "nan": [np.nan],
    "inf": [np.inf, -np.inf],
    "dead": [0.0],
    "hot": [60.0],
    "all": [np.nan, -np.inf, 0.0, 1e4, -300.0],
}


@pytest.mark.parametrize("where", ["pixels", "rows"])
@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("share", [1e-4, 0.01, 0.05])
def test_defects_cost_at_most_a_tenth(clean, kind, share, where):
    pixels, target, start, error = clean
    rng = np.random.default_rng(1)
    bad = np.zeros(pixels.shape, bool)
    if where == "rows":
        bad[0, rng.choice(SIDE, max(1, round(share * SIDE)), replace=False)] = True
    else:
        bad = rng.random(pixels.shape) < share
    damaged = pixels.copy()
    damaged[bad] = rng.choice(VALUES[kind], bad.sum())
    limits = find_limits(mtd.open_measurement(damaged))
    seen = limits.bad(np.nan_to_num(damaged, nan=1e30, posinf=1e30, neginf=1e30))
    assert np.array_equal(seen, bad)
    assert error_of(damaged, target, start) <= 1.1 * error


@pytest.mark.parametrize("snr", [0.05, 1, 10, 100, 10_000])
@pytest.mark.parametrize("kind", ["glyph", "independent"])
def test_strong_copies_are_no_defects(snr, kind):
    """No false alarm at any signal-to-noise ratio, also for targets of independent pixels."""
    target = (
        mtd.datasets.glyphs(1, BOX, 3)[0]
        if kind == "glyph"
        else np.random.default_rng(3).normal(2, 1, (5, 5))
    )
    sim = mtd.simulate(target, side=300, density=0.1, snr=snr, rotations=4, seed=3)
    limits = find_limits(sim.measurement)
    assert limits.bad(sim.measurement.array).sum() == 0


def test_defects_of_counts_are_masked():
    """Hot and dead pixels of raw counts, the dead ones nearer to the noise than a hot pixel ever is."""
    rng = np.random.default_rng(8)
    pixels = np.round(rng.normal(1200, 130, (1, 400, 400)))
    bad = rng.random(pixels.shape) < 4e-4
    pixels[bad] = rng.choice([0, 60_000], bad.sum())
    assert np.array_equal(find_limits(mtd.open_measurement(pixels)).bad(pixels), bad)
    pixels[bad] = rng.uniform(20_000, 60_000, bad.sum())  # each hot in its own way
    pixels[0, 3, :12] = 100.0  # dark, and none of them far
    assert np.array_equal(find_limits(mtd.open_measurement(pixels)).bad(pixels), bad)


@pytest.mark.parametrize("width", [2, 3, 10])
def test_pulses_of_a_signal_are_no_defects(width):
    """Steep copies leave the range between the noise and themselves empty; a signal of one row is no row of dead pixels."""
    pixels = np.random.default_rng(9).normal(size=(1, 20_000))
    pixels[0, (np.arange(50, 19_900, 200)[:, None] + np.arange(width)).ravel()] += 30.0
    assert find_limits(mtd.open_measurement(pixels)).bad(pixels).sum() == 0


def test_a_sound_crosses_zero():
    """Zeros of integers are a level like others."""
    pixels = np.round(np.random.default_rng(10).normal(0, 3000, (1, 48_000)))
    assert (pixels == 0).any()
    assert np.isfinite(mask_defects(pixels)).all()


@pytest.mark.parametrize("kind", ["counts", "levels", "slope", "noiseless", "constant"])
def test_what_other_data_look_like(kind):
    """Low counts full of zeros, grey levels, a background that was not removed, no noise at all: nothing is masked."""
    rng = np.random.default_rng(4)
    pixels = {
        "counts": lambda: rng.poisson(0.7, (1, 300, 300)).astype(np.float32),
        "levels": lambda: np.round(rng.normal(0, 40, (1, 300, 300))).clip(-128, 127).astype(np.float32) / 255,
        "slope": lambda: (rng.normal(size=(1, 300, 300)) + np.linspace(0, 300, 300)).astype(np.float32),
        "noiseless": lambda: (
            mtd.simulate(
                mtd.datasets.glyphs(1, BOX, 3)[0], side=300, count=20, noise_std=0.0, seed=0
            ).measurement.array
        ),
        "constant": lambda: np.ones((1, 300, 300), np.float32),
    }[kind]()
    assert find_limits(mtd.open_measurement(pixels)).bad(pixels).sum() == 0


def test_the_command_line_masks_counts_and_keeps(mtd_command, tmp_path):
    rng = np.random.default_rng(5)
    pixels = rng.normal(size=(80, 80)).astype(np.float32)
    pixels[rng.random(pixels.shape) < 0.02] = 500.0
    pixels[7] = np.nan
    bad = int((~(pixels < 100)).sum())
    np.save(tmp_path / "m.npy", pixels)
    run = ("recover", tmp_path / "m.npy", "-o", tmp_path / "run", "--box-size", 8, "--iterations", 2)
    log, record = mtd_command(*run)
    assert f"{bad} of 6400 pixels were not used" in log
    assert record["measurement"]["masked_pixels"] == bad
    assert record["result"]["noise_std"] == pytest.approx(1, abs=0.1)
    _, record = mtd_command(*run, "--defects", "keep", "--force")
    assert record["measurement"]["masked_pixels"] == 80


@pytest.fixture
def mtd_command(mtd, tmp_path):
    import json

    def run(*args):
        result = mtd(*args)
        return result.stderr, json.loads((tmp_path / "run" / "run.json").read_text())

    return run


def test_nothing_valid_is_an_error():
    for value in (np.nan, np.inf):
        pixels = np.full((40, 40), value, np.float32)
        for noise_std in ("auto", 1.0):
            with pytest.raises(InputError):
                mtd.recover(pixels, box_size=8, rotations=1, noise_std=noise_std, iterations=2, backend="cpu")


SCALES = [1e30, 1e-30, 1e-42]
CONTENTS = ["noise", "copies", "constant", "zero"]


@pytest.mark.parametrize("likelihood", ["window", "patch"])
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("scale", SCALES)
def test_no_nan_comes_out(scale, content, likelihood):
    """Huge and denormal pixels, and none at all: numbers, or one of our errors."""
    rng = np.random.default_rng(6)
    pixels = {
        "noise": lambda: rng.normal(size=(48, 48)),
        "copies": lambda: rng.normal(size=(48, 48)) + np.tile(np.pad(np.ones((6, 6)), 9), (2, 2)) * 3,
        "constant": lambda: np.ones((48, 48)),
        "zero": lambda: np.zeros((48, 48)),
    }[content]().astype(np.float32) * np.float32(scale)
    for noise_std in ("auto", float(np.float32(scale))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                run = mtd.recover(
                    pixels,
                    box_size=8,
                    rotations=2,
                    noise_std=noise_std,
                    likelihood=likelihood,
                    initial=rng.normal(size=(8, 8)) * scale,
                    iterations=3,
                    backend="cpu",
                )
            except MtdError:
                assert noise_std == "auto" or scale < 1e-30 or content in ("constant", "zero")
                continue
        assert np.isfinite(run.target).all()
        assert np.isfinite(run.aligned_average).all()
        numbers = [v for record in run.history for v in vars(record).values()]
        assert np.isfinite(numbers).all()


@pytest.mark.parametrize("noise_std", [0, -1.0, np.nan, np.inf])
def test_noise_levels_that_are_none(noise_std):
    with pytest.raises(ParameterError, match="noise"):
        mtd.recover(np.zeros((30, 30), np.float32), box_size=8, noise_std=noise_std, backend="cpu")


@pytest.mark.parametrize(
    ("factor", "warns"), [(0.01, True), (0.5, True), (1.0, False), (2.0, True), (100.0, True)]
)
def test_a_wrong_noise_level_is_noticed(factor, warns):
    target = mtd.datasets.glyphs(1, 8, 3)[0]
    sim = mtd.simulate(target, side=120, density=0.1, snr=1, rotations=1, seed=3)
    options = {"box_size": 8, "rotations": 1, "iterations": 3, "initial": target, "backend": "cpu"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = mtd.recover(sim.measurement, noise_std=sim.noise_std * factor, **options)
    said = [
        str(w.message)
        for w in caught
        if issubclass(w.category, RuntimeWarning) and "noise_std" in str(w.message)
    ]
    assert bool(said) == warns
    assert run.residual_std == pytest.approx(sim.noise_std, rel=0.1)


DTYPES = ["u1", "i2", "u2", "i4", "i8", "f2", "f4", "f8", ">f4", ">i2", "g"]


def on_disk(array):
    with tempfile.TemporaryFile() as file:  # the map keeps it
        mapped = np.memmap(file, array.dtype, shape=array.shape)
    mapped[:] = array
    return mapped


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "strided": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "memmap": on_disk,
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(8, 8), (8, 31), (29, 40)], ids=str)
def test_every_dtype_and_layout_gives_the_float64_answer(shape, dtype, layout):
    rng = np.random.default_rng(7)
    stored = rng.normal(20, 4, shape).astype(dtype)
    pixels = LAYOUTS[layout](stored)
    target = rng.normal(size=(8, 8))
    for likelihood in (
        mtd.WindowLikelihood(mtd.Rotations(2, 8), 4.0, 1.0),
        mtd.PatchLikelihood(mtd.Rotations(2, 8), 4.0),
    ):
        found, expected = (
            mtd.e_step(p, target, likelihood, mtd.get_backend("cpu", "float64"))
            for p in (pixels, stored.astype("f8"))
        )
        assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-6, abs=1e-6)
        assert np.allclose(found.right, expected.right, rtol=1e-5, atol=1e-5)
    assert np.array_equal(pixels, stored)
    assert likelihood.geometry.unused_pixels(shape) == shape[0] * shape[1] - shape[0] // 8 * 8 * (
        shape[1] // 8 * 8
    )


@pytest.mark.parametrize("shape", [(7, 40), (1, 50), (50, 1), (0, 9), (5,), (1, 1, 9, 9)], ids=str)
def test_shapes_that_hold_no_box(shape):
    with pytest.raises(InputError):
        mtd.recover(np.zeros(shape, np.float32), box_size=8, noise_std=1.0, backend="cpu")
