"""The E-step of volumes against the written definition, with masks, local search, parts and executors."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from mtdcore.data import open_measurement
from mtdcore.errors import ParameterError
from mtdcore.estep.backends import get_backend
from mtdcore.estep.backends.array.backend import ArrayBackend
from mtdcore.estep.volumes import expectation
from mtdcore.estep.volumes.expectation import volume_cut, volume_e_step, with_views
from mtdcore.estep.volumes.posterior import Posteriors
from mtdcore.estep.volumes.residual import left_over
from mtdcore.estep.volumes.templates import HALVES, Search, Templates
from mtdcore.model.filters.optics import Micrographs
from mtdcore.model.likelihood import WindowLikelihood
from mtdcore.model.shifts import moved
from mtdcore.model.volumes import so3
from mtdcore.model.volumes.projections import Projections
from mtdcore.synthetic.placement import random_corners
from mtdcore.synthetic.volumes import chain

SIDE, SIGMA = 9, 0.25


def micrographs(copies=6, side=46, count=2, seed=0):
    rng = np.random.default_rng(seed)
    pixels = SIGMA * rng.standard_normal((count, side, side))
    images = chain(SIDE).projections(so3.random_rotations(copies * count, rng), SIDE)
    for m in range(count):
        corners = random_corners(rng, copies, (side - SIDE + 1, side - SIDE + 1), SIDE)
        for image, (row, column) in zip(images[m * copies :], corners, strict=False):
            pixels[m, row : row + SIDE, column : column + SIDE] += image
    return pixels.astype(np.float32)


def likelihood(views, separation=7):
    return with_views(WindowLikelihood(Projections(SIDE, 1), SIGMA, 12.0, separation), views)


def test_it_is_the_window_model_of_the_reference():
    views, source = (
        Projections(SIDE, 30, band=0.42),
        open_measurement(micrographs(side=30, copies=3, count=1)),
    )
    volume = chain(SIDE).volume(SIDE)
    found = volume_e_step(source, volume, likelihood(views), Search(views))
    model = likelihood(views).bind(source.shape)
    wanted = get_backend("reference").accumulate(source.tiles(volume_cut(model)), views.apply(volume), model)
    right = views.adjoint(wanted.backprojection)
    assert np.linalg.norm(found.right - right) < 5e-3 * np.linalg.norm(right)
    assert found.log_likelihood == pytest.approx(wanted.log_likelihood, rel=1e-3)
    assert found.expected_count == pytest.approx(wanted.expected_count, rel=5e-3)
    assert (found.energy, found.pixels, found.sites) == (
        pytest.approx(wanted.energy),
        wanted.pixels,
        wanted.sites,
    )
    copies = views.normal(wanted.coverage.mean(axis=(1, 2)))
    np.testing.assert_allclose(found.normal.spectrum, copies.spectrum, atol=0.01 * copies.bound)
    assert found.residual_energy(0.0 * volume) == found.energy
    assert found.residual_energy(volume) < 0.9 * found.energy


def filtered_in_the_box(images, transfer):
    """Images through a radial filter, the box taken as periodic."""
    f = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    factors = np.interp(f, np.linspace(0.0, 0.5, len(transfer)), transfer)
    return np.fft.irfft2(np.fft.rfft2(images) * factors, s=(SIDE, SIDE))


def test_each_micrograph_shows_the_volume_through_its_transfer():
    """Against the reference, which scores the templates of each micrograph alone."""
    views = Projections(SIDE, 30, band=0.42)
    pixels, volume = micrographs(side=30, copies=3), chain(SIDE).volume(SIDE)
    transfer = np.array([np.linspace(1.0, 0.3, 65), np.cos(np.linspace(0.0, 4.0, 65)) ** 2])
    model = replace(likelihood(views), micrographs=Micrographs(np.ones(2), transfer=transfer))
    found = volume_e_step(open_measurement(pixels), volume, model, Search(views))
    right, seen, evidence, bright = 0.0, 0.0, 0.0, 0.0
    for m in range(2):
        source = open_measurement(pixels[m : m + 1])
        alone = replace(likelihood(views), expected_count=6.0).bind(source.shape)
        templates = filtered_in_the_box(views.apply(volume), transfer[m])
        wanted = get_backend("reference").accumulate(source.tiles(volume_cut(alone)), templates, alone)
        right = right + views.adjoint(filtered_in_the_box(wanted.backprojection, transfer[m]))
        copies = wanted.coverage.mean(axis=(1, 2))
        seen += float(copies @ np.square(templates).sum(axis=(1, 2)))
        evidence += wanted.log_likelihood
        bright += transfer[m, 0] * wanted.expected_count
    assert np.linalg.norm(found.right - right) < 5e-3 * np.linalg.norm(right)
    assert np.vdot(volume, found.normal(volume)) == pytest.approx(seen, rel=5e-3)
    assert found.log_likelihood == pytest.approx(evidence, rel=1e-3)
    assert found.bright == pytest.approx(bright, rel=5e-3)


#: Of two micrographs, mean square 1.
RATIOS = np.array([0.6, np.sqrt(2.0 - 0.36)])


def unlike(transfer=None, count=(1.0, 3.0)):
    """Micrographs of other noise and other shares of the copies, their pixels, and the model that knows."""
    pixels = micrographs(side=30, copies=3)
    pixels[1] += SIGMA * np.sqrt(RATIOS[1] ** 2 - 1.0) * np.random.default_rng(5).standard_normal((30, 30))
    facts = Micrographs(RATIOS, np.array(count), transfer)
    return pixels, facts


TRANSFER = np.array([np.linspace(1.0, 0.3, 65), np.cos(np.linspace(0.0, 4.0, 65)) ** 2])


@pytest.mark.parametrize("spread", [0.0, 0.4])
@pytest.mark.parametrize("transfer", [None, TRANSFER], ids=["open", "through a transfer"])
def test_other_noise_is_a_smaller_transfer_of_smaller_pixels(transfer, spread):
    """Divided by its noise, a micrograph has that of all, and shows the volume as much fainter."""
    exact = get_backend("cpu", precision="float64")
    views, volume = Projections(SIDE, 300, band=0.42), chain(SIDE).volume(SIDE)
    search, (pixels, facts) = Search(views, views.coarse(60, 0.3)), unlike(transfer, (1.0, 1.0))
    model = replace(likelihood(views), micrographs=facts, amplitude_std=spread)
    found = volume_e_step(open_measurement(pixels.astype(np.float64)), volume, model, search, exact)
    flat = np.ones((2, 65)) if transfer is None else transfer
    fainter = Micrographs(np.ones(2), transfer=flat / RATIOS[:, None])
    scaled = pixels.astype(np.float64) / RATIOS[:, None, None]
    wanted = volume_e_step(
        open_measurement(scaled), volume, replace(model, micrographs=fainter), search, exact
    )
    assert found.local == wanted.local
    np.testing.assert_allclose(found.right, wanted.right, atol=1e-9 * np.abs(wanted.right).max())
    spectrum = wanted.normal.spectrum
    np.testing.assert_allclose(found.normal.spectrum, spectrum, atol=1e-9 * spectrum.max())
    for name in (
        "log_likelihood",
        "energy",
        "expected_count",
        "amplitude_sum",
        "amplitude_squares",
    ):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-9), name
    # the constant of a micrograph is seen through its noise as everything in it
    assert found.total == pytest.approx((pixels.sum(axis=(1, 2)) / RATIOS**2).sum(), rel=1e-5)
    assert found.weighed_pixels == pytest.approx((900 / RATIOS**2).sum())
    if not spread:
        copies = found.ledger[:, 4] / RATIOS**2
        assert found.bright == pytest.approx(float(copies @ flat[:, 0]), rel=1e-9)
    np.testing.assert_allclose(found.ledger[:, 3] / RATIOS**2, wanted.ledger[:, 3], rtol=1e-9)
    np.testing.assert_allclose(found.ledger[:, [0, 1, 2, 4]], wanted.ledger[:, [0, 1, 2, 4]], rtol=1e-9)


@pytest.mark.parametrize("transfer", [None, TRANSFER], ids=["open", "through a transfer"])
def test_micrographs_of_other_noise_and_counts_are_the_window_model_of_each(transfer):
    """Against the reference, which scores each micrograph alone, at its own noise level and count."""
    views, volume = Projections(SIDE, 30, band=0.42), chain(SIDE).volume(SIDE)
    pixels, facts = unlike(transfer)
    model = replace(likelihood(views), micrographs=facts)
    found = volume_e_step(open_measurement(pixels), volume, model, Search(views))
    right, seen, energy, evidence, count = 0.0, 0.0, 0.0, 0.0, 0.0
    for m in range(2):
        source = open_measurement(pixels[m : m + 1])
        alone = replace(
            likelihood(views), noise_std=SIGMA * RATIOS[m], expected_count=12.0 * facts.count_share[m]
        ).bind(source.shape)
        through = np.ones(65) if transfer is None else transfer[m]
        templates = filtered_in_the_box(views.apply(volume), through)
        wanted = get_backend("reference").accumulate(source.tiles(volume_cut(alone)), templates, alone)
        weight, sums = RATIOS[m] ** -2, wanted.backprojection
        right = right + weight * views.adjoint(filtered_in_the_box(sums, through))
        copies = wanted.coverage.mean(axis=(1, 2))
        shown = float(copies @ np.square(templates).sum(axis=(1, 2)))
        seen, energy = seen + weight * shown, energy + weight * wanted.energy
        evidence, count = evidence + wanted.log_likelihood, count + wanted.expected_count
        left = wanted.energy - 2.0 * float(np.vdot(sums, templates)) + shown
        expected = [m, wanted.sites, wanted.pixels, left, wanted.expected_count]
        np.testing.assert_allclose(found.ledger[m], expected, rtol=5e-3)
    assert np.linalg.norm(found.right - right) < 5e-3 * np.linalg.norm(right)
    assert np.vdot(volume, found.normal(volume)) == pytest.approx(seen, rel=5e-3)
    assert found.energy == pytest.approx(energy)
    assert found.log_likelihood == pytest.approx(evidence, rel=1e-3)
    assert found.expected_count == pytest.approx(count, rel=5e-3)
    # the residual of the ledger is that of the statistics
    both = float((found.ledger[:, 3] / RATIOS**2).sum())
    assert found.residual_energy(volume) == pytest.approx(both, rel=1e-2)


@pytest.mark.parametrize("transfer", [None, TRANSFER], ids=["open", "through a transfer"])
def test_parts_of_unlike_micrographs_add_and_executors_change_no_bit(monkeypatch, transfer):
    monkeypatch.setattr(expectation, "_TILE_PIXELS", 0)
    views, volume = Projections(SIDE, 40, band=0.42), chain(SIDE).volume(SIDE)
    pixels, facts = unlike(transfer)
    source, model = open_measurement(pixels), replace(likelihood(views), micrographs=facts)
    whole = volume_e_step(source, volume, model, Search(views))
    with ThreadPoolExecutor(2) as pool:
        elsewhere = volume_e_step(source, volume, model, Search(views), executor=pool)
    np.testing.assert_array_equal(elsewhere.right, whole.right)
    np.testing.assert_array_equal(elsewhere.ledger, whole.ledger)
    parts = [volume_e_step(part, volume, model, Search(views)) for part in source.split(3)]
    both = parts[0] + (parts[1] + parts[2])
    np.testing.assert_allclose(both.right, whole.right, atol=1e-9 * np.abs(whole.right).max())
    np.testing.assert_allclose(both.ledger, whole.ledger, rtol=1e-9)
    assert both.weighed_pixels == pytest.approx(whole.weighed_pixels)
    assert both.energy == pytest.approx(whole.energy)
    np.testing.assert_array_equal(whole.ledger[:, 0], [0, 1])


def test_local_search_changes_next_to_nothing():
    views = Projections(SIDE, 300, band=0.42)
    coarse = views.coarse(60, 0.3)
    source, volume = open_measurement(micrographs(side=90, count=2)), chain(SIDE).volume(SIDE)
    full = volume_e_step(source, volume, likelihood(views), Search(views))
    local = volume_e_step(source, volume, likelihood(views), Search(views, coarse))
    assert (full.local, local.local) == (0, local.sites)
    assert np.linalg.norm(local.right - full.right) < 0.02 * np.linalg.norm(full.right)
    assert local.log_likelihood == pytest.approx(full.log_likelihood, rel=0.02)
    # A volume like no copy: the coarse posterior is not sharp, and every view is scored everywhere.
    blank = volume_e_step(source, 0.02 * volume, likelihood(views), Search(views, coarse))
    assert blank.local == 0


def test_places_between_pixels_are_the_views_at_each_offset():
    """Against the same E-step over the templates at every half pixel, four times as many views, which are scored at every corner."""
    views, volume = Projections(SIDE, 200, band=0.42), chain(SIDE).volume(SIDE)
    exact, source = get_backend("cpu", precision="float64"), open_measurement(micrographs(side=60))
    search = Search(views, views.coarse(60, 0.3), subpixel=True)
    found = volume_e_step(source, volume, likelihood(views), search, exact)
    assert found.local == found.sites
    fine = Templates.of(views, volume)
    turns = [fine.basis.between(offset) for offset in HALVES]
    each = [own * fine.coefficients + its * fine.coefficients[:, other] for own, its, other in turns]
    bound = likelihood(views).bind(source.shape)
    every = Posteriors(bound, [Templates(fine.basis, np.concatenate(each))], exact)
    wanted = every.nothing()
    for tile in source.tiles(volume_cut(bound)):
        wanted = wanted + every(tile).sums()
    back = []
    for (down, right), wide in zip(HALVES, np.split(wanted.wide, len(HALVES)), strict=True):
        own, its, other = fine.basis.between((-down, -right))
        back.append(own * wide + its * wide[:, other])
    right = views.adjoint(fine.basis.images(sum(back)))
    assert np.linalg.norm(found.right - right) < 0.02 * np.linalg.norm(right)
    copies = views.normal(sum(np.split(wanted.copies, len(HALVES))))
    np.testing.assert_allclose(found.normal.spectrum, copies.spectrum, atol=0.02 * copies.bound)
    # beside a place, corners are worth what the coarse views say
    assert found.log_likelihood == pytest.approx(wanted.numbers[0], rel=0.03)
    assert found.expected_count == pytest.approx(wanted.numbers[2], rel=0.01)


def test_copies_between_pixels_are_explained_where_they_lie():
    views, volume = Projections(SIDE, 200, band=0.42), chain(SIDE).volume(SIDE)
    image = moved(views.apply(volume)[:1], np.array([[0.5, 0.5]]))[0]
    pixels = 0.05 * np.random.default_rng(0).standard_normal((1, 40, 40))
    pixels[0, 12 : 12 + SIDE, 17 : 17 + SIDE] += image
    left = {}
    for subpixel in (False, True):
        search, model = Search(views, views.coarse(60, 0.3), subpixel), likelihood(views)
        model = replace(model, noise_std=0.05, expected_count=1.0)
        rest = left_over(open_measurement(pixels), volume, model, search, 4, get_backend("cpu"))
        left[subpixel] = sum(float(np.square(one[valid]).sum()) for one, valid in rest)
    noise = 0.05**2 * 40 * 40
    assert left[True] < 1.2 * noise < 0.8 * left[False]


def test_copies_under_a_mask_are_left_out():
    views, pixels = Projections(SIDE, 40, band=0.42), micrographs()
    volume = chain(SIDE).volume(SIDE)
    masked = pixels.copy()
    masked[1] = np.nan
    masked[0, 40:] = np.nan
    half = volume_e_step(open_measurement(masked), volume, likelihood(views), Search(views))
    cropped = volume_e_step(open_measurement(pixels[:1, :40]), volume, likelihood(views), Search(views))
    assert half.pixels == 40 * 46
    # The same corners compete; only the prior odds differ, which count corners of the whole.
    assert np.linalg.norm(half.right - cropped.right) < 0.2 * np.linalg.norm(cropped.right)
    assert 0 < half.log_likelihood < 1.2 * cropped.log_likelihood


def test_parts_and_executors_give_the_whole(monkeypatch):
    monkeypatch.setattr(expectation, "_TILE_PIXELS", 0)
    views, volume = Projections(SIDE, 40, band=0.42), chain(SIDE).volume(SIDE)
    source, model = open_measurement(micrographs()), likelihood(views)
    whole = volume_e_step(source, volume, model, Search(views))
    with ThreadPoolExecutor(2) as pool:
        elsewhere = volume_e_step(source, volume, model, Search(views), executor=pool)
    np.testing.assert_array_equal(elsewhere.right, whole.right)
    assert elsewhere.log_likelihood == whole.log_likelihood
    first, second = (volume_e_step(part, volume, model, Search(views)) for part in source.split(2))
    both = first + second
    np.testing.assert_allclose(both.right, whole.right, atol=1e-4 * np.abs(whole.right).max())
    assert both.expected_count == pytest.approx(whole.expected_count, rel=1e-5)
    assert both.sites == whole.sites


def test_other_boxes_are_refused():
    views = Projections(SIDE, 5)
    with pytest.raises(ParameterError, match="one box"):
        volume_e_step(open_measurement(micrographs()), np.zeros((8, 8, 8)), likelihood(views), Search(views))


@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("library", ["array_api_strict", "torch"])
def test_another_array_library_scores_the_same(library, apart, subpixel):
    arrays = ArrayBackend(pytest.importorskip(library))
    views, volume = Projections(SIDE, 40, band=0.42), chain(SIDE).volume(SIDE)
    source, model = open_measurement(micrographs(side=40)), likelihood(views)
    if apart:
        model = replace(model, micrographs=Micrographs(RATIOS, np.array([1.0, 3.0]), TRANSFER))
    search = Search(views, views.coarse(30, 0.3), subpixel)
    here = volume_e_step(source, volume, model, search)
    there = volume_e_step(source, volume, model, search, arrays)
    if apart:
        # a copy is worth 1500 nats here, and between pixels the libraries round in another order: .3 % of a weight in float32
        np.testing.assert_allclose(there.ledger, here.ledger, rtol=3e-3 if subpixel else 1e-4)
    np.testing.assert_allclose(
        there.right, here.right, atol=(3e-3 if subpixel else 1e-3) * np.abs(here.right).max()
    )
    assert there.log_likelihood == pytest.approx(here.log_likelihood, rel=1e-5)
