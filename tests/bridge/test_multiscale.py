import json

import numpy as np
import pytest
import torch

from mtdbridge.priors.multiscale import MultiscaleDenoiser, pad_evenly, squared_distance
from mtdbridge.priors.networks import build_network
from mtdbridge.priors.parameterisation import denoise, smoothed_score
from mtdcore.errors import ParameterError


def network(dimension, channels=(4, 6, 8), boxes=(8, 20), trained=True):
    torch.manual_seed(0)
    net = MultiscaleDenoiser(12, dimension, boxes, channels=channels)
    if trained:
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("side", [8, 9, 13, 20])
def test_any_box_goes_in_and_comes_out(dimension, side):
    net = network(dimension)
    noisy = torch.randn((3,) + (side,) * dimension)
    levels = torch.tensor([0.1, 1.0, 5.0])
    out = net(noisy, levels)
    assert out.shape == noisy.shape
    out.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    torch.testing.assert_close(net(noisy[1:2], levels[1:2]), out[1:2], rtol=1e-4, atol=1e-5)
    assert torch.equal(net(noisy, levels), out)


@pytest.mark.parametrize("dimension", [2, 3])
def test_untrained_it_is_the_linear_denoiser_of_white_data(dimension):
    net = network(dimension, trained=False)
    noisy = torch.randn((2,) + (10,) * dimension)
    torch.testing.assert_close(net(noisy, torch.tensor([1.0, 3.0]))[1], noisy[1] / 10)
    torch.testing.assert_close(net(noisy, torch.full((2,), 1e-6)), noisy)


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_padding_keeps_the_middle_in_the_middle(dimension):
    """A kernel without a handedness sees a mirrored box as the mirror of the box, whatever is padded."""
    net = network(dimension)
    for parameter in net.parameters():
        if parameter.dim() > 2:
            with torch.no_grad():
                parameter.copy_((parameter + parameter.flip(-1)) / 2)
    noisy = torch.randn((1,) + (10,) * dimension)
    out = net(noisy, torch.ones(1))
    torch.testing.assert_close(net(noisy.flip(-1), torch.ones(1)), out.flip(-1), rtol=1e-4, atol=1e-5)


def test_distance_and_padding():
    distance = squared_distance((5, 5))
    assert distance[2, 2] == 0
    assert distance[2, 0] == pytest.approx((2 / 2.5) ** 2)
    x = torch.rand(1, 1, 5, 6)
    padded, crop = pad_evenly(x, 4)
    assert padded.shape[2:] == (8, 8)
    assert torch.equal(padded[(..., *crop)], x)
    assert padded.sum() == pytest.approx(float(x.sum()), rel=1e-6)


@pytest.mark.parametrize("dimension", [2, 3])
def test_score_and_denoiser_agree(dimension):
    net = network(dimension).eval()
    noisy = torch.randn((2,) + (9,) * dimension)
    with torch.no_grad():
        score = smoothed_score(net, "denoiser", noisy, 0.7, (0.1, 4.0))
        torch.testing.assert_close(noisy + 0.7**2 * score, net(noisy, torch.full((2,), 0.7)))
        above = denoise(net, "denoiser", noisy, 9.0, (0.1, 4.0))
    assert torch.isfinite(above).all()
    assert above.shape == noisy.shape


@pytest.mark.parametrize("dimension", [2, 3])
def test_options_build_it_again(dimension):
    net = network(dimension)
    again = build_network("multiscale", 12, **json.loads(json.dumps(net.options)))
    again.load_state_dict(net.state_dict())
    noisy = torch.randn((1,) + (9,) * dimension)
    assert torch.equal(again(noisy, torch.ones(1)), net(noisy, torch.ones(1)))


def test_the_shipped_sizes():
    from mtdbridge.proteins.plans import PLANS

    for name, most in (("proteins-2d", 1_000_000), ("proteins-3d", 2_000_000)):
        plan = PLANS[name]
        net = MultiscaleDenoiser(plan.box_size, plan.drawing.dimension, plan.boxes, channels=plan.channels)
        size = sum(np.prod(p.shape) for p in net.parameters())
        assert most / 2 < size < most


@pytest.mark.parametrize(
    "wrong", [{"dimension": 1}, {"channels": (8,)}, {"boxes": (16, 20)}, {"data_std": 0.0}]
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ParameterError):
        MultiscaleDenoiser(12, **{"channels": (4, 4), **wrong})
