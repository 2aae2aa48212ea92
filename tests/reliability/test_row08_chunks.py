"""Chunks damaged, exchanged, cut off or gone (rows 8 and 9): named, or masked and counted; never wrong pixels."""

import json
import re
import shutil

import numpy as np
import pytest

import mtdcore as mtd_api
from mtdcore.data import open_measurement
from mtdcore.data.tiles import TileGeometry
from mtdcore.data.zarr.guard import DIGESTS, ChunkDamaged
from mtdcore.data.zarr.store import creating
from mtdcore.data.zarr.stored import StoredArray
from mtdcore.errors import InputError

WHOLE = TileGeometry(side=256, unit=1, halo=0, reach=0)
SHAPE, CHUNK = (4, 96, 80), (16, 20)


def write(path, shape, compressor, monkeypatch):
    monkeypatch.setattr("mtdcore.data.zarr.store.CHUNK", CHUNK)
    pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with creating(path, shape, pixels.dtype, {}, compressor) as (array, _):
        array[:] = pixels
    return pixels


@pytest.fixture(params=[None, "lz4", "zstd"], ids=str)
def stored(request, tmp_path, monkeypatch):
    """(path, pixels): a measurement of 96 chunks as mtdcore writes it."""
    return tmp_path / "m.zarr", write(tmp_path / "m.zarr", SHAPE, request.param, monkeypatch)


def read(measurement):
    out = np.full(measurement.shape, np.nan, measurement.dtype)
    for tile in measurement.tiles(WHOLE):
        out[tile.micrograph][tile.region.read] = np.where(
            True if tile.valid is None else tile.valid, tile.values, np.nan
        )
    return out


def chunks_of(path):
    return sorted(file for file in (path / "c").rglob("*") if file.is_file())


def flip(content, rng):
    place = int(rng.integers(len(content)))
    return content[:place] + bytes([content[place] ^ (1 << int(rng.integers(8)))]) + content[place + 1 :]


def zero(content, rng):
    """A sector of the disk."""
    start = int(rng.integers(-(-len(content) // 512))) * 512
    return content[:start] + bytes(len(content[start : start + 512])) + content[start + 512 :]


def cut(content, rng):
    return content[: int(rng.integers(len(content)))]


def each(how):
    """Damage of one file after another."""

    def spoil(files, rng):
        for file in files:
            file.write_bytes(how(file.read_bytes(), rng))

    return spoil


def exchange(files, rng):
    """Every chunk gets the content of the next."""
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)


def unlink(files, rng):
    for file in files:
        file.unlink()


DAMAGE = {"flip": each(flip), "zero": each(zero), "cut": each(cut), "exchange": exchange, "unlink": unlink}


def damage(path, share, rng, kinds=tuple(DAMAGE)):
    """Damage a share of the chunks, two of each kind at least; returns the names of those that changed."""
    files = chunks_of(path)
    count = max(2 * len(kinds), round(share * len(files)))
    chosen = [files[i] for i in rng.permutation(len(files))[:count]]
    for i, kind in enumerate(kinds):
        DAMAGE[kind](chosen[i :: len(kinds)], rng)
    return {str(file.relative_to(path)) for file in chosen}


def place(key):
    m, row, column = map(int, key.split("/")[1:])
    return m, slice(row * CHUNK[0], (row + 1) * CHUNK[0]), slice(column * CHUNK[1], (column + 1) * CHUNK[1])


def check_damage(path, pixels, names):
    """All of the named chunks, and no others, are in the error, and with ``skip_bad`` in the mask."""
    with pytest.raises(InputError) as caught:
        read(open_measurement(path))
    assert f"{len(names)} bad chunk(s)" in str(caught.value)
    assert names <= set(re.findall(r"c/\d+/\d+/\d+", str(caught.value)))
    measurement = open_measurement(path, skip_bad=True)
    found, expected = read(measurement), pixels.copy()
    for name in names:
        expected[place(name)] = np.nan
    assert np.array_equal(found, expected, equal_nan=True)
    assert {chunk.key for chunk in measurement.bad_chunks} == names


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5])
def test_all_bad_chunks_are_named_or_masked(stored, share):
    path, pixels = stored
    check_damage(path, pixels, damage(path, share, np.random.default_rng(round(1000 * share))))


@pytest.mark.slow
@pytest.mark.parametrize("compressor", [None, "lz4", "zstd"], ids=str)
def test_fourteen_thousand_damaged_chunks_leave_no_wrong_pixel(tmp_path, monkeypatch, compressor):
    """2000 chunks, of which 0.1, 1, 10 and 50 % are damaged, in one way after another."""
    path, rng, faults = tmp_path / "m.zarr", np.random.default_rng(4), 0
    pixels = write(path, (20, 160, 200), compressor, monkeypatch)
    good = {file: file.read_bytes() for file in chunks_of(path)}
    assert len(good) == 2000
    for share in (0.001, 0.01, 0.1, 0.5):
        for kind in ("flip", "zero", "cut", "exchange"):
            names = damage(path, share, rng, (kind,))
            assert len(names) == round(2000 * share)
            check_damage(path, pixels, names)
            faults += len(names)
            for name in names:
                (path / name).write_bytes(good[path / name])
    assert faults == 4888


def count_flips(path, pixels, count, rng):
    """Flip one bit at a time and read its chunk; (flips that were noticed, flips that changed a pixel)."""
    files, noticed, wrong = chunks_of(path), 0, 0
    array = StoredArray.open(path)
    for _ in range(count):
        file = files[int(rng.integers(len(files)))]
        good = file.read_bytes()
        file.write_bytes(flip(good, rng))
        m, rows, columns = place(str(file.relative_to(path)))
        try:
            found = array.read((m, rows.start // CHUNK[0], columns.start // CHUNK[1]))
        except ChunkDamaged:
            noticed += 1
        else:
            wrong += not np.array_equal(found[0], pixels[m, rows, columns])
        file.write_bytes(good)
    return noticed, wrong


def test_every_flipped_bit_is_noticed(stored):
    assert count_flips(*stored, 100, np.random.default_rng(1)) == (100, 0)


@pytest.mark.slow
def test_ten_thousand_flipped_bits_are_noticed(stored):
    """3,400 flips for each of the three codecs."""
    assert count_flips(*stored, 3400, np.random.default_rng(2)) == (3400, 0)


def test_exchanged_chunks_are_noticed_by_their_digests_alone(stored):
    """Without digests a chunk is believed wherever it lies: that is why they are kept."""
    path, pixels = stored
    one, two = chunks_of(path)[3:5]
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])
    with pytest.raises(InputError, match=r"2 bad chunk.*exchanged"):
        read(open_measurement(path))
    metadata = json.loads((path / "zarr.json").read_text())
    del metadata["attributes"]["digests"]
    (path / "zarr.json").write_text(json.dumps(metadata))
    assert not np.array_equal(read(open_measurement(path)), pixels)


def test_the_digests_themselves(stored):
    path, pixels = stored
    good = (path / DIGESTS).read_bytes()
    for content in (b"", good[:100], flip(good, np.random.default_rng(3))):
        (path / DIGESTS).write_bytes(content)
        try:
            found = read(open_measurement(path))
        except InputError:
            continue
        assert np.array_equal(found, pixels)  # a flip in the directory of the archive
    (path / DIGESTS).unlink()
    with pytest.raises(InputError, match="digests"):
        open_measurement(path)
    (path / DIGESTS).write_bytes(good)
    metadata = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(
        json.dumps(metadata | {"attributes": metadata["attributes"] | {"mine": 1}})
    )
    assert np.array_equal(read(open_measurement(path)), pixels)
    (path / "zarr.json").write_text(json.dumps(metadata | {"shape": [4, 96, 79]}))
    with pytest.raises(InputError, match="shape, chunks, dtype or codecs have changed"):
        open_measurement(path)


def test_a_measurement_without_any_chunk_is_no_measurement(stored):
    path, _ = stored
    shutil.rmtree(path / "c")
    with pytest.raises(InputError, match="not one is there"):
        open_measurement(path, skip_bad=True)


@pytest.mark.parametrize("options", [("--rotations", 1), ("--volume", "--views", 40, "--no-halves")])
def test_the_command_line_names_them_or_goes_on_without(mtd, tmp_path, monkeypatch, options):
    if "--volume" in options:
        pytest.importorskip("mrcfile")
    monkeypatch.setattr("mtdcore.data.zarr.store.CHUNK", (40, 40))
    path, run = tmp_path / "m.zarr", tmp_path / "run"
    target = mtd_api.datasets.glyphs(1, 8)[0]
    mtd_api.simulate(target, shape=(120, 160), density=0.1, snr=5.0, rotations=1, seed=0, path=path)
    one, two = chunks_of(path)[1:3]
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])
    chunks_of(path)[6].unlink()
    options = ("--box-size", 8, "--iterations", 2, "--device", "cpu", *options)
    error = mtd("recover", path, "-o", run, *options, code=65).stderr
    names = ["c/0/0/1", "c/0/0/2", "c/0/1/2"]
    assert all(name in error for name in names)
    assert "--skip-bad" in error
    log = mtd("recover", path, "-o", run, *options, "--skip-bad").stderr
    assert "3 bad chunk(s) skipped: c/0/0/1, c/0/0/2, c/0/1/2" in log
    noted = json.loads((run / "run.json").read_text())["measurement"]
    assert noted["masked_pixels"] == 3 * 1600
    assert [line.split()[0] for line in noted["bad_chunks"]] == names
    page = (run / "report.html").read_text()
    assert "bad chunks" in page
    assert "c/0/1/2" in page
    if "--volume" not in options:
        mtd("detect", run)
