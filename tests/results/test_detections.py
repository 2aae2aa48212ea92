"""Copies read off the posterior, written down in the conventions of the field, and compared with the truth."""

import csv
import importlib
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.signal import convolve2d

from mtdcore import Micrographs, PatchLikelihood, WindowLikelihood, open_measurement, simulate
from mtdcore.data.preparation.fourier import filter_radially
from mtdcore.errors import InputError, ParameterError
from mtdcore.estep.backends.cpu.backend import CpuBackend
from mtdcore.estep.posteriors import Posterior
from mtdcore.estep.residual import noise_in_sight
from mtdcore.model.filters.whitening import Whitening
from mtdcore.model.rotations import Rotations
from mtdcore.model.views import Classes
from mtdcore.results.detections import Detections, detect
from mtdcore.results.detections.hidden import Hidden
from mtdcore.results.matching import match
from mtdcore.results.metrics import align
from mtdcore.testing import SmallTileWindowLikelihood

L = 9
FLAT = Whitening(np.ones((64, 33)))


def target(seed=0):
    return np.random.default_rng(seed).uniform(size=(L, L)) + np.linspace(0, 2, L)[:, None]


@pytest.fixture(scope="module")
def made():
    """Copies that may touch, on two micrographs."""
    return simulate(
        target(), shape=(90, 70), count=12, snr=3.0, separation=1, micrographs=2, dtype="float64", seed=3
    )


def model(made, cls=WindowLikelihood, **options):
    return cls(Rotations(4, L), made.noise_std, expected_count=float(len(made.positions)), **options)


def some(row, column, micrograph=None, rotation=None):
    count = len(row)
    zeros = np.zeros(count, dtype=np.int64)
    return Detections(
        zeros if micrograph is None else np.array(micrograph),
        np.array(row),
        np.array(column),
        zeros if rotation is None else np.array(rotation),
        np.full(count, 0.9),
        box_size=L,
        rotations=4,
        class_index=zeros,
    )


def test_every_copy_is_found_where_it_is_and_as_it_is_turned(made):
    found = detect(made.measurement, made.target, model(made))
    result = match(found, made.positions, tolerance=0.0)
    assert (result.precision, result.recall) == (1.0, 1.0)
    ours, theirs = result.pairs.T
    assert np.array_equal(found.rotation[ours], made.rotation_indices[theirs])
    assert found.probability.min() > 0.9
    assert (np.diff(found.probability) <= 0).all()


@pytest.mark.parametrize("snr", [0.15, 1.0])
@pytest.mark.parametrize("separation", [4, L])
def test_tiles_do_not_show(snr, separation, exact):
    """Tiles of four corners a side cut through every neighbourhood; the detections are those of one tile."""
    made = simulate(
        target(), side=48, count=8, snr=snr, min_separation=separation, dtype="float64", seed=int(10 * snr)
    )
    whole, cut = (
        detect(made.measurement, made.target, model(made, cls, min_separation=separation), exact, 0.2)
        for cls in (WindowLikelihood, SmallTileWindowLikelihood)
    )
    assert len(whole) > 3
    for name in ("micrograph", "row", "column", "rotation"):
        assert np.array_equal(getattr(whole, name), getattr(cut, name))
    assert np.allclose(whole.probability, cut.probability, atol=1e-9)


@pytest.mark.parametrize("separation", [3, 6, L])
def test_detections_keep_the_minimum_separation(separation):
    """With a template that fits nowhere in particular, the posterior has peaks everywhere."""
    noise = np.random.default_rng(0).normal(size=(80, 80))
    likelihood = WindowLikelihood(Rotations(4, L), 0.3, expected_count=200.0, min_separation=separation)
    found = detect(noise, 0.3 * target(), likelihood, threshold=0.05)
    apart = np.abs(found.positions[:, None] - found.positions[None]).max(axis=2)
    assert len(found) > 5
    assert apart[~np.eye(len(found), dtype=bool)].min() >= separation


def test_probability_is_the_posterior_mass_of_the_neighbourhood(made, exact):
    likelihood = model(made, min_separation=5).bind(made.measurement.shape)
    found = detect(made.measurement, made.target, likelihood, exact, 0.05, reach=2)
    (tile,) = (t for t in made.measurement.tiles(likelihood.geometry) if t.micrograph == 1)
    turned = np.stack([np.rot90(made.target, k) for k in range(4)])
    weights = exact.posterior(tile, turned, likelihood)
    here = np.flatnonzero(found.micrograph == 1)
    assert len(here) > 3
    for i in here:
        row, column = found.row[i], found.column[i]
        near = weights[:, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].sum(axis=(1, 2))
        assert found.probability[i] == pytest.approx(min(1.0, near.sum()), abs=1e-12)
        assert found.rotation[i] == near.argmax()


@pytest.mark.parametrize("cls", [WindowLikelihood, SmallTileWindowLikelihood])
def test_of_three_in_a_row_the_middle_one_does_not_hide_the_last(cls, exact):
    """Brighter from left to right, each within the separation of the next: the last excludes the middle one, which is brighter than the first."""
    image = np.zeros((L, L))
    image[2:7, 2:7] = np.random.default_rng(2).uniform(1.0, 2.0, (5, 5))
    field = np.random.default_rng(3).normal(size=(160, 160))
    for column, bright in ((10, 1.0), (16, 1.15), (22, 1.3)):
        field[15 : 15 + L, column : column + L] += 2.0 * bright * image
    found = detect(field, 2.0 * image, cls(Rotations(1, L), 1.0, expected_count=3.0, min_separation=8), exact)
    assert sorted(zip(found.row.tolist(), found.column.tolist(), strict=True)) == [(15, 10), (15, 22)]


def test_what_a_copy_leaves_beside_it_is_no_other_copy(exact):
    """A template that overlaps a copy has a likelihood ratio of its own: the copies found are taken off before others are looked for."""
    image = 3.0 * np.ones((L, L)) + target()
    field = np.random.default_rng(4).normal(size=(50, 50))
    field[20 : 20 + L, 20 : 20 + L] += image
    found = detect(field, image, WindowLikelihood(Rotations(4, L), 1.0, 2.0, min_separation=5), exact)
    assert (found.row.tolist(), found.column.tolist()) == ([20], [20])


def test_smoothed_noise_is_not_taken_for_copies():
    """The white model is sure of each of them: the noise level is that of the frequencies that the target has."""
    line = np.exp(-0.5 * ((np.arange(16) - 7.5) / 2.0) ** 2)
    smooth = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(200, 200)), 2.0)
    noise, image = smooth / smooth.std(), 2.0 * np.outer(line, line)
    white = np.random.default_rng(6).normal(size=(200, 200))
    likelihood = WindowLikelihood(Rotations(1, 16), 1.0, expected_count=10.0, min_separation=8)
    engine = CpuBackend("float64")
    excess = [noise_in_sight(open_measurement(field), image, likelihood, engine) for field in (white, noise)]
    assert excess[0] == pytest.approx(1.0, abs=0.2)
    assert excess[1] > 5.0
    assert len(detect(noise, image, likelihood)) < 10
    assert (
        len(detect(noise, image, likelihood.with_whitening(FLAT))) > 50
    )  # whoever gives a filter answers for it


def test_noise_holds_no_copies(made):
    noise = np.random.default_rng(1).normal(size=(2, 90, 70)) * made.noise_std
    found = detect(noise, made.target, model(made))
    assert len(found) == 0
    assert found.positions.shape == (0, 3)
    result = match(found, made.positions, 1.0)
    assert result.recall == 0.0
    assert np.isnan(result.precision)


def test_masked_copies_are_not_found(made):
    pixels = made.measurement.array.copy()
    micrograph, row, column = made.positions[0]
    pixels[micrograph, row : row + L, column : column + L] = np.nan
    found = detect(pixels, made.target, model(made))
    result = match(found, made.positions, 0.0)
    assert set(result.pairs[:, 1]) == set(range(1, len(made.positions)))


def test_a_copy_of_which_the_rim_of_a_mask_shows_little_is_not_listed():
    """Bright rims of masked contaminants were worth copies of 99.99 % in the middle of the mask."""
    shown = np.zeros((60, 60))
    for row, column in ((10, 10), (10, 40), (40, 10)):
        shown[row : row + L, column : column + L] = 5.0 * target()
    noise = np.random.default_rng(0).normal(size=shown.shape)
    pixels = np.ma.masked_array(shown + noise, np.zeros(shown.shape, bool))
    pixels[10 + L // 3 : 10 + L, 38:52] = np.ma.masked  # two thirds of one
    pixels[40 : 40 + L // 3, 8:22] = np.ma.masked  # a third of another, the fainter one
    found = detect(pixels, 5.0 * target(), WindowLikelihood(Rotations(1, L), 1.0, 3.0))
    assert sorted(zip(found.row, found.column, strict=True)) == [(10, 10), (40, 10)]


@pytest.mark.parametrize(("turn", "shift"), [(0, (0, 0)), (1, (2, -1)), (3, (-2, 1))])
def test_another_gauge_is_undone_copy_by_copy(turn, shift):
    """The estimate sits turned and shifted in its box; with a margin of zeros nothing is cut off."""
    truth = np.zeros((L, L))
    truth[2:-2, 2:-2] = target()[2:-2, 2:-2]
    made = simulate(truth, side=90, count=12, snr=5.0, seed=1, dtype="float64")
    estimate = np.roll(np.rot90(truth, turn), shift, (0, 1))
    alignment = align(estimate, truth, rotations=4, max_shift=2)
    assert alignment.error < 1e-12
    found = detect(made.measurement, estimate, model(made)).in_frame_of(alignment)
    result = match(found, made.positions, 0.0)
    assert (result.precision, result.recall) == (1.0, 1.0)
    ours, theirs = result.pairs.T
    assert np.array_equal(found.rotation[ours], made.rotation_indices[theirs])


def test_relion_conventions(tmp_path):
    found = some([10, 20], [3, 4], micrograph=[0, 2], rotation=[1, 3])
    found.to_star(tmp_path / "picks.star", ["a.mrc", "b.mrc", "c.mrc"])
    lines = (tmp_path / "picks.star").read_text().splitlines()
    labels = [line.split()[0] for line in lines if line.startswith("_")]
    rows = [dict(zip(labels, line.split(), strict=True)) for line in lines if line[:2] in ("a.", "c.")]
    assert "data_particles" in lines
    assert [row["_rlnMicrographName"] for row in rows] == ["a.mrc", "c.mrc"]
    assert [float(row["_rlnCoordinateX"]) for row in rows] == [3 + 4, 4 + 4]
    assert [float(row["_rlnCoordinateY"]) for row in rows] == [10 + 4, 20 + 4]
    assert [float(row["_rlnAnglePsi"]) for row in rows] == [90.0, 270.0]
    assert [float(row["_rlnAutopickFigureOfMerit"]) for row in rows] == pytest.approx([np.log(9)] * 2)


@pytest.mark.parametrize("names", [["a.mrc", "b.mrc"], ["a.mrc", "b.mrc", "c\nd.mrc"]])
def test_names_that_a_star_table_cannot_hold(tmp_path, names):
    with pytest.raises(ParameterError, match=r"name for each micrograph|one line"):
        some([10], [3], micrograph=[2]).to_star(tmp_path / "picks.star", names)


def test_csv(tmp_path):
    some([10, 20], [3, 4], rotation=[1, 3]).to_csv(tmp_path / "picks.csv")
    with open(tmp_path / "picks.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["row"], r["column"], r["angle_degrees"]) for r in rows] == [
        ("10", "3", "90"),
        ("20", "4", "270"),
    ]
    assert float(rows[0]["log_odds"]) == pytest.approx(np.log(9), rel=1e-5)


def test_certainty_has_finite_log_odds():
    sure = some([1], [1])
    sure.probability[:] = 1.0
    assert 15 < sure.log_odds[0] < 17


def test_matching_is_one_to_one_and_the_largest():
    """Greedy matching by distance would pair (0, 3) with (0, 4) and leave one detection over."""
    found = some([0, 0, 50], [3, 6, 50])
    result = match(found, [[0, 0, 0], [0, 0, 4], [1, 50, 50]], tolerance=3.0)
    assert sorted(map(tuple, result.pairs)) == [(0, 0), (1, 1)]
    assert result.precision == pytest.approx(2 / 3)
    assert result.recall == pytest.approx(2 / 3)


def test_one_global_offset_is_removed():
    rng = np.random.default_rng(0)
    true = np.column_stack([np.zeros(50), rng.integers(0, 900, (50, 2))])
    found = some(*(true[:, 1:] + [4, -3]).astype(int).T)
    assert match(found, true, 1.0).recall < 0.1
    result = match(found, true, 1.0, max_offset=8)
    assert result.offset == (-4, 3)
    assert result.recall == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"threshold": 0.0}, "threshold"), ({"threshold": 1.0}, "threshold"), ({"reach": -1}, "reach")],
)
def test_parameters_outside_their_domain(made, options, message):
    with pytest.raises(ParameterError, match=message):
        detect(made.measurement, made.target, model(made), **options)


def test_the_patch_model_has_no_poses_to_detect(made):
    with pytest.raises(ParameterError, match="window model"):
        detect(made.measurement, made.target, PatchLikelihood(Rotations(4, L), made.noise_std))


def test_a_measurement_smaller_than_the_box(made):
    with pytest.raises(InputError, match="at least one box"):
        detect(np.zeros((5, 5)), made.target, model(made))


def test_a_copy_is_named_after_the_class_it_shows(made):
    """Two micrographs of the target and two of its negative."""
    pixels = made.measurement.array
    both = WindowLikelihood(
        Classes(Rotations(4, L), 2), made.noise_std, 2.0 * len(made.positions), class_weights=(0.5, 0.5)
    )
    found = detect(np.concatenate([pixels, -pixels]), np.stack([made.target, -made.target]), both)
    assert len(found) == 2 * len(made.positions)
    assert np.array_equal(found.class_index, found.micrograph // 2)
    assert found.pick_columns()["rlnClassNumber"] == [1 + m // 2 for m in found.micrograph]
    assert sum(len(found.only(m)) for m in range(4)) == len(found)


def test_each_micrograph_is_searched_through_its_own_transfer_and_noise():
    """The second micrograph shows the edges of the target only, in half of the noise."""
    made = simulate(
        target(), shape=(90, 70), count=12, noise_std=0.0, separation=1, micrographs=2, dtype="float64"
    )
    transfer = np.stack([np.ones(9), np.linspace(0, 2, 9)])
    noise = np.array([1.0, 0.5]) * np.sqrt(np.mean(made.target**2) / 3)
    rng = np.random.default_rng(0)
    stack = np.array(
        [filter_radially(image, curve) for image, curve in zip(made.measurement.array, transfer, strict=True)]
    )
    stack += noise[:, None, None] * rng.normal(size=stack.shape)
    common = float(np.sqrt(np.mean(noise**2)))
    alike = WindowLikelihood(Rotations(4, L), common, 24.0)
    told = replace(alike, micrographs=Micrographs(noise, transfer=transfer))
    second = made.positions[made.positions[:, 0] == 1]
    recalls = [match(detect(stack, made.target, m).only(1), second, 1.0).recall for m in (alike, told)]
    assert recalls[0] < 0.5
    assert recalls[1] > 0.9


class Given(CpuBackend):
    """A posterior that is given: mass of each corner of one micrograph, in competition with those nearer than the separation."""

    def __init__(self, mass, separation):
        super().__init__("float64", threads=1)
        self.odds, near = mass, np.ones((2 * separation - 1,) * 2)
        for _ in range(400):
            self.odds = mass * (1.0 + convolve2d(self.odds, near, "same"))

    def log_odds(self, tile, templates, likelihood, part=slice(None)):
        rows, columns = (slice(read.start, read.stop - L + 1) for read in tile.region.read)
        with np.errstate(divide="ignore"):
            return np.log(self.odds[rows, columns])


@pytest.mark.parametrize("reach", [None, 1, 50])
@pytest.mark.parametrize("separation", [1, 2, 3, 4, 5, 8])
def test_two_copies_at_the_minimum_separation_share_no_mass(separation, reach):
    """Whatever the reach asked for: each corner between them counts for one copy at most."""
    mass = np.zeros((60 - L + 1, 60 - L + 1))
    mass[20:30, 20:40] = 0.001
    mass[25, 25] = mass[25, 25 + separation] = 0.6
    likelihood = WindowLikelihood(Rotations(1, L), 1.0, 2.0, min_separation=separation)
    found = detect(np.zeros((60, 60)), target(), likelihood, Given(mass, separation), 0.5, reach)
    assert sorted(found.column) == [25, 25 + separation]
    widest = (separation - 1) // 2
    used = min(widest, 1 if reach is None else reach)
    assert found.probability == pytest.approx(0.6 + 0.001 * ((2 * used + 1) ** 2 - 1), rel=1e-12)
    assert found.probability.sum() <= mass.sum()


@pytest.mark.parametrize("separation", [None, 5])
def test_tiles_without_a_hidden_copy_are_not_looked_at_again(exact, monkeypatch, separation):
    """Known copies leave the rest as it was where they cannot overlap: one pass is enough then, and finds what several do."""
    made = simulate(target(), shape=(150, 150), count=20, snr=3.0, separation=1, dtype="float64", seed=4)
    likelihood = SmallTileWindowLikelihood(Rotations(4, L), made.noise_std, 20.0, min_separation=separation)
    looked, chances = [], Posterior.chances

    def counted(self, tile, *rest):
        looked.append(tile.region.owned)
        return chances(self, tile, *rest)

    monkeypatch.setattr(Posterior, "chances", counted)
    monkeypatch.setattr(importlib.import_module("mtdcore.results.detections.detect"), "_TILE", 60)
    monkeypatch.setattr("mtdcore.results.detections.hidden._BLOCK", 1)
    found = detect(made.measurement, made.target, likelihood, exact)
    assert len(found) == 20
    once = len(set(map(str, looked)))
    assert once > 4
    assert (len(looked) == once) == (separation is None)
    looked.clear()
    monkeypatch.setattr(Hidden, "may_be_in", lambda *_: True)
    again = detect(made.measurement, made.target, likelihood, exact)
    assert len(looked) == 2 * once
    for name in ("row", "column", "rotation", "probability"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
