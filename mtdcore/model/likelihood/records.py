"""Likelihoods and their views as plain values, for checkpoints and run folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ..optics import Defocused, Micrographs
from ..rotations import Rotations
from ..shifts import Shifted
from ..views import Classes, Views
from .base import Likelihood
from .patch import PatchLikelihood
from .window import WindowLikelihood

_LIKELIHOODS = {kind.__name__: kind for kind in (PatchLikelihood, WindowLikelihood)}
_VIEWS = {kind.__name__: kind for kind in (Rotations, Shifted, Classes, Defocused)}


def likelihood_record(likelihood: Likelihood) -> dict[str, Any]:
    """A likelihood as JSON-able values: its class under "model", then its attributes."""
    values = {field.name: getattr(likelihood, field.name) for field in fields(likelihood)}
    values["views"] = views_record(likelihood.views)
    if likelihood.micrographs is not None:
        optics = vars(likelihood.micrographs)
        values["micrographs"] = {name: None if a is None else a.tolist() for name, a in optics.items()}
    return {"model": type(likelihood).__name__, **values}


def likelihood_from_record(record: Mapping[str, Any]) -> Likelihood:
    """The likelihood of which :func:`likelihood_record` made this record."""
    values = {name: value for name, value in record.items() if name != "model"}
    values["views"] = views_from_record(values["views"])
    if values.get("class_weights") is not None:
        values["class_weights"] = tuple(values["class_weights"])
    if values.get("micrographs") is not None:
        values["micrographs"] = Micrographs(**values["micrographs"])
    return _LIKELIHOODS[record["model"]](**values)


def views_record(views: Views) -> dict[str, Any]:
    """Views as JSON-able values: their class under "view", then their attributes."""
    values: dict[str, Any] = {"view": type(views).__name__}
    for field in fields(views):  # type: ignore[arg-type]
        value = getattr(views, field.name)
        if field.name == "views":
            value = views_record(value)
        values[field.name] = value.tolist() if isinstance(value, np.ndarray) else value
    return values


def views_from_record(record: Mapping[str, Any]) -> Views:
    """The views of which :func:`views_record` made this record."""
    values = {name: value for name, value in record.items() if name != "view"}
    if "views" in values:
        values["views"] = views_from_record(values["views"])
    if "transfer" in values:
        values["transfer"] = np.array(values["transfer"])
    return _VIEWS[record["view"]](**values)
