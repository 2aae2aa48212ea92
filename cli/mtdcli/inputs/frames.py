"""The images that a command was given, one micrograph after another."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtdcore.data.micrographs.listing import SUFFIXES, Micrograph, find_micrographs, of_one_size
from mtdcore.data.preparation.background import contrast_skewness
from mtdcore.data.preparation.prepare import Preparation, Prepared
from mtdcore.errors import DependencyError, InputError, MtdError

from ..terminal.console import log
from .opening import tell_of_tiff
from .sources import read_images

#: Number of micrographs whose contrast is judged, and smallest median skewness that counts, in standard errors of the mean.
JUDGED, _SURE = 8, 2.5

#: Smallest ratio of width to height at which an image is taken for a signal with one channel per row.
LONG = 16


class Frames:
    """Micrographs from files of any format, checked before any pixel is read.

    Args:
        sources: files or patterns.
        key: see the attribute.
        pixel_size: see the attribute.
        skip_bad: leave out unusable files and micrographs instead of raising.
        each: called before each micrograph is prepared; an exception that it raises stops the iteration.

    Attributes:
        sources: the files, patterns expanded.
        key: arrays to take from ``.npz`` files.
        pixel_size: angstrom, given by the user; None: not given.
        usable: the micrographs, all of one size.
        skipped: messages about the files and micrographs left out (``skip_bad`` only).
    """

    def __init__(
        self,
        sources: Sequence[Path],
        key: str | None = None,
        pixel_size: float | None = None,
        skip_bad: bool = False,
        each: Callable[[], None] = lambda: None,
    ) -> None:
        self.sources = [file for source in sources for file in expanded(source)]
        self.key, self.pixel_size = key, pixel_size
        self.skipped: list[str] = []
        self._skip_bad, self._each = skip_bad, each
        self._skewness: list[tuple[float, float]] = []  # with standard errors
        found = [micrograph for source in self.sources for micrograph in self._listed(source)]
        self.usable = of_one_size(found, self.bad if skip_bad else None)
        tell_of_tiff(self.usable)

    @property
    def signals(self) -> bool:
        """Whether these are signals: images at least ``LONG`` times wider than high."""
        height, width = self.usable[0].shape
        return width >= LONG * height

    @property
    def files(self) -> list[Path]:
        """All files that are read: the sources, and the files named by the lists among them."""
        return [*self.sources, *dict.fromkeys(one.path for one in self.usable)]

    def bad(self, problem: MtdError) -> None:
        """Note a micrograph that is left out."""
        self.skipped.append(str(problem))
        log(f"skipped: {problem}")

    def prepared(self, steps: Preparation) -> Iterator[tuple[Micrograph, Prepared]]:
        """The micrographs after their preparation, in order.

        Raises:
            InputError: one cannot be prepared (without ``skip_bad``), or none can.
        """
        done = 0
        for micrograph, image in self._images():
            self._each()
            try:
                prepared = steps.read(micrograph) if image is None else steps.apply(image, micrograph)
            except MtdError as problem:
                if not self._skip_bad or isinstance(problem, DependencyError):
                    raise
                self.bad(problem)
                continue
            if done < JUDGED:
                self._skewness.append(contrast_skewness(prepared.pixels))
            done += 1
            yield micrograph, prepared
        if not done:
            raise InputError("expected one or more usable micrographs; there is none.")

    @property
    def contrast(self) -> str:
        """The apparent sign of the contrast after preparation, for the log."""
        return contrast(self._skewness)

    def _listed(self, source: Path) -> Iterator[Micrograph]:
        try:
            if source.suffix.lower() in SUFFIXES:
                yield from find_micrographs(source, self.pixel_size, self.bad if self._skip_bad else None)
            else:
                for number, image in enumerate(read_images(source, self.key)):
                    height, width = image.shape
                    yield Micrograph(str(source), source, number, (height, width), self.pixel_size)
        except MtdError as problem:
            # Skipping applies to micrographs, not to an unreadable list or a package that can be installed.
            if not self._skip_bad or isinstance(problem, DependencyError) or source.suffix.lower() == ".star":
                raise
            self.bad(problem)

    def _images(self) -> Iterator[tuple[Micrograph, np.ndarray | None]]:
        """The usable micrographs, with their pixels where the file format is read from front to back; else None."""
        left = iter(self.usable)
        wanted: Any = next(left, None)
        while wanted is not None:
            if wanted.path.suffix.lower() in SUFFIXES:
                yield wanted, None
                wanted = next(left, None)
                continue
            path = wanted.path
            for number, image in enumerate(read_images(path, self.key)):
                if wanted is not None and (wanted.path, wanted.section) == (path, number):
                    yield wanted, image
                    wanted = next(left, None)


def contrast(skewness: Sequence[tuple[float, float]]) -> str:
    """The apparent sign of the contrast, from skewness and standard error of a few prepared micrographs."""
    middle, error = np.median(skewness, axis=0)
    if abs(middle) < _SURE * error / np.sqrt(len(skewness)):
        return "the sign of the contrast cannot be told from the pixels"
    seen = "bright, as they should" if middle > 0 else "dark: try the other of --invert and --no-invert"
    return f"the largest things look {seen} (skewness {middle:+.2f})"


def expanded(source: Path) -> list[Path]:
    """The files of a pattern in order; anything else as it is. InputError: it matches none, or is a folder of files."""
    if source.is_dir() and source.suffix.lower() == ".zarr":
        raise InputError(
            f"{source} should be a file; it is a measurement already, which `mtd recover` takes as it is."
        )
    if source.is_dir():
        inside = sorted({one.suffix for one in source.iterdir() if one.suffix.lower() in SUFFIXES}) or [
            ".mrc"
        ]
        raise InputError(
            f"{source} should be a file; it is a folder: give what is in it, '{source}/*{inside[0]}'."
        )
    if source.exists() or not glob.has_magic(str(source)):
        return [source]
    found = sorted(map(Path, glob.glob(str(source), recursive=True)))
    if not found:
        raise InputError(f"the pattern {source} should match one or more files; it matches none.")
    return found
