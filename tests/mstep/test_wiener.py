"""The Wiener M-step: right power, right image, and no noise where nothing was seen."""

import numpy as np
import pytest

import mtdcore
from mtdcore._base.numerics.fourier import radial_filter
from mtdcore.data.preparation.fourier import filter_radially
from mtdcore.em.plan.starts import choose_starts
from mtdcore.estep.statistics import Statistics
from mtdcore.model.filters.whitening import Whitening
from mtdcore.model.normal import Spectral
from mtdcore.model.priors import FlatPrior
from mtdcore.model.rotations import Rotations
from mtdcore.mstep.updates import ExactUpdate
from mtdcore.mstep.wiener import SpectralPrior, WienerUpdate, target_spectrum
from mtdcore.results.metrics import correlation

L = 12
RNG = np.random.default_rng(0)
TARGET = mtdcore.synthetic.glyphs.glyphs(1, L)[0]
#: Hardly anything below a quarter of a cycle per pixel, as behind a CTF.
TRANSFER = np.concatenate([np.linspace(0.05, 0.3, 17), np.ones(16)])


def statistics(noise, count=40):
    """Statistics at the truth, of one micrograph seen through the transfer."""
    clean = mtdcore.simulate(TARGET, side=200, count=count, noise_std=0.0, separation=1, dtype="float64")
    seen = filter_radially(clean.measurement.array[0], TRANSFER) + noise * RNG.normal(size=(200, 200))
    facts = mtdcore.Micrographs(np.ones(1), transfer=TRANSFER[None])
    return mtdcore.e_step(
        seen,
        TARGET,
        mtdcore.WindowLikelihood(mtdcore.Rotations(4, L), noise, float(count), micrographs=facts),
        "cpu",
    )


def settled(update, found, steps=40):
    target = np.zeros((L, L))
    for _ in range(steps):
        target = update(target, found, FlatPrior(), 10, 10)
    return target


@pytest.mark.parametrize(("noise", "count"), [(0.25, 5), (0.4, 10), (0.5, 20)])
def test_the_image_is_closer_to_the_truth_than_without(noise, count):
    found = statistics(noise, count)
    wiener, exact = (
        np.linalg.norm(settled(update, found) - TARGET) for update in (WienerUpdate(), ExactUpdate())
    )
    assert wiener < exact


def coloured(side, exponent):
    """Gaussian image with the power spectrum (f + 1 / side) ** -exponent."""
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    white = np.fft.rfft2(RNG.normal(size=(side, side)))
    return np.fft.irfft2(white * np.sqrt(law(f, side, exponent)), (side, side))


def law(f, side, exponent):
    return (f + 1 / side) ** -exponent


def seen(image, copies, noise):
    """Statistics of an image that so many copies show, unturned, in white noise."""
    back = copies * image + np.sqrt(copies) * noise * RNG.normal(size=image.shape)
    normal = Spectral(Rotations(1, len(image)), np.full((1, 5), copies))
    return Statistics(back, normal, 0, 0, copies, np.array([copies]), 0, 1, 1, noise)


@pytest.mark.parametrize("exponent", [0.0, 2.0, 3.0])
@pytest.mark.parametrize("noise", [0.01, 3.0])
def test_the_power_law_of_a_random_image_is_found(exponent, noise):
    found = target_spectrum(seen(coloured(64, exponent), 5.0, noise))
    f = np.linspace(0, 0.5, 33)[1:]
    assert np.allclose(np.log10(found[1:] / law(f, 64, exponent)), 0, atol=0.25)


def test_noise_alone_has_next_to_no_power_and_what_was_not_seen_stays():
    found = target_spectrum(seen(np.zeros((64, 64)), 5.0, 2.0))
    assert np.median(found) < 0.05 * 2.0**2 / 5.0
    blank = seen(np.zeros((64, 64)), 0.0, 2.0)
    assert target_spectrum(blank) is None
    start = RNG.normal(size=(64, 64))
    assert np.array_equal(WienerUpdate()(start, blank, FlatPrior(), 0, 1), start)


def test_the_score_is_that_of_a_gaussian_at_every_noise_level():
    prior, images = SpectralPrior(np.full(9, 4.0)), RNG.normal(size=(3, L, L))
    assert np.allclose(prior.score(images, 1.5), -images / (4 + 1.5**2))


def test_recover_takes_it_where_micrographs_have_a_transfer():
    pixels = RNG.normal(size=(2, 40, 40))

    def first(transfer, update):
        facts = mtdcore.Micrographs(np.ones(2), transfer=transfer)
        options = dict(box_size=9, noise_std=1.0, micrographs=facts, iterations=1, update=update)
        return mtdcore.recover(pixels, **options).target

    transfer = np.array([[1.0, 0.3], [1.0, 0.1]])
    assert np.array_equal(first(transfer, None), first(transfer, WienerUpdate()))
    assert not np.array_equal(first(transfer, None), first(transfer, ExactUpdate()))
    assert np.array_equal(first(None, None), first(None, ExactUpdate()))


@pytest.mark.parametrize("seed", [0, 1])
def test_cold_starts_find_what_two_transfers_show(seed):
    """A start whose object stays at the edge of the box does not get there; a hot one (all four rotations over one another) no better."""
    box, glyph = 20, np.pad(mtdcore.synthetic.glyphs.glyphs(1, L, seed)[0], 4)
    sim = mtdcore.simulate(
        glyph, side=128, count=22, noise_std=0.0, separation=1, micrographs=2, seed=seed, dtype="float64"
    )
    frequency = np.linspace(0.0, 0.5, 33)
    transfer = np.abs(np.sin(0.3 + np.pi * np.array([[12.0], [16.8]]) * frequency**2))
    noise = np.random.default_rng(seed).normal(size=(2, 128, 128))
    seen = np.stack([filter_radially(m, t) for m, t in zip(sim.measurement.array, transfer, strict=True)])

    def agreement(level=0.15, iterations=20, **options):
        facts = mtdcore.Micrographs(np.ones(2), transfer=transfer)
        found = mtdcore.recover(
            seen + level * noise, box_size=box, micrographs=facts, iterations=iterations, **options
        )
        return max(correlation(np.rot90(found.target, k), glyph, max_shift=4) for k in range(4))

    cold = agreement()
    assert cold > 0.93
    assert cold > agreement(initial="uniform") - 0.01
    assert agreement(gauge=None) < 0.8
    # where poses are in doubt at first, a filter of the faint target's own power would shrink it to nothing
    assert agreement(level=0.35, iterations=40) > 0.8


def test_a_faint_start_is_worth_two_nats_a_copy_as_micrographs_show_it():
    facts = mtdcore.Micrographs(np.ones(1), transfer=TRANSFER[None])
    for kind, rotations in (
        ("faint", 4),
        ("blob", 1),
    ):  # of several views a blob has a grain, which comes on top
        model = mtdcore.WindowLikelihood(mtdcore.Rotations(rotations, L), 3.0, 5.0, micrographs=facts)
        images = choose_starts(kind, 3, FlatPrior(), model, 0)
        norms = [np.linalg.norm(radial_filter(image[None], TRANSFER)) for image in images]
        assert norms == pytest.approx([2.0 * 3.0] * 3)
        assert not np.array_equal(images[0], images[1])


def slow_noise(side):
    """The filter of noise whose amplitude falls as one over the frequency, with a slow background."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    return Whitening(np.clip(0.1 / np.maximum(frequency, 1 / side), 0.5, 20.0), cutoff=0.02)


def test_a_faint_start_is_as_strong_behind_a_filter_of_the_noise():
    for kind, rotations in (("faint", 4), ("blob", 1)):
        model = mtdcore.WindowLikelihood(mtdcore.Rotations(rotations, L), 3.0, 5.0, whitening=slow_noise(32))
        for image in choose_starts(kind, 3, FlatPrior(), model, 0):
            templates = model.shown.apply(image)
            assert np.linalg.norm(templates[0]) == pytest.approx(2.0 * 3.0)


def test_copies_count_what_the_filter_of_the_noise_lets_through():
    """Of a wave in the middle of a large box the operator says the same."""
    side, middle = 96, (np.arange(96) - 47.5) / 16
    views = slow_noise(32).seen_through(Rotations(1, side))
    normal = views.normal(np.full((1, side, side), 7.0))
    for frequency in (0.1, 0.2, 0.35):
        wave = np.cos(2 * np.pi * frequency * np.arange(side)) * np.exp(
            -0.5 * np.add.outer(middle**2, middle**2)
        )
        seen = np.sum(wave * normal(wave)) / np.sum(wave * wave)
        assert normal.copies(np.array([frequency]))[0] == pytest.approx(seen, rel=0.05)


@pytest.mark.slow
def test_a_diameter_does_not_lose_the_copies_behind_a_filter_of_the_noise():
    """White noise with as much pink noise: most of what a compact body is expected to be lies where nothing is seen."""
    glyph = mtdcore.datasets.glyphs(1)[0][4:24, 4:24]
    sim = mtdcore.simulate(
        glyph, side=200, count=12, snr=1.0, rotations=4, separation=1, micrographs=4, seed=0, dtype="float64"
    )
    frequency = np.hypot(np.fft.fftfreq(200)[:, None], np.fft.rfftfreq(200))
    frequency[0, 0] = 1 / 200
    white = np.random.default_rng(9).normal(size=(4, 200, 200))
    pink = np.fft.irfft2(np.fft.rfft2(white) / frequency, (200, 200))
    pixels = np.asarray(sim.measurement.array) + sim.noise_std * pink / pink.std()
    found = mtdcore.recover(pixels, box_size=20, rotations=4, diameter=18)
    assert found.likelihood.whitening.background
    assert found.found_copies
    assert found.expected_count == pytest.approx(len(sim.positions), rel=0.05)
    # the disc cuts off .30; the mean over the rotations is off by .74
    assert mtdcore.relative_error(found.target, glyph, max_shift=4) < 0.6
