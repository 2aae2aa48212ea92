"""``mtd watch``: what counts, what is left out, how it ends, and what other commands make of it."""

import json
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest

from mtdcli.watching.arrivals import Key, read_order
from mtdcli.watching.watcher import verdict
from mtdcore import open_measurement
from mtdcore.em.checkpoint import fingerprint
from mtdcore.errors import InputError


def events(result, kind="micrograph"):
    return [one for one in map(json.loads, result.stdout.splitlines()) if one["event"] == kind]


def test_micrographs_in_two_goes_are_one_run(mtd, mtd_json, tmp_path, micrographs, quick):
    folder, run = micrographs(3), tmp_path / "run"
    told = mtd("watch", folder, "-o", run, *quick)
    assert [one["number"] for one in events(told)] == [1, 2, 3]
    assert "there is no estimate yet" in told.stderr
    assert not (run / "run.json").exists()
    micrographs(7)
    told = mtd("watch", folder, "-o", run, *quick)
    assert [one["number"] for one in events(told)] == [4, 5, 6, 7]
    assert [one["micrographs"] for one in events(told, "report")] == [4, 6, 7]
    last = events(told, "report")[-1]
    assert last["supported"] is True
    assert last["held_out_micrographs"] == 3
    assert last["picks"] == len((run / "detections.csv").read_text().splitlines()) - 1
    assert "report.html" in last["report"]
    whole = tmp_path / "whole"
    mtd("watch", folder, "-o", whole, *quick, "--order", run / "order.txt")
    for name in ("estimate.npy", "aligned_average.npy", "detections.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    # a finished run for other commands; its copies are found anew with the last target
    assert mtd_json("inspect", run)
    record = json.loads((run / "run.json").read_text())
    assert record["result"]["expected_count"] == last["expected_count"]
    assert record["measurement"]["fingerprint"] == fingerprint(open_measurement(run / "micrographs.zarr"))
    assert mtd_json("detect", run)["copies"] == pytest.approx(last["picks"], abs=3)
    assert mtd_json("trust", run, "--null-runs", 2, "--no-halves")["evidence_nats"] > 100
    mtd("recover", run / "micrographs.zarr", "-o", tmp_path / "again", "--box-size", 12, "--iterations", 2)


def test_what_is_left_out_is_said_once_and_tried_again_when_it_changes(mtd, tmp_path, micrographs, quick):
    folder, run = micrographs(4), tmp_path / "run"
    whole = (folder / "m03.mrc").read_bytes()
    (folder / "m03.mrc").write_bytes(whole[:2000])
    shutil.copy(folder / "m00.mrc", folder / "twin.mrc")
    (folder / "link.mrc").symlink_to(folder / "m01.mrc")
    (folder / "deeper").mkdir()
    shutil.copy(folder / "m00.mrc", folder / "deeper")
    (folder / ".m09.mrc").write_bytes(whole)
    (folder / "notes.txt").write_text("no micrograph")
    micrographs(1, side=60, name="small")
    told = mtd("watch", folder, "-o", run, *quick)
    assert len(events(told)) == 3
    left = re.findall(r"left out: (\S+)", told.stderr)
    assert sorted(map(os.path.basename, left)) == ["all", "m03.mrc", "twin.mrc"]
    assert "small00.mrc has 60 x 60" in told.stderr
    (folder / "m03.mrc").write_bytes(whole)
    with open(folder / "m00.mrc", "ab") as file:
        file.write(b"more")
    told = mtd("watch", folder, "-o", run, *quick)
    assert [os.path.basename(one["name"]) for one in events(told)] == ["m03.mrc"]
    assert "m00.mrc has changed since it was counted" in told.stderr


def test_a_list_that_grows(mtd, tmp_path, micrographs, quick):
    folder, run, star = micrographs(5), tmp_path / "run", tmp_path / "micrographs.star"
    head = "data_\n\nloop_\n_rlnMicrographName #1\n"
    star.write_text(head + f"{folder}/m02.mrc\n{folder}/none.mrc\n{folder}/m00.mrc\n")
    told = mtd("watch", star, "-o", run, *quick)
    assert [os.path.basename(one["name"]) for one in events(told)] == ["m02.mrc", "m00.mrc"]
    assert told.stderr.count("none.mrc") == 1
    star.write_text(star.read_text() + f"{folder}/m04.mrc\n")
    assert [os.path.basename(one["name"]) for one in events(mtd("watch", star, "-o", run, *quick))] == [
        "m04.mrc"
    ]


def test_other_options_and_other_runs_are_refused(mtd, tmp_path, micrographs, quick):
    folder, run = micrographs(2), tmp_path / "run"
    mtd("watch", folder, "-o", run, *quick)
    assert "seed was 0, is 3" in mtd("watch", folder, "-o", run, *quick, "--seed", 3, code=74).stderr
    assert "bin was 1, is 2" in mtd("watch", folder, "-o", run, *quick, "--bin", 2, code=74).stderr
    recover = ("recover", folder / "m00.mrc", "-o", run, "--box-size", 12, "--force")
    assert "a run of `mtd watch`" in mtd(*recover, code=74).stderr
    assert len(events(mtd("watch", folder, "-o", run, *quick, "--seed", 3, "--force"))) == 2
    mtd("recover", folder / "m00.mrc", "-o", tmp_path / "other", "--box-size", 12, "--iterations", 1)
    assert "another command" in mtd("watch", folder, "-o", tmp_path / "other", *quick, code=74).stderr
    assert "leave them out" in mtd("watch", folder, "-o", run, *quick, "--batches", 2, code=2).stderr


def test_a_box_that_is_no_square_has_one_rotation_unasked(mtd, tmp_path, micrographs, quick):
    at = quick.index("--rotations")
    unasked = (*quick[:at], *quick[at + 2 :], "--box-size", "10x12")
    told = mtd("watch", micrographs(4), "-o", tmp_path / "run", *unasked)
    assert events(told, "report")
    assert "1 rotation," in (tmp_path / "run/report.html").read_text()


def test_a_signal_ends_it_after_a_commit_with_a_report(mtd_process, mtd, tmp_path, micrographs, quick):
    folder, run = micrographs(5), tmp_path / "run"
    process = mtd_process("watch", folder, "-o", run, *(one for one in quick if one != "--once"))
    for line in process.stdout:
        if json.loads(line).get("number") == 5:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    rest, log = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert json.loads(rest.splitlines()[-1])["micrographs"] == 5
    assert re.search(r"continue with the same command: mtd watch \S+micrographs --output", log)
    assert "going on after 5" in mtd("watch", folder, "-o", run, *quick).stderr


def test_a_target_that_is_not_confirmed_is_given_up(mtd, tmp_path, micrographs, quick):
    """Of pure noise: recovered anew of twice, four and eight times as many, and never supported."""
    folder, run = micrographs(9, snr=1e-6), tmp_path / "run"
    told = mtd("watch", folder, "-o", run, *quick, "--first", 2)
    found = told.stderr.count("are recovered anew")
    assert found == 2  # with 4 and 8 micrographs
    assert all(report["supported"] is not True for report in events(told, "report"))


def test_a_verdict_needs_micrographs_that_were_not_learned_from():
    assert verdict(0.0, 0)["supported"] is None
    assert verdict(6.0, 3)["supported"] is False  # less than log 1000
    assert verdict(7.0, 3)["supported"] is True


@pytest.mark.parametrize("text", ["", "a.mrc\na.mrc\n"])
def test_a_list_names_each_once(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mrc").touch()
    (tmp_path / "order.txt").write_text(text)
    with pytest.raises(InputError, match="each once"):
        read_order(tmp_path / "order.txt", tmp_path)


def test_a_list_says_which_image_of_a_file(tmp_path):
    (tmp_path / "a.mrc").touch()
    (tmp_path / "order.txt").write_text(f"000002@{tmp_path}/a.mrc\n{tmp_path}/a.mrc\n")
    keys = [Key(tmp_path / "a.mrc", 1), Key(tmp_path / "a.mrc", 0)]
    assert read_order(tmp_path / "order.txt", tmp_path) == keys


def test_the_prepared_pixels_are_those_of_an_import(mtd, tmp_path, micrographs, quick):
    folder = micrographs(3)
    mtd("watch", folder, "-o", tmp_path / "run", *quick, "--first", 3)
    mtd("import", *sorted(folder.iterdir()), "-o", tmp_path / "imported.zarr")
    mine, theirs = (
        np.asarray(open_measurement(tmp_path / name)) for name in ("run/micrographs.zarr", "imported.zarr")
    )
    assert np.array_equal(mine, theirs)
