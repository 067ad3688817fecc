"""Instructions of PTX in which the lanes of a warp take part together, and copies that run beside them.

Fragments of ``mma.sync`` and ``ldmatrix`` lie as the layouts of CuTe say: shape and stride of (lane, value), with the
first mode the fastest.

Source: NVIDIA, "Parallel Thread Execution ISA", mma, ldmatrix, shfl, cp.async; NVIDIA, CUTLASS,
include/cute/atom/mma_traits_sm80.hpp and copy_traits_sm75.hpp; M. Fasi et al., "Numerical behavior of NVIDIA tensor
cores", 2021 (their sums are rounded to zero).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.cupy.ptx_arithmetic import UnknownInstruction, from_bfloat16, from_float16, narrowed

Array = np.ndarray
Step = Callable[[Any, "Array | None"], None]
WORD = np.dtype(np.uint32)


@dataclass(frozen=True)
class Layout:
    """Where value v of lane t lies in a matrix that is stored by columns."""

    lanes: tuple[tuple[int, int], ...]
    values: tuple[tuple[int, int], ...]

    @property
    def places(self) -> Array:
        """(32, values)."""
        return _walk(self.lanes)[:, None] + _walk(self.values)


def _walk(modes: Sequence[tuple[int, int]]) -> Array:
    found = np.zeros(1, np.int64)
    for count, stride in modes:
        found = (np.arange(count)[:, None] * stride + found).reshape(-1)
    return found


SUM = Layout(((4, 32), (8, 1)), ((2, 16), (2, 8)))
HALVES = (
    Layout(((4, 32), (8, 1)), ((2, 16), (2, 8), (2, 128))),
    Layout(((4, 16), (8, 1)), ((2, 8), (2, 64))),
    16,
)
FLOATS = (Layout(((4, 16), (8, 1)), ((2, 8), (2, 64))), Layout(((4, 8), (8, 1)), ((2, 32),)), 8)


class Straggler(AssertionError):
    """Lanes of a warp that are not where the others are."""


def whole_warps(frame: Any, active: Array | None) -> Array:
    """The threads, in rows of 32 lanes."""
    threads = np.arange(frame.grid.lanes) if active is None else active
    if len(threads) % 32 or (threads[::32] % 32).any() or (threads[31::32] - threads[::32] != 31).any():
        raise Straggler(f"{frame.function.name}: an instruction of whole warps without some of their lanes")
    return threads.reshape(-1, 32)


def _words(frame: Any, registers: Sequence[Any], active: Array | None, warps: int) -> Array:
    """(warps, 32, registers)."""
    columns = [np.broadcast_to(frame.read(r, WORD, active), warps * 32) for r in registers]
    return np.stack(columns, 1).reshape(warps, 32, -1)


def multiply(a: Array, b: Array, c: Array, kind: str) -> Array:
    """``mma.sync`` on fragments: (warps, 32, registers) words, and float32 sums (warps, 32, 4)."""
    left, right, k = FLOATS if kind == "tf32" else HALVES
    if kind == "tf32":  # the lower 13 bits are not looked at
        x, y = ((word & np.uint32(0xFFFFE000)).view(np.float32) for word in (a, b))
    else:
        widen = {"bf16": from_bfloat16, "f16": from_float16}[kind]
        x, y = (widen(np.ascontiguousarray(word).view(np.uint16)) for word in (a, b))
    warps = len(a)
    rows, columns, sums = (np.zeros((warps, n)) for n in (16 * k, 8 * k, 128))
    rows[:, left.places] = x
    columns[:, right.places] = y
    sums[:, SUM.places] = c
    product = columns.reshape(warps, k, 8).transpose(0, 2, 1) @ rows.reshape(warps, k, 16)  # (n, k) @ (k, m)
    total = sums + product.reshape(warps, 128)
    return narrowed(total, 0.0, "rz")[:, SUM.places]


def _multiply(opcode: str, operands: Sequence[Any]) -> Step:
    shapes = {"m16n8k16.row.col.f32.bf16.bf16.f32": "bf16", "m16n8k16.row.col.f32.f16.f16.f32": "f16"}
    shapes["m16n8k8.row.col.f32.tf32.tf32.f32"] = "tf32"
    kind = shapes.get(opcode.removeprefix("mma.sync.aligned."))
    if kind is None:
        raise UnknownInstruction(opcode)
    target, a, b, c = operands

    def step(frame: Any, active: Array | None) -> None:
        warps = len(whole_warps(frame, active))
        given = _words(frame, c, active, warps).view(np.float32)
        found = multiply(_words(frame, a, active, warps), _words(frame, b, active, warps), given, kind)
        for register, value in zip(target, found.reshape(-1, 4).T, strict=True):
            frame.write(register, np.ascontiguousarray(value), active)

    return step


def matrices(rows: Array, turned: bool) -> Array:
    """``ldmatrix`` .x4: words (warps, 4 matrices, 8 rows, 4) to what lanes get, (warps, 32, 4)."""
    lane = np.arange(32)
    if not turned:
        return rows[:, :, lane // 4, lane % 4].transpose(0, 2, 1)
    halves = np.ascontiguousarray(rows).view(np.uint16)  # (warps, 4, 8, 8)
    low, high = (halves[:, :, 2 * (lane % 4) + i, lane // 4].astype(np.uint32) for i in range(2))
    return (low | high << np.uint32(16)).transpose(0, 2, 1)


def _matrices(opcode: str, operands: Sequence[Any]) -> Step:
    said = opcode.split(".")
    turned = "trans" in said
    if [word for word in said if word != "trans"] != "ldmatrix.sync.aligned.m8n8.x4.shared.b16".split("."):
        raise UnknownInstruction(opcode)
    target, place = operands

    def step(frame: Any, active: Array | None) -> None:
        threads = whole_warps(frame, active).reshape(-1)
        address = np.broadcast_to(frame.address(place, active), threads.shape)
        words = frame.grid.shared.load(address, WORD, 4, threads, None, False)
        found = matrices(np.stack(words, 1).reshape(-1, 4, 8, 4), turned)
        for register, value in zip(target, found.reshape(-1, 4).T, strict=True):
            frame.write(register, np.ascontiguousarray(value), active)

    return step


def _shuffle(opcode: str, operands: Sequence[Any]) -> Step:
    mode = opcode.split(".")[2]
    target, value, other, limits, members = operands
    if mode not in ("idx", "bfly", "up", "down") or not opcode.endswith("b32"):
        raise UnknownInstruction(opcode)
    first, second = target if isinstance(target, tuple) else (target, None)

    def step(frame: Any, active: Array | None) -> None:
        grid = frame.grid
        threads = np.arange(grid.lanes) if active is None else active
        given = np.broadcast_to(frame.read(value, WORD, active), threads.shape)
        b, c, mask = (
            np.broadcast_to(frame.read(o, WORD, active), threads.shape).astype(np.int64)
            for o in (other, limits, members)
        )
        _members_are_here(frame, threads, mask)
        lane, clamp, segment = threads % 32, c & 31, c >> 8 & 31
        b = b & 31
        low, high = lane & segment, lane & segment | clamp & ~segment
        source = {"idx": low | b & ~segment, "bfly": lane ^ b, "up": lane - b, "down": lane + b}[mode]
        inside = source >= high if mode == "up" else source <= high
        place = threads - lane + np.where(inside, source, lane)
        everywhere = np.zeros(grid.lanes, np.uint32)
        here = np.zeros(grid.lanes, bool)
        everywhere[threads], here[threads] = given, True
        if not here[place].all():
            raise Straggler(f"{frame.function.name}: a lane reads another one that is not there")
        frame.write(first, everywhere[place], active)
        if second is not None:
            frame.write(second, inside, active)

    return step


def _members_are_here(frame: Any, threads: Array, mask: Array) -> None:
    """All lanes that are named and have not left execute this."""
    grid = frame.grid
    here = np.zeros(grid.lanes, bool)
    here[threads] = True
    if not (mask >> threads % 32 & 1).all():
        raise Straggler(f"{frame.function.name}: a lane that is not in its own mask")
    if len(threads) == grid.lanes and (mask == 0xFFFFFFFF).all():
        return
    wanted = np.zeros((grid.lanes // 32, 32), bool)
    wanted[threads // 32] = mask[:, None] >> np.arange(32) & 1
    missing = wanted.reshape(-1) & ~here & ~grid.gone
    if missing.any():
        raise Straggler(f"{frame.function.name}: lanes that a mask names are elsewhere")


def _meet(opcode: str, operands: Sequence[Any]) -> Step:
    def step(frame: Any, active: Array | None) -> None:
        threads = np.arange(frame.grid.lanes) if active is None else active
        mask = np.broadcast_to(frame.read(operands[0], WORD, active), threads.shape).astype(np.int64)
        _members_are_here(frame, threads, mask)

    return step


def _vote(opcode: str, operands: Sequence[Any]) -> Step:
    mode = opcode.split(".")[2]
    if mode not in ("any", "all", "ballot"):
        raise UnknownInstruction(opcode)

    def step(frame: Any, active: Array | None) -> None:
        grid = frame.grid
        threads = np.arange(grid.lanes) if active is None else active
        holds = np.broadcast_to(frame.read(operands[1], np.dtype(bool), active), threads.shape)
        mask = np.broadcast_to(frame.read(operands[2], WORD, active), threads.shape).astype(np.int64)
        _members_are_here(frame, threads, mask)
        bits = np.zeros(grid.lanes // 32, np.int64)
        np.bitwise_or.at(bits, threads // 32, holds.astype(np.int64) << threads % 32)
        said, here = bits[threads // 32] & mask, np.zeros(grid.lanes // 32, np.int64)
        np.bitwise_or.at(here, threads // 32, 1 << threads % 32)
        if mode == "ballot":
            frame.write(operands[0], said.astype(np.uint32), active)
        else:
            frame.write(operands[0], said != 0 if mode == "any" else said == (mask & here[threads // 32]), active)

    return step


@dataclass(frozen=True)
class Copy:
    """What threads have begun to copy to shared memory: data (threads, bytes), and the set it belongs to."""

    threads: Array
    index: Array
    data: Array
    group: Array

    def of(self, some: Array) -> Copy:
        """Of some of its threads."""
        return replace(
            self, threads=self.threads[some], index=self.index[some], data=self.data[some], group=self.group[some]
        )


def _copy(opcode: str, operands: Sequence[Any]) -> Step:
    """Bytes are read now, and seen by nobody until their set has been waited for."""
    if opcode not in ("cp.async.cg.shared.global", "cp.async.ca.shared.global"):
        raise UnknownInstruction(opcode)
    target, source, size, *some = operands
    nbytes = size.value
    if nbytes not in ((16,) if ".cg." in opcode else (4, 8, 16)):
        raise UnknownInstruction(f"{opcode} of {nbytes} bytes")

    def step(frame: Any, active: Array | None) -> None:
        grid = frame.grid
        threads = np.arange(grid.lanes) if active is None else active
        place = np.broadcast_to(frame.address(target, active), threads.shape)
        address = np.broadcast_to(frame.address(source, active), threads.shape)
        index = grid.shared.index(place, nbytes, threads, "a copy to")
        data = np.zeros((len(threads), nbytes // 4), np.uint32)
        count = np.full(threads.shape, nbytes)
        if some:
            count = np.broadcast_to(frame.read(some[0], WORD, active), threads.shape).astype(np.int64)
        if (count % nbytes).any() or (count > nbytes).any():
            raise UnknownInstruction(f"{opcode} of a part of {nbytes} bytes")
        reading = count > 0
        if (address % nbytes).any():  # of what is not read, too
            raise Straggler(f"{frame.function.name}: copies from an address that is no multiple of {nbytes}")
        if reading.any():
            found = grid.memory.load(address[reading], WORD, nbytes // 4, threads[reading], None, True)
            data[reading] = np.stack(found, 1)
        grid.shared.forget(index, nbytes, threads)
        grid.copies.append(Copy(threads, index, data.view(np.uint8), grid.committed[threads]))

    return step


def _commit(opcode: str, operands: Sequence[Any]) -> Step:
    def step(frame: Any, active: Array | None) -> None:
        frame.grid.committed[slice(None) if active is None else active] += 1

    return step


def _wait(opcode: str, operands: Sequence[Any]) -> Step:
    every = opcode == "cp.async.wait_all"
    left = 0 if every else operands[0].value

    def step(frame: Any, active: Array | None) -> None:
        grid = frame.grid
        waits = np.zeros(grid.lanes, bool)
        waits[slice(None) if active is None else active] = True
        kept: list[Copy] = []
        for copy in grid.copies:
            done = waits[copy.threads] & (every | (copy.group < grid.committed[copy.threads] - left))
            if done.any():
                arrived = copy.of(done)
                grid.shared.arrive(arrived.index, arrived.data, arrived.threads)
            if not done.all():
                kept.append(copy.of(~done))
        grid.copies[:] = kept

    return step


WARP_INSTRUCTIONS: dict[str, Callable[[str, Sequence[Any]], Step]] = {
    "mma.sync": _multiply,
    "ldmatrix": _matrices,
    "shfl.sync": _shuffle,
    "bar.warp.sync": _meet,
    "vote.sync": _vote,
    "cp.async.commit_group": _commit,
    "cp.async.wait_": _wait,
    "cp.async": _copy,
}
