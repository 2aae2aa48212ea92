"""A corpus of model files made to do harm (row 17): each is refused, nothing in it runs, memory stays capped."""

import io
import json
import pickle
import struct
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from mtdbridge.priors.convert import convert_checkpoint
from mtdbridge.priors.library import load_prior
from mtdbridge.priors.networks import build_network
from mtdbridge.priors.weights import ModelCard
from mtdcore.errors import MtdError

CARD = ModelCard("mlp", {"width": 8}, 4, (0.0, 0.0))
KIND = {"network": "mlp", "box_size": 4, "levels": (0.0, 0.0), "network_options": {"width": 8}}


class Call:
    """Calls a function of a module when it is unpickled."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def header(tensors, length=None):
    text = json.dumps({"__metadata__": {"mtdbridge": json.dumps(asdict(CARD))}, **tensors}).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


def tensor(shape, end, dtype="F32", start=0):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def pickles(trap):
    """Pickles of every protocol and kind, plain and inside the archives that torch.save writes."""
    import os

    state = build_network("mlp", 4, width=8).state_dict()
    calls = [
        Call(open, str(trap), "w"),
        Call(os.system, f"touch {trap}"),
        Call(eval, f"open({str(trap)!r}, 'w')"),
        Call(exec, f"open({str(trap)!r}, 'w')"),
        Call(os.mkdir, str(trap)),
    ]
    for number, call in enumerate(calls):
        for protocol in (0, 2, 5):
            yield f"pickle {number}.{protocol}", pickle.dumps(call, protocol)
            yield f"state dict {number}.{protocol}", pickle.dumps({**state, "x": call}, protocol)
        for archive in (True, False):
            out = io.BytesIO()
            torch.save({**state, "x": call}, out, _use_new_zipfile_serialization=archive)
            yield f"torch {number} {archive}", out.getvalue()
    module = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), module)
    yield "TorchScript", module.getvalue()
    whole = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2), whole)
    yield "a whole module", whole.getvalue()
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50 << 20))
    yield "zip bomb", bomb.getvalue()


def headers():
    """Safetensors that lie about themselves."""
    huge = {"layers.0.weight": tensor([1 << 40, 1 << 20], 1 << 62)}
    yield "huge tensor", header(huge)
    yield "overflowing shape", header({"layers.0.weight": tensor([1 << 63, 2], 16)}) + bytes(16)
    yield "negative offset", header({"layers.0.weight": tensor([4], 16, start=-16)}) + bytes(16)
    yield "overlap", header({"a": tensor([4], 16), "b": tensor([4], 16)}) + bytes(16)
    yield "unknown dtype", header({"a": tensor([4], 16, "PICKLE")}) + bytes(16)
    yield "no data", header({"a": tensor([4], 16)})
    yield "long header", header({}, 1 << 50)
    yield "no offsets", header({"a": {"dtype": "F32", "shape": [4]}}) + bytes(16)
    good = save(build_network("mlp", 4, width=8).state_dict(), {"mtdbridge": json.dumps(asdict(CARD))})
    for keep in range(0, len(good), max(1, len(good) // 40)):
        yield f"cut at {keep}", good[:keep]
    state = build_network("mlp", 4, width=8).state_dict()
    for value in (float("nan"), float("inf")):
        broken = {name: torch.full_like(one, value) for name, one in state.items()}
        yield f"weights of {value}", save(broken, {"mtdbridge": json.dumps(asdict(CARD))})
    yield (
        "flat weights",
        save({n: t.flatten() for n, t in state.items()}, {"mtdbridge": json.dumps(asdict(CARD))}),
    )


def largest():
    """Largest resident memory since the kernel's counter was reset, bytes."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def begun():
    """Resets the counter."""
    Path("/proc/self/clear_refs").write_text("5")
    return largest()


def test_no_file_of_the_corpus_is_loaded(tmp_path):
    trap, before = tmp_path / "executed", begun()
    cases = [*pickles(trap), *headers()]
    assert len(cases) > 90
    for suffix in (".safetensors", ".pt"):
        for name, content in cases:
            path = tmp_path / f"model{suffix}"
            path.write_bytes(content)
            with pytest.raises(MtdError):
                load_prior(path)
            assert not trap.exists(), name
    assert largest() - before < 300 << 20


@pytest.mark.slow
def test_no_pickle_of_the_corpus_is_converted(tmp_path):
    trap, output, before = tmp_path / "executed", tmp_path / "out.safetensors", begun()
    for name, content in pickles(trap):
        path = tmp_path / "model.pt"
        path.write_bytes(content)
        with pytest.raises(MtdError):
            convert_checkpoint(path, output, **KIND)
        assert not trap.exists(), name
        assert not output.exists(), name
    assert largest() - before < 300 << 20
