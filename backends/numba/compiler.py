"""Python source or functions -> object code, by Numba's front end and LLVM's optimizer.

Numba types and lowers the function; the LLVM module is then wrapped in a plain C function, optimized and turned
into object code here, since Numba's own pipeline adds wrappers that refer to the interpreter and runs twice the
passes. Objects hold no absolute address and refer to no symbol of Python or of Numba's run time.

This module imports Numba, so it is only loaded to compile what is not in the cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding as ll
from llvmlite import ir
from numba.core import compiler as numba_compiler
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.cpu_options import FastMathOptions
from numba.core.registry import cpu_target
from numba.core.typed_passes import (
    AnnotateTypes,
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NoPythonSupportedFeatureValidation,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import (
    FixupArgs,
    IRProcessing,
    ReconstructSSA,
    TranslateByteCode,
)

from graphc.backends.numba.machine import target_machine
from graphc.errors import BackendError

CONTRACT = FastMathOptions({"contract"})
ALLOWED_SYMBOLS = frozenset(
    {"fmod", "fmodf", "rint", "rintf", "floor", "floorf", "ceil", "ceilf", "trunc", "truncf"}
    | {"memset", "memcpy", "memmove"}
)
"""What the C library provides, for a remainder of floats and for CPUs without instructions for the rest."""


class Compiler(numba_compiler.CompilerBase):
    """Only the passes that straight numeric code needs."""

    def define_pipelines(self) -> list[PassManager]:
        pipeline = PassManager("graphc")
        pipeline.add_pass(TranslateByteCode, "read the bytecode")
        pipeline.add_pass(FixupArgs, "arguments")
        pipeline.add_pass(IRProcessing, "control flow")
        pipeline.add_pass(ReconstructSSA, "static single assignment")
        pipeline.add_pass(NopythonTypeInference, "types")
        pipeline.add_pass(PreLowerStripPhis, "remove phi nodes")
        pipeline.add_pass(NoPythonSupportedFeatureValidation, "validate")
        pipeline.add_pass(IRLegalization, "legalize")
        pipeline.add_pass(AnnotateTypes, "annotate")
        pipeline.add_pass(NativeLowering, "lower")
        pipeline.add_pass(NoPythonBackend, "finish")
        pipeline.finalize()
        return [pipeline]


class Library:
    """Stands in for Numba's code library: takes the lowered module and does nothing with it."""

    def __init__(self, codegen: Any) -> None:
        self.codegen = codegen
        self.name = "graphc"
        self.module: ir.Module | None = None
        self.recorded_timings: list[object] = []
        self._reload_init: set[object] = set()

    def create_ir_module(self, name: str) -> ir.Module:
        return self.codegen._create_empty_module(name)

    def add_ir_module(self, module: ir.Module) -> None:
        self.module = module

    def add_linking_library(self, library: Any) -> None:
        """Numba offers its run time to every module; nothing here may use it, which is checked at the end."""


@cache
def _contexts() -> tuple[Any, Any]:
    registered: Any = cpu_target
    typing, target = registered.typing_context, registered.target_context
    typing.refresh()
    target.refresh()
    return typing, target


def _flags() -> Any:
    flags: Any = numba_compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    flags.nrt = False
    flags.fastmath = CONTRACT
    return flags


LANES = 16
"""Of a vector, the widest that there are."""
INT64_POINTER = types.CPointer(types.int64)
KERNEL_ARGUMENTS = (INT64_POINTER, types.int64, types.int64)


def lower(function: Callable[..., object], arguments: tuple[types.Type, ...], symbol: str, returns: types.Type) -> str:
    """LLVM IR, not yet optimized, of a C function called ``symbol``."""
    with global_compiler_lock:
        typing, target = _contexts()
        library = Library(target.codegen())
        pipeline: Any = Compiler
        result = numba_compiler.compile_extra(
            typing, target, function, arguments, returns, _flags(), {}, library=library, pipeline_class=pipeline
        )
        module = library.module
        assert module is not None
        _add_entry(module, result, target, symbol)
        return str(module)


def _add_entry(module: ir.Module, result: Any, target: Any, symbol: str) -> None:
    """A C function that calls Numba's and ignores its error status: this code never raises."""
    descriptor = result.fndesc
    native = module.get_global(descriptor.llvm_func_name)
    native.linkage = "internal"
    native.attributes.add("alwaysinline")
    for value in module.global_values:
        if isinstance(value, ir.GlobalVariable) and value.name.startswith("_ZN08NumbaEnv"):
            value.linkage = "internal"
    arguments = [target.get_value_type(kind) for kind in descriptor.argtypes]
    is_void = descriptor.restype == types.none
    returned = ir.VoidType() if is_void else target.get_value_type(descriptor.restype)
    entry = ir.Function(module, ir.FunctionType(returned, arguments), symbol)
    entry.attributes.add("nounwind")
    builder = ir.IRBuilder(entry.append_basic_block())
    _, value = target.call_conv.call_function(builder, native, descriptor.restype, descriptor.argtypes, entry.args)
    if is_void:
        builder.ret_void()
    else:
        builder.ret(value)


def optimize(text: str, unroll: bool = True) -> ll.ModuleRef:
    """Parse LLVM IR and optimize it for this machine, perhaps without unrolling loops."""
    machine = target_machine()
    module = ll.parse_assembly(text)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    options = ll.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    options.slp_vectorization = True
    options.loop_interleaving = True
    options.loop_unrolling = unroll
    builder = ll.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module


def emit(text: str, symbol: str, unroll: bool = True) -> bytes:
    """Object code of LLVM IR that defines ``symbol``.

    Raises:
        BackendError: the code refers to the Python interpreter, which cannot be: a defect of the code generator.
    """
    module = optimize(text, unroll)
    for needed in module.functions:
        if needed.is_declaration and not needed.name.startswith("llvm.") and needed.name not in ALLOWED_SYMBOLS:
            raise BackendError(
                f"the code of {symbol} refers to the symbol {needed.name}",
                remedy="report this as a defect of graphc, with the output of step.source()",
            )
    data: bytes = target_machine().emit_object(module)
    return data


def compile_function(
    function: Callable[..., object],
    arguments: tuple[types.Type, ...],
    symbol: str,
    returns: types.Type = types.void,
    unroll: bool = True,
) -> bytes:
    """Object code that defines ``symbol``."""
    return emit(lower(function, arguments, symbol, returns), symbol, unroll)


def function_of_source(source: str, file_name: str) -> Callable[..., object]:
    """The function ``kernel`` of generated source."""
    namespace: dict[str, Any] = {"__name__": "graphc_kernel"}
    exec(compile(source, file_name, "exec"), namespace)
    return namespace["kernel"]


def compile_kernel(source: str, file_name: str, symbol: str) -> bytes:
    """Object code of a generated kernel."""
    function = function_of_source(source, file_name)
    return emit(lower(function, KERNEL_ARGUMENTS, symbol, types.void), symbol, unroll=not has_only_vector_loops(source))


def has_only_vector_loops(source: str) -> bool:
    """Has every loop whose count is known as many steps as whole vectors have lanes?

    LLVM unrolls short loops before it looks for vectors, and then finds none: of 16 channels each would go alone.
    """
    counts = [int(count) for count in re.findall(r" in range\((\d+)\):", source)]
    return bool(counts) and all(count % LANES == 0 for count in counts)
