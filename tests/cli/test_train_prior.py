import hashlib
import json
import shlex

import numpy as np
import pytest
from click.testing import CliRunner

from mtdcli.main import main

pytest.importorskip("torch")
pytest.importorskip("safetensors")

pytestmark = pytest.mark.usefixtures("blank_charts")

SMALL = ["--channels", "4,6,8", "--steps", "60", "--batch-size", "8", "--validation", "8", "--seed", "3"]


def run(*args):
    return CliRunner().invoke(main, ["train-prior", *map(str, args)])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "squares.npy"
    stack = np.zeros((40, 8, 8), np.uint8)
    stack[:, 2:5, 3:6] = 255
    np.save(path, stack)
    return path


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    output = tmp_path_factory.mktemp("weights") / "squares.safetensors"
    result = run(images, "-o", output, *SMALL, "--shift", 1, "--flip", "--levels", 0.05, 3, "--json")
    assert result.exit_code == 0, result.output
    return output, json.loads(result.stdout)


def test_weights_report_and_result(trained):
    from mtdbridge import load_prior

    output, result = trained
    prior = load_prior(output)
    assert result["weights"] == str(output)
    assert result["steps_done"] == 60
    assert set(result) >= {"0.1", "0.3", "1"}
    assert prior.levels == (0.05, 3.0)
    assert prior.card.options["channels"] == [4, 6, 8]
    assert prior.card.training["augmentation"] == {
        "shift": 1,
        "shift_fraction": 1.0,
        "flip": True,
        "rotate": False,
    }
    assert [path.name for path in sorted(output.parent.iterdir())] == ["squares.html", "squares.safetensors"]
    page = output.with_suffix(".html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "relative denoising error" in page


def test_the_command_in_the_report_trains_the_same_weights(trained, tmp_path):
    output, _ = trained
    page = output.with_suffix(".html").read_text()
    command = shlex.split(page.split("<code>")[1].split("</code>")[0].replace("&#39;", "'"))
    assert command[:2] == ["mtd", "train-prior"]
    assert "--json" not in command
    again = tmp_path / "again.safetensors"
    words = [str(again) if word == str(output) else word for word in command[2:]]
    assert run(*words).exit_code == 0

    from mtdbridge import load_prior

    one, two = (load_prior(path).network.state_dict() for path in (output, again))
    assert all((one[name] == two[name]).all() for name in one)


def test_nothing_is_overwritten_without_force(trained, images):
    output, _ = trained
    before = output.read_bytes()
    result = run(images, "-o", output, *SMALL)
    assert result.exit_code == 74
    assert "--force" in result.stderr
    assert output.read_bytes() == before


@pytest.mark.parametrize("network", ["unet", "mlp"])
def test_the_paper_networks(images, tmp_path, network):
    arguments = ["--network", network, "--width", 3, *SMALL[2:4], "--batch-size", 8, "--validation", 8]
    result = run(images, "-o", tmp_path / "w.safetensors", *arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "w.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "w.pt"], 2, "safetensors"),
        (["-o", "w.safetensors", "--channels", "4,x,8"], 2, "24,48,96"),
        (["-o", "w.safetensors", "--levels", "2", "1"], 2, "lowest"),
        (["-o", "w.safetensors", "--validation", "40"], 65, "at least"),
        (["-o", "w.safetensors", "--device", "cuda:99"], 69, "cuda:99"),
        (["-o", "no/folder/w.safetensors"], 74, "folder"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(images, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    result = run(images, *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.startswith("mtd: error: ")
    assert not list(tmp_path.iterdir())


def test_images_that_are_not_there(tmp_path):
    result = run(tmp_path / "none.npz", "-o", tmp_path / "w.safetensors")
    assert result.exit_code == 74
    assert "none.npz" in result.stderr


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    path = tmp_path_factory.mktemp("structures") / "clouds.npz"
    xyz = np.random.default_rng(0).standard_normal((160, 3)) * 25
    parts = np.array([0, 0, 0, 1], np.int8)
    np.savez(path, xyz=xyz, weight=np.ones(160), offset=np.arange(5) * 40, split=parts)
    return path


def test_training_on_proteins(structures, tmp_path, monkeypatch):
    from mtdbridge import load_prior
    from mtdbridge.proteins import plans, train, training

    small = plans.TrainingPlan(boxes=(8, 12), box_size=12, channels=(4, 6), pixels=600, seconds=None, steps=1)
    monkeypatch.setitem(plans.PLANS, "proteins-2d", small)
    monkeypatch.setitem(training._VALIDATION_COUNT, 2, 2)
    monkeypatch.setattr(train, "_ON_A_CPU", {})
    output = tmp_path / "p.safetensors"
    result = run("--proteins", structures, "-o", output, "--steps", 3, "--seed", 1, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["steps_done"] == 3
    assert set(told["validation"]) == {"12"}
    prior = load_prior(output, box_size=10)
    assert prior.score(np.zeros((2, 10, 10), np.float32), 0.5).shape == (2, 10, 10)
    assert (tmp_path / "p.json").exists()
    again = ("--proteins", structures, "-o", output, "--steps", 3)
    assert "exists already" in run(*again).output
    assert run(*again, "--force").exit_code == 0
    more = tmp_path / "more.safetensors"
    on = run("--proteins", structures, "-o", more, "--steps", 1, "--start", output, "--microscope", 0.25)
    assert on.exit_code == 0, on.output
    training = load_prior(more, box_size=10).card.training
    assert training["drawing"]["microscope"] == 0.25
    assert training["start"] == hashlib.sha256(output.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--flip"], "--proteins does not take --flip"),
        (["--resume"], "--proteins does not take --resume"),
        (["images.npy"], "either IMAGES or --proteins"),
        (["--volumes", "--microscope", 0.5], "--microscope is of projections"),
    ],
)
def test_options_that_proteins_do_not_take(structures, tmp_path, more, message):
    result = run("--proteins", structures, "-o", tmp_path / "p.safetensors", *more)
    assert result.exit_code == 2
    assert message in result.output


def test_options_that_only_proteins_take(images, tmp_path):
    for more in (["--minutes", 1], ["--microscope", 0.5], ["--start", images]):
        result = run(images, "-o", tmp_path / "p.safetensors", *more)
        assert result.exit_code == 2
        assert "go with --proteins" in result.output
