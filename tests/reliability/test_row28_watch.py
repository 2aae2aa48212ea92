"""``mtd watch``, killed while micrographs come (row 28)."""

import pytest


@pytest.mark.parametrize(
    ("count", "side", "seed"), [(24, 120, 1), pytest.param(100, 200, 2, marks=pytest.mark.slow)]
)
def test_ten_kills_lose_nothing_count_nothing_twice_and_change_no_bit(
    run_script, tmp_path, count, side, seed
):
    (told,) = run_script("watching.py", tmp_path, count, side, 10, seed, OMP_NUM_THREADS="1")
    assert told["kills"] == 10
    assert told["counted"] == told["different"] == count
    assert told["as_named"]  # they came in an order of their own, which the batch run was given
    assert told["differ"] == []
    assert len(told["same"]) == 7


def test_a_damaged_state_gives_way_to_the_one_before(mtd, tmp_path, micrographs, quick):
    run = tmp_path / "run"
    mtd("watch", micrographs(6), "-o", run, *quick)
    before = (run / "estimate.npy").read_bytes()
    state = run / "watch.safetensors"
    content = bytearray(state.read_bytes())
    content[-100] ^= 1
    state.write_bytes(content)
    log = mtd("watch", tmp_path / "micrographs", "-o", run, *quick).stderr
    assert "going on from the previous" in log
    assert (run / "estimate.npy").read_bytes() == before


def test_damaged_picks_are_noticed(mtd, tmp_path, micrographs, quick):
    run = tmp_path / "run"
    mtd("watch", micrographs(5), "-o", run, *quick)
    content = (run / "watch.picks").read_bytes()
    (run / "watch.picks").write_bytes(content[:-56])
    assert "it is damaged" in mtd("watch", tmp_path / "micrographs", "-o", run, *quick, code=74).stderr
