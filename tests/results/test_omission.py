"""A part that poses and prior do not know comes back if the data hold it, and does not if they do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import mtdcore as mtd
from mtdcore.em.volumes.plan import VolumePlan
from mtdcore.em.volumes.recovery import VolumeRecovery
from mtdcore.errors import ParameterError
from mtdcore.model.volumes.grids import ball, moved, radii
from mtdcore.model.volumes.so3 import group
from mtdcore.results.volumes import halves_of, omission
from mtdcore.results.volumes.omission import omit_test, soft_parts
from mtdcore.synthetic.particles import VolumeSimulation, simulate_volume
from mtdcore.synthetic.volumes import chain

_SIDE = 12


@pytest.fixture(scope="module")
def made() -> VolumeSimulation:
    """Copies of a chain, well above the noise."""
    return simulate_volume(chain(_SIDE, 1), box_size=_SIDE, count=20, micrographs=4, snr=2.0, seed=0)


@pytest.fixture(scope="module")
def recovered(made: VolumeSimulation) -> VolumeRecovery:
    """A few iterations from the truth: where a run from a cold start ends, in less time."""
    plan = VolumePlan(
        _SIDE, iterations=3, first_band=0.4, last_band=0.4, first_views=600, cooling=0.0, whole=0.9
    )
    found: VolumeRecovery = mtd.recover_volume(
        made.pixels,
        box_size=_SIDE,
        noise_std=made.noise_std,
        plan=plan,
        initial=made.volume,
        expected_count=80.0,
        backend="cpu",
    )
    return found


def test_what_the_data_hold_comes_back(made: VolumeSimulation, recovered: VolumeRecovery) -> None:
    tests = list(omit_test(made.pixels, recovered, 4, "cpu"))
    assert [t.share for t in tests] == pytest.approx([0.25] * 4, abs=0.03)
    assert all(t.in_data for t in tests)
    assert all(0.9 < t.amplitude < 1.1 and 0.01 < t.error < 0.1 for t in tests)
    np.testing.assert_allclose(sum(t.part for t in tests), recovered.seen, atol=1e-9)


def test_noise_that_was_fitted_does_not_come_back_from_the_other_half(
    made: VolumeSimulation, recovered: VolumeRecovery
) -> None:
    """A volume without any prior holds noise where there is nothing: the data that it is of give it back."""
    first, second = halves_of(mtd.open_measurement(made.pixels))
    half = mtd.recover_volume(
        first,
        box_size=_SIDE,
        noise_std=made.noise_std,
        plan=recovered.plan,
        initial=made.volume,
        expected_count=80.0,
        backend="cpu",
    )
    found = half.statistics
    fitted = found.normal.solve(found.right, half.seen) * ball(_SIDE)
    best = replace(half.state.best, volume=fitted)
    claim = replace(half, state=replace(half.state, candidates=(best,)))
    nothing = (np.abs(made.volume) < 0.03 * made.volume.max()) & (ball(_SIDE) > 0)
    empty = gaussian_filter(nothing.astype(float), 0.4)[None]
    (own,), (other,) = (list(omit_test(data, claim, empty, "cpu")) for data in (first, second))
    assert own.amplitude > other.amplitude + 0.7
    assert not other.in_data


def test_of_many_copies_some_are_asked(
    made: VolumeSimulation, recovered: VolumeRecovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = omit_test(made.pixels, recovered, soft_parts(np.maximum(recovered.seen, 0), 4)[:1], "cpu")
    monkeypatch.setattr(omission, "_COPIES", 20)
    (quarter,) = omit_test(made.pixels, recovered, soft_parts(np.maximum(recovered.seen, 0), 4)[:1], "cpu")
    assert quarter.amplitude == pytest.approx(whole.amplitude, abs=0.15)
    assert 1.6 < quarter.error / whole.error < 2.6


def test_what_the_data_do_not_hold_does_not(made: VolumeSimulation, recovered: VolumeRecovery) -> None:
    """As a prior might have made it up: a ball where there is nothing, a third as bright as the brightest."""
    volume = recovered.seen
    around = gaussian_filter(np.abs(volume), 1.5)
    empty = np.unravel_index(np.argmin(np.where(radii(_SIDE) < 0.35 * _SIDE, around, np.inf)), volume.shape)
    distance = np.linalg.norm(np.indices(volume.shape) - np.reshape(empty, (3, 1, 1, 1)), axis=0)
    spot = np.exp(-((distance / 1.5) ** 2) / 2)
    forged = volume * (1 - spot) + 0.35 * volume.max() * spot
    best = replace(recovered.state.best, volume=forged)
    claim = replace(recovered, state=replace(recovered.state, candidates=(best,)))
    (test,) = omit_test(made.pixels, claim, spot[None], "cpu")
    assert test.amplitude < 0.3  # less than nothing, where a band limit rings
    assert not test.in_data
    # and what it hides behind does: the same weights, where there is something
    full = np.unravel_index(np.argmax(volume), volume.shape)
    there = np.roll(spot, np.subtract(full, empty), axis=(0, 1, 2))
    (other,) = omit_test(made.pixels, claim, there[None], "cpu")
    assert other.in_data


@pytest.mark.parametrize(("count", "symmetry"), [(2, "C1"), (5, "C1"), (3, "C4"), (4, "D2")])
def test_parts_share_the_density_and_have_its_symmetry(count: int, symmetry: str) -> None:
    rng = np.random.default_rng(0)
    blob = np.maximum(rng.normal(size=(16,) * 3), 0) * (radii(16) < 6)
    density = np.maximum(sum(moved(blob, g, order=1) for g in group(symmetry)), 0)
    parts = soft_parts(density, count, symmetry)
    np.testing.assert_allclose(parts.sum(axis=0), 1.0, atol=1e-12)
    assert (parts * density).sum(axis=(1, 2, 3)) / density.sum() == pytest.approx(
        [1 / count] * count, abs=0.05
    )
    inside = radii(16) < 6
    for part in parts:
        assert part.max() > 0.8
        for turn in group(symmetry):
            assert np.abs(moved(part, turn, order=1) - part)[inside].mean() < 0.05


def test_what_makes_no_sense_is_refused(made: VolumeSimulation, recovered: VolumeRecovery) -> None:
    with pytest.raises(ParameterError, match="at least 2 parts"):
        omit_test(made.pixels, recovered, 1, "cpu")
    with pytest.raises(ParameterError, match=r"of shape \(n, 12, 12, 12\)"):
        omit_test(made.pixels, recovered, np.ones((1, 8, 8, 8)), "cpu")
    blank = replace(recovered, statistics=replace(recovered.statistics, expected_count=0.1))
    with pytest.raises(ParameterError, match="found no copies"):
        omit_test(made.pixels, blank, 2, "cpu")
