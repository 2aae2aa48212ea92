import subprocess
import sys
from importlib.util import find_spec

import pytest

import mtdcli.commands.doctor
import mtdcli.reproduce.demo


@pytest.fixture
def small(monkeypatch):
    """A demo of one glyph in a small measurement."""
    monkeypatch.setattr(mtdcli.reproduce.demo, "_TARGETS", 1)
    monkeypatch.setattr(mtdcli.reproduce.demo, "_SIDE", 140)


@pytest.mark.charts
def test_demo_compares_methods_and_writes_its_report(mtd_json, mtd, tmp_path, small):
    folder = tmp_path / "demo"
    result = mtd_json("demo", "-o", folder)
    table = result["methods"]
    assert list(table)[:4] == ["published", "published, prior", "window", "window, prior"]
    assert list(table)[4:] == (["window, learned"] if find_spec("torch") else [])
    assert all(0 < row["E_s"] <= row["E"] for row in table.values())
    for best in list(table.values())[3:]:
        assert best["E_s"] < table["published"]["E_s"]
        assert best["evidence"] > 100 > 5 > best["evidence_noise_only"]
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    mtd("demo", "-o", folder, code=74)


def test_demo_without_pytorch_leaves_the_learned_prior_out(monkeypatch):
    from mtdcli.reproduce.demo_methods import methods

    monkeypatch.setitem(sys.modules, "mtdbridge", None)  # the import fails as it does where torch is missing
    assert [way.name for way in methods()][-1] == "window, prior"


def test_the_demo_imports_no_pytorch():
    code = "import sys; sys.modules['torch'] = None; import mtdcli.reproduce.demo"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_doctor_tests_this_installation(mtd_json, mtd):
    result = mtd_json("doctor")
    assert result["devices"]["cpu"]["self_test"]["passed"]
    assert result["devices"]["cuda"]
    assert result["packages"]["numpy"]
    assert {"torch", "mrcfile", "tifffile", "imagecodecs", "distributed"} <= set(result["optional"])
    assert "self_test" in mtd("doctor").stdout


def test_doctor_fails_when_the_backends_disagree(mtd, monkeypatch):
    import mtdcore.estep.backends.cpu.backend

    right = mtdcore.estep.backends.cpu.backend.CpuBackend.accumulate

    def wrong(*args):
        statistics = right(*args)
        return statistics + statistics

    monkeypatch.setattr(mtdcore.estep.backends.cpu.backend.CpuBackend, "accumulate", wrong)
    mtd("doctor", code=69)


def test_doctor_tests_every_card(mtd_json, mtd, monkeypatch):
    import mtdcore.estep.backends.cuda.backend as cuda
    from mtdcore.estep.backends.cpu.backend import CpuBackend

    cards = [
        cuda.DeviceInfo(0, "Old card", (7, 0), 8 << 30, 13020, (13, 5)),
        cuda.DeviceInfo(1, "New card", (9, 0), 80 << 30, 13020, (13, 5)),
    ]
    timed = mtdcli.commands.doctor._TIMED
    small = {way: (model, 5, 4, 64) for way, (model, *_) in timed.items()}
    monkeypatch.setattr(mtdcli.commands.doctor, "_TIMED", small)
    monkeypatch.setattr(cuda, "describe_devices", lambda: cards)
    monkeypatch.setattr(cuda.CudaBackend, "open", lambda index, precision="float32": CpuBackend(precision))
    old, new = mtd_json("doctor")["devices"]["cuda"].values()
    assert (old["name"], old["self_test"]) == ("Old card", "not run: too old")
    assert new["self_test"]["passed"]
    assert list(new["pixel_poses_per_second"]) == list(timed)
    assert all(speed > 0 for speed in new["pixel_poses_per_second"].values())
    assert "pixel_poses_per_second" not in old
    assert (new["compute_capability"], new["memory_gib"], new["driver"], new["nvrtc"]) == (
        "9.0", 80.0, "CUDA 13.2", "13.5",
    )  # fmt: skip

    def broken(index, precision):
        raise ValueError("no kernel image")

    monkeypatch.setattr(cuda.CudaBackend, "open", broken)
    assert "ValueError: no kernel image" in mtd("doctor", code=69).stdout


def test_doctor_says_why_there_is_no_card(mtd_json, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "mtdcore[cuda12]" in mtd_json("doctor")["devices"]["cuda"]


@pytest.mark.parametrize("device", ["gpu", "foo", "cuda:x", "CUDA", "", "mps"])
@pytest.mark.parametrize(
    "command",
    [
        ("recover", "nothing.npy", "-o", "run", "--box-size", "28"),
        ("recover", "nothing.npy", "-o", "run", "--box-size", "28", "--volume"),
        ("watch", "nothing", "-o", "run", "--box-size", "28"),
        ("detect", "run"),
        ("trust", "run"),
        ("reproduce", "gaussian"),
    ],
)
def test_what_is_no_device_is_told_which_there_are(mtd, command, device):
    """Before anything is opened: the files of these command lines do not exist."""
    said = mtd(*command, "--device", device, code=2).stderr
    assert f"'{device}' is no device; devices are auto, cpu, cuda, cuda:1" in said
    assert "backend" not in said
    shared = command[0] in ("recover", "watch", "trust") and "--volume" not in command
    assert ("cuda:all" in said) == shared
