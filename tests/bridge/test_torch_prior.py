import copy

import numpy as np
import pytest
import torch
from torch import nn

from mtdbridge import TorchPrior, load_prior
from mtdbridge.priors.device import Replayed
from mtdbridge.priors.networks import build_network
from mtdcore.errors import InputError, ParameterError
from mtdcore.model.priors import GaussianPrior, Prior, denoise

LEVELS = (0.05, 4.0)


class Shrink(nn.Module):
    """Exact denoiser of N(0, 1), which remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(0.5)
        self.seen = []

    def forward(self, images, level):
        self.seen.append((images.data_ptr(), images.dtype, images.shape, torch.is_grad_enabled()))
        return self.dropout(self.one * images / (1 + level[:, None, None] ** 2))


@pytest.fixture
def network():
    return Shrink()


@pytest.fixture
def prior(network):
    return TorchPrior(network, "denoiser", 5, levels=LEVELS)


def pointer(array):
    return array.__array_interface__["data"][0]


def test_is_a_prior_of_the_engine(prior):
    assert isinstance(prior, Prior)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [1, 7])
def test_score_and_denoiser_are_those_of_the_density(prior, dtype, batch):
    images = np.random.default_rng(0).standard_normal((batch, 5, 5)).astype(dtype)
    for level in (0.1, 1.0):
        score = prior.score(images, level)
        assert type(score) is np.ndarray
        assert score.dtype == dtype
        np.testing.assert_allclose(score, GaussianPrior(0.0, 1.0).score(images, level), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            denoise(prior, images, level), images / (1 + level**2), rtol=1e-5, atol=1e-6
        )


def test_a_float32_target_is_never_copied_on_its_way_to_the_model_and_back(monkeypatch, network, prior):
    target = np.random.default_rng(1).random((5, 5)).astype(np.float32)
    results = []
    original = torch.Tensor.numpy
    monkeypatch.setattr(torch.Tensor, "numpy", lambda self: results.append(self.data_ptr()) or original(self))
    score = prior.score(target[None], 0.3)  # the engine adds the batch axis as a view
    (seen,) = network.seen
    assert seen[0] == pointer(target)
    assert results == [pointer(score)]  # the memory that torch computed is what the engine gets
    assert score.flags.writeable
    score *= 0
    assert target.any()


def test_float64_is_converted_to_the_dtype_of_the_network_only(network, prior):
    prior.score(np.zeros((2, 5, 5)), 0.3)
    assert network.seen[0][1] == torch.float32
    network.double()
    target = np.zeros((2, 5, 5))
    prior.score(target, 0.3)
    assert network.seen[1][:2] == (pointer(target), torch.float64)


def test_one_call_per_batch_without_gradients_in_evaluation_mode(network, prior):
    network.train()
    prior = TorchPrior(network, "denoiser", 5, levels=LEVELS)
    images = np.ones((9, 5, 5), np.float32)
    first, second = prior.score(images, 0.3), prior.score(images, 0.3)
    np.testing.assert_array_equal(first, second)  # dropout is off
    assert [entry[2:] for entry in network.seen] == [((9, 5, 5), False)] * 2


@pytest.mark.parametrize("variant", ["read-only", "reversed", "foreign", "strided"])
def test_awkward_arrays_give_the_same_answer_and_stay_as_they_are(prior, variant):
    plain = np.random.default_rng(2).random((3, 5, 5)).astype(np.float32)
    match variant:
        case "read-only":
            images = plain.copy()
            images.flags.writeable = False
        case "reversed":
            images = plain[:, ::-1, ::-1].copy()[:, ::-1, ::-1]
        case "foreign":
            images = plain.astype(plain.dtype.newbyteorder())
        case _:
            images = np.repeat(plain, 2, axis=2)[:, :, ::2]
    np.testing.assert_array_equal(prior.score(images, 0.5), prior.score(plain, 0.5))
    np.testing.assert_array_equal(images, plain)


def test_tensors_stay_tensors(prior):
    images = torch.ones(2, 5, 5)
    assert torch.equal(prior.score(images, 0.5), torch.from_numpy(prior.score(images.numpy(), 0.5)))


def test_images_of_another_shape_or_dtype_are_refused(prior):
    for shape in ((5, 5), (1, 4, 4), (1, 5, 6), (1, 1, 5, 5)):
        with pytest.raises(InputError, match=r"\(B, 5, 5\)"):
            prior.score(np.zeros(shape, np.float32), 0.3)
    with pytest.raises(InputError, match="floating-point"):
        prior.score(np.zeros((1, 5, 5), np.int32), 0.3)


def test_levels_are_checked(prior):
    for level in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ParameterError, match="level"):
            prior.score(np.zeros((1, 5, 5), np.float32), level)
    with pytest.raises(ParameterError, match="level 0 only"):
        TorchPrior(build_network("mlp", 5), "score", 5, levels=(0.0, 0.0)).score(np.zeros((1, 5, 5)), 0.3)


def test_a_network_that_answers_in_another_shape_is_refused():
    class Flat(nn.Module):
        def forward(self, images):
            return images.flatten(1)

    with pytest.raises(InputError, match="answered"):
        TorchPrior(Flat(), "score", 5, levels=(0.0, 0.0)).score(np.zeros((1, 5, 5), np.float32), 0.0)


@pytest.mark.gpu
def test_a_cupy_array_and_a_cuda_network_share_memory_on_one_stream(network, prior):
    cupy = pytest.importorskip("cupy")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    host = np.random.default_rng(3).random((2, 5, 5)).astype(np.float32)
    expected = prior.score(host, 0.3)
    with cupy.cuda.Stream():
        images = cupy.asarray(host)
        score = prior.score(images, 0.3)
        assert network.seen[-1][0] == images.data.ptr
        assert isinstance(score, cupy.ndarray)
        np.testing.assert_allclose(cupy.asnumpy(score), expected, rtol=1e-5)


def test_calls_of_one_shape_are_recorded_once_they_pay(monkeypatch):
    """The third call of a shape, and every one after it, is a replay; a copy of the prior records its own."""
    recorded = []

    def capture(network, inputs):
        recorded.append(tuple(inputs[0].shape))
        return lambda *given: network(*given) + 0.0

    monkeypatch.setattr(Replayed, "_suits", lambda *_: True)
    network = torch.nn.Linear(4, 4)
    replayed = Replayed(network, capture)
    for count in (2, 3, 2, 2, 2, 3):
        images = torch.rand(count, 4)
        assert torch.equal(replayed(images), network(images))
    assert recorded == [(2, 4)]
    again = copy.copy(replayed)
    again(torch.rand(2, 4))
    assert recorded == [(2, 4)]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["mnist", "proteins-2d"])
def test_a_recorded_network_answers_with_the_same_bits(name):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    prior = load_prior(name, device="cuda")
    side, replayed = prior.box_size, Replayed(prior.network)
    with torch.no_grad():
        for level in (0.1, 0.2, 0.4, 0.8, 1.6):
            images = torch.rand(4, side, side, device="cuda")
            batch = torch.full((4,), level, device="cuda")
            assert torch.equal(replayed(images, batch), prior.network(images, batch))
    assert [type(replay).__name__ for replay in replayed._replays.values()] == ["_Graph"]


class Wild(nn.Module):
    """What a network may make of images unlike those it was trained on: a thousand times as much."""

    def forward(self, images, level):
        return 1000.0 * images


@pytest.mark.parametrize("shape", [(3, 5, 5), (2, 5, 5, 5)])
def test_no_answer_is_further_from_an_image_than_noise_may_be(shape):
    prior = TorchPrior(Wild(), "denoiser", 5, levels=LEVELS, dimension=len(shape) - 1)
    images = np.random.default_rng(0).normal(size=shape)
    images[0] *= 1e-6
    for level in (0.2, 0.01):  # the latter below what the network knows
        moved = np.linalg.norm((denoise(prior, images, level) - images).reshape(shape[0], -1), axis=1)
        farthest = level * (np.sqrt(np.prod(shape[1:])) + 3.0)
        assert (moved <= (1 + 1e-6) * farthest).all()
    free = denoise(prior, images, 0.2)[0]
    np.testing.assert_allclose(
        free, 1000.0 * images[0], rtol=1e-4
    )  # of the batch only those that go too far are held
    assert np.abs(prior.score(images, 0.0)).max() > 1e4  # no noise says nothing of how far


def test_what_noise_may_be_is_left_alone():
    """The exact denoiser of a density, asked of its own noisy images, at any level."""
    prior = TorchPrior(Shrink(), "denoiser", 16, levels=LEVELS)
    for level in (0.05, 1.0, 4.0, 20.0):
        rng = np.random.default_rng(1)
        images = rng.normal(size=(200, 16, 16)) + level * rng.normal(size=(200, 16, 16))
        expected = images / (1.0 + level**2)
        near = np.abs(denoise(prior, images, level) - expected).max(axis=(1, 2)) < 1e-3 * level
        assert near.mean() > 0.985
