"""Maps on disk, copies with RELION's angles, gold-standard halves."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from mtdcore.data import open_measurement
from mtdcore.data.micrographs.star import read_star
from mtdcore.em.volumes.noise import NoiseModel
from mtdcore.em.volumes.plan import VolumePlan
from mtdcore.em.volumes.recover import recover_volume
from mtdcore.errors import InputError, ParameterError, StorageError
from mtdcore.estep.volumes.expectation import volume_cut
from mtdcore.estep.volumes.templates import Search
from mtdcore.model.filters.whitening import Whitening
from mtdcore.model.likelihood import WindowLikelihood
from mtdcore.model.shifts import moved
from mtdcore.model.volumes import so3
from mtdcore.model.volumes.grids import ball, filtered
from mtdcore.model.volumes.maps import read_map, write_map
from mtdcore.model.volumes.projections import Projections
from mtdcore.results.volumes import copies, fourier_shell_correlation
from mtdcore.results.volumes.copies import find_copies
from mtdcore.results.volumes.halves import halves_of, volume_halves
from mtdcore.synthetic.placement import random_corners
from mtdcore.synthetic.volumes import chain

SIDE = 12


@pytest.fixture(scope="module")
def specimen():
    """(pixels, sigma, positions, rotations) of 16 copies on two micrographs."""
    rng = np.random.default_rng(0)
    rotations = so3.random_rotations(16, rng)
    images = chain(SIDE).projections(rotations, SIDE)
    sigma = 0.5 * np.sqrt(np.mean(images**2))
    pixels = sigma * rng.standard_normal((2, 80, 80))
    positions = []
    for m in range(2):
        for i, (row, column) in enumerate(random_corners(rng, 8, (69, 69), SIDE)):
            pixels[m, row : row + SIDE, column : column + SIDE] += images[8 * m + i]
            positions.append((m, row, column))
    return pixels.astype(np.float32), sigma, np.array(positions), rotations


def test_maps_come_back(tmp_path):
    mrcfile = pytest.importorskip("mrcfile")
    volume = np.random.default_rng(1).standard_normal((6, 6, 6))
    write_map(tmp_path / "v.mrc", volume, 3.5)
    again, voxel_size = read_map(tmp_path / "v.mrc")
    np.testing.assert_array_equal(again, volume.astype(np.float32))
    assert voxel_size == pytest.approx(3.5)
    with mrcfile.open(tmp_path / "v.mrc") as mrc:
        assert mrc.is_volume()
        assert (int(mrc.header.mapc), int(mrc.header.mapr), int(mrc.header.maps)) == (1, 2, 3)
    with mrcfile.new(tmp_path / "zyx.mrc", data=volume.transpose().astype(np.float32)) as mrc:
        mrc.header.mapc, mrc.header.mapr, mrc.header.maps = 3, 2, 1
    np.testing.assert_array_equal(read_map(tmp_path / "zyx.mrc")[0], volume.astype(np.float32))
    assert read_map(tmp_path / "zyx.mrc")[1] is None


def test_files_that_are_no_maps_are_refused(tmp_path):
    pytest.importorskip("mrcfile")
    (tmp_path / "no.mrc").write_bytes(b"x" * 2000)
    with pytest.raises(InputError):
        read_map(tmp_path / "no.mrc")
    write_map(tmp_path / "flat.mrc", np.zeros((2, 3, 3)))
    with pytest.raises(InputError, match="cube"):
        read_map(tmp_path / "flat.mrc")
    with pytest.raises(StorageError):
        read_map(tmp_path / "absent.mrc")


def test_copies_have_their_places_and_the_angles_of_relion(specimen, tmp_path):
    pytest.importorskip("gemmi")
    pixels, sigma, positions, rotations = specimen
    views = Projections(SIDE, 2000, band=0.42)
    model = WindowLikelihood(views, sigma, 16.0, 9)
    volume = chain(SIDE).volume(SIDE) * ball(SIDE)
    found = find_copies(pixels, volume, model, Search(views, views.coarse(200, 0.3)))
    assert len(found) == 16
    assert found.probability.min() > 0.9
    errors = []
    for m, row, column, turn in zip(found.micrograph, found.row, found.column, found.rotations, strict=True):
        distance = np.abs(positions - [m, row, column]).max(axis=1)
        assert distance.min() <= 1
        errors.append(so3.angle_between(turn, rotations[distance.argmin()]))
    assert np.median(errors) < 0.3
    found.to_star(tmp_path / "p.star", ["a.mrc", "b.mrc"], pixel_size=2.0)
    table = read_star(tmp_path / "p.star")["particles"]
    assert set(table["rlnMicrographName"]) == {"a.mrc", "b.mrc"}
    assert float(table["rlnCoordinateX"][0]) == pytest.approx(found.column[0] + SIDE // 2, abs=1e-3)
    angles = np.array([[float(v) for v in table[f"rlnAngle{n}"]] for n in ("Rot", "Tilt", "Psi")]).T
    np.testing.assert_allclose(so3.from_euler(angles), found.rotations, atol=1e-4)
    # The projection at the angles of the file looks like the copy in the micrograph.
    image = Projections(SIDE, so3.from_euler(angles[:1])).apply(volume)[0]
    m, row, column = (round(one[0]) for one in (found.micrograph, found.row, found.column))
    seen = pixels[m, row : row + SIDE, column : column + SIDE]
    assert np.corrcoef(image.ravel(), seen.ravel())[0, 1] > 0.8
    with pytest.raises(ParameterError, match="a name for each micrograph, at least 2; got 1"):
        found.to_star(tmp_path / "p.star", ["a.mrc"])
    found.to_star(tmp_path / "p.star")
    assert set(read_star(tmp_path / "p.star")["particles"]["rlnMicrographName"]) == {
        "micrograph_000001",
        "micrograph_000002",
    }


@pytest.mark.parametrize("subpixel", [False, True])
def test_copies_between_pixels_are_placed_there(subpixel):
    """Of a copy half a pixel off, the view that suits whole pixels best may be another one, with another place."""
    views, volume = Projections(SIDE, 600, band=0.35), chain(SIDE).volume(SIDE) * ball(SIDE)
    true = np.array([[6.5, 7.0], [8.25, 40.75], [31.5, 10.5], [33.0, 35.25], [50.6, 24.4]])
    images = views.apply(volume)[[3, 50, 111, 300, 512]]
    sigma = 0.3 * np.sqrt(np.mean(images**2))
    pixels = sigma * np.random.default_rng(1).standard_normal((1, 70, 70))
    corners = np.floor(true).astype(int)
    for image, (row, column) in zip(moved(images, true - corners), corners, strict=True):
        pixels[0, row : row + SIDE, column : column + SIDE] += image
    search = Search(views, views.coarse(200, 0.3), subpixel)
    found = find_copies(pixels, volume, WindowLikelihood(views, sigma, 5.0, SIDE), search)
    assert len(found) == len(true)
    places = np.stack([found.row, found.column], axis=1)
    away = np.linalg.norm(places[:, None] - true, axis=2).min(axis=0)
    assert away.max() < (0.2 if subpixel else 0.5)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles that own 20 x 20 corners at most."""
    cut = partial(replace, side=20)
    monkeypatch.setattr(copies, "volume_cut", lambda model: cut(model.geometry))


def test_copies_do_not_depend_on_the_tiles(request):
    """One copy lies half on the last corner of a tile and half on the first of the next; others are near borders."""
    views, volume = Projections(SIDE, 300, band=0.42), chain(SIDE).volume(SIDE) * ball(SIDE)
    image = views.apply(volume)[7]
    sigma = 0.5 * np.sqrt(np.mean(image**2))
    pixels = sigma * np.random.default_rng(3).standard_normal((1, 71, 71))  # 60 corners: three tiles a side
    for row, column, share in [(10, 19, 0.5), (10, 20, 0.5), (28, 38, 1.0), (40, 19, 1.0), (39, 41, 1.0)]:
        pixels[0, row : row + SIDE, column : column + SIDE] += share * image
    model, search = WindowLikelihood(views, sigma, 4.0, 9), Search(views)
    one = find_copies(pixels, volume, model, search, threshold=0.8)
    assert len(one) == 4
    request.getfixturevalue("small_tiles")
    several = find_copies(pixels, volume, model, search, threshold=0.8)
    np.testing.assert_allclose(several.column, one.column, atol=1e-3)
    np.testing.assert_allclose(several.row, one.row, atol=1e-3)
    np.testing.assert_allclose(several.probability, one.probability, atol=1e-4)
    np.testing.assert_array_equal(several.rotations, one.rotations)


@pytest.mark.parametrize(("separation", "expected"), [(1, 500), (2, 300), (3, 150), (12, 12)])
def test_copies_keep_the_separation_between_tiles(separation, expected, small_tiles, monkeypatch):
    """Of faint copies that may be anywhere. With separations of 1 and 2 the search for peaks had no end."""
    # the corners keep it; where in the pixel a copy lies is looked for afterwards
    monkeypatch.setattr(copies, "_between", lambda posterior, corners, views, offsets: offsets)
    noise = np.random.default_rng(4).standard_normal((1, 60, 60))
    views = Projections(SIDE, 20, band=0.4)
    model = WindowLikelihood(views, 1.0, expected, separation)
    found = find_copies(noise, 0.2 * chain(SIDE).volume(SIDE), model, Search(views), threshold=0.05)
    assert len(found) > 5
    corners = np.stack([found.row, found.column], axis=1)
    away = np.abs(corners[:, None] - corners).max(axis=2)
    assert away[np.triu_indices(len(found), 1)].min() >= separation


def test_noise_has_no_copies(specimen):
    noise = np.random.default_rng(2).standard_normal((60, 60)).astype(np.float32)
    views = Projections(SIDE, 100, band=0.4)
    model = WindowLikelihood(views, 1.0, 3.0, 9)
    volume = chain(SIDE).volume(SIDE) * 2 / specimen[1]
    found = find_copies(noise, volume, model, Search(views))
    assert len(found) == 0
    assert found.rotations.shape == (0, 3, 3)
    with pytest.raises(
        ParameterError, match="threshold should be a probability strictly between 0 and 1; got 0"
    ):
        find_copies(noise, volume, model, Search(views), threshold=0.0)
    assert found.angles.shape == (0, 3)


def test_halves_agree_where_there_is_signal(specimen):
    pixels, sigma, _, _ = specimen
    plan = VolumePlan(SIDE, iterations=12, last_band=0.4, first_views=60, last_views=150, coarse_views=50)
    run = recover_volume(
        pixels, box_size=SIDE, noise_std=sigma, plan=plan, initial=chain(SIDE).volume(SIDE) * ball(SIDE)
    )
    halves = volume_halves(open_measurement(pixels), run)
    assert halves.first.shape == halves.second.shape == (SIDE,) * 3
    assert halves.whole.correlation[0] > 0.9
    assert halves.whole.correlation[0] > halves.whole.correlation[-1]
    assert np.abs(halves.first - halves.second).max() > 0


def test_halves_are_compared_as_the_filtered_measurement_shows_them():
    """Without the filter, what the first shells shared was carried by the edge of the ball into shells in which nothing agreed."""
    rng = np.random.default_rng(6)
    gains = np.where(np.arange(11) <= 2, 1.0, 0.0)
    common, own = rng.standard_normal((SIDE,) * 3), rng.standard_normal((2, SIDE, SIDE, SIDE))
    seen = [(filtered(common, gains) + filtered(one, 1.0 - gains)) * ball(SIDE) for one in own]
    frequency = np.hypot(np.fft.fftfreq(24)[:, None], np.fft.rfftfreq(24))
    noise_model = NoiseModel(0.0, 1.0, Whitening(np.maximum(10.0 ** (-12.0 * frequency), 1e-4)))

    plan = VolumePlan(SIDE, iterations=10, last_band=0.5)
    run = SimpleNamespace(
        plan=plan,
        noise_model=noise_model,
        volume=seen[0],
        noise_std=1.0,
        expected_count=1.0,
        amplitude_std=0.0,
        micrographs=None,
    )
    found = iter(SimpleNamespace(seen=one, volume=noise_model.unfiltered(one, 0.5)) for one in seen)
    halves = volume_halves(
        open_measurement(rng.standard_normal((2, 40, 40))), run, lambda *_, **__: next(found)
    )
    support = ball(SIDE)
    leaked = fourier_shell_correlation(halves.first * support, halves.second * support)
    np.testing.assert_allclose(halves.first, noise_model.unfiltered(seen[0], 0.5))
    assert np.abs(halves.whole.correlation[-1]) < 0.3
    assert leaked.correlation[-1] > 0.7


@pytest.mark.parametrize(("count", "whole"), [(2, True), (1, False), (3, False)])
def test_halves_share_no_pixel(count, whole):
    """Of one small micrograph the second half had no tile, and the command ended with an error about mini-batches."""
    pixels = np.arange(1.0, 1.0 + count * 40 * 40).reshape(count, 40, 40).astype(np.float32)
    cut = volume_cut(WindowLikelihood(Projections(8, 1), 1.0, 1.0, 6))
    seen = []
    for half in halves_of(open_measurement(pixels)):
        values = [t.values[... if t.valid is None else t.valid] for t in half.tiles(cut)]
        seen.append(set(np.concatenate([v.ravel() for v in values]).tolist()))
    assert not seen[0] & seen[1]
    assert len(seen[0]) == len(seen[1]) == pixels.size / 2
    assert (seen[0] == set(pixels[: count // 2].ravel().tolist())) == whole
