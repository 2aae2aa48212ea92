"""Projections: adjoint, normal operator, analytic views of Gaussians, RELION's conventions, symmetry."""

import pickle

import array_api_strict
import numpy as np
import pytest

from mtdcore.errors import ParameterError
from mtdcore.model.volumes import so3
from mtdcore.model.volumes.grids import ball, radii, shell_mean, shells, spherical_mean
from mtdcore.model.volumes.projections import Projections


def blobs(side, centres, width):
    """Gaussians at (n, 3) offsets (x, y, z) from the centre."""
    g = np.arange(side) - side // 2
    z, y, x = np.meshgrid(g, g, g, indexing="ij")
    return sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * width**2)) for a, b, c in centres)


def flat_blobs(side, centres, width):
    """What those look like along z."""
    g = np.arange(side) - side // 2
    y, x = np.meshgrid(g, g, indexing="ij")
    line = np.sqrt(2 * np.pi) * width
    return line * sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * width**2)) for a, b, _ in centres)


CENTRES = np.array([[4.0, 0.0, 1.0], [-2.0, 3.0, -1.0], [0.0, -1.5, 3.0], [-3.0, -2.0, -2.0]])


@pytest.mark.parametrize(("side", "symmetry", "band"), [(16, "C1", 0.5), (15, "C1", 0.3), (12, "D2", 0.4)])
def test_the_adjoint_is_exact(side, symmetry, band):
    rng = np.random.default_rng(0)
    views = Projections(side, 12, symmetry, band)
    volume = rng.standard_normal(views.target_shape)
    images = rng.standard_normal((views.count, side, side))
    forth, back = views.apply(volume), views.adjoint(images)
    assert (forth * images).sum() == pytest.approx((volume * back).sum(), rel=1e-10)


def test_views_of_gaussians_are_their_analytic_projections():
    side, width = 25, 1.6
    views = Projections(side, 40)
    seen = views.apply(blobs(side, CENTRES, width))
    wanted = np.array([flat_blobs(side, CENTRES @ r.T, width) for r in views.rotations])
    assert np.linalg.norm(seen - wanted) < 5e-3 * np.linalg.norm(wanted)


@pytest.mark.parametrize("symmetry", ["C1", "C3"])
def test_the_normal_operator_is_the_sum_over_views(symmetry):
    rng = np.random.default_rng(1)
    views = Projections(14, 20, symmetry)
    copies = rng.uniform(0, 2, views.count)
    volume = views.symmetrised(blobs(14, CENTRES, 1.5))
    explicit = views.adjoint(copies[:, None, None] * views.apply(volume))
    operator = views.normal(copies)
    assert np.linalg.norm(operator(volume) - explicit) < 2e-3 * np.linalg.norm(explicit)
    halves = views.normal(copies[:9], slice(0, 9)) + views.normal(copies[9:], slice(9, None))
    np.testing.assert_allclose(halves.spectrum, operator.spectrum, atol=1e-9 * operator.bound)
    np.testing.assert_allclose(operator.scaled(0.5)(volume), 0.5 * operator(volume))


def test_bounds_of_the_normal_operator_and_gain():
    views = Projections(12, 30)
    operator = views.normal(np.ones(views.count))
    volume = np.random.default_rng(2).standard_normal(views.target_shape)
    for _ in range(30):
        volume = operator(volume)
        size = np.linalg.norm(volume)
        volume = volume / size
    assert 0.3 * operator.bound < size <= operator.bound
    for t in range(views.count):
        image = np.ones((1, 12, 12))
        for _ in range(20):
            image = views.apply(views.adjoint(image, slice(t, t + 1)), slice(t, t + 1))
            size = np.linalg.norm(image)
            image = image / size
        assert 0.7 * views.gain < size <= views.gain


def test_parts_are_cut_from_the_whole():
    views = Projections(11, 9)
    volume = np.random.default_rng(3).standard_normal(views.target_shape)
    np.testing.assert_array_equal(views.apply(volume, slice(2, 5)), views.apply(volume)[2:5])
    images = views.apply(volume)
    parts = views.adjoint(images[:4], slice(0, 4)) + views.adjoint(images[4:], slice(4, 9))
    np.testing.assert_allclose(parts, views.adjoint(images), atol=1e-10)


def test_a_turn_by_psi_is_the_rotation_of_an_image():
    """docs/conventions.md: rlnAnglePsi = 90 for a copy equal to np.rot90(target)."""
    side = 21
    angles = np.array([[30.0, 60.0, 10.0], [30.0, 60.0, 100.0]])
    first, second = Projections(side, so3.from_euler(angles)).apply(blobs(side, CENTRES, 1.8))
    np.testing.assert_allclose(np.rot90(first), second, atol=1e-3 * first.max())


def test_relion_samples_the_slice_at_the_transpose_of_its_matrix():
    """The transform of view t at (fx, fy) is that of the volume at A^T (fx, fy, 0), by plain sums."""
    side = 13
    volume = blobs(side, CENTRES / 2, 1.2) * ball(side)
    angles = np.array([[25.0, 70.0, -40.0]])
    turn = so3.from_euler(angles)
    image = Projections(side, turn).apply(volume)[0]
    g = np.arange(side) - side // 2
    for fy, fx in ((1, 2), (-3, 1), (0, 4)):
        wave = np.exp(-2j * np.pi * (fy * g[:, None] + fx * g) / side)
        kx, ky, kz = turn[0].T @ np.array([fx, fy, 0.0]) / side
        space = np.exp(-2j * np.pi * (kz * g[:, None, None] + ky * g[:, None] + kx * g))
        assert (image * wave).sum() == pytest.approx((volume * space).sum(), abs=2e-3 * volume.sum())


def test_views_of_a_symmetric_volume_repeat():
    views = Projections(17, 6, "D3")
    volume = views.symmetrised(blobs(17, CENTRES, 1.5))
    np.testing.assert_allclose(views.symmetrised(volume), volume, atol=4e-3 * volume.max())
    plain = Projections(17, views.rotations)
    partner = Projections(17, views.rotations @ so3.group("D3")[4])
    np.testing.assert_allclose(
        views.apply(volume), plain.apply(volume), atol=4e-3 * plain.apply(volume).max()
    )
    np.testing.assert_allclose(
        partner.apply(volume), plain.apply(volume), atol=8e-3 * plain.apply(volume).max()
    )


def test_the_band_ends_the_spectrum():
    volume = np.random.default_rng(4).standard_normal((16, 16, 16))
    spectrum = np.abs(np.fft.fft2(Projections(16, 5, band=0.25).apply(volume)))
    line = np.fft.fftfreq(16)
    beyond = np.hypot(line[:, None], line) > 0.25 + 1e-9
    assert spectrum[:, beyond].max() < 1e-10 * spectrum.max()
    assert spectrum[:, ~beyond].min() > 0


def test_framed_coarse_and_turned():
    views = Projections(16, 30, band=0.4)
    volume = blobs(16, CENTRES / 2, 1.2)
    larger = np.zeros((20, 20, 20))
    larger[2:18, 2:18, 2:18] = volume
    framed = views.framed(2)
    np.testing.assert_allclose(
        framed.apply(larger)[:, 2:18, 2:18], views.apply(volume), atol=0.02 * views.apply(volume).max()
    )
    coarse = views.coarse(7, 0.2)
    assert (coarse.count, coarse.band, views.coarse(7).band) == (7, 0.2, 0.4)
    turned = views.turned(3)
    np.testing.assert_array_equal(turned.rotations, views.turned(3).rotations)
    among = so3.angle_between(turned.rotations[0], turned.rotations)
    np.testing.assert_allclose(among, so3.angle_between(views.rotations[0], views.rotations), atol=1e-7)
    assert so3.angle_between(turned.rotations[0], views.rotations[0]) > 0.1


def test_dtypes_libraries_and_pickling():
    views = Projections(9, 4)
    volume = np.random.default_rng(5).standard_normal((9, 9, 9))
    assert views.apply(volume.astype(np.float32)).dtype == np.float32
    strict = array_api_strict.asarray(volume)
    seen = views.apply(strict)
    assert isinstance(seen, array_api_strict._array_object.Array)
    np.testing.assert_array_equal(np.from_dlpack(seen), views.apply(volume))
    again = pickle.loads(pickle.dumps(views))
    np.testing.assert_array_equal(again.apply(volume), views.apply(volume))


@pytest.mark.parametrize(
    "arguments", [(1, 5), (8, 0), (8, 5, "X"), (8, 5, "C1", 0.0), (8, np.ones((3, 3))), (8, -np.eye(3)[None])]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ParameterError):
        Projections(*arguments)


def test_bad_shapes_are_refused():
    views = Projections(8, 5)
    with pytest.raises(ParameterError, match="volume"):
        views.apply(np.zeros((8, 8)))
    with pytest.raises(ParameterError, match="stack"):
        views.adjoint(np.zeros((4, 8, 8)))
    with pytest.raises(ParameterError, match="copies"):
        views.normal(np.ones(4))


@pytest.mark.parametrize("side", [8, 9])
def test_shells_and_spheres(side):
    volume = np.random.default_rng(6).standard_normal((side,) * 3)
    power = np.abs(np.fft.fftn(volume)) ** 2
    line = np.fft.fftfreq(side) * side
    ring = np.rint(np.sqrt(line[:, None, None] ** 2 + line[:, None] ** 2 + line**2)).astype(int)
    wanted = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    np.testing.assert_allclose(shell_mean(np.abs(np.fft.rfftn(volume)) ** 2, side), wanted)
    assert shells(side).max() == ring.max()
    smooth = np.exp(-(radii(side) ** 2) / 8)
    assert np.abs(spherical_mean(smooth) - smooth).max() < 0.04
    assert np.abs(spherical_mean(volume)).mean() < 0.5 * np.abs(volume).mean()


def test_solving_undoes_the_normal_operator():
    views = Projections(12, 60, band=0.45)
    normal = views.normal(np.full(views.count, 0.5))
    volume = blobs(12, CENTRES / 2, 1.4) * ball(12)
    found = normal.solve(normal(volume), np.zeros_like(volume))
    assert np.linalg.norm(found - volume) < 0.1 * np.linalg.norm(volume)
    np.testing.assert_allclose(normal.solve(normal(volume), volume), volume)
    assert normal.moved(lambda array: array) is normal
    copies = normal.copies(np.array([0.0, 0.2, 0.4]))
    assert copies[0] > copies[1] > copies[2] > 0
    masks = views.normal(np.full((views.count, 12, 12), 0.5))
    np.testing.assert_allclose(masks.spectrum, normal.spectrum)
