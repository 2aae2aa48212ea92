import os

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore._base import files
from mtdcore._base.files import write_whole
from mtdcore.em.checkpoint import fingerprint, load_checkpoint, previous_checkpoint, save_checkpoint
from mtdcore.em.online.batches import Running
from mtdcore.em.state import Candidate, EMState, IterationRecord
from mtdcore.em.temperature import Temperature
from mtdcore.errors import CheckpointError, StorageError
from mtdcore.model.likelihood.records import likelihood_from_record, likelihood_record
from mtdcore.testing import assert_same_bits

IDENTITY = {"box_size": 4, "seed": 0, "noise_std": "auto", "version": "1"}
LIKELIHOODS = [
    mtd.PatchLikelihood(mtd.Rotations(4, 4), 0.1, empty_probability=1 / 3),
    mtd.WindowLikelihood(mtd.Rotations(4, 4), 0.1, expected_count=2 / 3, min_separation=3, positions=100),
    mtd.WindowLikelihood(
        mtd.Classes(mtd.Rotations(4, 4), 2), 0.1, expected_count=5.0, class_weights=(2 / 3, 1 / 3)
    ),
]


@pytest.fixture
def state(random_statistics):
    """Makes the state of a run with this likelihood."""

    def make(likelihood):
        rng = np.random.default_rng(0)
        record = IterationRecord(1, -1 / 3, 0.1 + 0.2, 1e-300, np.pi, 2.0, 0.5)
        candidates = (
            Candidate(rng.normal(size=(4, 4)), likelihood, scales=(1 / 7,)),
            Candidate(
                rng.normal(size=(4, 4)), likelihood, 1 / 3, Running(random_statistics(rng, 4), 7, 1 / 3)
            ),
        )
        return EMState(candidates, Temperature(1.7, 36), 5.5, (record,))

    return make


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_checkpoint_gives_the_same_bits_back(tmp_path, likelihood, state):
    before = state(likelihood)
    save_checkpoint(tmp_path / "c.safetensors", before, IDENTITY)
    after = load_checkpoint(tmp_path / "c.safetensors", IDENTITY)
    assert after.target.tobytes() == before.target.tobytes()
    assert (after.likelihood, after.schedule, after.first_count, after.history) == (
        before.likelihood,
        before.schedule,
        before.first_count,
        before.history,
    )
    one, other = (saved.candidates[1].running for saved in (before, after))
    assert_same_bits(one.statistics, other.statistics)
    assert (one.mixed, one.worth) == (other.mixed, other.worth)
    assert after.candidates[0].running is None
    assert [saved.scales for saved in after.candidates] == [(1 / 7,), None]


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_likelihood_records_round_trip(likelihood):
    assert likelihood_from_record(likelihood_record(likelihood)) == likelihood


def test_another_run_is_refused_with_the_list_of_differences(tmp_path, state):
    save_checkpoint(tmp_path / "c.safetensors", state(LIKELIHOODS[0]), IDENTITY)
    with pytest.raises(CheckpointError, match="box_size was 4, is 5; seed was 0, is 1") as caught:
        load_checkpoint(tmp_path / "c.safetensors", {**IDENTITY, "box_size": 5, "seed": 1})
    assert "noise_std" not in str(caught.value)


def test_the_previous_checkpoint_takes_over_and_says_so(tmp_path, state):
    path = tmp_path / "c.safetensors"
    first = state(LIKELIHOODS[1])
    second = first.advance([Candidate(first.target + 1, first.likelihood)], first.history[0])
    third = second.advance([Candidate(first.target + 2, first.likelihood)], first.history[0])
    for each in (first, second, third):
        save_checkpoint(path, each, IDENTITY)
    assert load_checkpoint(path, IDENTITY).iteration == 3
    assert len(list(tmp_path.iterdir())) == 2
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(RuntimeWarning, match="damaged .* previous checkpoint, of iteration 2"):
        after = load_checkpoint(path, IDENTITY)
    assert after.target.tobytes() == second.target.tobytes()
    path.unlink()
    with pytest.warns(RuntimeWarning, match="missing"):
        assert load_checkpoint(path, IDENTITY).iteration == 2
    path.write_bytes(b"damaged")
    save_checkpoint(path, third, IDENTITY)  # must not push the damaged one over the good previous one
    assert load_checkpoint(path, IDENTITY).iteration == 3
    path.unlink()
    with pytest.warns(RuntimeWarning):
        assert load_checkpoint(path, IDENTITY).iteration == 2
    previous_checkpoint(path).unlink()
    with pytest.raises(CheckpointError, match="no previous one"):
        load_checkpoint(path, IDENTITY)


@pytest.mark.parametrize("name", ["open", "fsync", "replace"])
def test_when_the_system_refuses_a_checkpoint_still_loads(tmp_path, monkeypatch, name, state):
    """Each call of the writing path fails in turn; the error is ours and the checkpoint loads."""
    path = tmp_path / "c.safetensors"
    first = state(LIKELIHOODS[0])
    second = first.advance([Candidate(first.target + 1, first.likelihood)], first.history[0])
    save_checkpoint(path, first, IDENTITY)
    module = files if name == "open" else os
    original = getattr(module, name, open)
    for failing in range(8):
        calls = iter(range(100))

        def call(*args, calls=calls, failing=failing, **kwargs):
            if next(calls) == failing:
                raise OSError(28, "No space left on device")
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, call, raising=False)
            try:
                save_checkpoint(path, second, IDENTITY)
            except StorageError:
                pass
            else:
                break
        assert load_checkpoint(path, IDENTITY).iteration in (1, 2)
        assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]
    assert 0 < failing < 8
    assert load_checkpoint(path, IDENTITY).iteration == 2


def test_no_checkpoint_at_all_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="missing"):
        load_checkpoint(tmp_path / "c.safetensors", IDENTITY)


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
