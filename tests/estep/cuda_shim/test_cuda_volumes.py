"""Volumes on CuPy arrays, and on a stand-in for them that mixes no host arrays in, beside the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtdcore import get_backend, recover_volume
from mtdcore.data import open_measurement
from mtdcore.estep.backends import Backend
from mtdcore.estep.backends.cuda.backend import CudaBackend
from mtdcore.estep.volumes.expectation import volume_e_step
from mtdcore.estep.volumes.residual import left_over
from mtdcore.estep.volumes.templates import Search
from mtdcore.model.filters.optics import Micrographs
from mtdcore.model.likelihood import WindowLikelihood
from mtdcore.model.volumes.projections import Projections
from mtdcore.results.volumes.copies import VolumeCopies, find_copies
from mtdcore.synthetic.particles import VolumeSimulation, simulate_volume
from mtdcore.synthetic.volumes import chain

_SIDE = 9

_TRANSFER = np.stack([np.linspace(1.0, 0.5, 17), np.cos(np.linspace(0.0, 2.0, 17))])


class _White:
    """A prior over volumes: independent voxels."""

    def score(self, images: Any, noise_std: float) -> Any:
        return -images / (0.04 + noise_std**2)


#: What a run is given beside the simulation, and whether its last iteration searches locally.
WAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "every view everywhere": ({"views": 60}, False),
    "local search": ({"views": 450}, True),
    "transfers": ({"views": 450, "micrographs": Micrographs(np.ones(2), transfer=_TRANSFER)}, True),
    "unlike": ({"views": 450, "noise_std": "auto", "each": True}, True),
    "prior": ({"views": 60, "prior": _White()}, False),
    "noise to be learned": ({"views": 60, "noise_std": "auto", "noise": "auto"}, False),
}


@pytest.fixture(scope="module")
def made() -> VolumeSimulation:
    return simulate_volume(
        chain(_SIDE), box_size=_SIDE, count=5, micrographs=2, size=(70, 90), snr=4.0, seed=1
    )


@pytest.fixture(scope="module")
def host() -> Backend:
    return get_backend("cpu", precision="float64", threads=1)


#: Pixels of the second micrograph that are invalid.
MASKS: dict[str, tuple[slice, slice]] = {
    "whole": np.s_[:0, :0],
    "hole": np.s_[30:40, 5:12],
    "blank": np.s_[:, :],
}


def _pixels(made: VolumeSimulation, mask: str) -> np.ndarray:
    pixels = np.array(made.pixels)
    pixels[(1, *MASKS[mask])] = np.nan
    return pixels


#: What tells the micrographs apart.
FACTS: dict[str, Micrographs | None] = {
    "alike": None,
    "transfers": Micrographs(np.ones(2), transfer=_TRANSFER),
    "unlike": Micrographs(np.array([1.0, 1.5]), np.array([1.0, 2.0])),
    "unlike, with transfers": Micrographs(np.array([1.0, 1.5]), np.array([1.0, 2.0]), _TRANSFER),
}


def _model(made: VolumeSimulation, views: int, facts: str = "alike") -> tuple[WindowLikelihood, Search]:
    every = Projections(_SIDE, views, band=0.42)
    model = WindowLikelihood(every, made.noise_std, 10.0, 7, micrographs=FACTS[facts])
    return model, Search(every, every.coarse(60, 0.3) if views > 60 else None)


@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize("strength", [1.0, 0.2], ids=["sharp", "vague"])
@pytest.mark.parametrize("facts", list(FACTS))
@pytest.mark.parametrize("views", [60, 450], ids=["everywhere", "local"])
def test_an_e_step_is_that_of_the_cpu(
    backend: CudaBackend,
    host: Backend,
    made: VolumeSimulation,
    views: int,
    facts: str,
    strength: float,
    mask: str,
) -> None:
    """A vague posterior is spread over the corners: their features are made row by row."""
    source, (model, search) = open_measurement(_pixels(made, mask)), _model(made, views, facts)
    found, expected = (
        volume_e_step(source, strength * made.volume, model, search, engine) for engine in (backend, host)
    )
    names = ("right", "log_likelihood", "expected_count", "energy", "sites", "pixels", "local", "total")
    for name in (*names, "weighed_pixels", *(() if FACTS[facts] is None else ("ledger",))):
        one, other = (np.asarray(getattr(e, name)) for e in (found, expected))
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(other).max(), err_msg=name)
    scale = expected.normal.bound
    np.testing.assert_allclose(found.normal.spectrum, expected.normal.spectrum, rtol=0, atol=1e-9 * scale)
    # a blank tile has no places and counts as searched locally
    assert (expected.local > 0.5 * expected.sites) == (views == 450 and strength == 1.0)


def test_an_e_step_in_single_precision_is_that_of_the_cpu(
    backend: CudaBackend, made: VolumeSimulation
) -> None:
    model, search = _model(made, 450)
    found, expected = (
        volume_e_step(made.measurement, made.volume, model, search, engine)
        for engine in (CudaBackend(backend.device, "float32"), get_backend("cpu"))
    )
    np.testing.assert_allclose(found.right, expected.right, rtol=0, atol=1e-4 * np.abs(expected.right).max())
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-5)
    assert found.local == expected.local > 0


@pytest.mark.parametrize("mask", ["whole", "hole"])
@pytest.mark.parametrize("way", list(WAYS))
def test_recover_volume(
    backend: CudaBackend, host: Backend, made: VolumeSimulation, way: str, mask: str
) -> None:
    """To 1 %: the conjugate gradients of an M-step stop at a residual of 1e-3, where rounding decides on which side."""
    options, local = WAYS[way]
    given = {"noise_std": made.noise_std, "initial": made.volume, "iterations": 3, "parts": 1} | options
    found, expected = (
        recover_volume(_pixels(made, mask), box_size=_SIDE, backend=engine, **given)
        for engine in (backend, host)
    )
    assert (expected.history[-1].local > 0.0) == local
    assert isinstance(found.volume, np.ndarray)
    scale = np.abs(expected.volume).max()
    np.testing.assert_allclose(found.volume, expected.volume, rtol=0, atol=0.01 * scale)
    assert found.evidence == pytest.approx(expected.evidence, rel=1e-3)
    assert found.noise_std == pytest.approx(expected.noise_std, rel=1e-3)


def test_the_prior_is_asked_on_the_device(backend: CudaBackend, made: VolumeSimulation) -> None:
    asked: list[bool] = []

    class Spy(_White):
        def score(self, images: Any, noise_std: float) -> Any:
            asked.append(isinstance(images, backend.xp.ndarray))
            return super().score(images, noise_std)

    options = {"noise_std": made.noise_std, "initial": made.volume, "views": 60, "iterations": 2}
    recover_volume(made.measurement, box_size=_SIDE, prior=Spy(), backend=backend, **options)
    assert asked
    assert all(asked)


def test_what_follows_a_recovery(backend: CudaBackend, host: Backend, made: VolumeSimulation) -> None:
    model, search = _model(made, 450)
    found, expected = (
        find_copies(made.measurement, made.volume, model, search, backend=engine)
        for engine in (backend, host)
    )
    assert len(found) == len(expected) > 5

    def listed(copies: VolumeCopies) -> list[tuple[float, ...]]:
        """Certain copies are in no particular order."""
        each = (
            copies.micrograph,
            copies.row,
            copies.column,
            copies.probability,
            *copies.rotations.reshape(-1, 9).T,
        )
        return sorted(zip(*(one.tolist() for one in each), strict=True))

    np.testing.assert_allclose(listed(found), listed(expected), rtol=0, atol=1e-9)
    rests, wanted = (
        list(left_over(made.measurement, made.volume, model, search, 2, engine)) for engine in (backend, host)
    )
    for (rest, _), (plain, _) in zip(rests, wanted, strict=True):
        np.testing.assert_allclose(rest, plain, atol=1e-6)
