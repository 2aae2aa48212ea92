"""The patch E-step of boxes of 9 to 32 pixels in one kernel, without maps of patches in the memory of the device.

Two templates are the real and the imaginary part of one image, as in :mod:`.pairs`. A block of threads transforms a
patch, keeps the gains of all its poses in registers, normalises them, and adds weights and back-projections to its own
sums (``kernels_patch_fused.cu``). Tables and sums are in the order of the threads, which :func:`thread_order` defines.
"""

from __future__ import annotations

import logging
import math

import numpy as np

from ....._base.typing import Array
from .....model.likelihood import PatchLikelihood
from ..device import Device
from ..kernels import FUSED_SIDES, Kernels
from ..models import Items, PatchModel
from .sums import Path, Sums, with_classes

_LOG = logging.getLogger("mtdcore.cuda")

#: Number of templates whose gains fit into registers.
_TEMPLATES = 4

#: Logarithms are to base 2 in the kernel.
_BITS = 1.0 / math.log(2.0)

#: Number of patches on which the kernel is compared with the transforms, and largest difference relative to the largest value.
_ASKED, _AGREES = 64, 1e-3

#: Whether a kernel agrees with the transforms, by device and kernel; tested once.
_AGREEMENT: dict[tuple[str, int, int], bool] = {}


def torus_side(likelihood: PatchLikelihood) -> int | None:
    """Side of the smallest torus that the kernel supports and that holds all shifts; None: there is none."""
    least = 2 * likelihood.box_size - 1 + likelihood.margins[1]
    return next((side for side in FUSED_SIDES if side >= least), None)


def suits(likelihood: PatchLikelihood, shared_bytes: int) -> bool:
    """Whether the kernel supports the box and the templates with this shared memory of a block."""
    side = torus_side(likelihood)
    if side is None or likelihood.templates > _TEMPLATES or likelihood.amplitudes is not None:
        return False
    return Kernels.fused_bytes(side, -(-likelihood.templates // 2)) <= shared_bytes


def thread_order(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and positions of the 16 points of each thread, as indices into the plane, (8, threads, 2) each."""
    radix = side // 4
    point = np.arange(16).reshape(8, 1, 2)
    own, other = np.divmod(np.arange(radix**2)[None, :, None], radix)
    line, place = np.divmod(point, radix)
    frequency_line = own + radix * line
    frequencies = (frequency_line // 4 + 4 * place) * side + other + radix * (frequency_line % 4)
    position_line = other + radix * line
    positions = (own + radix * (position_line // 4)) * side + position_line % 4 + 4 * place
    return frequencies, positions


class PatchPairsPath:
    """Statistics of patches without invalid pixels, copies alike in amplitude; see :class:`Path`.

    The kernel takes nearly all shared memory of a multiprocessor, and relies on the synchronisation of warps. Its sums are therefore
    compared once per device with those of the transforms, which replace it if they differ.

    Args:
        device: the device.
        kernels: in float32.
        templates: (K, L, L) float64 templates.
        model: the patch model.
        transforms: the same statistics by transforms.
    """

    torus: tuple[int, int] | None = None

    def __init__(
        self, device: Device, kernels: Kernels, templates: Array, model: PatchModel, transforms: Path
    ) -> None:
        self._device, self._kernels, self._model, self._transforms = device, kernels, model, transforms
        likelihood, xp = model.likelihood, kernels.xp
        side = torus_side(likelihood)
        assert side is not None
        self._side, self._count, self._pairs = side, len(templates), -(-len(templates) // 2)
        length = likelihood.box_size
        frequencies, positions = thread_order(side)
        even = xp.zeros((2 * self._pairs, side, side), dtype=np.float64)
        even[: self._count, :length, :length] = templates * (1.0 / likelihood.noise_std)
        images = even[0::2] - 1j * even[1::2]
        spectra = xp.fft.fft2(images).conj() * (_BITS / (likelihood.noise_std * side**2))
        self._spectra = self._ordered(spectra.astype(kernels.complex), frequencies)
        box = xp.zeros((side, side), dtype=np.float64)
        box[:length, :length] = 1.0
        self._box = xp.fft.fft2(box)
        self._level = self._ordered(self._levels(0.5 * even**2), positions)
        self._places = tuple(xp.asarray(np.argsort(order, axis=None)) for order in (frequencies, positions))
        margin = likelihood.margins[1]
        lags = xp.asarray(np.arange(-margin, length + margin) % side)
        self._rows, self._columns = lags[:, None], lags
        # only the patches, which are on the device already
        self.bytes_per_item = 16 if self._agrees is not False else transforms.bytes_per_item

    def sums(self, items: Items) -> Sums:
        """See :meth:`Path.sums`."""
        assert items.valid is None
        if self._agrees is None:
            self._ask(items[:_ASKED])
        return self._fused(items) if self._agrees else self._transforms.sums(items)

    @property
    def _key(self) -> tuple[str, int, int]:
        return self._device.name, self._side, self._pairs

    @property
    def _agrees(self) -> bool | None:
        """Whether the kernel agrees with the transforms; None: not compared yet."""
        return _AGREEMENT.get(self._key)

    def _ask(self, items: Items) -> None:
        expected, reason = self._transforms.sums(items), ""
        try:
            found = self._fused(items)
        except MemoryError:
            raise
        except Exception as error:  # CuPy raises anything for a failed launch; the transforms still work
            reason = str(error)
        else:
            pairs = ((found.frames, expected.frames), (found.scores, expected.scores))
            apart = max(float(abs(a - b).max()) / (float(abs(b).max()) or 1.0) for a, b in pairs)
            if not apart < _AGREES:
                reason = f"its sums are off by {apart:.1g} of the largest"
        _AGREEMENT[self._key] = not reason
        if reason:
            _LOG.warning(
                "%s: patches go through transforms, since the kernel for whole patches fails here (%s); please report it",
                self._device.name,
                reason,
            )

    def _fused(self, items: Items) -> Sums:
        kernels, xp = self._kernels, self._kernels.xp
        found, scores = kernels.patch_fused(
            xp.ascontiguousarray(items.pixels), self._spectra, self._level, self._model.log_empty * _BITS
        )
        summed = found.sum(axis=0).reshape(2, self._pairs, -1)
        seen, weights = (summed[i][:, self._places[i]].reshape(-1, self._side, self._side) for i in range(2))
        weighed = xp.fft.fft2(weights).conj()
        maps = xp.fft.ifft2(xp.stack((seen, self._box * weighed)))
        # the kernels after that of the patches take a twentieth of its time: unused results are not computed
        frames = self._apart(maps[..., self._rows, self._columns])
        scores, likelihood = scores.sum(axis=0), self._model.likelihood
        if likelihood.classes > 1:
            scores = with_classes(scores, self._apart(weighed[:, :1, :1])[:, 0, 0], likelihood)
        return Sums(frames, scores)

    def _levels(self, squares: Array) -> Array:
        """(P, N, N) complex: log prior minus energy of two templates at each shift, in units of log 2."""
        xp, likelihood = self._kernels.xp, self._model.likelihood
        energy = xp.fft.ifft2(self._box * xp.fft.fft2(squares).conj()).real
        bias = xp.full(2 * self._pairs, -1e30, dtype=np.float64)
        bias[: self._count] = xp.asarray(likelihood.template_bias)
        level = (bias[:, None, None] + self._model.log_shown - energy) * _BITS
        shift = np.fft.fftfreq(self._side, 1.0 / self._side)
        shows = xp.asarray(np.abs(shift) < likelihood.box_size)
        level = xp.where(shows[:, None] & shows, xp.maximum(level, -1e30), -1e30)
        return (level[0::2] + 1j * level[1::2]).astype(self._kernels.complex)

    def _ordered(self, planes: Array, order: np.ndarray) -> Array:
        """(P, 8, threads, 2) from planes (P, N, N)."""
        xp = self._kernels.xp
        return xp.ascontiguousarray(planes.reshape(len(planes), -1)[:, xp.asarray(order)])

    def _apart(self, pairs: Array) -> Array:
        """(..., K, h, w) real from a - i b of templates two at a time, (..., P, h, w)."""
        xp = self._kernels.xp
        both = xp.ascontiguousarray(pairs.conj()).view(np.float64).reshape(*pairs.shape, 2)
        shape = (*pairs.shape[:-3], 2 * self._pairs, *pairs.shape[-2:])
        return xp.ascontiguousarray(xp.moveaxis(both, -1, -3).reshape(shape)[..., : self._count, :, :])
