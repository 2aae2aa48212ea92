"""M-steps of volumes: normal equations, noise level, power from the data, the denoising step, known poses."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from mtdcore.model.priors import GaussianPrior
from mtdcore.model.volumes import so3
from mtdcore.model.volumes.grids import ball, filtered, low_passed, radii, shells
from mtdcore.model.volumes.projections import Projections
from mtdcore.mstep.envelope import EnvelopePrior, envelope_of
from mtdcore.mstep.volumes import VolumeUpdate, half_quadratic, noise_level, solve
from mtdcore.results.volumes import cosine, shape_correlation
from mtdcore.synthetic.volumes import Gaussians, chain

SIDE, SIGMA = 12, 0.5


@pytest.fixture(scope="module")
def posed():
    """Right side and operator of 200 noisy views in known poses, with the truth."""
    truth = chain(SIDE).volume(SIDE) * ball(SIDE)
    views = Projections(SIDE, so3.random_rotations(200, np.random.default_rng(0)), band=0.42)
    rng = np.random.default_rng(1)
    images = views.apply(truth) + SIGMA * rng.standard_normal((200, SIDE, SIDE))
    return truth, views.adjoint(images), views.normal(np.ones(200))


def test_the_solution_meets_the_normal_equations(posed):
    truth, right, normal = posed
    prior = EnvelopePrior.begin(truth, right, normal, SIGMA, 5, ball(SIDE))
    u = solve(right, normal, SIGMA, prior, np.zeros_like(truth), steps=1000, tolerance=1e-12)
    power = prior.power.copy()
    power[6:] = 1e-4 * power[5]
    e = prior.envelope
    left = e * normal(e * u) + filtered(u, (SIGMA**2 / power)[shells(SIDE)])
    np.testing.assert_allclose(left, e * right, atol=1e-4 * np.abs(right).max())


def test_twenty_steps_are_enough_from_a_good_start(posed):
    truth, right, normal = posed
    prior = EnvelopePrior.begin(truth, right, normal, SIGMA, 5, ball(SIDE))
    e = prior.envelope
    start = truth / np.maximum(e, 1e-3) * (e > 0)
    short = solve(right, normal, SIGMA, prior, start)
    exact = solve(right, normal, SIGMA, prior, np.zeros_like(truth), steps=300, tolerance=1e-9)
    assert np.linalg.norm(e * (short - exact)) < 0.05 * np.linalg.norm(e * exact)


def test_known_poses_give_the_volume(posed):
    truth, right, normal = posed
    volume, spectrum = 1e-3 * ball(SIDE), None
    for _ in range(4):
        volume, spectrum = VolumeUpdate(rounds=2)(volume, right, normal, SIGMA, 0.42, spectrum)
    wanted = low_passed(truth, 0.42)
    assert cosine(volume, wanted) > 0.97
    assert shape_correlation(volume, wanted) > 0.93
    assert np.linalg.norm(volume - wanted) < 0.25 * np.linalg.norm(wanted)


def test_noise_alone_gives_next_to_nothing():
    views = Projections(SIDE, 200, band=0.42)
    noise = SIGMA * np.random.default_rng(2).standard_normal((200, SIDE, SIDE))
    right, normal = views.adjoint(noise), views.normal(np.ones(200))
    volume, _ = VolumeUpdate(rounds=3)(ball(SIDE) * 0.1, right, normal, SIGMA, 0.42)
    plain = noise_level(normal, SIGMA, 0.42) * np.sqrt(ball(SIDE).sum())
    assert np.linalg.norm(volume) < 0.35 * plain


def test_views_that_crowd_do_not_make_the_volume_grow_without_end():
    """Views five degrees apart that contradict each other, as those of structured noise do."""
    rng = np.random.default_rng(4)
    rotations = Rotation.from_rotvec(np.deg2rad(5) * rng.standard_normal((20, 3))).as_matrix()
    views = Projections(SIDE, rotations, band=0.42)
    images = np.stack([gaussian_filter(i, 1.0) for i in rng.standard_normal((20, SIDE, SIDE))])
    images *= 4.0 * SIGMA / images.std() * ball(SIDE)[SIDE // 2]
    right, normal = views.adjoint(images), views.normal(np.ones(20))
    volume, spectrum, norms = 0.01 * ball(SIDE), None, []
    for _ in range(40):
        volume, spectrum = VolumeUpdate()(volume, right, normal, SIGMA, 0.42, spectrum)
        norms.append(float(np.linalg.norm(volume)))
    assert norms[-1] < 1.2 * norms[5]
    assert max(norms) < np.linalg.norm(images) / np.sqrt(len(images))


def test_power_is_learned_from_the_data():
    rng = np.random.default_rng(3)
    views = Projections(SIDE, so3.random_rotations(200, rng), band=0.42)
    normal = views.normal(np.ones(200))
    wanted = 4.0 * np.exp(-0.5 * np.arange(shells(SIDE).max() + 1))
    flat = EnvelopePrior(ball(SIDE), np.ones_like(wanted), 5)
    powers = []
    for _ in range(12):
        u = filtered(rng.standard_normal((SIDE,) * 3), np.sqrt(wanted))
        images = views.apply(u * ball(SIDE)) + SIGMA * rng.standard_normal((200, SIDE, SIDE))
        right, prior = views.adjoint(images), flat
        for _ in range(8):
            prior = prior.learned(solve(right, normal, SIGMA, prior, 0 * u), normal, SIGMA)
        powers.append(prior.power)
    ratio = np.mean(powers, axis=0)[1:5] / wanted[1:5]  # the last shell also explains what lies beyond
    assert np.all((ratio > 0.5) & (ratio < 2.0))


def test_noise_level_is_that_of_the_unregularised_solution():
    """The spread, in the middle, of pure noise divided by what saw each shell."""
    views = Projections(SIDE, 400, band=0.3)
    normal = views.normal(np.ones(400))
    top = int(0.3 * SIDE)
    gains = np.where(np.arange(len(normal.shell_weights)) <= top, 1.0, 0.0)
    gains[: top + 1] /= normal.shell_weights[: top + 1]
    rng = np.random.default_rng(4)
    middle = radii(SIDE) < 3
    found = []
    for _ in range(8):
        noise = SIGMA * rng.standard_normal((400, SIDE, SIDE))
        found.append(filtered(views.adjoint(noise), gains)[middle])
    assert np.std(found) == pytest.approx(noise_level(normal, SIGMA, 0.3), rel=0.25)


def test_half_quadratic_steps_settle_where_a_gaussian_prior_says():
    """Fixed point: N V = b + (sigma / s)^2 (D(V) - V), for a Gaussian the exact posterior up to the level's own shrinkage."""
    truth = chain(8).volume(8) * ball(8)
    views = Projections(8, 50)
    normal, right = views.normal(np.ones(50)), views.adjoint(views.apply(truth))
    prior, volume = GaussianPrior(0.0, 0.3), np.zeros((8,) * 3)
    rng = np.random.default_rng(0)
    for _ in range(60):
        volume = half_quadratic(volume, right, normal, SIGMA, 0.5, prior, rng, steps=100, tolerance=1e-8)
    level = noise_level(normal, SIGMA, 0.5)
    pull = SIGMA**2 / (level**2 + 0.3**2)
    np.testing.assert_allclose(normal(volume) + pull * volume, right, atol=1e-3 * np.abs(right).max())


def test_the_envelope_follows_the_density():
    """A dumbbell: high at both ends, low beside its waist at the same distance from the centre."""
    two = Gaussians.of(np.array([[-4.0, 0.0, 0.0], [4.0, 0.0, 0.0]]), 1.0)
    envelope, middle = envelope_of(two.volume(SIDE), ball(SIDE)), SIDE // 2
    inside = ball(SIDE) == 1
    assert envelope.max() == pytest.approx(1.0)
    assert min(envelope[middle, middle, middle + 4], envelope[middle, middle, middle - 4]) > 0.9
    assert envelope[middle, middle + 4, middle] == envelope[inside].min() == pytest.approx(0.1)
    assert (envelope[ball(SIDE) == 0] == 0).all()


def test_the_envelope_has_no_scale_and_nothing_shows_the_support():
    volume = chain(SIDE).volume(SIDE)
    np.testing.assert_allclose(envelope_of(-7.0 * volume, ball(SIDE)), envelope_of(volume, ball(SIDE)))
    np.testing.assert_array_equal(envelope_of(np.zeros_like(volume), ball(SIDE)), ball(SIDE))


def test_a_growing_band_keeps_what_was_learned(posed):
    truth, right, normal = posed
    first = EnvelopePrior.begin(truth, right, normal, SIGMA, 3, ball(SIDE))
    wider = first.at(truth, 5, ball(SIDE))
    np.testing.assert_allclose(wider.power[:4], first.power[:4])
    assert wider.power[5] < wider.power[4] < wider.power[3]


class Units:
    """A prior of images of root mean square 1 that is no Gaussian: small voxels shrink, large ones stay."""

    own_units = True

    def score(self, images, noise_std):
        return -images / ((1.0 + images**2) * (1.0 + noise_std**2))


def test_a_prior_with_units_of_its_own_takes_those_of_the_volume(posed):
    """The same measurement in other units gives the same volume in other units, and the prior has a say in both."""
    truth, right, normal = posed
    found = []
    for unit in (1.0, 150.0):
        start, sigma = unit * 0.1 * ball(SIDE), unit * SIGMA
        found.append(VolumeUpdate()(start, unit * right, normal, sigma, 0.42, prior=Units())[0] / unit)
    plain, _ = VolumeUpdate()(0.1 * ball(SIDE), right, normal, SIGMA, 0.42)
    np.testing.assert_allclose(found[1], found[0], atol=1e-6 * np.abs(truth).max())
    assert np.abs(found[0] - plain).max() > 0.01 * np.abs(plain).max()


def test_a_denoiser_is_shown_the_noise_that_it_is_told(posed):
    """A network knows noisy volumes: of a clean one, called noisy, proteins-3d made one of 1e28 in a box of 32."""
    truth, right, normal = posed
    shown = []

    class Spy:
        def score(self, images, noise_std):
            shown.append((images, noise_std))
            return np.zeros_like(images)

    half_quadratic(truth, right, normal, SIGMA, 0.42, Spy(), np.random.default_rng(0))
    ((images, level),) = shown
    np.testing.assert_allclose(images.mean(axis=0), truth, atol=1e-9 * level)
    assert np.std(images[0] - truth) == pytest.approx(level, rel=0.1)
