import math

import numpy as np
import pytest
import torch

from mtdbridge.proteins.batches import DrawingOptions, ProteinBatches, validation_drawings
from mtdbridge.proteins.drawing import draw, inside_ball, random_rotations, transfer
from mtdbridge.proteins.microscope import Imaging
from mtdbridge.proteins.structures import centred
from mtdcore.data.preparation.ctf import Ctf, wavelength
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


def imaged(**values: float) -> Imaging:
    """One image of 3 angstrom a pixel at 300 kV; without subtracted background and with its phases unless ``values`` say otherwise."""
    given = {
        "pixel": 3.0,
        "defocus": 15e3,
        "wave": wavelength(300.0),
        "phase": math.asin(0.1),
        "flipped": 0.0,
        "background": math.inf,
    } | values
    values = {name: torch.tensor([value]) for name, value in given.items()}
    return Imaging(**values | {"flipped": values["flipped"].bool()})


def test_a_microscope_shows_the_contrast_transfer_with_dense_things_bright():
    ctf = -Ctf(15e3, 15e3, voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.1).grid(
        (30, 30), 3.0
    )
    cpu, first = torch.device("cpu"), torch.tensor([0])
    np.testing.assert_allclose(imaged().gains(30, first, cpu)[0], ctf, atol=2e-5)
    np.testing.assert_allclose(imaged(flipped=1.0).gains(30, first, cpu)[0], np.abs(ctf), atol=2e-5)
    frequency = np.hypot(np.fft.fftfreq(30)[:, None], np.fft.rfftfreq(30))
    kept = 1 - np.exp(-2 * (np.pi * 20.0 * frequency) ** 2)
    np.testing.assert_allclose(imaged(background=20.0).gains(30, first, cpu)[0], ctf * kept, atol=2e-5)


def test_a_share_of_the_projections_is_seen_through_a_microscope_and_the_others_are_as_before():
    structures = some_structures(radius=60.0)
    plain, mixed = (
        ProteinBatches(structures, DrawingOptions(microscope=share, spread=0.0))(
            28, 60, torch.Generator().manual_seed(2)
        )
        for share in (0.0, 0.5)
    )
    changed = (mixed - plain).flatten(1).norm(dim=1) > 0.05 * 28
    assert 15 < changed.sum() < 45
    torch.testing.assert_close(mixed[~changed], plain[~changed])
    torch.testing.assert_close(mixed.flatten(1).square().mean(1), torch.ones(60))
    through, before = mixed[changed], plain[changed]
    assert through.mean() < 0.6 * before.mean()
    assert (through.flatten(1).mean(1) > 0).all()
    assert ((through * before).flatten(1).mean(1) > 0.3).float().mean() > 0.9


def test_fringes_that_leave_the_box_do_not_come_back_on_its_other_side():
    points, weights = torch.tensor([[[0.0, -9.0]]]), torch.ones(1, 1)
    limits = torch.full((1,), 2.0), torch.zeros(1)
    imaging, first, cpu = imaged(pixel=6.0, defocus=25e3), torch.tensor([0]), torch.device("cpu")

    def crop(side: int) -> torch.Tensor:
        margin = (side - 24) // 2
        gain = imaging.gains(side, first, cpu)
        return draw(points, weights, side, *limits, gain)[0, margin : margin + 24, margin : margin + 24]

    free = crop(120)
    wrapped, wide = ((crop(side) - free).norm() / free.norm() for side in (24, 48))
    assert wide < 0.1 < wrapped


def test_validation_drawings_are_the_same_every_time_and_visit_all():
    batches = ProteinBatches(some_structures(), DrawingOptions())
    one, two = (validation_drawings(batches, 20, 14, 0) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == (14, 20, 20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dimension": 4},
        {"fill": (0.8, 0.5)},
        {"band": (1.0, 3.0)},
        {"falloff": (-1, 2)},
        {"jitter": -1},
        {"microscope": 1.5},
        {"dimension": 3, "microscope": 0.5},
        {"defocus": (2e4, 1e4)},
    ],
)
def test_options_out_of_their_domain_are_refused(wrong):
    with pytest.raises(ParameterError):
        DrawingOptions(**wrong)
