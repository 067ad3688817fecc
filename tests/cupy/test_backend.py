from __future__ import annotations

import subprocess
import sys

import pytest

from graphc.backend import Backend, find_backend
from graphc.backends.cupy import backend
from graphc.errors import BackendError
from graphc.lower.plan import Plan


def test_it_is_a_backend_that_says_why_it_does_not_run():
    assert isinstance(backend, Backend)
    assert (backend.name, backend.priority, backend.lowers) == ("cupy", 100, True)
    reason = backend.available()
    assert reason is not None
    assert any(word in reason for word in ("pip install 'graphc[gpu]'", "NVIDIA driver", "does not run programs yet"))
    with pytest.raises(BackendError, match="cupy"):
        find_backend("cupy")
    with pytest.raises(BackendError):
        backend.compile(Plan(graph=None))


@pytest.mark.parametrize("missing", ["cupy", "driver", "nothing"])
def test_each_reason_in_turn(monkeypatch, missing):
    from graphc.backends import cupy

    monkeypatch.setattr(cupy.importlib.util, "find_spec", lambda name: None if missing == "cupy" else object())
    monkeypatch.setattr(cupy, "_driver_problem", lambda: "there is no driver" if missing == "driver" else None)
    expected = {"cupy": "pip install", "driver": "no driver", "nothing": "does not run programs yet"}
    assert expected[missing] in backend.available()


def test_importing_it_is_cheap():
    code = "import graphc.backends.cupy, sys; print(sorted({'cupy', 'cuda', 'numba'} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
