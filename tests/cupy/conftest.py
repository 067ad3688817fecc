"""The devices that programs are tested on: the emulator, and a GPU where there is one."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from graphc.backends.cupy import CupyBackend, backend
from tests.cupy.emulated_device import EmulatedDevice


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Any:
    """Whatever runs programs; the tests share a GPU, but each has an emulated device of its own."""
    if request.param == "emulated":
        if shutil.which("g++") is None:
            pytest.skip("g++ is not installed")
        return EmulatedDevice(shuffled=True)
    reason = backend.available()
    if reason is not None:
        pytest.skip(reason)
    from graphc.backends.cupy import first_gpu

    return first_gpu()


@pytest.fixture
def gpu(device: Any) -> CupyBackend:
    """The backend on that device."""
    return CupyBackend(device=device)
