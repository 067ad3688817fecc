"""The CPU that code is made for, and object code made callable. Needs llvmlite only, not Numba."""

from __future__ import annotations

import os
from functools import cache

import llvmlite.binding as ll

from graphc.backends.numba.objects import keep


@cache
def cpu_name() -> str:
    """LLVM's name of this CPU."""
    return os.environ.get("NUMBA_CPU_NAME") or ll.get_host_cpu_name()


@cache
def cpu_features() -> str:
    """LLVM's feature string of this CPU, such as ``+avx2,-avx512f``."""
    chosen = os.environ.get("NUMBA_CPU_FEATURES")
    if chosen is not None:
        return chosen
    try:
        return ll.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM cannot tell on this platform
        return ""


def has_fused_multiply_add() -> bool:
    """Is ``a * b + c`` one instruction? Only old x86 CPUs lack it."""
    return not ll.get_process_triple().startswith(("x86", "i686")) or "+fma" in cpu_features().split(",")


def has_scale_instruction() -> bool:
    """Is a product with a power of two one instruction on vectors? AVX-512 has it, and LLVM 22 makes vectors of it.

    LLVM 20 does not, and would compute everything in the same loop one element at a time: 20 times slower.
    """
    return "+avx512f" in cpu_features().split(",") and ll.llvm_version_info >= (22,)


@cache
def target_machine() -> ll.TargetMachine:
    """Code generation for this CPU."""
    ll.initialize_native_target()
    ll.initialize_native_asmprinter()
    target = ll.Target.from_triple(ll.get_process_triple())
    reloc = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(
        cpu=cpu_name(), features=cpu_features(), opt=3, reloc=reloc, codemodel="jitdefault", jit=True
    )


class Loader:
    """Object code in memory. Nothing is ever unloaded: kernels are small, and few are ever made twice."""

    def __init__(self) -> None:
        machine = target_machine()
        empty = ll.parse_assembly("")
        empty.triple = machine.triple
        self._engine = ll.create_mcjit_compiler(empty, machine)
        keep(self._engine)
        self._objects: list[ll.ObjectFileRef] = []

    def load(self, data: bytes) -> None:
        self._engine.add_object_file(ll.ObjectFileRef.from_data(data))

    def address(self, symbol: str) -> int:
        """The address of a function; 0 if it is not defined."""
        return self._engine.get_function_address(symbol)
