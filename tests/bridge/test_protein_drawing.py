import math

import numpy as np
import pytest
import torch

from mtdbridge.proteins.batches import DrawingOptions, ProteinBatches, validation_drawings
from mtdbridge.proteins.drawing import draw, inside_ball, random_rotations, transfer
from mtdbridge.proteins.structures import centred
from mtdcore.errors import InputError, ParameterError


def cloud(dimension, count=40, seed=0, size=2.0):
    generator = torch.Generator().manual_seed(seed)
    points = size * torch.randn(1, count, dimension, generator=generator)
    return points, 1 + torch.rand(1, count, generator=generator)


def drawn(points, weights, side, band=2.5, falloff=1.0):
    batch = len(points)
    return draw(points, weights, side, torch.full((batch,), band), torch.full((batch,), falloff))


def some_structures(count=6, radius=40.0):
    generator = np.random.default_rng(0)
    sizes = generator.integers(20, 200, count)
    points = generator.standard_normal((sizes.sum(), 3))
    points *= radius / 2.5
    offset = np.concatenate([[0], np.cumsum(sizes)])
    names = np.array([f"s{i}" for i in range(count)])
    part = np.array([0] * (count - 2) + [1, 2])
    return centred(points, np.full(sizes.sum(), 30.0), offset, names, part)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("side", [15, 16])
def test_one_point_is_a_gaussian_of_its_falloff(dimension, side):
    place = torch.tensor([[[0.3, -1.2, 0.7][:dimension]]])
    std, band = 1.5, 2.0
    falloff = 2 * (math.pi * std / band) ** 2
    image = drawn(place, torch.ones(1, 1), side, band, falloff)[0].numpy()
    axis = np.arange(side) - (side - 1) / 2
    grid = np.stack(np.meshgrid(*[axis] * dimension, indexing="ij"), -1)
    square = np.square(grid - place[0, 0].numpy()).sum(-1)
    expected = np.exp(-square / (2 * std**2)) / (2 * math.pi * std**2) ** (dimension / 2)
    np.testing.assert_allclose(image, expected, atol=1e-3 * expected.max())


@pytest.mark.parametrize("side", [20, 21])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_right_angles_turn_the_image_as_rot90(side, turns):
    points, weights = cloud(2)
    angle = turns * math.pi / 2
    # rows grow downwards: counter-clockwise as displayed takes (y, x) to (y cos - x sin, y sin + x cos)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    image, turned = drawn(points, weights, side)[0], drawn(points @ turn.T, weights, side)[0]
    np.testing.assert_allclose(turned.numpy(), np.rot90(image.numpy(), turns), atol=1e-5)


def test_the_projection_of_a_volume_is_the_image_of_its_points():
    points, weights = cloud(3)
    volume, image = drawn(points, weights, 24)[0], drawn(points[..., 1:], weights, 24)[0]
    torch.testing.assert_close(volume.sum(0), image, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dimension", [2, 3])
def test_nothing_is_left_beyond_the_band_limit_and_the_sum_is_the_weight(dimension):
    points, weights = cloud(dimension)
    image = drawn(points, weights, 24, band=3.0)[0]
    spectrum = torch.fft.fftn(image.double())
    axes = [torch.fft.fftfreq(24)] * dimension
    frequency = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
    assert spectrum[frequency >= 1 / 3.0].abs().max() < 1e-5 * spectrum.abs().max()
    assert float(image.sum()) == pytest.approx(float(weights.sum()), rel=1e-5)


def test_a_shift_of_a_fraction_of_a_pixel_is_a_phase():
    points, weights = cloud(2, size=1.5)
    shift = torch.tensor([0.37, -0.21])
    image, moved = drawn(points, weights, 32)[0], drawn(points + shift, weights, 32)[0]
    f, g = torch.fft.fftfreq(32)[:, None], torch.fft.fftfreq(32)
    phase = torch.exp(-2j * math.pi * (f * shift[0] + g * shift[1]))
    expected = torch.fft.ifft2(torch.fft.fft2(image) * phase).real
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-4)


def test_points_of_no_weight_are_not_seen():
    points, weights = cloud(3)
    more = torch.cat((points, torch.ones(1, 5, 3)), dim=1), torch.cat((weights, torch.zeros(1, 5)), dim=1)
    torch.testing.assert_close(drawn(*more, 12), drawn(points, weights, 12))


def test_transfer_is_one_at_zero_and_zero_at_the_limit():
    values = transfer(torch.tensor([0.0, 0.2, 0.25, 0.4]), torch.tensor(4.0), torch.tensor(0.0))
    assert values.tolist() == pytest.approx([1, 1, 0, 0], abs=1e-6)


def test_rotations_are_proper_and_cover_the_sphere():
    turns = random_rotations(2000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        turns @ turns.transpose(1, 2), torch.eye(3).expand(2000, 3, 3), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(2000), rtol=0, atol=1e-4)
    axis = turns[:, :, 0]
    assert axis.mean(0).abs().max() < 0.06
    assert (axis.T @ axis / 2000 - torch.eye(3) / 3).abs().max() < 0.03


@pytest.mark.parametrize(("dimension", "side"), [(2, 24), (2, 29), (3, 16)])
def test_batches_have_unit_mean_square_and_lie_inside(dimension, side):
    options = DrawingOptions(dimension=dimension, spread=0.0)
    batches = ProteinBatches(some_structures(), options)
    batch = batches(side, 12, torch.Generator().manual_seed(1))
    assert batch.shape == (12,) + (side,) * dimension
    torch.testing.assert_close(batch.flatten(1).square().mean(1), torch.ones(12))
    assert (batch.flatten(1).sum(1) > 0).all()
    if dimension == 3:
        assert batch[:, ~inside_ball(side)].abs().max() == 0
    edge = batch.movedim(1, -1)[..., [0, -1]]
    assert edge.square().sum() < 0.05 * batch.square().sum()


def test_the_same_generator_draws_the_same_batch_and_centres_move():
    batches = ProteinBatches(some_structures(), DrawingOptions())
    one, two = (batches(28, 9, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    axis = torch.arange(28) - 13.5
    rows = (one.sum(2) * axis).sum(1) / one.sum((1, 2))
    assert 0.1 < rows.abs().max() < 0.08 * 28 + 0.5
    assert len(set(rows.tolist())) == 9


def test_pixels_are_never_finer_than_asked():
    small = some_structures(radius=12.0)
    with pytest.raises(InputError, match="expected structures of at least"):
        ProteinBatches(small, DrawingOptions()).usable(48 * 4)
    assert len(ProteinBatches(small, DrawingOptions()).usable(8)) == len(small)


def test_memory_is_bounded_and_changes_nothing(monkeypatch):
    batches = ProteinBatches(some_structures(), DrawingOptions(dimension=3))
    whole = batches(12, 8, torch.Generator().manual_seed(0))
    monkeypatch.setattr("mtdbridge.proteins.batches._MOST_VALUES", 1)
    torch.testing.assert_close(batches(12, 8, torch.Generator().manual_seed(0)), whole)


def test_validation_drawings_are_the_same_every_time_and_visit_all():
    batches = ProteinBatches(some_structures(), DrawingOptions())
    one, two = (validation_drawings(batches, 20, 14, 0) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == (14, 20, 20)


@pytest.mark.parametrize(
    "wrong",
    [{"dimension": 4}, {"fill": (0.8, 0.5)}, {"band": (1.0, 3.0)}, {"falloff": (-1, 2)}, {"jitter": -1}],
)
def test_options_out_of_their_domain_are_refused(wrong):
    with pytest.raises(ParameterError):
        DrawingOptions(**wrong)
