"""Iterates that must never change: those of the published algorithm, and our own on every kind of update.

``tests/em/parity.npz`` holds what the reference backend (plain loops) found; run this file to write it anew::

    python tests/em/test_parity.py
"""

from pathlib import Path

import numpy as np
import pytest

from mtdcore import (
    DenoisingUpdate,
    ExactUpdate,
    GaussianPrior,
    GradientAscent,
    PatchLikelihood,
    get_backend,
    recover,
    simulate,
)
from mtdcore.model.rotations import Rotations

VECTORS = Path(__file__).with_name("parity.npz")
PUBLISHED = Path(__file__).parents[3] / "shared" / "reference"

RTOL = {"float64": 1e-9, "float32": 1e-4}
PRECISIONS = pytest.mark.parametrize("precision", RTOL)


class RoundedGaussianPrior:
    """N(mean, I) with a score rounded as in the published iterates: a difference of float32 images."""

    def __init__(self, mean):
        self.mean = mean.astype(np.float32)

    def score(self, images, noise_std):
        return (self.mean - images.astype(np.float32)).astype(np.float64)


def assert_close(found, expected, rtol):
    assert np.abs(found - expected).max() <= rtol * np.abs(expected).max()


@pytest.fixture(scope="module")
def published(request):
    path = PUBLISHED / f"parity_{request.param}.npz"
    if not path.exists():
        pytest.skip("the published iterates are not part of the repository")
    with np.load(path) as data:
        return dict(data)


def follow(published, key, backend, prior):
    """The paper's update for as many iterations as the name of the vector says."""
    return recover(
        published["measurement"],
        box_size=len(published["initial"]),
        rotations=int(published["rotations"]),
        noise_std=float(published["noise_std"]),
        likelihood="patch",
        update=GradientAscent(step=1e-3),
        prior=prior,
        initial=published["initial"],
        iterations=int(key.rpartition("_")[2]),
        tolerance=0.0,
        backend=backend,
    ).target


@pytest.mark.parametrize("published", ["gaussian_snr1", "gaussian_snr5", "mnist_snr1"], indirect=True)
@PRECISIONS
def test_published_iterates_without_prior(published, precision):
    keys = [key for key in published if key.startswith("no_prior")]
    assert keys
    for key in keys:
        found = follow(published, key, get_backend("cpu", precision=precision), None)
        assert_close(found, published[key], RTOL[precision])


@pytest.mark.parametrize("published", ["gaussian_snr1", "gaussian_snr5"], indirect=True)
@pytest.mark.parametrize(
    ("make_prior", "precision", "rtol"),
    [
        (RoundedGaussianPrior, "float64", 1e-12),
        # The published score was rounded to float32; the exact one differs by that much.
        (GaussianPrior, "float64", 5e-9),
        (GaussianPrior, "float32", RTOL["float32"]),
    ],
)
def test_published_iterates_with_a_gaussian_prior(published, make_prior, precision, rtol):
    backend, prior = get_backend("cpu", precision=precision), make_prior(published["prior_mean"])
    for key in [key for key in published if key.startswith("gaussian_prior")]:
        assert_close(follow(published, key, backend, prior), published[key], rtol)


#: name -> options of :func:`recover` beyond those of :func:`own`
RUNS = {
    "paper": {"likelihood": "patch", "update": GradientAscent(2e-3, steps=2), "prior": GaussianPrior(1.0)},
    "patch_tied": {"likelihood": PatchLikelihood(Rotations(4, 5), 0.6, 0.5), "update": ExactUpdate()},
    "patch_interpolated": {
        "likelihood": "patch",
        "rotations": 3,
        "update": ExactUpdate(),
        "noise_std": "auto",
    },
    "window": {
        "gauge": None,
        "likelihood": "window",
        "prior": GaussianPrior(1.0, 0.5),
        "update": DenoisingUpdate(relaxation=1.0),
    },
    "window_interpolated": {"likelihood": "window", "rotations": 6, "min_separation": 3, "temperature": 4.0},
}


def own(name, measurement, backend):
    """Three iterations from the same start; the vectors take the mean of the noise to be 0."""
    options = {
        "box_size": 5,
        "noise_std": 0.6,
        "offset": None,
        "initial": np.outer([0, 1, 2, 1, 0], [1, 2, 3, 2, 1]) / 4,
    }
    return recover(measurement, **(options | RUNS[name]), iterations=3, tolerance=0.0, backend=backend)


def numbers(recovery):
    """(iterations, 4) of the history."""
    return np.array([(r.objective, r.expected_count, r.noise_std, r.temperature) for r in recovery.history])


@PRECISIONS
@pytest.mark.parametrize("name", RUNS)
def test_own_iterates(name, precision):
    with np.load(VECTORS) as data:
        found = own(name, data["measurement"], get_backend("cpu", precision=precision, threads=1))
        assert_close(found.target, data[name], RTOL[precision])
        assert_close(numbers(found), data[f"{name}_history"], RTOL[precision])


def write_vectors():
    """Two small micrographs with six copies each and a hole, and what the plain loops make of them."""
    target = np.add.outer(np.arange(5.0), np.arange(5.0) ** 2) / 10
    made = simulate(target, shape=(24, 33), count=6, noise_std=0.6, separation=1, micrographs=2, seed=4)
    pixels = made.measurement.array.copy()
    pixels[1, 10:12, 7] = np.nan
    values = {"measurement": pixels}
    for name in RUNS:
        found = own(name, pixels, get_backend("reference"))
        values |= {name: found.target, f"{name}_history": numbers(found)}
    np.savez(VECTORS, **values)


if __name__ == "__main__":
    write_vectors()
