"""How the backend presents itself: what it is, why it cannot run, what it says when memory runs out."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

import graphc as gx
from graphc import backend as discovery
from graphc.backend import Backend, find_backend
from graphc.backends.cupy import CupyBackend, backend, installation
from graphc.errors import BackendError
from graphc.lower.plan import Plan
from tests.cupy.emulated_device import EmulatedDevice


def test_it_is_a_backend():
    assert isinstance(backend, Backend)
    assert (backend.name, backend.priority, backend.lowers) == ("cupy", 100, True)
    assert not backend.takes(object())


REASONS = {
    "no CuPy": ({"has_cupy": False}, "CuPy is not installed: pip install"),
    "no driver": ({"load_driver": None}, "no NVIDIA driver: install it from"),
    "no GPU": ({"gpu_count": 0}, "finds no GPU: see what `nvidia-smi`"),
    "old GPU": ({"capability": (7, 5)}, "older than Ampere: its compute capability is 7.5, 8.0 is needed"),
    "old driver": ({"driver_version": 12040}, "too old: it is made for CUDA 12.4, CuPy for CUDA 13: install a newer"),
    "no bindings": ({"_is_there": False}, "cuda-bindings is missing: pip install"),
    "nothing": ({}, None),
}


@pytest.fixture
def found(monkeypatch, request):
    """A machine with all that is needed, but for what the test takes away."""
    everything = {
        "has_cupy": True,
        "load_driver": object(),
        "gpu_count": 1,
        "capability": (9, 0),
        "driver_version": 13000,
        "cuda_of_cupy": 13,
        "_is_there": True,
    }
    missing, reason = REASONS[request.param]
    for name, value in {**everything, **missing}.items():
        monkeypatch.setattr(installation, name, lambda *args, value=value: value)
    return reason


@pytest.mark.parametrize("found", REASONS, indirect=True)
def test_each_reason_in_turn(found):
    reason = backend.available()
    assert reason is found is None or found in reason
    if reason is not None:
        for act in (lambda: find_backend("cupy"), lambda: backend.compile(Plan(graph=None))):
            with pytest.raises(BackendError) as caught:
                act()
            assert reason in str(caught.value)


@pytest.mark.parametrize("found", ["old driver", "no CuPy"], indirect=True)
def test_auto_goes_on_without_it_and_says_so_once(found, monkeypatch):
    monkeypatch.setattr(discovery, "_told", set())
    with pytest.warns(UserWarning, match="does without 'cupy'"):
        assert find_backend("auto").name == "numba"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_backend("auto").name == "numba"


@pytest.mark.parametrize("found", ["no GPU"], indirect=True)
def test_nobody_who_has_no_gpu_is_told(found, monkeypatch):
    monkeypatch.setattr(discovery, "_told", set())
    monkeypatch.setattr(installation, "has_cupy", lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_backend("auto").name == "numba"


def test_a_backend_may_be_given_itself():
    x = gx.placeholder("x", (3,))
    program = gx.compile({"y": x + 1}, inputs=[x], backend=CupyBackend(device=EmulatedDevice()))
    assert program.backend.name == "cupy"
    np.testing.assert_array_equal(program(x=np.float32([1, 2, 3]))["y"], [2, 3, 4])
    assert "add_kernel" in program.source()


def test_both_branches_are_computed_and_one_is_selected():
    """In a loop, too, and with its derivative; where a branch may fail it is refused with its line."""
    p, x = gx.placeholder("p", (), "bool"), gx.placeholder("x", (4, 3))

    def step(carry, e):
        return gx.cond(p, lambda c: gx.tanh(c * e), lambda c: gx.cond(gx.sum(c) > 0, gx.sin, gx.cos, c + e), carry), e

    last, _ = gx.scan(step, gx.ones((3,)), x)
    outputs = {"last": last, "dx": gx.grad(gx.sum(last * last), [x])[0]}
    on_gpu, on_cpu = (
        gx.compile(outputs, [p, x], backend=b) for b in (CupyBackend(device=EmulatedDevice()), "reference")
    )
    for taken in (True, False):
        feeds = {"p": np.array(taken), "x": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)}
        for found, wanted in zip(on_gpu(**feeds).values(), on_cpu(**feeds).values(), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    ids = gx.placeholder("ids", (2,), "int64")
    y = gx.cond(p, lambda: gx.take(x, ids, axis=0), lambda: x[:2])
    with pytest.raises(BackendError, match="both branches") as caught:
        gx.compile({"y": y}, [p, x, ids], backend=CupyBackend(device=EmulatedDevice()))
    assert "test_backend.py" in str(caught.value)


def test_full_memory_says_what_takes_how_much():
    x = gx.placeholder("x", ("batch", 100))
    program = gx.compile(
        {"y": gx.softmax(x @ gx.transpose(x), axis=1)},
        [x],
        backend=CupyBackend(device=EmulatedDevice(capacity=1 << 20)),
    )
    program(x=np.ones((4, 100), np.float32))
    with pytest.raises(BackendError, match="memory is full: the arena of a step of batch=3000") as caught:
        program(x=np.ones((3000, 100), np.float32))
    assert "smaller batch" in str(caught.value)
    program(x=np.ones((5, 100), np.float32))


def test_importing_it_is_cheap():
    code = "import graphc.backends.cupy, sys; print(sorted({'cupy', 'cuda', 'numba'} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
