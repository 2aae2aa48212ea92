"""What users call, on the device (``-m gpu``) and on arrays that behave like CuPy's: equal to the CPU's float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtdcore import (
    DenoisingUpdate,
    ExactUpdate,
    GaussianPrior,
    GradientAscent,
    OnlineEM,
    get_backend,
    recover,
    simulate,
)
from mtdcore.estep.backends.cuda.backend import CudaBackend
from mtdcore.model.filters.optics import Micrographs
from mtdcore.mstep.wiener import WienerUpdate
from mtdcore.results.detections import detect
from mtdcore.results.uncertainty import unbiased_average
from mtdcore.synthetic.simulate import Simulation

_BOX = 8


def _target() -> np.ndarray:
    rows, columns = np.mgrid[:_BOX, :_BOX] - (_BOX - 1) / 2
    return np.asarray(np.exp(-(rows**2 / 2 + columns**2 / 6)) + 0.5 * np.exp(-((rows - 2) ** 2 + columns**2)))


@pytest.fixture(scope="module")
def made() -> Simulation:
    return simulate(_target(), side=40, count=4, snr=3.0, micrographs=2, dtype="float64")


_TRANSFER = np.stack([np.linspace(1.0, 0.5, 5), np.linspace(0.9, 0.3, 5)])

WAYS: dict[str, dict[str, Any]] = {
    "right angles": {},
    "seven angles": {"rotations": 7},
    "continuous": {"rotations": 24, "coarse_rotations": None},
    "local search": {"rotations": 24, "coarse_rotations": 8, "initial": _target()},
    "gradient": {"rotations": 6, "update": GradientAscent(1e-3, steps=2)},
    "denoising": {"rotations": 6, "prior": GaussianPrior(0.3, 0.5), "update": DenoisingUpdate(steps=3)},
    "gauge": {"prior": GaussianPrior(np.eye(_BOX), 0.5), "iterations": 8, "starts": 2},
    "classes": {"classes": 2, "rotations": 3},
    "unlike micrographs": {"micrographs": "each"},
    "transfer": {"micrographs": Micrographs(np.ones(2), transfer=_TRANSFER), "initial": "blob"},
    "transfer, seven angles": {"micrographs": Micrographs(np.ones(2), transfer=_TRANSFER), "rotations": 7},
    "Wiener": {"update": WienerUpdate(), "rotations": 3},
    "online": {"online": OnlineEM(parts=2), "iterations": 6},
    "temperature": {"temperature": 4.0, "rotations": 3},
    "patch": {"likelihood": "patch", "update": ExactUpdate()},
    "patch, seven angles": {"likelihood": "patch", "rotations": 7},
    "raced starts": {"initial": "uniform", "starts": 3, "iterations": 8},
}


@pytest.mark.parametrize("way", list(WAYS))
def test_recover(backend: CudaBackend, made: Simulation, way: str) -> None:
    options = {"box_size": _BOX, "noise_std": made.noise_std, "iterations": 3, "expected_count": 8.0} | WAYS[
        way
    ]
    found, expected = (
        recover(made.measurement, backend=engine, **options)
        for engine in (backend, get_backend("cpu", precision="float64", threads=1))
    )
    assert isinstance(found.target, np.ndarray)
    scale = np.abs(expected.target).max()
    np.testing.assert_allclose(found.target, expected.target, rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(found.evidence, expected.evidence, rtol=1e-6, atol=1e-4)


def test_recover_with_many_angles(backend: CudaBackend, made: Simulation) -> None:
    """In single precision they go through matrices of half precision; the image hardly tells."""
    single = CudaBackend(backend.device, "float32")
    found, expected = (
        recover(
            made.measurement,
            box_size=_BOX,
            rotations=128,
            coarse_rotations=None,
            noise_std=made.noise_std,
            initial=_target(),
            iterations=2,
            backend=engine,
        )
        for engine in (single, get_backend("cpu", precision="float64", threads=1))
    )
    np.testing.assert_allclose(
        found.target, expected.target, rtol=0, atol=0.02 * np.abs(expected.target).max()
    )
    assert found.evidence == pytest.approx(expected.evidence, rel=0.01)


@pytest.mark.parametrize("rotations", [4, 7])
def test_what_follows_a_recovery(backend: CudaBackend, made: Simulation, rotations: int) -> None:
    def results(engine: Any) -> tuple[Any, ...]:
        recovery = recover(
            made.measurement,
            box_size=_BOX,
            rotations=rotations,
            noise_std=made.noise_std,
            initial=_target(),
            iterations=2,
            backend=engine,
        )
        copies = detect(made.measurement, recovery.target, recovery.likelihood, backend=engine)
        average, level = unbiased_average(made.measurement, recovery, backend=engine)
        return copies, average, level

    (copies, average, level), (expected, host, host_level) = (
        results(engine) for engine in (backend, get_backend("cpu", precision="float64", threads=1))
    )
    np.testing.assert_allclose(average, host, rtol=0, atol=1e-6 * np.abs(host).max())
    assert level == pytest.approx(host_level, rel=1e-6)
    assert len(copies) == len(expected) > 0
    # certain copies are in no particular order
    assert set(map(tuple, copies.positions.tolist())) == set(map(tuple, expected.positions.tolist()))


class _Asked:
    """A Gaussian prior with images about the middle of the box, which refuses arrays of the host."""

    centre = (_BOX - 1) / 2, (_BOX - 1) / 2

    def __init__(self, refuses: bool) -> None:
        self.refuses, self.calls = refuses, 0

    def score(self, images: Any, noise_std: float) -> Any:
        assert not (self.refuses and isinstance(images, np.ndarray))
        self.calls += 1
        return GaussianPrior(0.2, 0.5).score(images, noise_std)


def test_a_prior_is_asked_on_the_device(backend: CudaBackend, made: Simulation) -> None:
    """Draws, M-steps and the gauge: a network would else move to the host and back."""
    asked = _Asked(True)
    found, expected = (
        recover(
            made.measurement,
            box_size=_BOX,
            noise_std=made.noise_std,
            prior=prior,
            starts=2,
            iterations=8,
            backend=engine,
        )
        for engine, prior in (
            (backend, asked),
            (get_backend("cpu", precision="float64", threads=1), _Asked(False)),
        )
    )
    assert asked.calls > 0
    np.testing.assert_allclose(
        found.target, expected.target, rtol=0, atol=1e-5 * np.abs(expected.target).max()
    )
