"""What ``mtd trust`` has learned of a volume is kept, and an interrupted judgement goes on from there."""

import json
import shutil

import pytest

pytest.importorskip("mrcfile")

from mtdcli.volumes import judging, repeating
from mtdcore._base.records import seal, unseal

ITERATIONS = 4
EVERYTHING = ("--null-runs", 2, "--omit", 2, "--draws", 2)


class Killed(BaseException):
    """The process is gone: nothing more is written."""


@pytest.fixture
def stop(tmp_path):
    """A file that asks to stop."""
    return tmp_path / "stop"


@pytest.fixture
def run_dir(mtd, stop, tmp_path):
    """A finished run that nobody has judged."""
    pixels = tmp_path / "m.zarr"
    small = ("--box-size", 10, "--count", 8, "--micrographs", 2, "--snr", 3)
    mtd("simulate", "--volume", "protein", "-o", pixels, *small)
    short = ("--box-size", 10, "--iterations", ITERATIONS, "--views", 60, "--parts", 2, "--no-halves")
    words = ("--stop-file", stop, "--checkpoint-every", 0)
    mtd("recover", pixels, "--volume", "-o", tmp_path / "run", *short, *words)
    return tmp_path / "run"


@pytest.fixture
def iterations(monkeypatch):
    """Iterations of what was repeated, in their order; ``then`` is called after each."""
    made = []

    class Iterations:
        then = staticmethod(lambda done: None)

        def __len__(self):
            return len(made)

    recover, seen = repeating.recover_volume, Iterations()

    def counted(measurement, callback, **options):
        def after(state):
            made.append(state.iteration)
            seen.then(len(made))
            return callback(state)

        return recover(measurement, callback=after, **options)

    monkeypatch.setattr(repeating, "recover_volume", counted)
    return seen


def known(run_dir):
    """What stands in trust.json, apart from its seconds."""
    found = json.loads((run_dir / "trust.json").read_text())
    assert found.pop("seconds") > 0
    return found


def maps(run_dir):
    return {path.name: path.read_bytes()[1024:] for path in run_dir.glob("*.mrc")}


@pytest.mark.slow
def test_an_interrupted_judgement_goes_on_with_the_same_bits(mtd, run_dir, stop, iterations, monkeypatch):
    """Stopped in null runs, in a half that is judged, in halves of noise and of the data, and after a part: every iteration is made once."""
    whole = run_dir.with_name("whole")
    shutil.copytree(run_dir, whole)
    said = mtd("trust", whole, *EVERYTHING).stderr
    assert "going on with what" not in said
    whole_count = len(iterations)
    left = {path.name for path in whole.glob("repeated_*")}
    assert left == {f"repeated_half_{i}{which}.safetensors" for i in (1, 2) for which in ("", ".previous")}

    for stopped in (2, ITERATIONS + 1, 3 * ITERATIONS, whole_count - 5, whole_count - 2):
        iterations.then = lambda done, stopped=stopped: done == whole_count + stopped and stop.touch()
        told = mtd("trust", run_dir, *EVERYTHING, code=143).stderr
        assert len(iterations) == whole_count + stopped
        assert "interrupted; what is done is kept, the same command goes on from there" in told
        stop.unlink()
    asked, parts = judging.omit_test, []

    def watched(*arguments, known):
        parts.append(len(known))
        for number, part in enumerate(asked(*arguments, known=known)):
            if number == len(known) == 0:
                stop.touch()
            yield part

    monkeypatch.setattr(judging, "omit_test", watched)
    mtd("trust", run_dir, *EVERYTHING, code=143)
    assert len(known(run_dir)["omitted"]) == 1
    stop.unlink()
    said = mtd("trust", run_dir, *EVERYTHING).stderr
    assert parts == [0, 1]
    assert "going on with what" in said
    assert "part 1 of 2" not in said
    assert "part 2 of 2" in said
    assert len(iterations) == 2 * whole_count
    assert known(run_dir) == known(whole)
    assert maps(run_dir) == maps(whole)


@pytest.mark.slow
def test_an_interrupted_chain_of_draws_goes_on_with_the_same_bits(mtd, run_dir, stop, monkeypatch):
    """Halves are compared before it, and keep its checkpoint; every step is made once."""
    words = ("--null-runs", 2, "--draws", 2)
    whole, steps, drawn = run_dir.with_name("whole"), [], repeating.posterior_volumes
    shutil.copytree(run_dir, whole)
    mtd("trust", whole, *words)
    assert not list(whole.glob("repeated_draws*"))

    def counted(*arguments, callback, **options):
        def after(state):
            steps.append(state.iteration)
            if len(steps) in (5, 23):
                stop.touch()
            callback(state)

        return drawn(*arguments, callback=after, **options)

    monkeypatch.setattr(repeating, "posterior_volumes", counted)
    for _ in range(2):
        mtd("trust", run_dir, *words, code=143)
        stop.unlink()
    assert list(run_dir.glob("repeated_draws*"))
    mtd("trust", run_dir, *words)
    assert steps == [*range(1, 25)]
    assert known(run_dir) == known(whole)
    assert maps(run_dir) == maps(whole)
    assert not list(run_dir.glob("repeated_draws*"))


def test_what_was_killed_goes_on_from_its_last_checkpoint(mtd, run_dir, iterations):
    whole = run_dir.with_name("whole")
    shutil.copytree(run_dir, whole)
    few = ("--null-runs", 2, "--no-halves")
    mtd("trust", whole, *few)
    count = len(iterations)

    def kill(done):
        if done == count + ITERATIONS + 1:
            raise Killed

    iterations.then = kill
    with pytest.raises(Killed):
        mtd("trust", run_dir, *few)
    assert len(known(run_dir)["phases"]["evidence"]) == 1
    mtd("trust", run_dir, *few)
    assert len(iterations) == 2 * count + 1  # the first iteration of the second null run was lost
    assert known(run_dir) == known(whole)


def test_what_is_known_is_not_made_again(mtd, mtd_json, run_dir, iterations, monkeypatch):
    first = mtd_json("trust", run_dir, *EVERYTHING)
    whole, kept, page = len(iterations), known(run_dir), (run_dir / "report.html").read_bytes()

    def drawn_anew(*_, **__):
        raise AssertionError("drawn anew")

    with monkeypatch.context() as patched:
        patched.setattr(repeating, "posterior_volumes", drawn_anew)
        assert mtd_json("trust", run_dir, *EVERYTHING) == first
    assert known(run_dir) == kept
    assert len(iterations) == whole
    assert (run_dir / "report.html").read_bytes() == page
    more = mtd("trust", run_dir, "--null-runs", 3, "--omit", 3, "--draws", 3).stderr
    assert whole < len(iterations) <= whole + 2 * ITERATIONS  # one more null run of each kind
    assert "holds an omit test of 2 parts, not 3: a new one" in more
    assert "holds 2 draws, not 3: they are drawn anew" in more
    grown = known(run_dir)
    assert len(grown["omitted"]) == grown["parts"] == grown["draws"]["count"] == 3
    for kind in ("white", "phases"):
        assert grown[kind]["evidence"][:2] == kept[kind]["evidence"]
        assert len(grown[kind]["evidence"]) == 3
    (run_dir / "volume_std.mrc").unlink()
    assert "warning: the draws are made anew" in mtd("trust", run_dir, "--draws", 3).stderr
    assert (run_dir / "volume_std.mrc").exists()


@pytest.mark.parametrize("harm", ["damaged", "of another run"])
def test_a_repetition_that_does_not_fit_is_said_and_made_anew(mtd, run_dir, stop, iterations, harm):
    few = ("--null-runs", 2, "--no-halves")
    whole = run_dir.with_name("whole")
    shutil.copytree(run_dir, whole)
    mtd("trust", whole, *few)
    count = len(iterations)
    iterations.then = lambda done: done == count + 3 and stop.touch()
    mtd("trust", run_dir, *few, code=143)
    stop.unlink()
    left = sorted(run_dir.glob("repeated_phases_0*"))
    assert len(left) == 2
    for path in left:
        if harm == "damaged":
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        else:
            header, arrays = unseal(path)
            header["identity"]["seed"] = 5
            path.write_bytes(seal(header, arrays))
    said = mtd("trust", run_dir, *few).stderr
    assert (
        "repeated_phases_0.safetensors is damaged, or of other parameters: this recovery is made anew" in said
    )
    assert len(iterations) == 2 * count + 3
    assert known(run_dir) == known(whole)


def test_a_changed_measurement_and_a_damaged_trust_json_are_refused(mtd, run_dir, stop, iterations):
    iterations.then = lambda done: done == ITERATIONS + 1 and stop.touch()
    mtd("trust", run_dir, "--null-runs", 2, code=143)
    stop.unlink()
    kept = (run_dir / "trust.json").read_text()
    (run_dir / "trust.json").write_text(kept.replace('"held_out": null', '"held_out": 3'))
    assert "remove it, and judge the run again" in mtd("trust", run_dir, code=65).stderr
    (run_dir / "trust.json").write_text(kept)
    pixels = run_dir.with_name("m.zarr")
    mtd("simulate", "--volume", "protein", "-o", pixels, "--box-size", 10, "--count", 8, "--force")
    assert "measurement was" in mtd("trust", run_dir, "--null-runs", 2, code=74).stderr
    assert (run_dir / "trust.json").read_text() == kept


def test_a_new_run_has_nothing_of_the_old_judgement(mtd, run_dir):
    mtd("trust", run_dir, "--null-runs", 2)
    assert list(run_dir.glob("repeated_*"))
    words = ("--volume", "-o", run_dir, "--box-size", 10, "--iterations", 2, "--views", 60, "--no-halves")
    mtd("recover", run_dir.with_name("m.zarr"), *words, "--force")
    assert not [*run_dir.glob("repeated_*"), *run_dir.glob("trust*")]


def test_a_recovery_with_its_judgement_goes_on_with_resume(mtd, run_dir, stop, iterations):
    """The same is kept where ``mtd recover --volume --trust`` was interrupted in its judgement; the volume has its report by then."""
    words = ["recover", run_dir.with_name("m.zarr"), "--volume", "-o", run_dir.with_name("both")]
    words += ["--box-size", 10, "--iterations", ITERATIONS, "--views", 60, "--parts", 2, "--no-halves"]
    words += ["--stop-file", stop, "--trust", 2]
    iterations.then = lambda done: done == ITERATIONS + 1 and stop.touch()
    assert "--resume" in mtd(*words, code=143).stderr
    both = run_dir.with_name("both")
    assert "supported" not in json.loads((both / "run.json").read_text())["result"]
    assert "random phases" not in (both / "report.html").read_text()
    stop.unlink()
    mtd(*words, "--resume")
    assert "supported" in json.loads((both / "run.json").read_text())["result"]
    assert "random phases" in (both / "report.html").read_text()
    count = len(iterations)
    mtd("trust", run_dir, "--null-runs", 2, "--no-halves")
    assert len(iterations) == 2 * count
    assert known(both) == known(run_dir)
