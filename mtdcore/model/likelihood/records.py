"""Likelihoods as plain values, for checkpoints and run folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..optics import Micrographs
from .patch import PatchLikelihood
from .window import WindowLikelihood


def likelihood_record(likelihood: PatchLikelihood | WindowLikelihood) -> dict[str, Any]:
    """A likelihood as JSON-able values: its class under "model", then its attributes."""
    values = {field.name: getattr(likelihood, field.name) for field in fields(likelihood)}
    if likelihood.micrographs is not None:
        facts = vars(likelihood.micrographs)
        values["micrographs"] = {name: None if a is None else a.tolist() for name, a in facts.items()}
    return {"model": type(likelihood).__name__, **values}


def likelihood_from_record(record: Mapping[str, Any]) -> PatchLikelihood | WindowLikelihood:
    """The likelihood of which :func:`likelihood_record` made this record."""
    models = {model.__name__: model for model in (PatchLikelihood, WindowLikelihood)}
    values = {name: value for name, value in record.items() if name != "model"}
    if values.get("class_weights") is not None:
        values["class_weights"] = tuple(values["class_weights"])
    if values.get("micrographs") is not None:
        values["micrographs"] = Micrographs(**values["micrographs"])
    return models[record["model"]](**values)
