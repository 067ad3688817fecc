"""Convolutions by cuDNN, through the Python package of its frontend: an extra that is imported when it is first needed.

cuDNN offers plans for a description of a convolution, which have names. Those whose bits depend on the order in which
threads arrive are left out, and those that round operands where nobody allowed it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from graphc.backends.cupy.device import Convolution
from graphc.errors import BackendError
from graphc.ir.types import DType
from graphc.lower.plan import Sought

FRONTEND = "nvidia-cudnn-frontend"
LIBRARIES = ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
REMEDY = "pip install 'graphc[cudnn]'"
MOST_PLANS = 8
"""Plans of one convolution that are worth a look: cuDNN names those first that it takes for the fastest."""
MOST_WORKSPACE = 256 << 20
_TYPES = {DType.float32: "FLOAT", DType.float64: "DOUBLE", DType.float16: "HALF", DType.bfloat16: "BFLOAT16"}


@cache
def installed() -> str:
    """The versions of the library and of its frontend, found without loading either; empty if it cannot be used."""
    frontend = _version(FRONTEND)
    if not frontend:
        return ""
    library = next((found for name in LIBRARIES if (found := _version(name))), "of the system")
    return f"{library}, frontend {frontend}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@cache
def frontend() -> Any:
    """The frontend's module, with a library behind it.

    Raises:
        BackendError: one of them cannot be loaded.
    """
    try:
        loaded = importlib.import_module("cudnn")
        loaded.backend_version()
    except (ImportError, OSError, RuntimeError) as error:
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded: {error}"
        raise BackendError(f"cuDNN {reason}", remedy=REMEDY) from error
    return loaded


@dataclass
class _Described:
    """A convolution as a graph of cuDNN's.

    Attributes:
        tensors: x, the kernel and y.
        names: of its plans, by their position among cuDNN's; only those that may be taken.
        ready: the workspaces of plans that are compiled.
    """

    graph: Any
    tensors: tuple[Any, Any, Any]
    names: Mapping[str, int]
    ready: dict[str, int] = field(default_factory=dict[str, int])


class Cudnn:
    """Convolutions on one GPU, which must be the current one.

    Args:
        loaded: the frontend's module.
        handle: makes a handle for a stream by its address.
        options: of every graph, such as the properties of a GPU that is not there.
    """

    def __init__(self, loaded: Any, handle: Callable[[int], Any] | None = None, **options: Any) -> None:
        self._loaded = loaded
        self._make_handle = handle or self._handle_on
        self._options = options
        self._handles: dict[int, Any] = {}
        self._described: dict[Convolution, _Described | BackendError] = {}

    def plans(self, convolution: Convolution) -> Iterator[str]:
        """The plans that can be taken, each compiled when it is asked for; see ``Device.convolution_plans``."""
        usable = 0
        for name in self._find(convolution).names:
            try:
                self.workspace(replace(convolution, plan=name))
            except BackendError:  # one of those that are not wanted, which cuDNN still counts
                continue
            yield name
            usable += 1
            if usable == MOST_PLANS:
                return
        if not usable:
            raise BackendError("cuDNN has no plan for this convolution that gives the same bits each time")

    def workspace(self, convolution: Convolution) -> int:
        """The bytes that its plan takes, which is compiled now."""
        found = self._find(convolution)
        if convolution.plan not in found.ready:
            if convolution.plan not in found.names:
                raise BackendError(f"cuDNN has no plan {convolution.plan!r} for this convolution")
            index = found.names[convolution.plan]
            with _explained(self._loaded, f"the plan {convolution.plan}"):
                found.graph.build_plan_at_index(index)
                found.ready[convolution.plan] = int(found.graph.get_workspace_size_plan_at_index(index))
        return found.ready[convolution.plan]

    def prepare(self, convolution: Convolution, stream: int) -> None:
        """Have all that running it takes, so that nothing is compiled while a graph is recorded."""
        self.workspace(convolution)
        self._handle(stream)

    def run(self, convolution: Convolution, stream: int) -> None:
        """Queue a convolution that has been prepared."""
        found = self._find(convolution)
        places = zip(found.tensors, (convolution.x, convolution.kernel, convolution.y), strict=True)
        with _explained(self._loaded, f"the plan {convolution.plan}"):
            found.graph.execute_plan_at_index(
                dict(places), convolution.workspace, found.names[convolution.plan], handle=self._handle(stream)
            )

    def _handle(self, stream: int) -> Any:
        if stream not in self._handles:
            with _explained(self._loaded, "a handle"):
                self._handles[stream] = self._make_handle(stream)
        return self._handles[stream]

    def _handle_on(self, stream: int) -> Any:
        made = self._loaded.create_handle()
        self._loaded.set_stream(made, stream)
        return made

    def _find(self, convolution: Convolution) -> _Described:
        key = replace(convolution, x=0, kernel=0, y=0, plan="", workspace=0, workspace_bytes=0)
        if key not in self._described:
            try:
                self._described[key] = self._describe(key)
            except BackendError as error:
                self._described[key] = error
        found = self._described[key]
        if isinstance(found, BackendError):
            raise found
        return found

    def _describe(self, convolution: Convolution) -> _Described:
        """The graph, with the names of its plans; cuDNN counts channels before sizes, wherever they lie."""
        loaded = self._loaded
        one = convolution if len(convolution.window) > 1 else _with_two_axes(convolution)
        if len(one.window) > 3:
            raise BackendError(f"cuDNN has no convolutions along {len(one.window)} axes")
        for size, count, low, high, *window in zip(
            one.sizes, one.counts, one.low, one.high, one.window, one.strides, one.dilations, strict=True
        ):
            if _count(size + low + high, *window) != count:
                raise BackendError("cuDNN has no convolutions that leave out elements behind x")
        dtype = getattr(loaded.data_type, _TYPES[one.dtype])
        wide = loaded.data_type.DOUBLE if one.dtype is DType.float64 else loaded.data_type.FLOAT
        options = self._options or {"handle": self._handle(0)}
        with _explained(loaded, "the description"):
            graph = loaded.pygraph(io_data_type=dtype, intermediate_data_type=wide, compute_data_type=wide, **options)
            shapes = {
                "x": (one.batch, one.channels, *one.sizes),
                "kernel": (one.filters, one.channels // one.groups, *one.window),
                "y": (one.batch, one.filters, *one.counts),
            }
            sought = {Sought.RESULT: "y", Sought.INPUT: "x", Sought.KERNEL: "kernel"}[one.sought]
            tensors = {
                name: graph.tensor(dim=list(shape), stride=_channels_last(shape), data_type=dtype, name=name)
                for name, shape in shapes.items()
                if name != sought
            }
            how = {
                "pre_padding": list(one.low), "post_padding": list(one.high), "stride": list(one.strides),
                "dilation": list(one.dilations),
            }  # fmt: skip
            match one.sought:
                case Sought.RESULT:
                    made = graph.conv_fprop(image=tensors["x"], weight=tensors["kernel"], **how)
                case Sought.INPUT:
                    made = graph.conv_dgrad(loss=tensors["y"], filter=tensors["kernel"], **how)
                case Sought.KERNEL:
                    made = graph.conv_wgrad(image=tensors["x"], loss=tensors["y"], **how)
            made.set_output(True).set_data_type(dtype)
            made.set_dim(list(shapes[sought])).set_stride(_channels_last(shapes[sought]))
            tensors[sought] = made
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([loaded.heur_mode.A, loaded.heur_mode.FALLBACK])
            notes, unwanted = loaded.numerical_note, ["NONDETERMINISTIC", "DOWN_CONVERT_INPUTS"]
            unwanted += ["REDUCED_PRECISION_REDUCTION"]
            unwanted += [] if one.tf32 or one.dtype is not DType.float32 else ["TENSOR_CORE"]
            graph.deselect_numeric_notes([getattr(notes, name) for name in unwanted])
            graph.deselect_workspace_greater_than(MOST_WORKSPACE)
            count = graph.get_execution_plan_count()
            found = [str(graph.get_plan_name_at_index(index)) for index in range(count)]
        names: dict[str, int] = {}
        for index, name in enumerate(found):
            if re.match(r"eng\d", name):  # others are the frontend's own engines, which compile by other means
                names.setdefault(name, index)
        return _Described(graph, (tensors["x"], tensors["kernel"], tensors["y"]), names)


def _count(padded: int, window: int, stride: int, dilation: int) -> int:
    return (padded - (window - 1) * dilation - 1) // stride + 1


def _channels_last(shape: Sequence[int]) -> list[int]:
    """The distances of elements that lie with the channels last, for a shape in which they come second."""
    steps, step = [0] * len(shape), shape[1]
    steps[1] = 1
    for axis in reversed(range(2, len(shape))):
        steps[axis] = step
        step *= shape[axis]
    steps[0] = step
    return steps


def _with_two_axes(one: Convolution) -> Convolution:
    """A convolution along one axis, with a second one of size 1."""
    return replace(
        one, sizes=(*one.sizes, 1), counts=(*one.counts, 1), window=(*one.window, 1), strides=(*one.strides, 1),
        dilations=(*one.dilations, 1), low=(*one.low, 0), high=(*one.high, 0),
    )  # fmt: skip


@contextmanager
def _explained(loaded: Any, what: str) -> Iterator[None]:
    """What the frontend raises, as an error of graphc's; it says why in the first line."""
    try:
        yield
    except (loaded.cudnnGraphNotSupportedError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()
        raise BackendError(f"cuDNN refuses {what}: {reason[0] if reason else type(error).__name__}") from error
