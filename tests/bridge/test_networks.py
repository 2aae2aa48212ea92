import json

import pytest
import torch

from mtdbridge.priors.networks import NETWORKS, build_network
from mtdcore.errors import ParameterError


def call(network, images, level=0.3):
    if network.parameterisation == "score":
        return network(images)
    return network(images, torch.full((len(images),), level))


def count(network, kind):
    return sum(isinstance(module, kind) for module in network.modules())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("side", [4, 5, 13, 28])
def test_shapes_gradients_and_independence_of_the_batch(name, side):
    torch.manual_seed(0)
    network = build_network(name, side)
    images = torch.rand(3, side, side)
    out = call(network, images)
    assert out.shape == images.shape
    out.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    torch.testing.assert_close(call(network, images[1:2]), out[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_options_build_the_same_architecture_again(name):
    network = build_network(name, 12)
    again = build_network(name, 12, **json.loads(json.dumps(network.options)))
    shapes = [{n: p.shape for n, p in net.state_dict().items()} for net in (network, again)]
    assert shapes[0] == shapes[1]


def test_the_paper_networks():
    mlp, unet = build_network("mlp", 5), build_network("unet", 28)
    assert count(mlp, torch.nn.Linear) == 3
    assert count(mlp, torch.nn.Softplus) == 2
    assert {layer.out_features for layer in mlp.modules() if isinstance(layer, torch.nn.Linear)} == {256, 25}
    assert count(unet, torch.nn.Conv2d) == 10
    assert next(unet.parameters()).shape[1] == 2  # image and time


def test_the_denoiser_has_about_half_a_million_parameters():
    size = sum(p.numel() for p in build_network("denoiser", 28).parameters())
    assert 4e5 < size < 7e5


def test_the_denoiser_is_the_identity_without_noise_and_forgets_the_image_in_noise():
    torch.manual_seed(0)
    network = build_network("denoiser", 8, data_mean=0.2, data_std=0.3)
    images = torch.rand(2, 8, 8)
    torch.testing.assert_close(call(network, images, 1e-6), images, rtol=0, atol=1e-4)
    change = call(network, images + 1, 1e4) - call(network, images, 1e4)
    assert change.abs().max() < 1e-3


def test_the_denoiser_works_in_normalised_units():
    """The same network for images c x + m, noise c s, answers c D + m."""
    images, (c, m) = torch.rand(2, 8, 8), (5.0, -1.0)
    answers = []
    for scale, offset in ((1.0, 0.0), (c, m)):
        torch.manual_seed(0)
        network = build_network("denoiser", 8, data_mean=0.2 * scale + offset, data_std=0.3 * scale)
        torch.nn.init.normal_(network.last.weight)
        answers.append(call(network, scale * images + offset, 0.4 * scale))
    torch.testing.assert_close(answers[1], c * answers[0] + m, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("transformer", {}),
        ("mlp", {"depth": 3}),
        ("denoiser", {"data_std": 0.0}),
        ("denoiser", {"data_mean": float("inf")}),
    ],
)
def test_unknown_networks_and_options_are_refused(name, options):
    with pytest.raises(ParameterError):
        build_network(name, 8, **options)
