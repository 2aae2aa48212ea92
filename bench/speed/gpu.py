"""The CUDA backend in numbers: rates, the transforms alone, simple versions, overlap, and bytes per kernel.

    python bench/speed/gpu.py [--device 0] [--case NAME ...] [--repeats 20] [-o bench/results]

Takes less than three minutes and writes ``<device>-<date>.json`` after every row: one row per case, each with the seconds of every kernel and the share of the measured copy
bandwidth that the bytes it has to move amount to. Rates count poses: a pixel-pose is one rotation at one
pixel of the measurement, a patch-rotation one rotation of one patch with all its shifts.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np

from mtdcore.data import ArrayMeasurement
from mtdcore.data.measurement import Tiles
from mtdcore.estep.backends.cuda.backend import CudaBackend, _EStep, describe_devices
from mtdcore.estep.backends.cuda.kernels import Kernels
from mtdcore.estep.backends.cuda.models import Items
from mtdcore.estep.backends.cuda.paths.matrices import MatrixPath
from mtdcore.estep.backends.cuda.paths.pairs import PairsPath
from mtdcore.estep.backends.cuda.paths.sums import scaled
from mtdcore.estep.backends.cuda.paths.transforms import SpectralPath
from mtdcore.estep.backends.cuda.staging import grouped, staged
from mtdcore.model.likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from mtdcore.model.rotations import Rotations


@dataclass(frozen=True)
class Case:
    """One E-step on noise: ``side`` x ``side`` pixels."""

    name: str
    likelihood: Likelihood
    side: int

    def templates(self, backend: CudaBackend) -> Any:
        """(K, L, L) rotations of noise; views of something else where they are thousands."""
        rng, size, count = np.random.default_rng(1), self.likelihood.box_size, self.likelihood.templates
        if count > _ROTATIONS:
            return backend.asarray(rng.normal(size=(count, size, size)) * (_NORM / size))
        return Rotations(count, size).apply(backend.asarray(rng.normal(size=(size, size)) * (_NORM / size)))

    def units(self, sites: int) -> float:
        """What the rate counts: patch-rotations, or pixel-poses."""
        area = sites if isinstance(self.likelihood, PatchLikelihood) else self.side**2
        return area * self.likelihood.templates


def _window(box_size: int, templates: int, side: int) -> Case:
    model = WindowLikelihood(Rotations(templates, box_size), 1.0, expected_count=0.2 * (side / box_size) ** 2)
    return Case(f"window-{box_size}-{templates}", model, side)


def _patch(box_size: int, rotations: int) -> Case:
    return Case(
        f"patch-{box_size}-{rotations}", PatchLikelihood(Rotations(rotations, box_size), 1.0, 0.5), 4096
    )


#: Norm of the templates in noise levels; more templates than this are no rotations.
_NORM, _ROTATIONS = 6.0, 512

#: Seconds that the repetitions of one figure may take.
_PATIENCE = 1.0

CASES = {
    case.name: case
    for case in (
        _window(28, 4608, 1024),
        _window(96, 360, 4096),
        _window(28, 4, 4096),
        _patch(28, 4),
        _patch(5, 4),
        _window(24, 4608, 1024),
        _window(32, 4608, 1024),
        _window(48, 4608, 1024),
        _window(28, 1024, 1024),
        _window(28, 256, 1024),
        _window(28, 128, 1024),
        _window(64, 1024, 1024),
        _window(64, 36, 4096),
    )
}

#: How often a kernel reads or writes an argument, where that is not once (in-place work).
PASSES = {
    "patch_posterior": {0: 3},  # maps: read for the sum, read and written for the weights
    "slide_log_sum": {0: 2, 1: 3},
    "window_normaliser": {1: 2},
}


class Meter:
    """Seconds and bytes of every launch, by synchronising around each: for shares, never for rates."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.bytes: dict[str, int] = defaultdict(int)

    def measure(self, name: str, moved: int, work: Callable[[], None]) -> None:
        self.device.synchronize()
        start = time.perf_counter()
        work()
        self.device.synchronize()
        self.seconds[name] += time.perf_counter() - start
        self.bytes[name] += moved

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Every launch and transform inside is measured."""
        launch, forward, inverse = Kernels._launch, self.device.rfft2, self.device.irfft2
        products, sums = self.device.products, self.device.sums

        def metered(kernels: Kernels, name: str, grid: Any, arguments: Any, sizes: Any, *rest: Any) -> None:
            passes = PASSES.get(name, {})
            moved = sum(getattr(a, "nbytes", 0) * passes.get(i, 1) for i, a in enumerate(arguments))
            self.measure(name, moved, lambda: launch(kernels, name, grid, arguments, sizes, *rest))

        Kernels._launch = metered  # type: ignore[method-assign]
        self.device.rfft2 = lambda a, out: self.measure(
            "rfft2", a.nbytes + out.nbytes, lambda: forward(a, out)
        )
        self.device.irfft2 = lambda a, out: self.measure(
            "irfft2", a.nbytes + out.nbytes, lambda: inverse(a, out)
        )
        self.device.products = lambda x, y, out: self.measure(
            "products", x.nbytes + y.nbytes + out.nbytes, lambda: products(x, y, out)
        )
        self.device.sums = lambda x, y, out: self.measure(
            "sums", x.nbytes + y.nbytes + out.nbytes, lambda: sums(x, y, out)
        )
        try:
            yield
        finally:
            Kernels._launch = launch  # type: ignore[method-assign]
            self.device.products, self.device.sums = products, sums
            self.device.rfft2, self.device.irfft2 = forward, inverse


def seconds(backend: CudaBackend, work: Callable[[], Any], repeats: int) -> float:
    """Median wall time with the device idle before and after; one run first, for plans and compilation."""
    times: list[float] = []
    while len(times) <= repeats and (len(times) < 3 or sum(times) < _PATIENCE):
        backend.synchronize()
        start = time.perf_counter()
        work()
        backend.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def copy_bandwidth(backend: CudaBackend, repeats: int, size: int = 1 << 30) -> float:
    """Bytes read and written per second by a large copy on the device."""
    source = backend.xp.ones(size // 4, dtype=np.float32)
    target = backend.xp.empty_like(source)
    return 2 * source.nbytes / seconds(backend, lambda: backend.xp.copyto(target, source), repeats)


def transforms_alone(
    backend: CudaBackend, path: SpectralPath, items: Items, rotations: int
) -> Callable[[], None]:
    """One inverse and one forward transform per item and rotation, in the chunks of the path."""
    xp, torus = backend.xp, path._torus
    chunks = [(cut.stop - cut.start) * len(items) for cut in path._cuts(len(items))]
    maps = xp.zeros((max(chunks), *torus), dtype=np.float32)
    spectra = xp.zeros((max(chunks), torus[0], torus[1] // 2 + 1), dtype=np.complex64)

    def run() -> None:
        for count in chunks:
            backend.device.irfft2(spectra[:count], maps[:count])
            backend.device.rfft2(maps[:count], spectra[:count])

    assert sum(chunks) == len(items) * rotations
    return run


def simple_patch_step(patches: Any, targets: Any, squares: Any, log_shown: float, log_empty: float) -> Any:
    """The patch E-step as one would first write it with any array library; returns back-projection spectra."""
    xp = array_api_compat.array_namespace(patches)
    length = patches.shape[-1]
    shape, axes = (2 * length, 2 * length), (-2, -1)
    spectrum = xp.fft.rfftn(patches, s=shape, axes=axes)
    box = xp.fft.rfftn(xp.ones_like(patches[:1, ...]), s=shape, axes=axes)
    target, square = (xp.conj(xp.fft.rfftn(a, s=shape, axes=axes)) for a in (targets, squares))
    score = xp.fft.irfftn(spectrum[:, None, ...] * target[None, ...], s=shape, axes=axes)
    energy = xp.fft.irfftn(box * square, s=shape, axes=axes)
    shown = xp.ones_like(score[0, 0, ...])
    shown[length, :] = 0
    shown[:, length] = 0
    log_weight = xp.where(shown > 0, score - energy[None, ...] + log_shown, -math.inf * xp.ones_like(shown))
    top = xp.max(log_weight, axis=(1, 2, 3), keepdims=True)
    weight = xp.exp(log_weight - top)
    weight = weight / (xp.sum(weight, axis=(1, 2, 3), keepdims=True) + xp.exp(log_empty - top))
    turned = xp.conj(xp.fft.rfftn(weight, axes=axes))
    return xp.sum(spectrum[:, None, ...] * turned, axis=0), xp.sum(turned, axis=0)


def simple_window_step(image: Any, templates: Any, likelihood: WindowLikelihood) -> list[Any]:
    """The window E-step likewise: the whole image, one rotation after another; returns back-projections."""
    xp = array_api_compat.array_namespace(image)
    length, reach, shape, axes = likelihood.box_size, likelihood.separation - 1, image.shape, (-2, -1)
    rows, columns = (n - length + 1 for n in shape)
    spectrum = xp.fft.rfftn(image, axes=axes)

    def correlation(template: Any) -> Any:
        other = xp.fft.rfftn(template, s=shape, axes=axes)
        return xp.fft.irfftn(spectrum * xp.conj(other), s=shape, axes=axes)

    scores = []
    for target in (templates[k, ...] for k in range(templates.shape[0])):
        gain = correlation(target)[:rows, :columns] - 0.5 * xp.sum(target**2)
        scores.append(gain / likelihood.noise_std**2 + likelihood.log_activity - math.log(templates.shape[0]))
    top = xp.max(xp.stack([xp.max(s) for s in scores]))
    odds = xp.fft.rfftn(sum(xp.exp(s - top) for s in scores), s=shape, axes=axes)
    near = xp.fft.rfftn(xp.ones_like(image[: 2 * reach + 1, : 2 * reach + 1]), s=shape, axes=axes)
    total = xp.fft.irfftn(odds * near, s=shape, axes=axes)[reach : reach + rows, reach : reach + columns]
    log_sum = xp.log(xp.where(total > 1e-30, total, 1e-30 * xp.ones_like(total))) + top
    norm = xp.logaddexp(xp.zeros_like(log_sum), log_sum)
    return [correlation(xp.exp(s - norm))[:length, :length] for s in scores]


def row(backend: CudaBackend, case: Case, repeats: int, bandwidth: float) -> dict[str, Any]:
    """All figures of one case."""
    rng = np.random.default_rng(0)
    side = case.side
    noise = rng.normal(size=(side, side)).astype(np.float32)
    measurement = ArrayMeasurement(noise[None])
    likelihood = case.likelihood.bind(measurement.shape)
    cut = likelihood.geometry.enlarged(backend.tile_pixels(likelihood))
    tiles = list(measurement.tiles(cut))
    templates = case.templates(backend)
    with backend.device.active():
        step = _EStep(backend.device, templates, likelihood, backend.precision)
        ((group, sent),) = staged(
            backend.device, grouped(tiles, step.key, pixels=2 * side**2 + 2 * len(tiles) * side)
        )
        path = step.path(group.precision, tiles[0])
        items = step.model.gather(sent, backend.xp, path.torus)
        whole = backend.accumulate(tiles, templates, likelihood)
        units = case.units(whole.sites)
        resident = seconds(backend, lambda: backend._sums(path, items), repeats)
        streamed = seconds(backend, lambda: backend.accumulate(tiles, templates, likelihood), repeats)
        upload = seconds(backend, lambda: list(staged(backend.device, grouped(tiles, step.key))), repeats)
        # tiles of a measurement stay on the device after the first call, which the median leaves out
        again = seconds(
            backend, lambda: backend.accumulate(Tiles(measurement, cut), templates, likelihood), repeats
        )
        result: dict[str, Any] = {
            "case": case.name,
            "side": side,
            "units_per_second": units / resident,
            "unit": "patch-rotations" if isinstance(likelihood, PatchLikelihood) else "pixel-poses",
            "resident_seconds": resident,
            "streamed_seconds": streamed,
            "upload_seconds": upload,
            "second_call_seconds": again,
            "second_call_of_resident": resident / again,
            "path": type(path).__name__,
            "torus": list(items.pixels.shape[1:]),
            "tiles": len(tiles),
        }
        meter = Meter(backend.device)
        with meter.watching():  # before anything clears the plans
            backend._sums(path, items)
        result["kernels"] = {
            name: {
                "seconds": meter.seconds[name],
                "bytes": meter.bytes[name],
                "share_of_copy_bandwidth": meter.bytes[name] / meter.seconds[name] / bandwidth,
            }
            for name in meter.seconds
        }
        if isinstance(path, MatrixPath | PairsPath):
            other = step.spectral_path(group.precision, tiles[0])
            theirs = step.model.gather(sent, backend.xp, other.torus)
            transforms = seconds(backend, lambda: backend._sums(other, theirs), repeats)
            result["times_faster_than_transforms"] = transforms / resident
        if isinstance(path, SpectralPath):
            batch = items[: max(1, min(len(items), 4096))]
            pairs = seconds(backend, transforms_alone(backend, path, batch, likelihood.templates), repeats)
            result["ratio_to_transforms"] = resident / (pairs * len(items) / len(batch))
        if isinstance(likelihood, PatchLikelihood):
            batch = items.pixels[:2048]
            images = (a.astype(np.float32) for a in scaled(templates, likelihood.noise_std))
            priors = step.model.log_shown, step.model.log_empty
            rival = _times_faster(backend, resident, repeats, simple_patch_step, [batch, *images], priors)
            result |= {name: times * len(items) / len(batch) for name, times in rival.items()}
        elif likelihood.templates <= _ROTATIONS:
            arrays = [a.astype(np.float32) for a in (backend.asarray(noise), templates)]
            result |= _times_faster(backend, resident, repeats, simple_window_step, arrays, (likelihood,))
    return result


def _times_faster(
    backend: CudaBackend,
    resident: float,
    repeats: int,
    simple: Callable[..., Any],
    arrays: list[Any],
    rest: tuple[Any, ...],
) -> dict[str, float]:
    """Seconds of the simple version over ``resident``, in CuPy and (where it sees the card) in torch."""
    plain = seconds(backend, lambda: simple(*arrays, *rest), repeats)
    found = {f"times_faster_than_{backend.xp.__name__}": plain / resident}
    with contextlib.suppress(ImportError):
        import torch

        if torch.cuda.is_available():
            backend.device.release()  # torch cannot use what CuPy's pool holds
            tensors = [torch.from_dlpack(a) for a in arrays]
            plain = seconds(backend, lambda: (simple(*tensors, *rest), torch.cuda.synchronize()), repeats)
            found["times_faster_than_torch"] = plain / resident
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--case", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parents[1] / "results")
    options = parser.parse_args()
    backend = CudaBackend.open(options.device)
    bandwidth = copy_bandwidth(backend, options.repeats)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    info = describe_devices()[options.device]
    report = {
        "device": asdict(info),
        "date": today,
        "commit": commit,
        "copy_bandwidth": bandwidth,
        "rows": [],
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{info.name.replace(' ', '-')}-{today}.json"
    for name in options.case:
        found = row(backend, CASES[name], options.repeats, bandwidth)
        backend.device.release()
        report["rows"].append(found)
        path.write_text(
            json.dumps(report, indent=1) + "\n"
        )  # a run that is cut short leaves what it measured
        print(
            f"{name}: {found['units_per_second']:.3g} {found['unit']}/s resident ({found['path']})",
            flush=True,
        )
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
