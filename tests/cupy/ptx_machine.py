"""Executes PTX on the CPU: all threads of many blocks at once, an instruction an operation on arrays.

Threads that are at the same block of instructions are a group, and the group that is furthest behind goes first, so that
threads which part meet again where their ways do. Memory is the host's; each access must lie in what the launch was
given, at a multiple of its size. Registers that are the same for all threads have one element.

Source: NVIDIA, "Parallel Thread Execution ISA"; volatile, caches and the order of memory between threads are not modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.cupy.ptx_arithmetic import operation
from tests.cupy.ptx_integers import UnknownInstruction, logic_operation
from tests.cupy.ptx_memory import Global, Private, Shared
from tests.cupy.ptx_text import Address, Constant, Function, Instruction, Module, Register, Symbol, dtype_of, ending
from tests.cupy.ptx_warps import WARP_INSTRUCTIONS

Array = np.ndarray
I64 = np.dtype(np.int64)
SHARED_WINDOW, LOCAL_WINDOW, WINDOW = 1 << 60, 1 << 61, 1 << 32
"""Where shared and local memory lie among generic addresses."""
MOST_THREADS = 4096
"""So many threads are executed at once, at most, unless a block has more."""


class Diverged(AssertionError):
    """Threads that should meet wait at different places, or are gone."""


@dataclass
class Grid:
    """Some blocks of a launch: all of their threads, warps filled up to 32 lanes.

    Attributes:
        first: the number of the first block.
        count: how many blocks run side by side.
        width: threads of a block, rounded up to warps.
    """

    module: Module
    function: Function
    first: int
    count: int
    blocks: int
    threads: int
    words: Array
    memory: Global
    shared: Shared
    width: int = 0
    lanes: int = 0
    carry: Any = None
    copies: list[Any] = field(default_factory=list)
    committed: Any = None
    gone: Any = None

    def __post_init__(self) -> None:
        self.width = -(-self.threads // 32) * 32
        self.lanes = self.count * self.width
        every = np.arange(self.lanes)
        self.tid, self.block = every % self.width, every // self.width
        self.carry = np.zeros(self.lanes, bool)
        self.committed = np.zeros(self.lanes, np.int64)
        self.gone = self.tid >= self.threads

    def special(self, name: str) -> Array:
        """What a thread may ask for."""
        match name:
            case "%tid.x":
                return self.tid.astype(np.uint32)
            case "%ctaid.x":
                return (self.first + self.block).astype(np.uint32)
            case "%ntid.x":
                return np.array([self.threads], np.uint32)
            case "%nctaid.x":
                return np.array([self.blocks], np.uint32)
            case "%laneid":
                return (self.tid % 32).astype(np.uint32)
            case "%tid.y" | "%tid.z" | "%ctaid.y" | "%ctaid.z":
                return np.array([0], np.uint32)
            case "%ntid.y" | "%ntid.z" | "%nctaid.y" | "%nctaid.z" | "WARP_SZ":
                return np.array([32 if name == "WARP_SZ" else 1], np.uint32)
        raise UnknownInstruction(name)


class Frame:
    """A function that is being executed: its registers, and the memory that each of its threads has alone."""

    def __init__(self, grid: Grid, function: Function) -> None:
        self.grid = grid
        self.function = function
        self.registers: list[Array] = [
            np.full(1, 0xA5, np.uint8).repeat(t.itemsize).view(t) for t in function.registers
        ]
        places, size = {}, 0
        named = {**function.parameters, **function.results}
        named |= {n: v.nbytes or 0 for n, v in function.variables.items() if v.space in ("param", "local")}
        for name, nbytes in named.items():
            places[name] = size
            size += -(-nbytes // 16) * 16
        self.places = places
        self.private = Private(grid.lanes, size)

    def read(self, operand: Any, dtype: np.dtype, active: Array | None) -> Array:
        """A register or constant as a type, for the active threads."""
        if isinstance(operand, Register):
            found = self.registers[operand.slot]
            if active is not None and found.size > 1:
                found = found[active]
            if found.dtype is not dtype:
                if dtype.itemsize == found.dtype.itemsize:
                    found = found.view(dtype)
                elif dtype.itemsize < found.dtype.itemsize:
                    found = found.view(f"u{found.dtype.itemsize}").astype(f"u{dtype.itemsize}").view(dtype)
                else:
                    raise UnknownInstruction(f"a register of {found.dtype} read as {dtype}")
            return ~found if operand.negated else found
        if isinstance(operand, Constant):
            return operand.of(dtype)
        found = np.asarray(self.symbol(operand.name))
        if active is not None and found.size > 1:
            found = found[active]
        return found.astype(dtype)

    def symbol(self, name: str) -> Array:
        """The address of a variable in its space, or what a thread may ask for."""
        grid = self.grid
        if name in grid.shared.places:
            return np.array([grid.shared.places[name]], np.int64)
        if name in self.places:
            return np.array([self.places[name]], np.int64)
        if name in grid.memory.variables:
            return np.array([grid.memory.variables[name].ctypes.data], np.int64)
        return grid.special(name)

    def write(self, register: Any, value: Array, active: Array | None) -> None:
        """To a register; what is narrower is widened by its own sign."""
        if isinstance(register, Symbol):
            if register.name != "_":
                raise UnknownInstruction(f"writes {register.name}")
            return
        dtype = self.function.registers[register.slot]
        if value.dtype is not dtype:
            if value.dtype.itemsize == dtype.itemsize:
                value = value.view(dtype)
            elif value.dtype.itemsize < dtype.itemsize and value.dtype.kind in "ui":
                value = value.astype(f"{value.dtype.kind}{dtype.itemsize}").view(dtype)
            else:
                raise UnknownInstruction(f"{value.dtype} written to a register of {dtype}")
        if active is None:
            self.registers[register.slot] = value
            return
        kept = self.registers[register.slot]
        if kept.size == 1:
            kept = np.broadcast_to(kept, self.grid.lanes).copy()
        else:
            kept = kept.copy() if not kept.flags.owndata or not kept.flags.writeable else kept
        kept[active] = value
        self.registers[register.slot] = kept

    def address(self, operand: Address, active: Array | None) -> Array:
        """The sum of a register or name and an offset, as int64."""
        base = operand.base
        if isinstance(base, Register):
            wide = self.function.registers[base.slot].itemsize == 8
            found = self.read(base, I64 if wide else np.dtype(np.uint32), active).astype(np.int64)
        else:
            found = self.read(base, I64, active)
        return found + operand.offset if operand.offset else found


Step = Callable[[Frame, "Array | None"], None]


def execute(grid: Grid) -> None:
    """Run all threads of the grid to their end."""
    frame = Frame(grid, grid.function)
    size = 0
    for name, nbytes in grid.function.parameters.items():
        given = grid.words.view(np.uint8)[size : size + nbytes]
        assert given.size == nbytes, f"{grid.function.name} takes more arguments than it is given"
        frame.private.fill(frame.places[name], given)
        size += nbytes
    assert size == grid.words.nbytes, f"{grid.function.name} takes {size} bytes of arguments, not {grid.words.nbytes}"
    grid.memory.blocks = grid.first + grid.block
    start = np.flatnonzero(~grid.gone)
    with np.errstate(all="ignore"):
        _run(frame, start, meets=True)


def _run(frame: Frame, start: Array, meets: bool) -> None:
    """Groups of threads until all have left; at barriers whole blocks wait for each other."""
    grid, function = frame.grid, frame.function
    groups: dict[int, list[Array]] = {0: [start]}
    waiting: dict[int, list[Array]] = {}
    code = _steps(function)
    while groups or waiting:
        if not groups:
            if not meets:
                raise Diverged(f"{function.name} is called and has a barrier")
            groups, waiting = _released(grid, waiting)
        number = min(groups)
        some = groups.pop(number)
        threads = some[0] if len(some) == 1 else np.sort(np.concatenate(some))
        while True:
            active = None if len(threads) == grid.lanes else threads
            steps, end = code[number]
            for step in steps:
                step(frame, active)
            number += 1
            if end is None:
                if groups and number >= min(groups):
                    groups.setdefault(number, []).append(threads)
                    break
                continue
            name, guard, target = end
            if name == "bar":
                if guard is not None:
                    raise UnknownInstruction("a barrier with a guard")
                waiting.setdefault(number, []).append(threads)
                break
            taken = True if guard is None else frame.read(guard, np.dtype(bool), active)
            if guard is not None:
                taken = bool(taken[0]) if taken.size == 1 or taken.all() or not taken.any() else taken
            if name == "ret":
                leaving = threads if taken is True else threads[:0] if taken is False else threads[taken]
                if meets:
                    grid.gone[leaving] = True
                threads = threads[:0] if taken is True else threads if taken is False else threads[~taken]
                if not len(threads):
                    break
            elif taken is True:
                number = target
            elif taken is not False:
                groups.setdefault(target, []).append(threads[taken])
                threads = threads[~taken]
            if groups and number >= min(groups):
                groups.setdefault(number, []).append(threads)
                break


def _released(grid: Grid, waiting: dict[int, list[Array]]) -> tuple[dict[int, list[Array]], dict[int, list[Array]]]:
    """Whole blocks go on behind the barrier at which all of their threads wait."""
    alive = np.bincount(grid.block, minlength=grid.count) * 0 + grid.threads
    groups: dict[int, list[Array]] = {}
    for place, some in waiting.items():
        threads = np.sort(np.concatenate(some))
        here = np.bincount(grid.block[threads], minlength=grid.count)
        if (here[here > 0] != alive[here > 0]).any():
            block = int(np.flatnonzero((here > 0) & (here != alive))[0])
            raise Diverged(
                f"{grid.function.name}: {here[block]} of {grid.threads} threads of block {grid.first + block} wait at a "
                f"barrier, others wait elsewhere or are gone"
            )
        grid.shared.part(here > 0)
        groups[place] = [threads]
    return groups, {}


Ending = tuple[str, "Register | None", int]


def _steps(function: Function) -> list[tuple[list[Step], Ending | None]]:
    """The code of a function, made once."""
    made: Any = getattr(function, "steps", None)
    if made is None:
        made = []
        for block in [*function.blocks, []]:
            last = block[-1] if block else None
            end: Ending | None = None
            if last is not None and (name := ending(last.opcode)):
                block = block[:-1]
                if name == "bar" and [operand.value for operand in last.operands] != [0]:
                    raise UnknownInstruction(f"{last.opcode} of some threads")
                end = (name, last.guard, function.labels[last.operands[0].name] if name == "bra" else -1)
            made.append(([_step(instruction) for instruction in block], end))
        function.steps = made  # pyright: ignore[reportAttributeAccessIssue]
    return made


def _step(instruction: Instruction) -> Step:
    """What is done for an instruction; where it has a guard, for the threads that it names."""
    plain = _plain_step(instruction)
    guard = instruction.guard
    if guard is None:
        return plain

    def guarded(frame: Frame, active: Array | None) -> None:
        holds = frame.read(guard, np.dtype(bool), active)
        if holds.all():
            plain(frame, active)
        elif holds.any():
            plain(frame, np.flatnonzero(holds) if active is None else active[holds])

    return guarded


def _plain_step(instruction: Instruction) -> Step:
    opcode, operands = instruction.opcode, instruction.operands
    name, *said = opcode.split(".")
    for prefix, make in WARP_INSTRUCTIONS.items():
        if opcode.startswith(prefix):
            return make(opcode, operands)
    if name in ("ld", "st"):
        return _access(instruction, name == "st", said)
    if name == "mov" or name == "cvta":
        return _move(opcode, operands)
    if name == "call":
        return _call(operands)
    if name == "atom":
        return _atomic(opcode, operands)
    if "cc" in said or name in ("addc", "subc", "madc"):
        return _carrying(opcode, operands)
    if name == "lop3":
        done = logic_operation(operands[4].value)
    else:
        done = operation(opcode)
    target, sources = operands[0], operands[1:]
    if isinstance(target, tuple) or len(sources) != len(done.operands):
        raise UnknownInstruction(f"{opcode} with {len(sources)} operands")
    compute, pairs = done.compute, tuple(zip(sources, done.operands, strict=True))
    result = done.result

    def step(frame: Frame, active: Array | None) -> None:
        read = frame.read
        found = compute(*[read(operand, dtype, active) for operand, dtype in pairs])
        frame.write(target, found if found.dtype is result else found.astype(result), active)

    return step


def _move(opcode: str, operands: Sequence[Any]) -> Step:
    target, source = operands
    name, *said = opcode.split(".")
    dtype = dtype_of(said[-1])
    if name == "cvta":
        window = {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW}.get(said[-2], 0)
        shift = -window if "to" in said else window
        return lambda frame, active: frame.write(target, frame.read(source, I64, active) + shift, active)
    if isinstance(target, tuple):  # a number into its parts
        part = np.dtype(f"u{dtype.itemsize // len(target)}")

        def cut(frame: Frame, active: Array | None) -> None:
            whole = np.ascontiguousarray(frame.read(source, dtype, active))
            for register, piece in zip(target, whole.view(part).reshape(-1, len(target)).T, strict=True):
                frame.write(register, piece.copy(), active)

        return cut
    if isinstance(source, tuple):
        part = np.dtype(f"u{dtype.itemsize // len(source)}")

        def join(frame: Frame, active: Array | None) -> None:
            pieces = np.broadcast_arrays(*[frame.read(piece, part, active) for piece in source])
            frame.write(target, np.ascontiguousarray(np.stack(pieces, 1)).view(dtype).reshape(-1), active)

        return join

    def move(frame: Frame, active: Array | None) -> None:
        found = frame.read(source, dtype, active)
        frame.write(target, found.copy() if active is None else found, active)

    return move


def _access(instruction: Instruction, stores: bool, said: Sequence[str]) -> Step:
    space = next((word for word in said if word.split("::")[0] in ("global", "shared", "local", "param", "const")), "")
    dtype = dtype_of(said[-1])
    known = {"global", "shared", "local", "param", "const", "v2", "v4", "nc", "volatile", "relaxed", "weak"}
    if not set(said[:-1]) <= known:
        raise UnknownInstruction(instruction.opcode)
    place, value = instruction.operands if stores else instruction.operands[::-1]
    registers = value if isinstance(value, tuple) else (value,)
    count, used, fixed = len(registers), instruction.used, "nc" in said

    def step(frame: Frame, active: Array | None) -> None:
        grid = frame.grid
        address = frame.address(place, active)
        where = space
        if not where:
            where, address = _generic(address)
        memory: Any = grid.memory
        if where == "shared":
            memory = grid.shared
        elif where in ("local", "param"):
            memory = frame.private
        threads = np.arange(grid.lanes) if active is None else active
        if stores:
            memory.store(address, [frame.read(r, dtype, active) for r in registers], threads)
            return
        found = memory.load(address, dtype, count, threads, used, fixed)
        for register, one in zip(registers, found, strict=True):
            frame.write(register, one, active)

    return step


def _generic(address: Array) -> tuple[str, Array]:
    window = address & ~(WINDOW - 1)
    if (window == SHARED_WINDOW).all():
        return "shared", address - SHARED_WINDOW
    if (window == LOCAL_WINDOW).all():
        return "local", address - LOCAL_WINDOW
    return "global", address


def _call(operands: Sequence[Any]) -> Step:
    """Parameters are copied to memory of the threads, and results back."""
    results, named, given = operands if len(operands) == 3 else ((), *operands)
    results = results if isinstance(results, tuple) else (results,)

    def step(frame: Frame, active: Array | None) -> None:
        grid = frame.grid
        function = grid.module.functions[named.name]
        inner = Frame(grid, function)
        threads = np.arange(grid.lanes) if active is None else active
        for symbol, (name, nbytes) in zip(given, function.parameters.items(), strict=True):
            frame.private.copy(frame.places[symbol.name], inner.private, inner.places[name], nbytes)
        _run(inner, threads, meets=False)
        for symbol, (name, nbytes) in zip(results, function.results.items(), strict=True):
            inner.private.copy(inner.places[name], frame.private, frame.places[symbol.name], nbytes, threads)

    return step


def _atomic(opcode: str, operands: Sequence[Any]) -> Step:
    _, *said, kind = opcode.split(".")
    dtype = dtype_of(kind)
    does = next((word for word in said if word in ("cas", "add", "exch", "max", "min")), "")
    if not does or "shared" in said or not isinstance(operands[1], Address):
        raise UnknownInstruction(opcode)

    def step(frame: Frame, active: Array | None) -> None:
        threads = np.arange(frame.grid.lanes) if active is None else active
        address = np.broadcast_to(frame.address(operands[1], active), threads.shape)
        given = [np.broadcast_to(frame.read(o, dtype, active), threads.shape) for o in operands[2:]]
        kept = np.empty(threads.shape, dtype)
        memory = frame.grid.memory
        for i in range(len(threads)):
            one = threads[i : i + 1]
            (now,) = memory.load(address[i : i + 1], dtype, 1, one, None, False)
            kept[i] = now[0]
            first = given[0][i : i + 1]
            match does:
                case "cas":
                    new = np.where(now == first, given[1][i : i + 1], now)
                case "add":
                    new = now + first
                case "exch":
                    new = first
                case _:
                    new = np.maximum(now, first) if does == "max" else np.minimum(now, first)
            memory.store(address[i : i + 1], [new], one, atomic=True)
        frame.write(operands[0], kept, active)

    return step


def _carrying(opcode: str, operands: Sequence[Any]) -> Step:
    """Sums of words with a carry bit between them."""
    name, *said = opcode.split(".")
    word, wide = np.dtype(np.uint32), np.uint64
    if said[-1] not in ("u32", "s32"):
        raise UnknownInstruction(opcode)
    takes, gives = name.endswith("c"), "cc" in said

    def step(frame: Frame, active: Array | None) -> None:
        carry = frame.grid.carry
        a, b, *c = (frame.read(operand, word, active).astype(wide) for operand in operands[1:])
        bit = (carry if active is None else carry[active]).astype(wide) if takes else wide(0)
        if name in ("sub", "subc"):
            total = a - b - bit
            left = total >> wide(63)
        else:
            if c:
                product = a * b
                a, b = (product >> wide(32) if "hi" in said else product & wide(0xFFFFFFFF)), c[0]
            total = a + b + bit
            left = total >> wide(32)
        if gives:
            carry[slice(None) if active is None else active] = left.astype(bool)
        frame.write(operands[0], total.astype(np.uint32), active)

    return step


def launch(
    module: Module, function: str, blocks: int, threads: int, words: Array, shared_bytes: int, memory: Global
) -> None:
    """Run a kernel, as many blocks at once as suits the CPU."""
    kernel = module.functions[function]
    assert kernel.is_entry
    assert kernel.threads in (None, threads), f"{function} has blocks of {kernel.threads} threads, not {threads}"
    memory.begin(module)
    each = max(1, MOST_THREADS // threads)
    for first in range(0, blocks, each):
        count = min(each, blocks - first)
        shared = Shared(module, kernel, count, -(-threads // 32) * 32, shared_bytes)
        execute(Grid(module, kernel, first, count, blocks, threads, words, memory, shared))
