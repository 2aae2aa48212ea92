"""What a known diameter says of the target: a disc, a dark fringe around it, and a spectrum."""

from dataclasses import dataclass

import numpy as np
import pytest

import mtdcore
from mtdcore.model.priors import FlatPrior
from mtdcore.mstep.support import Supported, soft_disc
from mtdcore.mstep.updates import ExactUpdate
from mtdcore.mstep.wiener import CompactUpdate, compact_spectrum

SIDE, DIAMETER = 24, 15.0
DISTANCE = np.hypot(*np.meshgrid(*2 * [np.arange(SIDE) - (SIDE - 1) / 2]))
#: A hollow particle with the dark fringe of defocus around it.
PARTICLE = np.exp(-(((DISTANCE - 4.5) / 2.0) ** 2)) - 0.5 * np.exp(-(((DISTANCE - 8.5) / 1.8) ** 2))


@dataclass(frozen=True)
class As(ExactUpdate):
    """An M-step whose answer is known."""

    image: np.ndarray

    def __call__(self, *_):
        return self.image


def supported(image):
    return Supported(As(image), DIAMETER)(image, None, FlatPrior(), 0, 1)


def test_beyond_the_disc_only_what_is_dark_all_the_way_round_stays():
    image = PARTICLE + 0.1
    image[:, :3] += 0.5  # a neighbour
    image[20:, 10:14] -= 0.5  # a dark spot
    cut = supported(image)
    beyond = soft_disc(image.shape, DIAMETER) == 0.0
    assert cut[beyond].max() <= 0.0
    assert cut[beyond].min() < -0.01
    rings = DISTANCE.astype(int)
    assert all(np.ptp(cut[beyond & (rings == r)]) < 1e-12 for r in np.unique(rings[beyond]))
    inside = soft_disc(image.shape, DIAMETER) == 1.0
    np.testing.assert_allclose(cut[inside], image[inside])
    np.testing.assert_allclose(supported(np.ones_like(image)), soft_disc(image.shape, DIAMETER))


@pytest.mark.parametrize("added", [-1.0, -0.2, 0.0, 0.2])
def test_no_target_is_dark_on_the_whole(added):
    cut = supported(PARTICLE + added)
    assert cut.sum() >= -1e-9
    if added < 0.0:  # in a crowd a dark one would be an offset
        assert cut.sum() == pytest.approx(0.0, abs=1e-9)


@pytest.fixture(scope="module")
def crowd():
    """Faint copies, crowded."""
    return mtdcore.simulate(
        PARTICLE, shape=(300, 300), count=90, snr=0.04, separation=0.5, micrographs=2, rotations=4, seed=1
    )


def test_off_the_middle_of_the_disc_next_to_nothing_is_gained():
    """A disc alone cuts the fringe of an object in the middle, and holds half of it where the object is not: EM then moves it there."""
    made = mtdcore.simulate(PARTICLE, shape=(300, 300), count=30, snr=0.1, separation=1, rotations=4, seed=1)
    likelihood = mtdcore.WindowLikelihood(mtdcore.Rotations(4, SIDE), made.noise_std, expected_count=30.0)

    def evidence(image):
        engine = mtdcore.get_backend("cpu")
        return mtdcore.e_step(made.measurement, image, likelihood, engine).log_likelihood

    middle, aside = made.target, np.roll(made.target, (3, 0), (0, 1))
    disc = soft_disc(middle.shape, DIAMETER)
    pull = evidence(aside * disc) - evidence(middle * disc)
    assert pull > 50
    assert evidence(supported(aside)) - evidence(supported(middle)) < 0.2 * pull
    assert evidence(supported(middle)) > evidence(middle * disc) + 50


def test_free_pixels_fit_noise_and_compact_bodies_do_not(crowd):
    """From the truth itself, at a noise level that hides each copy."""

    def recovered(update):
        return mtdcore.recover(
            crowd.measurement,
            box_size=SIDE,
            rotations=4,
            diameter=DIAMETER,
            initial=crowd.target,
            update=update,
            noise_std=crowd.noise_std,
            iterations=30,
            backend="cpu",
        )

    free, compact = (recovered(update) for update in (ExactUpdate(), None))
    errors = [mtdcore.relative_error(r.target, crowd.target, max_shift=2) for r in (free, compact)]
    assert free.evidence > compact.evidence
    assert errors[1] < 0.75 * errors[0]


def test_strong_data_overrule_the_spectrum_of_compact_bodies():
    made = mtdcore.simulate(PARTICLE, side=480, count=20, snr=5.0, rotations=4, seed=2)
    likelihood = mtdcore.WindowLikelihood(mtdcore.Rotations(4, SIDE), made.noise_std, expected_count=20.0)
    found = mtdcore.e_step(made.measurement, made.target, likelihood, mtdcore.get_backend("cpu"))
    free, compact = (
        update(made.target, found, FlatPrior(), 0, 10) for update in (ExactUpdate(), CompactUpdate(DIAMETER))
    )
    assert np.linalg.norm(compact - free) < 0.05 * np.linalg.norm(free)


def test_the_spectrum_has_the_energy_of_the_target_and_falls_as_that_of_bodies_with_a_surface():
    power = compact_spectrum((SIDE, SIDE), DIAMETER, 7.0)
    assert power[32] / power[16] == pytest.approx(2.0**-4, rel=0.15)
    at = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(SIDE)]))
    inside = at <= 0.5
    total = np.interp(at[inside], np.linspace(0, 0.5, len(power)), power).sum()
    assert total == pytest.approx(7.0, rel=0.05)
    np.testing.assert_allclose(compact_spectrum((SIDE, SIDE), DIAMETER, 14.0), 2 * power)
