"""A step of another M-step, projected on the allowed targets."""

from __future__ import annotations

from dataclasses import dataclass

from .updates import Frame, Random, Update


@dataclass(frozen=True)
class Projected:
    """Base of a projected step, with the properties of the projected M-step.

    Attributes:
        update: the M-step.
    """

    update: Update

    @property
    def uses_prior(self) -> bool:
        """See :class:`Update`."""
        return self.update.uses_prior

    @property
    def fits_scale(self) -> bool:
        """See :class:`Update`."""
        return self.update.fits_scale

    @property
    def gauge(self) -> Frame:
        """See :class:`Update`."""
        return self.update.gauge

    @property
    def start(self) -> Random:
        """See :class:`Update`."""
        return self.update.start

    @property
    def learns_offset(self) -> bool:
        """See :class:`Update`."""
        return self.update.learns_offset
