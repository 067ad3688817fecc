"""The machine code of a unit, part by part from the cache, and what is missing compiled side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from graphc import cache
from graphc.backends.cupy.module import Part
from graphc.backends.cupy.nvrtc import compile_cubin, nvrtc_version

KIND = "cubin"


def cubins(parts: Sequence[Part], arch: str) -> list[bytes]:
    """Machine code for an architecture, in the order of the parts.

    Raises:
        BackendError: NVRTC is not installed, or does not accept a part.
    """
    version = nvrtc_version()
    keys = [cache.digest(KIND, part.source, arch, version) for part in parts]
    found = [cache.get(key, KIND) for key in keys]
    missing = [number for number, code in enumerate(found) if code is None]
    # the longest first, so that no thread begins with one when the others are done
    missing.sort(key=lambda number: -len(parts[number].source))

    def compiled(number: int) -> bytes:  # without the interpreter's lock
        return compile_cubin(parts[number].source, arch).code

    if len(missing) > 1:
        with ThreadPoolExecutor(min(len(missing), os.cpu_count() or 1), "graphc-nvrtc") as pool:
            codes = list(pool.map(compiled, missing))
    else:
        codes = [compiled(number) for number in missing]
    for number, code in zip(missing, codes, strict=True):
        cache.put(keys[number], KIND, code)
        found[number] = code
    return [code for code in found if code is not None]
