"""Poses of the templates of views: class, hand, angle and sub-pixel offset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, cast

import numpy as np

from .rotations import Rotations
from .shifts import Shifted
from .symmetry import Mirrored
from .views import Classes, Composed, Views


@dataclass(frozen=True, eq=False)
class Poses:
    """The pose of each of T templates.

    Attributes:
        class_index: (T,) int64 index of the target.
        mirrored: (T,) bool, whether the template shows the mirror image of the target.
        rotation: (T,) int64 index of the in-plane rotation, or of the view where views are no in-plane rotations.
        offset: (T, 2) float64, (down, right) in pixels from the corner of the box.
        rotations: number of angles in a full turn, or of views of one target.
    """

    class_index: np.ndarray
    mirrored: np.ndarray
    rotation: np.ndarray
    offset: np.ndarray
    rotations: int

    @classmethod
    def of(cls, views: Views) -> Self:
        """The poses of views and their compositions."""
        if isinstance(views, Classes):
            one = cls.of(views.views)._repeated(views.number)
            return replace(one, class_index=np.repeat(np.arange(views.number), views.views.count))
        if isinstance(views, Mirrored):
            one = cls.of(views.views)._repeated(2)
            return replace(one, mirrored=np.repeat([False, True], views.views.count))
        if isinstance(views, Shifted):
            one, offsets = cls.of(views.views), views.offsets
            each = np.repeat(np.arange(views.views.count), len(offsets))
            return replace(one.where(each), offset=np.tile(offsets, (views.views.count, 1)))
        if isinstance(views, Composed):
            return cls.of(views.views)
        count = views.count
        return cls(
            np.zeros(count, np.int64),
            np.zeros(count, bool),
            np.arange(count),
            np.zeros((count, 2)),
            views.around if isinstance(views, Rotations) else count,
        )

    @property
    def whole(self) -> np.ndarray:
        """(t,) int64 indices of the templates on whole pixels: the templates of :func:`on_whole_pixels`, in the same order."""
        return np.flatnonzero((self.offset == 0.0).all(axis=1))

    def where(self, chosen: np.ndarray) -> Self:
        """The poses of some templates."""
        return replace(
            self,
            class_index=self.class_index[chosen],
            mirrored=self.mirrored[chosen],
            rotation=self.rotation[chosen],
            offset=self.offset[chosen],
        )

    def _repeated(self, times: int) -> Self:
        return self.where(np.tile(np.arange(len(self.rotation)), times))


def on_whole_pixels(views: Views) -> Views:
    """The same views without sub-pixel shifts; themselves where they have none."""
    if isinstance(views, Shifted):
        return on_whole_pixels(views.views)
    if isinstance(views, Composed):
        inner = on_whole_pixels(views.views)
        return views if inner is views.views else cast(Views, replace(views, views=inner))
    return views


def may_be_mirrored(views: Views) -> bool:
    """Whether some of the templates show the mirror image of their target."""
    if isinstance(views, Mirrored):
        return True
    return isinstance(views, Composed | Classes) and may_be_mirrored(views.views)
