"""Simulated micrographs of volumes, their truth on disk, densities of atoms."""

import numpy as np
import pytest

from mtdcore.data import open_measurement
from mtdcore.errors import InputError, ParameterError
from mtdcore.model.volumes.grids import ball
from mtdcore.model.volumes.projections import Projections
from mtdcore.synthetic.coordinates import density, read_atoms
from mtdcore.synthetic.particles import open_volume_truth, simulate_volume
from mtdcore.synthetic.volumes import Gaussians, chain

PDB = """\
ATOM      1  N   ALA A   1      10.000   0.000   0.000  1.00  0.00           N
ATOM      2  CA  ALA A   1      10.000   6.000   0.000  1.00  0.00           C
ATOM      3  H   ALA A   1      10.000   6.500   0.000  1.00  0.00           H
HETATM    4  O   HOH A   2      99.000  99.000  99.000  1.00  0.00           O
END
"""


def test_copies_are_projections_at_their_places():
    made = simulate_volume(chain(12), box_size=12, count=3, micrographs=2, noise_std=0.0, seed=1)
    assert made.pixels.shape[0] == 2
    assert len(made.positions) == len(made.rotations) == 6
    images = Projections(12, made.rotations).apply(made.volume)
    empty = made.pixels.copy()
    for image, (m, row, column) in zip(images, made.positions, strict=True):
        seen = made.pixels[m, row : row + 12, column : column + 12]
        assert np.linalg.norm(seen - image) < 0.06 * np.linalg.norm(image)
        empty[m, row : row + 12, column : column + 12] = 0
    assert not empty.any()
    np.testing.assert_array_equal(made.volume, chain(12).volume(12) * ball(12))


def test_copies_between_pixels_and_of_different_strength(tmp_path):
    plain, given = {"box_size": 12, "count": 6, "micrographs": 2, "noise_std": 0.0, "seed": 1}, chain(12)
    made = simulate_volume(given, **plain, subpixel=True, amplitude_std=0.3)
    still = simulate_volume(given, **plain)
    np.testing.assert_array_equal(np.rint(made.positions), still.positions)
    np.testing.assert_array_equal(made.rotations, still.rotations)
    fractions = (made.positions - still.positions)[:, 1:]
    assert np.abs(fractions).max() <= 0.5 < 2 * np.abs(fractions).max() + 0.2
    assert np.all(made.amplitudes > 0)
    for (m, row, column), off, a in zip(still.positions, fractions, made.amplitudes, strict=True):
        image, seen = (one.pixels[m, row : row + 12, column : column + 12] for one in (still, made))
        assert seen.sum() == pytest.approx(a * image.sum(), rel=0.02)
        at = np.arange(12.0)
        places = [[(one.sum(axis) * at).sum() / one.sum() for axis in (1, 0)] for one in (image, seen)]
        np.testing.assert_allclose(np.subtract(*places[::-1]), off, atol=0.1)
    many = simulate_volume(given, **{**plain, "count": 150}, amplitude_std=0.3)
    assert many.amplitudes.mean() == pytest.approx(1.0, abs=0.06)
    assert many.amplitudes.std() == pytest.approx(0.3, rel=0.15)
    made.save(tmp_path / "m.zarr")
    made.save(tmp_path / "m.zarr", overwrite=True)  # our own may be replaced
    truth = open_volume_truth(tmp_path / "m.zarr")
    np.testing.assert_array_equal(truth.positions, made.positions)
    np.testing.assert_array_equal(truth.amplitudes, made.amplitudes)


def test_snr_and_seeds():
    made = simulate_volume(chain(10), box_size=10, count=5, micrographs=1, snr=0.5, seed=2)
    images = chain(10).projections(made.rotations, 10)
    assert np.mean(images**2) / made.noise_std**2 == pytest.approx(0.5, rel=0.3)
    again = simulate_volume(chain(10), box_size=10, count=5, micrographs=1, snr=0.5, seed=2)
    np.testing.assert_array_equal(made.pixels, again.pixels)
    other = simulate_volume(chain(10), box_size=10, count=5, micrographs=1, snr=0.5, seed=3)
    assert np.abs(other.pixels - made.pixels).max() > made.noise_std
    # A cube of voxels gives what the Gaussians give.
    voxels = simulate_volume(chain(10).volume(10), count=5, micrographs=1, snr=0.5, seed=2)
    assert voxels.noise_std == pytest.approx(made.noise_std, rel=0.05)


def test_the_truth_lies_beside_the_pixels(tmp_path):
    made = simulate_volume(chain(10), box_size=10, count=4, micrographs=2, snr=1.0, size=(70, 60))
    made.save(tmp_path / "m.zarr")
    stored = open_measurement(tmp_path / "m.zarr")
    assert stored.shape == (2, 70, 60)
    truth = open_volume_truth(tmp_path / "m.zarr")
    np.testing.assert_array_equal(truth.rotations, made.rotations)
    np.testing.assert_array_equal(truth.volume, made.volume)
    np.save(tmp_path / "plain.npy", made.pixels)
    with pytest.raises(InputError, match="truth"):
        open_volume_truth(tmp_path / "plain.npy")
    values = {name: getattr(made, name) for name in ("volume", "noise_std", "positions", "rotations")}
    for name, wrong in (("volume", "text"), ("rotations", made.rotations[1:]), ("noise_std", made.volume)):
        np.savez(tmp_path / "m.zarr/volume_truth.npz", **{**values, name: np.asarray(wrong)})
        with pytest.raises(InputError, match=name):
            open_volume_truth(tmp_path / "m.zarr")


@pytest.mark.parametrize(
    "bad",
    [
        {"snr": None},
        {"snr": 1.0, "amplitude_std": -0.1},
        {"noise_std": 1.0},
        {"snr": 0.0},
        {"count": 0},
        {"size": (5, 5)},
        {"density": 1.5},
        {"count": 1000, "size": (50, 50)},
        {"box_size": None},
    ],
)
def test_bad_arguments_are_refused(bad):
    with pytest.raises(ParameterError):
        simulate_volume(chain(10), **({"box_size": 10, "snr": 1.0} | bad))


def test_atoms_become_a_density(tmp_path):
    pytest.importorskip("gemmi")
    (tmp_path / "a.pdb").write_text(PDB)
    places, electrons = read_atoms(tmp_path / "a.pdb")
    np.testing.assert_allclose(places, [[10, 0, 0], [10, 6, 0]])
    np.testing.assert_allclose(electrons, [7, 6])
    made = density(places, electrons, 21, 1.0, 8.0).volume(21)
    assert made.sum() == pytest.approx(13.0, rel=0.01)
    rows = made.sum(axis=(0, 2)) @ (np.arange(21) - 10)
    assert rows == pytest.approx(0.0, abs=1e-2)
    spread = (
        made.sum(axis=(0, 2)) @ (np.arange(21) - 10.0) ** 2
        - made.sum(axis=(0, 1)) @ (np.arange(21) - 10.0) ** 2
    )
    assert spread == pytest.approx(7 * (6 * 6 / 13) ** 2 + 6 * (6 * 7 / 13) ** 2, rel=0.02)
    with pytest.raises(ParameterError, match="box"):
        density(10 * places, electrons, 21, 1.0, None)
    (tmp_path / "b.pdb").write_text("END\n")
    with pytest.raises(InputError):
        read_atoms(tmp_path / "b.pdb")


def test_gaussians_need_places_and_weight():
    with pytest.raises(ParameterError):
        Gaussians.of(np.zeros((0, 3)), 1.0)
    with pytest.raises(ParameterError):
        Gaussians.of(np.zeros((2, 3)), -1.0)
