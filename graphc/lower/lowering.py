"""Lowering: from a graph of primitives to a plan of kernels.

Fusion makes clusters; every cluster becomes a work item that reads and writes buffers; work is ordered by what it
needs; items of one level run together. Work that writes parameters comes last, after every run-time check, so that a
failed step changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from graphc.ir.dims import Size, product
from graphc.ir.graph import Graph
from graphc.ir.node import Constant, Input, Node, Parameter
from graphc.ir.sweep import Part
from graphc.ir.types import DType, TensorType, TupleType
from graphc.lower.assembly import Assembly, Attention, Contraction, Gemm, Work
from graphc.lower.attention import attention_item
from graphc.lower.branch import BranchOp
from graphc.lower.build import Built, Target
from graphc.lower.checks import find_checks
from graphc.lower.cluster import Cluster
from graphc.lower.convolution import convolution
from graphc.lower.cumulative import build_cumulative
from graphc.lower.fusion import Fusion
from graphc.lower.heads import HeadsInside
from graphc.lower.in_place import InPlace, read_leaves_of, stored_node
from graphc.lower.index import Index
from graphc.lower.loop import LoopOp, Moving, Steps, carry_places, element_place, slab, stand_in
from graphc.lower.opaque import (
    Matrix,
    as_matrix,
    batch_strides,
    build_concatenate,
    build_copy,
    build_scatter,
    concatenated_places,
    unwidened,
)
from graphc.lower.panels import build_panels, panel_product
from graphc.lower.patches import PatchParts, contraction, winograd
from graphc.lower.plan import Check, ContractionItem, ConvolutionItem, Place, Plan, WinogradItem
from graphc.lower.prepare import owned_carries, prepare
from graphc.lower.recall import build_cluster
from graphc.lower.schedule import schedule
from graphc.lower.sort import build_argsort
from graphc.lower.sources import free, is_leaf, sources_of
from graphc.lower.update import UPDATES, build_rows, build_update, rows_in_place, updates_in_place
from graphc.lower.views import is_most_of, is_view
from graphc.ops.base import Elementwise, cast_to, full
from graphc.ops.checked import Checked
from graphc.ops.convolution import Conv, ConvKernelGrad, ConvTranspose
from graphc.ops.cumulative import Cumulative
from graphc.ops.indexing import Take, TakeAlong
from graphc.ops.linear import MatMul
from graphc.ops.movement import Concatenate, Transpose, broadcast_to
from graphc.ops.panels import PackedPanels, PanelProduct
from graphc.ops.patches import PatchProduct
from graphc.ops.rows import UpdateRows
from graphc.ops.sorting import ArgSort
from graphc.ops.update import UpdateSlice
from graphc.ops.winograd import WinogradProduct


@dataclass
class Lowering:
    """One graph on its way to a plan.

    Attributes:
        owned: inputs, by ``id``, whose memory the plan may change.
        still: outputs, by number, that are made in the memory of the input of the same number.
    """

    graph: Graph
    owned: frozenset[int] = frozenset()
    still: frozenset[int] = frozenset()
    checks: tuple[Check, ...] = ()
    check_number: dict[int, int] = field(default_factory=dict[int, int])
    key: dict[int, Node] = field(default_factory=dict[int, Node])
    converted: dict[int, Node] = field(default_factory=dict[int, Node])
    copied: dict[Node, Node] = field(default_factory=dict[Node, Node])
    places: dict[int, tuple[Place, int]] = field(default_factory=dict[int, tuple[Place, int]])
    moving: dict[int, Moving] = field(default_factory=dict[int, Moving])
    work: list[Work] = field(default_factory=list[Work])
    clusters: list[Cluster] = field(default_factory=list[Cluster])

    def run(self) -> Plan:
        """The plan of the graph."""
        self.checks = find_checks(self.graph)
        for number, check in enumerate(self.checks):
            self.check_number.setdefault(id(check.node), number)
        pinned = frozenset(id(stored_node(node)) for node in self.graph.roots)
        fusion = Fusion(self.graph, pinned, self._update_cone())
        self.clusters = fusion.run()
        self._place_leaves()
        updated = updates_in_place(self.graph, self.owned)
        copies = self._place_outputs(fusion, updated)
        rows = rows_in_place(self.graph)
        self._place_updates(updated, rows)
        chosen = InPlace(self.graph, fusion, self.clusters).choose(self.places.keys())
        slots = {id(p): slot for slot, p in enumerate(self.graph.parameters)}
        for stored, target in chosen.items():
            self.key[stored] = target
            self.places[stored] = (Place.STATE, slots[id(target)])
        in_place = {**chosen, **rows}
        for cluster in self.clusters:
            self._add_cluster(cluster)
        for node, key in copies:
            self._add(build_copy(node, key, self.key_of, self.check_of), "copy")
        self._add_late_copies(in_place)
        return self._plan()

    def _update_cone(self) -> frozenset[int]:
        """The next values of parameters, and the elementwise work that only they need."""
        cone = {id(stored_node(node)) for _, node in self.graph.updates}
        outputs = {id(node) for _, node in self.graph.outputs}
        for node in reversed(self.graph.nodes):
            users = self.graph.users[id(node)]
            simple = isinstance(node.op, Elementwise) or is_view(node)
            if simple and users and id(node) not in outputs and all(id(user) in cone for user in users):
                cone.add(id(node))
        return frozenset(cone)

    # where values live

    def key_of(self, node: Node) -> Node:
        """The node whose buffer holds this node's value."""
        return self.key.get(id(node), node)

    def check_of(self, node: Node) -> int:
        """The number of a node's run-time check."""
        return self.check_number[id(node)]

    def _place_leaves(self) -> None:
        for slot, node in enumerate(self.graph.inputs):
            self.places[id(node)] = (Place.INPUT, slot)
        for slot, node in enumerate(self.graph.parameters):
            self.places[id(node)] = (Place.STATE, slot)
        constants = [n for n in self.graph.nodes if isinstance(n.op, Constant) and is_leaf(n)]
        for slot, node in enumerate(constants):
            self.places[id(node)] = (Place.CONSTANT, slot)
        self.constants = tuple(constants)

    def _place_outputs(self, fusion: Fusion, updated: frozenset[int]) -> list[tuple[Node, Node]]:
        """Give each output its buffer; what cannot be computed there directly is copied."""
        copies: list[tuple[Node, Node]] = []
        for slot, (_, node) in enumerate(self.graph.outputs):
            stored = stored_node(node)
            if slot in self.still:
                continue
            if id(stored) in fusion.home and id(stored) not in self.places and id(stored) not in updated:
                self.places[id(stored)] = (Place.OUTPUT, slot)
            else:
                key = _fresh_key(node)
                self.places[id(key)] = (Place.OUTPUT, slot)
                copies.append((node, key))
        return copies

    def _place_updates(self, updated: frozenset[int], rows: Mapping[int, Parameter]) -> None:
        """Give each updated array its place: that of the array itself, or that of a copy."""
        for node in self.graph.nodes:
            if not isinstance(node.op, UPDATES):
                continue
            if id(node) in rows:
                self.key[id(node)] = rows[id(node)]
                continue
            under = self.key_of(node.args[0])
            if id(node) not in updated:
                under = _fresh_key(node)
                if id(node) in self.places:
                    self.places[id(under)] = self.places.pop(id(node))
                self._add(build_copy(node.args[0], under, self.key_of, self.check_of), "copy")
            self.key[id(node)] = self._slice(node.type, Moving(under, 0))

    # work

    def _add(self, what: Built, label: str) -> None:
        reads = tuple(
            key
            for key, buffer in zip(what.keys, what.kernel.buffers, strict=True)
            if buffer.access.value in ("read", "update")
        )
        self.work.append(Work(what, reads, tuple(what.writes), label, what.nodes))

    def _add_cluster(self, cluster: Cluster) -> None:
        node = cluster.nodes[0]
        if cluster.is_opaque:
            match node.op:
                case MatMul():
                    self._add_matmul(node)
                case LoopOp():
                    self._add_loop(node, node.op)
                case BranchOp():
                    self._add_branch(node, node.op)
                case Part():
                    pass  # the loop writes it
                case UpdateSlice() | UpdateRows():
                    key = self.key_of(node)
                    build = build_rows if isinstance(node.op, UpdateRows) else build_update
                    self._add(build(node, key, self.key_of, self.check_of), node.op.name)
                    if id(key) in self.moving:
                        under = self.moving[id(key)].of
                        self.work[-1].reads += (under,)
                        self.work[-1].overwrites = (under,)
                case PatchProduct() | PatchParts():
                    self._add_contraction(node, contraction(node))
                case WinogradProduct():
                    self._add_contraction(node, winograd(node))
                case Conv() | ConvTranspose() | ConvKernelGrad():
                    self._add_contraction(node, convolution(node))
                case HeadsInside():
                    item, keys = attention_item(node, self._copy_of, free, self.key_of, self._in_float32)
                    reads = tuple(keys[:-1])
                    self.work.append(Work(Attention(item, tuple(keys)), reads, (keys[-1],), node.op.op.name, (node,)))
                case PackedPanels():
                    for built in build_panels(node, self.key_of(node), self.key_of, self.check_of):
                        self._add(built, "pack")
                case PanelProduct():
                    panels = self._dense(node.args[1])
                    gemm = panel_product(node, self.key_of(node), panels, self.key_of, self._copy_of)
                    self.work.append(Work(gemm, (gemm.a.key, panels), (gemm.c,), "matmul", (node,)))
                case Concatenate():
                    for built in build_concatenate(node, self.key_of(node), self.key_of, self.check_of, self._joined):
                        self._add(built, "concatenate")
                case Cumulative():
                    self._add(build_cumulative(node, self.key_of(node), self.key_of, self.check_of), node.op.name)
                case ArgSort():
                    self._add(build_argsort(node, self.key_of(node), self.key_of, self.check_of), "argsort")
                case _:
                    self._add(build_scatter(node, self.key_of(node), self.key_of, self.check_of), node.op.name)
            return
        targets = [Target(n, self.key_of(n)) for n in cluster.nodes if self._is_read_outside(n, cluster)]
        for n in cluster.nodes:
            targets += [Target(n, self.key_of(whole), place) for whole, place in self._joined.get(id(n), [])]
        label = label_of(cluster)
        self._add(build_cluster(cluster, targets, self.key_of, self.check_of, label), label)

    @cached_property
    def _joined(self) -> dict[int, list[tuple[Node, Callable[[Index], Size]]]]:
        """Of computed nodes the concatenations that they are part of: the kernel that computes one writes it there.

        Of 16-bit floats that are concatenated as float32, too.
        """
        computed = {id(n) for cluster in self.clusters if not cluster.is_opaque for n in cluster.nodes}
        found: dict[int, list[tuple[Node, Callable[[Index], Size]]]] = {}
        for cluster in self.clusters:
            whole = cluster.nodes[0]
            if isinstance(whole.op, Concatenate):
                for arg, place in zip(whole.args, concatenated_places(whole), strict=True):
                    if id(narrow := unwidened(arg)) in computed:
                        found.setdefault(id(narrow), []).append((whole, place))
        return found

    def _is_read_outside(self, node: Node, cluster: Cluster) -> bool:
        if id(node) in self.places:
            return True
        return id(node) in self._outside_reads

    @property
    def _outside_reads(self) -> set[int]:
        if not hasattr(self, "_outside"):
            found: set[int] = set()
            home = {id(n): c for c in self.clusters for n in c.nodes}
            for cluster in self.clusters:
                for node in cluster.nodes:
                    written = isinstance(node.op, Concatenate)
                    args = [arg for arg in node.args if not (written and id(unwidened(arg)) in self._joined)]
                    read = (s for arg in args for s in sources_of(arg))
                    found.update(id(s) for s in read if home.get(id(s)) is not cluster)
                    found.update(id(s) for s in _data_dependent(node))
            for root in self.graph.roots:
                found.update(id(s) for s in read_leaves_of(root))
                found.add(id(stored_node(root)))
            self._outside = found
        return self._outside

    def _add_matmul(self, node: Node) -> None:
        a, b = node.args
        full = node.shape[:-2]
        left, stride_a = self._matrix(a, full)
        right, stride_b = self._matrix(b, full)
        m, n, k = node.shape[-2], node.shape[-1], a.shape[-1]
        batch = product(full)
        stride_c: Size = m * n
        if batch != 1 and stride_b == 0 and not left.transposed and stride_a == left.leading * m:
            m, batch, stride_a, stride_c = m * batch, 1, 0, 0
        gemm = Gemm(
            node.dtype, left, right, self.key_of(node), m, n, k, batch,
            (stride_a, stride_b, stride_c), (left.offset, right.offset),
        )  # fmt: skip
        reads = (left.key, right.key)
        self.work.append(Work(gemm, reads, (self.key_of(node),), "matmul", (node,)))

    def _add_contraction(self, node: Node, item: ContractionItem | WinogradItem | ConvolutionItem) -> None:
        """A product of patches; its operands lie densely in buffers."""
        a, b = (self._dense(arg) for arg in node.args)
        c = self.key_of(node)
        self.work.append(Work(Contraction(item, a, b, c), (a, b), (c,), node.op.name, (node,)))

    def _dense(self, node: Node) -> Node:
        """The key of the buffer that holds a node's elements in order and nothing else."""
        if is_view(node):
            found = slab(node, False)
            if found is None or found[1] != 0 or free(found[0]) or found[0].type.size != node.type.size:
                return self._copy_of(node)
            return self.key_of(found[0])
        return self._copy_of(node) if free(node) else self.key_of(node)

    def _matrix(self, node: Node, full: tuple[Size, ...]) -> tuple[Matrix, Size]:
        """The operand as it lies with its stride over the batch, or a dense copy where BLAS cannot walk it."""
        matrix = as_matrix(node)
        if matrix is not None and not free(matrix.key):
            stride = batch_strides(node.shape[:-2], matrix.batch, full)
            converts = matrix.key.dtype is not node.dtype
            if stride is not None and (not converts or is_most_of(node, matrix.key)):
                matrix.key = self._in_float32(matrix.key) if converts else self.key_of(matrix.key)
                return matrix, stride
        if batch_strides(node.shape[:-2], _dense_batch(node), full) is None:
            node = broadcast_to(node, (*full, *node.shape[-2:]))
        transposed = isinstance(node.op, Transpose) and node.op.axes == (1, 0)
        source = node.args[0] if transposed else node
        key = self._copy_of(source)  # the same for a product and for its derivative, which reads it transposed
        stride = batch_strides(node.shape[:-2], _dense_batch(node), full)
        assert stride is not None
        return Matrix(key, transposed, source.shape[-1], _dense_batch(node)), stride

    def _copy_of(self, node: Node) -> Node:
        """The key of a dense copy: one for all that read it."""
        if node not in self.copied:
            self.copied[node] = _fresh_key(node)
            self._add(build_copy(node, self.copied[node], self.key_of, self.check_of), "copy")
        return self.copied[node]

    def _in_float32(self, source: Node) -> Node:
        """The key of a float32 copy of halves, as they lie: one for all products that read them."""
        if id(source) not in self.converted:
            wide = cast_to(source, DType.float32)
            self.converted[id(source)] = _fresh_key(wide)
            self._add(build_copy(wide, self.converted[id(source)], self.key_of, self.check_of), "convert")
        return self.converted[id(source)]

    def _add_loop(self, node: Node, op: LoopOp) -> None:
        """A scan: its operands in buffers, first values where the carries lie, and the plan of its steps."""
        scan = op.scan
        stored = self._results_of(node)
        inputs: list[Node] = []
        outputs: list[Node] = []
        reads: list[Node] = list(stored[: scan.carries])
        for position, arg in enumerate(node.args):
            inner = scan.body.inputs[position].type
            if position < scan.carries:
                here, there, first = carry_places(op, position, stored[position])
                inputs.append(self._slice(inner, here))
                outputs.append(self._slice(inner, there))
                target = self._slice(inner, Moving(stored[position], first))
                copy = build_copy(arg, target, self.key_of, self.check_of)
                self._add(copy, "copy")
                self.work[-1].writes = (stored[position],)
                continue
            if position < scan.carries + scan.sequences:
                key, offset, stride = self._lying(arg, True)
                inputs.append(self._slice(inner, element_place(scan, key, offset, stride)))
                reads.append(key)
            else:
                inputs.append(self._operand(arg, reads))
        for position in range(scan.carries, len(scan.body.outputs)):
            inner = scan.body.outputs[position][1].type
            if scan.stops:
                reads.append(stored[position])
                empty = full(stored[position].shape, 0, inner.dtype)
                self._add(build_copy(empty, stored[position], self.key_of, self.check_of), "zeros")
            outputs.append(self._slice(inner, element_place(scan, stored[position], 0, inner.size)))
        counted = stored[-1] if scan.stops else None
        still = frozenset(number for number, stays in enumerate(op.still) if stays)
        plan = Lowering(op.body, owned_carries(scan, op.body), still).run()
        steps = Steps(plan, tuple(inputs), tuple(outputs), scan.length, self._first_check(node), counted)
        self.work.append(Work(steps, tuple(reads), tuple(stored), "scan", (node,)))

    def _add_branch(self, node: Node, op: BranchOp) -> None:
        """A cond: two loops of one step at most, of which one runs and writes the results."""
        stored = self._results_of(node)
        reads: list[Node] = []
        true, false, *inputs = [self._operand(arg, reads) for arg in node.args]
        check = self._first_check(node)
        for flag, body, prepared in zip((true, false), op.bodies, op.prepared, strict=True):
            counted = stand_in(TensorType(DType.int64, ()))
            steps = Steps(Lowering(prepared).run(), tuple(inputs), tuple(stored), 1, check, counted, flag)
            self.work.append(Work(steps, tuple(reads), (*stored, counted), "cond", (node,)))
            check += len(find_checks(body))

    def _results_of(self, node: Node) -> list[Node]:
        """The keys of the results of a node that has several; what nobody reads has one, too."""
        assert isinstance(node.type, TupleType)
        stored = [stand_in(type) for type in node.type.parts]
        for part in self.graph.users[id(node)]:
            assert isinstance(part.op, Part)
            stored[part.op.index] = self.key_of(part)
        return stored

    def _operand(self, node: Node, reads: list[Node]) -> Node:
        """The key of an operand that lies densely in one place through all of a loop; what it reads joins ``reads``."""
        key, offset, _ = self._lying(node, False)
        reads.append(key)
        return key if offset == 0 and key.type == node.type else self._slice(node.type, Moving(key, offset))

    def _lying(self, node: Node, sequence: bool) -> tuple[Node, Size, Size]:
        """Where an operand of a loop lies: key, offset, and the distance of its elements; perhaps as a copy."""
        found = slab(node, sequence)
        if found is None or free(found[0]):
            return self._copy_of(node), 0, product(node.shape[1:])
        return self.key_of(found[0]), *found[1:]

    def _first_check(self, node: Node) -> int:
        """The number of the first check in the bodies of a node."""
        own = sum(isinstance(n.op, Checked) for n in self.graph.nodes)
        earlier = itertools.takewhile(lambda other: other is not node, self.graph.nodes)
        return own + sum(len(find_checks(body)) for other in earlier for body in other.op.bodies)

    def _slice(self, type: TensorType, place: Moving) -> Node:
        key = stand_in(type)
        self.moving[id(key)] = place
        return key

    def _add_late_copies(self, in_place: dict[int, Parameter]) -> None:
        """Updates that were computed elsewhere are copied into their parameters at the end."""
        for target, node in self.graph.updates:
            stored = stored_node(node)
            if in_place.get(id(stored)) is target or node is target:
                continue
            source = stored
            if not self._has_own_buffer(stored):
                source = _fresh_key(node)
                self._add(build_copy(node, source, self.key_of, self.check_of), "copy")
            self._add(build_copy(source, target, self.key_of, self.check_of, "update"), "update")

    def _has_own_buffer(self, node: Node) -> bool:
        """Was it computed into the arena or an output, so that nothing overwrites it before the end?"""
        if is_leaf(node) or is_view(node):
            return False
        return id(node) not in self.places or self.places[id(node)][0] is Place.OUTPUT

    # the plan

    def _plan(self) -> Plan:
        order, commit = schedule(self.work, self.graph.parameters)
        arrays = tuple(node.op.array for node in self.constants if isinstance(node.op, Constant))
        assembly = Assembly(self.graph, self.places, self.moving, arrays)
        for node in (*self.graph.inputs, *self.graph.parameters):
            assembly.buffer(node)
        for number, group in enumerate(order):
            if number == commit:
                assembly.begin_commit()
            assembly.launch(group)
        if commit == len(order):
            assembly.begin_commit()
        return assembly.plan(self.checks)


def lower(graph: Graph) -> Plan:
    """The plan of a graph whose composites are decomposed."""
    return Lowering(prepare(graph)).run()


def label_of(cluster: Cluster) -> str:
    """A short name made of the cluster's ops."""
    seen = dict.fromkeys(node.op.name for node in cluster.nodes if not free(node))
    shown = list(seen)
    if len(shown) > 4:
        shown = [*shown[:2], *shown[-2:]]
    return "_".join(shown) if shown else "copy"


def _fresh_key(node: Node) -> Node:
    return Node(Input("buffer", node.type), (), node.type, node.loc)


def _data_dependent(node: Node) -> list[Node]:
    """Operands read at positions that depend on data or that move: these need a buffer even inside the cluster."""
    if isinstance(node.op, Take | TakeAlong):
        return [s for s in read_leaves_of(node.args[0])]
    return []


def _dense_batch(node: Node) -> tuple[Size, ...]:
    strides: list[Size] = []
    step: Size = node.shape[-2] * node.shape[-1]
    for size in reversed(node.shape[:-2]):
        strides.append(step)
        step = step * size
    return tuple(reversed(strides))
