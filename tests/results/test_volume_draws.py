"""Draws of volumes: the covariance of a chain against the exact one, the frame that is left out, the powers, and a run."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.em.volumes.plan import VolumePlan
from mtdcore.em.volumes.recovery import VolumeRecovery
from mtdcore.errors import CheckpointError, InputError, ParameterError
from mtdcore.model.priors import GaussianPrior
from mtdcore.model.volumes.grids import ball, filtered, low_passed, moved, shells
from mtdcore.model.volumes.projections import Projections
from mtdcore.model.volumes.so3 import from_euler
from mtdcore.mstep.envelope import EnvelopePrior
from mtdcore.results.volumes import VolumeDraws, langevin, posterior_volumes
from mtdcore.results.volumes.draws import DrawsState, load_draws, save_draws
from mtdcore.results.volumes.langevin import Smoothed, frame_of, walk
from mtdcore.synthetic.particles import VolumeSimulation, simulate_volume
from mtdcore.synthetic.volumes import chain

_TOY, _SIDE = 5, 12


@pytest.mark.parametrize("doubt", [0.0, 0.7])
def test_the_chain_spreads_as_the_data_do_with_poses_and_all(
    doubt: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E-steps whose poses keep the share ``doubt`` of any error: a Gaussian posterior that is known."""
    monkeypatch.setattr(langevin, "frame_of", lambda *_: np.zeros((0, _TOY**3)))
    rng = np.random.default_rng(0)
    normal = Projections(_TOY, 60, band=0.4).normal(np.full(60, 0.2))
    told, mean = rng.normal(size=(2, _TOY, _TOY, _TOY))
    sigma, spread, level = 0.8, 1.5, 0.6

    def e_step(volume: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(right=normal(doubt * volume + (1 - doubt) * told), normal=normal)

    size = _TOY**3
    dense = np.array([normal(one.reshape(told.shape)).ravel() for one in np.eye(size)])
    data, width = (1 - doubt) * dense / sigma**2, spread**2 + level**2
    covariance = np.linalg.inv(data + np.eye(size) / width)
    middle = covariance @ (data @ told.ravel() + mean.ravel() / width)
    density = Smoothed(GaussianPrior(mean, spread), sigma, level)
    steps = walk(e_step, density, middle.reshape(told.shape), rng)  # type: ignore[arg-type]
    found = np.array([volume.ravel() for volume, _ in islice(steps, 700)][60:])
    values, vectors = np.linalg.eigh(covariance)
    along = (found - middle) @ vectors
    assert np.sqrt(np.mean(along.mean(axis=0) ** 2 / values)) < 0.2
    ratio = along.var(axis=0) / values
    assert ratio.mean() == pytest.approx(1.0, abs=0.04)
    for part in np.array_split(ratio, 5):  # from what the data tell best to what they do not
        assert part.mean() == pytest.approx(1.0, abs=0.08)
    if doubt:  # as if the poses were known, it would be well below
        best = vectors[:, :30]
        known = best.T @ np.linalg.inv(dense / sigma**2 + np.eye(size) / width) @ best
        assert along.var(axis=0)[:30].sum() > 1.5 * np.trace(known)


def test_powers_are_drawn_as_those_of_the_volume_may_be() -> None:
    rng = np.random.default_rng(1)
    side, power = 11, 5.0 * 0.8 ** np.arange(20)
    flat = EnvelopePrior(ball(side), power[: shells(side).max() + 1], 5)
    factor = filtered(rng.standard_normal((side,) * 3), np.sqrt(flat.power))
    drawn = np.array([flat.drawn(factor, rng).power for _ in range(400)])
    ratio = drawn[:, :6] / flat.power[:6]
    counts = np.bincount(shells(side).ravel())[2:6]
    np.testing.assert_allclose(ratio.mean(axis=0)[2:], 1.0, atol=0.4)
    assert np.all(np.diff(ratio.std(axis=0)[2:]) < 0)  # shells of more numbers say more of their power
    assert ratio.std(axis=0)[5] == pytest.approx(np.sqrt(1.0 / counts[-1]), rel=0.6)
    assert np.all(drawn[:, 0] == drawn[:, 1])
    same = np.mean([np.rot90(factor, k, axes=(1, 2)) for k in range(4)], axis=0)
    fourfold = np.mean([flat.drawn(same, rng, 4).power for _ in range(400)], axis=0)
    np.testing.assert_allclose(fourfold[2:6] / flat.power[2:6], 1.0, atol=0.6)


def test_the_frame_holds_turns_and_shifts() -> None:
    volume = chain(_SIDE, 1).volume(_SIDE) * ball(_SIDE)
    free = frame_of(volume, lambda v: v)
    np.testing.assert_allclose(free @ free.T, np.eye(6), atol=1e-9)
    small = from_euler(np.array([[1.0, 2.0, -1.0]]))[0]
    change = (moved(volume, small, (0.05, -0.1, 0.05)) - volume).ravel()
    assert np.linalg.norm(free @ change) > 0.95 * np.linalg.norm(change)
    views = Projections(_SIDE, 8, "C3")
    assert len(frame_of(views.symmetrised(volume), views.symmetrised)) == 2  # about the axis, and along it


def test_independent_draws_count_once_and_alike_ones_less() -> None:
    rng, support = np.random.default_rng(2), np.ones((4, 4, 4))
    white = rng.standard_normal((400, 4, 4, 4))
    assert VolumeDraws(white, support=support).effective == pytest.approx(400, rel=0.1)
    slow = [white[0]]
    for one in white[1:]:
        slow.append(0.8 * slow[-1] + 0.6 * one)
    assert VolumeDraws(np.array(slow), support=support).effective == pytest.approx(400 / 9, rel=0.4)
    half = np.where(np.arange(4) < 2, 100.0, 0.0)
    assert VolumeDraws(white + half, support=support).clear == pytest.approx(0.5)


@pytest.fixture(scope="module")
def made() -> VolumeSimulation:
    """Copies of a chain that leave their poses in some doubt."""
    return simulate_volume(chain(_SIDE, 1), box_size=_SIDE, count=16, micrographs=2, snr=1.0, seed=0)


@pytest.fixture(scope="module")
def recovered(made: VolumeSimulation) -> VolumeRecovery:
    """A few iterations from the truth: where a run from a cold start ends, in less time."""
    plan = VolumePlan(
        _SIDE, iterations=3, first_band=0.4, last_band=0.4, first_views=300, cooling=0.0, whole=0.9
    )
    found: VolumeRecovery = mtd.recover_volume(
        made.pixels,
        box_size=_SIDE,
        noise_std=made.noise_std,
        plan=replace(plan, last_views=300),
        initial=made.volume,
        expected_count=32.0,
        backend="cpu",
    )
    return found


@pytest.fixture(scope="module")
def drawn(made: VolumeSimulation, recovered: VolumeRecovery) -> VolumeDraws:
    return posterior_volumes(made.pixels, recovered, 20, backend="cpu")


def test_draws_lie_around_the_volume_and_near_the_truth(
    made: VolumeSimulation, recovered: VolumeRecovery, drawn: VolumeDraws
) -> None:
    assert drawn.images.shape == (20, _SIDE, _SIDE, _SIDE)
    assert drawn.images.dtype == np.float64
    inside = drawn.support > 0.5
    assert np.all(drawn.std[inside] > 0)
    assert np.all(drawn.std[drawn.support == 0] == 0)
    np.testing.assert_allclose(
        low_passed(drawn.images[3], 0.4)[inside], drawn.images[3][inside], atol=0.15 * drawn.std.max()
    )
    truth = low_passed(made.volume, 0.4)
    away = np.abs(drawn.mean - truth)[inside] / drawn.std[inside]
    assert np.median(away) < 1.5
    low, high = drawn.interval(0.9)
    assert np.mean(((low <= truth) & (truth <= high))[inside]) > 0.75
    assert 2 < drawn.effective <= 20
    assert 0.05 < drawn.clear < 0.95
    # no turn and no shift is in any of them
    free = frame_of(recovered.seen, lambda v: v)
    away = (drawn.images - recovered.seen).reshape(20, -1)
    share = np.linalg.norm(away @ free.T) / np.linalg.norm(away)
    assert share < 0.05


def test_poses_that_are_held_make_it_too_sure(
    made: VolumeSimulation, recovered: VolumeRecovery, drawn: VolumeDraws
) -> None:
    held = posterior_volumes(made.pixels, recovered, 20, poses="held", backend="cpu")
    inside = drawn.support > 0.5
    assert np.mean(held.std[inside] ** 2) < 0.8 * np.mean(drawn.std[inside] ** 2)


def test_a_learned_prior_that_knows_makes_it_surer(
    made: VolumeSimulation, recovered: VolumeRecovery, drawn: VolumeDraws
) -> None:
    """And the same seed the same draws."""
    prior, done = GaussianPrior(made.volume, 0.05 * made.volume.max()), []
    sure, again = (
        posterior_volumes(
            made.pixels, recovered, 4, prior=prior, backend="cpu", callback=lambda s: done.append(s.iteration)
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(sure.images, again.images)
    assert done == [*range(1, 29)] * 2
    vague = posterior_volumes(
        made.pixels, recovered, 4, prior=GaussianPrior(0.0, made.volume.max()), backend="cpu"
    )
    inside = drawn.support > 0.5
    assert np.mean(sure.std[inside]) < 0.8 * np.mean(vague.std[inside])


@pytest.mark.parametrize("learned", [False, True])
def test_a_chain_goes_on_from_any_step_with_the_same_bits(
    made: VolumeSimulation, recovered: VolumeRecovery, learned: bool, tmp_path: Path
) -> None:
    prior = GaussianPrior(made.volume, 0.05 * made.volume.max()) if learned else None
    states: list[DrawsState] = []
    shared = {"prior": prior, "backend": "cpu"}
    whole = posterior_volumes(made.pixels, recovered, 3, callback=states.append, **shared)
    assert [len(state.images) for state in states[19::2]] == [0, 1, 2, 3]
    for at in (2, 22, 25):
        save_draws(tmp_path / "c.safetensors", states[at], {"seed": 0})
        left = load_draws(tmp_path / "c.safetensors", {"seed": 0})
        rest = posterior_volumes(made.pixels, recovered, 3, state=left, **shared)
        np.testing.assert_array_equal(rest.images, whole.images)
        assert rest.state is not None
        assert rest.state.iteration == 26
    with pytest.raises(CheckpointError, match="seed"):
        load_draws(tmp_path / "c.safetensors", {"seed": 1})
    fewer = posterior_volumes(made.pixels, recovered, 2, state=whole.state, **shared)
    np.testing.assert_array_equal(fewer.images, whole.images[:2])


def test_a_symmetric_volume_has_symmetric_draws(made: VolumeSimulation) -> None:
    views = Projections(_SIDE, 40, "C2")
    volume = views.symmetrised(chain(_SIDE, 1).volume(_SIDE) * ball(_SIDE))
    twice = simulate_volume(volume, box_size=_SIDE, count=8, micrographs=2, snr=2.0, seed=1)
    plan = VolumePlan(
        _SIDE, "C2", iterations=2, first_band=0.4, last_band=0.4, first_views=200, last_views=200, cooling=0.0
    )
    found = mtd.recover_volume(
        twice.pixels,
        box_size=_SIDE,
        noise_std=twice.noise_std,
        plan=replace(plan, imposed=0.0, whole=1.0),
        initial=volume,
        backend="cpu",
    )
    draws = posterior_volumes(twice.pixels, found, 2, backend="cpu")
    for one in draws.images - draws.mean:
        turned = moved(one, views.partners[1])
        inside = ball(_SIDE, _SIDE - 3) > 0.5
        assert np.linalg.norm((turned - one)[inside]) < 0.25 * np.linalg.norm(one[inside])


def test_what_makes_no_sense_is_refused(made: VolumeSimulation, recovered: VolumeRecovery) -> None:
    with pytest.raises(ParameterError, match="at least 2 draws"):
        posterior_volumes(made.pixels, recovered, 1)
    blank = replace(recovered, statistics=replace(recovered.statistics, expected_count=0.1))
    with pytest.raises(InputError, match="draws need copies"):
        posterior_volumes(made.pixels, blank, 4)
