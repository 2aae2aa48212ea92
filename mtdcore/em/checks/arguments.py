"""Checks of the arguments of :func:`mtdcore.recover`, before anything is computed."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, get_args

from ...errors import ParameterError
from ...model.priors import Prior, is_flat
from ...model.views import Views
from ...mstep.noise import Noise
from ...mstep.updates import Update

#: How a target is found.
Method: TypeAlias = Literal["em", "moments"]


def check_arguments(
    *,
    rotations: object,
    prior: object,
    update: object,
    micrographs: object,
    min_separation: object,
    coarse_rotations: object,
    starts: object,
    seed: object,
    iterations: object,
    tolerance: object,
    temperature: object,
    noise: object,
    callback: object,
) -> None:
    """Raise ParameterError for the first argument of a wrong type or outside its domain; arguments as in :func:`mtdcore.recover`."""
    if not (rotations is None or isinstance(rotations, Views) or is_whole(rotations)):
        raise ParameterError(
            f"rotations must be a number of angles or views of the target; got {rotations!r}."
        )
    if isinstance(rotations, Views) and len(rotations.target_shape) - (rotations.classes > 1) > 2:
        raise ParameterError(
            "rotations are views of a volume, and recover finds images: use mtdcore.recover_volume, which chooses its views itself."
        )
    if prior is not None and not callable(getattr(prior, "score", None)):
        raise ParameterError(
            f"prior must be an object with a method score(images, noise_std), or None; got {prior!r}: a name stands for a file, "
            "load it first (mtdbridge.load_prior)."
        )
    if update is not None and not (callable(update) and hasattr(update, "uses_prior")):
        raise ParameterError(
            f"update must be an M-step such as ExactUpdate(), or None; got {update!r}: give an object, not its name."
        )
    if not (micrographs is None or micrographs == "each" or hasattr(micrographs, "noise_ratio")):
        raise ParameterError(
            f'micrographs must be a Micrographs object, "each" or None; got {micrographs!r}.'
        )
    for name, value, words in (
        ("min_separation", min_separation, ("auto",)),
        ("coarse_rotations", coarse_rotations, ("auto",)),
        ("temperature", temperature, ("auto",)),
    ):
        if not (value is None or value in words or isinstance(value, Real)):
            raise ParameterError(f'{name} must be a number, "auto" or None; got {value!r}.')
    if noise not in get_args(Noise):
        raise ParameterError(f'noise must be "auto", "white" or "spectrum"; got {noise!r}.')
    if starts is not None and not (is_whole(starts) and starts > 0):  # type: ignore[operator]
        raise ParameterError(f"starts must be a positive number; got {starts!r}.")
    for name, value in (("seed", seed), ("iterations", iterations)):
        if not is_whole(value) or value < 0:  # type: ignore[operator]
            raise ParameterError(f"{name} must be a whole number of at least 0; got {value!r}.")
    if not (isinstance(tolerance, Real) and float(tolerance) >= 0.0):
        raise ParameterError(f"tolerance must be a number of at least 0; got {tolerance!r}.")
    if callback is not None and not callable(callback):
        raise ParameterError(f"callback must be a function of the state, or None; got {callback!r}.")


def check_agreement(prior: Prior, update: Update) -> None:
    """Raise ParameterError where a prior is given beside an M-step that ignores it."""
    if not (is_flat(prior) or update.uses_prior):
        raise ParameterError(
            f"the prior would be ignored: {type(update).__name__} does not use one; leave out the prior, or give another update "
            "(DenoisingUpdate, the default with a prior)."
        )


def asks_for_moments(method: Method, initial: object, micrographs: object) -> bool:
    """Whether a run needs the moments of its measurement.

    Raises:
        ParameterError: the method is unknown, a start is given by name beside the method of moments, or micrographs are told apart.
    """
    if method not in get_args(Method):
        raise ParameterError(f'method must be "em" or "moments"; got {method!r}.')
    word = isinstance(initial, str)
    if method == "moments" and word:
        raise ParameterError(
            f"the method of moments has random starts of its own, or an image to start from; got initial={initial!r}: leave it out."
        )
    asked = method == "moments" or (word and initial == "moments")
    if asked and micrographs is not None:
        raise ParameterError(
            "moments take micrographs to be alike, in noise, density and transfer: leave out micrographs (--micrographs alike), or "
            "recover by EM from another start."
        )
    return asked


def check_diameter(diameter: object, box: tuple[int, int]) -> None:
    """Raise ParameterError unless the diameter is None, or between one pixel and the side of the box."""
    if diameter is None:
        return
    if box[0] != box[1]:
        raise ParameterError(
            f"diameter is that of a round object in a square box; got {diameter!r} and a box of {box[0]} x {box[1]} pixels: give "
            'min_separation instead, a number or "auto".'
        )
    if not (isinstance(diameter, Real) and 1.0 <= float(diameter) <= min(box)):
        got = f"{float(diameter):.4g}" if isinstance(diameter, Real) else repr(diameter)
        raise ParameterError(
            f"diameter must be a number of pixels from 1 to the box size, {min(box)}; got {got}: give a larger box_size, or "
            "the diameter in pixels of the measurement."
        )


def check_subpixel(subpixel: bool, likelihood: object) -> None:
    """Raise ParameterError if sub-pixel copies are requested with the patch likelihood."""
    if subpixel and likelihood == "patch":
        raise ParameterError(
            "sub-pixel places need the window likelihood, in which a copy has one place; got the patch likelihood: leave out "
            "subpixel, or choose the window likelihood."
        )


def check_amplitude_std(amplitude_std: object, likelihood: object) -> None:
    """Raise ParameterError unless the spread of the amplitudes is "auto" or a number of at least 0, and 0 for the patch likelihood."""
    if amplitude_std != "auto" and not (isinstance(amplitude_std, Real) and float(amplitude_std) >= 0.0):
        raise ParameterError(
            f'amplitude_std must be "auto" or a number of at least 0; got {amplitude_std!r}.'
        )
    whole = likelihood != "patch" and getattr(likelihood, "localises", True)
    if amplitude_std != 0.0 and not whole:
        raise ParameterError(
            f"amplitudes of copies need the window likelihood, in which a copy is judged whole; got amplitude_std {amplitude_std!r} for "
            "the patch likelihood: leave it out, or choose the window likelihood."
        )


def is_whole(value: Any) -> bool:
    """Whether the value is a whole number; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)
