"""The contract of every backend, on the host build always and on a device with ``-m gpu``."""

from __future__ import annotations

from typing import Any

import pytest

from mtdcore._base.typing import Precision
from mtdcore.errors import DependencyError, DeviceError
from mtdcore.estep.backends.cuda.backend import CudaBackend
from mtdcore.testing import BackendConformance


class TestCudaBackendOnTheHost(BackendConformance):
    @pytest.fixture(autouse=True)
    def _device(self, host_device: Any) -> None:
        self.device = host_device

    def make_backend(self, precision: Precision) -> CudaBackend:
        return CudaBackend(self.device, precision)


@pytest.mark.gpu
class TestCudaBackendOnADevice(BackendConformance):
    def make_backend(self, precision: Precision) -> CudaBackend:
        try:
            return CudaBackend.open(None, precision)
        except (DependencyError, DeviceError) as error:
            pytest.skip(str(error))
