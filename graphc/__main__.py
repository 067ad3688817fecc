"""``python -m graphc doctor``: what graphc finds on this machine, and what to do about what is missing."""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("numpy", "numba", "llvmlite", "networkx", "safetensors", "onnx", "onnxruntime")
CUPY_PACKAGES = ("cupy", "cupy-cuda12x", "cupy-cuda13x")
CPU_FEATURES = ("avx2", "fma", "avx512f", "avx512vl", "avx512bf16", "neon", "sve")

Rows = Iterator[tuple[str, str]]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m graphc", description="a compute-graph compiler for deep learning")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="show backends, versions, CPU features, threads and the cache")
    parser.parse_args(arguments)
    print(doctor())
    return 0


def doctor() -> str:
    """The report of ``python -m graphc doctor``."""
    sections = {"backends": _backends(), "versions": _versions(), "cpu": _cpu(), "gpu": _gpus(), "cache": _cache()}
    lines: list[str] = []
    for title, rows in sections.items():
        lines.append(title)
        lines += [f"  {name:<18} {value}".rstrip() for name, value in rows]
    return "\n".join(lines)


def _backends() -> Rows:
    from graphc.backend import backends, reason_against

    try:
        found = backends()
    except (ImportError, AttributeError) as error:  # the doctor must speak when the installation is broken
        yield "", f"cannot be listed: {error}: reinstall graphc"
        return
    for backend in found:
        reason = reason_against(backend)
        yield backend.name, "available" if reason is None else f"not available: {reason}"


def _gpus() -> Rows:
    installation = importlib.import_module("graphc.backends.cupy.installation")
    driver = installation.driver_version()
    yield "driver", f"for CUDA {driver // 1000}.{driver % 1000 // 10}" if driver else "none"
    for number, (name, memory) in enumerate(installation.gpus()):
        capability = ".".join(map(str, installation.capability(number)))
        yield f"gpu {number}", f"{name}, {_readable(memory)}, compute capability {capability}"


def _versions() -> Rows:
    yield "graphc", _version("graphc") or "not installed, running from a checkout"
    yield "python", f"{platform.python_version()} ({platform.python_implementation()}, {platform.system()})"
    for package in PACKAGES:
        yield package, _version(package) or f"missing: pip install {package}"
    yield "openblas", _openblas()
    cupy = [f"{found} ({package})" for package in CUPY_PACKAGES if (found := _version(package))]
    yield "cupy", ", ".join(cupy) or "missing: pip install cupy-cuda13x (only for NVIDIA GPUs)"
    cudnn = importlib.import_module("graphc.backends.cupy.cudnn")
    yield "cudnn", cudnn.installed() or f"missing: {cudnn.REMEDY} (optional, for convolutions on NVIDIA GPUs)"


def _openblas() -> str:
    try:
        blas = importlib.import_module("graphc.backends.numba.blas")
    except ImportError as error:
        return f"unknown: {error}"
    if blas.missing() is not None:
        return f"missing: {blas.REMEDY}"
    if blas.wheel_library() is not None:
        return f"{_version('scipy-openblas64') or 'of unknown version'} (scipy-openblas64)"
    return f"a copy of NumPy's, {blas.numpy_library().name}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> Rows:
    yield "machine", platform.machine()
    try:
        machine = importlib.import_module("graphc.backends.numba.machine")
    except ImportError as error:
        yield "name", f"unknown, since llvmlite cannot be imported: {error}"
    else:
        features = machine.cpu_features().split(",")
        yield "name", machine.cpu_name()
        yield "features", " ".join(name for name in CPU_FEATURES if f"+{name}" in features) or "none that matter"
    threads = importlib.import_module("graphc.backends.numba.threads")
    several = "" if threads.C_LIBRARY is not None else " (no more on this platform: use Linux or macOS, or WSL)"
    yield "threads", f"{threads.get_threads()}{several}"


def _cache() -> Rows:
    from graphc import cache

    folder, wanted = cache.folder(), cache.wanted()
    if folder is None:
        yield "folder", "none: no folder can be written; set GRAPHC_CACHE_DIR to one that can"
        return
    yield "folder", str(folder)
    if folder != wanted:
        yield "", f"for this process only, since {wanted} cannot be used: make it yours alone (chmod 700)"
    yield "size", _readable(cache.size())


def _readable(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.1f} {unit}" if unit != "B" else f"{size} B"
        size /= 1000  # pyright: ignore[reportAssignmentType]
    return f"{size:.1f} GB"


if __name__ == "__main__":
    sys.exit(main())
