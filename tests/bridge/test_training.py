import numpy as np
import pytest
import torch

from mtdbridge import Augmentation, Pace, load_prior, train_prior
from mtdbridge.training.draws import Batches, log_uniform, shift_images, step_generator, uniform
from mtdbridge.training.options import TrainingOptions
from mtdcore.errors import CheckpointError, DeviceError, InputError, ParameterError, StorageError
from mtdcore.model.sampling import sample_prior

SMALL = {"channels": (4, 6, 8), "embedding": 8}
QUICK = {"network_options": SMALL, "steps": 12, "batch_size": 8, "validation": 16}


@pytest.fixture(scope="module")
def images():
    """Bright squares at random places: simple, but not Gaussian."""
    generator = np.random.default_rng(0)
    stack = np.zeros((200, 8, 8), np.float32)
    for image, (row, column) in zip(stack, generator.integers(0, 5, (200, 2)), strict=True):
        image[row : row + 3, column : column + 3] = 1
    return stack


def weights(prior):
    return {name: value.clone() for name, value in prior.network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_seed_fixes_every_bit_and_torch_is_left_as_it_was(images):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = weights(train_prior(images, **QUICK))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(100)
    assert same(first, weights(train_prior(images, **QUICK)))
    assert not same(first, weights(train_prior(images, **QUICK, seed=1)))


@pytest.mark.parametrize(
    "kind",
    [
        {"network": "denoiser", "network_options": SMALL, "augmentation": Augmentation(1, 0.5, True, True)},
        {"network": "unet", "network_options": {"width": 3}},
        {"network": "mlp", "network_options": {"width": 8}, "hutchinson": True},
    ],
    ids=["denoiser", "unet", "mlp"],
)
def test_a_stopped_training_resumes_to_the_same_bits(tmp_path, images, kind):
    options = {**QUICK, **kind}
    whole = weights(train_prior(images, **options))
    path = tmp_path / "prior.safetensors"
    pace = Pace(report_every=1, validate_every=4)
    train_prior(images, **options, output=path, pace=pace, callback=lambda progress: progress.step == 5)
    assert load_prior(path).card.training["steps_done"] == 5
    assert not load_prior(path).card.training["complete"]
    reported = []
    final = train_prior(
        images, **options, output=path, pace=pace, resume=True, callback=lambda p: reported.append(p.step)
    )
    assert reported == list(range(6, 13))
    assert same(weights(final), whole)
    assert same(weights(load_prior(path)), whole)
    card = load_prior(path).card
    assert card.training["complete"]
    assert [entry["step"] for entry in card.metrics["history"]] == list(range(1, 13))
    assert card.metrics["validation"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["prior.safetensors"]


def test_a_training_stops_after_any_step_and_goes_on_from_there(tmp_path, images):
    """A report may be a minute away where a step takes a second."""
    path, asked = tmp_path / "prior.safetensors", iter([False, False, True])
    options = {**QUICK, "output": path}
    early = train_prior(images, **options, pace=Pace(report_every=10, stopping=lambda: next(asked)))
    assert early.card.training["steps_done"] == 3
    final = train_prior(images, **options, pace=Pace(report_every=10), resume=True)
    assert same(weights(final), weights(train_prior(images, **QUICK)))
    assert [entry["step"] for entry in final.card.metrics["history"]] == [10, 12]


def test_the_number_of_steps_may_change_on_resume(tmp_path, images):
    path = tmp_path / "prior.safetensors"
    train_prior(images, **QUICK, output=path, pace=Pace(report_every=1), callback=lambda p: p.step == 5)
    with pytest.raises(CheckpointError, match="5 steps are done"):
        train_prior(images, **{**QUICK, "steps": 4}, output=path, resume=True)
    card = train_prior(images, **{**QUICK, "steps": 7}, output=path, resume=True).card
    assert card.training["steps_done"] == card.training["steps"] == 7
    assert card.training["earlier_schedules"] == [{"steps": 12, "until_step": 5}]


def test_resuming_a_finished_training_only_loads_it(tmp_path, images):
    path = tmp_path / "prior.safetensors"
    train_prior(images, **QUICK, output=path)
    before = path.stat().st_mtime_ns

    def never(progress):
        raise AssertionError("trained again")

    train_prior(images, **QUICK, output=path, resume=True, callback=never)
    assert path.stat().st_mtime_ns == before


def test_resume_refuses_another_training(tmp_path, images):
    path = tmp_path / "prior.safetensors"
    pace = Pace(report_every=1)
    train_prior(images, **QUICK, output=path, pace=pace, callback=lambda progress: True)
    other = {"learning_rate": 1e-3, "seed": 3, "network_options": {**SMALL, "embedding": 10}}
    for name, value in other.items():
        expected = "options" if name == "network_options" else name
        with pytest.raises(CheckpointError, match=expected):
            train_prior(images, **{**QUICK, name: value}, output=path, resume=True)
    with pytest.raises(CheckpointError, match=r"options|images"):
        train_prior(images[::-1], **QUICK, output=path, resume=True)
    state = path.with_name(path.name + ".state")
    state.write_bytes(state.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged one"):
        train_prior(images, **QUICK, output=path, resume=True)


def test_the_denoiser_learns(images):
    reports = []
    prior = train_prior(
        images,
        network_options=SMALL,
        steps=250,
        batch_size=32,
        validation=40,
        learning_rate=1e-2,
        ema_decay=0.95,
        pace=Pace(report_every=25, validate_every=250),
        callback=reports.append,
    )
    assert reports[-1].loss < 0.6 * reports[0].loss
    assert all(report.images_per_second > 0 for report in reports)
    errors = reports[-1].validation
    assert list(errors) == ["0.05", "0.1", "0.2", "0.3", "0.5", "1", "2"]
    clean = images[-40:]
    std = float(images.std())
    noisy = clean + 0.5 * np.random.default_rng(1).standard_normal(clean.shape, dtype=np.float32)
    linear = images.mean() + (noisy - images.mean()) * std**2 / (std**2 + 0.25)
    baseline = (np.linalg.norm(linear - clean, axis=(1, 2)) / np.linalg.norm(clean, axis=(1, 2))).mean()
    assert errors["0.5"] < 0.75 * baseline  # far better than pixel by pixel
    samples = sample_prior(prior, 16, 8)
    assert abs(samples.mean() - images.mean()) < 0.1


def test_the_paper_mlp_recovers_the_score_of_a_gaussian():
    """Implicit score matching on N(mu, I), mu in {0..4}: the score is mu - x (docs/model.md 6, smaller)."""
    generator = np.random.default_rng(0)
    mean = generator.integers(0, 5, (3, 3)).astype(np.float32)
    samples = mean + generator.standard_normal((4000, 3, 3), dtype=np.float32)
    prior = train_prior(samples, network="mlp", steps=250, batch_size=100, validation=200, learning_rate=3e-3)
    fresh = mean + generator.standard_normal((500, 3, 3), dtype=np.float32)
    difference = prior.score(fresh, 0.0) - (mean - fresh)
    assert np.linalg.norm(difference) < 0.3 * np.linalg.norm(mean - fresh)


def test_bfloat16_trains_float32_weights(images):
    prior = train_prior(images, **QUICK, precision="bfloat16")
    assert next(prior.network.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"network": "gan"}, ParameterError),
        ({"loss": "ism"}, ParameterError),
        ({"steps": 0}, ParameterError),
        ({"learning_rate": 0.0}, ParameterError),
        ({"ema_decay": 1.0}, ParameterError),
        ({"levels": (1.0, 0.1)}, ParameterError),
        ({"precision": "float8"}, ParameterError),
        ({"warmup": 3}, ParameterError),
        ({"network_options": {"depth": 3}}, ParameterError),
        ({"resume": True}, ParameterError),
        ({"validation": 195}, InputError),
        ({"device": "cuda:99"}, DeviceError),
        ({"output": "no/such/folder/w.safetensors"}, StorageError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_options_are_refused(images, options, error):
    with pytest.raises(error):
        train_prior(images, **{**QUICK, **options})


def test_a_loss_that_became_nan_is_said(images):
    with pytest.raises(InputError, match="learning rate"):
        train_prior(images * 1e30, **{**QUICK, "network": "unet", "network_options": {"width": 3}})


def test_batches_show_every_image_once_per_epoch():
    batches = Batches(10, 3, seed=0)
    epoch = torch.cat([batches(step) for step in range(3)])
    assert len(set(epoch.tolist())) == 9
    assert torch.equal(Batches(10, 3, seed=0)(4), batches(4))
    assert not torch.equal(batches(0), batches(3))


def test_draws_are_stratified_and_within_range():
    generator = step_generator(0, 0)
    draws = uniform(100, generator)
    assert sorted((draws * 100).floor().int().tolist()) == list(range(100))
    levels = log_uniform(1000, 0.02, 4.0, generator)
    assert 0.02 <= levels.min() < 0.021
    assert 3.9 < levels.max() <= 4.0
    assert levels.log().mean().item() == pytest.approx(0.5 * np.log(0.02 * 4), abs=0.01)


def test_shifts_move_images_and_fill_with_zero(images):
    stack = torch.from_numpy(images[:3])
    moves = torch.tensor([[1, 0], [0, -2], [0, 0]])
    shifted = shift_images(stack, moves, 2)
    assert torch.equal(shifted[0, 1:], stack[0, :-1])
    assert not shifted[0, 0].any()
    assert torch.equal(shifted[1, :, :-2], stack[1, :, 2:])
    assert torch.equal(shifted[2], stack[2])


def test_augmentations(images):
    stack = torch.from_numpy(images[:50])
    turned = Augmentation(rotate=True, flip=True)(stack, step_generator(0, 1))
    for before, after in zip(stack, turned, strict=True):
        turns = [torch.rot90(x, k) for k in range(4) for x in (before, before.flip(-1))]
        assert any(torch.equal(after, turn) for turn in turns)
    some = Augmentation(shift=1, shift_fraction=0.3)(stack, step_generator(0, 1))
    unmoved = sum(torch.equal(a, b) for a, b in zip(stack, some, strict=True))
    assert 25 < unmoved < 48
    with pytest.raises(ParameterError):
        Augmentation(shift=-1)


def test_the_schedule_warms_up_and_ends_at_zero():
    options = TrainingOptions(steps=1000, learning_rate=0.1)
    rates = [options.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(0.1)
    assert rates[-1] < 1e-5
    assert rates[505] == pytest.approx(0.05, rel=0.01)
