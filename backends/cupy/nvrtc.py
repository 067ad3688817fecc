"""Compiles CUDA C to machine code with NVRTC, which needs no GPU and no driver."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphc.errors import BackendError


@dataclass(frozen=True)
class Usage:
    """What the assembler says that one kernel takes of a multiprocessor."""

    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Cubin:
    """Machine code of one architecture, with the usage of each kernel by name."""

    arch: str
    code: bytes
    usage: Mapping[str, Usage]


def compile_cubin(source: str, arch: str, options: tuple[str, ...] = ()) -> Cubin:
    """Compile a module for an architecture such as ``sm_90``.

    Raises:
        BackendError: NVRTC is not installed, or does not accept the source; the message holds its log.
    """
    nvrtc = _import_nvrtc()
    success = nvrtc.nvrtcResult.NVRTC_SUCCESS
    program = _value(nvrtc.nvrtcCreateProgram(source.encode(), b"graphc.cu", 0, [], []))
    try:
        arguments = [f"--gpu-architecture={arch}", "--ptxas-options=-v", *options]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(arguments), [a.encode() for a in arguments])
        log = bytearray(_value(nvrtc.nvrtcGetProgramLogSize(program)))
        _value(nvrtc.nvrtcGetProgramLog(program, log))
        text = log.rstrip(b"\0").decode(errors="replace")
        if result != success:
            raise BackendError(
                f"NVRTC refuses the source for {arch}: {result.name}",
                details=tuple(text.splitlines()),
                remedy="this is a defect of the CUDA printer: please report it with these lines",
            )
        code = bytearray(_value(nvrtc.nvrtcGetCUBINSize(program)))
        _value(nvrtc.nvrtcGetCUBIN(program, code))
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return Cubin(arch, bytes(code), parse_usage(text))


def nvrtc_version() -> str:
    """The version that compiles, as a part of the key of what it compiled."""
    nvrtc = _import_nvrtc()
    (status, major, minor) = nvrtc.nvrtcVersion()
    return f"{major}.{minor}" if not status.value else "unknown"


def _import_nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
    except ImportError as error:
        raise BackendError(
            f"NVRTC cannot be imported: {error}", remedy="pip install cuda-bindings nvidia-cuda-nvrtc"
        ) from error
    return nvrtc


def parse_usage(log: str) -> dict[str, Usage]:
    """The usage of each kernel from what ``ptxas -v`` writes.

    >>> log = '''ptxas info    : Compiling entry function 'f' for 'sm_90'
    ... ptxas info    : Function properties for f
    ...     8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
    ... ptxas info    : Used 30 registers, used 1 barriers, 64 bytes smem'''
    >>> parse_usage(log)["f"]
    Usage(registers=30, stack_bytes=8, spill_bytes=16, shared_bytes=64)
    """
    usage: dict[str, Usage] = {}
    for section in log.split("Compiling entry function")[1:]:
        name = re.search(r"'(\w+)'", section)
        if name:
            usage[name[1]] = Usage(
                registers=_number(r"Used (\d+) registers", section),
                stack_bytes=_number(r"(\d+) bytes stack frame", section),
                spill_bytes=_number(r"(\d+) bytes spill stores", section)
                + _number(r"(\d+) bytes spill loads", section),
                shared_bytes=_number(r"(\d+) bytes smem", section),
            )
    return usage


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _value(returned: tuple[Any, ...]) -> Any:
    """What an NVRTC function returns beside its status."""
    status, *values = returned
    if status.value:
        raise BackendError(f"NVRTC failed: {status.name}", remedy="reinstall nvidia-cuda-nvrtc")
    return values[0] if values else None
