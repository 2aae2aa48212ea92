import json
import math

import numpy as np
import pytest

from mtdcore.errors import InputError, ParameterError, StorageError
from mtdcore.model.rotations import disc, rotate
from mtdcore.synthetic.simulate import open_simulation, simulate


@pytest.fixture
def target():
    return np.random.default_rng(0).uniform(0.5, 1.5, size=(6, 6))


def separations(positions):
    gap = np.abs(positions[:, None] - positions[None])
    gap = np.where(gap[..., 0] > 0, 10**9, gap[..., 1:].max(axis=-1))
    return gap[~np.eye(len(gap), dtype=bool)]


def render(simulation, shape):
    """The forward model in plain loops, without noise."""
    clean = np.zeros(shape)
    length = len(simulation.target)
    for (m, r, c), angle in zip(simulation.positions, simulation.angles, strict=True):
        clean[m, r : r + length, c : c + length] += rotate(simulation.target, [angle])[0]
    return clean


@pytest.mark.parametrize("rotations", [1, 4, 5, "continuous"])
@pytest.mark.parametrize("separation", [0.5, 1, 2])
def test_equals_the_forward_model(target, rotations, separation):
    made = simulate(
        target, shape=(90, 130), density=0.1, snr=math.inf, rotations=rotations, separation=separation,
        micrographs=3, seed=5, dtype="float64",
    )  # fmt: skip
    assert made.measurement.shape == (3, 90, 130)
    assert np.allclose(made.measurement.array, render(made, (3, 90, 130)), atol=1e-12)
    assert len(made.positions) == 3 * math.ceil(0.1 * 90 * 130 / 36)
    assert separations(made.positions).min() >= separation * 6
    if rotations in (1, 4):
        assert np.array_equal(made.target, target)
    else:
        assert np.array_equal(made.target, target * disc(6))


def test_blocks_and_their_seams(target):
    """A micrograph larger than one noise block, with copies across the seams."""
    made = simulate(target, shape=(530, 1040), density=0.2, noise_std=0.5, separation=1, dtype="float64")
    positions = made.positions[:, 1:]
    across = (positions % [256, 1024] > [250, 1018]) & (positions > 6)
    assert across.any(axis=0).all()
    noise = made.measurement.array[0] - render(made, (1, 530, 1040))[0]
    assert noise.std() == pytest.approx(0.5, rel=0.01)
    assert abs(noise.mean()) < 3 * 0.5 / math.sqrt(noise.size)
    assert np.corrcoef(noise[:256, :1024].ravel(), noise[256:512, :1024].ravel())[0, 1] == pytest.approx(
        0, abs=0.01
    )


def test_the_papers_layout(target):
    made = simulate(target, side=66, density=0.1, snr=2.0)
    assert len(made.positions) == 13
    assert made.noise_std == pytest.approx(np.linalg.norm(target) / 6 / math.sqrt(2))
    assert separations(made.positions).min() >= 12
    assert np.allclose(made.angles, made.rotation_indices * np.pi / 2)


def test_rotations_and_places_are_uniform(target):
    made = simulate(target, side=600, count=1500, snr=1, separation=1, seed=3)
    assert np.bincount(made.rotation_indices, minlength=4).min() > 320
    quadrant = (made.positions[:, 1] > 297) * 2 + (made.positions[:, 2] > 297)
    assert np.bincount(quadrant).min() > 320
    angles = simulate(target, side=600, count=1500, snr=1, separation=1, rotations="continuous").angles
    assert np.histogram(angles, bins=4, range=(0, 2 * np.pi))[0].min() > 320


def test_seed_decides_every_bit(target):
    def pixels(**changed):
        return simulate(
            target, **({"side": 80, "count": 5, "snr": 1, "micrographs": 2} | changed)
        ).measurement.array

    reference = pixels()
    assert reference.dtype == np.float32
    assert np.array_equal(reference, pixels())
    assert not np.array_equal(reference, pixels(seed=1))
    assert not np.array_equal(reference[0], reference[1])
    assert np.array_equal(reference[0], pixels(micrographs=1)[0])
    assert np.array_equal(reference, pixels(dtype="float64").astype(np.float32))
    noise = pixels(count=0, noise_std=1, snr=None)
    assert np.array_equal(
        noise[:, :60, :50], pixels(count=0, noise_std=1, snr=None, side=None, shape=(60, 50))
    )


def test_copies_touching_every_edge():
    made = simulate(np.ones((4, 4)), side=8, count=2, snr=math.inf, separation=1, micrographs=200)
    corners = {tuple(p) for p in made.positions[:, 1:].tolist()}
    assert corners == {(r, c) for r in range(5) for c in range(5) if not {r, c} <= {1, 2, 3}}
    assert made.measurement.array.sum() == 200 * 2 * 16
    single = simulate(np.ones((4, 4)), side=4, count=1, snr=math.inf)
    assert np.array_equal(single.measurement.array[0], np.ones((4, 4)))
    assert simulate(np.ones((4, 4)), side=9, count=0, noise_std=1).positions.shape == (0, 3)


@pytest.mark.parametrize("compressor", [None, "lz4", "zstd"])
def test_on_disk_same_bits_and_truth(target, tmp_path, compressor):
    import zarr

    options = {"shape": (520, 300), "density": 0.05, "snr": 1.0, "micrographs": 2, "seed": 7}
    memory = simulate(target, **options)
    disk = simulate(target, path=tmp_path / "m.zarr", compressor=compressor, **options)
    array = zarr.open_array(tmp_path / "m.zarr", mode="r")
    assert np.array_equal(array[:], memory.measurement.array)
    assert array.metadata.zarr_format == 3
    assert array.chunks == (1, 256, 300)
    assert array.metadata.to_dict()["codecs"][-1]["name"] == "crc32c"
    note = array.attrs["mtdcore"]
    assert note["parameters"] == json.loads(json.dumps(memory.parameters))
    for name in ("positions", "angles", "rotation_indices", "target", "noise_std"):
        assert np.array_equal(getattr(disk, name), getattr(memory, name)), name
    assert disk.measurement.shape == (2, 520, 300)
    assert disk.parameters == memory.parameters
    assert [p.name for p in tmp_path.iterdir()] == ["m.zarr"]


def test_empty_chunks_are_written(tmp_path):
    simulate(np.ones((4, 4)), shape=(500, 1030), count=0, noise_std=0, path=tmp_path / "m.zarr")
    assert len(list((tmp_path / "m.zarr" / "c").glob("0/[01]/[01]"))) == 4


def test_nothing_is_overwritten_or_left_behind(target, tmp_path, monkeypatch):
    options = {"side": 40, "count": 2, "snr": 1, "rotations": "continuous", "path": tmp_path / "m.zarr"}
    first = simulate(target, **options)
    assert first.rotation_indices is None
    with pytest.raises(StorageError, match="exists already"):
        simulate(target, seed=1, **options)
    assert np.array_equal(open_simulation(tmp_path / "m.zarr").positions, first.positions)
    monkeypatch.setattr(
        np, "savez", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(StorageError, match="No space left"):
        simulate(target, seed=1, overwrite=True, **options)
    assert np.array_equal(open_simulation(tmp_path / "m.zarr").positions, first.positions)
    monkeypatch.undo()
    again = simulate(target, seed=1, overwrite=True, **options)
    assert not np.array_equal(again.positions, first.positions)
    assert [p.name for p in tmp_path.iterdir()] == ["m.zarr"]
    (tmp_path / "m.zarr" / "truth.npz").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="truth"):
        open_simulation(tmp_path / "m.zarr")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shape": (40, 40)}, "either side or shape"),
        ({"side": None}, "either side or shape"),
        ({"density": 0.1}, "either density or count"),
        ({"noise_std": 1}, "either snr or noise_std"),
        ({"snr": 0}, "snr > 0"),
        ({"snr": None, "noise_std": -1}, "noise_std -1"),
        ({"side": 5}, "at least 6 x 6"),
        ({"seed": -1}, "seed"),
        ({"micrographs": 0}, "micrographs"),
        ({"count": -1}, "-1 copies"),
        ({"separation": 0}, "separation must be positive"),
        ({"separation": np.nan}, "separation must be a finite number; got nan"),
        ({"count": None, "density": np.inf}, "density must be a finite number; got inf"),
        ({"rotations": 0}, "rotations"),
        ({"count": 40}, "9 is the most that ever do"),
        ({"count": 36, "side": 72}, "random placement got to"),
        ({"dtype": "int16"}, "float32 or float64"),
        ({"target": np.ones((5, 6, 2))}, r"image or signal; got an array of shape \(5, 6, 2\)"),
        ({"target": np.ones((5, 6)), "rotations": 4}, "need a square box"),
        ({"target": np.full((6, 6), np.nan)}, "finite"),
        ({"target": np.zeros((6, 6))}, "not blank"),
    ],
)
def test_clear_errors(target, changed, message):
    options = {"target": target, "side": 36, "count": 2, "snr": 1} | changed
    with pytest.raises(ParameterError, match=message):
        simulate(options.pop("target"), **options)


def test_an_unknown_compressor_is_refused(target, tmp_path):
    with pytest.raises(ParameterError, match="lz4 or zstd"):
        simulate(target, side=36, count=2, snr=1, path=tmp_path / "m.zarr", compressor="gzip")


def test_parameters_are_plain(target):
    made = simulate(target, side=np.int64(40), count=np.int64(2), snr=np.float32(1), seed=np.int64(3))
    assert json.loads(json.dumps(made.parameters)) == made.parameters


def test_many_copies_are_placed_quickly():
    made = simulate(np.ones((2, 2)), side=1650, count=30_000, noise_std=0, separation=1)
    packed = np.unique(made.positions[:, 1] * 1650 + made.positions[:, 2])
    assert len(packed) == 30_000
    assert made.measurement.array.sum(dtype=np.float64) == 120_000
    assert made.measurement.array.max() == 1


def test_memory_stays_flat_on_disk(peak_memory, tmp_path):
    script = (
        "import numpy as np, sys; from mtdcore.synthetic.simulate import simulate;"
        "simulate(np.ones((8, 8)), side=int(sys.argv[1]), density=.1, noise_std=1, path=sys.argv[2])"
    )

    def peak(side):
        return peak_memory(script, side, tmp_path / f"{side}.zarr") / 2**20

    small, large = peak(512), peak(4096)  # 1 and 64 MiB of pixels
    assert large - small < 24
