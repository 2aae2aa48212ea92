"""Rotations in space against SciPy's and against RELION's definition."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtdcore.errors import ParameterError
from mtdcore.model.volumes import so3

ORDERS = {"C1": 1, "C2": 2, "C7": 7, "D2": 4, "D7": 14, "T": 12, "O": 24, "I": 60}


def relion_matrix(rot, tilt, psi):
    """RELION's Euler_angles2matrix, entry by entry."""
    (sa, sb, sg), (ca, cb, cg) = (f(np.deg2rad([rot, tilt, psi])) for f in (np.sin, np.cos))
    return np.array(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


def test_euler_angles_are_those_of_relion_and_scipy():
    angles = np.random.default_rng(0).uniform([-180, 0, -180], [180, 180, 180], (50, 3))
    ours = so3.from_euler(angles)
    np.testing.assert_allclose(ours, [relion_matrix(*a) for a in angles], atol=1e-12)
    scipy = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()
    np.testing.assert_allclose(ours, scipy, atol=1e-12)
    np.testing.assert_allclose(so3.to_euler(ours), angles, atol=1e-7)


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_euler_angles_at_the_poles_give_the_rotation_back(tilt):
    turned = so3.from_euler(np.array([[40.0, tilt, 25.0]]))
    np.testing.assert_allclose(so3.from_euler(so3.to_euler(turned)), turned, atol=1e-9)


def test_quaternions_are_those_of_scipy():
    q = np.random.default_rng(1).standard_normal((20, 4))
    np.testing.assert_allclose(
        so3.matrices(q), Rotation.from_quat(q, scalar_first=True).as_matrix(), atol=1e-12
    )


@pytest.mark.parametrize("count", [100, 1000])
def test_the_spiral_is_near_uniform(count):
    """Every rotation has one of the set within three quarters of a spacing; of random ones some are farther."""
    probes = so3.random_rotations(500, np.random.default_rng(2))

    def farthest(rotations):
        return max(so3.angle_between(rotations, probe).min() for probe in probes)

    assert farthest(so3.spiral(count)) < 0.75 * so3.spacing(count)
    assert farthest(so3.random_rotations(count, np.random.default_rng(3))) > 0.85 * so3.spacing(count)


@pytest.mark.parametrize("symmetry", ORDERS)
def test_groups_are_closed_and_of_their_order(symmetry):
    elements = so3.group(symmetry)
    assert len(elements) == ORDERS[symmetry]
    np.testing.assert_allclose(elements[0], np.eye(3))
    np.testing.assert_allclose(np.linalg.det(elements), 1.0)
    products = np.einsum("aij,bjk->abik", elements, elements)
    distance = np.abs(products[:, :, None] - elements).max(axis=(-2, -1)).min(axis=-1)
    assert distance.max() < 1e-6


@pytest.mark.parametrize("symmetry", ORDERS)
def test_a_view_set_and_its_partners_cover_space(symmetry):
    views = so3.view_set(60, symmetry)
    order = ORDERS[symmetry]
    assert len(so3.view_set(1, symmetry)) >= 1
    assert abs(len(views) - 60) <= 12
    partners = np.einsum("tij,gjk->tgik", views, so3.group(symmetry)).reshape(-1, 3, 3)
    probes = so3.random_rotations(200, np.random.default_rng(4))
    assert max(so3.angle_between(partners, p).min() for p in probes) < 0.9 * so3.spacing(60 * order)


def test_neighbours_come_nearest_first():
    among = so3.spiral(300)
    found = so3.neighbours(among[17], among, 9)
    angles = so3.angle_between(among[found], among[17])
    assert found[0] == 17
    assert (np.diff(angles) >= 0).all()
    assert angles[-1] <= np.sort(so3.angle_between(among, among[17]))[8] + 1e-12
    scipy = Rotation.from_matrix(among[3]).inv() * Rotation.from_matrix(among[4])
    assert so3.angle_between(among[3], among[4]) == pytest.approx(scipy.magnitude())


@pytest.mark.parametrize("symmetry", ["C0", "D", "X", "", "C1.5"])
def test_unknown_groups_are_refused(symmetry):
    with pytest.raises(ParameterError, match="symmetry"):
        so3.group(symmetry)
