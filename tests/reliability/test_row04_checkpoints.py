"""Checkpoints damaged in every class of byte, cut off and deleted (row 4): noticed; the one before is used and it says so."""

import json
import signal
import warnings

import numpy as np
import pytest

import mtdcore as mtd_api
from mtdcore.em.checkpoint import load_checkpoint, previous_checkpoint, save_checkpoint
from mtdcore.em.online.batches import Running
from mtdcore.em.state import Candidate, EMState, IterationRecord
from mtdcore.em.temperature import Temperature
from mtdcore.errors import CheckpointError

IDENTITY = {"box_size": 4, "seed": 0, "noise_std": "auto"}
LIKELIHOODS = {
    "patch": mtd_api.PatchLikelihood(mtd_api.Rotations(4, 4), 0.1, empty_probability=1 / 3),
    "window": mtd_api.WindowLikelihood(mtd_api.Rotations(4, 4), 0.1, expected_count=2 / 3, positions=100),
}


def leading(iterations):
    """Target of the leading candidate after so many iterations."""
    return np.random.default_rng(iterations).normal(size=(4, 4))


def state(likelihood, iterations, random_statistics):
    """Two candidates, one of them with the running sums of mini-batches, so that every kind of tensor is there."""
    sums = random_statistics(np.random.default_rng(iterations), 4)
    candidates = (
        Candidate(-leading(iterations), likelihood),
        Candidate(leading(iterations), likelihood, 1 / 3, Running(sums, 7, 1 / 3)),
    )
    records = [IterationRecord(i + 1, -1 / 3, 0.3, 1e-300, np.pi, 2.0, 0.5) for i in range(iterations)]
    return EMState(candidates, Temperature(1.7, 36), 5.5, tuple(records))


@pytest.fixture(params=LIKELIHOODS)
def saved(request, tmp_path, random_statistics):
    """(path, content) of a checkpoint of iteration 2; beside it lies that of iteration 1."""
    path = tmp_path / "c.safetensors"
    for iterations in (1, 2):
        save_checkpoint(path, state(LIKELIHOODS[request.param], iterations, random_statistics), IDENTITY)
    assert load_checkpoint(path, IDENTITY).iteration == 2
    return path, path.read_bytes()


def classes_of(content):
    """What each stretch of a safetensors file is: name -> range of bytes."""
    start = 8 + int.from_bytes(content[:8], "little")
    text = content[8:start]
    header = json.loads(text)
    end = 8 + len(text.rstrip())
    at = 8 + text.index(header["__metadata__"]["sha256"].encode())
    spans = {
        "length": range(8),
        "JSON": range(8, end),
        "SHA-256": range(at, at + 64),
        "padding": range(end, start),
    }
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            spans[name] = range(start + first, start + last)
    arrays = {"targets", "1.class_mass", "1.target.right", "1.target.normal"}
    assert {n for n in spans if "." in n or n == "targets"} == arrays
    assert max(span.stop for span in spans.values()) == len(content)
    return spans


def taken_over(path):
    """Whether the checkpoint before was used, with a warning; the state must be one of the two, whole."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_checkpoint(path, IDENTITY)
    assert np.array_equal(found.target, leading(found.iteration))
    said = [str(w.message) for w in caught]
    assert bool(said) == (found.iteration == 1)
    assert all("going on from the previous checkpoint, of iteration 1" in line for line in said)
    return bool(said)


def test_a_flip_in_any_byte_is_noticed(saved):
    path, content = saved
    rng, missed = np.random.default_rng(0), []
    for name, span in classes_of(content).items():
        for place in span:
            flipped = content[place] ^ (1 << int(rng.integers(8)))
            path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
            if not taken_over(path):
                missed.append((name, place))
    assert not missed


def test_truncation_at_every_boundary_is_noticed(saved):
    path, content = saved
    edges = {edge for span in classes_of(content).values() for edge in (span.start, span.stop)}
    for keep in sorted({n for edge in edges for n in (edge - 1, edge, edge + 1) if 0 <= n < len(content)}):
        path.write_bytes(content[:keep])
        assert taken_over(path), keep


def test_other_damage_is_noticed(saved):
    path, content = saved
    zeroed = content[:512] + bytes(512) + content[1024:]
    for damaged in (content + b"more", b"PK\x03\x04" + content[4:], zeroed, bytes(len(content)), b"{}"):
        path.write_bytes(damaged)
        assert taken_over(path)
    path.unlink()
    assert taken_over(path)


def test_where_both_are_damaged_nothing_is_guessed(saved):
    path, content = saved
    for file in (path, previous_checkpoint(path)):
        file.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"missing or damaged .* start again"):
        load_checkpoint(path, IDENTITY)


@pytest.mark.parametrize("kind", [("--rotations", 1), ("--volume", "--views", 40, "--no-halves")])
def test_where_the_last_checkpoint_is_gone_the_one_before_is_a_run(mtd, measurement, tmp_path, kind):
    """It began anew, without a word."""
    if "--volume" in kind:
        pytest.importorskip("mrcfile")
    run = tmp_path / "run"
    words = ("recover", measurement, "-o", run, "--box-size", 8, "--iterations", 4, "--device", "cpu", *kind)
    mtd(*words, "--checkpoint-every", 0)
    before = (run / "history.csv").read_text()
    for name in ("checkpoint.safetensors", "run.json"):
        (run / name).unlink()
    assert "holds a run already" in mtd(*words, code=74).stderr
    assert "going on from the previous checkpoint" in mtd(*words, "--resume").stderr
    told, began = ((text.splitlines()[1]) for text in ((run / "history.csv").read_text(), before))
    assert told == began  # to its seconds


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(
    mtd, mtd_process, measurement, tmp_path
):
    run = tmp_path / "run"
    options = ("--box-size", 8, "--rotations", 1, "--tolerance", 0, "--iterations", 40, "--device", "cpu")
    process = mtd_process("recover", measurement, "-o", run, *options, "--checkpoint-every", 0)
    while not (run / "checkpoint.previous.safetensors").exists():
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    checkpoint = run / "checkpoint.safetensors"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    log = mtd("recover", measurement, "-o", run, *options, "--resume").stderr
    assert "going on from the previous checkpoint, of iteration" in log
    assert "going on after iteration" in log
    mtd("recover", measurement, "-o", tmp_path / "whole", *options)
    assert (run / "estimate.npy").read_bytes() == (tmp_path / "whole" / "estimate.npy").read_bytes()
