"""Rotations in space: near-uniform sets, point groups, neighbours, and the Euler angles of RELION.

A rotation is a (3, 3) matrix R that acts on column vectors (x, y, z), as in ``scipy.spatial.transform.Rotation``. A volume
turned by R is ``V'(r) = V(R^T r)``, and its view is the projection of V' along z. RELION's Euler matrix A samples the slice of
the image frequency k at ``A^T k``, so A is this R: ``R = Rz(-psi) Ry(-tilt) Rz(-rot)`` (Heymann, Chagoyen and Belnap,
J. Struct. Biol. 151 (2005) 196). A turn by psi alone is counter-clockwise as displayed with row 0 on top.
"""

from __future__ import annotations

import math
import re

import numpy as np

from ...errors import ParameterError

#: Irrational steps of the spiral: sqrt(2), and the real root of psi^4 = psi + 4.
_PHI, _PSI = math.sqrt(2.0), 1.533751168755204288118041

#: Golden ratio, of the icosahedral axes.
_GOLDEN = (1.0 + math.sqrt(5.0)) / 2.0

#: Axes (x, y, z) and orders of generators, in the frames of RELION: T has a three-fold axis on z, O a four-fold one, I a two-fold one.
_POLYHEDRAL: dict[str, tuple[tuple[tuple[float, float, float], int], ...]] = {
    "T": (((0, 0, 1), 3), ((0, math.sqrt(2 / 3), math.sqrt(1 / 3)), 2)),
    "O": (((0, 0, 1), 4), ((1, 1, 1), 3)),
    "I": (((0, 0, 1), 2), ((1, 0, _GOLDEN), 5), ((0, 1, _GOLDEN**2), 3)),
}

#: Largest difference of entries of two matrices that are the same element of a group.
_SAME = 1e-6


def spiral(count: int) -> np.ndarray:
    """Near-uniform rotations by a super-Fibonacci spiral.

    Source: Alexa, *Super-Fibonacci spirals: fast, low-discrepancy sampling of SO(3)*, CVPR 2022.

    Args:
        count: number T of rotations, any positive number.

    Returns:
        (T, 3, 3) float64, always the same for the same count.

    Raises:
        ParameterError: the count is not positive.
    """
    if count < 1:
        raise ParameterError(f"a set of rotations has at least one; got {count}.")
    at = np.arange(count) + 0.5
    inner, outer = np.sqrt(at / count), np.sqrt(1.0 - at / count)
    alpha, beta = 2.0 * np.pi * at / _PHI, 2.0 * np.pi * at / _PSI
    return matrices(
        np.stack(
            [inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)], 1
        )
    )


def random_rotations(count: int, rng: np.random.Generator) -> np.ndarray:
    """(T, 3, 3) float64 independent rotations, uniform on SO(3)."""
    return matrices(rng.standard_normal((count, 4)))


def view_set(count: int, symmetry: str = "C1") -> np.ndarray:
    """Near-uniform rotations of which no two show the same view of an object of this symmetry.

    A rotation R and R g, g an element of the group, show the same view. Of a spiral of ``count |G|`` rotations the ones
    nearer to the identity than their partners are kept.

    Args:
        count: number T of views; reached exactly without symmetry, approximately with one.
        symmetry: see :func:`group`.

    Returns:
        (about T, 3, 3) float64, at least one.
    """
    elements = group(symmetry)
    full = spiral(count * len(elements))
    if len(elements) == 1:
        return full
    traces = np.einsum("tij,gji->tg", full, elements)  # the trace falls with the angle
    kept = full[traces.argmax(axis=1) == 0]
    return np.asarray(kept if len(kept) else full[:1])


def group(symmetry: str) -> np.ndarray:
    """Elements of a point group: C1, C2, ..., D2, D3, ..., T, O or I.

    Axes are oriented as in RELION: the main axis on z; D_n has a two-fold axis on x.

    Returns:
        (|G|, 3, 3) float64, the identity first.

    Raises:
        ParameterError: no such group.
    """
    name = symmetry.upper()
    found = re.fullmatch(r"([CD])([1-9]\d?)", name)
    if found:
        generators = [_turn((0, 0, 1), int(found[2]))] + ([_turn((1, 0, 0), 2)] if found[1] == "D" else [])
    elif name in _POLYHEDRAL:
        generators = [_turn(axis, order) for axis, order in _POLYHEDRAL[name]]
    else:
        raise ParameterError(f"the symmetry should be C1, C2, ..., D2, D3, ..., T, O or I; got {symmetry}.")
    elements = [np.eye(3)]
    for element in elements:  # the list grows during the loop, up to all products of generators
        for generator in generators:
            product = generator @ element
            if all(np.abs(product - known).max() > _SAME for known in elements):
                elements.append(product)
    return np.array(elements)


def neighbours(rotation: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` rotations of (T, 3, 3) ``among`` at the smallest angle to one (3, 3) rotation, nearest first."""
    traces = np.einsum("tij,ij->t", among, rotation)
    nearest = np.argsort(-traces, kind="stable")[:count]
    return np.asarray(nearest)


def angle_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Geodesic distance in radians of (..., 3, 3) rotations, between 0 and pi."""
    # The chord ||R - S||_F = sqrt(8) sin(angle / 2) is precise for small angles; arccos of a trace is not.
    chord = np.linalg.norm(np.asarray(first) - np.asarray(second), axis=(-2, -1))
    return np.asarray(2.0 * np.arcsin(np.clip(chord / math.sqrt(8.0), 0.0, 1.0)))


def spacing(count: int) -> float:
    """Typical angle in radians between neighbours among ``count`` near-uniform rotations.

    A ball of this diameter has the volume ``8 pi^2 / count`` of a rotation's cell (SO(3) as half of the sphere of radius 2).
    """
    return 2.0 * math.cbrt(6.0 * math.pi / count)


def matrices(quaternions: np.ndarray) -> np.ndarray:
    """(T, 4) quaternions (w, x, y, z) of any length -> (T, 3, 3) rotations."""
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def from_euler(angles: np.ndarray) -> np.ndarray:
    """(T, 3) RELION angles (rot, tilt, psi) in degrees -> (T, 3, 3) rotations."""
    rot, tilt, psi = np.deg2rad(np.atleast_2d(angles)).T
    turns = [_about_z(-psi), _about_y(-tilt), _about_z(-rot)]
    return np.asarray(turns[0] @ turns[1] @ turns[2])


def to_euler(rotations: np.ndarray) -> np.ndarray:
    """(T, 3, 3) rotations -> (T, 3) RELION angles (rot, tilt, psi) in degrees, tilt in [0, 180].

    If tilt is 0 or 180, only the sum or difference of rot and psi is determined: psi is then 0.
    """
    r = np.asarray(rotations)
    sine = np.hypot(r[:, 2, 0], r[:, 2, 1])
    tilt = np.arctan2(sine, r[:, 2, 2])
    free = sine > 1e-9
    psi = np.where(free, np.arctan2(r[:, 1, 2], -r[:, 0, 2]), 0.0)
    rot = np.where(free, np.arctan2(r[:, 2, 1], r[:, 2, 0]), np.arctan2(-r[:, 1, 0], r[:, 1, 1]))
    return np.asarray(np.rad2deg(np.stack([rot, tilt, psi], 1)))


def _turn(axis: tuple[float, float, float], order: int) -> np.ndarray:
    """Rotation by ``2 pi / order`` about an axis (Rodrigues)."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = 2.0 * math.pi / order
    return np.asarray(np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * cross @ cross)


def _about_z(angle: np.ndarray) -> np.ndarray:
    c, s, o = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    return np.moveaxis(np.array([[c, -s, o], [s, c, o], [o, o, o + 1]]), -1, 0)


def _about_y(angle: np.ndarray) -> np.ndarray:
    c, s, o = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    return np.moveaxis(np.array([[c, o, s], [o, o + 1, o], [-s, o, c]]), -1, 0)
