"""Torch devices by name, and networks replayed as CUDA graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtdcore.errors import DeviceError

#: Calls with inputs of one shape after which their graph is captured, and largest number of graphs kept.
_WORTH, _KEPT = 3, 16

#: Pixels of an input beyond which computing takes longer than launching, so that a graph saves no time.
_LARGEST = 1 << 18


def torch_device(name: str) -> torch.device:
    """The device ``name`` ("cpu", "cuda", "cuda:1", ...), after a first allocation on it.

    Raises:
        DeviceError: torch cannot use it here.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts when it was built without CUDA
        reason = str(error).splitlines()[0]
        if reason.startswith(
            "Expected one of"
        ):  # torch goes on to list every device type it can be compiled for
            reason = "it has none of this name"
        here = ", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
        raise DeviceError(
            f"the device {name!r} is not usable by torch here ({reason}); devices here are {here}."
        ) from error
    return device


class Replayed:
    """A network whose hundred small kernels are launched at once on a CUDA device: one CUDA graph for every shape of input.

    A recovery calls the network hundreds of times on a few small images; launching then takes ten times as long as computing. A
    graph gives the same bits as the network. Inputs on other devices, large inputs and shapes seen for the first time go to the network itself.

    Args:
        network: called without gradients; its parameters may change in place; after a move to other memory its calls are recorded anew.
        capture: makes the replay of a call.
    """

    def __init__(
        self, network: nn.Module, capture: Callable[..., Callable[..., Tensor]] | None = None
    ) -> None:
        self._network, self._capture = network, capture or _captured
        self._seen: Counter[Hashable] = Counter()
        self._replays: dict[Hashable, Callable[..., Tensor]] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The answer of the network."""
        if not self._suits(inputs):
            out: Tensor = self._network(*inputs)
            return out
        first = next(self._network.parameters(), None)
        key = (
            None if first is None else first.data_ptr(),
            *((t.device, t.dtype, tuple(t.shape)) for t in inputs),
        )
        replay = self._replays.get(key)
        if replay is None:
            self._seen[key] += 1
            if self._seen[key] < _WORTH or len(self._replays) == _KEPT:
                out = self._network(*inputs)
                return out
            replay = self._replays[key] = self._capture(self._network, inputs)
        return replay(*inputs)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled without its graphs, which belong to one process."""
        return Replayed, (self._network, self._capture)

    def _suits(self, inputs: tuple[Tensor, ...]) -> bool:
        return inputs[0].device.type == "cuda" and inputs[0].numel() <= _LARGEST


@dataclass(frozen=True)
class _Graph:
    """A recorded call: inputs are copied in, answers out."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor

    def __call__(self, *inputs: Tensor) -> Tensor:
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.graph.replay()
        return self.output.clone()


def _captured(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """The replay of a call; the network itself where a call cannot be recorded (it looks at values, or copies from the host)."""
    own = tuple(t.clone() for t in inputs)
    current, aside = torch.cuda.current_stream(own[0].device), torch.cuda.Stream(own[0].device)  # type: ignore[no-untyped-call]
    aside.wait_stream(current)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.stream(aside):
            network(*own)  # before the capture: libraries choose their kernels and allocate their workspace
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                output: Tensor = network(*own)
            finally:
                graph.capture_end()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return network
    finally:
        current.wait_stream(aside)
    return _Graph(graph, own, output)
