import logging
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mtdcli import main as main_module
from mtdcli.commands.train_prior import _OF_PROTEINS
from mtdcli.inputs.sources import _READERS
from mtdcli.main import COMMANDS, main
from mtdcli.run.lock import FolderInUse
from mtdcli.terminal.stopping import Interrupted
from mtdcore.errors import CheckpointError, DependencyError, DeviceError, InputError, ParameterError


def run(*args, **kwargs):
    return CliRunner().invoke(main, list(args), **kwargs)


@pytest.fixture
def doing(monkeypatch):
    """Make `mtd doctor` do what the test wants."""

    def install(work):
        class Module:
            command = click.command(work)

        monkeypatch.setattr(main_module.importlib, "import_module", lambda *_: Module)

    return install


@pytest.fixture
def failing(doing):
    """Make `mtd doctor` raise what the test wants."""

    def install(exception):
        def fail():
            raise exception

        doing(fail)

    return install


def test_help_names_every_command():
    result = run("--help")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in COMMANDS)


def test_help_names_every_file_that_is_imported_and_every_prior_that_is_shipped():
    usual = {reader: suffix for suffix, reader in reversed(_READERS.items())}
    assert all(suffix in COMMANDS["import"][1] for suffix in usual.values())
    priors = {path.stem for path in Path(__file__).parents[2].glob("bridge/mtdbridge/weights/*.safetensors")}
    assert "proteins-2d" in priors
    for name in priors:
        words = ("recover", "--volume", "--help") if name.endswith("3d") else ("recover", "--help")
        assert name in run(*words).stdout


def test_help_of_a_training_names_what_counts_for_proteins():
    said = " ".join(run("train-prior", "--help").stdout.split())
    named = said.partition("With --proteins:")[2].partition("then count")[0]
    assert all("--" + name.replace("_", "-") in named for name in _OF_PROTEINS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Usage: main {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_every_command_is_one(name):
    """It stands in the help, and its options exist."""
    example = COMMANDS[name][2]
    assert run(name, "--help").stdout.rstrip().endswith(f"Example: {example}")
    mtd, same, *words = shlex.split(example)
    assert (mtd, same) == ("mtd", name)
    main_module.load(name).make_context(name, words)


def test_help_is_quick_and_imports_no_numpy():
    code = "import sys; from mtdcli.main import main\ntry: main(['--help'])\nfinally: assert 'numpy' not in sys.modules"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert time.perf_counter() - started < 2.0  # 0.1 s on an idle machine


@pytest.mark.parametrize(
    ("exception", "exit_code"),
    [
        (ParameterError("p"), 2),
        (InputError("i"), 65),
        (DeviceError("d"), 69),
        (DependencyError("d"), 69),
        (CheckpointError("c"), 74),
        (OSError(28, "No space left on device"), 74),
        (FolderInUse("r"), 75),
        (Interrupted(15, 0), 143),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_one_line_and_an_exit_code(failing, exception, exit_code):
    failing(exception)
    result = run("doctor")
    assert result.exit_code == exit_code
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("mtd: error: ")


def test_a_message_of_several_lines_is_printed_on_one(failing):
    failing(InputError("first\n  second"))
    assert run("doctor").stderr == "mtd: error: first second\n"


def test_the_library_is_heard_while_a_command_runs(doing):
    logger = logging.getLogger("mtdcore.some")

    def work():
        logger.debug("detail")
        logger.info("news")
        logger.warning("trouble")

    doing(work)
    assert run("doctor").stderr == "mtd: news\nmtd: warning: trouble\n"
    assert not logging.getLogger("mtdcore").handlers


def test_debug_shows_the_traceback(failing):
    failing(InputError("bad pixels"))
    result = run("--debug", "doctor")
    assert result.exit_code == 65
    assert "Traceback" in result.stderr


def test_a_bug_is_not_disguised(failing):
    failing(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        run("doctor", catch_exceptions=False)


@pytest.mark.parametrize(
    "args", [["recove"], ["recover"], ["recover", "x", "--no-such-option"], ["--no-such"]]
)
def test_usage_errors_exit_with_2_and_say_where_help_is(args):
    result = run(*args)
    assert result.exit_code == 2
    assert "--help`" in result.stderr


def test_a_closed_pipe_is_quiet():
    shell = f"{sys.executable} -c 'from mtdcli.main import main; main()' --help | head -1"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, env=os.environ, check=True)
    assert "Traceback" not in done.stderr
