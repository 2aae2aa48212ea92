"""Files of images and signals into NumPy arrays: .npy, .npz, .png, .tif, .mrc, .csv, .wav. Each optional reader is imported where it is used."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mtdcore._base.guarded import archive, check_declared, opened
from mtdcore.data.preparation.pixels import MRC, TIFF
from mtdcore.errors import InputError, MtdError, ParameterError

from ..terminal.console import log

#: Smallest number of lines at which a strictly rising column is taken for the time instead of a signal.
_RISING = 16


def read_images(path: Path, key: str | None = None) -> Iterator[np.ndarray]:
    """Yield the 2-D images of one file, one after another, as stored (each valid until the next is asked for).

    Args:
        path: a file; its extension chooses the reader.
        key: which arrays of an ``.npz`` file (shell pattern, e.g. ``frames/*``); ignored otherwise.

    Raises:
        InputError: unknown format, damaged file, no image, complex or non-numeric pixels.
        DependencyError: the reader of this format is not installed.
    """
    opened(path).close()
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} should be one of {', '.join(_READERS)}; its extension is '{path.suffix}'.")
    try:
        for name, array in reader(path, key):
            if array.dtype.kind not in "biuf" or array.ndim not in (1, 2, 3) or not array.size:
                raise InputError(
                    f"{name} should hold real numbers in 2 dimensions (1 for a signal, 3 for a stack); "
                    f"it holds {array.dtype} of shape {array.shape}."
                )
            yield from (array if array.ndim == 3 else np.atleast_2d(array)[None])
    except MtdError:
        raise
    except Exception as problem:  # readers share no exception type for damaged files
        raise InputError(f"{path} could not be read as {path.suffix} ({problem}).") from problem


def read_image(path: Path, key: str | None = None) -> np.ndarray:
    """The one image of a file as (H, W) float64. Integer pixels are scaled to [0, 1] by the range of their dtype.

    Raises:
        InputError: the file holds several images, or pixels that are not finite.
    """
    images = [np.array(image) for image in read_images(path, key)]
    if len(images) != 1:
        raise InputError(f"{path} should hold one image; it holds {len(images)}.")
    scale = np.iinfo(images[0].dtype).max if images[0].dtype.kind in "iu" else 1
    image = images[0].astype(np.float64) / scale
    if not np.all(np.isfinite(image)):
        raise InputError(f"{path} should hold finite pixels; some are NaN or infinite.")
    return image


Named = Iterator[tuple[str, np.ndarray]]


def _npy(path: Path, key: str | None) -> Named:
    yield str(path), np.load(path, mmap_mode="r", allow_pickle=False)


def _npz(path: Path, key: str | None) -> Named:
    with archive(path) as found:
        names = [name for name in found.names if key is None or fnmatch.fnmatchcase(name, key)]
        if not names:
            raise ParameterError(f"--key {key} matches nothing in {path}; it holds {_some(found.names)}.")
        if key is None and len(names) > 1:
            raise ParameterError(
                f"{path} holds {len(names)} arrays, choose with --key (a name or a pattern): {_some(names)}."
            )
        for name in names:
            yield f"{path}[{name}]", found[name]


def _png(path: Path, key: str | None) -> Named:
    from PIL import Image

    with Image.open(path) as image:
        check_declared(path, 4 * image.width * image.height, path.stat().st_size)
        # Colour and palette images become grey; 16-bit and float grey images keep their depth.
        yield (
            str(path),
            np.asarray(image if image.mode in ("L", "F", "I", "I;16", "I;16B") else image.convert("L")),
        )


def _csv(path: Path, key: str | None) -> Named:
    columns, time = _table(path)
    yield str(path), columns if time is None else np.delete(columns, time, axis=0)


def _table(path: Path) -> tuple[np.ndarray, int | None]:
    """The (columns, N) numbers of a table, and the index of the column of times, which rises from its first to its last line; None: there is none."""
    with opened(path) as file:
        text = file.read().decode("utf-8-sig")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    separator = next((mark for mark in ";\t," if lines and mark in lines[0]), None)
    if separator in (";", "\t") and "." not in "".join(lines[1:]):  # then a comma is a decimal point
        lines = [line.replace(",", ".") for line in lines]
    heading = int(bool(lines) and not _numbers(lines[0], separator))
    if not lines[heading:]:
        raise ValueError("it holds no numbers")
    try:
        columns = np.loadtxt(lines[heading:], delimiter=separator, ndmin=2).T
    except ValueError as problem:  # NumPy's message ends with advice for callers of loadtxt
        raise ValueError(str(problem).partition(";")[0].rstrip(".")) from problem
    rising = [i for i, column in enumerate(columns) if column.size >= _RISING and (np.diff(column) > 0).all()]
    return columns, rising[0] if rising and len(columns) > 1 else None


def _numbers(line: str, separator: str | None) -> bool:
    """Whether a line of a table holds numbers; the first line may hold the names of columns."""
    try:
        return bool([float(word) for word in line.split(separator)])
    except ValueError:
        return False


def _wav(path: Path, key: str | None) -> Named:
    yield str(path), np.atleast_2d(_sound(path)[1].T)


def _sound(path: Path) -> tuple[float, np.ndarray]:
    """Samples per second, and (N,) or (N, channels) samples."""
    from scipy.io import wavfile

    rate, samples = wavfile.read(path)
    return float(rate), samples


def sampling_rate(path: Path) -> float | None:
    """Samples per second stored in a file: ``.wav``, or ``.csv`` with a column of evenly spaced times in seconds; None: the file has none.

    Raises:
        InputError: the file is damaged.
    """
    try:
        if path.suffix.lower() == ".wav":
            return _sound(path)[0]
        if path.suffix.lower() == ".csv":
            return _rate_of_times(path)
    except Exception as problem:
        raise InputError(f"{path} could not be read as {path.suffix} ({problem}).") from problem
    return None


def _rate_of_times(path: Path) -> float | None:
    """Samples per second of a table with times, which are logged; None: no times, uneven times, or times that count samples."""
    columns, time = _table(path)
    if time is None:
        return None
    times, steps = columns[time], np.diff(columns[time])
    step = float(times[-1] - times[0]) / len(steps)
    said = f"{path}: column {time + 1} rises throughout: it is taken for the time and left out"
    if np.ptp(steps) > step and not np.allclose(steps, step):
        log(f"{said}; warning: its steps are uneven, and the samples are taken as evenly spaced all the same")
        return None
    if np.allclose(steps, 1):
        log(said)
        return None
    log(
        f"{said}; in seconds it says {1 / step:.6g} samples per second (--sampling-rate, if it has other units)"
    )
    return 1 / step


def _micrographs(path: Path, key: str | None) -> Named:
    from mtdcore.data.preparation.pixels import open_pixels

    yield str(path), open_pixels(path).stack


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


_READERS: dict[str, Callable[[Path, str | None], Named]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".png": _png,
    ".csv": _csv,
    ".wav": _wav,
    **dict.fromkeys(MRC + TIFF, _micrographs),
}
