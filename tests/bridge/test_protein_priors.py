"""The shipped priors of proteins: images and volumes of many boxes behind one interface."""

import numpy as np
import pytest
import torch

from mtdbridge import load_prior
from mtdbridge.proteins.batches import DrawingOptions, ProteinBatches
from mtdbridge.proteins.structures import centred
from mtdcore.em.coarse import BinnedPrior
from mtdcore.em.gauge.prior import PriorGauge
from mtdcore.em.volumes.recover import recover_volume
from mtdcore.errors import InputError
from mtdcore.model.priors import Prior, centre_of, denoise
from mtdcore.model.sampling import sample_from, sample_prior
from mtdcore.synthetic.particles import simulate_volume
from mtdcore.synthetic.volumes import chain
from mtdcore.testing import PriorConformance

NAMES = {2: "proteins-2d", 3: "proteins-3d"}
BOXES = {2: (24, 48), 3: (16, 32)}


def coils(count, side, dimension, seed=0, points=900):
    """(count, ...) drawings of random coils, which no training saw: walks of 3.8 angstrom a step, drawn to their middle."""
    random = np.random.default_rng(seed)
    walks = []
    for _ in range(count):
        walk, place = np.empty((points, 3)), np.zeros(3)
        for i in range(points):
            step = random.standard_normal(3) - 0.04 * place
            place = place + 3.8 * step / np.linalg.norm(step)
            walk[i] = place
        walks.append(walk)
    offset = np.arange(count + 1) * points
    names, part = np.array([f"coil{i}" for i in range(count)]), np.zeros(count, np.int8)
    structures = centred(np.concatenate(walks), np.full(offset[-1], 30.0), offset, names, part)
    draw = ProteinBatches(structures, DrawingOptions(dimension=dimension, pixel_size=0.5, spread=0.0))
    chosen = torch.arange(count)
    return draw(side, count, torch.Generator().manual_seed(seed), chosen).numpy()


class TestProteins(PriorConformance):
    box_size = 27
    levels = (0.01, 0.1, 0.5, 2.0, 20.0)

    def make_prior(self):
        return load_prior("proteins-2d")

    def make_images(self, count):
        return coils(count, self.box_size, 2)


@pytest.mark.parametrize("dimension", [2, 3])
def test_every_box_of_the_range_is_taken_and_the_next_ones_are_refused(dimension):
    prior, (low, high) = load_prior(NAMES[dimension]), BOXES[dimension]
    assert isinstance(prior, Prior)
    assert (prior.boxes, prior.dimension) == ((low, high), dimension)
    noisy = np.random.default_rng(0).standard_normal((2,) + (high + 1,) * dimension).astype(np.float32)
    for side in (low, (low + high) // 2 + 1, high):
        part = noisy[(slice(None),) + (slice(side),) * dimension]
        score = prior.score(part, 0.7)
        assert (score.shape, score.dtype) == (part.shape, part.dtype)
        assert np.isfinite(score).all()
        np.testing.assert_array_equal(score, prior.score(part, 0.7))
    for side in (low - 1, high + 1):
        part = np.zeros((1,) + (side,) * dimension, np.float32)
        with pytest.raises(InputError, match=f"with L from {low} to {high}"):
            prior.score(part, 0.7)
        with pytest.raises(
            InputError, match=f"boxes of {side} pixels; this one was trained on {low} to {high}"
        ):
            load_prior(NAMES[dimension], box_size=side)


@pytest.mark.parametrize(
    ("dimension", "wrong"), [(2, (1, 28, 30)), (2, (28, 28)), (3, (2, 28, 28)), (3, (1, 16, 16, 17))]
)
def test_other_shapes_are_refused(dimension, wrong):
    with pytest.raises(InputError, match="this prior knows"):
        load_prior(NAMES[dimension]).score(np.zeros(wrong, np.float32), 0.5)


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_centre_is_the_middle_of_the_box_at_hand(dimension):
    prior = load_prior(NAMES[dimension])
    assert centre_of(prior, 28) == (13.5,) * dimension
    assert load_prior(NAMES[dimension], box_size=25).centre == (12.0,) * dimension


def test_gauge_and_block_means_put_proteins_in_the_middle_of_their_own_box():
    prior = load_prior("proteins-2d")
    assert PriorGauge.of(prior, 4, 44).centre == (21.5, 21.5)
    assert BinnedPrior(prior, 2, 48).centre == (11.5, 11.5)
    assert centre_of(load_prior("mnist"), 28) == load_prior("mnist").centre


@pytest.mark.parametrize(("dimension", "side"), [(2, 28), (2, 41), (3, 16), (3, 22)])
def test_better_than_the_best_filter_fitted_to_what_it_denoises(dimension, side):
    """A fifth better than the Wiener filter that knows mean and power of these very drawings, of a kind nobody trained on."""
    clean = coils(24 if dimension == 2 else 8, side, dimension, seed=1).astype(np.float64)
    pixels = tuple(range(1, dimension + 1))
    mean = clean.mean(0)
    frequency = np.sqrt(
        sum(np.square(f) for f in np.meshgrid(*[np.fft.fftfreq(side)] * dimension, indexing="ij"))
    )
    shell = np.rint(frequency * side).astype(int).ravel()
    power = np.square(np.abs(np.fft.fftn(clean - mean, axes=pixels, norm="ortho"))).mean(0).ravel()
    power = (np.bincount(shell, power) / np.bincount(shell))[shell].reshape(frequency.shape)
    prior = load_prior(NAMES[dimension])
    for level in (0.3, 1.0):
        noisy = clean + level * np.random.default_rng(3).standard_normal(clean.shape)
        spectrum = np.fft.fftn(noisy - mean, axes=pixels) * (power / (power + level**2))
        linear = mean + np.fft.ifftn(spectrum, axes=pixels).real
        learned = denoise(prior, noisy, level)
        error = [np.linalg.norm(found - clean) / np.linalg.norm(clean) for found in (learned, linear)]
        assert error[0] < 0.8 * error[1], (level, error)


def test_volumes_are_drawn_from_the_prior_and_from_a_posterior():
    """Unconditional ones have its scale and lie in the ball; those of a posterior lie about the denoised volume, and spread."""
    prior = load_prior("proteins-3d")
    drawn = sample_prior(prior, 2, 16, steps=32, seed=3, dimension=3)
    assert drawn.shape == (2, 16, 16, 16)
    assert (np.abs(np.sqrt(np.square(drawn).mean((1, 2, 3))) - 1.0) < 0.4).all()
    clean, random = coils(1, 16, 3, seed=4).astype(np.float64), np.random.default_rng(0)
    noisy = np.repeat(clean + 0.5 * random.standard_normal(clean.shape), 4, axis=0)
    posterior = sample_from(prior, noisy, 0.5, steps=12, noise=random)
    mean, best = posterior.mean(0), denoise(prior, noisy[:1], 0.5)[0]
    assert np.linalg.norm(mean - best) < np.linalg.norm(noisy[0] - clean[0]) / 4
    assert 0.02 < posterior.std(0).mean() < 0.5


def test_samples_of_images_are_of_the_scale_of_its_drawings():
    """Root mean square 1 over the box, in the middle; the mean is that of bright objects, or near 0 where a CTF took it away."""
    drawn = sample_prior(load_prior("proteins-2d"), 8, 28, seed=1)
    rms = np.sqrt(np.square(drawn).mean((1, 2)))
    assert 0.5 < np.median(rms) < 1.5
    means = drawn.mean((1, 2))
    assert means.min() > -0.05
    assert means.max() > 0.2
    assert means.min() < 0.1
    mass = np.clip(drawn, 0, None).sum(0)
    rows = np.arange(28)
    assert abs((mass.sum(1) @ rows) / mass.sum() - 13.5) < 2.5


def test_a_volume_run_has_the_units_of_its_measurement():
    """Of 1024 times a measurement it finds 1024 times the volume."""
    made = simulate_volume(chain(16), box_size=16, count=8, micrographs=4, snr=2.0)
    found = [
        recover_volume(
            unit * made.pixels,
            box_size=16,
            noise_std=unit * made.noise_std,
            prior=load_prior("proteins-3d"),
            iterations=4,
            views=100,
        ).volume
        / unit
        for unit in (1.0, 1024.0)
    ]
    np.testing.assert_allclose(found[1], found[0], atol=0.02 * np.abs(found[0]).max())
