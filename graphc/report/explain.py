"""``Program.explain()``: what each kernel is, in terms of the user's own lines."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from graphc.backend import notes_of
from graphc.ir.dims import evaluate
from graphc.ir.node import Node
from graphc.lower.memory import item_bytes, layout
from graphc.lower.plan import (
    ArenaLayout,
    AttentionItem,
    ContractionItem,
    ConvolutionItem,
    GemmItem,
    Item,
    KernelItem,
    Launch,
    Place,
    Plan,
    WinogradItem,
)

if TYPE_CHECKING:
    from graphc.lower.preparing import PreparedValues
    from graphc.program import Program


def explain(program: Program, dims: Mapping[str, int]) -> str:
    """The report for one combination of sizes."""
    plan = program.plan
    shown = ", ".join(f"{name} = {value}" for name, value in dims.items())
    rows = [f"program on {program.backend.name}" + (f", {shown}" if shown else "")]
    if not plan.launches:
        rows.append("the backend runs the graph node by node: no kernels, no arena")
        rows += [f"  {node.op.name}: {node.type}   {_line(node)}" for node in plan.graph.nodes if node.args]
        return "\n".join(rows) + "\n"
    arena = layout(plan, dims)
    total = sum(item_bytes(plan, item, dims) for launch in plan.launches for item in launch.items)
    kernels = {item.kernel for launch in plan.launches for item in launch.items if isinstance(item, KernelItem)}
    rows.append(
        f"{len(plan.launches)} launches, {len(kernels)} distinct kernels, {_bytes(total)} moved a step, arena "
        f"{_bytes(arena.peak_bytes)} (largest live set {_bytes(arena.largest_live_set_bytes)}, "
        f"without sharing {_bytes(arena.naive_bytes)})"
    )
    if program.rematerialization is not None:
        rows.append(str(program.rematerialization))
    for values in program.prepared:
        rows += _prepared(values)
    for number, launch in enumerate(plan.launches):
        if number == plan.commit and plan.checks:
            rows.append("-- run-time checks are tested here; what follows writes parameters --")
        rows += _launch(plan, number, launch, arena, dims)
    notes = notes_of(program.executable)
    if notes:
        rows.append("-- chosen of several ways, for the sizes that have come so far --")
        rows += [f"    {note}" for note in notes]
    return "\n".join(rows) + "\n"


def _prepared(values: PreparedValues) -> list[str]:
    """The launches that run when a parameter has changed."""
    arena = layout(values.plan, {})
    rows = [f"-- prepared when parameters have changed, {_bytes(values.nbytes)} --"]
    for number, launch in enumerate(values.plan.launches):
        rows += _launch(values.plan, number, launch, arena, {})
    return [*rows, "-- at each call --"]


def _launch(plan: Plan, number: int, launch: Launch, arena: ArenaLayout, dims: Mapping[str, int]) -> list[str]:
    rows: list[str] = []
    groups: dict[object, list[Item]] = {}
    for item in launch.items:
        groups.setdefault(item.kernel if isinstance(item, KernelItem) else id(item), []).append(item)
    rows.append(f"[{number}] {launch.label}")
    for items in groups.values():
        moved = sum(item_bytes(plan, item, dims) for item in items)
        first = items[0]
        if isinstance(first, GemmItem):
            m, n, k, batch = (evaluate(s, dims) for s in (first.m, first.n, first.k, first.batch))
            name = f"gemm {m} x {n} x {k}" + (f" x {batch}" if batch != 1 else "")
            name += f", {2 * m * n * k * batch / 1e6:.3g} MFLOP"
        elif isinstance(first, ContractionItem):
            name = f"products of patches, {2 * evaluate(first.multiplications, dims) / 1e6:.3g} MFLOP"
        elif isinstance(first, AttentionItem):
            name = f"attention, {2 * evaluate(first.multiplications, dims) / 1e6:.3g} MFLOP"
            name += " if nothing were hidden" if first.causal else ""
        elif isinstance(first, WinogradItem):
            name = f"Winograd products, {2 * evaluate(first.multiplications, dims) / 1e6:.3g} MFLOP"
        elif isinstance(first, ConvolutionItem):
            name = f"convolution, {2 * evaluate(first.multiplications, dims) / 1e6:.3g} MFLOP"
        else:
            name = f"kernel {first.kernel.name}" + (f" over {len(items)} sets of buffers" if len(items) > 1 else "")
        rows.append(f"    {name}: {_bytes(moved)} moved")
        rows += [f"      writes {place}" for place in _written(plan, items, arena, dims)]
    rows += _origins(launch.nodes)
    return rows


def _origins(nodes: Iterable[Node]) -> list[str]:
    """The user's lines behind a launch, each with the ops that came of it."""
    lines: dict[str, dict[str, int]] = {}
    for node in nodes:
        ops = lines.setdefault(_line(node), {})
        ops[node.op.name] = ops.get(node.op.name, 0) + 1
    rows: list[str] = []
    for line, ops in lines.items():
        names = ", ".join(name if count == 1 else f"{name} x{count}" for name, count in ops.items())
        rows.append(f"      {line or '(made by the compiler)'}  <-  {names}")
    return rows


def _written(plan: Plan, items: list[Item], arena: ArenaLayout, dims: Mapping[str, int]) -> list[str]:
    places: list[str] = []
    for item in items:
        if not isinstance(item, KernelItem):
            indices = [item.c]
        else:
            written = zip(item.buffers, item.kernel.buffers, strict=True)
            indices = [i for i, buffer in written if buffer.access.value != "read"]
        for index in indices:
            buffer = plan.buffers[index]
            if buffer.place is Place.ARENA:
                start = arena.offsets[index]
                where = f"arena {start}..{start + buffer.type.nbytes(dict(dims))}"
            elif buffer.place is Place.STATE:
                where = f"parameter {plan.parameters[buffer.slot].label!r}"
            else:
                where = f"output {plan.graph.outputs[buffer.slot][0]!r}"
            places.append(f"{where}: {buffer.type}")
    return places


def _line(node: Node) -> str:
    loc = node.loc
    return f"{os.path.basename(loc.file)}:{loc.line}   {loc.text}" if loc else ""


def _bytes(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024 or unit == "MiB":
            return f"{count:.4g} {unit}" if unit != "B" else f"{count} B"
        count = count / 1024  # pyright: ignore[reportAssignmentType]
    return str(count)
