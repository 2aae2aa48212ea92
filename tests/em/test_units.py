"""``recover(c M + b)`` is ``c recover(M)``: neither the units of a measurement nor its offset matter."""

from functools import cache

import numpy as np
import pytest

from mtdcore import (
    DenoisingUpdate,
    GaussianPrior,
    GradientAscent,
    WindowLikelihood,
    e_step,
    get_backend,
    open_measurement,
    recover,
    relative_error,
    simulate,
)
from mtdcore.data.derived import without_offset
from mtdcore.errors import ParameterError
from mtdcore.model.rotations import Rotations
from mtdcore.results.nulls import null_measurement
from mtdcore.synthetic.glyphs import glyphs

CPU = get_backend("cpu", threads=1)
TARGET = np.outer([0, 1, 2, 1, 0, 0, 1, 1], [0, 2, 3, 2, 1, 2, 1, 0]) / 2.0
MEAN = 0.8 * TARGET


@pytest.fixture(scope="module")
def made():
    return simulate(TARGET, side=120, density=0.15, snr=2.0, rotations=4, seed=1, dtype="float64")


def run(pixels, scale=1.0, **options):
    likelihood = options.get("likelihood", "window")
    prior = GaussianPrior(scale * MEAN, scale * 0.5) if options.pop("learned", False) else None
    defaults = {"box_size": 8, "iterations": 25, "backend": CPU, "likelihood": likelihood, "prior": prior}
    return recover(pixels, **(defaults | options))


@pytest.fixture(scope="module")
def plain(made):
    """The run on the pixels as they are, of each likelihood with and without a prior."""
    pixels = made.measurement.array[0].astype("f4")
    return cache(lambda likelihood, learned: run(pixels, likelihood=likelihood, learned=learned))


CASES = [("window", False), ("window", True), ("patch", True), ("patch", False)]


@pytest.mark.parametrize(("likelihood", "learned"), CASES)
@pytest.mark.parametrize(
    ("scale", "offset", "kind"),
    [
        (1e-6, 0.0, "float32"),
        (1e6, 0.0, "float32"),
        (0.1, 5.0, "float32"),
        (1e6, 1e3, "float32"),
        (1e-6, 1e3, "float64"),
        (30.0, 1e3, "uint16"),
    ],
)
def test_units_and_offset_do_not_matter(made, plain, likelihood, learned, scale, offset, kind):
    pixels = made.measurement.array[0]
    moved = scale * (pixels + offset * made.noise_std)
    moved = np.rint(moved).astype("u2") if kind == "uint16" else moved.astype(kind)
    plain = plain(likelihood, learned)
    found = run(moved, scale, likelihood=likelihood, learned=learned)
    errors = [relative_error(image, TARGET, max_shift=2) for image in (plain.target, found.target / scale)]
    assert errors[1] == pytest.approx(errors[0], abs=0.01 if kind == "uint16" else 0.002)
    assert found.evidence == pytest.approx(plain.evidence, rel=0.01)
    assert found.noise_std / scale == pytest.approx(plain.noise_std, rel=1e-3)
    assert found.offset / scale == pytest.approx(
        plain.offset + offset * made.noise_std, abs=2e-3 * made.noise_std
    )


def test_the_offset_is_learned_whatever_the_copies_add(made):
    """The median is off by what a seventh of the field shows; the M-step finds the truth."""
    pixels = made.measurement.array[0] - 7.0
    found = run(pixels)
    assert abs(found.offset + 7.0) < 0.3 * abs(np.median(pixels) + 7.0)
    assert found.summary()["offset"] == found.offset == found.likelihood.offset


def test_learning_the_offset_never_lowers_the_likelihood(made):
    pixels = made.measurement.array[0] + 0.3
    exact = get_backend("cpu", precision="float64", threads=1)
    found = run(pixels, likelihood="patch", backend=exact, iterations=12)
    objectives = [record.objective for record in found.history] + [found.statistics.log_likelihood]
    assert np.diff(objectives).min() > -1e-9 * abs(objectives[0])


def test_an_offset_that_is_given_is_kept_and_none_is_0(made):
    pixels = made.measurement.array[0] + 3.0
    given = run(pixels, offset=3.0, iterations=3)
    assert given.offset == 3.0
    zero = run(made.measurement, offset=None, iterations=3)
    assert zero.offset == 0.0
    assert given.evidence == pytest.approx(zero.evidence, rel=1e-3)
    assert run(made.measurement, update=GradientAscent(1e-3), iterations=2).offset == 0.0


@pytest.mark.parametrize("offset", ["mean", float("nan")])
def test_an_offset_that_is_none_is_refused(made, offset):
    with pytest.raises(ParameterError, match="offset must be a"):
        run(made.measurement, offset=offset)


def test_offsets_are_taken_off_before_float32():
    pixels = np.random.default_rng(0).normal(size=(40, 40)) + 1e8
    tile = next(
        iter(
            without_offset(open_measurement(pixels), 1e8).tiles(
                WindowLikelihood(Rotations(1, 4), 1.0, 3.0).geometry
            )
        )
    )
    assert tile.values.astype("f4").std() == pytest.approx(1.0, abs=0.05)
    counts = np.random.default_rng(0).poisson(1000, size=(40, 40)).astype("u2")
    counts_read = without_offset(open_measurement(counts), 1000.25)
    tile = next(iter(counts_read.tiles(WindowLikelihood(Rotations(1, 4), 1.0, 3.0).geometry)))
    assert tile.values.dtype == np.float32
    assert np.array_equal(tile.values, (counts - 1000.25).astype("f4"))


def test_invalid_pixels_count_for_nothing(made):
    pixels = made.measurement.array[0] + 50.0
    holes = pixels.copy()
    holes[30:50, 20:60] = np.nan
    model = WindowLikelihood(Rotations(4, 8), made.noise_std, 20.0, offset=50.0)
    seen = e_step(holes, TARGET, model, CPU)
    assert seen.total == pytest.approx(np.nansum(holes))
    assert seen.offset(TARGET) == pytest.approx(50.0, abs=0.1)
    assert seen.energy == pytest.approx(np.nansum((holes - 50.0) ** 2), rel=1e-4)


def test_footprint_is_what_copies_add_to_the_sum(made):
    exact = get_backend("cpu", precision="float64", threads=1)
    model = WindowLikelihood(Rotations(4, 8), made.noise_std, 20.0)
    seen = e_step(made.measurement, TARGET, model, exact)
    assert float((seen.footprint * TARGET).sum()) == pytest.approx(seen.expected_count * TARGET.sum())


def test_null_measurements_share_the_offset(made):
    null = null_measurement(made.measurement.array[0], 2.0, 0, 1000.0)
    found = run(null, iterations=5)
    assert found.offset == pytest.approx(1000.0, abs=0.2)


def test_a_target_at_rest_early_still_gets_its_offset():
    """Plain steps from the truth rest within the first quarter of the iterations, and would end the run with the median."""
    target = glyphs(4, 20, seed=1)[3].astype(float)
    made = simulate(target, side=240, count=25, snr=2.0, separation=1, seed=3)
    median = float(np.median(np.asarray(made.measurement)))
    found = recover(
        made.measurement,
        box_size=20,
        prior=GaussianPrior(target, 0.1),
        update=DenoisingUpdate(relaxation=1.0),
        initial=target,
        iterations=60,
        noise="white",
        gauge=None,
        backend="cpu",
    )
    assert found.stopped == "tolerance"
    assert abs(found.offset) < 0.3 * abs(median)
