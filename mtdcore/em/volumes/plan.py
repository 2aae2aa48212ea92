"""The plan of a run: frequency limit, number of views and temperature of each iteration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ParameterError
from ...estep.volumes.templates import Search
from ...model.volumes import so3
from ...model.volumes.projections import Projections
from ..gauge.extent import touching
from ..temperature import Temperature

#: Least number of shells at first: a single shell shows the place of a copy, but not its orientation.
_SHELLS = 2

#: Band at the end, cycles per voxel, by box size: in small boxes the detail of an object is nearer to the voxel.
_BOXES, _BANDS = (11, 16, 24), (0.42, 0.35, 0.30)


@dataclass(frozen=True)
class VolumePlan:
    """Frequency marching, growing and turning view sets, falling temperature, mini-batches.

    Attributes:
        box_size: L in voxels.
        symmetry: point group that the volume has in the end.
        iterations: number of iterations.
        first_band: frequency limit at first, cycles per voxel.
        last_band: frequency limit in the end, cycles per voxel.
        first_views: number of views at first.
        last_views: number of views in the end.
        coarse_views: number of views that search for copies, once there are more than twice as many in all.
        coarse_band: frequency limit of the coarse views, cycles per voxel.
        marching: share of the iterations over which band and views grow.
        cooling: share over which the temperature falls.
        whole: share at the end that reads the whole measurement.
        imposed: share after which the symmetry is imposed: earlier it hinders the search.
        race: share after which the best of several starts continues alone: early evidence misleads.
        nats: of a copy at the first temperature.
        seed: of all random draws.
        subpixel: whether copies between pixels are scored, too.
    """

    box_size: int
    symmetry: str = "C1"
    iterations: int = 120
    first_band: float = 0.125
    last_band: float = 0.3
    first_views: int = 300
    last_views: int = 1200
    coarse_views: int = 200
    coarse_band: float = 0.19
    marching: float = 0.7
    cooling: float = 0.4
    whole: float = 0.15
    imposed: float = 0.6
    race: float = 0.5
    nats: float = 30.0
    seed: int = 0
    subpixel: bool = False

    def __post_init__(self) -> None:
        so3.group(self.symmetry)  # an unknown group is refused here, not when it is imposed
        if self.iterations < 1:
            raise ParameterError(f"a run needs at least one iteration; got {self.iterations}.")
        if not 0.0 < self.first_band <= 0.5 or not 0.0 < self.last_band <= 0.5:
            raise ParameterError(
                f"bands should lie in (0, 0.5] cycles per voxel; got {self.first_band} and {self.last_band}."
            )
        if not 1 <= self.first_views <= self.last_views or self.coarse_views < 1:
            raise ParameterError(
                "views should grow from a positive number; got "
                f"{self.first_views}, {self.last_views} and {self.coarse_views} coarse ones."
            )

    @classmethod
    def of(
        cls,
        box_size: int,
        symmetry: str = "C1",
        iterations: int = 120,
        views: int = 1200,
        band: float | None = None,
        subpixel: bool = False,
    ) -> VolumePlan:
        """The plan of a box, with this number of views and this frequency limit in the end; None: the limit that suits the box."""
        return cls(
            box_size,
            symmetry,
            iterations,
            first_band=max(cls.first_band, _SHELLS / box_size),
            last_band=last_band(box_size) if band is None else band,
            first_views=min(cls.first_views, views),
            last_views=views,
            subpixel=subpixel,
        )

    def progress(self, iteration: int) -> float:
        """Progress of the marching: 0 at first, 1 once band and views are those of the end."""
        return min(1.0, iteration / max(1.0, self.marching * self.iterations))

    def band(self, iteration: int) -> float:
        """Frequency limit of an iteration, a whole number of shells."""
        first = min(self.first_band, self.last_band)
        wanted = first + (self.last_band - first) * self.progress(iteration)
        return min(0.5, max(1, round(wanted * self.box_size)) / self.box_size)

    def symmetry_at(self, iteration: int) -> str:
        """C1 until the symmetry is imposed."""
        return self.symmetry if iteration >= round(self.imposed * self.iterations) else "C1"

    def search(self, iteration: int) -> Search:
        """The views of an iteration, turned at random; with symmetry, those of the asymmetric unit."""
        symmetry = self.symmetry_at(iteration)
        views = round(self.first_views * (self.last_views / self.first_views) ** self.progress(iteration))
        band, coarse = self.band(iteration), self.coarse_views
        if symmetry != "C1":
            order = len(so3.group(symmetry))
            views, coarse = max(1, views // order), max(40, coarse // order)
        seed = self.drawn(iteration)
        every = Projections(self.box_size, views, symmetry, band).turned(seed)
        if views <= 2 * coarse:
            return Search(every, every if self.subpixel else None, self.subpixel)
        around = every.coarse(coarse, min(band, self.coarse_band)).turned(seed + 1)
        return Search(every, around, self.subpixel)

    def heat(self, iteration: int, start: float) -> float:
        """Temperature: from ``start`` geometrically to 1."""
        return Temperature(start, round(self.cooling * self.iterations)).at(iteration)

    def drawn(self, iteration: int) -> int:
        """Seed of the random draws of an iteration."""
        return int(np.random.SeedSequence([self.seed, iteration]).generate_state(1)[0])

    def early(self, iteration: int) -> bool:
        """Whether the iteration is in the first half, in which a start that fits badly may still recover."""
        return 2 * iteration < self.iterations

    @property
    def cooled(self) -> int:
        """The first iteration at temperature 1 whatever the start."""
        return max(1, round(self.cooling * self.iterations))

    def reads_all(self, iteration: int) -> bool:
        """Whether the iteration reads the whole measurement."""
        return iteration >= round((1.0 - self.whole) * self.iterations)


def last_band(box_size: int) -> float:
    """The frequency limit that suits a box: beyond it, interpolation of the views and whole-pixel corners lose more than the detail gains."""
    return float(np.interp(box_size, _BOXES, _BANDS))


def default_separation(box_size: int, diameter: float | None = None) -> int:
    """Smallest distance of two corners in pixels: that of touching copies, or three quarters of a box."""
    return max(1, round(0.75 * box_size)) if diameter is None else touching(diameter)
