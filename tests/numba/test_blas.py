"""Where OpenBLAS comes from: the wheel of its own, or a copy of NumPy's, which keeps its threads either way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphc.backends.numba import blas
from tests.project.checkout import ROOT

NEEDS_NUMPYS = pytest.mark.skipif(blas.numpy_library() is None, reason="NumPy was installed without OpenBLAS")
PROGRAM = """
import ctypes, json, os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "2"  # as a user might ask for NumPy's products
{before}
import numpy as np
from graphc.backends.numba import blas

numpys = ctypes.CDLL(str(blas.numpy_library()))
threads = numpys.scipy_openblas_get_num_threads64_()
{change}
long, number = ctypes.c_int64, ctypes.c_double
pointer = np.ctypeslib.ndpointer(np.float64)
kinds = [*3 * [ctypes.c_int], *3 * [long], number, pointer, long, pointer, long, number, pointer, long]
gemm = ctypes.CFUNCTYPE(None, *kinds)(blas.address("dgemm"))
x, y = np.arange(12.0).reshape(3, 4), np.empty((3, 3))
gemm(101, 111, 112, 3, 3, 4, 1, x, 4, x, 4, 0, y, 3)
same = bool(np.array_equal(y, x @ x.T))
mapped = sorted({{line.split()[-1] for line in open("/proc/self/maps") if "r-xp" in line}})
print(json.dumps({{
    "same": same,
    "numpys": [threads, numpys.scipy_openblas_get_num_threads64_()],
    "ours": blas._library().scipy_openblas_get_num_threads64_(),
    "copies": [path for path in mapped if "/files/" in path],
    "wheels": [path for path in mapped if "scipy_openblas64/lib" in path],
}}))
"""
WITHOUT_WHEEL = "blas.wheel_library = lambda: None"


def in_a_process(cache: Path, change: str = "", before: str = "") -> dict:
    """What a new process found, with its own cache folder."""
    environment = {**os.environ, "GRAPHC_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    program = PROGRAM.format(change=change, before=before)
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@NEEDS_NUMPYS
@pytest.mark.skipif(blas.wheel_library() is None, reason="scipy-openblas64 is not installed")
def test_the_wheel_is_preferred(tmp_path):
    found = in_a_process(tmp_path / "cache")
    assert (found["same"], found["ours"], found["numpys"]) == (True, 1, [2, 2])
    assert len(found["wheels"]) == 1
    assert found["copies"] == []


@NEEDS_NUMPYS
def test_without_the_wheel_a_copy_of_numpys_is_made_once(tmp_path):
    first, second = (in_a_process(tmp_path / "cache", WITHOUT_WHEEL) for _ in range(2))
    assert (first["same"], first["ours"], first["numpys"]) == (True, 1, [2, 2])
    assert first == second
    (copy,) = first["copies"]
    assert Path(copy).parent == tmp_path / "cache" / "files"
    assert Path(copy).read_bytes() == blas.numpy_library().read_bytes()


@NEEDS_NUMPYS
def test_a_copy_keeps_to_itself_where_libraries_are_loaded_for_all_to_see(tmp_path):
    before = "sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)"
    found = in_a_process(tmp_path / "cache", WITHOUT_WHEEL, before)
    assert (found["same"], found["ours"], found["numpys"]) == (True, 1, [2, 2])
    assert len(found["copies"]) == 1


@NEEDS_NUMPYS
def test_where_the_cache_cannot_be_written_the_copy_goes_with_the_process(tmp_path):
    (tmp_path / "file").touch()
    found = in_a_process(tmp_path / "file" / "cache", WITHOUT_WHEEL)
    assert (found["same"], found["ours"], found["numpys"]) == (True, 1, [2, 2])
    (copy,) = found["copies"]
    assert not Path(copy).parent.parent.exists()
