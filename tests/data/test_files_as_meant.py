"""Files are read as their owners meant them: what the field's programs write and mean, all of it, or an error (row 22)."""

import logging
import os
import re
import struct
import sys

import numpy as np
import pytest

from mtdcore.data import open_measurement
from mtdcore.data.micrographs.listing import find_micrographs, of_one_size
from mtdcore.data.micrographs.measurement import open_micrographs
from mtdcore.data.micrographs.star import read_star, write_star
from mtdcore.data.preparation.pixels import open_pixels
from mtdcore.errors import DependencyError, InputError, ParameterError

mrcfile = pytest.importorskip("mrcfile")
tifffile = pytest.importorskip("tifffile")

IMAGE = np.random.default_rng(0).integers(0, 200, (24, 32)).astype(np.int16)
HEAD = "data_micrographs\n\nloop_\n_rlnMicrographName #1\n"


def mrc(path, data=IMAGE, size=1.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, data=data, overwrite=True) as file:
        file.voxel_size = size
    return path


def star(path, *names, head=HEAD):
    path.write_bytes(head.encode() + b"".join(os.fsencode(name) + b"\n" for name in names))
    return path


NAMES = [
    "a b.mrc",
    "my data/a  b.mrc",
    "it's.mrc",
    'a "quoted" name.mrc',
    "#1.mrc",
    "a#1.mrc",
    "_a.mrc",
    "data_1.mrc",
    "loop_",
    ";a.mrc",
    "a@b.mrc",
    "000001@a@b.mrcs",
    "Mäuse/m.mrc",
    os.fsdecode("M\xe4use/m.mrc".encode("latin-1")),
    "",
    "?",
    ".5",
    "-1e-05",
]


@pytest.mark.parametrize("width", [1, 2])
def test_every_name_comes_back_from_a_table(tmp_path, width):
    table = {label: NAMES for label in ("rlnMicrographName", "rlnOther")[:width]}
    write_star(tmp_path / "a.star", "x", table)
    assert read_star(tmp_path / "a.star") == {"x": table}


def test_starfile_reads_names_with_blanks_as_we_wrote_them(tmp_path):
    starfile = pytest.importorskip("starfile")
    names = ["a b.mrc", "Mäuse/m.mrc", "c.mrc"]
    write_star(tmp_path / "a.star", "x", {"rlnMicrographName": names, "rlnCoordinateX": [1.0, 2.0, 3.0]})
    theirs = starfile.read(tmp_path / "a.star")
    assert theirs["rlnMicrographName"].tolist() == names
    starfile.write({"x": theirs}, tmp_path / "b.star")
    assert read_star(tmp_path / "b.star")["x"]["rlnMicrographName"] == names


def test_what_no_quotes_can_hold_is_refused(tmp_path):
    for name in ("a\nb", "a\0b", "a\" b' c"):
        with pytest.raises(ParameterError, match="one line"):
            write_star(tmp_path / "a.star", "", {"x": [name]})


ROWS = {
    "underscore": (HEAD + "a.mrc\n_b.mrc\nc.mrc\n", ["a.mrc", "_b.mrc", "c.mrc"]),
    "underscore first": (HEAD + "_b.mrc\nc.mrc\n", ["_b.mrc", "c.mrc"]),
    "block": (HEAD + "a.mrc\ndata_2021/b.mrc\n", ["a.mrc", "data_2021/b.mrc"]),
    "block twice": (HEAD + "data_1/a\ndata_2/b.mrc\nc\n", ["data_1/a", "data_2/b.mrc", "c"]),
    "gap": (HEAD + "a.mrc\n\nb.mrc\n", ["a.mrc", "b.mrc"]),
    "comment": (HEAD + "a.mrc # best\n# none\nb.mrc\n", ["a.mrc", "b.mrc"]),
    "next block": (HEAD + "a.mrc\n\ndata_next\n\n_x 1\n", ["a.mrc"]),
    "next loop": (HEAD + "a.mrc\ndata_next\nloop_\n_x #1\n1\n", ["a.mrc"]),
    "no numbers": (HEAD.replace(" #1", "") + "a.mrc\nb.mrc\n", ["a.mrc", "b.mrc"]),
    "windows": ((HEAD + "a.mrc\nb.mrc\n").replace("\n", "\r\n"), ["a.mrc", "b.mrc"]),
    "byte order mark": ("\ufeff" + HEAD + "a.mrc\n", ["a.mrc"]),
    "no last line end": (HEAD + "a.mrc", ["a.mrc"]),
}


@pytest.mark.parametrize("kind", ROWS)
def test_no_row_is_lost(tmp_path, kind):
    text, names = ROWS[kind]
    (tmp_path / "a.star").write_bytes(text.encode())
    assert read_star(tmp_path / "a.star")["micrographs"]["rlnMicrographName"] == names


DOUBTFUL = {
    "row or block": HEAD + "a.mrc\n\ndata_2021/b.mrc\nc.mrc\n",
    "row or label": "data_\nloop_\n_a #1\n_b #2\n1 2\n\n_c 3\n",
    "too few": "data_\nloop_\n_a #1\n_b #2\n1\n",
    "too many": "data_\nloop_\n_a #1\n_b #2\n1 2 3\n",
    "several lines": "data_\n_a\n;text\n;\n",
    "a label twice": "data_\nloop_\n_a #1\n_a #2\n1 2\n",
    "a single value twice": "data_\n_a 1\n_a 2\n",
}


@pytest.mark.parametrize("kind", DOUBTFUL)
def test_what_could_be_read_in_two_ways_is_an_error_that_names_the_line(tmp_path, kind):
    (tmp_path / "a.star").write_text(DOUBTFUL[kind])
    with pytest.raises(InputError, match=r"a\.star should be a STAR file; it could not be read: line \d+"):
        read_star(tmp_path / "a.star")


@pytest.mark.parametrize(("length", "shown"), [(60, "a" * 60), (61, "a" * 60 + "...")])
def test_only_a_long_line_is_cut_in_the_message(tmp_path, length, shown):
    (tmp_path / "a.star").write_text("data_\nloop_\n_a #1\n_b #2\n" + "a" * length + "\n")
    with pytest.raises(InputError, match=rf"line 5, '{re.escape(shown)}':"):
        read_star(tmp_path / "a.star")


@pytest.mark.parametrize("name", ["a@b.mrc", "7@8@b.mrc", "Mäuse/m.mrc", "latin", "latin list of utf files"])
def test_names_with_an_at_or_beyond_ascii_are_found(tmp_path, name):
    if name.startswith("latin"):
        file = listed = os.fsdecode("M\xe4use/m.mrc".encode("latin-1"))
        if name != "latin":
            file = "Mäuse/m.mrc"
    else:
        file = listed = name
    mrc(tmp_path / file)
    (found,) = find_micrographs(star(tmp_path / "m.star", listed if name[:2] != "7@" else f"1@{listed}"))
    assert found.name.endswith(listed)
    assert np.array_equal(found.read(), IMAGE)


def test_optics_groups_may_be_written_as_real_numbers(tmp_path):
    mrc(tmp_path / "a.mrc", size=0)
    head = (
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n1 2.5\n2 3.5\n\n"
        + HEAD
        + "_rlnOpticsGroup #2\n"
    )
    (tmp_path / "m.star").write_text(head + "a.mrc 2.000000\n")
    assert find_micrographs(tmp_path / "m.star")[0].pixel_size == 3.5


def test_tiff_is_read_as_the_field_reads_it_and_its_picks_are_those_of_the_same_image_as_mrc(tmp_path):
    """RELION, IMOD, EMAN2 and MotionCor2 flip TIFF on reading and on writing."""
    mrc(tmp_path / "a.mrc")
    for compression in (None, "zlib"):
        tifffile.imwrite(
            tmp_path / "a.tif", IMAGE[::-1].copy(), compression=compression
        )  # as IMOD's mrc2tif writes it
        both = open_micrographs([tmp_path / "a.mrc", tmp_path / "a.tif"])
        a, b = (one.read() for one in both.micrographs)
        assert np.array_equal(a, IMAGE)
        assert np.array_equal(b, IMAGE)


def test_all_pages_of_a_tiff_are_read_or_none(tmp_path):
    pages = np.stack([IMAGE, IMAGE + 1, IMAGE + 2])
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in pages:
            file.write(page)
    assert np.array_equal(open_pixels(tmp_path / "a.tif").stack, pages[:, ::-1])
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(IMAGE)
        file.write(IMAGE[:8, :8])
    with pytest.raises(InputError, match="holds 2 kinds of pages"):
        open_pixels(tmp_path / "b.tif")


def test_a_tiff_that_needs_another_package_says_so_and_is_not_skipped(tmp_path, monkeypatch):
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, compression="lzw")
    assert np.array_equal(open_pixels(tmp_path / "a.tif").stack[0], IMAGE[::-1])

    def missing(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", missing)
    skipped = []
    with pytest.raises(DependencyError, match=r"mtdcore\[em\]"):
        find_micrographs(star(tmp_path / "m.star", "a.tif"), on_bad=skipped.append)[0].read()
    assert skipped == []


def test_particles_are_no_micrographs(tmp_path):
    mrc(tmp_path / "mic.mrc")
    columns = {"rlnMicrographName": ["mic.mrc"] * 3, "rlnCoordinateX": [1, 2, 3], "rlnCoordinateY": [1, 2, 3]}
    for block in ("particles", "", "micrographs"):
        write_star(tmp_path / "p.star", block, columns)
        with pytest.raises(InputError, match="lists 3 particles"):
            find_micrographs(tmp_path / "p.star")
    write_star(tmp_path / "p.star", "particles", {"rlnMicrographName": ["mic.mrc"]})
    with pytest.raises(InputError, match="lists 1 particles"):
        find_micrographs(tmp_path / "p.star")


def test_what_comes_twice_counts_once_and_is_named(tmp_path, caplog):
    mrc(tmp_path / "a.mrc")
    mrc(tmp_path / "b.mrc", IMAGE + 1)
    (tmp_path / "link.mrc").symlink_to(tmp_path / "a.mrc")
    found = find_micrographs(star(tmp_path / "m.star", "a.mrc", "b.mrc", "./a.mrc", "link.mrc", "1@a.mrc"))
    with caplog.at_level(logging.WARNING, "mtdcore"):
        assert [one.name for one in of_one_size(found)] == ["a.mrc", "b.mrc"]
    assert "3 micrograph(s) came more than once and count once: ./a.mrc, link.mrc, 1@a.mrc" in caplog.text
    stack = mrc(tmp_path / "s.mrcs", np.stack([IMAGE, IMAGE]))
    assert len(open_micrographs([stack, stack]).micrographs) == 2  # the sections of a stack are no repeats


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("stamp", "flags", "signed"), [(1146047817, 0, False), (1146047817, 1, True), (0, 0, True)]
)
def test_bytes_of_imod_have_no_sign(tmp_path, stamp, flags, signed, order):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = mrc(tmp_path / "a.mrc", grey.view(np.int8))
    if order == ">":
        path.write_bytes(_big(path))
    content = bytearray(path.read_bytes())
    struct.pack_into(f"{order}ii", content, 152, stamp, flags)
    path.write_bytes(content)
    assert np.array_equal(open_pixels(path).stack[0], grey.view(np.int8) if signed else grey)


def _big(path):
    """The same file with a header of the other byte order; single bytes have none."""
    with mrcfile.open(path) as file:
        header = file.header.copy().byteswap()
    content = bytearray(header.tobytes() + path.read_bytes()[1024:])
    content[212:216] = b"\x11\x11\0\0"
    return bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda b: struct.pack_into("<i", b, 12, 101), r"4 bits per pixel \(mode 101\): unpack it with IMOD"),
        (lambda b: b.__setitem__(slice(0, 2), b"\x1f\x8b"), r"compressed file: unpack it first \(gunzip\)"),
        (lambda b: b.__setitem__(slice(0, 3), b"BZh"), "bunzip2"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, harm, message):
    path = mrc(tmp_path / "a.mrc")
    content = bytearray(path.read_bytes())
    harm(content)
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_measurement(path)


@pytest.mark.parametrize(
    ("size", "believed"),
    [
        (0.05, None),
        (0.5, 0.5),
        (19.0, 19.0),
        (25.0, None),
        (1e-10, None),
        ((1.5, 3.0, 1.5), None),
        (1.0, None),
    ],
)
def test_pixel_sizes_that_no_micrograph_has(tmp_path, size, believed):
    found = open_pixels(mrc(tmp_path / "a.mrc", size=size)).pixel_size
    assert found == (None if believed is None else pytest.approx(believed))


@pytest.mark.skipif(sys.platform != "linux", reason="needs pipes")
@pytest.mark.parametrize("name", ["a.star", "a.mrc", "a.tif", "a.npy"])
def test_a_pipe_does_not_hang(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="pipe"):
        open_measurement(tmp_path / name)
