import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.checkpoint import (
    fingerprint,
    likelihood_from_record,
    likelihood_record,
    load_checkpoint,
    save_checkpoint,
)
from mtdcore.errors import CheckpointError, StorageError
from mtdcore.files import write_whole
from mtdcore.recovery import EMState, IterationRecord
from mtdcore.schedule import Temperature

IDENTITY = {"box_size": 4, "seed": 0, "noise_std": "auto", "version": "1"}
LIKELIHOODS = [
    mtd.PatchLikelihood(4, 4, 0.1, empty_probability=1 / 3),
    mtd.WindowLikelihood(4, 4, 0.1, expected_count=2 / 3, min_separation=3, positions=100),
]


def state(likelihood):
    rng = np.random.default_rng(0)
    record = IterationRecord(1, -1 / 3, 0.1 + 0.2, 1e-300, np.pi, 2.0, 0.5)
    return EMState(rng.normal(size=(4, 4)), likelihood, Temperature(1.7, 36), 5.5, (record,))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_checkpoint_gives_the_same_bits_back(tmp_path, likelihood):
    before = state(likelihood)
    save_checkpoint(tmp_path / "c.npz", before, IDENTITY)
    after = load_checkpoint(tmp_path / "c.npz", IDENTITY)
    assert after.target.tobytes() == before.target.tobytes()
    assert (after.likelihood, after.schedule, after.first_count, after.history) == (
        before.likelihood,
        before.schedule,
        before.first_count,
        before.history,
    )


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_likelihood_records_round_trip(likelihood):
    assert likelihood_from_record(likelihood_record(likelihood)) == likelihood


def test_another_run_is_refused_with_the_list_of_differences(tmp_path):
    save_checkpoint(tmp_path / "c.npz", state(LIKELIHOODS[0]), IDENTITY)
    with pytest.raises(CheckpointError, match="box_size was 4, is 5; seed was 0, is 1") as caught:
        load_checkpoint(tmp_path / "c.npz", {**IDENTITY, "box_size": 5, "seed": 1})
    assert "noise_std" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 20, 300, -1])
def test_a_damaged_checkpoint_is_refused(tmp_path, keep):
    path = tmp_path / "c.npz"
    save_checkpoint(path, state(LIKELIHOODS[0]), IDENTITY)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path, IDENTITY)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "c.npz"
    before = state(LIKELIHOODS[0])
    save_checkpoint(path, before, IDENTITY)
    content = bytearray(path.read_bytes())
    content[content.find(before.target.tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path, IDENTITY)


def test_no_checkpoint_at_all_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="missing"):
        load_checkpoint(tmp_path / "c.npz", IDENTITY)


def test_a_fingerprint_follows_the_pixels_and_nothing_else(tmp_path):
    pixels = np.random.default_rng(0).normal(size=(2, 30, 20)).astype(np.float32)
    np.save(tmp_path / "m.npy", pixels)
    prints = {fingerprint(mtd.open_measurement(source)) for source in (pixels, tmp_path / "m.npy")}
    assert len(prints) == 1
    pixels[1, 29, 19] += 1e-6
    prints.add(fingerprint(mtd.open_measurement(pixels)))
    pixels[0, 0, 0] = np.nan
    prints.add(fingerprint(mtd.open_measurement(pixels)))
    pixels[0, 0, 0] = 0.0
    prints.add(fingerprint(mtd.open_measurement(pixels)))
    assert len(prints) == 4


def test_writes_are_whole_or_absent(tmp_path):
    path = tmp_path / "file"
    write_whole(path, lambda file: file.write(b"first"))

    def breaks(file):
        file.write(b"sec")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        write_whole(path, breaks)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]
