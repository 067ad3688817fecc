"""Matrices in panels: how they are packed, and where the rows lie that are multiplied by them."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.ir.node import Node, apply
from graphc.lower.plan import GemmItem, KernelItem, Place, Plan
from graphc.ops.panels import PackedPanels, PanelProduct
from tests.lower.judge import judge

PANEL = 32


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def multiplied(x: Node, w: Node) -> Node:
    return apply(PanelProduct(w.shape[1]), x, apply(PackedPanels(PANEL), w))


def items(plan: Plan, label: str) -> list[GemmItem | KernelItem]:
    return [item for launch in plan.launches if label in launch.label for item in launch.items]


@pytest.mark.parametrize("columns", [1, PANEL - 1, PANEL, PANEL + 5, 3 * PANEL])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_panels_are_the_matrix_and_zeros(rows, columns):
    w = gx.placeholder("w", ("rows", columns))
    plan = judge({"panels": apply(PackedPanels(PANEL), w)}, {w: f32(rows, columns)}, rtol=0, atol=0)
    assert len(items(plan, "pack")) == (1 if columns % PANEL == 0 else 3)


def test_as_many_columns_as_there_are():
    w = gx.placeholder("w", (3, "columns"))
    for columns in (0, 5, 64, 70):
        judge({"panels": apply(PackedPanels(PANEL), w)}, {w: f32(3, columns)}, rtol=0, atol=0)


def test_a_matrix_is_packed_as_it_lies():
    w = gx.placeholder("w", (40, 7, 2))
    views = {"turned": gx.transpose(w[:, :, 0]), "part": w[3:, 2:, 1], "flat": gx.reshape(w, (40, 14))}
    plan = judge(
        {name: apply(PackedPanels(PANEL), view) for name, view in views.items()}, {w: f32(40, 7, 2)}, rtol=0, atol=0
    )
    assert all("pack" in launch.label for launch in plan.launches)


@pytest.mark.parametrize(
    ("shape", "view", "copies"),
    [
        (("batch", 6), lambda x: x, 0),
        (("batch", 2, 6), lambda x: x, 0),
        (("batch", 9), lambda x: x[:, 2:8], 0),
        (("batch", 2, 9), lambda x: x[:, :, 2:8], 0),
        (("batch", 2, 6), lambda x: x[:, :1], 1),
        ((6, "batch"), gx.transpose, 1),
        (("batch", 2, 6), lambda x: gx.transpose(x, (1, 0, 2)), 1),
        ((1, 6), lambda x: gx.broadcast_to(x, (4, 6)), 1),
    ],
)
def test_rows_are_copied_only_where_they_lie_at_several_distances(shape, view, copies):
    x, panels = gx.placeholder("x", shape), gx.placeholder("panels", (2, 6, PANEL))
    given = f32(*(3 if size == "batch" else size for size in shape))
    plan = judge({"y": apply(PanelProduct(37), view(x), panels)}, {x: given, panels: f32(2, 6, PANEL)})
    (item,) = items(plan, "matmul")
    assert isinstance(item, GemmItem)
    assert item.in_panels
    assert len(items(plan, "copy")) == copies


def test_one_packing_serves_several_products():
    a, b, w = (gx.placeholder(name, shape) for name, shape in (("a", (3, 8)), ("b", (2, 5, 8)), ("w", (8, 40))))
    outputs = {"a": multiplied(a, w), "b": multiplied(b, w), "again": multiplied(gx.tanh(a), w)}
    plan = judge(outputs, {a: f32(3, 8), b: f32(2, 5, 8), w: f32(8, 40)})
    assert (len(items(plan, "pack")), len(items(plan, "matmul"))) == (3 + 1, 3)  # tanh runs beside the packing


def test_a_parameter_is_packed_into_another_where_that_lies():
    w, panels = gx.parameter("w", f32(6, 37)), gx.parameter("panels", np.zeros((2, 6, PANEL), np.float32))
    plan = judge({}, {}, {panels: apply(PackedPanels(PANEL), w)}, rtol=0, atol=0)
    assert [launch.label for launch in plan.launches] == ["pack"]
    assert all(buffer.place is Place.STATE for buffer in plan.buffers)
