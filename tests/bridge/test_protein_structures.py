import numpy as np
import pytest

from mtdbridge.proteins.coordinates import joined, read_atoms, read_folder
from mtdbridge.proteins.loading import load_structures
from mtdbridge.proteins.structures import Structures, centred
from mtdcore.errors import InputError, StorageError

ATOM = "ATOM  {:5d}  {:<3s} {:3s} {:1s}{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00 10.00          {:>2s}\n"


def pdb(atoms):
    lines = [
        ATOM.format(i + 1, name, "ALA", "A", i // 4 + 1, *xyz, name[0]) for i, (name, xyz) in enumerate(atoms)
    ]
    return "".join(lines) + "END\n"


def write_pdb(path, count=12, seed=0):
    places = np.random.default_rng(seed).uniform(-20, 20, (count, 3)).round(3)
    path.write_text(pdb([("CA" if i % 2 else "N", xyz) for i, xyz in enumerate(places)]))
    return places


def test_atoms_come_as_z_y_x_with_their_electrons(tmp_path):
    pytest.importorskip("gemmi")
    places = write_pdb(tmp_path / "one.pdb")
    points, weights = read_atoms(tmp_path / "one.pdb")
    np.testing.assert_allclose(points, places[:, ::-1], atol=1e-3)
    assert set(weights) == {6.0, 7.0}


def test_a_folder_becomes_structures(tmp_path):
    pytest.importorskip("gemmi")
    for i in range(20):
        write_pdb(tmp_path / f"{i:02d}.pdb", count=8 + 4 * i, seed=i)
    (tmp_path / "notes.txt").write_text("no protein")
    structures = load_structures(tmp_path)
    assert len(structures) == 20
    assert structures.names[3] == "03.pdb"
    assert (structures.part == 1).sum() == 1
    mass = np.add.reduceat(structures.points * structures.weights[:, None], structures.offset[:-1])
    np.testing.assert_allclose(mass, 0, atol=1e-2)


def test_files_without_atoms_and_empty_folders_are_refused(tmp_path):
    pytest.importorskip("gemmi")
    with pytest.raises(InputError, match="expected PDB or mmCIF files"):
        read_folder(tmp_path)
    (tmp_path / "empty.pdb").write_text("REMARK nothing\nEND\n")
    with pytest.raises(InputError, match=r"empty\.pdb"):
        read_folder(tmp_path)


def test_joining_keeps_mass_and_centre():
    generator = np.random.default_rng(0)
    points, weights = generator.uniform(-15, 15, (3000, 3)), generator.uniform(1, 8, 3000)
    fewer, mass = joined(points, weights)
    assert len(fewer) < len(points)
    assert mass.sum() == pytest.approx(weights.sum())
    np.testing.assert_allclose(mass @ fewer, weights @ points)


def archive(path, **more):
    arrays = {
        "xyz": np.arange(18, dtype=np.float16).reshape(6, 3),
        "weight": np.ones(6, np.float16),
        "offset": np.array([0, 2, 6]),
        **more,
    }
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_archives(tmp_path):
    structures = load_structures(archive(tmp_path / "a.npz", split=np.array([0, 2], np.int8)))
    np.testing.assert_allclose(structures.points[0], [-1.5, -1.5, -1.5])
    np.testing.assert_allclose(structures.radii, [1.5 * 3**0.5, 4.5 * 3**0.5], rtol=1e-6)
    assert len(structures.only("test")) == 1
    with pytest.raises(InputError, match="expected structures for validation"):
        structures.only("validation")
    structures.save(tmp_path / "b.npz")
    again = load_structures(tmp_path / "b.npz")
    assert again.sha256() == structures.sha256()
    assert list(again.names) == list(structures.names)


def test_a_selection_keeps_what_belongs_together():
    points = np.arange(30.0).reshape(10, 3)
    whole = centred(
        points, np.arange(1, 11.0), np.array([0, 3, 4, 10]), np.array(["a", "b", "c"]), np.zeros(3, int)
    )
    chosen = whole.at(np.array([2, 0]))
    assert list(chosen.names) == ["c", "a"]
    np.testing.assert_array_equal(chosen.points[:6], whole.points[4:])
    np.testing.assert_array_equal(chosen.weights[6:], whole.weights[:3])


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": np.array([0, 6, 2])},
        {"offset": np.array([0, 2, 7])},
        {"weight": np.array([1, 1, 1, 1, 1, -1.0])},
        {"xyz": np.full((6, 3), np.nan)},
        {"weight": None},
    ],
)
def test_archives_that_are_no_structures_are_refused(tmp_path, wrong):
    with pytest.raises(InputError):
        load_structures(archive(tmp_path / "a.npz", **wrong))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(StorageError):
        load_structures(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError):
        load_structures(tmp_path / "text.npz")


def test_structures_say_what_does_not_fit():
    with pytest.raises(InputError, match="points"):
        Structures(
            np.zeros((4, 3), np.float32),
            np.ones(3, np.float32),
            np.array([0, 4]),
            np.array(["a"]),
            np.zeros(1, np.int8),
        )
