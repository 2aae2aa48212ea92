import pickle

import pytest
import torch

from mtdbridge.priors.convert import convert_checkpoint
from mtdbridge.priors.library import load_prior
from mtdbridge.priors.networks import build_network
from mtdcore.errors import InputError, ParameterError, StorageError

KIND = {"network": "unet", "box_size": 6, "levels": (0.05, 10.0), "network_options": {"width": 2}}


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network("unet", 6, width=2)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 3, "state_dict": state}])
def test_a_state_dict_becomes_a_prior(tmp_path, network, wrap):
    torch.save(wrap(network.state_dict()), tmp_path / "w.pth")
    convert_checkpoint(tmp_path / "w.pth", tmp_path / "w.safetensors", **KIND)
    prior = load_prior(tmp_path / "w.safetensors")
    assert prior.levels == (0.05, 10.0)
    assert prior.card.training["converted_from"] == "w.pth"
    for name, value in network.state_dict().items():
        assert torch.equal(prior.network.state_dict()[name], value)


def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path, network):
    trap, output = tmp_path / "executed", tmp_path / "w.safetensors"
    torch.save({**network.state_dict(), "evil": Payload(trap)}, tmp_path / "zip.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Payload(trap)))
    for name in ("zip.pt", "raw.pt"):
        with pytest.raises(InputError, match="refused"):
            convert_checkpoint(tmp_path / name, output, **KIND)
    assert not trap.exists()
    assert not output.exists()


def test_what_does_not_fit_is_refused(tmp_path, network):
    output = tmp_path / "w.safetensors"
    broken = network.state_dict() | {"convolutions.0.bias": torch.full((2,), float("nan"))}
    for content, reason in ((broken, "NaN"), ({"w": torch.ones(3)}, "do not fit"), ([1, 2], "no state dict")):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(InputError, match=reason):
            convert_checkpoint(tmp_path / "w.pt", output, **KIND)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:-50])
    with pytest.raises(InputError, match="refused"):
        convert_checkpoint(tmp_path / "cut.pt", output, **KIND)
    with pytest.raises(StorageError):
        convert_checkpoint(tmp_path / "none.pt", output, **KIND)
    with pytest.raises(ParameterError):
        convert_checkpoint(tmp_path / "w.pt", output, **{**KIND, "levels": (0.0, 0.0)})
    assert not output.exists()
