"""What a backend is, and how backends are found.

Built-in backends stand in a table of module names and are imported when first asked for. Others announce
themselves through the entry-point group ``graphc.backends``; an entry point names an object with the
attributes of :class:`Backend`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from graphc.errors import BackendError, GraphcError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUILT_IN = {
    "numba": "graphc.backends.numba",
    "cupy": "graphc.backends.cupy",
    "reference": "graphc.backends.reference",
}
GROUP = "graphc.backends"


@dataclass(frozen=True)
class Failure:
    """A run-time check that failed: its position in ``Plan.checks`` and the value at fault."""

    check: int
    detail: int


class Bound(Protocol):
    """An executable for one combination of sizes."""

    def run(self, inputs: Sequence[NDArray[np.generic]], outputs: Sequence[NDArray[np.generic]]) -> Failure | None:
        """Run one step: read ``inputs``, fill ``outputs``, commit the updates.

        Arrays are C-contiguous and of the plan's types. After a Failure no state has changed.
        """
        ...


class Executable(Protocol):
    """A compiled plan. One that keeps parameters on a device is a :class:`DeviceExecutable`."""

    def bind(self, dims: Mapping[str, int]) -> Bound:
        """Plan memory for these sizes. Compiles no machine code."""
        ...

    def source(self) -> str:
        """The generated source of all kernels, readable; empty if there is none."""
        ...


class Pending(Protocol):
    """A step that has been started."""

    def wait(self) -> tuple[Sequence[NDArray[np.generic]], Failure | None]:
        """The outputs once they are there, or what failed."""
        ...


class DeviceBound(Bound, Protocol):
    """An executable on a device for one combination of sizes. Inputs and outputs may be arrays of the device's kind."""

    def start(self, inputs: Sequence[Any]) -> Pending:
        """Queue a step. If it fails, later ones change no state until the failure has been read."""
        ...


@runtime_checkable
class DeviceExecutable(Protocol):
    """A compiled plan that keeps parameters on a device of its own."""

    def bind(self, dims: Mapping[str, int]) -> DeviceBound: ...
    def source(self) -> str: ...

    def holds(self, value: object) -> bool:
        """Is it an array on that device?"""
        ...

    def keeps(self, mirror: object) -> bool:
        """Is this buffer of a parameter one on that device?"""
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A new array on that device."""
        ...

    def place(self, arrays: Sequence[NDArray[np.generic]]) -> Sequence[Any] | None:
        """Copies on that device; None if that leaves too little room for others."""
        ...


@runtime_checkable
class Backend(Protocol):
    """How a graph becomes something that runs.

    Attributes:
        name: what the user passes as ``backend=``.
        priority: ``backend="auto"`` takes the available backend with the highest.
        lowers: whether it wants a plan of kernels (else ``plan.graph`` is all it reads).
    """

    @property
    def name(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def lowers(self) -> bool: ...

    def available(self) -> str | None:
        """None if it can run here, else the reason and the remedy in one sentence."""
        ...

    def takes(self, op: object) -> bool:
        """Does it execute this composite op whole? Otherwise the op is decomposed."""
        ...

    def compile(self, plan: object) -> Executable:
        """Compile a :class:`~graphc.lower.plan.Plan`."""
        ...


@dataclass(frozen=True)
class BrokenBackend:
    """Stands in the list for a plug-in that cannot be imported, so that one broken package stops nobody."""

    name: str
    reason: BackendError
    priority: int = -1
    lowers: bool = False

    def available(self) -> str:
        """Why it is broken."""
        return f"{self.reason.message}; {self.reason.remedy}"

    def takes(self, op: object) -> bool:
        """Nothing."""
        return False

    def compile(self, plan: object) -> Executable:
        """Raise what importing the plug-in raised."""
        raise self.reason


def backends() -> tuple[Backend, ...]:
    """All known backends, built in and third-party, the most preferred first; broken plug-ins say why."""
    found: list[Backend] = [_load_built_in(name) for name in BUILT_IN]
    for name in sorted(_entry_points()):
        try:
            found.append(_load_entry_point(name))
        except BackendError as error:
            found.append(BrokenBackend(name, error))
    return tuple(sorted(found, key=lambda backend: -backend.priority))


def find_backend(name: str | Backend) -> Backend:
    """The backend of this name, or this backend, ready to compile.

    Raises:
        BackendError: there is none of this name, it is broken, or it cannot run here.
    """
    if not isinstance(name, str):
        if not all(hasattr(name, part) for part in ("name", "compile")):
            raise BackendError(f"{name!r} is not a backend", remedy="give a name, such as 'auto', or a backend object")
        backend, name = name, name.name
    elif name == "auto":
        return _best()
    elif name in BUILT_IN:
        backend = _load_built_in(name)
    elif name in _entry_points():
        backend = _load_entry_point(name)
    else:
        known = ", ".join(sorted({*BUILT_IN, *_entry_points()}))
        raise BackendError(f"no backend is called {name!r}", remedy=f"use one of: {known}, auto")
    reason = reason_against(backend)
    if reason is not None:
        raise BackendError(
            f"backend {name!r} cannot run here: {reason}",
            remedy="run `python -m graphc doctor`, or use backend='auto'",
        )
    return backend


_told: set[str] = set()


def _best() -> Backend:
    """The preferred backend that can run. One that is passed over although it seems to be meant is named once."""
    for backend in backends():
        reason = reason_against(backend)
        if reason is None:  # all is there, but a device may be another's, or broken
            reason = getattr(backend, "cannot_open", lambda: None)()
        if reason is None:
            return backend
        if getattr(backend, "is_expected", lambda: False)() and backend.name not in _told:
            _told.add(backend.name)
            warnings.warn(f"backend 'auto' does without {backend.name!r}: {reason}", stacklevel=2)
    raise BackendError("no backend can run here", remedy="run `python -m graphc doctor`")


def reason_against(backend: Backend) -> str | None:
    """None if the backend can run here, else the reason and the remedy."""
    try:
        return backend.available()
    except Exception as error:  # a plug-in may fail in any way; one that cannot even say so cannot run
        return f"asking it failed with {type(error).__name__}: {error}; reinstall or uninstall its package"


def fits_of(backend: Backend) -> Callable[[object], bool]:
    """Says of a node with an op that the backend takes whether it does so for these operands."""
    return getattr(backend, "fits", lambda node: True)


def notes_of(executable: object) -> tuple[str, ...]:
    """What a backend has to say on what it chose by itself for an executable, a line each; most say nothing."""
    return getattr(executable, "notes", tuple)()


def compile_plan(plan: object, backend: Backend) -> Executable:
    """What the backend makes of a plan.

    Raises:
        BackendError: whatever else the backend raised.
    """
    try:
        return backend.compile(plan)
    except GraphcError:
        raise
    except Exception as error:  # a plug-in may fail in any way
        raise BackendError(
            f"backend {backend.name!r} failed to compile the graph: {type(error).__name__}: {error}",
            remedy="report this to the authors of the backend, or use another one, such as backend='reference'",
        ) from error


def _load_built_in(name: str) -> Backend:
    return importlib.import_module(BUILT_IN[name]).backend


def _entry_points() -> dict[str, object]:
    from importlib.metadata import entry_points  # takes longer to import than all of graphc.ir

    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}


def _load_entry_point(name: str) -> Backend:
    point = _entry_points()[name]
    try:
        backend = point.load()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]
    except Exception as error:  # a plug-in may fail in any way while it is imported
        raise BackendError(
            f"the plug-in backend {name!r} cannot be imported: {type(error).__name__}: {error}",
            remedy="reinstall or uninstall the package that provides it",
        ) from error
    if not isinstance(backend, Backend):
        raise BackendError(
            f"the plug-in backend {name!r} lacks an attribute of graphc.backend.Backend",
            remedy="see docs/interfaces.md for what a backend needs",
        )
    return backend
