"""Likelihoods as plain values, for checkpoints and run folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..filters.optics import Micrographs
from ..filters.whitening import Whitening
from ..records import views_from_record, views_record
from .base import Likelihood
from .patch import PatchLikelihood
from .window import WindowLikelihood

_LIKELIHOODS = {kind.__name__: kind for kind in (PatchLikelihood, WindowLikelihood)}


def likelihood_record(likelihood: Likelihood) -> dict[str, Any]:
    """A likelihood as JSON-able values: its class under "model", then its attributes."""
    values = {field.name: getattr(likelihood, field.name) for field in fields(likelihood)}
    values["views"] = views_record(likelihood.views)
    values["whitening"] = likelihood.whitening and likelihood.whitening.record()
    if likelihood.micrographs is not None:
        optics = vars(likelihood.micrographs)
        values["micrographs"] = {name: None if a is None else a.tolist() for name, a in optics.items()}
    return {"model": type(likelihood).__name__, **values}


def likelihood_from_record(record: Mapping[str, Any]) -> Likelihood:
    """The likelihood of a record of :func:`likelihood_record`."""
    kind = _LIKELIHOODS[record["model"]]
    values = {name: value for name, value in record.items() if name != "model"}
    values["views"] = views_from_record(values["views"])
    for name in ("class_weights", "corners", "margin"):
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    if values.get("micrographs") is not None:
        values["micrographs"] = Micrographs(**values["micrographs"])
    if values.get("whitening") is not None:
        values["whitening"] = Whitening.from_record(values["whitening"])
    return kind(**values)
