"""The devices that programs are tested on: the emulator, a GPU where there is one, and with ``--ptx`` an interpreter."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from graphc.backends.cupy import CupyBackend, backend
from tests.cupy.emulated_device import EmulatedDevice
from tests.cupy.ptx import PtxDevice, noted_spans


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Whatever runs programs; the tests share a GPU, but each has an emulated device of its own."""
    if request.param == "emulated":
        if shutil.which("g++") is None:
            pytest.skip("g++ is not installed")
        if not request.config.getoption("--ptx"):
            yield EmulatedDevice(shuffled=True)
            return
        with noted_spans() as spans:
            yield PtxDevice(shuffled=True, spans=spans)
            return
    reason = backend.available()
    if reason is not None:
        pytest.skip(reason)
    from graphc.backends.cupy import first_gpu

    yield first_gpu()


@pytest.fixture
def gpu(device: Any) -> CupyBackend:
    """The backend on that device."""
    return CupyBackend(device=device)
