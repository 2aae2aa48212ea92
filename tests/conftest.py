import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from mtdcli.main import main
from mtdcore import Statistics, get_backend, simulate
from mtdcore.drawing.images import picture
from mtdcore.model.normal import Diagonal
from mtdcore.synthetic.glyphs import glyphs


@pytest.fixture
def blank_charts(request, monkeypatch):
    """Charts of reports are laid out and not drawn, which takes most of a small run; a test marked ``charts`` has them drawn."""
    if request.node.get_closest_marker("charts") is None:
        blank = picture(np.zeros((1, 1)))
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, file, **_: file.write(blank))


@pytest.fixture
def mtd(blank_charts):
    """Run a command line in this process: ``mtd("recover", path, "-o", folder)``."""

    def run(*args, code=0):
        result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def mtd_process():
    """`mtd` as a process of its own, killed at the end of the test."""
    started = []

    def start(*args, before="", **options):
        code = f"{before}\nfrom mtdcli.main import main; main()"
        command = [sys.executable, "-c", code, *map(str, args)]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def peak_memory():
    """Runs a script in a process of its own: its largest resident memory, bytes.

    That is the kernel's VmHWM. ``ru_maxrss`` begins with the memory of the process that started it.
    """
    if not os.path.exists("/proc/self/status"):
        pytest.skip("the peak of a process is read from /proc")
    counted = """
import atexit, sys
atexit.register(lambda: print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0], file=sys.stderr))
"""

    def run(script, *args, env=None):
        command = [sys.executable, "-c", counted + script, *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False, env=env)
        assert done.returncode == 0, done.stderr
        return int(done.stderr.splitlines()[-1]) * 1024

    return run


@pytest.fixture(scope="session")
def random_statistics():
    """Makes statistics of random numbers: of a square target of some side, in some array library."""

    def make(rng, side, library=np):
        right, weights = (library.asarray(rng.uniform(size=(side, side))) for _ in range(2))
        numbers = ("log_likelihood", "energy", "expected_count", "empty_mass", "sites", "pixels", "noise_std")
        values = {name: float(rng.uniform()) for name in numbers}
        return Statistics(right, Diagonal(weights), class_mass=rng.uniform(size=1), **values)

    return make


@pytest.fixture(scope="session")
def exact():
    """The CPU backend in float64."""
    return get_backend("cpu", precision="float64", threads=1)


@pytest.fixture(scope="session")
def single():
    """The CPU backend in float32."""
    return get_backend("cpu", precision="float32", threads=1)


@pytest.fixture
def micrographs(tmp_path):
    """Adds raw micrographs of one glyph, dark on grey, to a folder until so many are there: its path."""
    import mrcfile

    folder = tmp_path / "micrographs"
    folder.mkdir()
    glyph = glyphs(1, 12, 1)[0]

    def add(count, side=100, snr=1.0, name="m"):
        for i in range(count):
            path = folder / f"{name}{i:02d}.mrc"
            if not path.exists():
                pixels = simulate(
                    glyph, shape=(side, side), density=0.08, snr=snr, rotations=4, seed=i
                ).measurement
                with mrcfile.new(path) as file:
                    values = np.asarray(pixels).reshape(side, side)
                    file.set_data((100.0 - values / values.std()).astype(np.float32))
                os.utime(path, ns=(i + 1, i + 1))
        return folder

    return add


@pytest.fixture
def quick():
    """Options of a short ``mtd watch``."""
    words = "--box-size 12 --rotations 4 --iterations 10 --starts 2 --first 4 --every 2 --settle 0 --once --device cpu --threads 1"
    return tuple(words.split())
