"""Every kernel compiles for every architecture we claim: NVRTC needs neither a driver nor a device."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from mtdcore.estep.backends.cuda import kernels as _cuda_kernels
from mtdcore.estep.backends.cuda.device import OLDEST

sys.path.insert(0, str(Path(__file__).parent))
from test_cuda_kernels import kernel_names

_REAL = {"float32": "float", "float64": "double"}


@pytest.fixture(scope="module")
def nvrtc() -> ctypes.CDLL:
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    found = sorted(path for folder in folders for path in folder.glob("**/libnvrtc.so.*"))
    if not found:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    return ctypes.CDLL(str(found[-1]))


def _supported(nvrtc: ctypes.CDLL) -> list[int]:
    count = ctypes.c_int()
    assert nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count)) == 0
    architectures = (ctypes.c_int * count.value)()
    assert nvrtc.nvrtcGetSupportedArchs(architectures) == 0
    return sorted(architectures)


@functools.cache
def _compile(nvrtc: ctypes.CDLL, architecture: int, precision: str) -> tuple[bytes, str]:
    """(machine code, the assembler's report on each kernel)."""
    options = [f"-arch=sm_{architecture}", "-std=c++17", f"-DREAL={_REAL[precision]}", "--ptxas-options=-v"]
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    text = _cuda_kernels.source().encode()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None) == 0
    status = nvrtc.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    )
    assert nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)) == 0
    log = ctypes.create_string_buffer(size.value)
    assert nvrtc.nvrtcGetProgramLog(program, log) == 0
    assert status == 0, log.value.decode()
    assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    code = ctypes.create_string_buffer(size.value)
    assert nvrtc.nvrtcGetCUBIN(program, code) == 0
    assert nvrtc.nvrtcDestroyProgram(ctypes.byref(program)) == 0
    return code.raw, log.value.decode()


@pytest.mark.parametrize("precision", list(_REAL))
@pytest.mark.parametrize(
    "architecture",
    [
        10 * OLDEST[0] + OLDEST[1],
        pytest.param(80, marks=pytest.mark.slow),
        pytest.param(90, marks=pytest.mark.slow),
        "newest",
    ],
)
def test_every_kernel_compiles(nvrtc: ctypes.CDLL, architecture: int | str, precision: str) -> None:
    supported = _supported(nvrtc)
    number = supported[-1] if isinstance(architecture, str) else architecture
    if number not in supported:
        pytest.skip(f"this NVRTC no longer compiles for sm_{number}")
    code, report = _compile(nvrtc, number, precision)
    kernels = kernel_names()
    assert set(re.findall(r"Compiling entry function '(\w+)' for 'sm_" + str(number), report)) == kernels
    assert all(name.encode() in code for name in kernels)
    print(f"sm_{number} {precision}: {', '.join(sorted(kernels))}")


@pytest.mark.parametrize("precision", list(_REAL))
def test_nothing_spills_to_local_memory(nvrtc: ctypes.CDLL, precision: str) -> None:
    """Stack frames and spills are device memory in disguise: traffic that no byte count would show."""
    _, report = _compile(nvrtc, 90, precision)
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert len(frames) == len(kernel_names())
    assert set(frames) == {("0", "0", "0")}
