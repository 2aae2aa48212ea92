"""Tables for RELION, read back with starfile and mrcfile."""

import numpy as np
import pytest

from mtdcore.data.micrographs.table import Entry, MicrographTable
from mtdcore.errors import ParameterError
from mtdcore.results.detections import Detections
from mtdcore.results.relion import version_of, write_class_averages, write_output_nodes, write_picks

mrcfile = pytest.importorskip("mrcfile")
starfile = pytest.importorskip("starfile")


def found(micrograph):
    n = len(micrograph)
    whole = np.arange(n)
    return Detections(
        np.array(micrograph), 10 * whole, 7 * whole, whole % 4, np.full(n, 0.9), 9, 4, whole % 2
    )


@pytest.mark.parametrize(
    ("comment", "version", "picks", "averages"),
    [
        (
            "# version 30001",
            "4.0",
            "MicrographsCoords.star.relion.autopick",
            "ImagesData.star.relion.classaverages",
        ),
        (
            "# version 50001",
            "5.0",
            "MicrographCoordsGroup.star.relion.autopick",
            "Image2DGroupMetadata.star.relion.classaverages",
        ),
        ("", "4.0", "MicrographsCoords.star.relion.autopick", "ImagesData.star.relion.classaverages"),
    ],
)
def test_output_nodes_have_the_names_of_the_relion_that_wrote_the_list(
    tmp_path, comment, version, picks, averages
):
    star = tmp_path / "m.star"
    star.write_text(f"\n{comment}\n\ndata_micrographs\n")
    assert version_of(star) == version
    write_output_nodes(tmp_path, version)
    nodes = starfile.read(tmp_path / "RELION_OUTPUT_NODES.star", always_dict=True)["output_nodes"]
    assert nodes["rlnPipeLineNodeTypeLabel"].tolist() == [picks, averages]


def test_picks_are_centres_in_pixels_of_the_stored_micrographs(tmp_path):
    table = MicrographTable(
        (Entry("a/x.mrc", 1.5, bin=3), Entry("a/y.mrc", 1.5, bin=3), Entry("a/z.mrc", 1.5, bin=3))
    )
    path = write_picks(tmp_path, found([0, 0, 2, 0]), table)
    listed = starfile.read(path)
    assert listed["rlnMicrographName"].tolist() == table.names
    x, y, z = (starfile.read(file, always_dict=True)[""] for file in listed["rlnMicrographCoordinates"])
    assert x["rlnCoordinateX"].tolist() == [12.0, 33.0, 75.0]  # 3 * (column + 9 // 2)
    assert x["rlnCoordinateY"].tolist() == [12.0, 42.0, 102.0]
    assert x["rlnAnglePsi"].tolist() == [0.0, 90.0, 270.0]
    assert x["rlnClassNumber"].tolist() == [1, 2, 2]
    assert x["rlnAutopickFigureOfMerit"].tolist() == pytest.approx([np.log(9)] * 3, abs=1e-5)
    assert len(y) == 0
    assert len(z) == 1


def test_micrographs_of_one_name_keep_their_own_tables(tmp_path):
    table = MicrographTable((Entry("a/x.mrc"), Entry("b/x.mrc")))
    listed = starfile.read(write_picks(tmp_path, found([0, 1]), table))
    assert listed["rlnMicrographCoordinates"].nunique() == 2


def test_picks_of_another_measurement_are_refused(tmp_path):
    with pytest.raises(ParameterError, match="at least 3 micrographs"):
        write_picks(tmp_path, found([2]), MicrographTable((Entry("a"),)))


@pytest.mark.parametrize("shape", [(6, 6), (1, 6, 6), (3, 6, 6)])
def test_class_averages_on_the_grey_scale_of_the_input(tmp_path, shape):
    images = np.random.default_rng(0).normal(size=shape)
    shares = [1 / 3] * 3 if shape[0] == 3 else [1.0]
    star = starfile.read(write_class_averages(tmp_path, images, shares, 40.0, 2.5), always_dict=True)[""]
    assert len(star) == len(shares)
    with mrcfile.open(tmp_path / "class_averages.mrcs") as file:
        assert np.allclose(file.data.reshape(images.shape), 40 * images)
        assert file.voxel_size.x == 2.5
        assert file.header.dmax == pytest.approx(40 * images.max(), rel=1e-6)
    assert mrcfile.validate(tmp_path / "class_averages.mrcs")


def test_the_table_of_micrographs_comes_back_from_disk(tmp_path):
    table = MicrographTable((Entry("a", 1.5, 2, True, 7.0, (1.0, 0.5)), Entry("b", 1.5, 2, True, 9.0)))
    table.save(tmp_path)
    assert MicrographTable.load(tmp_path) == table
    assert (table.pixel_size, table.scale) == (3.0, 8.0)
    assert np.array_equal(table.transfer, [[1.0, 0.5], [1.0, 1.0]])
    assert MicrographTable.load(tmp_path / "nowhere") is None
