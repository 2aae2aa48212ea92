import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from click.testing import CliRunner

from mtdcli.main import main
from mtdcli.reproduce.tables import text_table
from mtdcli.run.folder import RunFolder
from mtdcli.terminal.console import with_error

pytestmark = pytest.mark.usefixtures("blank_charts")

TINY = ["--targets", "2", "--snr", "5", "--iterations", "3", "--train-steps", "3", "--jobs", "1"]


def run(*args):
    return CliRunner().invoke(main, ["reproduce", *map(str, args)])


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper") / "run"
    result = run("gaussian", *TINY, "-o", folder, "--json")
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A file like MNIST's with 8 x 8 images, and a denoiser trained on them."""
    from mtdbridge import train_prior

    folder = tmp_path_factory.mktemp("digits")
    rng = np.random.default_rng(0)
    images = {
        name: rng.integers(0, 255, (20, 8, 8), dtype=np.uint8) for name in ("train_images", "test_images")
    }
    np.savez(folder / "digits.npz", **images, test_labels=np.arange(20) % 10)
    weights = folder / "weights.safetensors"
    train_prior(
        folder / "digits.npz", output=weights, steps=2, batch_size=4, validation=0,
        network_options={"channels": (2, 2, 2)},
    )  # fmt: skip
    return folder / "digits.npz", weights


def test_results_of_the_paper_method(paper):
    folder, result = paper
    assert RunFolder(folder).read_record() == result
    cells = {cell["method"]: cell for cell in result["table"]}
    assert list(cells) == ["start", "without prior", "with prior", "oracle", "oracle + prior"]
    assert all((cell["count"], cell["failed"], cell["snr"]) == (2, 0, 5.0) for cell in cells.values())
    assert cells["oracle + prior"]["error"] < cells["oracle"]["error"] < 0.5 < cells["start"]["error"]
    assert cells["with prior"]["published_error"] == 0.693
    assert cells["oracle"]["published_error"] is None
    errors = [run["error"] for run in result["runs"] if run["method"] == "oracle"]
    assert cells["oracle"]["error"] == pytest.approx(np.mean(errors))


def test_estimates_are_kept(paper):
    folder, result = paper
    with np.load(folder / "estimates.npz") as arrays:
        targets, oracle = arrays["targets"], arrays["oracle, SNR 5"]
    assert oracle.shape == (1, 2, 5, 5)
    found = [np.linalg.norm(o - t) / np.linalg.norm(t) for o, t in zip(oracle[0], targets, strict=True)]
    errors = [run["error"] for run in result["runs"] if run["method"] == "oracle"]
    np.testing.assert_allclose(found, errors)


def test_report_and_figures(paper):
    folder, _ = paper
    for name in ("measurements", "recovered", "errors"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "authors&#39; code" in page
    assert "mtd reproduce gaussian" in page


@pytest.mark.slow
def test_nothing_is_overwritten_and_force_repeats_the_same_numbers(paper):
    folder, first = paper
    before = (folder / "run.json").read_bytes()
    refused = run("gaussian", *TINY, "-o", folder)
    assert refused.exit_code == 74
    assert "--force" in refused.stderr
    assert (folder / "run.json").read_bytes() == before
    weights = (folder / "gaussian-mlp-3.safetensors").stat().st_mtime_ns
    again = run("gaussian", *TINY, "-o", folder, "--force", "--json")
    assert again.exit_code == 0, again.output
    assert (folder / "gaussian-mlp-3.safetensors").stat().st_mtime_ns == weights
    second = json.loads(again.stdout)
    assert [run["error"] for run in second["runs"]] == [run["error"] for run in first["runs"]]


@pytest.mark.slow
def test_best_method_on_a_file_of_digits(digits, tmp_path):
    images, weights = digits
    common = ["--images", images, "--prior", weights, "--targets", 2, "--snr", 1, "--snr", 2]
    result = run("mnist", "--method", "best", *common, "--iterations", 2, "--jobs", 1, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[1:5]] == [
        "without prior",
        "with prior",
        "oracle",
        "oracle + prior",
    ]
    assert "SNR 1: E" in lines[0]
    assert "E_s at 2" in lines[0]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["snrs"] == [1, 2]
    assert record["weights"]["file"] == str(weights)
    assert "--snr 1.0 --snr 2.0" in record["command"]


def test_mistakes_are_one_line_and_an_exit_code(digits, tmp_path):
    images, weights = digits
    out = ["-o", tmp_path / "run"]
    for arguments, code, message in (
        (["gaussian", "--images", images, *out], 2, "--images goes with mnist"),
        (["gaussian", "--prior", weights, *out], 65, "boxes of 5"),
        (["mnist", "--images", tmp_path / "none.npz", *out], 74, "none.npz"),
        (["mnist", "--images", images, "--targets", 21, *out], 65, "at least 21"),
        (["mnist", "--snr", 0, *out], 2, "snr"),
    ):
        result = run(*arguments)
        assert result.exit_code == code, result.output
        assert message in result.stderr
        assert result.stderr.startswith("mtd: error: ")
        assert not (tmp_path / "run" / "run.json").exists()


def test_table_says_where_nothing_was_found():
    assert with_error(0.5, 0.01) == "0.500 +- 0.010"
    assert with_error(0.5, float("nan")) == "0.500"
    assert with_error(float("nan"), float("nan")) == "-"
    nan = float("nan")
    cell = {
        "method": "m", "snr": 1.0, "error": nan, "error_se": nan, "gauge_free_error": nan,
        "gauge_free_error_se": nan, "published_error": 0.9, "published_gauge_free_error": None,
    }  # fmt: skip
    assert [line.split() for line in text_table([cell]).splitlines()[1:]] == [
        ["m", "-", "-"],
        ["authors'", "code", "0.900", "-"],
    ]


def test_a_device_that_is_not_there_is_said_before_anything_runs(tmp_path):
    """One sentence, and not a hundred failed runs."""
    result = run("gaussian", *TINY, "--device", "cuda:99", "-o", tmp_path / "r")
    assert result.exit_code == 69, result.output
    assert "cuda" in result.output.lower()
    assert not (tmp_path / "r" / "run.json").exists()


def test_a_device_is_what_the_runs_use(tmp_path):
    folder = tmp_path / "run"
    result = run("gaussian", *TINY, "--device", "array", "-o", folder, "--json")
    assert result.exit_code == 0, result.output
    assert all(cell["failed"] == 0 for cell in json.loads(result.stdout)["table"])
