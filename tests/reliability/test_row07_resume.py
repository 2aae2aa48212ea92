"""``--resume`` of another run (row 7): refused with the differences, nothing touched."""

from importlib.metadata import version

import numpy as np
import pytest

import mtdcore

OPTIONS = ("--box-size", 8, "--rotations", 1, "--tolerance", 0, "--device", "cpu", "--iterations", 2)

CHANGES = {
    "box_size": ("--box-size", 9),
    "seed": ("--seed", 5),
    "rotations": ("--rotations", 2),
    "likelihood": ("--likelihood", "patch"),
    "noise_std": ("--noise-std", 0.5),
    "iterations": ("--iterations", 4),
    "defects": ("--defects", "keep"),
}


@pytest.fixture
def refused(mtd, measurement, tmp_path):
    """The message of the refusal to continue a run with more options; the run must stay as it is."""
    run = tmp_path / "run"

    def resume(*options):
        before = {path.name: path.read_bytes() for path in run.iterdir()}
        error = mtd("recover", measurement, "-o", run, *OPTIONS, *options, "--resume", code=74).stderr
        assert {path.name: path.read_bytes() for path in run.iterdir()} == before
        return error

    mtd("recover", measurement, "-o", run, *OPTIONS)
    return resume


def test_every_difference_is_named(mtd, measurement, tmp_path, refused, monkeypatch):
    for name, option in CHANGES.items():
        error = refused(*option)
        assert f"{option[0] if '_' in name else name} was" in error
        assert f"is {option[1]}" in error
    error = refused("--seed", 5, "--noise-std", 0.5)
    assert "seed was 0, is 5" in error
    assert "--noise-std was auto, is 0.5" in error
    np.save(tmp_path / "start.npy", np.ones((8, 8)))
    assert "initial was" in refused("--initial", tmp_path / "start.npy")
    with monkeypatch.context() as patch:
        patch.setattr(mtdcore, "__version__", "9.9")
        assert f"version was {version('mtdcore')}, is 9.9" in refused()
    mtd("simulate", "glyph", "-o", measurement, "--box-size", 8, "--size", "70x80", "--seed", 2, "--force")
    assert "measurement was" in refused()


def test_a_volume_goes_on_only_as_it_began(mtd, measurement, tmp_path):
    """The difference was not said; a start of other content under the same name went on; without a checkpoint a finished run began anew."""
    maps = pytest.importorskip("mtdcore.model.volumes.maps")
    pytest.importorskip("mrcfile")
    run, start = tmp_path / "run", tmp_path / "start.mrc"
    maps.write_map(start, np.ones((8, 8, 8)))
    command = ("recover", measurement, "--volume", "-o", run, "--box-size", 8, "--iterations", 3)
    command += ("--views", 40, "--no-halves", "--initial", start)
    mtd(*command, "--resume")  # nothing is there: it begins
    mtd(*command, "--checkpoint-every", 0, "--force")
    assert (run / "checkpoint.previous.safetensors").exists()
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert "leave one of them out" in mtd(*command, "--resume", "--force", code=2).stderr
    error = mtd(*command, "--seed", 5, "--diameter", 6, "--resume", code=74).stderr
    assert "seed was 0, is 5" in error
    assert "diameter was None, is 6.0" in error
    maps.write_map(start, np.ones((8, 8, 8)) + np.eye(8))
    assert "initial was sha256:" in mtd(*command, "--resume", code=74).stderr
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    image = ("recover", measurement, "-o", run, *OPTIONS, "--resume")
    assert 'has format "volume' in mtd(*image, code=74).stderr
    for file in run.glob("checkpoint*"):
        file.unlink()
    assert "should be a checkpoint" in mtd(*command, "--resume", code=74).stderr
    assert (run / "volume.mrc").read_bytes() == before["volume.mrc"]


def test_a_prior_counts_by_the_content_of_its_file(mtd, measurement, tmp_path):
    pytest.importorskip("torch")
    from mtdbridge.priors.networks import build_network
    from mtdbridge.priors.weights import ModelCard, save_weights

    card, weights = ModelCard("mlp", {"width": 8}, 8, (0.0, 0.0)), tmp_path / "prior.safetensors"
    command = ("recover", measurement, "-o", tmp_path / "run", *OPTIONS, "--update", "gradient")
    command += ("--initial", "uniform", "--prior", weights)
    save_weights(weights, build_network("mlp", 8, width=8), card)
    mtd(*command)
    mtd(*command, "--resume")
    save_weights(weights, build_network("mlp", 8, width=8), card)
    assert "prior was sha256:" in mtd(*command, "--resume", code=74).stderr
    assert "prior was sha256:" in mtd(*command[:-2], "--resume", code=74).stderr
