"""The compiled object that a user holds: call it, read its stages, its memory, its source."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from graphc.backend import Backend, Bound, DeviceBound, DeviceExecutable, Executable, Failure, Pending
from graphc.errors import (
    AxisError,
    DTypeError,
    GraphcError,
    GraphError,
    IndexRangeError,
    NameClashError,
    NonFiniteError,
    ShapeError,
)
from graphc.ir.dims import Dim, evaluate
from graphc.ir.graph import Graph
from graphc.ir.location import user_line
from graphc.ir.node import Dependent, Mirror, Node, Parameter, describe_operands
from graphc.ir.precision import FLOAT32, Precision
from graphc.ir.text import print_graph
from graphc.ir.types import converts
from graphc.lower.plan import Plan
from graphc.lower.sizes import find_size_rules
from graphc.recycled import Recycled
from graphc.stepping import run_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from graphc.lower.budget import Rematerialization
    from graphc.lower.preparing import PreparedValues
    from graphc.lower.store import Kept, Lowered
    from graphc.rewrite import RewriteLog

    Array = NDArray[Any]

STAGES = ("graph", "simplified", "prepared", "fused", "kernels", "plan")
MOST_FITS = 64
"""Combinations of input shapes that a program remembers."""
UNKNOWN_SIZE = 32
"""What a symbolic size counts as in reports on a program that has not run yet."""


@dataclass(frozen=True)
class MemoryReport:
    """The memory of a program for one combination of sizes, in bytes.

    Attributes:
        peak_bytes: the arena: all intermediates, planned to share memory.
        naive_bytes: what they would take if each had its own.
        largest_live_set_bytes: the most that is alive at one moment; no plan can need less.
        parameter_bytes: state, shared by all programs that use it.
        prepared_bytes: values made of parameters ahead of calls, and what making them takes; shared likewise.
        dims: the sizes that this holds for.
    """

    peak_bytes: int
    naive_bytes: int
    largest_live_set_bytes: int
    parameter_bytes: int
    prepared_bytes: int = 0
    dims: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class _Fit:
    """What a combination of input shapes leads to."""

    bound: Bound
    outputs: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]
    dims: Mapping[str, int]


class Results(Sequence["Array"]):
    """The results of a step that has been started, in the order of ``output_names``."""

    def __init__(self, program: Program, pending: Pending, dims: Mapping[str, int]) -> None:
        self._program = program
        self._pending = pending
        self._dims = dims

    def __len__(self) -> int:
        return len(self._program.output_names)

    def __iter__(self) -> Iterator[Array]:  # that of sequences takes an index that is out of range for the end
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        outputs, failure = self._pending.wait()
        if failure is not None:
            raise self._program.failed(failure, self._dims)
        return cast("Any", outputs[index])


class Program:
    """A compiled graph. Made by :func:`graphc.compile`.

    Calling it runs one step: results come back as fresh arrays by name, unless ``out`` gives arrays to fill, and the
    updates are committed together. A step that raises changes no state. Several threads may call one program.

    Attributes:
        graph: the user's graph, with the phase resolved.
        backend: the backend that compiled it.
        training: the phase it was compiled for.
        precision: what its products are computed in.
    """

    def __init__(
        self,
        graph: Graph,
        lower: Callable[[], Lowered],
        kept: Kept,
        executable: Executable,
        backend: Backend,
        training: bool,
        precision: Precision = FLOAT32,
    ) -> None:
        self.graph = graph
        self.executable = executable
        self.backend = backend
        self.training = training
        self._lower = lower
        self._kept = kept
        self._prepared = kept.prepared
        self.precision = precision
        self.input_names: tuple[str, ...] = tuple(str(node.name) for node in graph.inputs)
        self.output_names: tuple[str, ...] = tuple(name for name, _ in graph.outputs)
        self._dtypes = tuple(node.dtype.numpy for node in graph.inputs)
        self._fits: dict[tuple[tuple[int, ...], ...], _Fit] = {}
        self._dims: Mapping[str, int] = {}
        self._lock = threading.Lock()
        self._given_out = Recycled()
        self._device = executable if isinstance(executable, DeviceExecutable) else None
        self._mirrors: Sequence[tuple[Mirror, bool]] = ()
        self._mirrors_seen = 0  # of all that were made, when it was looked which of them are of this program
        self._updated = tuple(parameter for parameter, _ in graph.updates)
        self._dependents: Sequence[weakref.ref[Dependent]] = ()  # of the parameters that are updated
        self._dependents_seen = 0

    @cached_property
    def _lowered(self) -> Lowered:
        return self._lower()

    @property
    def simplified(self) -> Graph:
        """The graph after all rewriting."""
        return self._lowered.simplified

    @property
    def rewrites(self) -> RewriteLog:
        """The rules that fired."""
        return self._lowered.log

    @property
    def plan(self) -> Plan:
        """Kernels, buffers and order; empty for backends that do not lower."""
        return self._lowered.plan

    @property
    def prepared(self) -> tuple[PreparedValues, ...]:
        """Values of parameters alone, which are computed again only if a parameter has changed."""
        return self._lowered.prepared

    @property
    def rematerialization(self) -> Rematerialization | None:
        """Of a program with a memory budget, what is kept and what is computed again; else None."""
        return self._lowered.rematerialization

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters that the program reads or updates."""
        return self.graph.parameters

    def __call__(self, *nameless: Any, out: Mapping[str, Array] | None = None, **inputs: Any) -> dict[str, Array]:
        """Run one step.

        Args:
            out: arrays to fill, by output name; all outputs or none. Then the step allocates nothing. They must not
                share memory with inputs or with each other.
            inputs: an array for each placeholder, of its element type and a shape that fits.
            nameless: none: inputs have names.

        Raises:
            NameClashError: an input is missing, unknown, or given without its name.
            DTypeError, ShapeError: an array does not fit its placeholder.
            IndexRangeError, NonFiniteError: a check failed while running; no state has changed.
        """
        try:
            arrays = [inputs[name] for name in self.input_names]
        except KeyError:
            arrays = None
        if arrays is None or len(inputs) != len(arrays) or nameless:
            raise self._names_differ(inputs, bool(nameless))
        results = self.call(arrays, None if out is None else self._given(out))
        return dict(zip(self.output_names, results, strict=True))

    def call(self, arrays: Sequence[Any], out: Sequence[Array] | None = None) -> Sequence[Array]:
        """Run one step on arrays in the order of ``input_names``; results in the order of ``output_names``."""
        arrays, fit = self._fitting(arrays)
        if out is None:
            make: Callable[[tuple[int, ...], np.dtype[Any]], Any] = self._given_out.empty
            if self._device is not None and any(map(self._device.holds, arrays)):
                make = self._device.empty
            out = [make(shape, dtype) for shape, dtype in fit.outputs]
        else:
            self._check_out(out, fit)
        if Parameter.mirrors_made:
            self._fetch()
        for values in self._prepared:
            if values.made is not values.wanted:
                values.renew()
        if self._updated:  # as _tell does: most have nobody to tell, and calls take few microseconds
            if self._dependents or self._dependents_seen != Parameter.dependents_made:
                self._tell()
            try:
                failure = fit.bound.run(arrays, out)
            finally:
                if self._dependents or self._dependents_seen != Parameter.dependents_made:
                    self._tell()
        else:
            failure = fit.bound.run(arrays, out)
        if failure is not None:
            raise self.failed(failure, fit.dims)
        return out

    def _fetch(self) -> None:
        """Bring up to date on the CPU what was computed elsewhere, and make old elsewhere what will be written here."""
        for mirror, is_written in self._elsewhere():
            if is_written:
                mirror.expire()
            else:
                mirror.fetch()

    def _tell(self) -> None:
        """Tell what was made of the parameters that are updated.

        Before a step, for whoever looks while it runs, and after it, when the new values are there.
        """
        if self._dependents_seen != Parameter.dependents_made:
            seen = Parameter.dependents_made
            self._dependents = [reference for parameter in self._updated for reference in parameter.dependents]
            self._dependents_seen = seen
        for reference in self._dependents:
            dependent = reference()
            if dependent is not None:
                dependent.expire()

    def _elsewhere(self) -> Sequence[tuple[Mirror, bool]]:
        """The parameters' buffers on devices where the program does not run, and whether it updates the parameter."""
        if self._mirrors_seen != Parameter.mirrors_made:
            seen, own, updated = Parameter.mirrors_made, self._device, set(map(id, self._updated))
            self._mirrors = [
                (mirror, id(parameter) in updated)
                for parameter in self.parameters
                for mirror in parameter.mirrors
                if own is None or not own.keeps(mirror)
            ]
            self._mirrors_seen = seen
        return self._mirrors

    @property
    def runs_ahead(self) -> bool:
        """Does :meth:`start` return before the step is done?"""
        return self._device is not None

    def place(self, arrays: Sequence[Array]) -> Sequence[Any] | None:
        """Copies on the device where the program runs, which it takes without copying them there again.

        None where there is no such device, or too little room on it to work with these beside what runs.
        """
        return None if self._device is None else self._device.place(arrays)

    def start(self, arrays: Sequence[Any]) -> Sequence[Array]:
        """Begin one step on arrays in the order of ``input_names``; results are waited for when they are read.

        Where a backend cannot run ahead this is :meth:`call`. What a check finds is raised when the results are read;
        until then no later step of this program changes state.
        """
        if self._device is None:
            return self.call(arrays)
        arrays, fit = self._fitting(arrays)
        self._fetch()
        for values in self._prepared:
            if values.made is not values.wanted:
                values.renew()
        self._tell()
        try:
            return Results(self, cast("DeviceBound", fit.bound).start(arrays), fit.dims)
        finally:
            self._tell()

    def steps(self, arrays: Sequence[Any]) -> Sequence[Array]:
        """Run a step for each item of the arrays' first axis, in order; results are stacked likewise.

        The steps are those of as many calls, to the bit. Where the backend has a device the arrays are brought there at
        once, if they are not there yet and fit, and up to 16 steps are under way before a result is read.

        Args:
            arrays: in the order of ``input_names``, each with one more axis than the program takes, all equally long.

        Raises:
            ShapeError: they are not equally long, or there are none.
            IndexRangeError, NonFiniteError: a check failed in a step; the state is that of the step before it.
        """
        return run_steps(self, arrays)

    def _fitting(self, arrays: Sequence[Any]) -> tuple[Sequence[Any], _Fit]:
        """The arrays as the executable takes them, and what their shapes lead to."""
        shapes: list[tuple[int, ...]] = []
        for array, dtype in zip(arrays, self._dtypes, strict=True):
            if array.__class__ is not np.ndarray or array.dtype is not dtype or not array.flags.carray:
                arrays = [self._as_input(i, value) for i, value in enumerate(arrays)]
                shapes = [value.shape for value in arrays]
                break
            shapes.append(array.shape)
        fit = self._fits.get(tuple(shapes))
        if fit is None:
            fit = self._new_fit(tuple(shapes))
        self._dims = fit.dims
        return arrays, fit

    # reading

    def text(self, stage: str = "simplified") -> str:
        """The program at one stage: ``graph``, ``simplified``, ``prepared``, ``fused``, ``kernels`` or ``plan``.

        Raises:
            AxisError: there is no such stage.
        """
        if stage == "graph":
            return print_graph(self.graph)
        if stage == "simplified":
            return print_graph(self.simplified)
        if stage == "prepared":
            return "\n".join(print_graph(values.graph) for values in self.prepared) or "nothing is prepared\n"
        if stage in STAGES:
            from graphc.report.stages import print_stage

            return print_stage(self.plan, stage)
        raise AxisError(f"there is no stage {stage!r}", at=user_line(), remedy=f"use one of: {', '.join(STAGES)}")

    def source(self) -> str:
        """The generated source of all kernels."""
        return "\n\n".join((*(values.executable.source() for values in self._prepared), self.executable.source()))

    def memory(self, **dims: int) -> MemoryReport:
        """What the program needs, by default for the sizes of the last call."""
        from graphc.lower.memory import layout

        sizes = self.sizes(dims)
        arena = layout(self._kept.plan, sizes)
        held = sum(p.type.nbytes({}) for p in self.parameters)
        ahead = sum(values.nbytes for values in self._prepared)
        return MemoryReport(arena.peak_bytes, arena.naive_bytes, arena.largest_live_set_bytes, held, ahead, sizes)

    def explain(self, **dims: int) -> str:
        """For each kernel: the user's lines that it computes, the ops fused, bytes moved, its place in the arena."""
        from graphc.report.explain import explain

        return explain(self, self.sizes(dims))

    def sizes(self, dims: Mapping[str, int] | None = None) -> dict[str, int]:
        """A value for every symbolic size: as given, else that of the last call, else a typical one."""
        given = dims or {}
        unknown = set(given) - set(self.graph.dims)
        if unknown:
            raise NameClashError(
                f"no size is called {sorted(unknown)[0]!r}",
                at=user_line(),
                remedy=f"sizes here: {', '.join(self.graph.dims) or 'none'}",
            )
        return {name: given.get(name, self._dims.get(name, UNKNOWN_SIZE)) for name in self.graph.dims}

    def __repr__(self) -> str:
        return f"<Program on {self.backend.name}: {', '.join(self.input_names)} -> {', '.join(self.output_names)}>"

    # binding

    def _as_input(self, position: int, value: Any) -> Array:
        node = self.graph.inputs[position]
        dtype = self._dtypes[position]
        shown = type(value).__name__
        if self._device is not None and self._device.holds(value):
            if value.dtype == dtype and value.flags.c_contiguous:
                return value
            shown = f"an array on the device of {value.dtype}" + " that is not contiguous" * (value.dtype == dtype)
        elif isinstance(value, np.ndarray | np.generic):
            array = cast("Array", value)
            if array.dtype == dtype:
                return np.require(array, dtype, ["C", "A", "E"]) if array.ndim else np.array(array)
            shown = str(array.dtype)
        elif isinstance(value, bool | int | float | list | tuple):
            return self._from_python(node, value)
        elif hasattr(value, "__cuda_array_interface__"):
            shown = "an array on a device where the program does not run"
        raise DTypeError(
            f"input {node.name!r} takes {dtype}, got {shown}",
            details=(node.user_line,),
            at=user_line(),
            remedy=f"convert it: np.asarray({node.name}, {str(dtype)!r})",
        )

    def _from_python(self, node: Node, value: Any) -> Array:
        try:
            array = np.asarray(value)
            if (
                array.size == 0
                or converts(array.dtype, node.dtype)
                or (array.dtype.kind in "iu" and node.dtype.kind.value >= 1)
            ):
                return np.ascontiguousarray(array.astype(node.dtype.numpy)).reshape(array.shape)
        except (ValueError, TypeError, OverflowError):  # a ragged list, text: the error below says what is wanted
            pass
        raise DTypeError(
            f"input {node.name!r} takes {node.dtype}, got {value!r:.60}",
            details=(node.user_line,),
            at=user_line(),
            remedy=f"give an array of {node.dtype}",
        )

    def _new_fit(self, shapes: tuple[tuple[int, ...], ...]) -> _Fit:
        dims = self._solve(shapes)
        if any(evaluate(size, dims) < 0 for size in self._kept.never_negative):
            for rule in find_size_rules((*self.graph.nodes, *self.plan.graph.nodes)):
                rule.check(dims)
        outputs = tuple(
            (tuple(evaluate(size, dims) for size in node.shape), node.dtype.numpy) for _, node in self.graph.outputs
        )
        fit = _Fit(self.executable.bind(dims), outputs, dims)
        with self._lock:
            if len(self._fits) >= MOST_FITS:
                self._fits.pop(next(iter(self._fits)))
            self._fits[shapes] = fit
        return fit

    def _solve(self, shapes: tuple[tuple[int, ...], ...]) -> dict[str, int]:
        """The value of every symbolic size, from the shapes of the inputs."""
        dims: dict[str, int] = {}
        given_by: dict[str, str] = {}
        for node, shape in zip(self.graph.inputs, shapes, strict=True):
            if len(shape) != node.ndim:
                raise self._shape_differs(node, shape, f"{len(shape)} axes instead of {node.ndim}")
            for axis, (size, value) in enumerate(zip(node.shape, shape, strict=True)):
                name = str(size)
                if not isinstance(size, Dim) or not name.isidentifier():
                    continue
                if dims.setdefault(name, value) != value:
                    why = f"{name} is {value} on axis {axis} but {dims[name]} in {given_by[name]}"
                    raise self._shape_differs(node, shape, why)
                given_by.setdefault(name, f"input {node.name!r}")
        for node, shape in zip(self.graph.inputs, shapes, strict=True):
            for axis, (size, value) in enumerate(zip(node.shape, shape, strict=True)):
                try:
                    wanted = evaluate(size, dims)
                except KeyError as error:
                    raise GraphError(
                        f"the size {error.args[0]!r} stands nowhere alone in an input's shape",
                        at=node.user_line,
                        remedy=f"give some placeholder an axis of the plain size {error.args[0]!r}",
                    ) from None
                if wanted != value:
                    raise self._shape_differs(node, shape, f"axis {axis} is {value}, expected {wanted}")
        return dims

    def _shape_differs(self, node: Node, shape: tuple[int, ...], why: str) -> ShapeError:
        return ShapeError(
            f"input {node.name!r} is {node.type}, got an array of shape {shape}: {why}",
            details=(node.user_line,),
            at=user_line(),
            remedy="pass an array of the declared shape, or declare the axis with a name such as 'batch'",
        )

    def _names_differ(self, inputs: Mapping[str, Any], nameless: bool) -> NameClashError:
        if nameless:
            shown = ", ".join(f"{name}=..." for name in self.input_names)
            return NameClashError(
                "an input is given without its name", at=user_line(), remedy=f"write program({shown})"
            )
        missing = [name for name in self.input_names if name not in inputs]
        unknown = [name for name in inputs if name not in self.input_names]
        what = f"input {missing[0]!r} is missing" if missing else f"there is no input {unknown[0]!r}"
        return NameClashError(
            what, at=user_line(), remedy=f"pass exactly: {', '.join(self.input_names) or 'no inputs'}"
        )

    def _given(self, out: Mapping[str, Array]) -> list[Array]:
        if not isinstance(out, Mapping) or set(out) != set(self.output_names):  # pyright: ignore[reportUnnecessaryIsInstance]
            shown = ", ".join(map(repr, out)) if isinstance(out, Mapping) else f"a {type(out).__name__}"  # pyright: ignore[reportUnnecessaryIsInstance]
            raise NameClashError(
                f"out is for {shown}, the outputs are {', '.join(map(repr, self.output_names))}",
                at=user_line(),
                remedy="give a dict with an array for every output",
            )
        return [out[name] for name in self.output_names]

    def _check_out(self, out: Sequence[Array], fit: _Fit) -> None:
        for name, array, (shape, dtype) in zip(self.output_names, out, fit.outputs, strict=True):
            if self._device is not None and self._device.holds(array):
                if array.shape == shape and array.dtype == dtype and array.flags.c_contiguous:
                    continue
            if not isinstance(array, np.ndarray) or array.dtype != dtype:  # pyright: ignore[reportUnnecessaryIsInstance]
                shown = getattr(array, "dtype", type(array).__name__)
                raise DTypeError(
                    f"out[{name!r}] must be an array of {dtype}, got {shown}",
                    at=user_line(),
                    remedy=f"np.empty({shape}, {str(dtype)!r})",
                )
            array = np.asarray(array)  # a subclass may tell another shape than it has
            if array.shape != shape or not array.flags.carray:
                layout = "" if array.flags.carray else " that is not contiguous, aligned and writable"
                raise ShapeError(
                    f"out[{name!r}] must be a C-contiguous, writable array of shape {shape}, "
                    f"got one of shape {array.shape}{layout}",
                    at=user_line(),
                    remedy=f"np.empty({shape}, {str(dtype)!r})",
                )

    def failed(self, failure: Failure, dims: Mapping[str, int]) -> GraphcError:
        """What to raise for a check that failed."""
        check = self.plan.checks[failure.check]
        node = check.node
        details = describe_operands(node.op, node.args)
        at = node.user_line
        if check.kind == "finite":
            what = check.what or node.op.name
            return NonFiniteError(
                f"{what} is not finite (first seen at flat position {failure.detail})",
                details=details,
                at=at,
                remedy="lower the learning rate, clip gradients, or look for log(0) and divisions by zero upstream",
            )
        limit = evaluate(check.limit, dims)
        return IndexRangeError(
            f"{check.what or node.op.name}: index {failure.detail} is outside an axis of size {limit}",
            details=details,
            at=at,
            remedy=f"give indices from 0 to {limit - 1}; nothing has been changed"
            if limit
            else "give no indices into an axis without elements; nothing has been changed",
        )
