"""Worker of :mod:`mtdbridge.priors.convert`, run as ``python -I _unpickle.py SOURCE OUTPUT``; imports nothing of ours."""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file


def main(source: str, output: str) -> str | None:
    """Convert; returns the reason if it refuses."""
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # any error that a hostile file causes is reported in one line
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    for name in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()
    ):
        return "the file holds no state dict (a mapping of names to tensors)"
    save_file({name: tensor.contiguous().clone() for name, tensor in content.items()}, output)
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
