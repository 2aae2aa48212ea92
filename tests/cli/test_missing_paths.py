"""A path that is not there: one exit code, one sentence, and nothing made, whatever the command."""

import pytest

RECOVER = ("--box-size", 8, "--iterations", 1, "--device", "cpu")

#: Words of each command, with MISSING for the path.
COMMANDS = {
    "import": ("import", "MISSING.mrc", "-o", "OUT"),
    "import npy": ("import", "MISSING.npy", "-o", "OUT"),
    "import star": ("import", "MISSING.star", "-o", "OUT"),
    "import unknown": ("import", "MISSING", "-o", "OUT"),
    "import skip": ("import", "MISSING.star", "-o", "OUT", "--skip-bad"),
    "simulate": ("simulate", "MISSING.png", "-o", "OUT"),
    "inspect": ("inspect", "MISSING"),
    "recover": ("recover", "MISSING", "-o", "OUT", *RECOVER),
    "recover star": ("recover", "MISSING.star", "-o", "OUT", *RECOVER),
    "recover initial": ("recover", "MEASUREMENT", "-o", "OUT", *RECOVER, "--initial", "MISSING.npy"),
    "detect": ("detect", "MISSING"),
    "trust": ("trust", "MISSING"),
    "evaluate": ("evaluate", "MISSING"),
    "report": ("report", "MISSING"),
    "train-prior": ("train-prior", "MISSING.npy", "-o", "OUT.safetensors"),
    "train-prior unknown": ("train-prior", "MISSING", "-o", "OUT.safetensors"),
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_missing_path(mtd, measurement, tmp_path, kind):
    if kind.startswith("train"):
        pytest.importorskip("torch")
    places = {"MISSING": tmp_path / "missing", "OUT": tmp_path / "out", "MEASUREMENT": measurement}
    words = []
    for word in COMMANDS[kind]:
        stem, dot, suffix = str(word).partition(".")
        words.append(f"{places[stem]}{dot}{suffix}" if stem in places else word)
    result = mtd(*words, code=74)
    assert result.stderr.splitlines()[-1].startswith("mtd: error: ")
    assert "missing" in result.stderr
    assert not list(tmp_path.glob("missing*"))
    assert not (tmp_path / "out/run.json").exists()
