"""``--volume``: simulate, recover, resume and evaluate from the command line."""

import json
import re
import sys

import numpy as np
import pytest
import zarr
from scipy.ndimage import gaussian_filter

mrcfile = pytest.importorskip("mrcfile")

from mtdcli.commands import recover_volume  # noqa: E402
from mtdcli.terminal.stopping import Interrupted  # noqa: E402
from mtdcore._base.records import seal, unseal  # noqa: E402
from mtdcore.data import open_measurement  # noqa: E402
from mtdcore.data.micrographs.star import read_star  # noqa: E402
from mtdcore.em.checkpoint import fingerprint  # noqa: E402
from mtdcore.model.volumes.grids import ball, shell_mean  # noqa: E402
from mtdcore.model.volumes.maps import read_map, write_map  # noqa: E402
from mtdcore.results.metrics import RingCorrelation  # noqa: E402
from mtdcore.synthetic.particles import simulate_volume  # noqa: E402
from mtdcore.synthetic.volumes import chain  # noqa: E402

SHORT = ("--box-size", 10, "--iterations", 5, "--views", 60, "--parts", 2)


@pytest.fixture
def micrographs(mtd, tmp_path):
    path = tmp_path / "m.zarr"
    mtd(
        "simulate",
        "--volume",
        "protein",
        "-o",
        path,
        "--box-size",
        10,
        "--count",
        8,
        "--micrographs",
        2,
        "--snr",
        3,
    )
    return path


@pytest.mark.charts
def test_from_a_volume_to_a_volume(mtd, mtd_json, micrographs, tmp_path):
    run = tmp_path / "run"
    result = mtd_json(
        "recover",
        micrographs,
        "--volume",
        "-o",
        run,
        "--box-size",
        10,
        "--iterations",
        20,
        "--views",
        150,
        "--trust",
        2,
    )
    assert result["amplitude_std"] == 0.0
    assert result["copies"] == pytest.approx(16, abs=6)
    assert {"evidence", "supported", "threshold", "orientation_information"} <= set(result)
    assert (
        set(result["null_half_set_resolution_pixels"]) == {"white", "phases"} == set(result["null_evidence"])
    )
    assert result["half_set_resolution_pixels"] > 0
    volume, _ = read_map(run / "volume.mrc")
    assert volume.shape == (10, 10, 10)
    for half in ("half1.mrc", "half2.mrc"):
        assert np.abs(read_map(run / half)[0]).max() > 0
    if result["detections"]:
        table = read_star(run / "particles.star")["particles"]
        assert {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnCoordinateX"} <= set(table)
    page = (run / "report.html").read_text()
    assert "mirror image" in page
    assert "Two halves" in page
    assert "half-map resolution" in page
    assert "As the run saw it" not in page
    assert not (run / "volume_whitened.mrc").exists()
    record = json.loads((run / "run.json").read_text())
    assert record["kind"] == "volume"
    assert record["command"].startswith("mtd recover --volume ")
    for command in ("detect", "report", "inspect", "evaluate"):
        assert "is the run of a volume" in mtd(command, run, code=65).stderr
    assert "evaluate --volume --help`" in mtd("evaluate", "--volume", run, "--skip-bad", code=2).stderr
    scores = mtd_json("evaluate", "--volume", run)
    assert 0.5 < scores["correlation"] <= 1.0
    assert len(scores["shell_correlation"]) == 5
    curve = RingCorrelation(np.arange(1, 6) / 10, np.array(scores["shell_correlation"]))
    assert scores["resolution_pixels_at_0.5"] == pytest.approx(curve.resolution(0.5), rel=1e-3)
    assert "resolution_pixels" not in {*scores, *result}  # a resolution without its threshold


def test_a_finished_run_is_judged_and_its_parts_left_out(mtd, mtd_json, micrographs, tmp_path):
    run = tmp_path / "run"
    first = mtd_json("recover", micrographs, "--volume", "-o", run, *SHORT)
    volume = (run / "volume.mrc").read_bytes()[1024:]
    assert "supported" not in first
    assert "omit_test" not in first
    judged = mtd_json("trust", run, "--null-runs", 2, "--omit", 3)
    assert judged["supported"] == (judged["verdict"] == "structure supported by the data")
    assert {name: judged[name] for name in ("evidence", "copies")} == {
        name: first[name] for name in ("evidence", "copies")
    }
    assert (run / "volume.mrc").read_bytes()[1024:] == volume
    assert [set(part) for part in judged["omit_test"]] == [{"share", "amplitude", "error", "in_data"}] * 3
    held = sum(part["in_data"] for part in judged["omit_test"])
    assert judged["parts_in_data"] == f"{held} of 3"
    page = (run / "report.html").read_text()
    assert "Parts left out" in page
    for part in judged["omit_test"]:
        told = part["error"] is not None
        assert (f"{part['amplitude']:.2f} ± {part['error']:.2f}" if told else "not told") in page
    told = sum(part["error"] is not None for part in judged["omit_test"])
    assert page.count("<b>not in the data</b>") == told - held
    record = json.loads((run / "run.json").read_text())
    assert record["result"]["omit_test"] == judged["omit_test"]
    assert record["command"].startswith("mtd recover ")
    shown = mtd("trust", run, "--null-runs", 2, "--omit", 2).stdout
    assert "parts_in_data" in shown
    assert "amplitude" not in shown.replace("amplitude_std", "")  # for the page, and for machines
    assert "omit_test" not in mtd_json("trust", run, "--null-runs", 2, "--no-halves")
    assert "leave out --no-halves" in mtd("trust", run, "--no-halves", "--omit", 3, code=2).stderr
    assert "--chains is of images" in mtd("trust", run, "--chains", 2, code=2).stderr
    assert "--complete is of images" in mtd("trust", run, "--complete", code=2).stderr
    assert "at least 2" in mtd("trust", run, "--omit", 1, code=2).stderr
    for checkpoint in run.glob("checkpoint*"):
        checkpoint.unlink()
    assert "checkpoint" in mtd("trust", run, code=74).stderr
    (run / "run.json").write_text(json.dumps({**record, "parameters": {"box": 3}}))
    assert "should be as `mtd recover` wrote it" in mtd("trust", run, code=65).stderr


def test_a_run_says_how_sure_each_voxel_is(mtd, mtd_json, micrographs, tmp_path):
    run, words = tmp_path / "run", ("recover", micrographs, "--volume", *SHORT, "--no-halves")
    plain = mtd_json(*words, "-o", run)
    assert not (run / "volume_std.mrc").exists()
    assert "How sure each voxel is" not in (run / "report.html").read_text()
    volume = (run / "volume.mrc").read_bytes()[1024:]
    drawn = mtd_json("trust", run, "--null-runs", 2, "--no-halves", "--draws", 3)
    assert (run / "volume.mrc").read_bytes()[1024:] == volume
    assert drawn["copies"] == plain["copies"]
    assert 0 < drawn["voxels_clear_of_zero"] < 1
    assert 0 < drawn["effective_draws"] <= 3
    std, size = read_map(run / "volume_std.mrc")
    mean, _ = read_map(run / "volume_mean.mrc")
    assert np.mean(np.abs(mean) > 2 * std, where=ball(10) > 0.5) == pytest.approx(
        drawn["voxels_clear_of_zero"]
    )
    assert std.shape == (10, 10, 10)
    assert size == read_map(run / "volume.mrc")[1]
    assert np.all(std[ball(10) > 0.5] > 0)
    assert np.all(std[ball(10) == 0] == 0)
    page = (run / "report.html").read_text()
    assert "How sure each voxel is" in page
    assert page.count("of the standard deviation") == 3
    clear, most = drawn["voxels_clear_of_zero"], std.max()
    assert f"In {100 * clear:.0f} % of the voxels" in " ".join(page.split())
    assert f"White is {most:.3g}," in page
    assert "give more --draws" in page
    # at once, the same
    again = mtd_json(*words, "-o", tmp_path / "once", "--draws", 3)
    assert again["voxels_clear_of_zero"] == clear
    assert (tmp_path / "once/volume_std.mrc").read_bytes()[1024:] == (run / "volume_std.mrc").read_bytes()[
        1024:
    ]
    mtd(*words, "-o", run, "--force")
    assert not (run / "volume_mean.mrc").exists()
    assert not (run / "volume_std.mrc").exists()
    assert "x>=2" in mtd("trust", run, "--draws", 1, code=2).stderr


def test_a_stopped_run_goes_on_with_the_same_bits(mtd, micrographs, tmp_path):
    whole, stopped, stop = tmp_path / "whole", tmp_path / "stopped", tmp_path / "stop"
    mtd("recover", micrographs, "--volume", "-o", whole, *SHORT, "--no-halves")
    stop.touch()
    mtd(
        "recover",
        micrographs,
        "--volume",
        "-o",
        stopped,
        *SHORT,
        "--no-halves",
        "--stop-file",
        stop,
        code=143,
    )
    assert (stopped / "checkpoint.safetensors").exists()
    assert not (stopped / "volume.mrc").exists()
    stop.unlink()
    mtd(
        "recover",
        micrographs,
        "--volume",
        "-o",
        stopped,
        *SHORT,
        "--no-halves",
        "--stop-file",
        stop,
        "--resume",
    )
    assert (stopped / "volume.mrc").read_bytes()[1024:] == (whole / "volume.mrc").read_bytes()[1024:]
    record = json.loads((stopped / "run.json").read_text())
    assert record["measurement"]["fingerprint"] == fingerprint(open_measurement(micrographs))
    refused = mtd("recover", micrographs, "--volume", "-o", stopped, *SHORT, code=74)
    assert "--resume" in refused.stderr


def test_micrographs_of_a_volume_are_told_apart_where_it_is_asked(mtd, mtd_json, tmp_path):
    made = simulate_volume(chain(10), box_size=10, count=12, micrographs=2, snr=4.0)
    pixels = made.pixels + 2.0 * made.noise_std * np.arange(2)[:, None, None] * np.random.default_rng(
        0
    ).standard_normal(made.pixels.shape)
    np.save(tmp_path / "m.npy", pixels.astype(np.float32))
    write_map(tmp_path / "start.mrc", made.volume)
    words = ("--volume", *SHORT, "--initial", tmp_path / "start.mrc")
    each = mtd_json("recover", tmp_path / "m.npy", *words, "-o", tmp_path / "each", "--micrographs", "each")
    levels = [float(word) for word in re.findall(r"from (\S+) to (\S+) in", each["noise"])[0]]
    np.testing.assert_allclose(levels, made.noise_std * np.array([1.0, np.sqrt(5.0)]), rtol=0.1)
    assert (tmp_path / "each/half1.mrc").exists()
    for choice in ("auto", "alike"):
        run = tmp_path / choice
        found = mtd_json(
            "recover", tmp_path / "m.npy", *words, "-o", run, "--micrographs", choice, "--no-halves"
        )
        assert found["noise"] == "the noise is taken to be white"
        assert found["evidence"] < each["evidence"]
    refused = mtd(
        "recover", tmp_path / "m.npy", *words, "-o", run, "--micrographs", "each", "--resume", code=74
    )
    assert "micrographs was" in refused.stderr


def test_the_seconds_of_a_resumed_run_count_those_before(mtd, micrographs, tmp_path):
    words = ("recover", micrographs, "--volume", "-o", tmp_path / "run", *SHORT, "--no-halves")
    mtd(*words)
    header, arrays = unseal(checkpoint := tmp_path / "run/checkpoint.safetensors")
    for record in header["history"]:
        record["seconds"] = 1000.0
    checkpoint.write_bytes(seal(header, arrays))
    mtd(*words, "--resume")
    assert json.loads((tmp_path / "run/run.json").read_text())["seconds"] > 5000


def test_maps_and_structures_are_projected(mtd, mtd_json, tmp_path):
    write_map(tmp_path / "v.mrc", chain(12).volume(12), 4.0)
    made = mtd_json(
        "simulate",
        "--volume",
        tmp_path / "v.mrc",
        "-o",
        tmp_path / "a.zarr",
        "--count",
        2,
        "--micrographs",
        1,
    )
    assert (made["box_size"], made["copies"]) == (12, 2)
    (tmp_path / "x.pdb").write_text(
        "".join(
            f"ATOM  {i:5d}  CA  ALA A{i:4d}    {3.0 * i:8.3f}{i % 3:8.3f}   0.000  1.00  0.00           C\n"
            for i in range(1, 9)
        )
    )
    made = mtd_json(
        "simulate",
        "--volume",
        tmp_path / "x.pdb",
        "-o",
        tmp_path / "b.zarr",
        "--count",
        2,
        "--micrographs",
        1,
    )
    assert made["box_size"] == 16
    mtd("simulate", "--volume", tmp_path / "v.mrc", "-o", tmp_path / "c.zarr", "--box-size", 20, code=2)


def test_micrographs_that_were_smoothed_give_the_whitened_volume_as_well(mtd, tmp_path):
    """The other one falls by orders of magnitude from shell to shell."""
    white = tmp_path / "white.zarr"
    simulated = ("--box-size", 10, "--count", 30, "--micrographs", 2, "--snr", 3, "--size", 125)
    mtd("simulate", "--volume", "protein", "-o", white, *simulated)
    pixels = np.stack([gaussian_filter(picture, 1.0) for picture in zarr.open(white)[:]])
    np.save(tmp_path / "smooth.npy", pixels)
    run = tmp_path / "run"
    recover = (
        "recover",
        tmp_path / "smooth.npy",
        "--volume",
        "-o",
        run,
        "--box-size",
        10,
        "--iterations",
        15,
    )
    said = mtd(*recover, "--views", 100, "--no-halves").stdout
    assert "radial filter" in said
    plain, whitened = (read_map(run / name)[0] for name in ("volume.mrc", "volume_whitened.mrc"))
    power = [shell_mean(np.abs(np.fft.rfftn(v)) ** 2, 10)[1:4] for v in (plain, whitened)]
    assert power[0][2] / power[0][0] < 0.3 * power[1][2] / power[1][0]
    assert "As the run saw it" in (run / "report.html").read_text()
    mtd(*recover, "--views", 100, "--no-halves", "--noise", "white", "--force")
    assert not (run / "volume_whitened.mrc").exists()


def test_help_names_the_other_command(mtd):
    assert "mtd recover --volume --help" in " ".join(mtd("recover", "--help").stdout.split())
    assert "--symmetry" in mtd("recover", "--volume", "--help").stdout
    assert "half" in mtd("recover", "--volume", "--help").stdout


def test_a_folder_without_a_volume_is_refused(mtd, tmp_path):
    assert "run.json" in mtd("evaluate", "--volume", tmp_path, code=65).stderr


def test_the_demo_makes_a_page(mtd_json, tmp_path):
    result = mtd_json("demo", "--volume", "-o", tmp_path / "demo", "--iterations", 6)
    assert (tmp_path / "demo" / "run" / "report.html").exists()
    record = json.loads((tmp_path / "demo/run/run.json").read_text())
    assert record["command"] == f"mtd demo --volume --output {tmp_path / 'demo'} --iterations 6"
    assert 0 < result["correlation"] <= 1
    assert result["copies"] > 0


def test_nothing_found_is_said_first(mtd, mtd_json, tmp_path):
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).standard_normal((80, 80)).astype(np.float32))
    quick = ("--box-size", 10, "--iterations", 5, "--views", 60, "--no-halves")
    found = mtd_json("recover", tmp_path / "noise.npy", "--volume", "-o", tmp_path / "run", *quick)
    assert next(iter(found)) == "nothing_found"
    assert "no estimate" in found["nothing_found"]
    assert "nothing_found" in json.loads((tmp_path / "run/run.json").read_text())["result"]
    again = ("-o", tmp_path / "run", *quick, "--force", "--strict", "--draws", 4)
    said = mtd("recover", tmp_path / "noise.npy", "--volume", *again, code=1).stderr
    assert "no draws from the posterior: no copies were found" in said
    assert not (tmp_path / "run/volume_std.mrc").exists()


def test_a_volume_whose_copies_do_not_tell_how_they_lie_is_told_of(mtd, micrographs, tmp_path):
    """A ball looks alike from everywhere: of its shape nothing can be known, and only the report said so."""
    at = np.arange(10) - 5.0
    ball = np.exp(-(at[:, None, None] ** 2 + at[:, None] ** 2 + at**2) / 8.0)
    write_map(tmp_path / "ball.mrc", ball.astype(np.float32), 1.0)
    mtd(
        "simulate", "--volume", tmp_path / "ball.mrc", "-o", tmp_path / "balls.zarr", "--snr", 3, "--count", 8
    )
    short = ("--volume", "--box-size", 10, "--iterations", 8, "--views", 60, "--no-halves", "-o")
    assert "nats of how it lies" in mtd("recover", tmp_path / "balls.zarr", *short, tmp_path / "balls").stderr
    assert "nats of how it lies" not in mtd("recover", micrographs, *short, tmp_path / "run").stderr


def test_maps_and_poses_of_binned_micrographs_have_their_units(mtd, mtd_json, micrographs, tmp_path):
    """A binned map once had the pixel size of the micrographs, and poses lay at places of the binned ones."""
    pixels = np.asarray(zarr.open_array(micrographs, mode="r"))
    for m, image in enumerate(pixels):
        with mrcfile.new(tmp_path / f"{m}.mrc", data=np.kron(image, np.ones((2, 2), np.float32))) as mrc:
            mrc.voxel_size = 2.0
    binned, run = tmp_path / "binned.zarr", tmp_path / "run"
    mtd("import", tmp_path / "0.mrc", tmp_path / "1.mrc", "-o", binned, "--bin", 2, "--no-invert")
    words = ("--box-size", 10, "--iterations", 20, "--views", 150, "--no-halves", "--diameter", "36A")
    mtd_json("recover", binned, "--volume", "-o", run, *words)
    assert read_map(run / "volume.mrc")[1] == pytest.approx(4.0)
    assert json.loads((run / "run.json").read_text())["parameters"]["diameter"] == pytest.approx(9.0)
    table = read_star(run / "particles.star")["particles"]
    places = np.array([table["rlnCoordinateX"], table["rlnCoordinateY"]], float)
    corners = places / 2.0 - 5.0  # in binned pixels, half a box of 10 from the centres
    assert corners.min() > -1.0
    assert corners.max() < pixels.shape[-1] - 9.0
    assert places.max() > pixels.shape[-1]
    assert {float(size) for size in table["rlnMicrographPixelSize"]} == {2.0}
    refused = mtd("recover", micrographs, "--volume", "-o", tmp_path / "no", *words, code=2)
    assert "pixel size" in refused.stderr


def test_the_transfer_of_an_import_is_part_of_the_model(mtd, micrographs, tmp_path):
    for m, image in enumerate(np.asarray(zarr.open_array(micrographs, mode="r"))):
        with mrcfile.new(tmp_path / f"{m}.mrc", data=image) as mrc:
            mrc.voxel_size = 4.0
    white = tmp_path / "white.zarr"
    mtd("import", tmp_path / "0.mrc", tmp_path / "1.mrc", "-o", white, "--whiten", "--no-invert")
    told = mtd("recover", white, "--volume", "-o", tmp_path / "run", *SHORT, "--no-halves")
    assert "the transfer of each micrograph (CTF, whitening) is part of the model" in told.stderr
    plain = mtd("recover", micrographs, "--volume", "-o", tmp_path / "plain", *SHORT, "--no-halves")
    assert "is part of the model" not in plain.stderr


def test_the_device_is_that_of_the_options(mtd, micrographs, tmp_path, monkeypatch):
    """A device that is missing ends the run; the one that was used stands in the record, and a checkpoint belongs to it."""
    monkeypatch.setitem(sys.modules, "cupy", None)  # not installed, wherever the tests run
    words = ("recover", micrographs, "--volume", "-o", tmp_path / "no", *SHORT)
    assert "CuPy" in mtd(*words, "--device", "cuda:1", code=69).stderr
    mtd("recover", micrographs, "--volume", "-o", tmp_path / "no", *SHORT, "--device", "abacus", code=2)
    run, stop = tmp_path / "run", tmp_path / "stop"
    stop.touch()
    words = ("recover", micrographs, "--volume", "-o", run, *SHORT, "--no-halves", "--stop-file", stop)
    mtd(*words, "--device", "cpu", code=143)
    stop.unlink()
    other = mtd(*words, "--resume", "--device", "array", code=74)
    assert "device" in other.stderr
    mtd(*words, "--resume", "--device", "cpu")
    assert json.loads((run / "run.json").read_text())["device"] == "cpu"


@pytest.mark.parametrize("name", ["demo", "evaluate", "recover", "simulate"])
def test_the_help_of_volumes_names_numbers_and_ends_with_an_example(mtd, name):
    text = mtd(name, "--volume", "--help").output
    assert "RANGE" not in text
    assert f"Example: mtd {name}" in text


def test_an_interrupted_demo_says_how_to_begin_anew(mtd, monkeypatch, tmp_path):
    def interrupted(*_):
        raise Interrupted(15, 3)

    monkeypatch.setattr(recover_volume, "recover", interrupted)
    said = mtd("demo", "--volume", "-o", tmp_path / "demo", "--iterations", 4, code=143).stderr
    assert (
        f"interrupted after iteration 3; begin anew with: mtd demo --volume --output {tmp_path}/demo" in said
    )
    assert said.endswith("--iterations 4 --force\n")


def test_what_is_no_map_and_what_is_no_box_are_one_sentence_each(mtd, micrographs, tmp_path):
    np.save(tmp_path / "image.npy", np.random.default_rng(0).normal(size=(120, 120)))
    words = ("recover", micrographs, "--volume", "-o", tmp_path / "run")
    log = mtd(*words, *SHORT, "--initial", tmp_path / "image.npy", code=65).stderr
    assert "should hold a finite cube of voxels" in log
    assert "warning" not in log
    assert (
        "--box-size must be a whole number of pixels, 4 at least; got 3"
        in mtd(*words, "--box-size", 3, code=2).stderr
    )
