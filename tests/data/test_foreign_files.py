"""Files that others wrote: those on which mrcfile and starfile test themselves, read as these packages read them.

They are in the source distributions, which are not kept here (50 MB): from the root of the repository

    pip download --no-binary :all: --no-deps mrcfile starfile -d tests/foreign

and without them these tests are skipped.
"""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from mtdcore.data.micrographs.measurement import open_micrographs
from mtdcore.data.micrographs.star import read_star, write_star
from mtdcore.data.preparation.pixels import open_pixels

mrcfile = pytest.importorskip("mrcfile")
starfile = pytest.importorskip("starfile")

FOREIGN = Path(__file__).parents[1] / "foreign"

#: Shape and dtype of the images in mrcfile's own tests: volumes of the EMDB, and exposures of two microscopes with FEI's extended header.
IMAGES = {
    "EMD-3001.map": ((25, 43, 73), "float32"),
    "EMD-3197.map": ((20, 20, 20), "float32"),
    "epu2.9_example.mrc": ((1, 4096, 4096), "uint16"),
    "fei-extended.mrc": ((1, 3838, 3710), "uint16"),
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Every data file of a package by its name."""

    def files(package, suffixes):
        archive = next(FOREIGN.glob(f"{package}-*.tar.gz"), None)
        if archive is None:
            pytest.skip(f"no source distribution of {package} in tests/foreign")
        folder = tmp_path_factory.mktemp(package)
        with tarfile.open(archive) as tar:
            members = [
                one for one in tar if one.isfile() and "/tests/" in one.name and one.name.endswith(suffixes)
            ]
            tar.extractall(folder, members, filter="data")
        return {path.name: path for path in folder.rglob("*") if path.is_file()}

    return files


def test_images_on_which_mrcfile_tests_itself(unpacked):
    files = unpacked("mrcfile", (".mrc", ".map"))
    assert files.keys() == IMAGES.keys()
    for name, path in files.items():
        found = open_pixels(path)
        assert (found.stack.shape, found.stack.dtype.name) == IMAGES[name]
        with mrcfile.open(path, permissive=True) as theirs:
            assert np.array_equal(found.stack.reshape(theirs.data.shape), theirs.data)
            assert found.pixel_size == pytest.approx(float(theirs.voxel_size.x))
        assert open_micrographs(path).shape == found.stack.shape


def test_tables_on_which_starfile_tests_itself(unpacked, tmp_path):
    files = unpacked("starfile", ".star")
    assert len(files) >= 15
    for path in files.values():
        ours = read_star(path)
        labels = [label for table in ours.values() for label in table]
        theirs = starfile.read(path, always_dict=True, parse_as_string=labels)
        assert ours.keys() == theirs.keys()
        for block, table in theirs.items():
            single = isinstance(table, dict)
            assert ours[block] == {
                label: [str(table[label])] if single else list(map(str, table[label])) for label in table
            }, (path, block)
            if all(len(value.split()) == 1 for values in ours[block].values() for value in values):
                write_star(tmp_path / "again.star", block, ours[block])
                assert read_star(tmp_path / "again.star") == {block: ours[block]}
