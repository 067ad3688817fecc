"""What this machine can do at most, and so the least time that a workload can take; prints one JSON line.

``ceilings.py WORKLOAD ...`` runs beside the workers: same interpreter, same environment, 2 threads.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numba
import numpy as np
import spec

THREADS = 2
EMBEDDINGS = ("emb", "tok", "pos")

FMA = r"""
#include <stdio.h>
#include <time.h>
typedef float V __attribute__((vector_size(WIDTH)));
static double run(long n, float scale, float shift) {
  V x = {0}, y = {0}, a[12];
  x += scale; y += shift;
  for (int i = 0; i < 12; i++) a[i] = y * (float)i;
  struct timespec b, e;
  clock_gettime(CLOCK_MONOTONIC, &b);
  V a0=a[0],a1=a[1],a2=a[2],a3=a[3],a4=a[4],a5=a[5],a6=a[6],a7=a[7],a8=a[8],a9=a[9],a10=a[10],a11=a[11];
  for (long k = 0; k < n; k++) {
    a0=a0*x+y; a1=a1*x+y; a2=a2*x+y; a3=a3*x+y; a4=a4*x+y; a5=a5*x+y;
    a6=a6*x+y; a7=a7*x+y; a8=a8*x+y; a9=a9*x+y; a10=a10*x+y; a11=a11*x+y;
  }
  clock_gettime(CLOCK_MONOTONIC, &e);
  V s = a0+a1+a2+a3+a4+a5+a6+a7+a8+a9+a10+a11;
  volatile float keep = s[0]; (void)keep;
  return n * 12.0 * 2 * (WIDTH / 4) / ((e.tv_sec - b.tv_sec) * 1e9 + (e.tv_nsec - b.tv_nsec));
}
int main(int argc, char **argv) {
  double best = 0;
  for (int i = 0; i < 10; i++) { double r = run(10000000, 0.999f, argc * 1e-3f); if (r > best) best = r; }
  printf("%.1f\n", best);
}
"""


def fma_gflops() -> float | None:
    """Multiply-adds in registers on both cores at once; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    best = 0.0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "fma.c").write_text(FMA)
        for width in (16, 32, 64):
            program = f"{folder}/fma{width}"
            flags = ["-O2", "-march=native", "-ffp-contract=fast", f"-DWIDTH={width}", "-o", program]
            subprocess.run([compiler, *flags, f"{folder}/fma.c"], check=True, stderr=subprocess.DEVNULL)
            running = [subprocess.Popen([program], stdout=subprocess.PIPE) for _ in range(THREADS)]
            best = max(best, sum(float(process.communicate()[0]) for process in running))
    return best


def best_s(work: Callable[[], object], seconds: float = 0.5) -> float:
    """The shortest time of many runs: noise only ever adds to it."""
    work()
    shortest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def installed(package: str) -> bool:
    """Whether a package can be imported here."""
    return find_spec(package) is not None


def sgemm_gflops(n: int) -> dict[str, float]:
    """Square float32 matrix products in every BLAS at hand."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.random((n, n), dtype=np.float32) for _ in range(3))
    found = {"numpy": best_s(lambda: np.dot(a, b, out=c))}
    if installed("scipy_openblas64"):
        import scipy_openblas64

        library = Path(scipy_openblas64.get_lib_dir(), f"lib{scipy_openblas64.get_library()}.so")
        openblas = ctypes.CDLL(str(library))
        openblas.scipy_openblas_set_num_threads64_(THREADS)
        size, one, zero = ctypes.c_int64(n), ctypes.c_float(1), ctypes.c_float(0)
        pa, pb, pc = (ctypes.c_void_p(array.ctypes.data) for array in (a, b, c))
        call = openblas.scipy_cblas_sgemm64_
        row_major, plain = 101, 111
        found["scipy-openblas64"] = best_s(
            lambda: call(row_major, plain, plain, size, size, size, one, pa, size, pb, size, zero, pc, size)
        )
    if installed("torch"):
        torch = import_module("torch")
        torch.set_num_threads(THREADS)
        ta, tb, tc = (torch.from_numpy(array) for array in (a, b, c))
        found["torch"] = best_s(lambda: torch.mm(ta, tb, out=tc))
    return {library: round(2 * n**3 / seconds / 1e9, 1) for library, seconds in found.items()}


@numba.njit(parallel=True)
def scale_in_place(rows: np.ndarray, factor: np.float32, repeats: int) -> None:
    """Read and write each thread's row, again and again."""
    for thread in numba.prange(rows.shape[0]):
        row = rows[thread]
        for _ in range(repeats):
            for i in range(row.size):
                row[i] = row[i] * factor


def update_gb_per_s(working_set_bytes: int) -> float:
    """Rate of reading and writing an array of this size: from the caches where it fits there."""
    rows = np.ones((THREADS, max(64, working_set_bytes // 4 // THREADS)), np.float32)
    repeats = max(1, (1 << 28) // rows.nbytes)
    numba.set_num_threads(THREADS)
    seconds = best_s(lambda: scale_in_place(rows, np.float32(1), repeats))
    return 2 * rows.nbytes * repeats / seconds / 1e9


def call_s() -> float:
    """One call out of Python into native code that does nothing."""
    nothing = ctypes.CDLL(None).abs
    nothing.argtypes = [ctypes.c_int]

    def thousand() -> None:
        for _ in range(1000):
            nothing(0)

    return best_s(thousand) / 1000


def traffic_bytes(name: str) -> tuple[int, int]:
    """The least bytes that a step reads and writes, and the working set they lie in."""
    data = spec.make(name)
    batch = sum(array.nbytes for array in data.xs[0])
    if name == "fused_elementwise":
        return spec.FUSED_BYTES, spec.FUSED_BYTES
    parameters = spec.param_bytes(name)
    if spec.is_train(name):  # Adam reads and writes each parameter and its two moments
        return 6 * parameters + batch, 3 * parameters + batch
    read = sum(array.nbytes for key, array in data.params.items() if not any(table in key for table in EMBEDDINGS))
    steps = spec.DECODE_TOKENS if name == "gpt_decode" else 1
    return steps * read + batch, parameters


def floor(name: str, sgemm: float, call: float) -> dict[str, float]:
    """The least time of one step: its matrix products or its memory traffic, and one call."""
    least_bytes, working_set = traffic_bytes(name)
    flops = 0 if name == "fused_elementwise" else spec.flops(name)
    rate = update_gb_per_s(working_set)
    matmul_s, memory_s = flops / sgemm / 1e9, least_bytes / rate / 1e9
    return {
        "flops": flops,
        "least_bytes": least_bytes,
        "working_set_bytes": working_set,
        "update_gb_per_s": round(rate, 1),
        "matmul_s": matmul_s,
        "memory_s": memory_s,
        "floor_s": max(matmul_s, memory_s) + call,
    }


def main() -> None:
    """Measure the ceilings and the floors of the workloads that are named."""
    sgemm = {str(n): sgemm_gflops(n) for n in (512, 1024, 2048)}
    best = max(rate for rates in sgemm.values() for rate in rates.values())
    call = call_s()
    out = {
        "fma_gflops": fma_gflops(),
        "sgemm_gflops": sgemm,
        "best_sgemm_gflops": best,
        "memory_update_gb_per_s": round(update_gb_per_s(1 << 28), 1),
        "call_s": call,
        "cores": os.cpu_count(),
        "floors": {name: floor(name, best, call) for name in sys.argv[1:]},
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
