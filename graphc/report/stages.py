"""The later stages of a program as text: clusters, kernels, plan."""

from __future__ import annotations

from graphc.ir.node import Node
from graphc.ir.text import print_node
from graphc.loops.text import kernel_text
from graphc.lower.plan import (
    AttentionItem,
    ContractionItem,
    ConvolutionItem,
    GemmItem,
    Item,
    KernelItem,
    Plan,
    WinogradItem,
)


def print_stage(plan: Plan, stage: str) -> str:
    """``fused``: which nodes each kernel computes. ``kernels``: the kernel IR. ``plan``: order, buffers, sizes."""
    return {"fused": _fused, "kernels": _kernels, "plan": _plan}[stage](plan)


def _fused(plan: Plan) -> str:
    if not plan.launches:
        return "the backend runs the graph node by node; nothing is fused\n"
    names: dict[int, str] = {}
    for node in (*plan.graph.inputs, *plan.graph.parameters, *plan.graph.nodes):
        names.setdefault(id(node), f"%{len(names)}")
    rows: list[str] = []
    for number, launch in enumerate(plan.launches):
        rows.append(f"launch {number}: {launch.label}")
        shown: set[int] = set()
        for node in launch.nodes:
            if id(node) in names and id(node) not in shown:
                shown.add(id(node))
                rows.append(f"  {print_node(node, _with_missing(names, node))}")
    return "\n".join(rows) + "\n"


def _with_missing(names: dict[int, str], node: Node) -> dict[int, str]:
    for arg in node.args:
        names.setdefault(id(arg), f"%{len(names)}")
    return names


def _kernels(plan: Plan) -> str:
    seen: list[str] = []
    for launch in plan.launches:
        for item in launch.items:
            if isinstance(item, KernelItem):
                text = kernel_text(item.kernel)
                if text not in seen:
                    seen.append(text)
    return "\n".join(seen) if seen else "no kernels: the backend runs the graph node by node\n"


def _plan(plan: Plan) -> str:
    rows = ["buffers"]
    rows += [f"  {b.index}: {b.label} {b.type} in {b.place.value}" for b in plan.buffers]
    for number, launch in enumerate(plan.launches):
        if number == plan.commit:
            rows.append("commit: run-time checks are tested here; what follows writes parameters")
        rows.append(f"launch {number}: {launch.label}")
        rows += [f"  {_item(item)}" for item in launch.items]
    for number, check in enumerate(plan.checks):
        rows.append(f"check {number}: {check.kind} of {check.node!r}, limit {check.limit}")
    return "\n".join(rows) + "\n"


def _item(item: Item) -> str:
    if isinstance(item, GemmItem):
        a, b = (f"{i}{'.T' if t else ''}" for i, t in ((item.a, item.transpose_a), (item.b, item.transpose_b)))
        times = "" if item.batch == 1 else f" x {item.batch}"
        panels = " in panels" if item.in_panels else ""
        return f"gemm {item.c} = {a} @ {b}{panels}: {item.m} x {item.n} x {item.k}{times}"
    if isinstance(item, ContractionItem):
        outer, inner = (" x ".join(str(axis.count) for axis in axes) for axes in (item.outer, item.sums))
        size = f"{outer} of {item.rows.count} x {item.columns}, over {inner}"
        return f"patches {item.c} = {item.a} * {item.b}: {size}"
    if isinstance(item, AttentionItem):
        read = ", ".join(map(str, item.reads))
        sizes = (
            f"{' x '.join(map(str, item.leading))} of {item.queries} x {item.keys}, {item.size} and {item.value_size}"
        )
        return f"{item.op.name} {item.c} of {read}: {sizes} wide"
    if isinstance(item, WinogradItem):
        places = " x ".join(map(str, (item.images, *item.counts)))
        return f"winograd {item.c} = {item.a} * {item.b}: {places} x {item.filters}, over {item.channels}"
    if isinstance(item, ConvolutionItem):
        places = " x ".join(map(str, (item.batch, *item.counts)))
        over = " x ".join(map(str, (*item.window, item.channels // item.groups)))
        return f"{item.op.name} {item.c} = {item.a} * {item.b}: {places} x {item.filters}, over {over}"
    buffers = ", ".join(f"{b.access.value} {i}" for i, b in zip(item.buffers, item.kernel.buffers, strict=True))
    sizes = f"; sizes {', '.join(map(str, item.sizes))}" if item.sizes else ""
    return f"{item.kernel.name}({buffers}) over {item.extent}{sizes}"
