"""Micrographs of one stack that differ in noise, number of copies and transfer."""

from dataclasses import replace

import numpy as np
import pytest

from mtdcore import (
    Micrographs,
    PatchLikelihood,
    Statistics,
    WindowLikelihood,
    e_step,
    get_backend,
    open_measurement,
    recover,
    relative_error,
    simulate,
)
from mtdcore._base.numerics.conjugate_gradients import conjugate_gradients
from mtdcore._base.numerics.fourier import radial_filter
from mtdcore.em.checkpoint import load_checkpoint, save_checkpoint
from mtdcore.errors import ParameterError
from mtdcore.estep.backends.library import HostArrays
from mtdcore.model.rotations import Rotations
from mtdcore.model.views import Classes
from mtdcore.testing import assert_same_bits, assert_same_statistics

EXACT = get_backend("cpu", precision="float64", threads=1)
REFERENCE = get_backend("reference")
LOW_PASS = np.array([[1.0, 0.8, 0.3], [0.2, 1.0, 0.9], [1.0, 1.0, 1.0]])

BOTH = pytest.mark.parametrize(
    "model",
    [PatchLikelihood(Rotations(4, 6), 0.8, 0.5), WindowLikelihood(Rotations(4, 6), 0.8, 9.0)],
    ids=["patch", "window"],
)


def pixels(seed=0):
    return np.random.default_rng(seed).normal(0.3, 1.0, size=(3, 25, 28))


def target():
    return np.random.default_rng(1).uniform(size=(6, 6))


@BOTH
def test_alike_micrographs_are_no_news(model):
    alike = replace(model, micrographs=Micrographs(np.full(3, 7.0), np.full(3, 2.0)))
    found, plain = (e_step(pixels(), target(), m, EXACT) for m in (alike, model))
    assert_same_statistics(replace(found, ledger=None), plain, 1e-12)
    assert plain.ledger is None
    assert found.ledger[:, 0].tolist() == [0, 1, 2]
    assert found.ledger[:, 1:3].sum(axis=0).tolist() == [plain.sites, plain.pixels]
    assert found.ledger[:, 3].sum() == pytest.approx(plain.residual_energy(target()))
    assert found.ledger[:, 4].sum() == pytest.approx(plain.expected_count)


@BOTH
def test_scaled_micrographs_say_the_same(model):
    """A micrograph in other units, through a transfer that undoes it, is the same micrograph."""
    gains = np.array([0.5, 1.0, 3.0])
    noise = model.noise_std * gains
    model = replace(model, micrographs=Micrographs(np.ones(3), transfer=np.ones((3, 2))))
    other = replace(
        model,
        noise_std=float(np.sqrt(np.mean(noise**2))),
        micrographs=Micrographs(noise, transfer=gains[:, None] * np.ones(2)),
    )
    plain = e_step(pixels(), target(), model, EXACT)
    found = e_step(gains[:, None, None] * pixels(), target(), other, EXACT)
    np.testing.assert_allclose(found.gradient(target()), plain.gradient(target()), rtol=1e-9, atol=1e-9)
    assert found.expected_count == pytest.approx(plain.expected_count)
    same_units = plain.residual_energy(target()) / model.noise_std**2
    assert found.residual_energy(target()) / other.noise_std**2 == pytest.approx(same_units)


@pytest.mark.parametrize("rotations", [3, 4])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("transfer", [None, LOW_PASS])
@pytest.mark.parametrize("classes", [None, (0.7, 0.3)])
def test_gradient_is_the_derivative_of_the_log_likelihood(rotations, masked, transfer, classes):
    data = pixels(2)
    if masked:
        data[0, 3, 4] = data[2, 11, 12] = np.nan
    facts = Micrographs([1.0, 0.7, 1.6], [1.0, 3.0, 2.0], transfer)
    model = WindowLikelihood(
        Rotations(rotations, 6) if classes is None else Classes(Rotations(rotations, 6), 2),
        0.8,
        6.0,
        min_separation=1,
        class_weights=classes,
        micrographs=facts,
    )
    image = np.random.default_rng(3).uniform(size=(6, 6) if classes is None else (2, 6, 6))
    gradient = e_step(data, image, model, EXACT).gradient(image)
    rng, step = np.random.default_rng(4), 1e-5
    for _ in range(3):
        direction = rng.normal(size=image.shape)
        up, down = (e_step(data, image + s * direction, model, EXACT).log_likelihood for s in (step, -step))
        assert (up - down) / (2 * step) == pytest.approx(np.vdot(gradient, direction), rel=1e-6)


def test_residual_is_exact_at_the_target_of_the_e_step():
    facts = Micrographs([1.0, 0.7, 1.6], transfer=LOW_PASS)
    found = e_step(pixels(), target(), WindowLikelihood(Rotations(4, 6), 0.8, 6.0, micrographs=facts), EXACT)
    expected = float(facts.noise_ratio**-2 @ found.ledger[:, 3])
    assert found.residual_energy(target()) == pytest.approx(expected)


@pytest.mark.parametrize("rotations", [3, 4])
@pytest.mark.parametrize("transfer", [None, LOW_PASS])
def test_margin_surrounds_the_same_box(transfer, rotations):
    """A margin changes neither gradient nor residual, at the target of the E-step or elsewhere, and adds a frame."""
    facts = Micrographs([1.0, 0.7, 1.6], transfer=transfer)
    bare, wide = (
        e_step(
            pixels(),
            target(),
            WindowLikelihood(Rotations(rotations, 6), 0.8, 6.0, margin=m, micrographs=facts),
            EXACT,
        )
        for m in (0, 2)
    )
    np.testing.assert_allclose(wide.ledger, bare.ledger, rtol=1e-9)
    other = np.random.default_rng(9).normal(size=(6, 6))
    for image in (target(), other):
        np.testing.assert_allclose(wide.gradient(image), bare.gradient(image), rtol=1e-9, atol=1e-9)
        assert wide.residual_energy(image) == pytest.approx(bare.residual_energy(image), rel=1e-9)
    assert wide.framed().right.shape == (10, 10)


@pytest.mark.parametrize("rotations", [3, 4])
def test_the_frame_is_what_plain_loops_find(rotations):
    """Statistics with a transfer and a margin: the slope of the framed target, summed pose by pose."""
    facts, m = Micrographs([1.0, 0.7, 1.6], transfer=LOW_PASS), 2
    model = WindowLikelihood(Rotations(rotations, 6), 0.8, 6.0, margin=m, micrographs=facts).bind((3, 25, 28))
    frame, around = np.pad(target(), m), Rotations(rotations, 10)
    slope = np.zeros((10, 10))
    for tile in open_measurement(pixels()).tiles(model.geometry):
        alone = model.of_micrograph(tile.micrograph)
        seen = alone.views.apply(target())
        weights = REFERENCE.posterior(tile, seen, alone)
        padded, there = np.pad(tile.values, m), np.pad(np.ones(tile.values.shape), m)
        top, left = (s.start for s in tile.owned)
        stack = np.zeros((rotations, 10, 10))
        for (k, i, j), w in np.ndenumerate(weights):
            cut = slice(top + i, top + i + 10), slice(left + j, left + j + 10)
            stack[k] += w * (padded[cut] - there[cut] * np.pad(seen[k], m))
        weight = 1.0 / facts.noise_ratio[tile.micrograph] ** 2
        slope += weight * around.adjoint(radial_filter(stack, LOW_PASS[tile.micrograph]))
    found = e_step(pixels(), target(), model, EXACT).framed()
    np.testing.assert_allclose(found.right - found.normal(frame), slope, rtol=1e-9, atol=1e-9)


def test_noisy_micrographs_count_less():
    """The average of known copies is weighed by the inverse variance."""
    image = 4.0 * target()
    sigma = np.array([0.2, 0.4, 2.0])
    rng = np.random.default_rng(5)
    data = sigma[:, None, None] * rng.normal(size=(3, 30, 30))
    for m in range(3):
        data[m, 10:16, 12:18] += image
    level = float(np.sqrt(np.mean(sigma**2)))
    model = WindowLikelihood(Rotations(1, 6), level, 3.0, micrographs=Micrographs(sigma))
    found = e_step(data, image, model, EXACT)
    cut = data[:, 10:16, 12:18]
    expected = np.average(cut, axis=0, weights=sigma**-2.0)
    np.testing.assert_allclose(found.normal.solve(found.right, image), expected, atol=1e-3)
    assert level / np.sqrt(found.normal.bound) == pytest.approx(np.sum(sigma**-2.0) ** -0.5, rel=1e-3)


def test_two_transfers_fill_each_others_gaps():
    """Noiseless copies through complementary filters: the least-squares image is the true one."""
    image = np.zeros((12, 12))
    image[3:9, 3:9] = 4.0 * target()
    transfer = np.array([[1.0, 0.1, 1.0], [0.1, 1.0, 0.1]])
    data = np.zeros((2, 40, 40))
    for m in range(2):
        data[m, 14:26, 11:23] = radial_filter(image[None], transfer[m])[0]
    facts = Micrographs(np.ones(2), transfer=transfer)
    found = e_step(data, image, WindowLikelihood(Rotations(1, 12), 0.05, 2.0, micrographs=facts), EXACT)
    blurred = radial_filter(image[None], np.array([1.0, 0.3]))[0]
    solved = blurred
    for _ in range(5):
        damping = 1e-2 * found.normal.bound
        solved = conjugate_gradients(found.normal, found.right, solved, damping=damping, max_steps=200)
    assert np.linalg.norm(solved - image) < 0.02 * np.linalg.norm(image)
    assert np.linalg.norm(blurred - image) > 0.1 * np.linalg.norm(image)


def test_executors_and_parts_change_no_bit(monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr("mtdcore.model.likelihood.window._TILE_PIXELS", 1)
    monkeypatch.setattr("mtdcore.estep.expectation.PART_TILES", 2)
    monkeypatch.setattr(HostArrays, "tiles_together", 2)
    facts = Micrographs([1.0, 0.7, 1.6], [1.0, 2.0, 3.0], LOW_PASS)
    model = WindowLikelihood(Rotations(4, 6), 0.8, 6.0, micrographs=facts)
    alone = e_step(pixels(), target(), model, EXACT)
    with ThreadPoolExecutor(3) as pool:
        shared = e_step(pixels(), target(), model, get_backend("cpu", "float64", threads=3), pool)
    assert_same_bits(shared, alone)
    np.testing.assert_array_equal(shared.ledger, alone.ledger)


def test_statistics_keep_what_tells_micrographs_apart(tmp_path):
    facts = Micrographs([1.0, 0.7, 1.6], transfer=LOW_PASS)
    found = e_step(pixels(), target(), WindowLikelihood(Rotations(4, 6), 0.8, 6.0, micrographs=facts), EXACT)
    found.save(tmp_path / "s.safetensors")
    loaded = Statistics.load(tmp_path / "s.safetensors")
    assert_same_bits(loaded, found)
    np.testing.assert_array_equal(loaded.ledger, found.ledger)
    twice = found + found
    np.testing.assert_array_equal(twice.ledger, found.scaled(2.0).ledger)
    np.testing.assert_array_equal(twice.normal.spectrum, 2 * found.normal.spectrum)


@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_filters_are_symmetric_and_turn_with_the_image(rotations):
    first, second = np.random.default_rng(6).normal(size=(2, 1, 7, 7))
    profile = LOW_PASS[0]
    turned = radial_filter(np.rot90(first, rotations, axes=(1, 2)), profile)
    np.testing.assert_allclose(
        turned, np.rot90(radial_filter(first, profile), rotations, axes=(1, 2)), atol=1e-12
    )
    left, right = (
        np.vdot(radial_filter(first, profile), second),
        np.vdot(first, radial_filter(second, profile)),
    )
    assert left == pytest.approx(right)
    np.testing.assert_allclose(radial_filter(first, np.ones(4)), first, atol=1e-12)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (lambda: Micrographs([1.0, -1.0]), r"noise should hold \(M,\) positive numbers for the M = 2"),
        (lambda: Micrographs([1.0, 1.0], [1.0]), "count should hold"),
        (lambda: Micrographs([1.0, 1.0], transfer=np.ones((2, 1))), r"transfer should hold \(M, R\)"),
        (lambda: Micrographs([]), "noise should hold"),
    ],
)
def test_facts_that_make_no_sense(facts, message):
    with pytest.raises(ParameterError, match=message):
        facts()


def test_facts_about_other_micrographs():
    model = WindowLikelihood(Rotations(4, 6), 0.8, 6.0, micrographs=Micrographs([1.0, 2.0]))
    with pytest.raises(ParameterError, match="has 3 micrographs, the facts about them are for 2"):
        e_step(pixels(), target(), model, EXACT)


@pytest.fixture(scope="module")
def unequal():
    """Four micrographs: quiet and noisy, crowded and empty."""
    image = 3.0 * target()
    sigma = np.array([0.5, 1.0, 1.5, 1.0])
    made = simulate(image, side=100, count=20, noise_std=1e-6, micrographs=4, separation=1, dtype="float64")
    data = made.measurement.array.copy()
    data[3] = 0.0
    data += sigma[:, None, None] * np.random.default_rng(70).normal(size=data.shape)
    return image, sigma, data


def run(data, image, **options):
    defaults = {"box_size": 6, "micrographs": "each", "initial": image, "backend": EXACT, "iterations": 15}
    return recover(data, **(defaults | options))


@pytest.mark.parametrize("likelihood", ["window", "patch"])
def test_noise_and_count_of_each_are_found(unequal, likelihood):
    image, sigma, data = unequal
    found = run(data, image, likelihood=likelihood)
    facts = found.likelihood.micrographs
    np.testing.assert_allclose(found.noise_std * facts.noise_ratio, sigma, rtol=0.04)
    if likelihood == "window":
        counts = found.likelihood.expected_count * facts.count_share
        np.testing.assert_allclose(counts[:3], 20, atol=3)
        assert counts[3] < 2
        alike = run(data, image, micrographs=None)
        errors = [relative_error(r.target, image) for r in (found, alike)]
        assert errors[0] < errors[1]


def test_the_count_of_a_micrograph_is_a_posterior_mean():
    """n copies seen, with an exponential prior on what was to be expected: ``(n + 1) / (1 + 1 / mean)``."""
    alike = WindowLikelihood(Rotations(4, 6), 0.8, 9.0, micrographs=Micrographs(np.ones(3), [1.0, 2.0, 3.0]))
    found = e_step(pixels(), target(), alike, EXACT)
    corners, ledger = found.ledger[0, 1], found.ledger.copy()
    ledger[:, 4], ledger[2, 1] = (0.0, 3.0, 2.0), corners / 2  # of the last, half was seen
    told = replace(found, ledger=ledger, expected_count=12.0)
    counts = alike.updated(told, None, 0.0, corners, early=False).micrographs.count
    np.testing.assert_allclose(counts, (np.array([0.0, 3.0, 4.0]) + 1) / (1 + 1 / 4))
    part = replace(told, ledger=ledger[:2])  # a mini-batch without the last, which keeps its share
    kept = alike.updated(part, None, 0.0, corners, early=False).micrographs.count
    np.testing.assert_allclose(kept, [0.8, 3.2, 12.0 * 3 / 6])


def test_a_known_noise_level_stays(unequal):
    image, sigma, data = unequal
    level = float(np.sqrt(np.mean(sigma**2)))
    found = run(data, image, noise_std=level, micrographs=Micrographs(sigma), iterations=3)
    np.testing.assert_allclose(found.noise_std * found.likelihood.micrographs.noise_ratio, sigma)


def test_a_run_goes_on_with_the_same_bits(unequal, tmp_path):
    image, _, data = unequal
    facts = Micrographs(np.ones(4), transfer=np.linspace(1.0, 0.7, 12).reshape(4, 3))
    states = []
    options = {"micrographs": facts, "iterations": 6, "tolerance": 0.0}
    whole = run(data, image, callback=states.append, **options)
    save_checkpoint(tmp_path / "c", states[2], {})
    again = run(data, image, state=load_checkpoint(tmp_path / "c", {}), **options)
    np.testing.assert_array_equal(again.target, whole.target)
    np.testing.assert_array_equal(again.likelihood.micrographs.noise, whole.likelihood.micrographs.noise)
    np.testing.assert_array_equal(again.likelihood.micrographs.transfer, facts.transfer)
    assert_same_bits(again.statistics, whole.statistics)
