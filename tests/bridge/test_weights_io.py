import json
import pickle
import struct
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import save

from mtdbridge.priors.library import load_prior
from mtdbridge.priors.networks import build_network
from mtdbridge.priors.weights import ModelCard, load_weights, save_weights
from mtdcore.errors import DeviceError, InputError, StorageError

CARD = ModelCard("mlp", {"width": 8}, 4, (0.0, 0.0), metrics={"validation": {"loss": -1.5}})


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network("mlp", 4, width=8)


@pytest.fixture
def path(tmp_path, network):
    save_weights(tmp_path / "w.safetensors", network, CARD)
    return tmp_path / "w.safetensors"


def test_round_trip(path, network):
    again, card = load_weights(path)
    assert card == CARD
    assert not again.training
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_half_precision_weights_are_widened(tmp_path, network):
    save_weights(tmp_path / "h.safetensors", network.half(), CARD)
    again, _ = load_weights(tmp_path / "h.safetensors")
    assert next(again.parameters()).dtype == torch.float32


def test_a_failed_write_keeps_the_old_file(path, network, monkeypatch):
    before = path.read_bytes()

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(StorageError, match="disk full"):
        save_weights(path, network, CARD)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def write(path, tensors, card=None):
    metadata = (
        None if card is None else {"mtdbridge": json.dumps(card if isinstance(card, dict) else asdict(card))}
    )
    path.write_bytes(save(tensors, metadata=metadata))


def test_wrong_tensors_are_refused(path, network):
    state = network.state_dict()
    cases = {
        "expected shape": state | {"layers.0.weight": torch.zeros(8, 25)},
        "unknown": state | {"extra": torch.zeros(1)},
        "missing": {name: value for name, value in state.items() if name != "layers.0.bias"},
        "NaN": state | {"layers.0.bias": torch.full((8,), float("nan"))},
        "infinite": state | {"layers.0.bias": torch.full((8,), float("inf"))},
        "floating-point": state | {"layers.0.bias": torch.zeros(8, dtype=torch.int64)},
    }
    for reason, tensors in cases.items():
        write(path, tensors, CARD)
        with pytest.raises(InputError, match=reason):
            load_weights(path)


def test_wrong_cards_are_refused(path, network):
    good = asdict(CARD)
    cases = {
        "no mtdbridge card": None,
        "incomplete": {"network": "mlp"},
        "unknown_key": good | {"unknown_key": 1},
        "one of denoiser, mlp, multiscale, unet": good | {"network": "os.system"},
        "level 0 only": good | {"levels": [0.1, 2.0]},
        "box size": good | {"box_size": 10**9},
        "expected shape": good | {"box_size": 5},
        "no usable network": good | {"options": {"width": "wide"}},
        "does not take": good | {"options": {"depth": 3}},
    }
    for reason, card in cases.items():
        write(path, network.state_dict(), card)
        with pytest.raises(InputError, match=reason):
            load_weights(path)


def test_a_hostile_card_cannot_allocate(path, network):
    """A network of 10^12 weights is refused by the shapes of the file, before any memory is asked for."""
    write(path, network.state_dict(), replace(CARD, options={"width": 10**6}))
    with pytest.raises(InputError, match="expected shape"):
        load_weights(path)


def test_damaged_files_are_refused(path):
    good = path.read_bytes()
    (header,) = struct.unpack("<Q", good[:8])
    damaged = {
        "empty": b"",
        "a few bytes": good[:5],
        "inside the header": good[: 8 + header // 2],
        "inside the tensors": good[:-7],
        "padded": good + b"\0" * 16,
        "huge header": struct.pack("<Q", (1 << 20) + 1) + good[8:],
        "no JSON": good[:8] + b"\xff" * header + good[8 + header :],
        "nested JSON": struct.pack("<Q", 100_000) + b"[" * 100_000,
        "list": struct.pack("<Q", 2) + b"[]",
        "noise": bytes(range(256)) * 8,
    }
    for blob in damaged.values():
        path.write_bytes(blob)
        with pytest.raises(InputError):
            load_weights(path)


def test_missing_files_are_storage_errors(tmp_path):
    with pytest.raises(StorageError):
        load_weights(tmp_path / "none.safetensors")


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_pickles_are_refused_and_nothing_runs(tmp_path, suffix):
    trap, path = tmp_path / "executed", tmp_path / f"evil{suffix}"
    path.write_bytes(pickle.dumps(Payload(trap)))
    with pytest.raises(InputError, match="convert_checkpoint"):
        load_prior(path)
    torch.save({"w": Payload(trap)}, path)
    with pytest.raises(InputError, match="convert_checkpoint"):
        load_prior(path)
    assert not trap.exists()


def test_load_prior_checks_name_box_and_device(path):
    assert load_prior(path, box_size=4).card == CARD
    with pytest.raises(InputError, match="boxes of 28 pixels; this one was trained on 4"):
        load_prior(path, box_size=28)
    with pytest.raises(InputError, match="shipped priors"):
        load_prior("no-such-prior")
    for device in ("warp:9", "gpu", "cuda:99"):
        with pytest.raises(DeviceError, match=r"not usable by torch here .*; devices here are cpu"):
            load_prior(path, device=device)
