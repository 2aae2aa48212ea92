import json

import numpy as np
import pytest
import torch

from mtdbridge.priors.weights import load_weights
from mtdbridge.proteins.batches import DrawingOptions
from mtdbridge.proteins.plans import PLANS, TrainingPlan
from mtdbridge.proteins.structures import centred
from mtdbridge.proteins.training import ProteinTraining
from mtdcore.errors import InputError, ParameterError


def structures(parts=(0, 0, 0, 1, 2)):
    generator = np.random.default_rng(0)
    offset = np.arange(len(parts) + 1) * 30
    points = generator.standard_normal((offset[-1], 3)) * 15
    names = np.arange(len(parts)).astype(np.str_)
    return centred(points, np.full(offset[-1], 30.0), offset, names, np.array(parts))


def plan(dimension=2, **changes):
    return TrainingPlan(
        **{
            "drawing": DrawingOptions(dimension=dimension),
            "boxes": (8, 12),
            "box_size": 12,
            "channels": (4, 6),
            "pixels": 12**dimension * 4,
            "steps": 6,
            "seconds": None,
            "precision": "float32",
            **changes,
        }
    )


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_training_writes_weights_and_its_history(tmp_path, dimension):
    path = tmp_path / "w.safetensors"
    training = ProteinTraining(structures(), plan(dimension), output=path, source="s.npz", validation_count=3)
    training.run()
    network, card = load_weights(path)
    assert card.network == "multiscale"
    assert card.training["complete"]
    assert card.training["steps_done"] == 6
    assert card.data["count"] == 3
    assert set(card.metrics["validation"]) == {"12"}
    assert network.options["boxes"] == [8, 12]
    full, _ = load_weights(tmp_path / "w.full.safetensors")
    for half, single in zip(network.parameters(), full.parameters(), strict=True):
        torch.testing.assert_close(half, single, rtol=1e-3, atol=1e-4)
    assert json.loads((tmp_path / "w.json").read_text())["history"][-1]["step"] == 6


def test_the_same_seed_gives_the_same_weights():
    runs = [ProteinTraining(structures(), plan(seed=s), validation_count=1) for s in (0, 0, 1)]
    for training in runs:
        training.run()
    one, two, other = (torch.cat([p.flatten() for p in t.average.parameters()]) for t in runs)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_test_structures_are_never_drawn():
    def hidden(part):
        return structures((0, 0, 0, 1, part))

    runs = [ProteinTraining(hidden(part), plan(), validation_count=2) for part in (2, 2)]
    assert runs[0]._batches.usable(8).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="for train"):
        ProteinTraining(structures((2, 2, 2, 1, 2)), plan())


def test_training_lowers_the_error():
    training = ProteinTraining(
        structures((0,) * 4 + (1,)), plan(steps=60, learning_rate=5e-3), validation_count=8
    )
    before = training.validate()["12"]["1"]
    training.run()
    assert training.validate()["12"]["1"] < 0.9 * before


def test_it_stops_when_told_and_goes_on_from_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    told = []

    def stop(entry):
        told.append(entry)
        return True

    training = ProteinTraining(structures(), plan(), output=path, report_seconds=0.0, validation_count=1)
    training.run(stop)
    assert training.step == 0
    assert told[0]["loss"] is None
    again = ProteinTraining(structures(), plan(), start=tmp_path / "w.full.safetensors", validation_count=1)
    for one, two in zip(training.average.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert training.card().training["start"] is None
    assert len(again.card().training["start"]) == 64
    with pytest.raises(
        InputError, match=r"w.full.safetensors: expected weights of the network that is trained"
    ):
        ProteinTraining(structures(), plan(channels=(4, 8)), start=tmp_path / "w.full.safetensors")


def test_the_clock_ends_it():
    training = ProteinTraining(structures(), plan(steps=None, seconds=2.0), validation_count=1)
    training.run()
    assert training.step > 0
    assert training.seconds < 4.0


def test_a_loss_that_is_no_number_goes_back_and_slows_down():
    training = ProteinTraining(structures(), plan(), validation_count=1)
    good = training._guarded(0.5, None)
    with torch.no_grad():
        next(training.model.parameters()).fill_(float("nan"))
    assert training._guarded(float("nan"), good) is good
    assert all(torch.isfinite(p).all() for p in training.model.parameters())
    with pytest.raises(InputError, match="lower the learning rate"):
        training._guarded(float("nan"), None)


def test_rates_and_levels_follow_the_plan():
    chosen = PLANS["proteins-3d"]
    assert chosen.rate(0.02) == pytest.approx(chosen.learning_rate)
    assert chosen.rate(0.001) < 0.1 * chosen.learning_rate
    assert chosen.rate(1.0) == pytest.approx(0.0, abs=1e-9)
    assert chosen.count(17) == chosen.count(24)
    levels = chosen.draw_levels(4000, torch.Generator().manual_seed(0))
    assert levels.median() == pytest.approx(0.7, rel=0.1)
    assert levels.min() >= chosen.levels[0]
    assert levels.max() <= chosen.levels[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": None},
        {"boxes": (20, 10)},
        {"levels": (1.0, 0.5)},
        {"learning_rate": 2.0},
        {"precision": "half"},
    ],
)
def test_plans_out_of_their_domain_are_refused(wrong):
    with pytest.raises(ParameterError):
        plan(**wrong)
