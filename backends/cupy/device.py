"""The thin layer between programs and a GPU: everything above it is the same wherever kernels run.

:mod:`graphc.backends.cupy.cuda` implements it with CuPy; the tests with a host compiler, so that whole programs run
without a GPU. Work is queued in order on one stream, and only what says so waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from graphc.ir.types import DType
from graphc.lower.plan import Sought

if TYPE_CHECKING:
    from graphc.backends.cupy.choice import Choices
    from graphc.backends.cupy.module import Unit
    from graphc.backends.cupy.state import Residence

Array: TypeAlias = NDArray[Any]
ALIGNMENT = 256
"""Allocations begin at multiples of this, as those of CUDA do; vectors of 16 bytes count on it."""


class Memory(Protocol):
    """Bytes on the device, free for others once the object is gone."""

    @property
    def address(self) -> int: ...
    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        function: its name in the loaded module.
        words: its arguments, each of 8 bytes: addresses and sizes, in order.
        table: are the words one argument, a structure passed by value?
        shared_bytes: memory that the threads of a block share, beside what the function says itself.
    """

    function: str
    blocks: int
    threads: int
    words: tuple[int, ...]
    table: bool = False
    shared_bytes: int = 0


class Activation(Enum):
    """What is done to a sum of products before it is rounded."""

    NONE = "none"
    RELU = "relu"
    GELU = "gelu"
    """By the hyperbolic tangent."""

    def of(self, x: Array) -> Array:
        """The function on float32."""
        with np.errstate(all="ignore"):
            match self:
                case Activation.NONE:
                    return x
                case Activation.RELU:
                    return np.maximum(x, np.float32(0))
                case Activation.GELU:
                    inner = np.float32(0.7978845608) * (x + np.float32(0.044715) * x * x * x)
                    return np.float32(0.5) * x * (1 + np.tanh(inner))


@dataclass(frozen=True)
class Product:
    """``c = activation(op(a) @ op(b) + addend + bias)`` for row-major matrices ``[m, k] x [k, n]``, batched.

    Attributes:
        dtype: of a and b.
        result: of c.
        a, b, c: addresses.
        lda, ldb, ldc: distances of rows as stored, in elements.
        strides: distances of the matrices of the batch, in elements.
        tf32: may float32 operands be rounded to 10 bits of mantissa?
        bias: the address of an element for each column, of c's type; 0 for none.
        addend: of matrices that lie as those of c do; 0 for none.
    """

    dtype: DType
    result: DType
    a: int
    b: int
    c: int
    m: int
    n: int
    k: int
    lda: int
    ldb: int
    ldc: int
    transpose_a: bool
    transpose_b: bool
    batch: int
    strides: tuple[int, int, int]
    tf32: bool = False
    bias: int = 0
    addend: int = 0
    activation: Activation = Activation.NONE

    @property
    def is_plain(self) -> bool:
        """Is nothing done to the sums?"""
        return not self.bias and not self.addend and self.activation is Activation.NONE

    @property
    def plain(self) -> Product:
        """The same with nothing done to the sums."""
        return replace(self, bias=0, addend=0, activation=Activation.NONE)


@dataclass(frozen=True)
class Convolution:
    """One of the three products of a convolution, computed by a library.

    Whatever is computed, x is ``(batch, *sizes, channels)``, the kernel ``(filters, *window, channels / groups)`` and y
    ``(batch, *counts, filters)``, each dense; the numbers mean what they do in
    :class:`graphc.lower.plan.ConvolutionItem`.

    Attributes:
        dtype: of all three; 16-bit floats are summed in float32.
        x, kernel, y: addresses.
        low, high: how many zeros stand before and behind x along each axis.
        tf32: may float32 operands be rounded to 10 bits of mantissa?
        plan: the library's name for how it is computed.
        workspace, workspace_bytes: memory that the plan may write.
    """

    sought: Sought
    dtype: DType
    x: int
    kernel: int
    y: int
    batch: int
    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    groups: int
    channels: int
    filters: int
    tf32: bool = False
    plan: str = ""
    workspace: int = 0
    workspace_bytes: int = 0


@dataclass(frozen=True)
class Clear:
    """Sets bytes to zero."""

    address: int
    nbytes: int


Work: TypeAlias = Launch | Product | Convolution | Clear


@dataclass(frozen=True)
class Task:
    """Work, and the positions of the earlier tasks that it has to wait for."""

    work: Work
    after: tuple[int, ...] = ()


class Module(Protocol):
    """A loaded translation unit; it must live as long as graphs that use it."""

    @property
    def functions(self) -> Mapping[str, Any]: ...


class Graph(Protocol):
    """Recorded tasks, ready to be queued again and again."""

    def launch(self) -> None:
        """Queue all of it."""
        ...


class Mark(Protocol):
    """A point in the queue."""

    def wait(self) -> None:
        """Return when everything queued before it is done."""
        ...


class Device(Protocol):
    """A GPU, or what stands for one.

    Attributes:
        name: for people.
        arch: what the kernels are compiled for, such as ``sm_90``.
        shared_bytes: what a block may have of shared memory.
        lock: held by whoever queues work; programs run one after another.
        residence: the parameters that it holds.
        choices: which of several ways to do a task were found to be the fastest.
        versions: of what makes code for it and runs that, by which measurements are told apart.
        measures: do times say anything about it?
    """

    name: str
    arch: str
    shared_bytes: int
    lock: threading.RLock
    residence: Residence
    choices: Choices

    @property
    def versions(self) -> str: ...
    @property
    def measures(self) -> bool: ...

    def allocate(self, nbytes: int, what: str) -> Memory:
        """Memory that begins at a multiple of ``ALIGNMENT``.

        Raises:
            BackendError: there is not enough; the message says how much ``what`` takes and how much is left.
        """
        ...

    def free_bytes(self) -> int:
        """How much may still be allocated."""
        ...

    def load(self, unit: Unit) -> Module:
        """Compile the kernels of a unit, or take them from the cache, and load them."""
        ...

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Memory of the host that copies need not wait for."""
        ...

    def upload(self, address: int, array: Array) -> None:
        """Queue a copy to the device. A pinned array must not change before it is done; others are taken at once."""
        ...

    def upload_beside(self, address: int, array: Array, after: Any) -> Mark:
        """Queue a copy of a pinned array to the device beside what is queued: it waits for a mark alone, or for none.

        What is queued from now on waits for it, and so does the mark that is returned.
        """
        ...

    def download(self, array: Array, address: int) -> None:
        """Queue a copy to the host, which is done after :meth:`synchronize` or a mark."""
        ...

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Queue a copy within the device."""
        ...

    def clear(self, address: int, nbytes: int) -> None:
        """Queue setting bytes to zero."""
        ...

    def record(self, module: Any, tasks: Sequence[Task]) -> Graph:
        """Tasks with functions of a loaded module as one graph; those that need not wait may run side by side."""
        ...

    def timed(self, graph: Any, times: int) -> list[float]:
        """Queue a graph so many times and wait: the seconds that each took on the device."""
        ...

    def convolution_plans(self, convolution: Convolution) -> Iterator[str]:
        """Plans by which the library can compute a convolution, wherever operands lie, the most promising first.

        Each gives the same bits for the same operands, and has the same name in every process. The next one is compiled
        when it is asked for.

        Raises:
            BackendError: there are none, or there is no library.
        """
        ...

    def convolution_workspace(self, convolution: Convolution) -> int:
        """The bytes of the workspace that a convolution's plan takes. The plan is compiled, if it is not yet.

        Raises:
            BackendError: that failed.
        """
        ...

    def library_version(self) -> str:
        """Which library convolves, without loading it; empty if there is none."""
        ...

    def finishes(self, product: Product) -> bool:
        """Can it do to the sums what this product says, in one launch with the product? A kernel does it otherwise."""
        ...

    def mark(self) -> Mark:
        """The present end of the queue."""
        ...

    def synchronize(self) -> None:
        """Wait until everything queued is done.

        Raises:
            BackendError: the device has stopped.
        """
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A new array of the device's own kind."""
        ...

    def is_array(self, value: object) -> bool:
        """Is it an array of the device's own kind, on this device?"""
        ...

    def address_of(self, array: Any) -> int:
        """Where such an array begins."""
        ...

    def enter(self) -> None:
        """Let what is queued next wait for what the caller has queued on such arrays by other means."""
        ...

    def leave(self) -> None:
        """Let what the caller queues next by other means wait for what has been queued here."""
        ...
