"""A compiled plan, and the plan bound to sizes: tables of words that the executor walks."""

from __future__ import annotations

import ctypes
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from graphc.backend import Failure
from graphc.backends.numba import blas, build, objects, threads
from graphc.backends.numba.attention import attention, function_of
from graphc.backends.numba.blocked import blocked_product, is_blocked
from graphc.backends.numba.contraction import contraction
from graphc.backends.numba.forks import make_lock
from graphc.backends.numba.gemm import Product, product
from graphc.backends.numba.packed import packed_product
from graphc.backends.numba.table import (
    ARRAY_DATA,
    ARRAYS_OVERLAP,
    CHECK_FAILED,
    COMMIT,
    GUARDED_RANGES,
    HEADER_WORDS,
    INPUT_PATCH_COUNT,
    INPUT_PATCHES,
    ITEM_WORDS,
    ITEMS,
    LAUNCH_COUNT,
    LAUNCH_WORDS,
    LAUNCHES,
    LOOP_WORDS,
    MOVE_WORDS,
    OUTPUT_PATCH_COUNT,
    OUTPUT_PATCHES,
    OUTPUT_RANGES,
    PATCH_WORDS,
    POOL,
    RANGE_COUNT,
    RANGE_WORDS,
    RANGES,
    STATE_RANGES,
    STATUS_CHECK,
    STATUS_DETAIL,
    THREAD_COUNT,
    TUPLE_ITEMS,
    WORK,
)
from graphc.backends.numba.winograd import slots, winograd
from graphc.lower.plan import (
    ArenaLayout,
    AttentionItem,
    ContractionItem,
    GemmItem,
    Item,
    KernelItem,
    Launch,
    Place,
    Plan,
    WinogradItem,
    size_of,
)

Array: TypeAlias = NDArray[np.generic]

MOST_BINDINGS = 64
UNIT_COST = 16_384
"""Scalar operations of one unit of work, at least: about a microsecond."""
PARALLEL_COST = 65_536
"""Launches of fewer scalar operations run on one thread, since starting the others costs about a microsecond."""
GEMM_OPERATIONS_PER_COST = 16
"""A matrix product's operations take about this much less time than a kernel's scalar operations."""
ALIGNMENT = 64
NOTHING = np.zeros(ALIGNMENT, np.uint8)
"""Stands for every array without elements."""

EXECUTOR = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


class NumbaExecutable:
    """Machine code of a plan's kernels."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        items = [item for launch in plan.launches for item in launch.items]
        self.kernels = tuple(dict.fromkeys(item.kernel for item in items if isinstance(item, KernelItem)))
        self.addresses = build.kernel_addresses(self.kernels)
        matrices = [item for item in items if isinstance(item, GemmItem)]
        products = {f"gemm_{item.dtype}" for item in matrices if not item.in_panels}
        if products:
            blas.load()
        products |= {f"panels_{item.dtype}" for item in matrices if item.in_panels}
        products |= {f"patches_{item.dtype}" for item in items if isinstance(item, ContractionItem)}
        products |= {function_of(item) for item in items if isinstance(item, AttentionItem)}
        products |= {f"winograd_{item.dtype}" for item in items if isinstance(item, WinogradItem)}
        self.native = build.native_addresses(["execute", "work", "serve", *sorted(products)])
        threads.use(self.native["serve"])
        # Programs that change state run one at a time; others may run at once, in a context of their own.
        # A signal's handler may run the program that it interrupts, between two native calls.
        self.state_lock = make_lock() if plan.commit < len(plan.launches) else None
        self._bound: OrderedDict[tuple[tuple[str, int], ...], NumbaBound] = OrderedDict()
        self._bound_lock = make_lock()
        self.lanes: deque[_Lane] = deque()

    def bind(self, dims: Mapping[str, int]) -> NumbaBound:
        """Plan memory for these sizes. Compiles no kernel; the last 64 combinations are kept."""
        key = tuple(sorted(dims.items()))
        with self._bound_lock:
            bound = self._bound.get(key)
            if bound is None:
                bound = self._bound[key] = NumbaBound(self, dict(dims))
                if len(self._bound) > MOST_BINDINGS:
                    self._bound.popitem(last=False)
            self._bound.move_to_end(key)
        return bound

    def routine(self, name: str) -> int:
        """The address of a native function, which only some sizes need: it is not of this plan but of the backend."""
        if name not in self.native:
            self.native |= build.native_addresses([name])
        return self.native[name]

    def source(self) -> str:
        """The generated source of all kernels, each under its name and file."""
        parts: dict[str, list[str]] = {}
        for kernel in self.kernels:
            parts.setdefault(build.source_of(kernel), []).append(kernel.name)
        return "\n\n".join(
            f"# {', '.join(names)}: {build.source_path(source)}\n{source}" for source, names in parts.items()
        )


class NumbaBound:
    """A plan with its sizes, and for each lane that a call has run in, a table of its own."""

    def __init__(self, executable: NumbaExecutable, dims: dict[str, int]) -> None:
        from graphc.lower.memory import layout

        self.layout: ArenaLayout = layout(executable.plan, dims)
        self._table = _Table(executable, dims, self.layout)
        self._execute: Any = EXECUTOR(executable.native["execute"])
        self._lock = executable.state_lock
        self._lanes = executable.lanes
        self._contexts: dict[_Lane, _Context] = {}

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Failure | None:
        """Run one step; see :class:`graphc.backend.Bound`."""
        if type(inputs) is not tuple:
            inputs = tuple(inputs)
        if type(outputs) is not tuple:
            outputs = tuple(outputs)
        if self._lock is None:
            return self._run(inputs, outputs)
        with self._lock:
            return self._run(inputs, outputs)

    def _run(self, inputs: tuple[Array, ...], outputs: tuple[Array, ...]) -> Failure | None:
        try:
            lane = self._lanes.pop()
        except IndexError:
            lane = _Lane()
        context = self._contexts.get(lane)
        if context is None:
            context = self._contexts[lane] = _Context(self._table, lane)
        if objects.LAYOUT is None:
            self._fill_in_addresses(context, inputs, outputs)
            result = self._execute(context.address, 0, 0)
        else:
            result = self._execute(context.address, id(inputs), id(outputs))
        failure = None
        if result == CHECK_FAILED:
            failure = Failure(int(context.words[STATUS_CHECK]) - 1, int(context.words[STATUS_DETAIL]))
        self._lanes.append(lane)
        return self._run_apart(inputs, outputs) if result == ARRAYS_OVERLAP else failure

    def _run_apart(self, inputs: tuple[Array, ...], outputs: tuple[Array, ...]) -> Failure | None:
        """Run on copies, where arrays share memory with each other or with state that is written."""
        fresh = tuple(np.empty_like(output, subok=False) for output in outputs)
        failure = self._run(tuple(np.array(array) for array in inputs), fresh)
        if failure is None:
            for output, result in zip(outputs, fresh, strict=True):
                np.copyto(output, result)
        return failure

    def _fill_in_addresses(self, context: _Context, inputs: tuple[Array, ...], outputs: tuple[Array, ...]) -> None:
        """Where the interpreter's objects are laid out in an unknown way, Python does it."""
        for arrays, patches in ((inputs, self._table.input_patches), (outputs, self._table.output_patches)):
            for slot, word in patches:
                context.words[word] = arrays[slot].ctypes.data


class _Table:
    """The words that all contexts of a binding begin as, and which of them hold addresses inside the context."""

    def __init__(self, executable: NumbaExecutable, dims: dict[str, int], layout: ArenaLayout) -> None:
        self.plan = plan = executable.plan
        self.layout = layout
        self.slots = slots(plan, dims)
        self.slots_at = -(-layout.peak_bytes // ALIGNMENT) * ALIGNMENT  # behind the intermediates
        self.arena_bytes = self.slots_at + self.slots.count * self.slots.bytes
        self.flags_at = 0  # word offset of the flags of slots, which all items share
        self.flag_words: list[int] = []
        self.input_patches: list[tuple[int, int]] = []
        self.output_patches: list[tuple[int, int]] = []
        self.ranges: dict[tuple[Place, int], tuple[int, int]] = {}  # by place and slot: word, bytes
        self.arena_words: list[tuple[int, int]] = []  # word, byte offset in the arena
        self.status_words: list[int] = []
        self.bases: dict[int, int] = {}  # by buffer: the word that holds its address
        self.asked: dict[int, tuple[int, int]] = {}  # by loop: the words with the addresses of its condition and count
        self.moves: dict[int, list[tuple[int, int, int, int, int]]] = {}  # by loop: move records
        self.arrays = _Arrays(plan)
        self.records: list[int] = []  # argument records, after the tables
        self.records_at = 0
        self._executable = executable
        self._dims = dims
        self.words = self._build()

    def _build(self) -> NDArray[np.int64]:
        plan, native = self.plan, self._executable.native
        marks = _Marks(plan)
        item_count = sum(len(launch.items) for launch in plan.launches)
        launches_at = HEADER_WORDS
        items_at = launches_at + LAUNCH_WORDS * len(marks.order)
        loops_at = items_at + ITEM_WORDS * item_count
        self.records_at = loops_at + LOOP_WORDS * (1 + len(plan.loops))
        self._place_bases()
        self.flags_at = self.records_at + len(self.records)
        self.records += [0] * self.slots.count
        launches: list[int] = []
        items: list[int] = []
        for launch in marks.order:
            if isinstance(launch, int):  # a mark of this loop
                launches += [0, 0, 0, 0, loops_at + LOOP_WORDS * (1 + launch)]
                continue
            first, units, cost = len(items) // ITEM_WORDS, 0, 0
            for item in launch.items:
                added, added_cost, words = self._item(item, units)
                items += words
                units += added
                cost += added_cost
            launches += [first, len(items) // ITEM_WORDS, units, int(cost > PARALLEL_COST and units > 1), 0]
        moves_at = self.records_at + len(self.records)
        moves: list[int] = []
        loops: list[int] = []
        for number in range(-1, len(plan.loops)):
            count = 1 if number < 0 else size_of(plan.loops[number].count, self._dims)
            mine = [word for move in self.moves.get(number, ()) for word in move]
            asked = self.asked.get(number, (0, 0))
            loops += [count, 0, *marks.ends[number], moves_at + len(moves), len(mine) // MOVE_WORDS, *asked]
            moves += mine
        patches_at = moves_at + len(moves)
        patches = [word for patch in (*self.input_patches, *self.output_patches) for word in patch]
        outputs, inputs, state = (
            [record for (place, _), record in self.ranges.items() if place is wanted]
            for wanted in (Place.OUTPUT, Place.INPUT, Place.STATE)
        )
        ranges = [word for record in (*outputs, *inputs, *state) for word in record]
        header = [0] * HEADER_WORDS
        header[LAUNCH_COUNT] = len(marks.order)
        header[COMMIT] = marks.commit
        header[LAUNCHES] = launches_at
        header[ITEMS] = items_at
        header[INPUT_PATCHES] = patches_at
        header[INPUT_PATCH_COUNT] = len(self.input_patches)
        header[OUTPUT_PATCHES] = patches_at + PATCH_WORDS * len(self.input_patches)
        header[OUTPUT_PATCH_COUNT] = len(self.output_patches)
        header[RANGES] = patches_at + len(patches)
        header[RANGE_COUNT] = len(ranges) // RANGE_WORDS
        header[OUTPUT_RANGES] = len(outputs)
        header[STATE_RANGES] = len(outputs) + len(inputs)
        # an input may be state's own array as long as that is not written
        header[GUARDED_RANGES] = len(outputs) + (len(inputs) if plan.commit < len(plan.launches) else 0)
        header[THREAD_COUNT] = threads.count_address()
        header[WORK] = native["work"]
        header[POOL] = threads.pool_address()
        if objects.LAYOUT is not None:
            header[TUPLE_ITEMS], header[ARRAY_DATA] = objects.LAYOUT
        return np.array([*header, *launches, *items, *loops, *self.records, *moves, *patches, *ranges], np.int64)

    def _item(self, item: Item, first_unit: int) -> tuple[int, int, list[int]]:
        """Units, cost and record of an item; its arguments go to the end of the table."""
        args = self.records_at + len(self.records)
        if isinstance(item, GemmItem):
            width = item.dtype.itemsize
            self._address(item.a, width * size_of(item.offset_a, self._dims))
            self._address(item.b, width * size_of(item.offset_b, self._dims))
            self._address(item.c)
            form, fix = _form(item, self._dims)
            fixed = fix(item, self._dims)
            self.records += fixed.words
            extent, chunk = fixed.tiles, 1
            cost = fixed.tiles * fixed.operations // GEMM_OPERATIONS_PER_COST
            kernel = self._executable.routine(f"{form}_{item.dtype}")
        elif isinstance(item, ContractionItem):
            for index in item.buffers:
                self._address(index)
            known = contraction(item, self._dims)
            self.records += known.words
            extent, chunk, cost = known.units, 1, known.operations // GEMM_OPERATIONS_PER_COST
            kernel = self._executable.native[f"patches_{item.dtype}"]
        elif isinstance(item, AttentionItem):
            lying = (item.query, item.key, item.value, item.mask, item.cotangent)
            for index in (*(place and place.buffer for place in lying), item.seed, item.step, item.c):
                if index is None:
                    self.records.append(0)
                else:
                    self._address(index)
            found = attention(item, self._dims)
            self.records += found.words
            each = max(found.operations // GEMM_OPERATIONS_PER_COST, 1)
            extent, cost = found.units, found.units * each
            chunk = max(-(-UNIT_COST // each), 1)
            kernel = self._executable.native[function_of(item)]
        elif isinstance(item, WinogradItem):
            for index in item.buffers:
                self._address(index)
            known = winograd(item, self._dims)
            self._slots()
            self.records += known.words
            extent, chunk, cost = known.units, 1, known.operations // GEMM_OPERATIONS_PER_COST
            kernel = self._executable.native[f"winograd_{item.dtype}"]
        else:
            assert isinstance(item, KernelItem), "only a backend that takes convolutions gets them whole"
            for index in item.buffers:
                self._address(index)
            self.records += [size_of(size, self._dims) for size in item.sizes]
            if item.kernel.has_checks:
                self.status_words.append(self.records_at + len(self.records))
                self.records += [0, item.check_base]
            extent = size_of(item.extent, self._dims)
            each = max(size_of(item.cost, self._dims), 1)
            cost = extent * each
            chunk = item.grain * max(-(-UNIT_COST // (each * item.grain)), 1)
            kernel = self._executable.addresses[item.kernel]
        units = -(-extent // chunk)
        return units, cost, [kernel, args, extent, chunk, first_unit, first_unit + units]

    def _slots(self) -> None:
        """Append the words of the slots: addresses of their flags and of the first one, their number and size."""
        here = self.records_at + len(self.records)
        self.flag_words.append(here)
        self.arena_words.append((here + 1, self.slots_at))
        self.records += [0, 0, self.slots.count, self.slots.bytes]

    def _place_bases(self) -> None:
        """A word for the address of every buffer that others are parts of, or that products read from its middle."""
        products = [item for launch in self.plan.launches for item in launch.items if isinstance(item, GemmItem)]
        inside = [item.a for item in products if item.offset_a != 0] + [
            item.b for item in products if item.offset_b != 0
        ]
        for index in (*(buffer.part.of for buffer in self.plan.buffers if buffer.part is not None), *inside):
            if index not in self.bases:
                self._address(index)
                self.bases[index] = self.records_at + len(self.records) - 1
        for number, loop in enumerate(self.plan.loops):
            if loop.going is not None and loop.steps is not None:
                self._address(loop.going)
                self._address(loop.steps)
                last = self.records_at + len(self.records) - 1
                self.asked[number] = (last - 1, last)

    def _address(self, index: int, start: int = 0) -> None:
        """Append the word for the address of a buffer, or of what begins ``start`` bytes behind it."""
        buffer = self.plan.buffers[index]
        word, value = self.records_at + len(self.records), 0
        elements = size_of(buffer.type.size, self._dims)
        if elements == 0:  # element 0 may be read, whatever memory the array points to
            self.records.append(NOTHING.ctypes.data)
            return
        self.records.append(0)
        part = buffer.part
        if part is not None and part.loop is not None:
            width = buffer.type.dtype.itemsize
            first, step = (width * size_of(size, self._dims) for size in (part.offset, part.step))
            move = (word, self.bases[part.of], start + first, step, int(part.alternates))
            self.moves.setdefault(part.loop, []).append(move)
            return
        if part is not None:
            self.records.pop()
            self._address(part.of, start + buffer.type.dtype.itemsize * size_of(part.offset, self._dims))
            return
        if buffer.place is Place.ARENA:
            self.arena_words.append((word, self.layout.offsets[index] + start))
            return
        if start:
            self.moves.setdefault(-1, []).append((word, self.bases[index], start, 0, 0))
            return
        if buffer.place is not Place.CONSTANT:
            self.ranges.setdefault((buffer.place, buffer.slot), (word, elements * buffer.type.dtype.itemsize))
        match buffer.place:
            case Place.INPUT:
                self.input_patches.append((buffer.slot, word))
            case Place.OUTPUT:
                self.output_patches.append((buffer.slot, word))
            case Place.STATE:
                value = self.arrays.state[buffer.slot]
            case _:
                value = self.arrays.constants[buffer.slot].ctypes.data
        self.records[word - self.records_at] = value


def _form(item: GemmItem, dims: Mapping[str, int]) -> tuple[str, Callable[[GemmItem, Mapping[str, int]], Product]]:
    """How a product is computed: the native function, and what fixes its sizes."""
    if item.in_panels:
        return "panels", packed_product
    if is_blocked(item, dims):
        return "blocks_down" if item.transpose_a else "blocks", blocked_product
    return "gemm", product


class _Marks:
    """The launches of a plan in their order, between the numbers of the loops that begin and end there.

    Loop -1 is there if the address of some part of a buffer must be computed at each run: it begins before all, runs
    once, and has no end.

    Attributes:
        order: launches, and a loop's number at its begin and at its end.
        commit: the place in it from which launches write state.
        ends: of each loop, the place of its begin and the place behind its end.
    """

    def __init__(self, plan: Plan) -> None:
        items = [item for launch in plan.launches for item in launch.items]
        inside = any(isinstance(item, GemmItem) and (item.offset_a != 0 or item.offset_b != 0) for item in items)
        parts = inside or any(buffer.part is not None for buffer in plan.buffers)
        self.order: list[Launch | int] = [-1] if parts else []
        self.commit = 0
        begins = {-1: 0}
        self.ends: dict[int, tuple[int, int]] = {-1: (0, 0)}
        numbers = range(len(plan.loops))
        for position, launch in enumerate((*plan.launches, None)):
            for number in reversed(numbers):  # inner ones end first
                if plan.loops[number].end == position and number in begins:
                    self.order.append(number)
                    self.ends[number] = (begins[number], len(self.order))
            if position == plan.commit:
                self.commit = len(self.order)
            for number in numbers:
                if plan.loops[number].first == position and launch is not None:
                    begins[number] = len(self.order)
                    self.order.append(number)
            if launch is not None:
                self.order.append(launch)


class _Arrays:
    """The arrays whose addresses stand in a table, kept alive with it; the plan keeps those of parameters."""

    def __init__(self, plan: Plan) -> None:
        self.state = [parameter.buffer.ctypes.data for parameter in plan.parameters]
        self.nothing = NOTHING
        self.constants: list[NDArray[Any]] = [np.ascontiguousarray(array) for array in plan.constants]


class _Lane:
    """Memory for the intermediates of one call at a time, the same for batches of all sizes."""

    def __init__(self) -> None:
        self._arena = _aligned(0)

    def arena(self, size: int) -> NDArray[np.uint8]:
        """At least so many bytes."""
        if self._arena.nbytes < size:  # what is outgrown stays with its tables: altogether three times the largest
            self._arena = _aligned(max(size, 3 * self._arena.nbytes // 2))
        return self._arena


class _Context:
    """A table for the calls in one lane."""

    def __init__(self, table: _Table, lane: _Lane) -> None:
        self.words = _aligned(table.words.nbytes).view(np.int64)
        self.words[:] = table.words
        self.address = self.words.ctypes.data
        self.arena = lane.arena(table.arena_bytes)
        base = self.arena.ctypes.data
        for word, offset in table.arena_words:
            self.words[word] = base + offset
        for word in table.status_words:
            self.words[word] = self.address + 8 * STATUS_CHECK
        for word in table.flag_words:
            self.words[word] = self.address + 8 * table.flags_at
        self.table = table  # keeps constants and parameters alive


def _aligned(size: int) -> NDArray[np.uint8]:
    """Bytes that begin at a cache line."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]
