"""What NVRTC makes of CUDA C before an assembler has seen it: PTX, compiled and parsed.

Source: NVIDIA, "Parallel Thread Execution ISA", syntax and state spaces.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc import cache
from graphc.backends.cupy import nvrtc
from graphc.errors import BackendError

KIND = "ptx"
TYPES = {
    "u8": "u1", "s8": "i1", "b8": "u1", "u16": "u2", "s16": "i2", "b16": "u2", "u32": "u4", "s32": "i4", "b32": "u4",
    "f32": "f4", "u64": "u8", "s64": "i8", "b64": "u8", "f64": "f8", "pred": "?", "f16": "u2", "bf16": "u2",
}  # fmt: skip
"""NumPy's name for each type of PTX; floats of 16 bits are their bits."""


def dtype_of(name: str) -> np.dtype:
    """NumPy's type for one of PTX."""
    return np.dtype(TYPES[name])


@dataclass(frozen=True)
class Register:
    """A register of each thread: where it is kept, and its type."""

    slot: int
    dtype: np.dtype
    negated: bool = False


@dataclass(frozen=True)
class Constant:
    """A number as it is written; floats of 32 bits are their bits."""

    value: int | float
    bits: int = 0

    def of(self, dtype: np.dtype) -> np.ndarray:
        """One element."""
        if dtype.kind == "f":
            return np.array([self.value], dtype)
        value = int(self.value)
        if self.bits:  # of a float that is moved as bits
            value = int.from_bytes(struct.pack("<f" if self.bits == 32 else "<d", self.value), "little")
        width = 8 * dtype.itemsize
        return np.array([value & ((1 << width) - 1)], f"u{dtype.itemsize}").view(dtype)


@dataclass(frozen=True)
class Symbol:
    """A name: of a variable, a parameter, a function, a label or what a thread may ask for."""

    name: str


@dataclass(frozen=True)
class Address:
    """``[base + offset]``."""

    base: Register | Symbol | Constant
    offset: int


Operand = Any
"""A register, constant, symbol or address; a tuple of these for a vector and for ``a|b``."""


@dataclass(frozen=True)
class Instruction:
    """One instruction; it is done where the guard holds.

    Attributes:
        used: of the bytes that are loaded, those that are ever looked at, as bits.
    """

    opcode: str
    operands: tuple[Operand, ...]
    guard: Register | None
    used: int | None = None


@dataclass
class Variable:
    """Memory with a name: in bytes; None where a launch says how many."""

    nbytes: int | None
    alignment: int
    space: str
    data: bytes = b""


@dataclass
class Function:
    """A kernel or what one calls.

    Attributes:
        parameters, results: name and bytes of each, in order.
        registers: the type of each.
        blocks: instructions that are done from the first to the last.
        labels: which block begins there.
        threads: of a block, as the source promises.
    """

    name: str
    is_entry: bool
    parameters: dict[str, int] = field(default_factory=dict)
    results: dict[str, int] = field(default_factory=dict)
    registers: list[np.dtype] = field(default_factory=list)
    variables: dict[str, Variable] = field(default_factory=dict)
    blocks: list[list[Instruction]] = field(default_factory=lambda: [[]])
    labels: dict[str, int] = field(default_factory=dict)
    threads: int | None = None


@dataclass
class Module:
    """All functions and variables of a translation unit."""

    functions: dict[str, Function] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)


def compile_ptx(source: str, arch: str = "sm_80") -> str:
    """PTX of CUDA C, from the cache if it was compiled before.

    Raises:
        BackendError: NVRTC is not installed, or does not accept the source.
    """
    compiler: Any = nvrtc._import_nvrtc()
    virtual = arch.replace("sm_", "compute_")
    key = cache.digest(KIND, source, virtual, nvrtc.nvrtc_version())
    found = cache.get(key, KIND)
    if found is not None:
        return found.decode()
    program = nvrtc._value(compiler.nvrtcCreateProgram(source.encode(), b"graphc.cu", 0, [], []))
    (result,) = compiler.nvrtcCompileProgram(program, 1, [f"--gpu-architecture={virtual}".encode()])
    if result != compiler.nvrtcResult.NVRTC_SUCCESS:
        raise BackendError(f"NVRTC refuses the source for {virtual}", remedy="read its log")
    code = bytearray(nvrtc._value(compiler.nvrtcGetPTXSize(program)))
    nvrtc._value(compiler.nvrtcGetPTX(program, code))
    compiler.nvrtcDestroyProgram(program)
    text = bytes(code).rstrip(b"\0")
    cache.put(key, KIND, text)
    return text.decode()


def parse(text: str) -> Module:
    """The functions and variables of PTX.

    Raises:
        ValueError: text that this parser does not know.
    """
    module = Module()
    text = re.sub(r"//[^\n]*", "", text)
    position = 0
    for found in re.finditer(r"(?:\.visible\s+|\.weak\s+)?\.(entry|func)\b([^{;]*)([{;])", text):
        if found.start() < position:
            continue
        module.variables |= _variables(text[position : found.start()])
        if found[3] == ";":  # only said to be there
            position = found.end()
            continue
        end = _closing(text, found.end())
        function = _heading(found[1] == "entry", found[2])
        _Body(function).read(text[found.end() : end])
        module.functions[function.name] = function
        position = end + 1
    module.variables |= _variables(text[position:])
    return module


def _closing(text: str, start: int) -> int:
    depth = 1
    for found in re.finditer(r"[{}]", text[start:]):
        depth += 1 if found[0] == "{" else -1
        if not depth:
            return start + found.start()
    raise ValueError("a function without an end")


def _variables(text: str) -> dict[str, Variable]:
    pattern = (
        r"\.(global|shared|const|local)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$%.]+)(\[\d*\])?\s*(?:=\s*([^;]+))?;"
    )
    found: dict[str, Variable] = {}
    for space, align, kind, name, count, values in re.findall(pattern, text):
        dtype = dtype_of(kind)
        size = dtype.itemsize * (int(count[1:-1] or -1) if count else 1)
        data = b""
        if values:
            given = [_constant(word).of(dtype) for word in re.findall(r"[\w.+-]+", values)]
            data = np.concatenate(given).tobytes().ljust(size, b"\0")
        found[name] = Variable(None if size < 0 else size, int(align or dtype.itemsize), space, data)
    return found


def _heading(is_entry: bool, text: str) -> Function:
    lists = re.findall(r"\(([^)]*)\)", text)
    name = re.sub(r"\([^)]*\)", " ", text).split()[0]
    function = Function(name, is_entry)
    threads = re.search(r"\.(?:maxntid|reqntid)\s+(\d+)", text)
    function.threads = int(threads[1]) if threads else None
    function.parameters = _parameters(lists[-1]) if lists and not text.rstrip().endswith(name) else {}
    function.results = _parameters(lists[0]) if len(lists) > 1 else {}
    return function


def _parameters(text: str) -> dict[str, int]:
    found = re.findall(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(\w+)(\[\d+\])?", text)
    return {name: dtype_of(kind).itemsize * int(count[1:-1] if count else 1) for kind, name, count in found}


def ending(opcode: str) -> str:
    """What ends a block of instructions: a branch, the end, or a barrier of all threads; empty for all others."""
    name = opcode.split(".")[0]
    if name in ("bar", "barrier") and ".warp." not in opcode:
        return "bar"
    return {"bra": "bra", "ret": "ret", "exit": "ret"}.get(name, "")


class _Body:
    """Reads the statements of a function, with the names of each scope."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.scopes: list[dict[str, Register]] = [{}]
        self.used: int | None = None

    def read(self, text: str) -> None:
        for statement in _statements(text):
            if statement == "{":
                self.scopes.append({})
            elif statement == "}":
                self.scopes.pop()
            elif statement.endswith(":"):
                self.label(statement[:-1].strip())
            elif statement.startswith("."):
                self.directive(statement)
            else:
                self.instruction(statement)

    def label(self, name: str) -> None:
        if self.function.blocks[-1]:
            self.function.blocks.append([])
        self.function.labels[name] = len(self.function.blocks) - 1

    def directive(self, statement: str) -> None:
        if statement.startswith(".reg"):
            _, kind, names = statement.split(None, 2)
            for name in names.split(","):
                counted = re.fullmatch(r"(.*)<(\d+)>", name.strip())
                some = [f"{counted[1]}{i}" for i in range(int(counted[2]))] if counted else [name.strip()]
                for each in some:
                    self.scopes[-1][each] = Register(len(self.function.registers), dtype_of(kind[1:]))
                    self.function.registers.append(dtype_of(kind[1:]))
        elif statement.startswith(".param"):
            for name, nbytes in _parameters(statement).items():
                self.function.variables.setdefault(name, Variable(0, 16, "param"))
                known = self.function.variables[name]
                known.nbytes = max(known.nbytes or 0, nbytes)
        elif statement.startswith(".pragma"):
            mask = re.search(r"used_bytes_mask\s+(\d+)", statement)
            if mask:
                self.used = int(mask[1])
        elif statement.startswith((".local", ".shared", ".global")):
            self.function.variables |= _variables(statement + ";")
        elif not statement.startswith((".loc", ".file", ".section")):
            raise ValueError(f"unknown directive: {statement}")

    def instruction(self, statement: str) -> None:
        guarded = re.match(r"@(!?)(\S+)\s+", statement)
        guard = None
        if guarded:
            named = self.register(guarded[2])
            guard = Register(named.slot, named.dtype, bool(guarded[1]))
            statement = statement[guarded.end() :]
        opcode, _, rest = statement.partition(" ") if " " in statement else (statement, "", "")
        operands = tuple(self.operand(word) for word in _split(rest))
        blocks = self.function.blocks
        blocks[-1].append(Instruction(opcode, operands, guard, self.used))
        self.used = None
        if ending(opcode):
            blocks.append([])

    def register(self, name: str) -> Register:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        raise ValueError(f"no such register: {name}")

    def operand(self, word: str) -> Operand:
        word = word.strip()
        if word[0] in "{(":
            return tuple(self.operand(part) for part in _split(word[1:-1]))
        if word[0] == "[":
            base, _, offset = word[1:-1].partition("+")
            return Address(self.operand(base), int(offset or 0))
        if "|" in word:
            return tuple(self.operand(part) for part in word.split("|"))
        if word[0] == "!":
            named = self.register(word[1:])
            return Register(named.slot, named.dtype, True)
        if re.match(r"[-+]?\d", word):
            return _constant(word)
        if any(word in scope for scope in self.scopes):
            return self.register(word)
        return Symbol(word)


def _statements(text: str) -> Iterator[str]:
    """Statements, labels and the braces of scopes, but not those of vectors."""
    start = 0
    depth = 0
    for found in re.finditer(r"[{};:]", text):
        said = re.sub(r"\s+", " ", text[start : found.start()]).strip()
        if found[0] == "{":
            if said or depth:
                depth += 1
            else:
                yield "{"
                start = found.end()
        elif found[0] == "}":
            if depth:
                depth -= 1
            else:
                yield "}"
                start = found.end()
        elif found[0] == ";":
            if said:
                yield said
            start = found.end()
        elif re.fullmatch(r"[\w$]+", said):
            yield said + ":"
            start = found.end()


def _split(text: str) -> list[str]:
    """At commas outside of brackets."""
    parts = re.split(r",(?![^\[({]*[\])}])", text)
    return [part.strip() for part in parts if part.strip()]


def _constant(word: str) -> Constant:
    bits = re.fullmatch(r"0([fd])([0-9a-fA-F]+)", word)
    if bits:
        single = bits[1] == "f"
        (value,) = struct.unpack("<f" if single else "<d", int(bits[2], 16).to_bytes(4 if single else 8, "little"))
        return Constant(value, 32 if single else 64)
    if re.fullmatch(r"[-+]?\d+\.\d*(e[-+]?\d+)?", word):
        return Constant(float(word), 64)
    return Constant(int(word.rstrip("U"), 0))
